"""Defects planted in real data sets: how many `pixelwise check` finds, and what it says of the sets as they are.

    python scripts/planted_defects.py FOLDER_OR_YAML ...

Of each data set some cases are copied with their files as they are, one file is spoiled, and the copy is checked. A
defect counts as found if a finding that is meant for it, or the error that refuses the folder, names the spoiled file.
"""

import argparse
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import yaml
from PIL import Image

from pixelwise.data import formats, polygons
from pixelwise.data.check import CHECKS
from pixelwise.data.dataset import Case, Dataset
from pixelwise.data.finding import of_error
from pixelwise.data.folder import scan
from pixelwise.data.measure import measure
from pixelwise.errors import DataError

CASES = 16
"""So many cases of a data set are copied."""

MOST_CLASSES = 32
"""A mask of more values numbers objects."""

Plant = Callable[[Sequence[Case]], Path | None]
"""Spoils a file of one of the cases and returns it; none where that is not possible in this data set."""


@dataclass(frozen=True)
class Defect:
    """A defect and the checks that are meant for it."""

    plant: Plant
    checks: tuple[str, ...]


# writing -----------------------------------------------------------------------------------------------------------


def _save(path: Path, pixels: np.ndarray) -> Path:
    """Replaces a file, in the format that its name says."""
    if path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.shape[-1] == 3 else "minisblack")
    elif path.suffix.lower() == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    return path


def _image(case: Case) -> np.ndarray | None:
    """The pixels of a case that is a file of its own with plain values."""
    if case.page is not None:
        return None
    image = formats.read_image(case.image)
    return image[:, :, 0] if image.shape[2] == 1 else image if image.shape[2] == 3 else None


def _mask(case: Case) -> np.ndarray | None:
    """The raw values of a mask that is one file of its own."""
    if case.page is not None or len(case.masks) != 1 or case.masks[0].suffix in polygons.SUFFIXES:
        return None
    return formats.read_mask(case.masks[0]).astype(np.uint8)


def _image_as(change: Callable[[np.ndarray], np.ndarray | None], suffix: str | None = None) -> Plant:
    """Spoils the pixels of the second image."""

    def plant(cases: Sequence[Case]) -> Path | None:
        pixels, path = _image(cases[1]), cases[1].image
        if pixels is None:
            return None
        if suffix is not None and suffix != path.suffix.lower():
            return None
        spoiled = change(pixels)
        if spoiled is None:
            return None
        try:
            return _save(path, spoiled)
        except OSError:  # such as sixteen bits in a JPEG
            return None

    return plant


def _mask_as(change: Callable[[np.ndarray], np.ndarray | None]) -> Plant:
    """Spoils the values of the second mask; those that number objects mean nothing by themselves."""

    def plant(cases: Sequence[Case]) -> Path | None:
        values = _mask(cases[1])
        lossy = cases[1].masks[0].suffix.lower() in (".jpg", ".jpeg")
        spoiled = None if values is None or lossy or np.unique(values).size > MOST_CLASSES else change(values)
        return None if spoiled is None else _save(cases[1].masks[0], spoiled)

    return plant


# the defects -------------------------------------------------------------------------------------------------------


def _cut(part: str, keep: float) -> Plant:
    def plant(cases: Sequence[Case]) -> Path | None:
        path = cases[1].image if part == "image" else cases[1].masks[0]
        if cases[1].page is not None or path.suffix in polygons.SUFFIXES:
            return None
        data = path.read_bytes()
        path.write_bytes(data[: int(keep * len(data))])
        return path

    return plant


def _without_mask(cases: Sequence[Case]) -> Path | None:
    case = cases[1]
    if case.page is not None or any(path in other.masks for path in case.masks for other in cases if other != case):
        return None
    for path in case.masks:
        path.unlink()
    return case.image


def _without_image(cases: Sequence[Case]) -> Path | None:
    if cases[1].page is not None or cases[1].masks[0].suffix in polygons.SUFFIXES:
        return None
    cases[1].image.unlink()
    return cases[1].masks[0]


def _turned_by_camera(cases: Sequence[Case]) -> Path | None:
    pixels = _image(cases[1])
    path = cases[1].image
    if pixels is None or pixels.dtype != np.uint8 or path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        return None
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    return path if pixels.shape[0] == pixels.shape[1] else cases[1].masks[0]


def _renamed_jpeg(cases: Sequence[Case]) -> Path | None:
    path = cases[1].masks[0]
    values = _mask(cases[1])
    if values is None or values.ndim != 2 or path.suffix.lower() in (".jpg", ".jpeg"):
        return None
    Image.fromarray(values).save(path, format="JPEG")
    return path


def _misnamed(cases: Sequence[Case]) -> Path | None:
    pixels, path = _image(cases[1]), cases[1].image
    if pixels is None or pixels.dtype != np.uint8:
        return None
    Image.fromarray(pixels).save(path, format="PNG" if path.suffix.lower() != ".png" else "BMP")
    return path


def _copied_over(change: Callable[[np.ndarray], np.ndarray] | None, *, with_mask: bool) -> Plant:
    """The third image becomes a copy of the second, with or without its mask."""

    def plant(cases: Sequence[Case]) -> Path | None:
        one, other = cases[1], cases[2]
        if one.page is not None or len(one.masks) != 1 or one.masks[0].suffix in polygons.SUFFIXES:
            return None
        pixels = _image(one)
        same_size = pixels is not None and formats.read_image(other.image).shape[:2] == pixels.shape[:2]
        if one.image.suffix != other.image.suffix or not (with_mask or same_size) or one.split != other.split:
            return None
        if change is None:
            shutil.copyfile(one.image, other.image)
        elif pixels is None:
            return None
        else:
            _save(other.image, change(pixels))
        if with_mask:
            shutil.copyfile(one.masks[0], other.masks[0])
        return other.image

    return plant


def _torn_copy(cases: Sequence[Case]) -> Path | None:
    """A training image stands in the test split as well."""
    train = next((case for case in cases if case.split == "train"), None)
    test = next((case for case in cases if case.split == "test"), None)
    if train is None or test is None or train.image.suffix != test.image.suffix or len(test.masks) > 1:
        return None
    shutil.copyfile(train.image, test.image)
    shutil.copyfile(train.masks[0], test.masks[0])
    return test.image


def _pad(values: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(values, [(0, rows), *[(0, 0)] * (values.ndim - 1)], mode="edge") if rows > 0 else values[:rows]


def _brighter(pixels: np.ndarray) -> np.ndarray:
    lifted: np.ndarray = (pixels * 0.8 + 0.1 * pixels.max()).astype(pixels.dtype)
    return lifted


def _noisy(values: np.ndarray) -> np.ndarray | None:
    """Edges smoothed, as by a resize with interpolation; between neighbouring numbers there is nothing."""
    if values.max() <= 1:
        return None
    picture = Image.fromarray(values)
    small = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BILINEAR)
    return np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC))


def _inverted(values: np.ndarray) -> np.ndarray | None:
    known = np.unique(values)
    return np.where(values == known[0], known[-1], known[0]).astype(values.dtype) if known.size == 2 else None


def _in_sixteen_bits(pixels: np.ndarray) -> np.ndarray | None:
    if pixels.dtype != np.uint8:
        return None
    return (pixels[..., :1].squeeze() if pixels.ndim == 3 else pixels).astype(np.uint16) * 257


def _with_gap(pixels: np.ndarray) -> np.ndarray:
    spoiled = pixels.astype(np.float32)
    spoiled[3, 5] = np.nan
    return spoiled


SIZES = ("sizes of image and mask",)
DEFECTS: dict[str, Defect] = {
    "image cut short": Defect(_cut("image", 0.6), ("unreadable files",)),
    "mask cut short": Defect(_cut("mask", 0.6), ("unreadable files",)),
    "image of zero bytes": Defect(_cut("image", 0.0), ("unreadable files",)),
    "mask of zero bytes": Defect(_cut("mask", 0.0), ("unreadable files",)),
    "image without mask": Defect(_without_mask, ("unpaired files",)),
    "mask without image": Defect(_without_image, ("unpaired files",)),
    "mask one row too many": Defect(_mask_as(lambda values: _pad(values, 1)), SIZES),
    "mask one row too few": Defect(_mask_as(lambda values: _pad(values, -1)), SIZES),
    "mask of half the size": Defect(_mask_as(lambda values: np.ascontiguousarray(values[::2, ::2])), SIZES),
    "mask cropped": Defect(_mask_as(lambda values: np.ascontiguousarray(values[:, : -values.shape[1] // 5])), SIZES),
    "image turned by EXIF": Defect(_turned_by_camera, (*SIZES, "orientation")),
    "missing values in the image": Defect(_image_as(_with_gap, ".tif"), ("not finite",)),
    "image of one colour": Defect(_image_as(lambda pixels: pixels * 0 + pixels[:1, :1]), ("constant images",)),
    "image of another depth": Defect(_image_as(_in_sixteen_bits), ("bit depths",)),
    "grey image among colour": Defect(
        _image_as(
            lambda pixels: np.ascontiguousarray(pixels[..., 0]) if pixels.ndim == 3 else np.stack([pixels] * 3, 2)
        ),
        ("channels",),
    ),
    "image much darker": Defect(_image_as(lambda pixels: pixels // 40), ("outliers", "constant images")),
    "image in another format than named": Defect(_misnamed, ("names and contents",)),
    "mask is a JPEG under another name": Defect(_renamed_jpeg, ("names and contents",)),
    "mask with smoothed edges": Defect(_mask_as(_noisy), ("unknown mask values", "what was detected")),
    "mask with a value of its own": Defect(
        _mask_as(
            lambda values: np.where(np.arange(values.size).reshape(values.shape) < 9, 77, values).astype(np.uint8)
        ),
        ("unknown mask values", "what was detected"),
    ),
    "mask inverted": Defect(_mask_as(_inverted), ("inverted masks",)),
    "mask emptied": Defect(_mask_as(lambda values: values * 0), ("empty masks", "duplicates")),
    "copy of an image with its mask": Defect(_copied_over(None, with_mask=True), ("duplicates",)),
    "copy of an image with another mask": Defect(_copied_over(None, with_mask=False), ("duplicates",)),
    "near copy, brighter": Defect(_copied_over(_brighter, with_mask=True), ("near duplicates",)),
    "near copy, mirrored": Defect(
        _copied_over(lambda pixels: np.ascontiguousarray(pixels[:, ::-1]), with_mask=True), ("near duplicates",)
    ),
    "training image in the test split": Defect(_torn_copy, ("duplicates",)),
}


# copying and checking ----------------------------------------------------------------------------------------------


def copied(data: Path, dataset: Dataset, folder: Path) -> Path:
    """A copy of some cases of a data set, with their files as they are and where they are."""
    sides = defaultdict(list)
    for case in dataset.cases:
        sides[case.split].append(case)
    wanted = [case for cases in sides.values() for case in cases[: max(4, CASES // len(sides))]]
    extra = [path for name in ("dataset.json", "data.yaml") if (path := dataset.root / name).is_file()]
    files = {path for case in wanted for path in (case.image, *case.masks)}
    for path in [*files, *extra]:
        target = folder / "data" / path.relative_to(dataset.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    if data.is_dir():
        return folder / "data"
    said = yaml.safe_load(data.read_text()) | {"path": "data"}
    here = {case.image.relative_to(dataset.root).as_posix() for case in wanted}
    for side in ("train", "val", "test"):
        if isinstance(said.get(side), list):
            said[side] = [entry for entry in said[side] if entry in here]
    if said.get("test") == []:
        del said["test"]
    (folder / "data.yaml").write_text(yaml.safe_dump(said))
    return folder / "data.yaml"


def named_by(checks: Sequence[str], data: Path) -> tuple[set[Path], str]:
    """The files that findings of some checks name, and what is said of a folder that is refused."""
    try:
        dataset = scan(data)
    except DataError as error:
        said = of_error(error)
        return {path for finding in said for path in finding.files}, str(error)
    measured = measure(dataset)
    found = [finding for name in checks for finding in CHECKS[name](dataset, measured)]
    return {path for finding in found for path in finding.files}, " ".join(finding.what for finding in found)


def is_found(defect: Defect, data: Path, dataset: Dataset) -> bool | None:
    """Whether a defect is found; none where it cannot be planted."""
    with tempfile.TemporaryDirectory() as name:
        copy = copied(data, dataset, Path(name))
        cases = scan(copy).cases
        spoiled = defect.plant(cases)
        if spoiled is None:
            return None
        files, said = named_by(defect.checks, copy)
        return spoiled in files or spoiled.name in said or spoiled.stem in said


def main() -> None:
    """Print what is said of each set as it is, and a table of the planted defects."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    wanted = parser.parse_args()
    table: dict[str, dict[Path, bool | None]] = defaultdict(dict)
    for data in wanted.data:
        dataset = scan(data)
        measured = measure(dataset)
        print(f"\n{data}: {len(dataset.cases)} images")
        for name, check in CHECKS.items():
            for finding in check(dataset, measured):
                print(f"  {finding.severity} ({name}): {finding.what[:200]}")
        for name, defect in DEFECTS.items():
            table[name][data] = is_found(defect, data, dataset)
    print(f"\n{'defect':40} planted   found   missed in")
    for name, row in table.items():
        planted = [data for data, found in row.items() if found is not None]
        missed = [str(data) for data in planted if not row[data]]
        print(f"{name:40} {len(planted):7} {len(planted) - len(missed):7}   {', '.join(missed)}")
    counts = [found for row in table.values() for found in row.values() if found is not None]
    print(f"{'all':40} {len(counts):7} {sum(counts):7}")


if __name__ == "__main__":
    main()
