"""A small data set drawn by code: cells in culture under a fluorescence microscope.

Three stains, as in the pictures on microscope makers' walls: DNA blue, tubulin green, actin red. The picture is
built the way a microscope builds it: what glows (cells, and debris that is no cell), cells out of focus, scattered
light, uneven illumination, blur, photons that are counted, a camera's tone curve. Brightness alone does not tell the
classes apart: exposure and staining vary, out-of-focus cells and dead nuclei are background; shape and texture do.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from pixelwise.classes import ClassTable
from pixelwise.data.writing import write_mask, write_picture
from pixelwise.errors import DataError
from pixelwise.files import make_folder, write_atomically

NAMES = ("background", "cell", "nucleus")
BACKGROUND, CELL, NUCLEUS = range(3)

SMALLEST_PX = 64
"""In smaller pictures a cell does not fit."""

CANVAS_PX = 96
"""Edge of the square that a cell is drawn on."""

AREA_PER_TRY = 3400
"""Pixels; in each such area two to eight cells are tried, and those that find room stay."""

DNA, TUBULIN, ACTIN = range(3)

STAIN_COLORS = np.array([[0.12, 0.30, 1.00], [0.06, 0.85, 0.32], [1.00, 0.22, 0.16]])
"""Red, green and blue of the light of DNA, tubulin and actin; filters are not perfect, so that they mix."""

Plane = Float[np.ndarray, "H W"]
Light = Float[np.ndarray, "3 H W"]
"""DNA, tubulin, actin."""


@dataclass(frozen=True)
class Outline:
    """A closed curve on a canvas: an ellipse with bumps."""

    centre: tuple[float, float]
    """y and x, in pixels from the middle of the canvas."""
    radius_px: float
    stretch: float
    """Root of length over width."""
    angle: float
    """Of the long axis, in radians."""
    bumps: tuple[tuple[int, float, float], ...] = ()
    """Waves per turn, height as a share of the radius, phase."""

    def frame(self, canvas_px: int) -> tuple[Plane, Plane]:
        """Coordinates along and across the long axis, in pixels from the centre, of every pixel."""
        axis = np.arange(canvas_px) - (canvas_px - 1) / 2.0
        y, x = (axis - self.centre[0])[:, None], axis - self.centre[1]
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return x * cosine + y * sine, y * cosine - x * sine

    def depth(self, canvas_px: int) -> Plane:
        """0 at the centre, 1 on the curve, more outside."""
        along, across = self.frame(canvas_px)
        along, across = along / self.stretch, across * self.stretch
        turn = np.arctan2(across, along)
        radius_px = np.full_like(turn, self.radius_px)
        for count, height, phase in self.bumps:
            radius_px += self.radius_px * height * np.cos(count * turn + phase)
        distance_px: Plane = np.hypot(along, across)
        return distance_px / radius_px


def draw(folder: Path, images: int = 48, size_px: int = 160, seed: int = 0) -> None:
    """Write `images/NNN.png` (RGB), `masks/NNN.png` (index with palette) and `data.yaml`.

    Args:
        folder: is created; files of the same names are replaced.
        images: how many pictures.
        size_px: height and width of each.
        seed: equal seeds give equal files.

    Raises:
        DataError: pictures of this number or size cannot be drawn, or the folder cannot be written.
    """
    if images < 1 or size_px < SMALLEST_PX:
        raise DataError(
            f"{images} pictures of {size_px} pixels cannot be drawn.",
            remedy=f"Ask for at least one picture of at least {SMALLEST_PX} pixels.",
        )
    classes = ClassTable.from_names(NAMES)
    for part in ("images", "masks"):
        make_folder(folder / part)
    write_atomically(folder / "data.yaml", _description(classes).encode())
    for number in range(images):
        picture, mask = field_of_view(size_px, np.random.default_rng([seed, number]))
        write_picture(folder / "images" / f"{number:03d}.png", picture)
        write_mask(folder / "masks" / f"{number:03d}.png", mask, classes)


def _description(classes: ClassTable) -> str:
    import yaml

    tree = {
        "names": classes.names,
        "colors": {category.name: list(category.color) for category in classes.categories},
    }
    return "# Drawn by `pixelwise demo`.\n" + yaml.safe_dump(tree, sort_keys=False, default_flow_style=None)


def field_of_view(
    size_px: int, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """One picture and its mask."""
    light = np.zeros((3, size_px, size_px))
    mask = np.full((size_px, size_px), BACKGROUND, dtype=np.uint8)
    for place, radius_px in _population(size_px, rng):
        glow, labels = _cell(radius_px, rng)
        here, part = _overlap(size_px, CANVAS_PX, place)
        light[:, *here] += glow[:, *part]
        mask[here] = np.maximum(mask[here], labels[part])  # a nucleus is seen through the cell above it
    _add_debris(light, rng)
    _add_out_of_focus(light, rng)
    return _photograph(light, rng), mask


def _place(size_px: int, rng: np.random.Generator) -> tuple[int, int]:
    y, x = rng.integers(0, size_px, 2).tolist()
    return y, x


def _overlap(size_px: int, canvas_px: int, place: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a canvas around a place (y, x) lies in the picture, and which part of the canvas that is."""
    corners = [middle - canvas_px // 2 for middle in place]
    top, left = (slice(max(0, corner), min(size_px, corner + canvas_px)) for corner in corners)
    rows, columns = (
        slice(side.start - corner, side.stop - corner) for side, corner in zip((top, left), corners, strict=True)
    )
    return (top, left), (rows, columns)


# --- What glows -------------------------------------------------------------------------------------------------------


def _population(size_px: int, rng: np.random.Generator) -> list[tuple[tuple[int, int], float]]:
    """Places (y, x) and radii of cells; some touch or overlap, none lies on top of another."""
    cells: list[tuple[tuple[int, int], float]] = []
    for _ in range(int(rng.uniform(2.0, 8.0) * size_px * size_px / AREA_PER_TRY)):
        place, radius_px = _place(size_px, rng), rng.uniform(19.0, 27.0)
        if all(math.dist(place, other) > 0.75 * (radius_px + other_px) for other, other_px in cells):
            cells.append((place, radius_px))
    return cells


def _bumps(counts: tuple[int, ...], height: float, rng: np.random.Generator) -> tuple[tuple[int, float, float], ...]:
    return tuple((count, rng.uniform(0.0, height) / count, rng.uniform(0.0, 2.0 * np.pi)) for count in counts)


def _body(radius_px: float, rng: np.random.Generator) -> Outline:
    angle = rng.uniform(0.0, np.pi)
    return Outline((0.0, 0.0), radius_px, rng.uniform(1.0, 1.25), angle, _bumps((2, 3, 4, 5), 0.32, rng))


def _nucleus(cell: Outline, rng: np.random.Generator) -> Outline:
    away, direction = rng.uniform(0.0, 0.2) * cell.radius_px, rng.uniform(0.0, 2.0 * np.pi)
    centre = (away * np.sin(direction), away * np.cos(direction))
    radius_px, stretch = rng.uniform(0.38, 0.46) * cell.radius_px, rng.uniform(1.0, 1.18)
    return Outline(centre, radius_px, stretch, cell.angle + rng.normal(0.0, 0.3), _bumps((2, 3, 4), 0.1, rng))


def _cell(radius_px: float, rng: np.random.Generator) -> tuple[Light, UInt8[np.ndarray, "H W"]]:
    """Light and labels of a cell in focus, on a canvas."""
    cell = _body(radius_px, rng)
    depth, inner = cell.depth(CANVAS_PX), _nucleus(cell, rng).depth(CANVAS_PX)
    body, core = _inside(depth, 0.04), _inside(inner, 0.07)
    coarse, fine = _texture(7.0, rng), _texture(1.3, rng)
    along, across = cell.frame(CANVAS_PX)
    # stress fibres run along the cell and bend a little; the rim is a bundle of them
    fibres = np.maximum(0.0, np.sin(2.0 * np.pi * across / rng.uniform(4.5, 6.5) + 1.1 * coarse)) ** 3
    rim = np.exp(-(((depth - 0.94) / 0.07) ** 2))
    actin = body * (0.14 + 0.55 * fibres * np.clip(0.6 + 0.5 * _texture(6.0, rng), 0.0, 1.5)) + 0.5 * rim
    # microtubules radiate from the middle and thin out
    rays = np.maximum(0.0, np.sin(rng.integers(13, 19) * np.arctan2(across, along) + 2.0 * coarse)) ** 2
    tubulin = body * np.exp(-1.3 * depth) * (0.35 + 0.75 * rays + 0.18 * fine)
    nucleoli = np.clip(_texture(2.2, rng) - 0.9, 0.0, 1.2)
    dna = core * np.clip(0.75 + 0.16 * fine + 0.12 * coarse - 0.45 * nucleoli, 0.1, None) + 0.05 * body
    # the nucleus pushes the rest aside
    light = np.stack([dna, tubulin * (1.0 - 0.75 * core), actin * (1.0 - 0.55 * core)])
    labels = np.where(inner < 1.0, NUCLEUS, np.where(depth < 1.0, CELL, BACKGROUND)).astype(np.uint8)
    return light * rng.lognormal(-0.1, 0.35) * rng.lognormal(0.0, 0.35, 3)[:, None, None], labels


def _inside(depth: Plane, softness: float) -> Plane:
    """1 within the curve, 0 outside, a soft edge of some share of the radius between."""
    return np.clip((1.0 - depth) / softness + 0.5, 0.0, 1.0)


def _texture(grain_px: float, rng: np.random.Generator, size_px: int = CANVAS_PX) -> Plane:
    """Smooth random numbers, mean 0, deviation 1, in blobs of about `grain_px`."""
    waves = np.fft.rfft2(rng.standard_normal((size_px, size_px)))
    field = np.fft.irfft2(ndimage.fourier_gaussian(waves, grain_px, n=size_px), s=(size_px, size_px))
    smooth: Plane = (field - field.mean()) / field.std()
    return smooth


def _add_debris(light: Light, rng: np.random.Generator) -> None:
    """Dead nuclei, dust and lint: bright, sharp, and no cells."""
    size_px = light.shape[1]
    for _ in range(rng.poisson((size_px / 75.0) ** 2)):
        here, part = _overlap(size_px, 20, _place(size_px, rng))
        speck = Outline((0.0, 0.0), rng.uniform(2.0, 4.5), rng.uniform(1.0, 1.25), rng.uniform(0.0, np.pi))
        color = rng.uniform(0.4, 1.3) * rng.dirichlet((1.2, 0.5, 0.5))
        light[:, *here] += color[:, None, None] * _inside(speck.depth(20), 0.4)[part]
    for _ in range(rng.poisson((size_px / 180.0) ** 2)):
        here, part = _overlap(size_px, CANVAS_PX, _place(size_px, rng))
        along, across = Outline((0.0, 0.0), 1.0, 1.0, rng.uniform(0.0, np.pi)).frame(CANVAS_PX)
        bend = rng.uniform(-0.012, 0.012) * along**2
        thread = np.exp(-(((across - bend) / 1.1) ** 2)) * (np.abs(along) < rng.uniform(12.0, 40.0))
        light[:, *here] += rng.uniform(0.3, 0.8) * rng.dirichlet((1.0, 1.0, 1.0))[:, None, None] * thread[part]


def _add_out_of_focus(light: Light, rng: np.random.Generator) -> None:
    """Cells that float above the others: soft, and background."""
    size_px = light.shape[1]
    above = np.zeros_like(light)
    for _ in range(rng.poisson((size_px / 90.0) ** 2)):
        here, part = _overlap(size_px, CANVAS_PX, _place(size_px, rng))
        depth = _body(rng.uniform(16.0, 24.0), rng).depth(CANVAS_PX)[part]
        body, core = _inside(depth, 0.3), _inside(2.2 * depth, 0.3)
        stains = np.stack([0.70 * core, 0.22 * body, 0.22 * body])
        above[:, *here] += stains * rng.lognormal(-0.25, 0.35, 3)[:, None, None]
    light += ndimage.gaussian_filter(above, (0, 4.5, 4.5))


# --- The microscope ---------------------------------------------------------------------------------------------------


def _photograph(light: Light, rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    """What the camera makes of the light."""
    size_px = light.shape[1]
    scattered = ndimage.gaussian_filter(light, (0, 14.0, 14.0), mode="nearest")
    seen = ndimage.gaussian_filter(light, (0, 0.7, 0.7), mode="nearest") + 0.35 * scattered + 0.02
    y, x = np.mgrid[:size_px, :size_px] / size_px - rng.uniform(0.2, 0.8, 2)[:, None, None]
    lamp = (1.2 - 1.1 * (y**2 + x**2)) * (1.0 + 0.08 * _texture(size_px / 5.0, rng, size_px))
    exposure = rng.lognormal(-0.15, 0.22) * rng.lognormal(0.0, 0.2, 3)[:, None, None]
    photons = 140.0
    counted = rng.poisson(photons * exposure * np.clip(seen * lamp, 0.0, None)) / photons
    read = counted + rng.normal(0.0, 0.012, counted.shape)
    rgb = np.tensordot(read, STAIN_COLORS, axes=(0, 0))  # H W 3
    tone = 1.0 - np.exp(-1.6 * np.clip(rgb, 0.0, None))
    return np.round(255.0 * tone**0.95).astype(np.uint8)
