"""Random changes of training patches: in batch, on the training device, with one resampling.

The loader reads windows that are larger than the patch (`window_size`), so that a rotated patch shows
image and not border. What is done to a sample is drawn on the CPU from the seed of that sample alone
(`draw`), hence does not depend on the batch or the process it is in. `apply` then does it to the batch:
all of the geometry is one sampling grid, the intensities are arithmetic.

`GEOMETRIC` and `INTENSITY` hold the parts. For all of them an amount of zero changes nothing.

Legend: B batch, C image channels, h w window, H W patch, N x M nodes of the elastic deformation.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from pixelwise import outside
from pixelwise.config import AugmentConfig
from pixelwise.data.transfer import to_device
from pixelwise.errors import ConfigError, DataError

Size = tuple[int, int]

ELASTIC_REACH = 2.0
"""Windows leave room for so many deviations of the elastic displacement; what reaches further is reflected."""


GRAINS = 1 << 22
"""Numbers in the table that noise is taken from."""


@dataclass(frozen=True)
class Draw:
    """What happens to each sample of a batch; all on the CPU."""

    matrix: Float[Tensor, "B 2 3"]
    """From a place in the patch to its place in the window, both (x, y) in pixels from the patch's centre."""
    nodes: Float[Tensor, "B 2 N M"]
    """Elastic displacement (x, y) in pixels at the nodes of a coarse grid."""
    spacing_px: float
    """Distance of those nodes."""
    warped: Bool[Tensor, " B"]
    """Samples that are resampled; the others are at most flipped, which is exact."""
    amounts: Float[Tensor, "B P"]
    """How much of each entry of `INTENSITY`, in its order; zero where it is not applied."""
    seeds: Int[Tensor, " B"]
    """For parts that need random numbers per pixel."""


def _sent(numbers: Float[Tensor, "*n"], like: Float[Tensor, "*m"]) -> Float[Tensor, "*n"]:
    """On the device of another tensor, and of its type."""
    return to_device(numbers.to(like.dtype), like.device)


# --- Geometry ---------------------------------------------------------------------------------------------------------


def _affine(entries: list[Tensor | float], like: Float[Tensor, " B"]) -> Float[Tensor, "B 3 3"]:
    """Homogeneous matrices from the six entries of their two upper rows."""
    zero = torch.zeros_like(like)
    return torch.stack([zero + entry for entry in [*entries, 0.0, 0.0, 1.0]], dim=-1).reshape(-1, 3, 3)


def shear(amount: Float[Tensor, "B 2"], config: AugmentConfig, _patch: Size) -> Float[Tensor, "B 3 3"]:
    """Rows slide along x; areas stay."""
    slope = torch.tan(torch.deg2rad(amount[:, 0] * _shear_degrees(config)))
    return _affine([1.0, slope, 0.0, 0.0, 1.0, 0.0], slope)


def scale(amount: Float[Tensor, "B 2"], config: AugmentConfig, _patch: Size) -> Float[Tensor, "B 3 3"]:
    """Objects grow by a factor between 1 / (1 + scale) and 1 + scale, even on a logarithmic axis."""
    step = (1.0 + config.strength * config.scale) ** -amount[:, 0]  # objects twice as large: half as far in the window
    return _affine([step, 0.0, 0.0, 0.0, step, 0.0], step)


def rotation(amount: Float[Tensor, "B 2"], config: AugmentConfig, _patch: Size) -> Float[Tensor, "B 3 3"]:
    """Turn about the centre; positive angles turn objects counter-clockwise on the screen."""
    angle = torch.deg2rad(amount[:, 0] * _rotation_degrees(config))
    sine, cosine = torch.sin(angle), torch.cos(angle)
    return _affine([cosine, -sine, 0.0, sine, cosine, 0.0], angle)


def translation(amount: Float[Tensor, "B 2"], config: AugmentConfig, patch: Size) -> Float[Tensor, "B 3 3"]:
    """Shift along both axes by at most a share of the patch."""
    reach = config.strength * config.translation_fraction
    x, y = amount[:, 0] * reach * patch[1], amount[:, 1] * reach * patch[0]
    return _affine([1.0, 0.0, x, 0.0, 1.0, y], x)


def _shear_degrees(config: AugmentConfig) -> float:
    return min(config.strength * config.shear_degrees, 60.0)  # near 90 degrees a patch would be a line


def _rotation_degrees(config: AugmentConfig) -> float:
    return min(config.strength * config.rotation_degrees, 180.0)


GEOMETRIC: dict[str, Callable[[Tensor, AugmentConfig, Size], Tensor]] = {
    "shear": shear,
    "scale": scale,
    "rotation": rotation,
    "translation": translation,
}
"""Each makes matrices, from patch to window, of two amounts within plus and minus 1; applied in this order."""


def _flip(chance: Float[Tensor, "B 2"], config: AugmentConfig) -> Float[Tensor, "B 3 3"]:
    """Mirror left-right or upside-down where a number within 0..1 is below the probability."""
    allowed = config.strength > 0.0
    x = torch.where(allowed & (chance[:, 0] < config.flip_horizontal), -1.0, 1.0)
    y = torch.where(allowed & (chance[:, 1] < config.flip_vertical), -1.0, 1.0)
    return _affine([x, 0.0, 0.0, 0.0, y, 0.0], chance[:, 0])


def _cubic_weights(size: int, spacing_px: float, nodes: int) -> Float[Tensor, "H N"]:
    """Weights of nodes for each pixel, both centred: cubic convolution (Keys 1981, eq. 4, a = -1/2)."""
    pixels = (torch.arange(size) - (size - 1) / 2.0) / spacing_px
    places = torch.arange(nodes) - (nodes - 1) / 2.0
    t = (pixels[:, None] - places[None, :]).abs()
    near = (1.5 * t - 2.5) * t * t + 1.0
    far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    return torch.where(t < 1.0, near, torch.where(t < 2.0, far, 0.0))


def _node_count(size: int, spacing_px: float) -> int:
    """So many that every pixel lies between four nodes."""
    return math.ceil((size - 1) / spacing_px) + 3


def elastic_field(nodes: Float[Tensor, "B 2 N M"], spacing_px: float, patch: Size) -> Float[Tensor, "B 2 H W"]:
    """Displacement (x, y) in pixels of every pixel, by bicubic interpolation (U-Net paper, section 3.1)."""
    over_y = _sent(_cubic_weights(patch[0], spacing_px, nodes.shape[2]), nodes)
    over_x = _sent(_cubic_weights(patch[1], spacing_px, nodes.shape[3]), nodes)
    return (over_y @ nodes) @ over_x.T


def window_size(patch: Size, config: AugmentConfig) -> Size:
    """Height and width, in pixels, of the window that a patch can reach into when it is moved and deformed.

    Equal to the patch where nothing is, at most twice the longer edge plus the reach of the elastic
    deformation, and larger than the patch by an even number, so that the patch lies in the middle.
    """
    if not _warps(config):
        return patch
    height, width = (edge / 2.0 for edge in patch)
    width += math.tan(math.radians(_shear_degrees(config))) * height
    diagonal, angle = math.hypot(height, width), math.radians(_rotation_degrees(config))
    # a half-diagonal turned by up to `angle` reaches furthest where it is nearest to the axis
    half_height = diagonal * math.cos(max(0.0, math.atan2(width, height) - angle))
    half_width = diagonal * math.cos(max(0.0, math.atan2(height, width) - angle))
    magnified = 1.0 + config.strength * config.scale
    shift = config.strength * config.translation_fraction
    elastic_px = math.ceil(ELASTIC_REACH * config.strength * config.elastic_sigma_px)
    halves = (half_height * magnified + shift * patch[0], half_width * magnified + shift * patch[1])
    # rounded first, because 128.00000001 means 128
    margins = [
        math.ceil(round(min(half, max(patch)) - edge / 2.0, 6)) + elastic_px
        for half, edge in zip(halves, patch, strict=True)
    ]
    return patch[0] + 2 * margins[0], patch[1] + 2 * margins[1]


def _warps(config: AugmentConfig) -> bool:
    """Whether any sample is resampled at all."""
    ranges = (
        config.rotation_degrees,
        config.scale,
        config.shear_degrees,
        config.translation_fraction,
        config.elastic_sigma_px,
    )
    return config.strength > 0.0 and config.geometric_probability > 0.0 and max(ranges) > 0.0


# --- Intensity --------------------------------------------------------------------------------------------------------


def _each(amount: Float[Tensor, " B"], image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 1 1"]:
    return _sent(amount, image)[:, None, None, None]


def blur(image: Float[Tensor, "B C H W"], amount: Float[Tensor, " B"], _seeds: Tensor) -> Float[Tensor, "B C H W"]:
    """Gaussian of deviation |amount| pixels, cut at three of them; the edge is repeated."""
    sigma = amount.abs().clamp_min(1e-3)
    radius = math.ceil(3.0 * float(sigma.max()))
    taps = torch.exp(-0.5 * (torch.arange(radius + 1) / sigma[:, None]) ** 2)
    # a sample's own cut, for it must not depend on what else is in the batch
    taps *= torch.arange(radius + 1) <= torch.ceil(3.0 * sigma)[:, None]
    taps = _sent(taps / (2.0 * taps.sum(dim=1, keepdim=True) - 1.0), image)[..., None, None, None]  # B R 1 1 1
    # sums of shifted images: on a processor four times faster than a convolution with a kernel for each sample
    for axis, border in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded, size = F.pad(image, border, mode="replicate"), image.shape[axis]
        image = padded.narrow(axis, radius, size) * taps[:, 0]
        for step in range(1, radius + 1):
            pair = padded.narrow(axis, radius - step, size) + padded.narrow(axis, radius + step, size)
            image.addcmul_(pair, taps[:, step])
    return image


def brightness(
    image: Float[Tensor, "B C H W"], amount: Float[Tensor, " B"], _seeds: Tensor
) -> Float[Tensor, "B C H W"]:
    """Add `amount` deviations of the image."""
    return image + _each(amount, image)


def contrast(image: Float[Tensor, "B C H W"], amount: Float[Tensor, " B"], _seeds: Tensor) -> Float[Tensor, "B C H W"]:
    """Multiply the distance from the sample's mean, channel by channel, by 1 + amount."""
    mean = image.mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean, image, _each((1.0 + amount).clamp_min(0.1), image))


def gamma(image: Float[Tensor, "B C H W"], amount: Float[Tensor, " B"], _seeds: Tensor) -> Float[Tensor, "B C H W"]:
    """Raise the image, brought to 0..1 by its own range, to 1 + amount, or to 1 / (1 - amount) below zero."""
    exponent = torch.where(amount >= 0.0, 1.0 + amount, 1.0 / (1.0 - amount))
    low, high = image.amin(dim=(1, 2, 3), keepdim=True), image.amax(dim=(1, 2, 3), keepdim=True)
    level = (image - low) / torch.where(high > low, high - low, 1.0)  # a constant image stays what it is
    # level ** exponent, in half the time
    return torch.lerp(low, high, level.log2_().mul_(_each(exponent, image)).exp2_())


def noise(image: Float[Tensor, "B C H W"], amount: Float[Tensor, " B"], seeds: Tensor) -> Float[Tensor, "B C H W"]:
    """Add Gaussian noise of deviation |amount|."""
    grain = torch.stack([_grain(image[0], seed) for seed in seeds.tolist()])
    return torch.addcmul(image, grain.to(image), _each(amount.abs(), image))


def _grain(like: Float[Tensor, "C H W"], seed: int) -> Float[Tensor, "C H W"]:
    """Gaussian numbers: a part of a table that begins where the seed says. Drawing them anew takes ten times as long.

    All numbers of a sample are drawn apart from each other; those of two samples may be parts of one another.
    """
    device, count = like.device, like.numel()
    if 2 * count > GRAINS:
        return torch.randn(like.shape, generator=torch.Generator(device).manual_seed(seed), device=device)
    start = seed % (GRAINS - count + 1)
    return _grains(device)[start : start + count].view(like.shape)


@functools.cache
def _grains(device: torch.device) -> Float[Tensor, " N"]:
    return torch.randn(GRAINS, generator=torch.Generator(device).manual_seed(0), device=device)


def saturation(
    image: Float[Tensor, "B C H W"], amount: Float[Tensor, " B"], _seeds: Tensor
) -> Float[Tensor, "B C H W"]:
    """Multiply the distance of each pixel's normalised channels from their mean by 1 + amount; one stays what it is."""
    mean = image.mean(dim=1, keepdim=True)
    return torch.lerp(mean, image, _each((1.0 + amount).clamp_min(0.0), image))  # below 0 hues would be inverted


def tint(image: Float[Tensor, "B C H W"], amount: Float[Tensor, " B"], seeds: Tensor) -> Float[Tensor, "B C H W"]:
    """Add to each channel its own share, within plus and minus 1, of |amount| deviations: another light or stain."""
    shares = np.stack([np.random.default_rng(seed).uniform(-1.0, 1.0, image.shape[1]) for seed in seeds.tolist()])
    return image + _sent(torch.from_numpy(shares) * amount.abs()[:, None], image)[..., None, None]


@dataclass(frozen=True)
class Intensity:
    """A change of pixel values: the largest amount a configuration asks for, and what an amount does."""

    reach: Callable[[AugmentConfig], float]
    change: Callable[[Tensor, Tensor, Tensor], Tensor]


LIGHT: dict[str, Intensity] = {
    "blur": Intensity(lambda config: config.blur_sigma_px, blur),
    "brightness": Intensity(lambda config: config.brightness, brightness),
    "contrast": Intensity(lambda config: config.contrast, contrast),
    "gamma": Intensity(lambda config: config.gamma, gamma),
    "noise": Intensity(lambda config: config.noise, noise),
}
"""Applied in this order, that of a camera: optics, exposure, response, sensor."""

COLOUR: dict[str, Intensity] = {
    "saturation": Intensity(lambda config: config.saturation, saturation),
    "tint": Intensity(lambda config: config.tint, tint),
}
"""What a camera makes of it afterwards. Drawn last: a seed does the rest as it did before there were these."""

INTENSITY = LIGHT | COLOUR
"""All of them, in the order in which they are applied."""


# --- Both -------------------------------------------------------------------------------------------------------------


def draw(seeds: Int[Tensor, " B"], patch: Size, config: AugmentConfig) -> Draw:
    """What happens to the samples with these seeds, each drawn from its seed alone."""
    node_shape = (2, *(_node_count(edge, config.elastic_spacing_px) for edge in patch))
    rngs = [np.random.default_rng(seed) for seed in (seeds.cpu() & 0x7FFF_FFFF_FFFF_FFFF).tolist()]
    widths = [2, 1, 2 * len(GEOMETRIC), len(LIGHT), len(LIGHT)]
    numbers = torch.from_numpy(np.stack([rng.random(sum(widths)) for rng in rngs]))
    flips, chance, moves, levels, picks = torch.split_with_sizes(numbers, widths, dim=1)
    gaussians = torch.from_numpy(np.stack([rng.standard_normal(node_shape, dtype=np.float32) for rng in rngs]))
    own_seeds = torch.tensor([int(rng.integers(2**62)) for rng in rngs])
    colours = torch.from_numpy(np.stack([rng.random((2, len(COLOUR))) for rng in rngs]))
    levels, picks = (torch.cat([old, new], dim=1) for old, new in zip((levels, picks), colours.unbind(1), strict=True))
    warped = (chance[:, 0] < config.geometric_probability) & _warps(config)
    matrix = _flip(flips, config)
    moves = (2.0 * moves - 1.0) * warped[:, None]
    for index, part in enumerate(GEOMETRIC.values()):
        matrix = part(moves[:, 2 * index : 2 * index + 2], config, patch) @ matrix
    reach = torch.tensor([part.reach(config) for part in INTENSITY.values()], dtype=numbers.dtype) * config.strength
    return Draw(
        matrix=matrix[:, :2].float(),
        nodes=gaussians * (config.strength * config.elastic_sigma_px * warped[:, None, None, None]).float(),
        spacing_px=config.elastic_spacing_px,
        warped=warped,
        amounts=((2.0 * levels - 1.0) * reach * (picks < config.intensity_probability)).float(),
        seeds=own_seeds,
    )


def _sampling_grid(made: Draw, like: Float[Tensor, "B C h w"], patch: Size) -> Float[Tensor, "B H W 2"]:
    """Where in the window every patch pixel comes from, in the units of `F.grid_sample`: -1..1, edge to edge."""
    window, device = (like.shape[2], like.shape[3]), like.device
    middle = [gap // 2 + edge / 2.0 for gap, edge in zip(_gaps(window, patch), patch, strict=True)]
    unit = 2.0 / torch.tensor(window[::-1])  # x, y: units of one pixel
    centre = torch.tensor(middle[::-1]) * unit - 1.0  # zero unless the patch lies half a pixel beside the middle
    matrix = _sent(made.matrix * unit[:, None], like)[..., None, None]  # B 2 3 1 1
    y = (torch.arange(patch[0], device=device) - (patch[0] - 1) / 2.0)[:, None]
    x = torch.arange(patch[1], device=device) - (patch[1] - 1) / 2.0
    shift = matrix[:, :, 2] + _sent(centre, like)[:, None, None]
    field = matrix[:, :, 0] * x + (matrix[:, :, 1] * y + shift)  # B 2 H W
    if bool(made.nodes.any()):
        field += elastic_field(_sent(made.nodes * unit[:, None, None], like), made.spacing_px, patch)
    return field.permute(0, 2, 3, 1)


def _gaps(window: Size, patch: Size) -> Size:
    return window[0] - patch[0], window[1] - patch[1]


def _crop(batch: Tensor, patch: Size) -> Tensor:
    """The middle of the last two axes."""
    top, left = (gap // 2 for gap in _gaps((batch.shape[-2], batch.shape[-1]), patch))
    return batch[..., top : top + patch[0], left : left + patch[1]]


def _move(image: Tensor, labels: Tensor, made: Draw, patch: Size) -> tuple[Tensor, Tensor]:
    """Crop, flip and warp windows to patches; both are B x channels x h x w."""
    if bool(made.warped.all()):
        return _warped(image, labels, made, patch)
    # laid as resampled ones are: sums over pixels shall not depend on what else is in the batch
    parts = [_crop(part, patch).clone(memory_format=torch.contiguous_format) for part in (image, labels)]
    if bool(made.warped.any()):
        warped = to_device(made.warped, image.device)[:, None, None, None]
        pairs = zip(_warped(image, labels, made, patch), parts, strict=True)
        parts = [torch.where(warped, moved, still) for moved, still in pairs]
    mirrored = torch.diagonal(made.matrix, dim1=1, dim2=2) < 0.0  # B 2: x, y
    for flips, axes in (((True, False), (-1,)), ((False, True), (-2,)), ((True, True), (-2, -1))):
        rows = torch.nonzero(~made.warped & (mirrored == torch.tensor(flips)).all(dim=1))[:, 0]
        if len(rows):
            places = to_device(rows, image.device)
            for part in parts:
                part[places] = part[places].flip(axes)
    return parts[0], parts[1]


def _warped(image: Tensor, labels: Tensor, made: Draw, patch: Size) -> tuple[Tensor, Tensor]:
    """All samples resampled."""
    grid = _sampling_grid(made, image, patch)
    images = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # labels are at most 255 and the nearest one is copied, so that floats hold them exactly
    numbers = labels.to(image.dtype)
    moved = F.grid_sample(numbers, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return images, moved.to(labels.dtype)


def apply(
    image: Shaped[Tensor, "B C h w"],
    mask: UInt8[Tensor, "B h w"] | Int[Tensor, "B h w"],
    made: Draw,
    patch: Size,
    scaling: Float[Tensor, "B 2 C"] | None = None,
) -> tuple[Float[Tensor, "B C H W"], UInt8[Tensor, "B H W"] | Int[Tensor, "B H W"]]:
    """Patches from windows, changed as drawn; the windows stay as they are.

    Args:
        image: windows, raw or normalised.
        mask: class index 0..254 or IGNORE of every window pixel.
        made: what to do, from `draw`.
        patch: height and width of the result.
        scaling: as for `augment`.
    """
    images, labels = _changed(image, mask[:, None], made, patch, scaling)
    return images, labels[:, 0]


def _changed(
    image: Shaped[Tensor, "B C h w"],
    labels: Shaped[Tensor, "B L h w"],
    made: Draw,
    patch: Size,
    scaling: Float[Tensor, "B 2 C"] | None,
) -> tuple[Float[Tensor, "B C H W"], Shaped[Tensor, "B L H W"]]:
    """What `apply` does, for any number of labels of a pixel."""
    images, moved = _move(image if image.is_floating_point() else image.float(), labels, made, patch)
    if scaling is not None:
        factor, shift = _sent(scaling, images)[..., None, None].unbind(1)
        images = images.mul_(factor).add_(shift)
    for index, part in enumerate(INTENSITY.values()):
        amount = made.amounts[:, index]
        rows = torch.nonzero(amount)[:, 0]
        if len(rows) == len(images):
            images = part.change(images, amount, made.seeds)
        elif len(rows):
            places = to_device(rows, images.device)
            images[places] = part.change(images[places], amount[rows], made.seeds[rows])
    return images, moved


@torch.no_grad()
def augment(
    image: Shaped[Tensor, "B C h w"],
    mask: UInt8[Tensor, "B h w"] | Int[Tensor, "B h w"],
    seeds: Int[Tensor, " B"],
    patch: Size,
    config: AugmentConfig,
    scaling: Float[Tensor, "B 2 C"] | None = None,
) -> tuple[Float[Tensor, "B C H W"], UInt8[Tensor, "B H W"] | Int[Tensor, "B H W"]]:
    """Randomly changed patches from windows.

    A sample that no part changes is exactly the middle of its window, normalised. A place beyond the window is
    reflected, in image and mask alike; masks keep their labels, IGNORE included, and their type.

    Args:
        image: windows of `window_size(patch, config)` or any larger size, raw or normalised.
        mask: class index 0..254 or IGNORE of every window pixel.
        seeds: one per sample; equal seeds give equal changes on one kind of device.
        patch: height and width of the result.
        config: which changes, how strong and how often.
        scaling: what raw values are multiplied by to be normalised (zero mean, unit deviation), and what is then added;
            none if they are. That is done to the patch, which has a fraction of the window's pixels.

    Raises:
        DataError: the windows are smaller than the patch.
    """
    _refuse_small((image.shape[2], image.shape[3]), patch)
    changed = apply(image, mask, draw(seeds, patch, config), patch, scaling)
    return _by_own(*changed, seeds, config.own) if config.own is not None else changed


@torch.no_grad()
def augment_with_maps(
    image: Shaped[Tensor, "B C h w"],
    mask: UInt8[Tensor, "B h w"],
    maps: UInt8[Tensor, "B M h w"],
    seeds: Int[Tensor, " B"],
    patch: Size,
    config: AugmentConfig,
    scaling: Float[Tensor, "B 2 C"],
) -> tuple[Float[Tensor, "B C H W"], UInt8[Tensor, "B H W"], UInt8[Tensor, "B M H W"]]:
    """What `augment` makes of windows, and maps of them that are moved as the mask is.

    A function of the user's own, `config.own`, is not called: nobody knows what it would do to maps.

    Args:
        image: windows, as for `augment`.
        mask: of them, as for `augment`.
        maps: bytes that belong to the windows' pixels.
        seeds: as for `augment`, like the rest.
        patch: height and width of the result.
        config: which changes.
        scaling: of raw values.

    Raises:
        DataError: the windows are smaller than the patch.
    """
    _refuse_small((image.shape[2], image.shape[3]), patch)
    labels = torch.cat([mask[:, None], maps], dim=1)
    images, moved = _changed(image, labels, draw(seeds, patch, config), patch, scaling)
    return images, moved[:, 0], moved[:, 1:]


def _refuse_small(window: Size, patch: Size) -> None:
    if min(_gaps(window, patch)) < 0:
        raise DataError(
            f"Windows of {window[0]} x {window[1]} pixels are smaller than the patch of {patch[0]} x {patch[1]}.",
            remedy="Pad the windows, or set a smaller data.patch_size.",
        )


def _by_own(
    image: Float[Tensor, "B C H W"],
    mask: UInt8[Tensor, "B H W"] | Int[Tensor, "B H W"],
    seeds: Int[Tensor, " B"],
    name: str,
) -> tuple[Float[Tensor, "B C H W"], UInt8[Tensor, "B H W"] | Int[Tensor, "B H W"]]:
    """What a function of the user's own makes of finished patches."""
    result = outside.find(name, "augment.own")(image, mask, seeds)
    kinds = [(tuple(part.shape), part.dtype) for part in (image, mask)]
    made = [(tuple(part.shape), part.dtype) for part in result] if isinstance(result, tuple) else []
    if made != kinds:
        raise ConfigError(
            f"'augment.own' is {name}, which gives {made or type(result).__name__} for an image and a mask of {kinds}.",
            remedy="Return image and mask, of the shapes and types that came in.",
        )
    own: tuple[Tensor, Tensor] = result
    return own
