"""Masks for new images."""

from collections.abc import Sequence
from pathlib import Path

from pixelwise.config import Flips
from pixelwise.evaluation import figures
from pixelwise.inference import files as predictions
from pixelwise.inference import jobs
from pixelwise.inference.files import Predicted
from pixelwise.inference.jobs import MaskFormat, Outputs, Polygons
from pixelwise.inference.predictor import Model
from pixelwise.training.watch import Watcher
from pixelwise.verbs.runs import load, say_if_ensemble


def predict_files(  # noqa: PLR0913  all but three are given by name
    run: Path | str | Model,
    inputs: Sequence[Path | str],
    out: Path | str,
    *,
    mask_format: MaskFormat | None = None,
    overlay: bool = False,
    probabilities: bool = False,
    polygons: Polygons | None = None,
    tolerance_px: float = 0.0,
    flips: Flips | None = None,
    memory_bytes: int = 2_000_000_000,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> Predicted:
    """Write a mask for every image, at the image's size, with the classes' colours as its palette.

    A multi-page file gives a multi-page TIFF, without overlay, probabilities and outlines. An image that cannot be
    read does not keep the others from being done; a mask that cannot be written does. `pixelwise.inference.jobs.plan`
    says where masks go; no image is ever replaced, and no file that an earlier prediction has not written as it is now.

    Args:
        run: folder of a run, a bundle, or a loaded model.
        inputs: files, folders and glob patterns.
        out: folder for the masks; folders below the common folder of the inputs are kept.
        mask_format: `png`, `tif` or `cog` (Cloud Optimized GeoTIFF, needs rasterio); none for `png`, and `tif` where an
            image says where on earth it lies.
        overlay: also write NAME_overlay.png, the mask over the image.
        probabilities: also write NAME_probabilities.npy, float32 K H W.
        polygons: also write the outlines of objects: NAME.geojson (in the coordinates of the map where the image has
            some) or NAME.json (labelme) beside each mask, or one `annotations.json` for all (COCO).
        tolerance_px: leave out corners of outlines that lie no farther than this from a simpler one; needs shapely.
        flips: average over the image and its mirror image (`horizontal`), the four flips (`both`) or the eight flips
            and quarter turns (`rotations`); none does as the model was told when it was trained.
        memory_bytes: what the process may take while it predicts an image of more than 256 MB of pixels, which is
            done by windows; its mask is a tiled TIFF, and an interrupted prediction of it goes on where it stopped.
        device: auto, cpu, cuda or mps; a loaded model stays where it is.
        watcher: told how far it is.

    Raises:
        DataError: an input does not exist, nothing was found, a result would replace an image or another result, or
            cannot be written.
        BundleError: there is no model.
    """
    model = (run if isinstance(run, Model) else load(run, device)).with_flips(flips)
    watcher = watcher or Watcher()
    say_if_ensemble(model, watcher)
    draw = figures.picture_of if overlay else None
    outputs = Outputs(Path(out), mask_format, draw, probabilities, polygons, tolerance_px, memory_bytes)
    planned = jobs.plan(inputs, outputs)
    for note in planned.notes:
        watcher.say(note)
    return predictions.run(model, planned, outputs, watcher.work)
