"""How masks are decoded: encodings are given, arrays are known, and what comes out is compared pixel by pixel."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.classes import IGNORE
from pixelwise.data.dataset import Case, MaskEncoding
from pixelwise.data.masks import UnknownValuesError, decode, pack_colors, unpack_color
from pixelwise.data.reading import WrongSizeError
from pixelwise.errors import DataError

BLACK, RED, GREEN = (0, 0, 0), (255, 0, 0), (0, 255, 0)
ENCODINGS = {
    "values": MaskEncoding(kind="values", values={-1: IGNORE, 0: 0, 128: 1, 65535: 2}, other=IGNORE),
    "colors": MaskEncoding(
        kind="colors", colors={BLACK: 0, RED: 1, (1, 22, 3): 2, (255, 255, 255): IGNORE}, nearest=True
    ),
    "instances": MaskEncoding(kind="instances", values={7: IGNORE}, description="numbers: 7 ignored"),
    "union": MaskEncoding(kind="union"),
    "files": MaskEncoding(kind="files", labels={"car": 2, "1": 1}, other=255),
    "layers": MaskEncoding(kind="layers", values={0: 1, 1: 2}),
    "labelme": MaskEncoding(kind="labelme", labels={"cell, round": 1, "Zelle \u00e4": 2, "1": 3, "__ignore__": IGNORE}),
    "coco": MaskEncoding(kind="coco", values={18: 1, 44: 2}),
    "yolo": MaskEncoding(kind="yolo", values={0: 1, 1: 2}),
}
"""One encoding of each kind."""

Write = Callable[..., Case]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes one .npy file for each array: the masks of one case."""

    def case_of(*arrays: np.ndarray) -> Case:
        paths = tuple(tmp_path / f"m{i}.npy" for i in range(len(arrays)))
        for path, array in zip(paths, arrays, strict=True):
            np.save(path, array)
        return Case(name="m", image=tmp_path / "m.png", masks=paths)

    return case_of


def random_of(*values: int, size: tuple[int, ...] = (12, 17)) -> np.ndarray:
    return np.random.default_rng(0).choice(values, size)


# encodings as JSON


@pytest.mark.parametrize("kind", get_args(MaskEncoding.model_fields["kind"].annotation))
def test_an_encoding_of_each_kind_comes_back_from_json(kind: str) -> None:
    encoding = ENCODINGS[kind]
    written = json.dumps(encoding.model_dump(mode="json"), sort_keys=True)
    assert MaskEncoding.model_validate(json.loads(written)) == encoding
    assert MaskEncoding.model_validate(encoding.model_dump()) == encoding
    assert MaskEncoding.model_validate_json(encoding.model_dump_json()) == encoding


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(st.tuples(*[st.integers(0, 255)] * 3), st.integers(0, 255), max_size=5),
    st.dictionaries(st.integers(-(2**40), 2**40), st.integers(0, 255), max_size=5),
    st.dictionaries(st.text(), st.integers(0, 255), max_size=5),
)
def test_every_table_comes_back_from_json(
    colors: dict[tuple[int, int, int], int], values: dict[int, int], labels: dict[str, int]
) -> None:
    encoding = MaskEncoding(kind="colors", colors=colors, values=values, labels=labels)
    assert MaskEncoding.model_validate(json.loads(json.dumps(encoding.model_dump(mode="json")))) == encoding


@pytest.mark.parametrize("key", ["", "1,2", "1,2,3,4", "red", "1,2,x"])
def test_a_key_that_is_no_colour_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="colors"):
        MaskEncoding.model_validate({"kind": "colors", "colors": {key: 0}})


# values


def test_a_mask_of_another_size_or_with_unknown_values_names_its_file(write: Write) -> None:
    case = write(random_of(0, 1, 9))
    encoding = MaskEncoding(kind="values", values={0: 0, 1: 1})
    with pytest.raises(WrongSizeError, match=r"m0\.npy.*17 x 12.*its image 10 x 31"):
        decode(case, encoding, (31, 10))
    with pytest.raises(UnknownValuesError, match=r"m0\.npy.*holds 9,"):
        decode(case, encoding, (12, 17))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_lookup_agrees_with_a_dictionary(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.integers(-5, 70000), min_size=1, max_size=6, unique=True))
    table = {key: index for index, key in enumerate(keys)}
    raw = np.array(data.draw(st.lists(st.integers(-9, 70009), min_size=6, max_size=6))).reshape(2, 3)
    path = tmp_path_factory.mktemp("lookup") / "m.npy"
    np.save(path, raw)
    case = Case(name="m", image=path, masks=(path,))
    other = decode(case, MaskEncoding(kind="values", values=table, other=77), None)
    assert other.ravel().tolist() == [table.get(value, 77) for value in raw.ravel().tolist()]
    nearest = decode(case, MaskEncoding(kind="values", values=table, nearest=True), None)
    for value, found in zip(raw.ravel().tolist(), nearest.ravel().tolist(), strict=True):
        assert abs(keys[found] - value) == min(abs(key - value) for key in keys)


def test_values_of_a_mask_with_channels_are_refused(write: Write) -> None:
    case = write(random_of(0, 1, size=(5, 6, 2)))
    with pytest.raises(DataError, match=r"m0\.npy.*2 channels"):
        decode(case, MaskEncoding(kind="values", values={0: 0, 1: 1}), None)


def test_instances_are_all_objects_but_those_in_the_table(write: Write) -> None:
    raw = random_of(0, 1, 7, 300)
    mask = decode(write(raw), ENCODINGS["instances"], raw.shape)
    np.testing.assert_array_equal(mask, np.select([raw == 0, raw == 7], [0, IGNORE], 1))


def test_several_files_are_united_and_must_be_of_one_size(write: Write) -> None:
    parts = [random_of(0, 255), np.roll(random_of(0, 255), 3, axis=0), np.zeros((12, 17), np.int64)]
    np.testing.assert_array_equal(decode(write(*parts), ENCODINGS["union"], None), np.any(parts, axis=0))
    with pytest.raises(WrongSizeError, match=r"m1\.npy.*17 x 11.*other masks.*17 x 12"):
        decode(write(parts[0], parts[1][1:]), ENCODINGS["union"], (12, 17))


def test_a_case_without_mask_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match="no mask"):
        decode(write(), ENCODINGS["values"], None)


# colours


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=6))
def test_packed_colours_are_hexadecimal_and_come_back(colors: list[tuple[int, int, int]]) -> None:
    packed = pack_colors(np.array(colors, np.uint8)).tolist()
    assert [f"{value:06x}" for value in packed] == [bytes(color).hex() for color in colors]
    assert [unpack_color(value) for value in packed] == colors


def test_colours_are_looked_up_exactly_or_by_distance(write: Write) -> None:
    rng = np.random.default_rng(1)
    table = [BLACK, RED, GREEN, (250, 10, 10)]
    index = rng.integers(0, 4, (9, 11))
    noisy = np.clip(np.array(table)[index] + rng.integers(-20, 21, (9, 11, 3)), 0, 255)
    colors = {color: number for number, color in enumerate(table)}
    exact = decode(write(np.array(table, np.uint8)[index]), MaskEncoding(kind="colors", colors=colors), None)
    np.testing.assert_array_equal(exact, index)
    near = decode(write(noisy), MaskEncoding(kind="colors", colors=colors, nearest=True), None)
    distances = ((noisy[:, :, None] - np.array(table)) ** 2).sum(axis=3)
    np.testing.assert_array_equal(np.take_along_axis(distances, near[..., None], 2)[..., 0], distances.min(axis=2))
    other = decode(write(noisy), MaskEncoding(kind="colors", colors=colors, other=IGNORE), None)
    np.testing.assert_array_equal(other == IGNORE, distances.min(axis=2) > 0)
    with pytest.raises(UnknownValuesError, match=r"m0\.npy.*no class claims"):
        decode(write(noisy), MaskEncoding(kind="colors", colors=colors), None)


def test_grey_files_among_coloured_ones_are_colours_with_equal_parts(write: Write) -> None:
    colors = {BLACK: 0, RED: 1, (200, 200, 200): 2}
    raw = random_of(0, 200)
    np.testing.assert_array_equal(decode(write(raw), MaskEncoding(kind="colors", colors=colors), None), raw // 100)


@pytest.mark.parametrize("shape", [(4, 5, 2), (4, 5, 4)])
def test_channels_that_are_no_colour_are_refused(write: Write, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=rf"m0\.npy.*{shape[2]} channels"):
        decode(write(random_of(0, 255, size=shape)), ENCODINGS["colors"], None)


def test_colours_of_16_bits_are_not_mistaken_for_others(write: Write) -> None:
    raw = np.zeros((4, 5, 3), np.uint16)
    raw[..., 1] = 0xFF00  # packed without care, this is red
    with pytest.raises(DataError, match="uint16"):
        decode(write(raw), ENCODINGS["colors"], None)


# layers


def test_layers_are_classes_and_nothing_is_the_background_or_ignored(write: Write) -> None:
    index = random_of(0, 1, 2)
    layers = np.stack([index == 1, index == 2], axis=2).astype(np.uint8) * 255
    np.testing.assert_array_equal(decode(write(layers), ENCODINGS["layers"], None), index)
    complete = MaskEncoding(kind="layers", values={0: 0, 1: 1}, other=IGNORE)
    np.testing.assert_array_equal(
        decode(write(layers), complete, None), np.select([index == 1, index == 2], [0, 1], IGNORE)
    )
    empty = np.zeros((4, 5), np.uint8)  # channels that are all equal are read as one
    np.testing.assert_array_equal(decode(write(empty), ENCODINGS["layers"], None), empty)


def test_layers_of_another_number_are_refused(write: Write) -> None:
    for layers in (np.eye(3, dtype=np.uint8)[random_of(0, 1, 2)], random_of(0, 1)):
        with pytest.raises(DataError, match=r"m0\.npy.*the others have 2"):
            decode(write(layers), ENCODINGS["layers"], None)


def test_layers_that_overlap_are_refused(write: Write) -> None:
    layers = np.zeros((4, 5, 2), np.uint8)
    layers[0] = 1
    layers[1, :, 0] = 1
    with pytest.raises(DataError, match=r"5 pixels belong to several"):
        decode(write(layers), ENCODINGS["layers"], None)


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("far", [900, 2**31 - 2], ids=["in a table", "one by one"])
def test_values_far_apart_mean_what_they_mean_close_together(write: Write, far: int, nearest: bool) -> None:
    encoding = MaskEncoding(kind="values", values={-5: IGNORE, 0: 0, far: 1}, nearest=nearest, other=None)
    known = write(np.array([[0, far, -5], [far, far, 0]], dtype=np.int32))
    assert decode(known, encoding, None).tolist() == [[0, 1, IGNORE], [1, 1, 0]]
    strange = write(np.array([[0, far - 3, 2]], dtype=np.int32))
    if nearest:
        assert decode(strange, encoding, None).tolist() == [[0, 1, 0]]
    else:
        with pytest.raises(UnknownValuesError, match=f"2, {far - 3}"):
            decode(strange, encoding, None)
