"""Masks that can be read in two ways: each pair of readings, the files that are named, and the lines that settle it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pixelwise.classes import IGNORE
from pixelwise.data import doubts, reading
from pixelwise.data.dataset import Case
from pixelwise.data.detect import Declaration, detect
from pixelwise.data.masks import decode
from pixelwise.errors import DataError

NOTHING = Declaration()


def square(*values: int, size: int = 64) -> np.ndarray:
    """Squares with these values, from left to right, on 0."""
    mask = np.zeros((size, size), np.uint8)
    for place, value in enumerate(values):
        mask[20:40, 10 * place + 2 : 10 * place + 9] = value
    return mask


def cases_of(folder: Path, arrays: Sequence[np.ndarray], suffixes: Sequence[str] = ()) -> list[Case]:
    cases = []
    for number, array in enumerate(arrays):
        path = folder / f"m{number}{suffixes[number] if suffixes else '.png'}"
        Image.fromarray(array).save(path)
        cases.append(Case(name=path.stem, image=path, masks=(path,)))
    return cases


def lines(error: DataError, number: int = 0) -> dict[str, object]:
    """What stands between the backticks of a remedy, as it would be read from a data.yaml."""
    parsed: dict[str, object] = yaml.safe_load(error.remedy.split("`")[2 * number + 1])
    return parsed


# 0 and 1 beside 0 and 255


def blurred() -> np.ndarray:
    return np.array(Image.fromarray(square(255, 255)).resize((97, 97), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("odd", ["blurred", "jpeg"])
def test_ones_are_not_lost_where_another_mask_is_blurred(tmp_path: Path, odd: str) -> None:
    arrays = [blurred() if odd == "blurred" else square(255, 255)] + [square(255)] * 3 + [square(1)] * 3
    cases = cases_of(tmp_path, arrays, [".png" if odd == "blurred" else ".jpg", *[".png"] * 6])
    with pytest.raises(DataError, match=r"3 masks \(m4.png, m5.png, m6.png\) hold 0 and 1, others .* 0 and 255.*\(m0."):
        detect(cases, NOTHING)
    assert len(detect(cases[:4], NOTHING).classes) == 2


def test_noise_of_jpeg_in_a_tile_without_object_is_no_object(tmp_path: Path) -> None:
    noise = (np.random.default_rng(0).random((64, 64)) < 0.05).astype(np.uint8)
    detection = detect(cases_of(tmp_path, [blurred(), *[square(255)] * 3, noise]), NOTHING)
    assert detection.encoding.description == "grey codes 0, 255, nearest counts"


# 255


@pytest.mark.parametrize(("binary", "indexed"), [(13, 1), (5, 8)])
def test_objects_of_255_are_not_ignored_because_other_masks_hold_indices(
    tmp_path: Path, binary: int, indexed: int
) -> None:
    cases = cases_of(tmp_path, [square(255)] * binary + [square(1, 2, 3)] * indexed)
    with pytest.raises(DataError, match=rf"{binary} masks \(m0.png.*255, {indexed} masks? \(m{binary}.png.*\) hold"):
        detect(cases, NOTHING)
    with pytest.raises(DataError) as caught:
        detect(cases, Declaration(names=("a", "b", "c", "d")))
    assert lines(caught.value) == {"ignore": 255}
    ignored = detect(cases, Declaration(ignore=255))
    assert (decode(cases[0], ignored.encoding, None) == IGNORE).sum() == (square(255) > 0).sum()
    table = lines(caught.value, 1)["values"]
    assert isinstance(table, dict)
    assert detect(cases, Declaration(values=table)).classes.names == ["a", "b", "c", "d", "object"]


@pytest.mark.parametrize(
    "arrays",
    [
        [square(255)] * 8 + [square(1, 2, 255)] * 2 + [square(1)],  # beside classes it is not labelled
        [square(255)] + [square(1, 2)] * 9,  # a border that occurs in one image
    ],
)
def test_what_nobody_labelled_may_be_all_that_some_masks_hold(tmp_path: Path, arrays: list[np.ndarray]) -> None:
    assert detect(cases_of(tmp_path, arrays), NOTHING).encoding.description == "class indices 0..2, 255 ignored"


def test_255_does_not_count_in_a_few_masks_where_each_name_is_that_of_an_index(tmp_path: Path) -> None:
    arrays = [*[square(255)] * 5, *[square(1, 2)] * 25]
    cases = cases_of(tmp_path, arrays)
    detection = detect(cases, Declaration(names=("ground", "road", "house")))
    assert (decode(cases[0], detection.encoding, None) == IGNORE).sum() == (arrays[0] == 255).sum()
    assert "5 masks (m0.png, m1.png, m2.png ...) hold no other values than 0 and 255" in detection.notices[0]
    for said in (NOTHING, Declaration(names=("ground", "road", "house", "tree"))):
        with pytest.raises(DataError, match="two kinds"):
            detect(cases, said)


# numbers of objects


def scattered(seed: int, count: int, *, sizes: Sequence[int] = (6,), fixed: bool = False) -> np.ndarray:
    """Squares numbered from 1, each in a cell of its own of a grid, which chance chooses unless it is `fixed`."""
    mask = np.zeros((64, 64), np.uint8)
    cells = np.arange(16) if fixed else np.random.default_rng(seed).permutation(16)
    for number, cell in enumerate(cells[:count], 1):
        row, column = 16 * (cell // 4), 16 * (cell % 4)
        edge = sizes[(number - 1) % len(sizes)]
        mask[row : row + edge, column : column + edge] = number
    return mask


COUNTS = (2, 3, 4, 5, 6, 2, 3, 4, 5, 6)


def test_a_few_numbered_objects_are_not_taken_for_classes(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, [scattered(i, count) for i, count in enumerate(COUNTS)])
    with pytest.raises(DataError, match=r"to 2 in some files \(m0.png\) and to 6 in others.*objects, or classes") as e:
        detect(cases, NOTHING)
    assert lines(e.value) == {"objects": True}
    for said in (Declaration(objects=True), Declaration(names=("background", "object"))):
        np.testing.assert_array_equal(decode(cases[1], detect(cases, said).encoding, None), scattered(1, 3) > 0)
    names = lines(e.value, 1)["names"]
    classes = detect(cases, Declaration(names=tuple(names)))  # type: ignore[arg-type]
    np.testing.assert_array_equal(decode(cases[1], classes.encoding, None), scattered(1, 3))


def test_five_pieces_anywhere_in_each_file_are_in_doubt_and_in_their_place_are_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="from 1 to 5, without gaps"):
        detect(cases_of(tmp_path, [scattered(i, 5) for i in range(10)]), NOTHING)
    assert len(detect(cases_of(tmp_path, [scattered(i, 5, fixed=True) for i in range(10)]), NOTHING).classes) == 6
    assert len(detect(cases_of(tmp_path, [scattered(i, 3) for i in range(10)]), NOTHING).classes) == 4


def test_classes_with_a_place_or_a_size_of_their_own_stay_classes(tmp_path: Path) -> None:
    placed = [scattered(i, count, fixed=True) for i, count in enumerate(COUNTS)]
    assert len(detect(cases_of(tmp_path, placed), NOTHING).classes) == 7
    sized = [scattered(i, count, sizes=(15, 11, 8, 6, 4, 2)) for i, count in enumerate(COUNTS)]
    assert len(detect(cases_of(tmp_path, sized), NOTHING).classes) == 7


def test_a_gap_or_a_second_piece_shows_classes(tmp_path: Path) -> None:
    arrays = [scattered(i, count) for i, count in enumerate(COUNTS)]
    assert len(detect(cases_of(tmp_path, [*arrays, np.where(arrays[4] == 3, 0, arrays[4])]), NOTHING).classes) == 7
    twice = [np.hstack([array, array]) for array in arrays]
    assert len(detect(cases_of(tmp_path, twice), NOTHING).classes) == 7


def test_few_files_are_looked_at_where_values_are_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Path] = []

    def read(path: Path, case: Case) -> np.ndarray:
        looked_at.append(path)
        return reading.read_mask(path, case)

    monkeypatch.setattr(doubts, "read_mask", read)
    arrays = [scattered(i, COUNTS[i % 10]) for i in range(20)]
    detect(cases_of(tmp_path, [np.hstack([array, array]) for array in arrays]), NOTHING)
    assert len(looked_at) <= 5
    looked_at.clear()
    monkeypatch.setattr(doubts, "_PIXELS", 7 * 64 * 64)
    with pytest.raises(DataError, match="objects, or classes"):
        detect(cases_of(tmp_path, arrays), NOTHING)
    assert len(looked_at) == 7


def test_that_values_number_objects_holds_whatever_the_values_are(tmp_path: Path) -> None:
    arrays = [*[scattered(i, count) for i, count in enumerate(COUNTS)], 3 * (scattered(10, 1) > 0) + scattered(11, 1)]
    cases = cases_of(tmp_path, [array.astype(np.uint8) for array in arrays])
    with pytest.raises(DataError, match="2 classes are declared") as caught:
        detect(cases, Declaration(names=("background", "cell")))
    assert lines(caught.value, 1) == {"objects": True}
    for said in (Declaration(objects=True), Declaration(objects=True, names=("background", "cell"))):
        np.testing.assert_array_equal(decode(cases[-1], detect(cases, said).encoding, None), arrays[-1] > 0)


@pytest.mark.parametrize(
    "said", [Declaration(objects=True, names=("a", "b", "c")), Declaration(objects=True, values={0: 0, 1: 1})]
)
def test_numbers_of_objects_are_no_classes(tmp_path: Path, said: Declaration) -> None:
    with pytest.raises(DataError, match="declares other classes"):
        detect(cases_of(tmp_path, [square(1, 2)]), said)


def test_colours_are_no_numbers_of_objects(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in colour, for which `objects` means nothing"):
        detect(cases_of(tmp_path, [VOC[square(1, 2)]]), Declaration(objects=True))


def painted_at_random(folder: Path, counts: Sequence[int]) -> list[Case]:
    """Numbered squares, in each file with a palette of its own."""
    cases = []
    for seed, count in enumerate(counts):
        rng = np.random.default_rng(seed)
        cells = rng.permutation(64)[:count]
        mask = np.zeros((128, 128), np.uint8)
        for number, cell in enumerate(cells, 1):
            row, column = 16 * (cell // 8), 16 * (cell % 8)
            mask[row : row + 9, column : column + 9] = number
        picture = Image.fromarray(mask)
        picture.putpalette([0, 0, 0, *rng.integers(30, 255, 3 * count).tolist()])
        path = folder / f"m{seed}.png"
        picture.save(path)
        cases.append(Case(name=path.stem, image=path, masks=(path,)))
    return cases


def test_numbered_objects_that_each_file_paints_in_other_colours_stay_objects(tmp_path: Path) -> None:
    cases = painted_at_random(tmp_path, range(20, 28))
    for said in (NOTHING, Declaration(names=("background", "cell")), Declaration(objects=True)):
        detection = detect(cases, said)
        mask = np.array(Image.open(cases[3].masks[0]))
        np.testing.assert_array_equal(decode(cases[3], detection.encoding, None), mask > 0)
    assert (
        "the indices count and not the colours, for most colours are in one file only"
        in detect(cases, NOTHING).notices[0]
    )


def test_a_few_numbered_objects_in_other_colours_are_in_doubt_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"objects, or classes\?"):
        detect(painted_at_random(tmp_path, COUNTS), NOTHING)


# indices in JPEG


def test_indices_in_jpeg_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [np.kron(rng.integers(0, 4, (8, 8)), np.ones((7, 7))).astype(np.uint8) for _ in range(4)]
    with pytest.raises(DataError, match=r"JPEG cannot hold class indices.*4 of 4 masks are JPEG files \(m0.jpg"):
        detect(cases_of(tmp_path, arrays, [".jpg"] * 4), NOTHING)
    cases = cases_of(tmp_path, arrays, [".jpg", ".png", ".png", ".png"])
    invented = sorted(set(np.unique(np.array(Image.open(tmp_path / "m0.jpg"))).tolist()) - set(range(4)))
    with pytest.raises(DataError, match=r"1 of 4 masks is a JPEG file \(m0.jpg\)") as caught:
        detect(cases, NOTHING)
    assert lines(caught.value)["values"] == {0: 0, 1: 1, 2: 2, 3: 3, **dict.fromkeys(invented, "ignore")}
    assert len(detect(cases[1:], NOTHING).classes) == 4


# indices beside colours

VOC = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (90, 90, 90)], np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_indices_beside_colours_are_refused_with_files_of_both(tmp_path: Path, channels: int) -> None:
    index = square(1, 2)
    numbers = index if channels == 1 else np.dstack([index] * 3)
    cases = cases_of(tmp_path, [VOC[index]] * 3 + [numbers] * 2)
    with pytest.raises(DataError, match=r"3 of 5 .* in colour, such as m0.png, and 2 masks \(m3.png, m4.png\) hold"):
        detect(cases, NOTHING)
    colors = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (1, 1, 1), (2, 2, 2))
    assert len(detect(cases, Declaration(colors=colors)).classes) == 5


def test_grey_is_a_colour_beside_others(tmp_path: Path) -> None:
    shown = [VOC[square(1, 3)], VOC[square(2)], square(90), np.dstack([square(200)] * 3), square()]
    detection = detect(cases_of(tmp_path, shown), NOTHING)
    assert {category.color for category in detection.classes.categories} == {
        *[tuple(color) for color in VOC.tolist()],
        (200, 200, 200),
    }
