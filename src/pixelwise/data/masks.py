"""How mask files are decoded: from raw values, colours or channels to class indices.

`data.detect` finds out what the values mean; here a `MaskEncoding` is applied to one case.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped, UInt, UInt8

from pixelwise.classes import IGNORE, Color
from pixelwise.data import polygons
from pixelwise.data.dataset import Case, MaskEncoding
from pixelwise.data.formats import RawMask
from pixelwise.data.reading import piece_of, read_raw_mask, whole_size, wrong_size
from pixelwise.data.windows import row_bands
from pixelwise.errors import DataError

LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".jpe"})
"""Formats that change pixel values when they store them."""


LARGEST_TABLE = 2**20
"""Values are looked up in a table of fewer entries; where they lie farther apart, only those that occur are decoded."""


def count_values(mask: UInt[np.ndarray, "H W"]) -> Int[np.ndarray, " N"]:
    """Pixels of each value that 8 or 16 bits can have; numpy alone would turn all into numbers of eight bytes."""
    most = np.iinfo(mask.dtype).max + 1
    return np.asarray(np.sum([np.bincount(rows.reshape(-1), minlength=most) for rows in row_bands(mask)], axis=0))


class UnknownValuesError(DataError):
    """A mask has values that no class claims."""


def decode(case: Case, encoding: MaskEncoding, size: tuple[int, int] | None) -> UInt8[np.ndarray, "H W"]:
    """The class mask of a case.

    Args:
        case: with at least one mask file; several are united.
        encoding: what `detect` found, or what was stored with a model.
        size: height and width of the image in pixels, which the mask must have; none does not check.

    Returns:
        Class index or IGNORE for each pixel.

    Raises:
        UnknownValuesError: the mask has values that no class claims.
        DataError: a file cannot be read or has another size.
    """
    if not case.masks:
        raise DataError("The image has no mask.", where=case.image, remedy="Add one or leave the image out.")
    if is_drawn(encoding):
        return piece_of(polygons.draw(case, encoding, whole_size(case, size)), case)
    if encoding.kind == "files":
        return _decode_files(case, encoding, size)
    result: UInt8[np.ndarray, "H W"] | None = None
    for path in case.masks:
        stored = _read(path, case, size, result)
        # where a class is a colour, a palette says which colour an index is in its own file
        raw = stored.seen if encoding.kind == "colors" else stored.values
        # a few rows at a time: values are looked up as numbers of eight bytes
        part = np.concatenate([_DECODERS[encoding.kind](rows, encoding, path) for rows in row_bands(raw)])
        result = part if result is None else np.where(result == 0, part, result)
    assert result is not None
    return result


def _read(path: Path, case: Case, size: tuple[int, int] | None, others: UInt8[np.ndarray, "H W"] | None) -> RawMask:
    """A mask file, which is as large as its image and the other masks of it."""
    stored = read_raw_mask(path, case)
    expected, found = size if others is None else others.shape, stored.values.shape
    if expected is not None and found[:2] != tuple(expected):
        whose = "its image" if others is None else "the other masks of its image"
        raise wrong_size(path, found, expected, whose)
    return stored


def _decode_files(case: Case, encoding: MaskEncoding, size: tuple[int, int] | None) -> UInt8[np.ndarray, "H W"]:
    """Each file is one class, and what is in none is the background; files of one class are united."""
    result: UInt8[np.ndarray, "H W"] | None = None
    for path, name in zip(case.masks, case.parts, strict=True):
        if name not in encoding.labels:
            raise _unknown_part(name, path, encoding)
        index = encoding.labels[name]
        raw = _read(path, case, size, result).values
        is_class = raw != 0 if raw.ndim == 2 else (raw != 0).any(axis=2)
        if result is None:
            result = np.zeros(is_class.shape, dtype=np.uint8)
        twice = is_class & (result != 0) & (result != index)
        if encoding.other is None and twice.any():
            raise DataError(
                f"{int(twice.sum())} pixels belong to this class and to that of another file of the image "
                f"({shortened([other.name for other in case.masks if other != path], 3)}).",
                where=path,
                remedy="A pixel can have one class only: correct the files, or write `overlap: ignore` in data.yaml.",
            )
        result[is_class] = index
        result[twice] = IGNORE
    assert result is not None
    return result


def _unknown_part(name: str, path: Path, encoding: MaskEncoding) -> UnknownValuesError:
    return UnknownValuesError(
        f"This is a mask of '{name}', which is no class; there are {', '.join(encoding.labels)}.",
        where=path,
        remedy="Correct the names under `masks` in the data.yaml.",
    )


def is_drawn(encoding: MaskEncoding) -> bool:
    """Whether masks are drawn from outlines."""
    return encoding.kind in ("labelme", "coco", "yolo")


def _decode_values(raw: Shaped[np.ndarray, "..."], encoding: MaskEncoding, path: Path) -> UInt8[np.ndarray, "H W"]:
    """Decodes every value once, those of a range or those that occur, and looks pixels up among them."""
    if raw.ndim != 2:
        raise _unlike(path, f"The mask has {raw.shape[2]} channels; the others have one.")
    # a guard at each end of the known values stands for all that lie beyond
    low, high = min(encoding.values) - 1, max(encoding.values) + 1
    wide = raw.astype(np.int32 if raw.dtype.itemsize <= 2 else np.int64)
    if high - low < LARGEST_TABLE:
        values, place = np.arange(low, high + 1), np.clip(wide, low, high) - low
    else:
        values, place = np.unique(wide, return_inverse=True)
    result = _meanings(values, encoding)[place].reshape(raw.shape)
    if result.min(initial=0) < 0:
        raise _unknown(np.unique(raw[result < 0]).tolist(), path, sorted(encoding.values))
    return np.asarray(result, dtype=np.uint8)


def _meanings(values: Int[np.ndarray, " N"], encoding: MaskEncoding) -> Int[np.ndarray, " N"]:
    """The class of each value, or IGNORE; -1 where none claims it."""
    keys = np.array(sorted(encoding.values))
    classes = np.array([encoding.values[int(key)] for key in keys], dtype=np.int16)
    if encoding.nearest:
        centres = classes != IGNORE
        closest = np.abs(values[:, None] - keys[centres]).argmin(axis=1)
        others = classes[centres][closest]
    else:
        others = np.full(values.size, -1 if encoding.other is None else encoding.other, dtype=np.int16)
    place = np.searchsorted(keys, values).clip(0, keys.size - 1)
    meanings: Int[np.ndarray, " N"] = np.where(keys[place] == values, classes[place], others)
    return meanings


def _decode_colors(raw: Shaped[np.ndarray, "..."], encoding: MaskEncoding, path: Path) -> UInt8[np.ndarray, "H W"]:
    """Looks colours up by bisection; only colours that are not in the table are compared with all."""
    if raw.ndim == 3 and (raw.shape[2] != 3 or raw.max(initial=0) > 255):
        raise _unlike(
            path, f"The mask has {raw.shape[2]} channels of type {raw.dtype}; the others hold 8-bit RGB colours."
        )
    packed = pack_colors(raw) if raw.ndim == 3 else np.clip(raw, 0, 256).astype(np.int32) * 0x10101
    colors = pack_colors(np.array(list(encoding.colors))).tolist()
    table = dict(zip(colors, encoding.colors.values(), strict=True))
    keys = np.array(sorted(table), dtype=np.int32)
    classes = np.array([table[key] for key in keys.tolist()], dtype=np.uint8)
    place = np.searchsorted(keys, packed).clip(0, keys.size - 1)
    result: UInt8[np.ndarray, "H W"] = classes[place]
    unknown = keys[place] != packed
    if not unknown.any():
        return result
    if encoding.nearest:
        rest, inverse = np.unique(packed[unknown], return_inverse=True)
        points = np.array([unpack_color(int(value)) for value in keys])
        distances = [((points - unpack_color(int(value))) ** 2).sum(axis=1) for value in rest]
        result[unknown] = classes[np.argmin(distances, axis=1)][inverse]
        return result
    if encoding.other is None:
        found = [unpack_color(int(value)) for value in np.unique(packed[unknown])[:8]]
        raise _unknown(found, path, sorted(encoding.colors), "colors: {NAME: [red, green, blue]}")
    result[unknown] = encoding.other
    return result


def _decode_nonzero(raw: Shaped[np.ndarray, "..."], encoding: MaskEncoding, _path: Path) -> UInt8[np.ndarray, "H W"]:
    flat = raw if raw.ndim == 2 else raw.max(axis=2)
    result = (flat > 0).astype(np.uint8)
    for value, index in encoding.values.items():
        result[flat == value] = index
    return result


def _decode_layers(raw: Shaped[np.ndarray, "..."], encoding: MaskEncoding, path: Path) -> UInt8[np.ndarray, "H W"]:
    layers = raw[..., None] if raw.ndim == 2 else raw
    if encoding.values and layers.shape[2] != len(encoding.values) and layers.any():
        raise _unlike(path, f"The mask has {layers.shape[2]} channels; the others have {len(encoding.values)}.")
    claims = (layers != 0).sum(axis=2)
    if claims.max(initial=0) > 1:
        raise DataError(
            f"{int((claims > 1).sum())} pixels belong to several channels.",
            where=path,
            remedy="Decide which class wins; a pixel can have one only.",
        )
    classes = [encoding.values.get(channel, channel + 1) for channel in range(layers.shape[2])]
    empty = 0 if encoding.other is None else encoding.other
    chosen = np.asarray(classes)[np.argmax(layers != 0, axis=2)]
    return np.where(claims == 0, empty, chosen).astype(np.uint8)


def _unlike(path: Path, what: str) -> DataError:
    return DataError(what, where=path, remedy="Store it like the others.")


def _unknown(
    values: Sequence[Any], path: Path, known: Sequence[Any], example: str = "values: {VALUE: ignore}"
) -> UnknownValuesError:
    return UnknownValuesError(
        f"The mask holds {shortened(values)}, which no class claims (known: {shortened(known, 12)}).",
        where=path,
        remedy=f"Correct the mask, or declare what the value means in data.yaml: `{example}`.",
    )


_DECODERS: dict[str, Callable[[Shaped[np.ndarray, "..."], MaskEncoding, Path], UInt8[np.ndarray, "H W"]]] = {
    "values": _decode_values,
    "colors": _decode_colors,
    "instances": _decode_nonzero,
    "union": _decode_nonzero,
    "layers": _decode_layers,
}


# values as `detect` and `decode` share them ------------------------------------------------------------------------


def pack_colors(colors: Shaped[np.ndarray, "*axes 3"]) -> Int[np.ndarray, "*axes"]:
    """Colours as one number each, 0xRRGGBB."""
    wide = colors.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def unpack_color(packed: int) -> Color:
    """Red, green and blue of 0xRRGGBB."""
    return (packed >> 16) & 255, (packed >> 8) & 255, packed & 255


def shortened(items: Sequence[Any], most: int = 8) -> str:
    """The first items, separated by commas, and how many more there are."""
    shown = ", ".join(str(item) for item in items[:most])
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown
