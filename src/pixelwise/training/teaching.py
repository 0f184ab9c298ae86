"""Learn from another model beside the masks, such as one network of the size of each from an ensemble of several.

Hinton, Vinyals and Dean (*Distilling the Knowledge in a Neural Network*, 2015), pixel by pixel, at a temperature of 1.
"""

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from pixelwise.classes import ClassTable
from pixelwise.config import Config, Preprocessing
from pixelwise.errors import ConfigError
from pixelwise.models.blocks import centre_crop, folded
from pixelwise.models.bundle import Bundle
from pixelwise.models.ensemble import seen_by
from pixelwise.training.finetune import SHAPE


def adopt_network(config: Config, teacher: Bundle, classes: ClassTable) -> Config:
    """The settings, with a network like one of the teacher's where the caller leaves it free.

    Raises:
        ConfigError: the teacher has other classes, or sees images of another size.
    """
    said = teacher.description
    if said.classes.names != classes.names:
        raise ConfigError(
            f"The teacher knows {', '.join(said.classes.names)}; this data has {', '.join(classes.names)}.",
            where=teacher.path,
            remedy="A teacher has the same classes in the same order: name them alike in a data.yaml.",
        )
    if "model.padded" in config.given() and config.model.padded != said.model.padded:
        raise ConfigError(
            f"The teacher's network has padded={said.model.padded}.",
            where=teacher.path,
            remedy="Leave model.padded out.",
        )
    if "data.resize" in config.given() and config.data.resize != said.preprocessing.resize:
        raise ConfigError(
            f"The teacher sees images at {said.preprocessing.resize or 'their own size'}, and 'data.resize' is "
            f"{config.data.resize}.",
            where=teacher.path,
            remedy="Leave data.resize out.",
        )
    given = config.given()
    network = {f"model.{name}": getattr(said.model, name) for name in SHAPE}
    seen = {"data.resize": said.preprocessing.resize, "data.normalisation": said.preprocessing.normalisation}
    return config.with_values({key: value for key, value in (network | seen).items() if key not in given})


class Teacher:
    """A model that says how probable every class is, of images as the network in training sees them.

    Args:
        bundle: of the model.
        student: what is done to images before the network in training sees them.
        fabric: device and precision.

    Raises:
        ConfigError: they normalise images differently, or have other channels.
    """

    def __init__(self, bundle: Bundle, student: Preprocessing, fabric: Fabric) -> None:
        theirs = bundle.description.preprocessing
        for name in ("channels", "normalisation", "resize"):
            if getattr(theirs, name) != getattr(student, name):
                values = getattr(theirs, name), getattr(student, name)
                raise ConfigError(
                    f"The teacher has {name} {values[0]}, the network in training {values[1]}.",
                    where=bundle.path,
                    remedy="Leave such settings out: they follow the teacher's.",
                )
        self._scale, self._shift = (part.to(fabric.device)[:, None, None] for part in seen_by(theirs, student))
        network = folded(bundle.network()).to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network, self._fabric = network, fabric

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "B C H W"], like: Float[Tensor, "B K h w"]) -> Float[Tensor, "B K h w"]:
        """Probabilities, of the size of `like`."""
        seen = (image * self._scale + self._shift).contiguous(memory_format=torch.channels_last)
        with self._fabric.autocast():
            logits = self._network(seen)
        probabilities = F.softmax(logits.float(), dim=1)
        return centre_crop(probabilities, (like.shape[-2], like.shape[-1]))
