"""Polygon annotations drawn as class masks: labelme, COCO and YOLO.

Shapes are painted in the order of the file, later ones over earlier ones. labelme's shapes are drawn with Pillow,
border included, because labelme's own export does it like this. COCO and YOLO coordinates are geometry: a pixel
belongs to a polygon if its centre lies inside, so that a square of side 4 covers 16 pixels and not 25.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from pixelwise.classes import IGNORE
from pixelwise.data.dataset import Case, MaskEncoding
from pixelwise.errors import DataError

Format = Literal["labelme", "coco", "yolo"]
SUFFIXES = frozenset({".json", ".txt"})
"""Annotation files that hold polygons."""

IGNORED_LABELS = frozenset({"__ignore__", "_ignore_", "ignore", "void"})
BACKGROUND_LABELS = frozenset({"_background_", "__background__", "background"})

FARTHEST_PX = 1e7
"""A corner that lies farther away is a mistake."""

_DRAWN = ("polygon", "rectangle", "circle", "mask")


@dataclass(frozen=True)
class Labels:
    """What a set of annotation files talks about."""

    names: Mapping[str, int]
    """Shapes by label (`labelme`), category name (`coco`) or class number (`yolo`); 0 for a category never used."""
    ids: Mapping[str, int]
    """Number of a category or class in its file, by name; empty for `labelme`."""
    skipped: Mapping[str, int]
    """Shapes that have no area and are left out, by kind of shape."""
    unreadable: tuple[DataError, ...] = ()


def format_of(path: Path) -> Format:
    """Which format an annotation file has.

    Raises:
        DataError: it cannot be read or is none of them.
    """
    if path.suffix.lower() == ".txt":
        return "yolo"
    tree = _load(path)
    if isinstance(tree.get("shapes"), list):
        return "labelme"
    if isinstance(tree.get("annotations"), list) and isinstance(tree.get("images"), list):
        _refuse_panoptic(tree["annotations"], path)
        return "coco"
    raise DataError(
        f"This JSON holds neither labelme 'shapes' nor COCO 'images' and 'annotations', but {', '.join(tree) or '-'}.",
        where=path,
        remedy="Export the annotations as COCO, as labelme or as mask images.",
    )


def _refuse_panoptic(annotations: Sequence[Any], path: Path) -> None:
    if any(isinstance(entry, dict) and "segments_info" in entry for entry in annotations):
        raise DataError(
            "This is COCO's panoptic form (segments_info), whose pictures hold numbers of segments as colours.",
            where=path,
            remedy="Export semantic masks, a number for each class, or COCO's form for detection, with outlines.",
        )


def survey(paths: Iterable[Path], kind: Format) -> Labels:
    """Counts the labels of annotation files; files that cannot be read are listed, not raised."""
    names: Counter[str] = Counter()
    ids: dict[str, int] = {}
    skipped: Counter[str] = Counter()
    unreadable: list[DataError] = []
    for path in paths:
        try:
            found = _SURVEYS[kind](path)
        except DataError as error:
            unreadable.append(error)
            continue
        names.update(found.names)
        ids |= found.ids
        skipped.update(found.skipped)
    return Labels(names, ids, skipped, tuple(unreadable))


def format_of_all(paths: Sequence[Path]) -> Format:
    """The one format of several annotation files, damaged ones passed over; a few files tell.

    Raises:
        DataError: none can be read, or there are two formats.
    """
    found: dict[Format, Path] = {}
    first: DataError | None = None
    good = 0
    for path in paths:
        if good == 8:
            break
        try:
            found.setdefault(format_of(path), path)
            good += 1
        except DataError as error:
            first = first or error
    if not found and first is not None:
        raise first
    if len(found) > 1:
        raise DataError(
            f"The annotations are of several formats: {', '.join(sorted(found))}.",
            where=list(found.values())[1],
            remedy="Keep one of them.",
        )
    return next(iter(found))


def classes_of(kind: Format, labels: Labels, declared: Sequence[str] | None) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names, background first, and the class index, or IGNORE, of each label.

    Args:
        kind: numbers of YOLO stand for declared names by position, labels of the others by name.
        labels: what `survey` found.
        declared: names of the user, with or without the background; none takes the labels themselves.

    Raises:
        DataError: labels are used that are not declared, or there is none.
    """
    ordered = sorted(labels.names, key=lambda label: (labels.ids.get(label, 0), label))
    special = dict.fromkeys((label for label in ordered if label.lower() in IGNORED_LABELS), IGNORE)
    special |= dict.fromkeys((label for label in ordered if label.lower() in BACKGROUND_LABELS), 0)
    things = [label for label in ordered if label not in special]
    if not any(labels.names.values()):
        raise DataError("The annotations hold no shape with an area.", remedy="Draw the outlines of objects.")
    if declared is None:
        own = [f"class {label}" for label in things] if kind == "yolo" else things
        return ("background", *own), {**special, **{label: i for i, label in enumerate(things, start=1)}}
    offset = 0 if declared[0].lower() in BACKGROUND_LABELS else 1
    names = ("background", *declared)[1 - offset :]
    if kind == "yolo":
        table = {label: labels.ids[label] + offset for label in things if 0 <= labels.ids[label] < len(declared)}
    else:
        table = {label: names.index(label) for label in things if label in names}
    unknown = [label for label in things if label not in table and labels.names[label]]
    if unknown:
        raise DataError(
            f"The classes {', '.join(names)} are declared, but the annotations also use {', '.join(unknown)}.",
            remedy="Add them to `names`, or rename the shapes.",
        )
    return names, {**special, **table}


def draw(case: Case, encoding: MaskEncoding, size: tuple[int, int] | None) -> UInt8[np.ndarray, "H W"]:
    """The class mask of a case from its annotation files.

    Args:
        case: its `masks` are the annotation files.
        encoding: of kind `labelme`, `coco` or `yolo`.
        size: height and width of the image in pixels; none takes them from the annotation or the image.

    Raises:
        DataError: a file cannot be read, is made for another size, or has a label that no class claims.
    """
    mask: UInt8[np.ndarray, "H W"] | None = None
    for path in case.masks:
        if encoding.kind == "labelme":
            mask = _draw_labelme(path, encoding, size, mask)
        elif encoding.kind == "coco":
            mask = _draw_coco(path, case.image, encoding, size, mask)
        else:
            mask = _draw_yolo(path, encoding, size or _image_size(case), mask)
    if mask is None:
        raise DataError("The image has no annotation.", where=case.image, remedy="Add one or leave the image out.")
    return mask


def fill(
    points: Sequence[Sequence[float]] | Float[np.ndarray, "N 2"], size: tuple[int, int]
) -> Bool[np.ndarray, "H W"]:
    """Pixels whose centre lies inside a polygon, by the even-odd rule.

    Each row of pixel centres is crossed by some edges; a pixel is inside if an odd number of crossings is left of it.

    Args:
        points: x and y of each corner; pixel column i covers i..i+1.
        size: height and width in pixels.

    Raises:
        ValueError: a corner is not finite, or farther away than `FARTHEST_PX`.
    """
    height, width = size
    start = np.asarray(points, dtype=np.float64)
    if not (np.abs(start) < FARTHEST_PX).all():
        raise ValueError("a corner is no place in an image")
    end = np.roll(start, -1, axis=0)
    left, top = np.clip(np.floor(start.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(start.max(axis=0)), (left, top), (width, height)).astype(int)
    centre = np.arange(top, bottom) + 0.5
    edge, row = np.nonzero((start[:, 1, None] <= centre) != (end[:, 1, None] <= centre))
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (centre[row] - start[edge, 1]) * slope
    column = np.clip(np.ceil(x - 0.5), left, right).astype(np.intp) - left
    crossings = np.zeros((bottom - top, right - left + 1), dtype=np.int32)
    np.add.at(crossings, (row, column), 1)
    inside = np.zeros(size, dtype=bool)
    inside[top:bottom, left:right] = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return inside


def decode_rle(counts: Sequence[int] | str, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """A mask from COCO's run lengths: column by column, starting with a run of zeros.

    Args:
        counts: the runs, or the text COCO's own API packs them into.
        size: height and width in pixels.

    Raises:
        ValueError: the runs do not cover the mask exactly.
    """
    runs = np.asarray(_unpack(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if runs.size and (runs.min() < 0 or runs.sum() != size[0] * size[1]):
        raise ValueError(f"the run lengths cover {runs.sum()} pixels, not {size[0]} x {size[1]}")
    flat = np.repeat(np.arange(runs.size) % 2 == 1, runs)
    return flat.reshape(size[1], size[0]).T if runs.size else np.zeros(size, dtype=bool)


def _unpack(text: str) -> list[int]:
    """Run lengths from COCO's text.

    A letter holds 5 bits, lowest first, and a sixth that says whether more follow. From the third run on, the
    difference to the run before the last one is stored.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii"):
        bits = letter - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift  # a negative difference
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs


def _load(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"The annotation cannot be read ({error}).", where=path, remedy="Export it again or remove it."
        ) from None
    if not isinstance(tree, dict):
        raise DataError("The annotation is not a JSON object.", where=path, remedy="Export it again or remove it.")
    return tree


# labelme -----------------------------------------------------------------------------------------------------------


def _survey_labelme(path: Path) -> Labels:
    shapes = [_labelme_shape(shape, path) for shape in _shapes(_load(path), path)]
    names = Counter(label for label, kind, _ in shapes if kind in _DRAWN)
    return Labels(names, {}, Counter(kind for _, kind, _ in shapes if kind not in _DRAWN))


def _shapes(tree: Mapping[str, Any], path: Path) -> list[Any]:
    if not isinstance(tree.get("shapes"), list):
        raise DataError("The annotation has no list of shapes.", where=path, remedy="Export it again or remove it.")
    return list(tree["shapes"])


def _labelme_shape(shape: Any, path: Path) -> tuple[str, str, list[tuple[float, float]]]:
    """Label, kind and points of a shape; what has too few points for an area is called `point` or `line`."""
    try:
        kind, label = str(shape.get("shape_type") or "polygon"), str(shape["label"])
        points = [(_coordinate(x), _coordinate(y)) for x, y in shape["points"]]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"A shape has no label or no points ({error!r}).", where=path, remedy="Draw it again."
        ) from None
    if kind == "mask" and not points:
        raise DataError(f"The shape '{label}' of kind 'mask' has no points.", where=path, remedy="Draw it again.")
    if kind == "polygon" and len(points) == 2:
        kind = "line"
    if len(points) < {"polygon": 3, "rectangle": 2, "circle": 2}.get(kind, 0):
        kind = "point"
    return label, kind, points


def _coordinate(number: Any) -> float:
    value = float(number)
    if not abs(value) < FARTHEST_PX:
        raise ValueError(f"{value} is no place in an image")
    return value


def _draw_labelme(
    path: Path, encoding: MaskEncoding, size: tuple[int, int] | None, under: UInt8[np.ndarray, "H W"] | None
) -> UInt8[np.ndarray, "H W"]:
    from PIL import Image, ImageDraw

    tree = _load(path)
    try:
        own = _size_in(tree, "imageHeight", "imageWidth") or size
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"The size of the image is no number ({error}).", where=path, remedy="Export it again."
        ) from None
    if own is None:
        raise DataError("The annotation does not say the size of its image.", where=path, remedy="Export it again.")
    _same_size(own, size, path)
    canvas = Image.fromarray(under if under is not None else np.zeros(own, dtype=np.uint8))
    pen = ImageDraw.Draw(canvas)
    for shape in _shapes(tree, path):
        label, kind, points = _labelme_shape(shape, path)
        if kind not in _DRAWN:
            continue
        value = _class_of(label, encoding, path)
        if kind == "mask":
            stamp = _stamp(shape, path)
            canvas.paste(value, (round(points[0][0]), round(points[0][1])), stamp)
        elif kind == "polygon":
            pen.polygon(points, fill=value, outline=value)
        else:
            _draw_round(pen, kind, points, value)
    return np.array(canvas)


def _draw_round(pen: Any, kind: str, points: list[tuple[float, float]], value: int) -> None:
    """A rectangle from two opposite corners, a circle from its centre and a point of its border."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    if kind == "rectangle":
        pen.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), fill=value, outline=value)
    else:
        radius = float(np.hypot(x1 - x0, y1 - y0))
        pen.ellipse((x0 - radius, y0 - radius, x0 + radius, y0 + radius), fill=value, outline=value)


def _stamp(shape: Mapping[str, Any], path: Path) -> Any:
    """The little picture that labelme stores for shapes drawn by its models."""
    import base64
    import io

    from PIL import Image

    try:
        picture = np.array(Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(
            f"A shape of kind 'mask' cannot be read ({error}).", where=path, remedy="Draw it again."
        ) from None
    return Image.fromarray(np.where(picture > 0, 255, 0).astype(np.uint8))


def _class_of(label: str, encoding: MaskEncoding, path: Path) -> int:
    value = encoding.labels.get(label, encoding.other)
    if value is None:
        raise DataError(
            f"The label '{label}' belongs to no class; there are {', '.join(encoding.labels)}.",
            where=path,
            remedy="Rename the shape, or declare the class.",
        )
    return value


# COCO --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Coco:
    """A COCO file, indexed by image."""

    categories: Mapping[str, int]
    sizes: Mapping[str, tuple[int, int] | None]
    """Height and width by file name."""
    by_name: Mapping[str, tuple[str, ...]]
    """File names by their last part."""
    annotations: Mapping[str, tuple[Mapping[str, Any], ...]]


def _coco(path: Path) -> _Coco:
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(
            f"The annotation cannot be read ({error}).", where=path, remedy="Put it back or remove it."
        ) from None
    return _read_coco(path, stamp)


@lru_cache(maxsize=4)  # one file serves all images of a folder: reading it for each would be quadratic
def _read_coco(path: Path, _stamp_ns: int) -> _Coco:
    tree = _load(path)
    try:
        categories = {str(entry["name"]): int(entry["id"]) for entry in tree.get("categories", [])}
        names = {entry["id"]: str(entry["file_name"]).replace("\\", "/") for entry in tree["images"]}
        sizes = {names[entry["id"]]: _size_in(entry, "height", "width") for entry in tree["images"]}
        grouped: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names.values()}
        owners = [(annotation["image_id"], annotation) for annotation in tree["annotations"]]
        absent = [owner for owner, _ in owners if owner not in names]
        hash(tuple(annotation.get("category_id") for _, annotation in owners))  # each can be looked up
    except KeyError as error:
        raise DataError(f"An entry of the COCO file has no {error}.", where=path, remedy="Export it again.") from None
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"An entry of the COCO file cannot be understood ({error}).", where=path, remedy="Export it again."
        ) from None
    if absent:
        raise DataError(
            f"{len(absent)} annotations belong to images that are not in the list of images, such as the one with the "
            f"id {absent[0]!r}.",
            where=path,
            remedy="Add these images to 'images', or delete their annotations.",
        )
    for owner, annotation in owners:
        grouped[names[owner]].append(annotation)
    by_name: dict[str, list[str]] = {}
    for name in names.values():
        by_name.setdefault(PurePosixPath(name).name, []).append(name)
    return _Coco(
        categories,
        sizes,
        {key: tuple(value) for key, value in by_name.items()},
        {key: tuple(value) for key, value in grouped.items()},
    )


def _survey_coco(path: Path) -> Labels:
    file = _coco(path)
    names = {number: name for name, number in file.categories.items()}
    counts = Counter(dict.fromkeys(file.categories, 0))
    skipped: Counter[str] = Counter()
    for annotation in (entry for entries in file.annotations.values() for entry in entries):
        if annotation.get("category_id") not in names:
            raise DataError(
                f"An annotation has category {annotation.get('category_id')}, which is not in the list of categories.",
                where=path,
                remedy="Add the category or export again.",
            )
        counts[names[annotation["category_id"]]] += 1
        if not annotation.get("segmentation"):
            skipped["box without outline"] += 1
    return Labels(counts, file.categories, skipped)


def _draw_coco(
    path: Path,
    image: Path,
    encoding: MaskEncoding,
    size: tuple[int, int] | None,
    under: UInt8[np.ndarray, "H W"] | None,
) -> UInt8[np.ndarray, "H W"]:
    file = _coco(path)
    name = _entry_of(file, image, path)
    own = file.sizes[name] or size
    if own is None:
        raise DataError(f"The size of {name} is not given.", where=path, remedy="Export the annotations again.")
    _same_size(own, size, path, name)
    mask = under if under is not None else np.zeros(own, dtype=np.uint8)
    # regions of many objects are coarse; single objects are painted over them
    for annotation in sorted(file.annotations[name], key=lambda entry: not entry.get("iscrowd")):
        value = encoding.values.get(annotation.get("category_id", -1), encoding.other)
        if value is None:
            raise DataError(
                f"Category {annotation.get('category_id')} of {name} belongs to no class.",
                where=path,
                remedy="Add the category or export again.",
            )
        mask[_region(annotation.get("segmentation"), own, path, name)] = value
    return mask


def _entry_of(file: _Coco, image: Path, path: Path) -> str:
    """The `file_name` that means an image: the one that agrees with most of its path."""
    found = file.by_name.get(image.name, ())
    parts = image.as_posix()
    fitting = [name for name in found if parts.endswith(name.lstrip("./"))] or list(found)
    if len(fitting) != 1:
        problem = "has no entry" if not fitting else f"fits several entries ({', '.join(fitting)})"
        raise DataError(f"The image {image.name} {problem}.", where=path, remedy="Correct 'file_name' in 'images'.")
    return fitting[0]


def _region(segmentation: Any, size: tuple[int, int], path: Path, name: str) -> Bool[np.ndarray, "H W"]:
    """Pixels of one annotation: the union of its polygons, or its run lengths."""
    try:
        if isinstance(segmentation, Mapping):
            return decode_rle(segmentation["counts"], _rle_size(segmentation, size))
        region = np.zeros(size, dtype=bool)
        for part in segmentation or ():
            region |= fill(np.asarray(part, dtype=np.float64).reshape(-1, 2), size)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(
            f"An outline of {name} cannot be drawn ({error}).", where=path, remedy="Draw it again."
        ) from None
    return region


def _rle_size(segmentation: Mapping[str, Any], size: tuple[int, int]) -> tuple[int, int]:
    if tuple(segmentation["size"]) != size:
        raise ValueError(f"its run lengths are for {segmentation['size']}, the image is {list(size)}")
    return size


# YOLO --------------------------------------------------------------------------------------------------------------


def _yolo_shapes(path: Path) -> list[tuple[int, list[float]]]:
    """Class number and x y x y ... of each line."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        shapes = [(int(float(first)), [_coordinate(number) for number in rest]) for first, *rest in lines]
    except (OSError, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise DataError(
            f"This is not a YOLO polygon file ({error}).",
            where=path,
            remedy="Each line is: class x1 y1 x2 y2 x3 y3 ...",
        ) from None
    for number, (_, points) in enumerate(shapes, start=1):
        if len(points) == 4:
            raise DataError(
                f"Line {number} is a box, not an outline.",
                where=path,
                remedy="Boxes do not say which pixels belong to the object; export polygons.",
            )
        if len(points) < 6 or len(points) % 2:
            raise DataError(
                f"Line {number} has {len(points)} numbers after the class; outlines need 6, 8, 10, ...",
                where=path,
                remedy="Export the annotations again.",
            )
    return shapes


def _survey_yolo(path: Path) -> Labels:
    counts = Counter(number for number, _ in _yolo_shapes(path))
    return Labels({str(number): count for number, count in counts.items()}, {str(n): n for n in counts}, {})


def _draw_yolo(
    path: Path, encoding: MaskEncoding, size: tuple[int, int], under: UInt8[np.ndarray, "H W"] | None
) -> UInt8[np.ndarray, "H W"]:
    height, width = size
    mask = under if under is not None else np.zeros(size, dtype=np.uint8)
    for number, flat in _yolo_shapes(path):
        value = encoding.values.get(number, encoding.other)
        if value is None:
            raise DataError(f"Class {number} is not declared.", where=path, remedy="Add it to the names in data.yaml.")
        points = np.asarray(flat).reshape(-1, 2)
        if points.min() < -0.01 or points.max() > 1.01:
            raise DataError(
                f"Coordinates run from {points.min():g} to {points.max():g}; YOLO's are shares of the image, 0..1.",
                where=path,
                remedy="Divide x by the width and y by the height.",
            )
        mask[fill(points * (width, height), size)] = value
    return mask


# -------------------------------------------------------------------------------------------------------------------


def _image_size(case: Case) -> tuple[int, int]:
    from pixelwise.data import formats

    info = formats.read_info(case.image)
    return info.height, info.width


def _size_in(tree: Mapping[str, Any], height: str, width: str) -> tuple[int, int] | None:
    return (int(tree[height]), int(tree[width])) if tree.get(height) and tree.get(width) else None


def _same_size(own: tuple[int, int], size: tuple[int, int] | None, path: Path, name: str = "the image") -> None:
    if size is not None and own != size:
        raise DataError(
            f"The annotation of {name} is for {own[1]} x {own[0]} pixels (width x height), "
            f"but the image has {size[1]} x {size[0]}.",
            where=path,
            remedy="Annotate the image that is in the folder, or put the annotated one there.",
        )


_SURVEYS = {"labelme": _survey_labelme, "coco": _survey_coco, "yolo": _survey_yolo}
