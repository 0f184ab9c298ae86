"""The repaired copy: what is sound stays byte for byte, what is certain is mended, the rest is left out and named."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pixelwise import api
from pixelwise.classes import IGNORE
from pixelwise.data import formats, masks, writing
from pixelwise.data.dataset import Dataset
from pixelwise.data.finding import is_fatal
from pixelwise.data.folder import scan
from pixelwise.data.measure import measure
from pixelwise.data.repair import REPORT, Remark, Repair, to_text, write_copy
from pixelwise.errors import DataError

ORIENTATION = 0x0112


def picture(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (24, 32, 3)).astype(np.uint8)


def mask(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape or (24, 32)) < 0.4).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="rgb" if array.shape[-1] == 3 else "minisblack")
    else:
        Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six sound pairs."""
    for i in range(6):
        save(tmp_path / "data" / "images" / f"c{i}.png", picture(i))
        save(tmp_path / "data" / "masks" / f"c{i}.png", 255 * mask(i))
    return tmp_path / "data"


def repaired(data: Path) -> tuple[Dataset, dict[str, Repair]]:
    """The copy, which has no fatal findings left, and what was done, by the name of the first file."""
    out = data.parent / "copy"
    _, _, repairs = api.fix(data, out)
    dataset, findings = api.check(out)
    assert not is_fatal(findings), findings
    rows = list(csv.DictReader((out / REPORT).read_text().splitlines()))
    assert [row["outcome"] for row in rows] == [repair.outcome for repair in repairs]
    return dataset, {repair.files[0].name: repair for repair in repairs}


def read(dataset: Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    (case,) = [case for case in dataset.cases if case.name == name]
    return formats.read_image(case.image, case.page), masks.decode(case, dataset.encoding, None)


def test_what_is_sound_is_copied_byte_for_byte_and_masks_become_class_indices(data: Path) -> None:
    copy, repairs = repaired(data)
    assert {repair.outcome for repair in repairs.values()} == {"recoded"}
    assert len(copy.cases) == 6
    for i, case in enumerate(copy.cases):
        assert case.name == f"c{i}"
        assert case.image.read_bytes() == (data / "images" / f"c{i}.png").read_bytes()
        assert (masks.decode(case, copy.encoding, None) == mask(i)).all()
        assert formats.read_palette(case.masks[0]) is not None
    assert copy.classes == scan(data).classes


def test_masks_that_hold_class_indices_are_copied_and_not_recoded(data: Path) -> None:
    for i in range(6):
        save(data / "masks" / f"c{i}.png", mask(i))
    _, repairs = repaired(data)
    assert {repair.outcome for repair in repairs.values()} == {"copied"}


def test_stray_values_are_told_as_a_change_and_what_numbers_mean_is_said(data: Path) -> None:
    """Codes of which one is that of ignored pixels in the copy, and three pixels of other values in one mask."""
    for i in range(6):
        save(data / "masks" / f"c{i}.png", 128 * mask(i, 240, 320) + 127 * (mask(i, 240, 320) * mask(9, 240, 320)))
        save(data / "images" / f"c{i}.png", picture(i, 240, 320, 3))
    stray = 128 * mask(2, 240, 320) + 127 * (mask(2, 240, 320) * mask(9, 240, 320))
    stray[:3, 0] = 37
    save(data / "masks" / "c2.png", stray)
    copy, repairs = repaired(data)
    assert {name for name, repair in repairs.items() if repair.outcome == "changed"} == {"c2.png"}
    assert [one.text for one in repairs["c2.png"].remarks] == ["3 pixels of the mask are of no class, and ignored."]
    assert {repair.outcome for name, repair in repairs.items() if name != "c2.png"} == {"recoded"}
    assert list(copy.classes.names) == ["background", "value 128", "value 255"]
    text = to_text([*repairs.values()], scan(data), Path("out"))
    assert "1 changed, 5 recoded\n" in text
    assert "masks of the copy: 0 background, 1 value 128, 2 value 255, 255 ignored; those of the original: grey" in text
    assert copy.notices == (
        "Mask pixels of value 255 are ignored (3 pixels, 0.00%). In these masks the class 'value 255' is 2.",
    )


@pytest.mark.parametrize("kind", ["values", "colours"])
def test_pixels_that_are_ignored_on_purpose_are_no_stray_ones(data: Path, kind: str) -> None:
    """A border that does not count in all masks, and one odd pixel in one of them."""
    palette = np.zeros((256, 3), np.uint8)
    palette[[1, 2, 37, 255]] = [(200, 0, 0), (0, 0, 200), (90, 90, 9), (255, 255, 255)]
    for i in range(6):
        drawn = mask(i, 240, 320) + mask(i, 240, 320) * mask(i + 9, 240, 320)
        drawn[:3] = 255
        if i == 2:
            drawn[100, 100] = 37
        save(data / "images" / f"c{i}.png", picture(i, 240, 320, 3))
        save(data / "masks" / f"c{i}.png", drawn if kind == "values" else palette[drawn])
    if kind == "colours":
        (data / "data.yaml").write_text("images: images/*\nmasks: 'masks/{stem}.png'\nignore: [255, 255, 255]\n")
    _, repairs = repaired(data)
    assert {name for name, repair in repairs.items() if repair.outcome == "changed"} == {"c2.png"}
    assert [one.text for one in repairs["c2.png"].remarks] == ["1 pixels of the mask are of no class, and ignored."]


@pytest.mark.parametrize("kind", ["image", "mask"])
@pytest.mark.parametrize("size", [0, 70])
def test_what_cannot_be_read_is_left_out_with_its_reason(data: Path, kind: str, size: int) -> None:
    path = data / f"{kind}s" / "c3.png"
    path.write_bytes(path.read_bytes()[:size])
    copy, repairs = repaired(data)
    assert [case.name for case in copy.cases] == ["c0", "c1", "c2", "c4", "c5"]
    assert repairs["c3.png"].outcome == "left out"
    assert ("empty" if size == 0 else "damaged") in repairs["c3.png"].remarks[0].text


def test_files_without_partner_are_named_and_left_out(data: Path) -> None:
    save(data / "images" / "lonely.png", picture(9))
    copy, repairs = repaired(data)
    assert len(copy.cases) == 6
    assert repairs["lonely.png"].files == (data / "images" / "lonely.png",)
    assert repairs["lonely.png"].outcome == "left out"
    assert "no partner" in repairs["lonely.png"].remarks[0].text


def test_missing_values_become_the_median_of_their_channel_and_are_ignored(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "data" / "images" / f"c{i}.tif", picture(i).astype(np.float32))
        save(tmp_path / "data" / "masks" / f"c{i}.png", mask(i))
    broken = picture(1).astype(np.float32)
    broken[3, 4, 1], broken[5, 6, :] = np.nan, np.inf
    save(tmp_path / "data" / "images" / "c1.tif", broken)
    copy, repairs = repaired(tmp_path / "data")
    image, truth = read(copy, "c1")
    assert repairs["c1.tif"].outcome == "changed"
    assert "4 values" in repairs["c1.tif"].remarks[0].text
    assert image.dtype == np.float32
    finite = np.isfinite(broken)
    assert (image[finite] == broken[finite]).all()
    assert image[3, 4, 1] == np.median(broken[..., 1][finite[..., 1]])
    assert [tuple(place) for place in np.argwhere(truth == IGNORE)] == [(3, 4), (5, 6)]


def test_an_image_without_any_finite_value_is_left_out(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "data" / "images" / f"c{i}.tif", picture(i).astype(np.float32))
        save(tmp_path / "data" / "masks" / f"c{i}.png", mask(i))
    save(tmp_path / "data" / "images" / "c1.tif", np.full((24, 32, 3), np.nan, dtype=np.float32))
    copy, repairs = repaired(tmp_path / "data")
    assert len(copy.cases) == 3
    assert repairs["c1.tif"].outcome == "left out"


def test_constant_images_and_masks_without_any_label_are_left_out(data: Path) -> None:
    save(data / "images" / "c1.png", np.full((24, 32, 3), 7, dtype=np.uint8))
    (data / "data.yaml").write_text("values: {0: 0, 255: 1, 9: ignore}\n")
    save(data / "masks" / "c2.png", np.full((24, 32), 9, dtype=np.uint8))
    copy, repairs = repaired(data)
    assert [case.name for case in copy.cases] == ["c0", "c3", "c4", "c5"]
    assert "same value" in repairs["c1.png"].remarks[0].text
    assert "ignored" in repairs["c2.png"].remarks[0].text


@pytest.mark.parametrize("shape", [(23, 32), (24, 33), (25, 31)])
def test_a_mask_that_is_off_by_one_is_cropped_or_filled_with_ignored_pixels(data: Path, shape: tuple[int, int]) -> None:
    wrong = mask(50, *shape)
    save(data / "masks" / "c1.png", 255 * wrong)
    copy, repairs = repaired(data)
    _, truth = read(copy, "c1")
    assert truth.shape == (24, 32)
    rows, columns = min(24, shape[0]), min(32, shape[1])
    assert (truth[:rows, :columns] == wrong[:rows, :columns]).all()
    assert (truth[rows:] == IGNORE).all()
    assert (truth[:, columns:] == IGNORE).all()
    assert repairs["c1.png"].outcome == "changed"


def test_a_scaled_mask_is_scaled_back_without_new_values(data: Path) -> None:
    save(data / "masks" / "c1.png", 255 * np.kron(mask(1), np.ones((2, 2), dtype=np.uint8)))
    copy, _ = repaired(data)
    assert (read(copy, "c1")[1] == mask(1)).all()


def test_a_mask_of_another_shape_is_left_out(data: Path) -> None:
    save(data / "masks" / "c1.png", 255 * mask(1, 32, 24))
    save(data / "masks" / "c2.png", 255 * mask(2, 10, 32))
    copy, repairs = repaired(data)
    assert [case.name for case in copy.cases] == ["c0", "c3", "c4", "c5"]
    assert "24 x 32 pixels, the image 32 x 24" in repairs["c1.png"].remarks[0].text


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_drawn_on_the_image_as_stored_is_turned_like_it(data: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored, drawn = picture(70), mask(70)
    stored[..., 0] = 255 * drawn  # so that image and mask can be compared
    save(data / "images" / "c1.png", stored, exif=exif)
    save(data / "masks" / "c1.png", 255 * drawn)
    copy, repairs = repaired(data)
    image, truth = read(copy, "c1")
    assert image.shape[:2] == truth.shape == (32, 24)
    assert (image[..., 0] == 255 * truth).all()
    assert "turned" in repairs["c1.png"].remarks[0].text


def test_copies_are_left_out_and_of_contradicting_masks_the_agreement_stays(data: Path) -> None:
    for name, source in (("copy", 2), ("other", 4)):
        save(data / "images" / f"{name}.png", picture(source))
    save(data / "masks" / "copy.png", 255 * mask(2))
    changed = mask(4)
    changed[:5] = 1 - changed[:5]
    save(data / "masks" / "other.png", 255 * changed)
    copy, repairs = repaired(data)
    assert len(copy.cases) == 6
    assert [one.text for one in repairs["copy.png"].remarks] == ["The image has the same pixels as c2, which is kept."]
    assert repairs["other.png"].outcome == "left out"
    assert "160 pixels" in repairs["c4.png"].remarks[0].text
    _, truth = read(copy, "c4")
    assert (truth[:5] == IGNORE).all()
    assert (truth[5:] == mask(4)[5:]).all()
    assert repairs["c2.png"].outcome == "recoded"


def test_of_copies_on_two_sides_that_of_the_test_split_stays(tmp_path: Path) -> None:
    for side, seeds in (("train", (0, 1, 2, 3)), ("test", (4, 2))):
        for seed in seeds:
            save(tmp_path / "data" / side / "images" / f"{side}{seed}.png", picture(seed))
            save(tmp_path / "data" / side / "masks" / f"{side}{seed}.png", mask(seed))
    copy, _ = repaired(tmp_path / "data")
    sides = {case.name.rpartition("/")[2]: case.split for case in copy.cases}
    assert sides == {"train0": None, "train1": None, "train3": None, "test2": "test", "test4": "test"}


@pytest.mark.parametrize("grey", [1, 4])
def test_grey_among_colour_becomes_colour_and_transparency_goes(data: Path, grey: int) -> None:
    greys = {f"c{i}": picture(80 + i, 24, 32) for i in range(grey)}
    for name, image in greys.items():
        save(data / "images" / f"{name}.png", image)
    clear = picture(90, 24, 32, 4)
    save(data / "images" / "c5.png", clear)
    copy, repairs = repaired(data)
    assert len(copy.cases) == 6
    for name, image in greys.items():
        assert (read(copy, name)[0] == np.stack([image] * 3, axis=2)).all()
    assert (read(copy, "c5")[0] == clear[..., :3]).all()
    assert "transparency" in repairs["c5.png"].remarks[0].text


def test_a_channel_that_is_no_transparency_is_not_dropped(data: Path) -> None:
    tifffile.imwrite(data / "images" / "c1.tif", picture(5, 24, 32, 4), photometric="minisblack", planarconfig="contig")
    (data / "images" / "c1.png").unlink()
    copy, repairs = repaired(data)
    assert len(copy.cases) == 5
    assert repairs["c1.tif"].outcome == "left out"
    assert "4 channels" in repairs["c1.tif"].remarks[0].text


def test_what_stands_in_no_split_and_is_like_a_test_image_does_not_train_in_the_copy(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def smooth(seed: int) -> np.ndarray:
        return np.kron(picture(seed, 6, 8, 3), np.ones((8, 8, 1), dtype=np.uint8))

    for folder, seeds in (("train", (0, 1, 2, 3)), ("val", (4,)), ("test", (5,)), ("more", (6,))):
        for seed in seeds:
            save(data / folder / "images" / f"{folder}{seed}.png", smooth(seed))
            save(data / folder / "masks" / f"{folder}{seed}.png", mask(seed, 48, 64))
    save(data / "test" / "images" / "test7.png", smooth(99))
    save(data / "test" / "masks" / "test7.png", mask(7, 48, 64))
    save(data / "more" / "images" / "leak.png", (smooth(99) * 0.9).astype(np.uint8))
    save(data / "more" / "masks" / "leak.png", mask(7, 48, 64))
    copy, repairs = repaired(data)
    assert repairs["leak.png"].outcome == "left out"
    sides = {case.name.rpartition("/")[2]: case.split for case in copy.cases}
    assert sides["more6"] == "train"
    assert sides["test7"] == "test"
    assert "leak" not in sides


def test_groups_that_hold_the_same_image_are_one_in_the_copy(data: Path) -> None:
    save(data / "images" / "c3.png", picture(0))  # c0 and c3 are of different groups
    save(data / "masks" / "c3.png", 255 * mask(0))
    (data / "data.yaml").write_text("group_table: {file: t.csv, column: g}\n")
    (data / "t.csv").write_text("image,g\nc0,A\nc1,A\nc2,A\nc3,B\nc4,B\nc5,C\n")
    copy, _ = repaired(data)
    groups = {case.name: case.group for case in copy.cases}
    assert groups["c1"] == groups["c4"] != groups["c5"]


@pytest.mark.parametrize("shape", [(25, 32), (26, 32), (21, 32), (22, 30)])
def test_a_mask_that_is_nearly_of_the_size_is_not_stretched(data: Path, shape: tuple[int, int]) -> None:
    save(data / "masks" / "c1.png", 255 * mask(1, *shape))
    copy, repairs = repaired(data)
    assert repairs["c1.png"].outcome == ("changed" if shape == (25, 32) else "left out")
    assert len(copy.cases) == (6 if shape == (25, 32) else 5)


def test_jpeg_masks_colours_and_outlines_become_class_indices(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / "jpeg" / "images" / f"c{i}.png", picture(i, 64, 64, 3))
        save(tmp_path / "jpeg" / "masks" / f"c{i}.jpg", 255 * np.kron(mask(i, 4, 4), np.ones((16, 16), dtype=np.uint8)))
        save(tmp_path / "colour" / "images" / f"c{i}.png", picture(i))
        save(tmp_path / "colour" / "masks" / f"c{i}.png", mask(i)[..., None] * np.array([200, 0, 40], dtype=np.uint8))
        save(tmp_path / "drawn" / f"c{i}.png", picture(i))
        shape = {"label": "cell", "points": [[2, 2], [20 + i, 2], [20 + i, 20]], "shape_type": "polygon"}
        content = {"shapes": [shape], "imageHeight": 24, "imageWidth": 32}
        (tmp_path / "drawn" / f"c{i}.json").write_text(json.dumps(content))
    for name in ("jpeg", "colour", "drawn"):
        before = scan(tmp_path / name)
        api.fix(tmp_path / name, tmp_path / f"{name} copy")
        copy, findings = api.check(tmp_path / f"{name} copy")
        assert not is_fatal(findings)
        assert copy.classes == before.classes
        for one, other in zip(before.cases, copy.cases, strict=True):
            assert other.masks[0].suffix == ".png"
            truth = masks.decode(one, before.encoding, None)
            assert (formats.read_mask(other.masks[0]) == truth).all()


def test_an_interrupted_copy_leaves_nothing(data: Path) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    dataset = scan(data)
    with pytest.raises(KeyboardInterrupt):
        write_copy(dataset, measure(dataset), data.parent / "copy", interrupt)
    assert [path.name for path in data.parent.iterdir()] == ["data"]


def test_a_file_is_called_after_what_it_holds(data: Path) -> None:
    (data / "images" / "c1.png").unlink()
    Image.fromarray(picture(1)).save(data / "images" / "c1.png", format="BMP")
    copy, repairs = repaired(data)
    (case,) = [case for case in copy.cases if case.name == "c1"]
    assert case.image.suffix == ".bmp"
    assert (formats.read_image(case.image) == picture(1)).all()
    assert [one.text for one in repairs["c1.png"].remarks] == ["The file is BMP and is now called .bmp."]


@pytest.mark.parametrize("names", [("a", "b"), ("train-volume", "test-volume"), ("img_1", "raw_2"), ("train", "val")])
def test_stacks_become_single_images_that_stay_together(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        seeds = range(5) if name == names[0] else range(5, 10)
        save(tmp_path / "data" / "images" / f"{name}.tif", np.stack([picture(seed, 24, 32) for seed in seeds]))
        save(tmp_path / "data" / "masks" / f"{name}.tif", np.stack([mask(seed) for seed in seeds]))
    before = scan(tmp_path / "data")
    copy, repairs = repaired(tmp_path / "data")
    assert [case.split for case in before.cases] == [None] * 10
    assert [case.split for case in copy.cases] == [None] * 10
    here = {case.group: sorted(case.name for case in copy.cases if case.group == case.group) for case in copy.cases}
    assert set(here) == {case.group for case in before.cases}
    found = sorted((case.group, int(formats.read_image(case.image)[0, 0, 0])) for case in copy.cases)
    pages = [(case.group, int(formats.read_image(case.image, case.page)[0, 0, 0])) for case in before.cases]
    assert found == sorted(pages)
    assert {repair.outcome for repair in repairs.values()} == {"changed"}
    assert len(copy.cases) == 10


def test_a_page_that_would_be_called_as_another_image_gets_a_name_of_its_own(tmp_path: Path) -> None:
    save(tmp_path / "data" / "images" / "a.tif", np.stack([picture(seed, 24, 32) for seed in range(5)]))
    save(tmp_path / "data" / "masks" / "a.tif", np.stack([mask(seed) for seed in range(5)]))
    for name in ("a_page0", "A_page1", "b"):
        save(tmp_path / "data" / "images" / f"{name}.tif", picture(len(name) + ord(name[0]) + ord(name[-1]), 24, 32))
        save(tmp_path / "data" / "masks" / f"{name}.tif", mask(9))
    copy, _ = repaired(tmp_path / "data")
    assert len(copy.cases) == 8
    assert len({case.name.lower() for case in copy.cases}) == 8


def test_splits_groups_names_and_colours_are_those_of_the_original(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for i in range(8):
        save(data / f"patient {i // 2}" / "images" / f"x{i} (1).png", picture(i))
        save(data / f"patient {i // 2}" / "masks" / f"x{i} (1).png", mask(i))
    (data / "data.yaml").write_text(
        "names: [nothing, Gefäß]\ncolors: [[0, 0, 0], [1, 2, 3]]\ngroup: '^patient ([0-9])'\n"
        "train: ['patient 0', 'patient 1']\nval: 'patient 2'\ntest: 'patient 3'\n"
    )
    before = scan(data)
    copy, _ = repaired(data)
    assert [(c.name, c.group, c.split) for c in copy.cases] == [(c.name, c.group, c.split) for c in before.cases]
    assert copy.classes == before.classes


@pytest.mark.parametrize(
    ("dtype", "channels"),
    [
        (kind, count)
        for kind in ("uint8", "uint16", "int16", "uint32", "float32", "float64")
        for count in (1, 2, 3, 4, 5, 17)
    ],
)
def test_written_images_are_read_as_they_were(tmp_path: Path, dtype: str, channels: int) -> None:
    image = (np.random.default_rng(1).random((20, 30, channels)) * 200).astype(dtype)
    path = writing.write_image(tmp_path / "a.b", image)
    again = formats.read_image(path)
    assert again.dtype == image.dtype
    assert (again == image).all()


@pytest.mark.parametrize("place", ["data/copy", "data", "full", "file"])
def test_the_copy_goes_into_an_empty_folder_outside_of_the_data(data: Path, place: str) -> None:
    (data.parent / "full").mkdir()
    (data.parent / "full" / "x").touch()
    (data.parent / "file").touch()
    with pytest.raises(DataError, match=r"within the data|not an empty folder"):
        api.fix(data, data.parent / place)
    assert len(list(data.rglob("*.*"))) == 12


def test_where_nothing_is_left_the_table_says_why(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "data" / "images" / f"c{i}.png", np.full((24, 32, 3), i, dtype=np.uint8))
        save(tmp_path / "data" / "masks" / f"c{i}.png", mask(i))
    with pytest.raises(DataError, match="No image can be used"):
        api.fix(tmp_path / "data", tmp_path / "out")
    assert (tmp_path / "out" / REPORT).read_text().count("left out") == 3


def test_the_summary_counts_and_names_what_was_done(data: Path) -> None:
    repairs = [
        *(Repair((Path(f"{i}.png"), Path("m.png")), "left out", (Remark("broken", f"No {i}."),)) for i in range(900)),
        Repair((Path("c.png"), Path("m.png")), "changed", (Remark("mended", "Mended."),)),
        Repair((Path("d.png"), Path("m.png")), "copied"),
    ]
    text = to_text(repairs, scan(data), Path("out"), width=200)
    assert "900 left out, 1 changed, 1 copied" in text
    assert "900 left out, broken; such as 0.png: No 0." in text
    assert "1 changed, mended; such as c.png: Mended." in text
    assert "0 background, 1 object, 255 ignored; those of the original: " in text
    assert len(text.splitlines()) == 5
    assert max(map(len, to_text(repairs, scan(data), Path("out"), width=60).splitlines())) <= 60
