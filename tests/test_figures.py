"""Pictures: checked pixel by pixel on cases small enough to do by hand."""

import math
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from pixelwise.classes import IGNORE, IGNORE_COLOR, ClassTable
from pixelwise.errors import DataError
from pixelwise.evaluation import figures

CELLS = ClassTable.from_names(["background", "cell"])
ORGANS = ClassTable.from_names(["background", "liver", "spleen"])
STREET = ClassTable.from_names(["sky", "road", "car"])


def row(epoch: int, **values: float | None) -> dict[str, float | None]:
    base: dict[str, float | None] = {
        "epoch": epoch,
        "train_loss": 1.0 / (epoch + 1),
        "validation_loss": 1.2 / (epoch + 1),
        "miou": 0.5 + 0.01 * epoch,
        "dice": 0.6 + 0.01 * epoch,
        "learning_rate": 1e-3,
    }
    return base | values


# --- to_display ------------------------------------------------------------------------------------------------------


def test_an_8_bit_rgb_image_is_shown_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(figures.to_display(image), image)


def test_of_more_than_three_channels_the_first_three_are_shown() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 6), dtype=np.uint8)
    np.testing.assert_array_equal(figures.to_display(image), image[:, :, :3])


def test_16_bit_grey_is_stretched_linearly_between_its_percentiles() -> None:
    ramp = np.linspace(1000, 3000, 1001).round().astype(np.uint16)[:, None, None]  # percentiles 0.5, 99.5: 1010, 2990
    shown = figures.to_display(ramp)
    assert shown.shape == (1001, 1, 3)
    assert (shown[:, 0, 0] == shown[:, 0, 1]).all()
    assert shown[5, 0, 0] == 0
    assert shown[995, 0, 0] == 255
    assert shown[500, 0, 0] in (127, 128)
    assert (np.diff(shown[:, 0, 0].astype(int)) >= 0).all()


def test_each_channel_is_stretched_by_itself() -> None:
    plane = np.arange(256, dtype=np.float32).reshape(16, 16)
    shown = figures.to_display(np.stack([plane, plane * 1000, plane - 5000], axis=2))
    assert np.ptp(shown.astype(int), axis=2).max() <= 1  # rounding
    assert np.ptp(shown[:, :, 2]) == 255


def test_values_that_are_not_finite_are_black_and_do_not_move_the_others() -> None:
    image = np.linspace(0, 1, 400).reshape(20, 20, 1)
    whole = figures.to_display(image)
    image[3, 4], image[10, 10], image[11, 11] = np.nan, np.inf, -np.inf
    shown = figures.to_display(image)
    assert (shown[[3, 10, 11], [4, 10, 11]] == 0).all()
    assert np.abs(shown[0].astype(int) - whole[0]).max() <= 2


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0), (7.5, 128), (math.nan, 0)])
def test_a_constant_image_is_shown_without_dividing_by_zero(value: float, expected: int) -> None:
    assert (figures.to_display(np.full((4, 4, 1), value)) == expected).all()


def test_a_few_bright_pixels_on_black_can_still_be_seen() -> None:
    image = np.zeros((100, 100, 1), dtype=np.uint16)
    image[50, 50] = 900
    assert figures.to_display(image)[50, 50, 0] == 255


def test_a_mask_stored_as_booleans_can_be_shown() -> None:
    image = np.eye(8, dtype=bool)[:, :, None]
    np.testing.assert_array_equal(figures.to_display(image)[:, :, 0], np.eye(8) * 255)


# --- masks -----------------------------------------------------------------------------------------------------------


def test_colorize_gives_every_pixel_the_colour_of_its_class() -> None:
    shown = figures.colorize(np.array([[0, 1], [2, IGNORE]], dtype=np.uint8), ORGANS)
    assert [tuple(pixel) for pixel in shown.reshape(-1, 3)] == [*map(tuple, ORGANS.colors()), IGNORE_COLOR]


def test_overlay_leaves_the_background_as_it_was_and_outlines_the_rest_in_full_colour() -> None:
    image = np.full((7, 7, 3), 100, dtype=np.uint8)
    mask = np.zeros((7, 7), dtype=np.uint8)
    mask[1:6, 1:6] = 1
    shown = figures.overlay(image, mask, CELLS, opacity=0.25)
    color = CELLS.colors()[1].astype(float)
    np.testing.assert_array_equal(shown[mask == 0], 100)
    np.testing.assert_array_equal(shown[1, 1:6], np.broadcast_to(color, (5, 3)))
    np.testing.assert_array_equal(shown[2:5, 2:5], np.broadcast_to(np.rint(75 + 0.25 * color), (3, 3, 3)))


def test_class_0_is_drawn_where_it_is_not_background() -> None:
    image = np.full((4, 4, 3), 255, dtype=np.uint8)
    assert (figures.overlay(image, np.zeros((4, 4), dtype=np.uint8), STREET) != 255).any()


def test_pictures_do_not_change_what_they_are_made_from() -> None:
    image = np.full((4, 4, 3), 9, dtype=np.uint8)
    mask = np.array([[0, 1, 2, IGNORE]] * 4, dtype=np.uint8)
    before = image.copy(), mask.copy()
    figures.overlay(image, mask, ORGANS)
    figures.error_map(image, mask, mask, ORGANS)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_error_map_of_a_case_done_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, 1, 2], [2, IGNORE, IGNORE]], dtype=np.uint8)
    prediction = np.array([[0, 1, 1], [0, 2, 0], [2, 0, 1]], dtype=np.uint8)
    shown = figures.error_map(np.full((3, 3, 3), 200, dtype=np.uint8), truth, prediction, ORGANS)
    extra, missed, wrong = figures.FALSE_POSITIVE_COLOR, figures.FALSE_NEGATIVE_COLOR, figures.WRONG_CLASS_COLOR
    expected = {(0, 1): extra, (1, 0): missed, (1, 1): wrong, (1, 2): missed}
    dim = (108, 108, 108)  # 0.45 x 200 + 18
    for place in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]:
        assert tuple(shown[place]) == expected.get(place, dim), place
    for place in [(2, 1), (2, 2)]:
        assert len(set(shown[place].tolist())) == 1, "ignored pixels are grey whatever was predicted"


def test_without_a_background_every_mistake_is_a_wrong_class() -> None:
    truth = np.array([[0, 1]], dtype=np.uint8)
    shown = figures.error_map(np.zeros((1, 2, 3), dtype=np.uint8), truth, truth[:, ::-1].copy(), STREET)
    assert (shown == figures.WRONG_CLASS_COLOR).all()


@pytest.mark.parametrize("classes", [CELLS, ORGANS, STREET], ids=["two", "three", "no background"])
def test_the_legend_of_errors_names_exactly_the_colours_that_can_occur(classes: ClassTable) -> None:
    count = len(classes)
    truth, prediction = (each.astype(np.uint8) for each in np.indices((count, count)))
    shown = figures.error_map(np.zeros((count, count, 3), dtype=np.uint8), truth, prediction, classes)
    found = {tuple(pixel) for pixel in shown.reshape(-1, 3).tolist() if len(set(pixel)) > 1}
    assert found == {color for _, color in figures.error_legend(classes)}


def test_error_colours_differ_in_lightness_too() -> None:
    colors = np.array([figures.FALSE_POSITIVE_COLOR, figures.FALSE_NEGATIVE_COLOR, figures.WRONG_CLASS_COLOR])
    lightness = np.sort(colors @ [0.299, 0.587, 0.114])
    assert np.diff(lightness).min() > 25


# --- contact sheet ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_a_contact_sheet_holds_every_image_unchanged(count: int) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (24 + i, 32, 3), dtype=np.uint8) for i in range(count)]
    masks = [rng.integers(0, 3, image.shape[:2], dtype=np.uint8) for image in images]
    sheet = figures.contact_sheet(images, masks, [f"patch {i}" for i in range(count)], ORGANS)
    windows = np.lib.stride_tricks.sliding_window_view(sheet[:, :, 0], 32, axis=1)
    for image in images:
        tops, lefts = np.nonzero((windows == image[0, :, 0]).all(axis=2))
        assert len(tops) == 1
        top, left = tops[0], lefts[0]
        np.testing.assert_array_equal(sheet[top : top + image.shape[0], left : left + 32], image)


def test_a_contact_sheet_names_all_classes_even_many_with_long_names() -> None:
    classes = ClassTable.from_names([f"a rather long name of class {i} " * 4 for i in range(40)])
    patch = np.zeros((16, 16, 3), dtype=np.uint8)
    sheet = figures.contact_sheet([patch], [patch[:, :, 0]], ["x" * 500], classes)
    found = {tuple(pixel) for pixel in sheet.reshape(-1, 3).tolist()}
    assert {tuple(color) for color in classes.colors()[1:].tolist()} <= found
    assert sheet.shape[1] < 2000


def test_a_contact_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="0 images"):
        figures.contact_sheet([], [], [], CELLS)


# --- learning curves -------------------------------------------------------------------------------------------------


def panels(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(f"<div>{svg}</div>"))


def test_learning_curves_are_well_formed_and_say_what_they_show() -> None:
    found = panels(figures.learning_curves([row(i) for i in range(30)]))
    assert [panel.tag.rpartition("}")[2] for panel in found] == ["svg"] * 3
    labels = [panel.attrib["aria-label"] for panel in found]
    assert [label.split(" by ")[0] for label in labels] == ["Loss", "Validation score", "Learning rate"]
    words = "".join(found[1].itertext())
    assert "best 0.790" in words  # 0.5 + 0.01 x 29
    assert "mIoU" in words


def test_learning_curves_follow_the_colours_of_the_page() -> None:
    svg = figures.learning_curves([row(i) for i in range(30)])
    for variable in ("--ink", "--muted", "--rule", "--curve-a", "--curve-b"):
        assert f"var({variable}, #" in svg
    # no colour is left that a dark page could not change
    bare = svg
    for color, variable in figures._THEME.items():
        bare = bare.replace(f"var({variable}, {color})", "")
    assert "stroke: #" not in bare
    assert "fill: #" not in bare


def test_ids_are_distinct_and_every_reference_has_its_id() -> None:
    elements = [each for panel in panels(figures.learning_curves([row(i) for i in range(5)])) for each in panel.iter()]
    ids = [each.attrib["id"] for each in elements if "id" in each.attrib]
    assert len(ids) == len(set(ids))
    used = {value[1:] for each in elements for key, value in each.attrib.items() if key.endswith("href")}
    used |= {each.attrib["clip-path"][5:-1] for each in elements if "clip-path" in each.attrib}
    assert used
    assert used <= set(ids)


@pytest.mark.parametrize(
    "history",
    [
        [row(0)],
        [row(0, miou=None, dice=math.nan, validation_loss=math.inf)],
        [row(i, validation_loss=None) for i in range(4)],
        [{"epoch": 0}, {"epoch": 1}],
        [row(i, learning_rate=3e-7) for i in range(400)],
    ],
    ids=["one epoch", "not finite", "no validation", "nothing but epochs", "long"],
)
def test_unusual_histories_are_drawn(history: list[dict[str, float | None]]) -> None:
    assert len(panels(figures.learning_curves(history))) == 3


def test_equal_histories_give_equal_text() -> None:
    history = [row(i) for i in range(5)]
    assert figures.learning_curves(history) == figures.learning_curves(history)


def test_learning_curves_are_saved_as_a_picture(tmp_path: Path) -> None:
    target = tmp_path / "new" / "curves.png"
    figures.save_learning_curves(target, [row(i) for i in range(5)])
    with Image.open(target) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
    assert [file.name for file in target.parent.iterdir()] == ["curves.png"]


def test_a_single_epoch_is_the_only_one_on_its_axis() -> None:
    words = [text.text for text in panels(figures.learning_curves([row(0)]))[2].iter() if text.tag.endswith("}text")]
    assert words[:2] == ["1", "epoch"]


def test_epochs_are_counted_from_one_as_in_the_terminal() -> None:
    drawn = panels(figures.learning_curves([row(epoch) for epoch in range(3)]))[0]
    words = [text.text for text in drawn.iter() if text.tag.endswith("}text")]
    assert words[: words.index("epoch")] == ["1", "2", "3"]
