"""How far a prediction in tiles is from that of the whole image, at the borders of tiles and elsewhere.

    python scripts/seams.py runs/chase data/retina_vessels/chase_db1/Image_1[1-4]?.jpg

For each overlap: of all pixels, the share with the class that the whole image gives them, and the mean difference of
probabilities; both within so many pixels of a tile's border, and in the rest. Where normalisation looks at the whole
input, as group and instance normalisation do, tiles differ from the whole everywhere; a seam would show as a difference
between the two columns.
"""

import argparse
from pathlib import Path

import numpy as np

from pixelwise import api
from pixelwise.data import formats
from pixelwise.inference.predictor import Model
from pixelwise.inference.tiles import starts

NEAR_PX = 4


def main() -> None:
    """Predict all images in tiles and whole, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--tile", type=int, default=256)
    given = parser.parse_args()
    model = api.load(given.run, "cpu")
    images = [formats.read_image(path) for path in given.images]
    longest = max(edge for image in images for edge in image.shape[:2])
    whole = [probabilities(told(model, longest, 0.0), image) for image in images]
    print("| overlap | blend | equal near borders | equal elsewhere | difference near borders | elsewhere |")
    print("|---:|---|---:|---:|---:|---:|")
    for overlap, blend in ((0.0, "constant"), (0.25, "constant"), (0.25, "gaussian"), (0.5, "gaussian")):
        tiled = told(model, given.tile, overlap, blend)
        equal, apart, near = [], [], []
        for image, truth in zip(images, whole, strict=True):
            found = probabilities(tiled, image)
            equal.append((found.argmax(0) == truth.argmax(0)).ravel())
            apart.append(np.abs(found - truth).mean(0).ravel())
            near.append(near_borders(tiled, (image.shape[0], image.shape[1])).ravel())
        same, difference, close = (np.concatenate(parts) for parts in (equal, apart, near))
        cells = [f"{same[close].mean():.3%}", f"{same[~close].mean():.3%}"]
        cells += [f"{difference[close].mean():.4f}", f"{difference[~close].mean():.4f}"]
        print(f"| {overlap:g} | {blend} | {' | '.join(cells)} |")


def told(model: Model, tile: int, overlap: float, blend: str = "gaussian") -> Model:
    """The model with other tiles."""
    changes = {"tile_size": (tile, tile), "overlap": overlap, "blend": blend}
    return model.with_prediction(model.description.prediction.model_copy(update=changes))


def probabilities(model: Model, image: np.ndarray) -> np.ndarray:
    """Of every class, K H W."""
    found = model.predict(image, probabilities=True).probabilities
    assert found is not None
    return found


def near_borders(model: Model, size: tuple[int, int]) -> np.ndarray:
    """Pixels that lie close to the border of a tile inside the image, H W."""
    tiling = model.tiling(size)
    close = []
    for edge, tile in zip(size, tiling.tile_size, strict=True):
        borders = [at for start in starts(edge, tile, tiling) for at in (start, start + tile) if 0 < at < edge]
        places = np.arange(edge)
        close.append(np.isin(places, [at + near for at in borders for near in range(-NEAR_PX, NEAR_PX)]))
    return np.asarray(close[0][:, None] | close[1][None])


if __name__ == "__main__":
    main()
