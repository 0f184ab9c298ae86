"""How masks are recognised: one small data set per way of storing them, with the classes known in advance."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from pixelwise.classes import IGNORE, default_color
from pixelwise.data import survey
from pixelwise.data.dataset import Case
from pixelwise.data.detect import Declaration, Detection, detect
from pixelwise.data.masks import UnknownValuesError, decode
from pixelwise.errors import DataError

NOTHING = Declaration()


def blocks(*values: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """A mask of 8 x 8 blocks with the given values, each at least once."""
    count = (size // 8) ** 2
    rng = np.random.default_rng(seed)
    chosen = np.concatenate([values, rng.choice(values, count - len(values))])
    return np.kron(rng.permutation(chosen).reshape(size // 8, -1), np.ones((8, 8), np.int64)).astype(np.int64)


def discs(count: int, first: int = 1, size: int = 64, step: int = 1) -> np.ndarray:
    """An instance map: `count` separate squares, numbered from `first`."""
    mask = np.zeros((size, size), np.int64)
    for i in range(count):
        row, column = divmod(i, size // 8)
        mask[row * 8 + 1 : row * 8 + 6, column * 8 + 1 : column * 8 + 6] = first + i * step
    return mask


def save(path: Path, mask: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, mask)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, mask)
    elif path.suffix == ".jpg":
        Image.fromarray(mask.astype(np.uint8)).save(path, quality=75)
    else:
        Image.fromarray(mask.astype(np.uint8)).save(path)
    return path


def cases_of(folder: Path, arrays: Sequence[np.ndarray], suffix: str = ".png") -> list[Case]:
    return [
        Case(name=f"m{i}", image=folder / f"m{i}.jpg", masks=(save(folder / f"m{i}{suffix}", array),))
        for i, array in enumerate(arrays)
    ]


def decoded(cases: Sequence[Case], detection: Detection) -> list[np.ndarray]:
    return [decode(case, detection.encoding, None) for case in cases]


def said(detection: Detection) -> str:
    return " ".join(detection.notices)


# index, binary and grey codes


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".png", np.uint8), (".tif", np.uint16), (".tif", np.float32), (".npy", np.int64)]
)
def test_class_indices_are_taken_as_they_are(tmp_path: Path, suffix: str, dtype: type) -> None:
    arrays = [blocks(0, 1, 2, seed=i).astype(dtype) for i in range(3)]
    cases = cases_of(tmp_path, arrays, suffix)
    detection = detect(cases, NOTHING)
    assert detection.classes.names == ["class 0", "class 1", "class 2"]
    assert not detection.notices
    for array, mask in zip(arrays, decoded(cases, detection), strict=True):
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, array)


@pytest.mark.parametrize(("values", "void"), [((0, 1, 2, 255), 255), ((-1, 0, 1, 2), -1)])
def test_void_values_are_ignored(tmp_path: Path, values: tuple[int, ...], void: int) -> None:
    cases = cases_of(tmp_path, [blocks(*values, seed=i) for i in range(3)], ".npy")
    detection = detect(cases, NOTHING)
    assert len(detection.classes) == 3
    np.testing.assert_array_equal(decoded(cases, detection)[0] == IGNORE, blocks(*values) == void)


@pytest.mark.parametrize("value", [1, 2, 128, 251, 255, 1000])
def test_zero_and_one_other_value_are_background_and_object(tmp_path: Path, value: int) -> None:
    cases = cases_of(tmp_path, [blocks(0, value).astype(np.uint16), blocks(0, 0).astype(np.uint16)], ".tif")
    detection = detect(cases, NOTHING)
    assert detection.classes.names == ["background", "object"]
    np.testing.assert_array_equal(decoded(cases, detection)[0], blocks(0, value) // value)
    assert (str(value) in said(detection)) == (value != 1)  # 0/1 needs no explanation


@pytest.mark.parametrize("pair", [(251, 255), (1, 255)])
def test_masks_with_several_palettes_are_one_object(tmp_path: Path, pair: tuple[int, int]) -> None:
    cases = cases_of(tmp_path, [blocks(0, pair[0]), blocks(0, pair[1]), blocks(0, pair[0])])
    detection = detect(cases, NOTHING)
    assert len(detection.classes) == 2
    for mask, value in zip(decoded(cases, detection), (pair[0], pair[1], pair[0]), strict=True):
        np.testing.assert_array_equal(mask, blocks(0, value) // value)
    assert f"{pair[0]} in 2" in said(detection)
    assert "declare `ignore: 255`" in said(detection)
    assert len(detect(cases, Declaration(ignore=255)).classes) == 2


def test_one_bit_and_palette_masks_give_their_indices(tmp_path: Path) -> None:
    bits = blocks(0, 1).astype(bool)
    Image.fromarray(bits).save(tmp_path / "bits.png")
    palette = Image.fromarray(blocks(0, 1).astype(np.uint8))
    palette.putpalette([0, 0, 0, 200, 10, 10])
    palette.save(tmp_path / "palette.png")
    cases = [Case(name=n, image=tmp_path, masks=(tmp_path / f"{n}.png",)) for n in ("bits", "palette")]
    for mask in decoded(cases, detect(cases, NOTHING)):
        np.testing.assert_array_equal(mask, bits)


@pytest.mark.parametrize("codes", [(0, 128, 255), (0, 85, 170, 255), (50, 100, 150, 200), (0, 126, 255)])
def test_grey_codes_are_classes_in_ascending_order(tmp_path: Path, codes: tuple[int, ...]) -> None:
    cases = cases_of(tmp_path, [blocks(*codes, seed=i) for i in range(3)])
    detection = detect(cases, NOTHING)
    assert detection.classes.names == [f"value {code}" if code else "background" for code in codes]
    np.testing.assert_array_equal(decoded(cases, detection)[0], np.searchsorted(codes, blocks(*codes)))
    assert "grey values" in said(detection)


def test_gaps_in_class_indices_are_kept_and_told(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [blocks(0, 1, 3), blocks(0, 3)])
    detection = detect(cases, NOTHING)
    assert len(detection.classes) == 4
    assert "value 2 never occurs" in said(detection)
    named = detect(cases, Declaration(names=("a", "b", "c", "d")))
    assert named.classes.names == ["a", "b", "c", "d"]
    assert not named.notices


def test_a_rare_class_among_indices_stays_a_class(tmp_path: Path) -> None:
    array = blocks(0, 1, size=256)
    array[0, 0] = 2  # one pixel of 65536
    cases = cases_of(tmp_path, [array, blocks(0, 1, size=256), blocks(0, 1, size=256)])
    assert len(detect(cases, NOTHING).classes) == 3


def test_stray_values_are_ignored_and_told_but_no_classes(tmp_path: Path) -> None:
    arrays = [blocks(0, 128, 255, size=128, seed=i) for i in range(4)]
    arrays[2][0, :3] = 7
    arrays[3][0, 0] = 44
    cases = cases_of(tmp_path, arrays)
    detection = detect(cases, NOTHING)
    assert len(detection.classes) == 3
    assert detection.encoding.other == IGNORE
    assert "4 pixels in 2 mask files (m2.png, m3.png)" in said(detection)
    assert (decoded(cases, detection)[2] == IGNORE).sum() == 3


# lossy, blurred, instances


@pytest.mark.parametrize("codes", [(0, 255), (0, 128, 255)])
def test_jpeg_masks_count_as_the_nearest_code(tmp_path: Path, codes: tuple[int, ...]) -> None:
    # cut, so that the borders do not lie on JPEG's blocks of 8 x 8
    arrays = [np.kron(blocks(*codes, seed=i), np.ones((4, 4)))[3:, 5:] for i in range(3)]
    cases = cases_of(tmp_path, arrays, ".jpg")
    detection = detect(cases, NOTHING)
    assert len(detection.classes) == len(codes)
    assert detection.encoding.nearest
    assert "JPEG" in said(detection)
    truth = np.searchsorted(codes, arrays[0])
    assert (decoded(cases, detection)[0] == truth).mean() > 0.97


@pytest.mark.parametrize(
    ("blurred", "words"),
    [(1, "1 of 9 masks was resized"), (2, "2 of 9 masks were resized"), (9, "All masks were resized")],
)
def test_how_many_masks_were_resized_is_said(tmp_path: Path, blurred: int, words: str) -> None:
    arrays = [blocks(0, 255, seed=i) for i in range(9)]
    for i in range(blurred):
        arrays[i] = np.array(Image.fromarray(arrays[i].astype(np.uint8)).resize((300, 300)))
    assert words in said(detect(cases_of(tmp_path, arrays), NOTHING))


def test_resized_binary_masks_count_as_the_nearest_code(tmp_path: Path) -> None:
    smooth = [np.array(Image.fromarray(blocks(0, 255, seed=i).astype(np.uint8)).resize((300, 300))) for i in range(3)]
    detection = detect(cases_of(tmp_path, smooth), NOTHING)
    assert detection.encoding.nearest
    assert len(detection.classes) == 2


@pytest.mark.parametrize("width", [1, 3])
def test_a_few_values_at_soft_edges_are_no_classes_but_areas_are(tmp_path: Path, width: int) -> None:
    sharp = np.kron(blocks(0, 255), np.ones((4, 4), np.int64))
    soft = np.zeros_like(sharp)
    soft[20:60, 20:60] = 255
    for place, value in enumerate((50, 100, 150, 200)):
        soft[24:56, 20 + 10 * place : 20 + 10 * place + width] = value
    cases = cases_of(tmp_path, [soft, *[sharp] * 5])
    detection = detect(cases, NOTHING)
    assert detection.encoding.nearest == (width == 1)
    if width == 3:
        return
    assert len(detection.classes) == 2
    assert "1 of 6 masks was resized or smoothed" in said(detection)
    np.testing.assert_array_equal(decoded(cases, detection)[0], soft > 127)
    np.testing.assert_array_equal(decoded(cases, detection)[1], sharp // 255)


@pytest.mark.parametrize(
    "arrays",
    [
        [discs(40), discs(33), discs(51)],
        [discs(20, 200, step=7).astype(np.uint16), discs(30, 5, step=11).astype(np.uint16)],
        [discs(30, 3, step=4)],
    ],
)
def test_numbers_of_objects_are_one_class(tmp_path: Path, arrays: list[np.ndarray]) -> None:
    cases = cases_of(tmp_path, arrays, ".png" if arrays[0].dtype == np.int64 else ".tif")
    detection = detect(cases, NOTHING)
    assert detection.encoding.kind == "instances"
    assert "objects" in said(detection)
    for array, mask in zip(arrays, decoded(cases, detection), strict=True):
        np.testing.assert_array_equal(mask, array > 0)


def test_many_classes_are_not_taken_for_objects(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [blocks(*range(20), size=128, seed=i) for i in range(4)])
    assert len(detect(cases, NOTHING).classes) == 20


def test_several_files_of_a_case_are_united(tmp_path: Path) -> None:
    parts = [np.where(discs(5) == i, 255, 0) for i in range(1, 6)]
    paths = tuple(save(tmp_path / f"{i}.png", part) for i, part in enumerate(parts))
    case = Case(name="a", image=tmp_path, masks=paths)
    detection = detect([case], NOTHING)
    assert detection.encoding.kind == "union"
    np.testing.assert_array_equal(decode(case, detection.encoding, (64, 64)), discs(5) > 0)


# colours and layers

VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
RED, GREEN, BLUE, GREY, NEAR_BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 90), (2, 2, 2)


def painted(index: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> np.ndarray:
    return np.array(colors, np.uint8)[index]


def test_colours_are_classes_with_black_first_and_their_own_colour(tmp_path: Path) -> None:
    index = blocks(0, 1, 1, 1, 2, 2, 3)
    cases = cases_of(tmp_path, [painted(index, [(0, 0, 0), RED, GREEN, NEAR_BLACK])] * 2)
    detection = detect(cases, NOTHING)
    colors = [category.color for category in detection.classes.categories]
    assert detection.encoding.kind == "colors"
    assert colors[0] == (0, 0, 0)
    assert set(colors) == {(0, 0, 0), RED, GREEN, NEAR_BLACK}
    restored = detection.classes.colors()[decoded(cases, detection)[0]]
    np.testing.assert_array_equal(restored, painted(index, [(0, 0, 0), RED, GREEN, NEAR_BLACK]))


def test_almost_black_on_black_is_an_object(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [painted(blocks(0, 1), [(0, 0, 0), NEAR_BLACK]), painted(blocks(0, 0), [(0, 0, 0)])])
    np.testing.assert_array_equal(decoded(cases, detect(cases, NOTHING))[0], blocks(0, 1))


def test_declared_colours_give_the_order(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [painted(blocks(0, 1, 2), [BLUE, GREY, RED])])
    detection = detect(cases, Declaration(colors=(BLUE, GREY, RED), names=("sea", "rock", "fire")))
    assert detection.classes.names == ["sea", "rock", "fire"]
    np.testing.assert_array_equal(decoded(cases, detection)[0], blocks(0, 1, 2))


def test_a_colour_that_is_not_declared_is_an_error(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [painted(blocks(0, 1, 2), [BLUE, GREY, RED])])
    with pytest.raises(UnknownValuesError, match="255, 0, 0"):
        detect(cases, Declaration(colors=(BLUE, GREY)))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("declared", [None, ((0, 0, 0), RED)])
def test_a_colour_that_does_not_count_is_ignored(
    tmp_path: Path, suffix: str, declared: tuple[tuple[int, int, int], ...] | None
) -> None:
    index = np.kron(blocks(0, 1, 2), np.ones((8, 8), np.int64))
    cases = cases_of(tmp_path, [painted(index, [(0, 0, 0), RED, (224, 224, 192)])], suffix)
    detection = detect(cases, Declaration(ignore_colors=((224, 224, 192),), colors=declared))
    assert len(detection.classes) == 2
    assert "(224, 224, 192) are ignored" in said(detection)
    mask = decoded(cases, detection)[0]
    assert (mask == np.where(index == 2, IGNORE, index)).mean() > (0.97 if suffix == ".jpg" else 0.9999)


def test_a_colour_is_a_class_or_does_not_count(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [painted(blocks(0, 1, 2), [BLUE, GREY, RED])])
    with pytest.raises(DataError, match=r"\(255, 0, 0\) is twice in `colors` and `ignore`"):
        detect(cases, Declaration(colors=(BLUE, GREY, RED), ignore_colors=(RED,)))
    with pytest.raises(DataError, match="is twice"):
        detect(cases, Declaration(colors=(BLUE, GREY, BLUE)))
    with pytest.raises(DataError, match="one class only"):
        detect(cases, Declaration(ignore_colors=(RED, GREY)))


LAYERS = np.stack([blocks(0, 1) == 1, blocks(0, 1) == 0], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "declaration", "words"),
    [
        ("color", Declaration(values={0: "a", 7: "ignore"}), "colour per class, for which `values`"),
        ("color", Declaration(ignore=255), r"`ignore` of one value.*ignore: \[red, green, blue\]"),
        ("layers", Declaration(values={0: "a"}), "channel per class, for which `values`"),
        ("layers", Declaration(ignore=1), "`ignore` of one value"),
        ("layers", Declaration(ignore_colors=(RED,)), "`ignore` of a colour"),
        ("scalar", Declaration(ignore_colors=(RED,)), "no colours, for which `ignore` of a colour.*ignore: 255"),
        ("labelme", Declaration(values={0: "cell"}), "labelme polygons, for which `values`"),
        ("labelme", Declaration(ignore=0), "`ignore` of one value"),
        ("labelme", Declaration(ignore_colors=(RED,)), "`ignore` of a colour"),
    ],
)
def test_a_key_that_cannot_hold_is_refused_by_name(
    tmp_path: Path, kind: str, declaration: Declaration, words: str
) -> None:
    shape = {"label": "cell", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    if kind == "labelme":
        (tmp_path / "a.json").write_text(json.dumps({"shapes": [shape], "imageHeight": 16, "imageWidth": 16}))
        cases = [Case(name="a", image=tmp_path / "a.jpg", masks=(tmp_path / "a.json",))]
    else:
        array = {"color": painted(blocks(0, 1), [BLUE, RED]), "layers": LAYERS, "scalar": blocks(0, 1)}[kind]
        cases = cases_of(tmp_path, [array], ".npy" if kind == "layers" else ".png")
    assert detect(cases, NOTHING).classes
    with pytest.raises(DataError, match=words):
        detect(cases, declaration)


@pytest.mark.parametrize("names", [("sky", "sea", "fire"), ("sky", "sea")])
def test_names_are_not_given_to_colours_by_their_frequency(tmp_path: Path, names: tuple[str, ...]) -> None:
    cases = cases_of(tmp_path, [painted(blocks(0, 1, 2), [(0, 0, 0), BLUE, RED])])
    with pytest.raises(DataError, match="not which of the 3 colours") as caught:
        detect(cases, Declaration(names=names))
    lines = yaml.safe_load("colors:" + caught.value.remedy.partition("colors:")[2])
    assert {tuple(color) for color in lines["colors"]} == {(0, 0, 0), BLUE, RED}
    given = tuple(tuple(color) for color in lines["colors"][: len(names)])
    ignored = tuple(tuple(color) for color in lines["colors"][len(names) :])
    assert detect(cases, Declaration(names=names, colors=given, ignore_colors=ignored)).classes.names == list(names)


def test_black_and_one_other_colour_have_an_order_that_is_told(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [painted(blocks(0, 1), [(0, 0, 0), RED])])
    detection = detect(cases, Declaration(names=("ground", "vessel")))
    assert "(0, 0, 0) is 'ground', (255, 0, 0) is 'vessel'" in said(detection)
    np.testing.assert_array_equal(decoded(cases, detection)[0], blocks(0, 1))
    with pytest.raises(DataError, match="not which"):
        detect(cases_of(tmp_path, [painted(blocks(0, 1), [BLUE, RED])]), Declaration(names=("ground", "vessel")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_background(tmp_path: Path, mode: str) -> None:
    index = blocks(0, 1, 2)
    alpha = np.where(index > 0, 255, 0).astype(np.uint8)
    shown = painted(index, [(255, 255, 255), RED, GREEN]) if mode == "RGBA" else blocks(0, 128, 255).astype(np.uint8)
    cases = cases_of(tmp_path, [np.dstack([shown, alpha])] * 2)
    detection = detect(cases, NOTHING)
    assert len(detection.classes) == 3
    mask = decoded(cases, detection)[0]
    np.testing.assert_array_equal(mask == 0, index == 0)
    assert set(np.unique(mask)) == {0, 1, 2}


def test_blurred_edges_between_colours_are_ignored(tmp_path: Path) -> None:
    sharp = Image.fromarray(painted(blocks(0, 1, 2), [(0, 0, 0), RED, GREEN])).resize(
        (512, 512), Image.Resampling.NEAREST
    )
    smooth = sharp.resize((520, 520), Image.Resampling.BILINEAR)
    cases = cases_of(tmp_path, [np.array(smooth)] * 2)
    detection = detect(cases, NOTHING)
    assert len(detection.classes) == 3
    mask = decoded(cases, detection)[0]
    assert 0 < (mask == IGNORE).mean() < 0.1


def reduced(seed: int) -> np.ndarray:
    """Few colours at the edges, none of them with an area: half the size, with the mean of four pixels each."""
    index = np.kron(blocks(0, 0, 0, 1, 2, 3, seed=seed), np.ones((16, 16), np.int64))[5:, 3:]
    return np.array(Image.fromarray(painted(index, VOC)).resize((200, 200), Image.Resampling.BOX))


def test_a_few_colours_at_edges_are_no_classes(tmp_path: Path) -> None:
    detection = detect(cases_of(tmp_path, [reduced(i) for i in range(4)]), NOTHING)
    assert set(colors_of(detection)) == set(VOC)
    assert "other colours (edges, noise) and are ignored" in said(detection)


def test_rare_classes_that_lie_between_others_are_classes_if_they_have_an_area(tmp_path: Path) -> None:
    between = [(k, 0, 0) for k in range(10, 250, 26)]
    index = np.kron(blocks(0, 1), np.ones((12, 12), np.int64))
    for place in range(len(between)):
        index[30 * place + 4 : 30 * place + 10, 30 * place + 4 : 30 * place + 12] = 2 + place
    detection = detect(cases_of(tmp_path, [painted(index, [(0, 0, 0), RED, *between])] * 2), NOTHING)
    assert set(colors_of(detection)) == {(0, 0, 0), RED, *between}


def spotted(value: int | tuple[int, int, int], *, area: bool) -> np.ndarray:
    """Black and red, where a few pixels between them have a value or colour, as an area or along the edge."""
    mask = np.zeros((48, 48, 3), np.uint8)
    mask[:, 24:] = RED
    mask[(slice(6, 10), slice(6, 10)) if area else (slice(20, 40), 24)] = value
    return mask


def test_an_area_that_only_one_of_very_many_files_shows_is_a_class(tmp_path: Path) -> None:
    edges = [(4 * k, 0, 0) for k in range(3, 60)]
    arrays = [spotted(edge, area=False) for edge in edges for _ in range(2)]
    rare = (100, 100, 100)
    arrays += [spotted(rare, area=True)] * 2
    # a slope makes whatever is rare doubtful; the files of the many come first
    detection = detect(cases_of(tmp_path, arrays), NOTHING)
    assert set(colors_of(detection)) == {(0, 0, 0), RED, rare}


def test_a_colour_of_which_no_file_was_looked_at_is_no_edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "_LOOKED_AT_ONCE", 3)
    monkeypatch.setattr(survey, "_LOOKED_AT", 3)
    arrays = [spotted((20 * k, 0, 0), area=False) for k in range(1, 12) for _ in range(2)]
    cases = cases_of(tmp_path, arrays)
    counts = survey.take_survey(cases)
    assert len(survey.solid(counts, [(20 * k) << 16 for k in range(1, 12)])) == 11 - 3


def test_where_a_value_lies_is_looked_up_in_its_own_page_of_a_stack(tmp_path: Path) -> None:
    pages = np.zeros((12, 128, 128), np.uint8)
    pages[:, :, :50] = 255
    for place, value in enumerate((50, 100, 150, 200)):
        pages[0, 30 * place + 2 : 30 * place + 28, 60:100] = value
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, pages, metadata={"axes": "ZYX"}, imagej=True)
    cases = [Case(name=f"m/{page}", image=path, masks=(path,), page=page) for page in range(12)]
    assert len(detect(cases, NOTHING).classes) == 6


def test_masks_that_were_smoothed_need_declared_colours(tmp_path: Path) -> None:
    sharp = [Image.fromarray(painted(blocks(0, 1, 2, 3, seed=i), VOC)) for i in range(3)]
    cases = cases_of(tmp_path, [np.array(picture.resize((80, 80), Image.Resampling.BILINEAR)) for picture in sharp])
    with pytest.raises(DataError, match=r"cover no area.*smoothed, and only 4 colours") as caught:
        detect(cases, NOTHING)
    lines = yaml.safe_load("colors:" + caught.value.remedy.partition("colors:")[2])["colors"]
    assert {tuple(color) for color in lines} == set(VOC)
    detection = detect(cases, Declaration(colors=tuple(tuple(color) for color in lines)))
    shown = detection.classes.colors()
    for case, mask in zip(cases, decoded(cases, detection), strict=True):
        raw = np.array(Image.open(case.masks[0]))
        np.testing.assert_array_equal(shown[mask[mask != IGNORE]], raw[mask != IGNORE])
    with pytest.raises(UnknownValuesError, match="not declared"):
        detect(cases, Declaration(colors=tuple(VOC[:3])))


def test_jpeg_colours_count_as_the_nearest(tmp_path: Path) -> None:
    index = np.kron(blocks(0, 1, 2), np.ones((8, 8), np.int64))
    cases = cases_of(tmp_path, [painted(index, [(0, 0, 0), RED, (200, 200, 200)])], ".jpg")
    detection = detect(cases, NOTHING)
    assert detection.encoding.nearest
    assert len(detection.classes) == 3
    truth = [(0, 0, 0), RED, (200, 200, 200)]
    drawn = detection.classes.colors()[decoded(cases, detection)[0]].astype(int)
    assert (np.abs(drawn - painted(index, truth)).max(axis=2) < 12).mean() > 0.97


def test_a_photograph_is_no_mask(tmp_path: Path) -> None:
    ramp = np.linspace(0, 200, 64)[:, None, None] + np.linspace(0, 50, 64)[None, :, None]
    noise = np.random.default_rng(0).normal(0, 12, (64, 64, 3))
    photo = np.clip(ramp + noise, 0, 255).astype(np.uint8)
    for suffix in (".jpg", ".png"):
        with pytest.raises(DataError, match="photograph"):
            detect(cases_of(tmp_path, [photo] * 2, suffix), NOTHING)
    cut_out = np.dstack([photo, np.where(np.arange(64) < 20, 255, 0) * np.ones((64, 1))]).astype(np.uint8)
    with pytest.raises(DataError, match="photograph"):
        detect(cases_of(tmp_path, [cut_out] * 2), NOTHING)


@pytest.mark.parametrize("top", [1, 255])
def test_layers_that_never_overlap_are_classes(tmp_path: Path, top: int) -> None:
    index = blocks(0, 1, 2)
    layers = np.stack([(index == 1) * top, (index == 2) * top], axis=2).astype(np.uint8)
    cases = cases_of(tmp_path, [layers, np.zeros_like(layers)], ".npy")
    detection = detect(cases, NOTHING)
    assert detection.encoding.kind == "layers"
    assert len(detection.classes) == 3
    np.testing.assert_array_equal(decoded(cases, detection)[0], index)


def test_one_hot_layers_have_no_extra_background(tmp_path: Path) -> None:
    index = blocks(0, 1, 2, 3, 4)
    cases = cases_of(tmp_path, [np.eye(5, dtype=np.uint8)[index]], ".npy")
    detection = detect(cases, NOTHING)
    assert len(detection.classes) == 5
    np.testing.assert_array_equal(decoded(cases, detection)[0], index)


def test_overlapping_layers_are_refused_with_a_remedy(tmp_path: Path) -> None:
    layers = np.ones((16, 16, 5), np.uint8)
    layers[:8] = 0
    with pytest.raises(DataError, match=r"one class only.*which class wins"):
        detect(cases_of(tmp_path, [layers], ".npy"), NOTHING)


# palettes


def indexed(path: Path, mask: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> Case:
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette([part for color in palette for part in color])
    picture.save(path)
    return Case(name=path.stem, image=path, masks=(path,))


def colors_of(detection: Detection) -> list[tuple[int, int, int]]:
    return [category.color for category in detection.classes.categories]


def test_a_palette_gives_the_classes_their_colours(tmp_path: Path) -> None:
    palette = [GREY, RED, GREEN, BLUE]
    # the first file is grey and has the most values, so that the palette is that of the second one
    plain = Case(name="a", image=tmp_path, masks=(save(tmp_path / "a.png", blocks(0, 1, 3)),))
    cases = [plain, indexed(tmp_path / "b.png", blocks(0, 1), palette)]
    detection = detect(cases, NOTHING)
    assert colors_of(detection) == palette
    assert "palette of b.png" in said(detection)


def test_a_palette_is_looked_up_by_the_value_of_the_class_and_not_by_its_index(tmp_path: Path) -> None:
    palette = [(value, 255 - value, 7) for value in range(256)]
    cases = [indexed(tmp_path / "a.png", blocks(0, 128, 255), palette)]
    assert colors_of(detect(cases, NOTHING)) == [palette[0], palette[128], palette[255]]


@pytest.mark.parametrize(
    "palette",
    [
        [(0, 0, 0), (90, 90, 90), (255, 255, 255)],  # grey: a way to store, no choice of colours
        [RED, GREEN, GREEN],  # two classes that could not be told apart
        [RED],  # black beyond its end
        [default_color(0), default_color(1), default_color(2)],  # our own colours: nothing to tell
    ],
)
def test_a_palette_that_does_not_tell_the_classes_apart_is_passed_over(
    tmp_path: Path, palette: list[tuple[int, int, int]]
) -> None:
    cases = [indexed(tmp_path / "a.png", blocks(0, 1, 2, 3), [*palette, (0, 0, 0)])]
    detection = detect(cases, Declaration(values={0: 0, 1: 1, 2: 2, 3: "ignore"}))
    assert colors_of(detection) == [default_color(0), default_color(1), default_color(2)]
    assert not detection.notices


def test_declared_colours_win_over_a_palette(tmp_path: Path) -> None:
    cases = [indexed(tmp_path / "a.png", blocks(0, 1), [RED, GREEN])]
    detection = detect(cases, Declaration(colors=(BLUE, GREY)))
    assert colors_of(detection) == [BLUE, GREY]
    assert not detection.notices


def permuted(tmp_path: Path, truths: Sequence[np.ndarray]) -> list[Case]:
    """Masks that look alike, of which each has an order of its own in its palette."""
    cases = []
    for number, truth in enumerate(truths):
        place = np.random.default_rng(number).permutation(len(VOC))
        cases.append(indexed(tmp_path / f"{number}.png", place[truth], [VOC[i] for i in np.argsort(place)]))
    return cases


def test_where_palettes_contradict_each_other_their_colours_count(tmp_path: Path) -> None:
    truths = [blocks(0, 0, 0, 1, 2, 3, seed=i) for i in range(4)]
    cases = permuted(tmp_path, truths)
    detection = detect(cases, NOTHING)
    shown = detection.classes.colors()
    for truth, mask in zip(truths, decoded(cases, detection), strict=True):
        np.testing.assert_array_equal(shown[mask], painted(truth, VOC))
    assert "each mask is read through its own palette" in said(detection)
    ordered = detect(cases, Declaration(names=("a", "b", "c", "d"), colors=tuple(VOC)))
    np.testing.assert_array_equal(decoded(cases, ordered)[2], truths[2])
    with pytest.raises(DataError, match=r"Index . is .* so that the colours count"):
        detect(cases, Declaration(names=("a", "b", "c", "d")))


def test_palettes_that_contradict_each_other_are_no_matter_where_indices_are_declared(tmp_path: Path) -> None:
    cases = [indexed(tmp_path / f"{i}.png", blocks(0, 1, 2, seed=i), VOC[i : i + 3]) for i in range(2)]
    mask = decoded(cases, detect(cases, Declaration(values={0: 0, 1: 1, 2: 2})))[1]
    np.testing.assert_array_equal(mask, blocks(0, 1, 2, seed=1))


def test_names_of_two_classes_leave_no_room_for_more_colours(tmp_path: Path) -> None:
    cases = [indexed(tmp_path / f"{i}.png", blocks(0, 1, seed=i), [VOC[0], VOC[i]]) for i in (1, 2)]
    assert colors_of(detect(cases, NOTHING)) == VOC[:3]
    detection = detect(cases, Declaration(names=("ground", "cell")))
    np.testing.assert_array_equal(decoded(cases, detection)[1], blocks(0, 1, seed=2))
    assert "the indices count and not the colours, for 2 names are declared" in detection.notices[0]


def test_palettes_that_differ_where_no_pixel_is_are_one_palette(tmp_path: Path) -> None:
    shade = [VOC[0], (130, 2, 0), VOC[2], GREY]
    cases = [
        indexed(tmp_path / "a.png", blocks(0, 1, 2), VOC),
        indexed(tmp_path / "b.png", blocks(0, 1, 2), shade),
        Case(name="c", image=tmp_path, masks=(save(tmp_path / "c.png", blocks(0, 1, 2)),)),
        indexed(tmp_path / "d.png", blocks(0, 1, 2), [(value, value, value) for value in range(256)]),
    ]
    detection = detect(cases, NOTHING)
    assert detection.encoding.kind == "values"
    assert colors_of(detection) == VOC[:3]


@pytest.mark.parametrize("odd", ["no palette", "shows two of its indices in one colour"])
def test_indices_are_not_guessed_where_palettes_contradict_each_other(tmp_path: Path, odd: str) -> None:
    cases = permuted(tmp_path, [blocks(0, 1, 2, 3, seed=i) for i in range(4)])
    if odd == "no palette":
        cases.append(Case(name="z", image=tmp_path, masks=(save(tmp_path / "z.png", blocks(0, 1, 2)),)))
    else:
        cases.append(indexed(tmp_path / "z.png", blocks(0, 1, 2), [VOC[0], RED, RED]))
    with pytest.raises(DataError, match=f"Index .*z.png (has )?{odd}") as caught:
        detect(cases, NOTHING)
    table = yaml.safe_load(caught.value.remedy.partition("`")[2].partition("`")[0])["values"]
    assert len(detect(cases, Declaration(values=table)).classes) == 4


def test_a_palette_beside_colours_shows_the_same_colours(tmp_path: Path) -> None:
    truths = [blocks(0, 1, 2, 3, seed=i) for i in range(4)]
    cases = cases_of(tmp_path, [painted(truth, VOC) for truth in truths[:2]])
    cases += permuted(tmp_path, truths)[2:]
    detection = detect(cases, NOTHING)
    for truth, mask in zip(truths, decoded(cases, detection), strict=True):
        np.testing.assert_array_equal(detection.classes.colors()[mask], painted(truth, VOC))


def test_several_files_of_a_case_are_united_whatever_their_palettes(tmp_path: Path) -> None:
    parts = [indexed(tmp_path / f"{i}.png", discs(2) == i + 1, [(0, 0, 0), VOC[i + 1]]).masks[0] for i in range(2)]
    case = Case(name="a", image=tmp_path, masks=tuple(parts))
    np.testing.assert_array_equal(decode(case, detect([case], NOTHING).encoding, None), discs(2) > 0)


# declarations and refusals


def test_declared_names_are_given_to_codes_in_order(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [blocks(0, 128, 255)])
    detection = detect(cases, Declaration(names=("sky", "haze", "cloud")))
    assert detection.classes.names == ["sky", "haze", "cloud"]
    assert "128 is 'haze'" in said(detection)


def test_values_outside_of_the_declared_names_are_listed_with_their_files(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [blocks(0, 1), blocks(0, 1, 5, 9)])
    with pytest.raises(UnknownValuesError, match=r"5 \(.*m1\.png\); 9 \("):
        detect(cases, Declaration(names=("a", "b")))


def test_stray_values_contradict_declared_names_and_the_remedy_works(tmp_path: Path) -> None:
    arrays = [blocks(0, 128, 255, size=128, seed=i) for i in range(3)]
    arrays[2][0, :3] = (2, 7, 44)
    cases = cases_of(tmp_path, arrays)
    with pytest.raises(UnknownValuesError, match=r"values: \{2: ignore, 7: ignore, 44: ignore\}"):
        detect(cases, Declaration(names=("a", "b", "c")))
    detection = detect(cases, Declaration(names=("a", "b", "c"), values={2: "ignore", 7: "ignore", 44: "ignore"}))
    assert (decoded(cases, detection)[2] == IGNORE).sum() == 3


def test_a_declared_void_wins_over_being_a_class(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [blocks(0, 1, 2, 3, seed=i) for i in range(2)])
    detection = detect(cases, Declaration(ignore=3, names=("a", "b", "c")))
    assert len(detection.classes) == 3
    np.testing.assert_array_equal(decoded(cases, detection)[0] == IGNORE, blocks(0, 1, 2, 3) == 3)


def test_a_declared_void_holds_for_numbers_of_objects_too(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [discs(40), discs(33), discs(51)])
    mask = decoded(cases, detect(cases, Declaration(ignore=7)))[0]
    np.testing.assert_array_equal(mask == IGNORE, discs(40) == 7)


def test_a_declared_table_wins_over_everything(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [blocks(0, 1, 2, 200)])
    table: dict[int, int | str] = {0: "water", 1: "land", 2: "water", 200: "ignore"}
    detection = detect(cases, Declaration(values=table))
    assert detection.classes.names == ["water", "land"]
    expected = np.select([blocks(0, 1, 2, 200) == v for v in (1, 200)], [1, IGNORE], 0)
    np.testing.assert_array_equal(decoded(cases, detection)[0], expected)
    with pytest.raises(UnknownValuesError, match="200"):
        detect(cases, Declaration(values={0: 0, 1: 1, 2: 0}))
    with pytest.raises(DataError, match="'lava'"):
        detect(cases, Declaration(values={0: "lava"}, names=("a", "b")))


def test_a_table_that_only_ignores_leaves_the_rest_to_detection(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [blocks(0, 1, 7, 9)])
    detection = detect(cases, Declaration(values={7: "ignore", 9: "ignore"}, names=("a", "b")))
    assert set(np.unique(decoded(cases, detection)[0])) == {0, 1, IGNORE}


@pytest.mark.parametrize("value", [0, 3, 255])
def test_one_class_in_all_masks_is_an_error(tmp_path: Path, value: int) -> None:
    with pytest.raises(DataError, match="one class only"):
        detect(cases_of(tmp_path, [np.full((8, 8), value)] * 3), NOTHING)


@pytest.mark.parametrize(
    "declaration",
    [
        Declaration(names=("a",)),
        Declaration(names=("a", "a")),
        Declaration(names=("a", "b", "c", "d")),
        Declaration(names=("a", "b"), colors=(RED,)),
    ],
)
def test_impossible_declarations_are_data_errors(tmp_path: Path, declaration: Declaration) -> None:
    with pytest.raises(DataError):
        detect(cases_of(tmp_path, [blocks(0, 255)]), declaration)


def test_fractions_are_refused_and_damaged_files_passed_over(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        detect(cases_of(tmp_path, [np.random.default_rng(0).random((8, 8))], ".npy"), NOTHING)
    cases = cases_of(tmp_path, [blocks(0, 1), blocks(0, 1)])
    cases[1].masks[0].write_bytes(b"")
    assert detect(cases, NOTHING).classes.names == detect(cases[:1], NOTHING).classes.names


# real data

Find = Callable[[Path], list[Path]]


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("pattern", "kind", "classes"),
    [
        ("isbi2012_em/train/label/*", "values", 2),
        ("camvid/valannot/*", "values", 12),
        ("retina_vessels/chase_db1/*1stHO.png", "values", 2),
        ("retina_vessels/drive_messy/training/1st_manual/*", "values", 2),
        ("wbc_smears/Dataset 1/*.png", "values", 3),
        ("wbc_smears/Dataset 2/*.png", "values", 3),
        ("usiigaci_phase16/*/*/instances_ids.png", "instances", 2),
        ("usiigaci_phase16/*/*/labeled.png", "instances", 2),
        ("usiigaci_phase16/*/*/feature_1.png", "values", 2),
        ("format_zoo/hyta_clouds_jpegmask/2GT/*", "values", 2),
        ("format_zoo/hyta_clouds_jpegmask/3GT/*", "values", 3),
        ("format_zoo/labelme_voc_coco/data_dataset_voc/SegmentationClass/*", "values", 19),
        ("format_zoo/labelme_voc_coco/data_dataset_voc/SegmentationClassNpy/*", "values", 19),
        ("format_zoo/labelme_voc_coco/data_annotated/*.json", "labelme", 7),
        ("format_zoo/carvana_gif/train_masks/*", "values", 2),
        ("format_zoo/stardist_tiff/mask2d.tif", "instances", 2),
        ("format_zoo/spacenet_geotiff/sample_fp*.tif", "values", 2),
        ("format_zoo/uhcs_int64/labels_rescaled/*", "values", 4),
        ("format_zoo/uhcs_int64/labels_original_int64/*", "values", 4),
        ("format_zoo/crack_contradictions/masks_machine/*", "values", 2),
    ],
)
def test_real_masks_are_understood(realdata: Path, pattern: str, kind: str, classes: int) -> None:
    cases = [Case(name=str(path), image=path, masks=(path,)) for path in sorted(realdata.glob(pattern))]
    detection = detect(cases, NOTHING)
    assert detection.encoding.kind == kind
    assert len(detection.classes) == classes
    present = np.zeros(256, bool)
    for case in cases[:12]:
        present[np.unique(decode(case, detection.encoding, None))] = True
    assert not present[classes:IGNORE].any()


@pytest.mark.realdata
def test_two_encodings_of_the_same_truth_decode_to_the_same_masks(realdata: Path) -> None:
    folder = realdata / "format_zoo/uhcs_int64"
    decoded_sets = []
    for name in ("labels_rescaled", "labels_original_int64"):
        cases = [Case(name=p.stem, image=p, masks=(p,)) for p in sorted((folder / name).glob("*.tif"))]
        decoded_sets.append(decoded(cases, detect(cases, NOTHING)))
    for rescaled, original in zip(*decoded_sets, strict=True):
        np.testing.assert_array_equal(rescaled, original[: rescaled.shape[0]])
        assert (original[rescaled.shape[0] :] == IGNORE).all()


@pytest.mark.realdata
def test_voc_masks_give_the_colours_of_voc(realdata: Path) -> None:
    folder = realdata / "format_zoo/labelme_voc_coco/data_dataset_voc"
    paths = sorted((folder / "SegmentationClass").glob("*.png"))
    detection = detect([Case(name=p.stem, image=p, masks=(p,)) for p in paths], NOTHING)
    # VOC's rule: the bits of the index are dealt to red, green and blue in turn, from the highest bit of each down
    for index, color in enumerate(colors_of(detection)):
        dealt = [sum((index >> (3 * step + part) & 1) << (7 - step) for step in range(3)) for part in range(3)]
        assert color == tuple(dealt)


@pytest.mark.realdata
def test_camvid_void_is_ignored_when_declared(realdata: Path) -> None:
    cases = [Case(name=p.stem, image=p, masks=(p,)) for p in sorted((realdata / "camvid/valannot").glob("*"))[:20]]
    detection = detect(cases, Declaration(ignore=11))
    assert len(detection.classes) == 11
    raw = np.array(Image.open(cases[0].masks[0]))
    np.testing.assert_array_equal(decode(cases[0], detection.encoding, (360, 480)), np.where(raw == 11, IGNORE, raw))
