"""The dataset doctor: each illness planted in a healthy data set, and the healthy one left alone."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pixelwise.classes import IGNORE, ClassTable
from pixelwise.data import check
from pixelwise.data.check import CHECKS, examine
from pixelwise.data.dataset import Case, Dataset, MaskEncoding, SplitName
from pixelwise.data.finding import Finding, is_fatal, to_json, to_text
from pixelwise.data.fingerprint import Fingerprint
from pixelwise.data.measure import Measurement, measure
from pixelwise.data.split import Split

VALUES = MaskEncoding(kind="values", values={0: 0, 1: 1, 255: IGNORE})


def picture(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (24, 32, 3)).astype(np.uint8)


def mask(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((24, 32)) < 0.4).astype(np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="rgb")
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.fixture
def healthy(tmp_path: Path) -> Dataset:
    cases = tuple(
        Case(
            name=f"c{i}",
            image=save(tmp_path / "images" / f"c{i}.png", picture(i)),
            masks=(save(tmp_path / "masks" / f"c{i}.png", mask(i)),),
        )
        for i in range(5)
    )
    return Dataset(tmp_path, cases, ClassTable.from_names(["background", "object"]), VALUES, "images, masks")


def only(findings: list[Finding], severity: str, *words: str) -> Finding:
    """The one finding, which has this severity and says these words."""
    assert len(findings) == 1, findings
    assert findings[0].severity == severity
    for word in words:
        assert word in f"{findings[0].what} {findings[0].cause} {findings[0].remedy}"
    return findings[0]


def test_a_healthy_data_set_has_no_findings(healthy: Dataset) -> None:
    assert examine(healthy) == []
    assert to_text([]) == "No problems were found."


@pytest.mark.parametrize("size", [0, 60])
@pytest.mark.parametrize("kind", ["image", "mask"])
def test_empty_and_cut_files_are_fatal_and_named(healthy: Dataset, kind: str, size: int) -> None:
    case = healthy.cases[2]
    path = case.image if kind == "image" else case.masks[0]
    path.write_bytes(path.read_bytes()[:size])
    finding = only(examine(healthy), "fatal")
    assert finding.files == (path,)
    assert finding.remedy.endswith("`pixelwise check --fix` leaves it out.")


def test_a_missing_file_is_fatal(healthy: Dataset) -> None:
    healthy.cases[0].masks[0].unlink()
    assert only(examine(healthy), "fatal").files == healthy.cases[0].masks


@pytest.mark.parametrize(
    ("shape", "word"),
    [((23, 32), "single pixel"), ((32, 24), "exchanged"), ((48, 64), "scaled"), ((10, 32), "cropped")],
)
def test_a_mask_of_another_size_is_fatal_and_both_sizes_are_said(
    healthy: Dataset, shape: tuple[int, int], word: str
) -> None:
    save(healthy.cases[1].masks[0], np.resize(mask(), shape))
    finding = only(examine(healthy), "fatal", word, "32 x 24", f"{shape[1]} x {shape[0]}", "1 mask is not of the size")
    assert finding.files == healthy.cases[1].masks


def test_mask_files_of_one_image_must_have_one_size(healthy: Dataset) -> None:
    second = save(healthy.root / "masks" / "more.png", np.ones((5, 5), np.uint8))
    broken = replace(healthy.cases[0], masks=(*healthy.cases[0].masks, second))
    union = replace(healthy, cases=(broken, *healthy.cases[1:]), encoding=MaskEncoding(kind="union"))
    only(examine(union), "fatal", "5 x 5", "32 x 24")


def test_unknown_mask_values_are_fatal(healthy: Dataset) -> None:
    save(healthy.cases[1].masks[0], mask() * 7)
    only(examine(healthy), "fatal", "7")


def test_nan_and_infinity_are_fatal(healthy: Dataset) -> None:
    cases = []
    for i, case in enumerate(healthy.cases):
        values = picture(i).astype(np.float32)
        if i == 3:
            values[0, 0, 0], values[1, 1, 1] = np.nan, np.inf
        cases.append(replace(case, image=save(case.image.with_suffix(".tif"), values)))
    finding = only(examine(replace(healthy, cases=tuple(cases))), "fatal", "(2 in all)")
    assert finding.files == (cases[3].image,)


def test_grey_among_colour_is_a_warning_and_four_channels_are_fatal(healthy: Dataset) -> None:
    save(healthy.cases[0].image, picture(9, 24, 32))
    only(examine(healthy), "warning", "channels", "Grey")
    save(healthy.cases[0].image, picture(9, 24, 32, 4))
    assert only(examine(healthy), "fatal", "channels").files == (healthy.cases[0].image,)


def test_mixed_bit_depths_are_a_warning(healthy: Dataset) -> None:
    path = save(healthy.cases[0].image.with_suffix(".tif"), picture(9).astype(np.uint16) * 257)
    cases = (replace(healthy.cases[0], image=path), *healthy.cases[1:])
    assert only(examine(replace(healthy, cases=cases)), "warning", "uint16").files == (path,)


def test_a_constant_image_is_a_warning_and_no_duplicate(healthy: Dataset) -> None:
    for case in healthy.cases[:2]:
        save(case.image, np.full((24, 32, 3), 80, np.uint8))
    assert len(only(examine(healthy), "warning", "same value").files) == 2


def test_unpaired_files_are_a_warning(healthy: Dataset) -> None:
    lonely = healthy.root / "images" / "lonely.png"
    assert only(examine(replace(healthy, unpaired=(lonely,))), "warning").files == (lonely,)


def test_a_mask_that_is_ignored_everywhere_is_a_warning(healthy: Dataset) -> None:
    save(healthy.cases[1].masks[0], np.full((24, 32), 255, np.uint8))
    only(examine(healthy), "warning", "ignored")


@pytest.mark.parametrize(("empty", "severity"), [(1, "notice"), (3, "warning")])
def test_empty_masks_are_a_notice_when_few_and_a_warning_when_most(healthy: Dataset, empty: int, severity: str) -> None:
    for case in healthy.cases[:empty]:
        save(case.masks[0], np.zeros((24, 32), np.uint8))
    assert len(only(examine(healthy), severity, f"{empty} of 5").files) == empty


def test_classes_that_are_absent_or_in_one_image_only_are_warnings(healthy: Dataset) -> None:
    values = MaskEncoding(kind="values", values={0: 0, 1: 1, 2: 2, 3: 3})
    names = ClassTable.from_names(["background", "object", "lonely", "absent"])
    save(healthy.cases[4].masks[0], np.where(np.arange(32) < 8, 2, mask(4)).astype(np.uint8))
    findings = examine(replace(healthy, encoding=values, classes=names))
    assert [finding.severity for finding in findings] == ["warning", "warning"]
    assert "absent" in findings[0].what
    assert "'lonely' in c4" in findings[1].what
    assert findings[1].files == (healthy.cases[4].image,)


@pytest.mark.parametrize(
    ("sides", "held_by", "said"),
    [
        ("train train train validation test", (3, 4), "'late' in validation and test"),
        ("train train - - test", (4,), "'late' in test"),
        ("train train train validation test", (2, 4), None),
        ("- - - - test", (3, 4), None),
        ("- - - - -", (3, 4), None),
        ("test test test test test", (3, 4), None),
    ],
)
def test_a_class_that_a_given_side_has_and_training_has_not_is_a_warning(
    healthy: Dataset, sides: str, held_by: tuple[int, ...], said: str | None
) -> None:
    given: dict[str, SplitName | None] = {"-": None, "train": "train", "validation": "validation", "test": "test"}
    cases = [replace(case, split=given[side]) for case, side in zip(healthy.cases, sides.split(), strict=True)]
    for number in held_by:
        save(cases[number].masks[0], np.where(np.arange(32) < 8, 2, mask(number)).astype(np.uint8))
    values = MaskEncoding(kind="values", values={0: 0, 1: 1, 2: 2})
    names = ClassTable.from_names(["background", "object", "late"])
    data = replace(healthy, cases=tuple(cases), encoding=values, classes=names)
    findings = CHECKS["classes without training"](data, list(measure(data)))
    if said is None:
        assert findings == []
        return
    assert only(findings, "warning", said).files == tuple(cases[number].image for number in held_by)


def test_images_are_not_compared_to_find_classes_without_training(
    healthy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = tuple(replace(case, split="train" if i else "test") for i, case in enumerate(healthy.cases))
    save(cases[0].masks[0], np.where(np.arange(32) < 8, 2, mask(0)).astype(np.uint8))
    data = replace(
        healthy,
        cases=cases,
        encoding=MaskEncoding(kind="values", values={0: 0, 1: 1, 2: 2}),
        classes=ClassTable.from_names(["background", "object", "late"]),
    )
    measured = list(measure(data))

    def compared(_one: Measurement, _other: object) -> bool:
        raise AssertionError("each with each takes too long where they are many")

    monkeypatch.setattr(Measurement, "__eq__", compared)
    only(CHECKS["classes without training"](data, measured), "warning", "'late' in test")


def test_a_class_below_one_percent_is_a_notice(healthy: Dataset) -> None:
    for case in healthy.cases:
        sparse = np.zeros((24, 32), np.uint8)
        sparse[0, :3] = 1
        save(case.masks[0], sparse)
    only(examine(healthy), "notice", "object 0.39%")


def test_identical_images_are_found_by_their_pixels(healthy: Dataset) -> None:
    first, second = healthy.cases[0], healthy.cases[3]
    Image.open(first.image).save(second.image, compress_level=0)  # other bytes, same pixels
    finding = only(examine(healthy), "warning", "2 images have the same pixels but different masks (c0 = c3)")
    assert finding.files == (first.image, second.image)
    Image.open(first.masks[0]).save(second.masks[0])
    only(examine(healthy), "warning", "c0 = c3", "count double")
    sides = ("train", "train", "train", "test", "validation")
    cases = tuple(replace(case, split=side) for case, side in zip(healthy.cases, sides, strict=True))
    only(examine(replace(healthy, cases=cases)), "warning", "leak")
    rest = tuple(replace(case, split="test" if case is second else None) for case in healthy.cases)
    only(examine(replace(healthy, cases=rest)), "warning", "leak", "left out of training")


@pytest.mark.parametrize(
    ("sides", "groups", "torn"),
    [
        ("vvTTT", "aaabb", "a"),
        ("t-TTT", "aabbc", ""),
        ("tt-TT", "aabbc", "b"),
        ("ttvvT", "aabcb", "b"),
        ("tvTtt", "ababc", "a, b"),
    ],
)
def test_groups_on_several_given_sides_are_listed(healthy: Dataset, sides: str, groups: str, torn: str) -> None:
    names: dict[str, SplitName | None] = {"t": "train", "v": "validation", "T": "test", "-": None}
    members = zip(healthy.cases, sides, groups, strict=True)
    cases = tuple(replace(case, split=names[side], group=group) for case, side, group in members)
    findings = examine(replace(healthy, cases=cases))
    if torn:
        only(findings, "warning", "different splits", f"({torn})")
    else:
        assert findings == []


def test_jpeg_masks_are_a_warning(healthy: Dataset) -> None:
    case = healthy.cases[0]
    path = save(case.masks[0].with_suffix(".jpg"), np.zeros((24, 32), np.uint8))
    encoding = VALUES.model_copy(update={"nearest": True})
    cases = (replace(case, masks=(path,)), *healthy.cases[1:])
    findings = examine(replace(healthy, cases=cases, encoding=encoding))
    assert [finding for finding in findings if "JPEG" in finding.what and finding.severity == "warning"]


def test_two_images_do_without_a_test_set_or_a_given_split_and_one_is_too_few(healthy: Dataset) -> None:
    few = replace(healthy, cases=healthy.cases[:2])
    only(examine(few), "warning", "2 labelled images", "data.test_fraction=0")
    only(
        [f for f in examine(replace(healthy, cases=healthy.cases[:1])) if f.severity == "fatal"], "fatal", "1 labelled"
    )
    given = tuple(replace(c, split=s) for c, s in zip(few.cases, ("train", "validation"), strict=True))
    assert examine(replace(few, cases=given)) == []


def test_all_findings_come_from_one_pass_the_fatal_ones_first(healthy: Dataset) -> None:
    healthy.cases[0].image.write_bytes(b"")
    save(healthy.cases[1].masks[0], mask() * 9)
    save(healthy.cases[2].masks[0], np.zeros((24, 32), np.uint8))
    findings = examine(replace(healthy, unpaired=(Path("x.png"),)))
    assert [finding.severity for finding in findings] == ["fatal", "fatal", "warning", "notice"]
    assert is_fatal(findings)
    assert not is_fatal(findings[2:])


def test_findings_become_text_of_the_asked_width_and_json_with_all_files() -> None:
    files = tuple(Path(f"folder/{i}.png") for i in range(9))
    finding = Finding("warning", "word " * 40, files, "cause", "remedy")
    text = to_text([finding, finding], width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.startswith("WARNING: word")
    assert "and 3 more" in text
    assert to_json([finding])[0]["files"] == [str(path) for path in files]
    assert to_json([finding])[0]["severity"] == "warning"


def test_progress_is_told_for_each_case(healthy: Dataset) -> None:
    steps: list[tuple[int, int]] = []
    examine(healthy, lambda done, total: steps.append((done, total)))
    assert steps == [(i, 5) for i in range(1, 6)]


def test_every_check_accepts_cases_that_could_not_be_read(healthy: Dataset) -> None:
    for case in healthy.cases:
        case.image.write_bytes(b"?")
        case.masks[0].write_bytes(b"?")
    measurements = check.measure(healthy)
    for name, one in CHECKS.items():
        assert isinstance(one(healthy, measurements), list), name
        assert isinstance(one(healthy, []), list), name


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["isbi2012_em/train", "wbc_smears/Dataset 1", "format_zoo/carvana_gif"])
def test_clean_real_sets_have_no_fatal_finding(realdata: Path, name: str) -> None:
    from pixelwise.data import folder

    start = time.perf_counter()
    assert not is_fatal(examine(folder.scan(realdata / name)))
    assert time.perf_counter() - start < 20


@pytest.mark.realdata
def test_the_contradicting_cracks_are_named(realdata: Path) -> None:
    from pixelwise.data import folder

    findings = examine(folder.scan(realdata / "format_zoo/crack_contradictions"))
    contradiction = next(finding for finding in findings if "different masks" in finding.what)
    assert len(contradiction.files) == 6
    assert {path.stem[-3:] for path in contradiction.files} == {"21a", "23a", "25a"}
    empty = next(finding for finding in findings if "background only" in finding.what)
    assert [path.stem for path in empty.files] == ["Im_GT_AIGLE_RN_F03bor", "Im_GT_AIGLE_RN_F09bor"]


@pytest.mark.slow
@pytest.mark.realdata
def test_the_identical_blood_cells_are_named(realdata: Path) -> None:
    from pixelwise.data import folder

    findings = examine(folder.scan(realdata / "wbc_smears/Dataset 1"))
    assert any("112 = 139" in finding.what for finding in findings)


# --- habits of a data set ------------------------------------------------------------------------------------------


def many(folder: Path, count: int = 20) -> Dataset:
    """Images with an object in the middle."""
    cases = []
    for i in range(count):
        rows, columns = np.ogrid[:40, :50]
        disc = ((rows - 15 - i % 9) ** 2 + (columns - 20 - i % 11) ** 2 < 80).astype(np.uint8)
        image = picture(100 + i, 40, 50, 3)
        cases.append(
            Case(f"c{i}", save(folder / "images" / f"c{i}.png", image), (save(folder / "masks" / f"c{i}.png", disc),))
        )
    return Dataset(folder, tuple(cases), ClassTable.from_names(["background", "object"]), VALUES, "images, masks")


def test_many_healthy_images_have_no_findings(tmp_path: Path) -> None:
    assert examine(many(tmp_path)) == []


def test_masks_that_are_inverted_among_others_are_told(tmp_path: Path) -> None:
    data = many(tmp_path)
    for index in (3, 11):
        path = data.cases[index].masks[0]
        save(path, 1 - np.array(Image.open(path)))
    finding = only(examine(data), "warning", "2 masks are probably inverted")
    assert finding.files == (data.cases[3].masks[0], data.cases[11].masks[0])


def test_where_objects_often_reach_the_rim_no_mask_is_inverted(tmp_path: Path) -> None:
    data = many(tmp_path)
    for index in range(0, 20, 3):
        path = data.cases[index].masks[0]
        save(path, 1 - np.array(Image.open(path)))
    assert examine(data) == []


def test_a_mask_whose_shares_are_exchanged_is_told(tmp_path: Path) -> None:
    """Objects everywhere, also at the rim, as in tissue: only how much they take tells."""
    rng = np.random.default_rng(0)
    masks = [(rng.random((40, 50)) < 0.75).astype(np.uint8) for _ in range(20)]
    masks[4] = 1 - masks[4]
    data = many(tmp_path)
    for case, mask in zip(data.cases, masks, strict=True):
        save(case.masks[0], mask)
    finding = only(examine(data), "warning", "1 mask is probably inverted")
    assert finding.files == (data.cases[4].masks[0],)


def test_where_shares_vary_no_mask_is_inverted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = many(tmp_path)
    for case in data.cases:
        save(case.masks[0], (rng.random((40, 50)) < rng.uniform(0.1, 0.9)).astype(np.uint8))
    assert not [finding for finding in examine(data) if "inverted" in finding.what]


def test_an_image_with_hardly_any_contrast_is_told(tmp_path: Path) -> None:
    data = many(tmp_path)
    save(data.cases[7].image, (picture(7, 40, 50, 3) // 120).astype(np.uint8))
    finding = only(examine(data), "notice", "hardly any contrast")
    assert finding.files == (data.cases[7].image,)


def test_of_a_few_images_one_that_is_far_darker_is_told(tmp_path: Path) -> None:
    data = many(tmp_path, 6)
    save(data.cases[4].image, (picture(4, 40, 50, 3) // 20).astype(np.uint8))
    finding = only(examine(data), "notice", "darker")
    assert finding.files == (data.cases[4].image,)


def test_an_image_unlike_all_others_is_told(tmp_path: Path) -> None:
    data = many(tmp_path)
    save(data.cases[7].image, (picture(7, 40, 50, 3) // 16).astype(np.uint8))
    finding = only(examine(data), "notice", "darker")
    assert finding.files == (data.cases[7].image,)


def test_two_kinds_of_images_are_no_outliers(tmp_path: Path) -> None:
    data = many(tmp_path)
    for index in range(0, 20, 4):
        save(data.cases[index].image, (picture(index, 40, 50, 3) // 8).astype(np.uint8))
    assert examine(data) == []


def test_copies_that_were_changed_are_told_and_torn_ones_are_a_warning(tmp_path: Path) -> None:
    data = many(tmp_path)
    smooth = np.kron(picture(5, 8, 10, 3), np.ones((5, 5, 1))).astype(np.uint8)
    save(data.cases[2].image, smooth)
    noise = np.random.default_rng(0).normal(0, 6, smooth.shape)
    save(data.cases[9].image, np.clip(smooth + noise, 0, 255).astype(np.uint8))
    finding = only(examine(data), "notice", "nearly the same", "c2 and c9")
    assert finding.files == (data.cases[2].image, data.cases[9].image)
    torn = tuple(replace(case, split="test" if index > 8 else "train") for index, case in enumerate(data.cases))
    only(examine(replace(data, cases=torn)), "warning", "probably a leak", "c2 and c9")


def test_equal_images_are_not_told_twice(tmp_path: Path) -> None:
    data = many(tmp_path)
    save(data.cases[9].image, np.array(Image.open(data.cases[2].image)))
    save(data.cases[9].masks[0], np.array(Image.open(data.cases[2].masks[0])))
    only(examine(data), "warning", "have the same pixels")


def test_a_mask_that_is_a_jpeg_under_another_name_is_a_warning_and_an_image_a_notice(healthy: Dataset) -> None:
    encoding = VALUES.model_copy(update={"nearest": True})
    image, mask_file = healthy.cases[0].image, healthy.cases[1].masks[0]
    for path in (image, mask_file):
        Image.open(path).convert("L").save(path, format="JPEG", quality=100)
    findings = examine(replace(healthy, encoding=encoding))
    told = {finding.what: finding for finding in findings}
    assert told["1 mask stored as JPEG under another name."].files == (mask_file,)
    assert told["1 file in another format than the name says; they are read as what they are."].files == (image,)


def of(dataset: Dataset, name: str) -> list[Finding]:
    """What one check finds."""
    return CHECKS[name](dataset, measure(dataset))


@pytest.mark.parametrize(("orientation", "shape", "found"), [(3, (24, 32), 1), (6, (32, 32), 1), (1, (24, 32), 0)])
def test_images_turned_by_the_camera_without_a_change_of_size_are_named(
    healthy: Dataset, orientation: int, shape: tuple[int, int], found: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    case = healthy.cases[1]
    Image.fromarray(picture(9, *shape, 3)).save(case.image, exif=exif)
    Image.fromarray(np.zeros(shape, np.uint8)).save(case.masks[0])
    findings = of(healthy, "orientation")
    assert [finding.files for finding in findings] == [(case.image,)] * found


def test_a_mask_drawn_on_the_image_as_stored_is_told_from_a_turned_one(healthy: Dataset) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    case = healthy.cases[1]
    Image.fromarray(picture(9)).save(case.image, exif=exif)
    assert "EXIF" in only(of(healthy, "sizes of image and mask"), "fatal", "--fix").cause


def test_what_was_detected_is_a_notice(healthy: Dataset) -> None:
    told = replace(healthy, notices=("The masks hold 0 and 255.",))
    assert only(examine(told), "notice").what == "The masks hold 0 and 255."


def test_a_camera_that_does_not_move_is_noticed_unless_groups_are_given(tmp_path: Path) -> None:
    scene = picture(1, 64, 64, 3) // 2
    cases = []
    for i in range(12):
        view = scene.copy()
        view[4 * i : 4 * i + 3, 20:23] += 40
        truth_array = np.zeros((64, 64), np.uint8)
        truth_array[4 * i : 4 * i + 3, 20:23] = 1
        image = save(tmp_path / f"c{i}.png", view)
        truth = save(tmp_path / f"m{i}.png", truth_array)
        cases.append(Case(f"c{i}", image, (truth,)))
    table = ClassTable.from_names(["background", "object"])
    fixed = Dataset(tmp_path, tuple(cases), table, VALUES, "")
    assert only(of(fixed, "one view"), "warning", "one view", "group")
    grouped = replace(fixed, cases=tuple(replace(case, group=str(i // 3)) for i, case in enumerate(cases)))
    assert of(grouped, "one view") == []


def test_objects_that_vanish_when_images_are_resized_are_named() -> None:
    table = ClassTable.from_names(["background", "cell", "spot"])
    known = {"median_size_px": (400, 600), "lost_objects": ((0.0, 0.0, 0.1), (0.0, 0.01, 0.4), (0.0, 0.3, 0.9))}
    fingerprint = Fingerprint.model_construct(**known)
    assert check.of_resizing(fingerprint, table, None) == []
    assert check.of_resizing(fingerprint, table, (300, 450)) == []
    finding = only(check.of_resizing(fingerprint, table, (100, 150)), "warning", "spot 40%", "4.0 times")
    assert "cell" not in finding.what
    assert "cell 30%" in check.of_resizing(fingerprint, table, (60, 90))[0].what


# --- few test images ---


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([], None),
        ([""], "1 image."),
        (["", ""], "2 images."),
        (["", "", "", ""], "4 images."),
        (["", "", "", "", ""], None),
        (["p", "p", "p"], "images of 1 group."),
        (["p", "p", "q", "q"], "images of 2 groups."),
        (["p", "p", "q", "", "", ""], None),
    ],
)
def test_a_test_side_whose_scores_have_no_error_bar_is_told(groups: list[str], said: str | None) -> None:
    test = tuple(Case(f"{i}", Path(f"{i}.png"), (Path(f"m{i}.png"),), group=group) for i, group in enumerate(groups))
    found = check.of_test_side(Split((), (), test))
    assert [finding.what for finding in found] == ([f"The test side has {said}"] if said else [])
    assert all(finding.severity == "notice" and len(finding.files) == len(test) for finding in found)
