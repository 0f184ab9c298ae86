"""Several networks as one: their probabilities are averaged (Lakshminarayanan et al., 2017)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.config import Preprocessing

SMALLEST_PROBABILITY = 1e-7
"""Logarithms are taken of nothing smaller."""


class Ensemble(nn.Module):
    """Networks that each see the image as they were trained to.

    Args:
        members: networks from images to logits.
        scale: what the image, normalised as for the ensemble, is multiplied by for each member and channel;
        shift: and what is then added.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, members: Sequence[nn.Module], scale: Float[Tensor, "M C"], shift: Float[Tensor, "M C"]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """Logarithms of the mean probability, of which a softmax gives the probability again."""
        total: Tensor | None = None
        for member, scale, shift in zip(self.members, self.scale, self.shift, strict=True):
            seen = image * scale[:, None, None] + shift[:, None, None]
            probabilities = F.softmax(member(seen.contiguous(memory_format=torch.channels_last)).float(), dim=1)
            total = probabilities if total is None else total.add_(probabilities)
        assert total is not None
        return (total / len(self.members)).clamp_min(SMALLEST_PROBABILITY).log()


def seen_by(theirs: Preprocessing, ours: Preprocessing) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """What turns images normalised by `ours` into images normalised by `theirs`: a factor, and what is then added."""
    if theirs.normalisation != "standard":
        return torch.ones(theirs.channels), torch.zeros(theirs.channels)
    mean, deviation = (torch.tensor(values, dtype=torch.float64) for values in (ours.mean, ours.deviation))
    other_mean, other_deviation = (
        torch.tensor(values, dtype=torch.float64) for values in (theirs.mean, theirs.deviation)
    )
    return (deviation / other_deviation).float(), ((mean - other_mean) / other_deviation).float()
