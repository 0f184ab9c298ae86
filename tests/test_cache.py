"""Decoded once, and read from mapped arrays ever after."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_discs
from PIL import Image

from pixelwise.classes import IGNORE
from pixelwise.data import cache as caches
from pixelwise.data import folder as folders
from pixelwise.data.cache import POSITIONS_PER_CLASS, Cache, default_folder, hash_of, unify_channels
from pixelwise.data.dataset import Case, Dataset, MaskEncoding
from pixelwise.errors import DataError


@pytest.fixture
def dataset(discs: Path) -> Dataset:
    return folders.scan(discs)


@pytest.fixture
def cache(tmp_path: Path, dataset: Dataset) -> Cache:
    return Cache(tmp_path / "cache", dataset)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every image file that was decoded, in order."""
    seen: list[Path] = []
    read = caches.read_image

    def counted(case: Case) -> np.ndarray:
        seen.append(case.image)
        return read(case)

    monkeypatch.setattr(caches, "read_image", counted)
    return seen


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_case_is_what_pillow_reads(cache: Cache, dataset: Dataset) -> None:
    for case in dataset.cases:
        decoded = cache.open(case)
        np.testing.assert_array_equal(decoded.image[..., 0], pixels(case.image))
        np.testing.assert_array_equal(decoded.mask, pixels(case.masks[0]))
        assert decoded.image.dtype == np.uint8
        expected = np.bincount(pixels(case.masks[0]).reshape(-1), minlength=2)
        np.testing.assert_array_equal(decoded.class_pixels, expected)


def test_a_case_is_decoded_once_and_mapped_read_only(cache: Cache, dataset: Dataset, reads: list[Path]) -> None:
    first = cache.open(dataset.cases[0])
    again = Cache(cache.folder, dataset).open(dataset.cases[0])
    assert len(reads) == 1
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.positions, again.positions)
    assert (first.digest, first.mask_digest) == (again.digest, again.mask_digest)
    assert isinstance(again.image, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        again.image[0, 0] = 0


def test_a_copied_folder_is_not_decoded_again(
    cache: Cache, dataset: Dataset, tmp_path: Path, reads: list[Path]
) -> None:
    import shutil

    cache.open(dataset.cases[0])
    shutil.copytree(dataset.root, tmp_path / "copy")
    copied = folders.scan(tmp_path / "copy")
    Cache(cache.folder, copied).open(copied.cases[0])
    assert len(reads) == 1


@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_changed_file_is_decoded_anew(cache: Cache, dataset: Dataset, part: str) -> None:
    case = dataset.cases[0]
    before = cache.open(case)
    path = case.image if part == "image" else case.masks[0]
    changed = pixels(path).copy()
    changed[:4] = 1 - changed[:4] if part == "mask" else 7
    Image.fromarray(changed).save(path)
    after = cache.open(case)
    assert (after.mask_digest == before.mask_digest) == (part == "image")
    np.testing.assert_array_equal(after.image[..., 0] if part == "image" else after.mask, changed)
    assert (after.digest == before.digest) == (part == "mask")


def test_another_meaning_of_the_masks_is_decoded_anew(cache: Cache, dataset: Dataset) -> None:
    encoding = dataset.encoding.model_copy(update={"kind": "values", "values": {0: 0, 1: IGNORE}})
    other = Cache(cache.folder, replace(dataset, encoding=encoding))
    assert cache.open(dataset.cases[0]).class_pixels[1] > 0
    ignored = other.open(dataset.cases[0])
    assert ignored.class_pixels.tolist() == [np.count_nonzero(pixels(dataset.cases[0].masks[0]) == 0), 0]
    assert set(ignored.positions[:, 0]) == {0}, "ignored pixels are nobody's position"


def test_another_class_of_a_mask_file_is_decoded_anew(cache: Cache, dataset: Dataset) -> None:
    encoding = MaskEncoding(kind="files", labels={"car": 1, "tree": 2})
    opened = Cache(cache.folder, replace(dataset, encoding=encoding))
    found = [opened.open(replace(dataset.cases[0], parts=(name,))).mask.max() for name in ("car", "tree")]
    assert found == [1, 2]


def test_another_description_alone_is_not(cache: Cache, dataset: Dataset, reads: list[Path]) -> None:
    cache.open(dataset.cases[0])
    said = dataset.encoding.model_copy(update={"description": "said differently"})
    Cache(cache.folder, replace(dataset, encoding=said)).open(dataset.cases[0])
    assert len(reads) == 1


def test_resized_cases_stand_beside_the_original(cache: Cache, dataset: Dataset) -> None:
    case = dataset.cases[0]
    whole, small = cache.open(case), cache.open(case, (24, 12))
    assert whole.image.shape == (48, 48, 1)
    assert small.image.shape == (24, 12, 1)
    assert small.mask.shape == (24, 12)
    assert small.digest != whole.digest
    assert set(np.unique(small.mask)) <= {0, 1}
    assert int(small.class_pixels.sum()) == 24 * 12
    assert small.image.mean() == pytest.approx(whole.image.mean(), abs=2.0)


def test_positions_are_pixels_of_their_class_without_repetition(cache: Cache, dataset: Dataset) -> None:
    for case in dataset.cases:
        decoded = cache.open(case)
        classes, rows, columns = decoded.positions.T
        np.testing.assert_array_equal(decoded.mask[rows, columns], classes)
        assert len(np.unique(decoded.positions, axis=0)) == len(decoded.positions)
        for index, count in enumerate(decoded.class_pixels):
            assert np.count_nonzero(classes == index) == min(count, POSITIONS_PER_CLASS)


def test_positions_are_drawn_from_the_whole_mask() -> None:
    mask = np.zeros((100, 200), dtype=np.uint8)
    rows = caches._draw_positions(mask, np.array([0]), np.random.default_rng(0))
    # 512 uniform draws: standard error of the mean is 1.3 rows and 2.6 columns
    np.testing.assert_allclose(rows[:, 1:].mean(axis=0), [49.5, 99.5], atol=12)


def test_a_mask_without_counted_pixels_has_no_positions() -> None:
    empty = caches._draw_positions(np.full((4, 4), IGNORE, np.uint8), np.array([], int), np.random.default_rng(0))
    assert empty.shape == (0, 3)


def test_equal_pixels_have_equal_digests_whatever_their_file(tmp_path: Path) -> None:
    data = draw_discs(tmp_path / "twins", count=3)
    picture = pixels(data / "images" / "0.png")
    (data / "images" / "1.png").unlink()
    Image.fromarray(picture).save(data / "images" / "1.tif", compression="tiff_lzw")
    (data / "masks" / "1.png").write_bytes((data / "masks" / "2.png").read_bytes())
    dataset = folders.scan(data)
    first, twin, other = (Cache(tmp_path / "cache", dataset).open(case) for case in dataset.cases)
    assert first.digest == twin.digest
    assert other.digest not in {first.digest, ""}


def test_digests_know_the_shape(tmp_path: Path) -> None:
    data = draw_discs(tmp_path / "shapes", count=2)
    for number, shape in enumerate([(4, 8), (8, 4)]):
        for folder in ("images", "masks"):
            values = (np.arange(32) % 2).astype(np.uint8)
            Image.fromarray(values.reshape(shape)).save(data / folder / f"{number}.png")
    dataset = folders.scan(data)
    digests = {Cache(tmp_path / "cache", dataset).open(case).digest for case in dataset.cases}
    assert len(digests) == 2


def test_parts_cannot_be_shifted_between_hashed_strings() -> None:
    assert hash_of([b"ab", b"c"]) != hash_of([b"a", b"bc"])
    assert hash_of([b"ab"]) == hash_of([b"ab"])


def test_grey_images_among_coloured_ones_repeat_their_channel(tmp_path: Path) -> None:
    data = draw_discs(tmp_path / "mixed", count=3)
    grey = pixels(data / "images" / "1.png")
    Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=-1)).save(data / "images" / "1.png")
    dataset = folders.scan(data)
    unified = unify_channels(Cache(tmp_path / "cache", dataset).open_all(dataset.cases))
    assert [case.image.shape for case in unified] == [(48, 48, 3)] * 3
    for channel in range(3):
        np.testing.assert_array_equal(unified[0].image[..., channel], pixels(data / "images" / "0.png"))
    np.testing.assert_array_equal(unified[1].image[..., 2], 255 - grey)


def test_channels_that_cannot_be_reconciled_name_the_image(tmp_path: Path) -> None:
    data = draw_discs(tmp_path / "mixed", count=2)
    grey = pixels(data / "images" / "0.png")
    cases = folders.scan(data)
    decoded = Cache(tmp_path / "cache", cases).open_all(cases.cases)
    two, three = np.stack([grey, grey], -1), np.stack([grey] * 3, -1)
    odd = [
        replace(decoded[0], open_image=lambda: two, shape=two.shape),
        replace(decoded[1], open_image=lambda: three, shape=three.shape),
    ]
    with pytest.raises(DataError, match=r"0\.png: The image has 2 channels; 3 are expected"):
        unify_channels(odd)


def test_all_are_opened_in_order_and_progress_is_told(cache: Cache, dataset: Dataset) -> None:
    told: list[tuple[int, int]] = []
    decoded = cache.open_all(dataset.cases, progress=lambda done, total: told.append((done, total)))
    assert [one.case for one in decoded] == list(dataset.cases)
    assert told == [(number, 8) for number in range(1, 9)]


# --- the folder ---


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here"
    monkeypatch.setenv("PIXELWISE_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "pixelwise"


@pytest.mark.parametrize("place", ["a file", "below a file", "below a device"])
def test_an_impossible_folder_is_an_error_with_a_remedy(tmp_path: Path, dataset: Dataset, place: str) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    folder = {"a file": file, "below a file": file / "cache", "below a device": Path("/dev/null/cache")}[place]
    with pytest.raises(DataError, match=r"cannot be written.*PIXELWISE_CACHE"):
        Cache(folder, dataset).open(dataset.cases[0])


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_read_only_or_full_disk_is_an_error_and_leaves_no_half_case(
    cache: Cache, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as context:
        context.setattr("pixelwise.files.os.fsync", refuse)
        with pytest.raises(DataError, match=os.strerror(number)):
            cache.open(dataset.cases[0])
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []
    assert cache.open(dataset.cases[0]).image.shape == (48, 48, 1)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission_is_an_error(tmp_path: Path, dataset: Dataset) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(DataError, match="cannot be written"):
        Cache(locked, dataset).open(dataset.cases[0])


@pytest.mark.parametrize("part", ["image.npy", "mask.npy", "facts.npz"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "nonsense"])
def test_a_damaged_cache_file_is_made_anew(cache: Cache, dataset: Dataset, part: str, damage: str) -> None:
    before = cache.open(dataset.cases[0])
    image, positions = np.array(before.image), before.positions
    (file,) = cache.folder.rglob(f"*.{part}")
    content = file.read_bytes()
    file.unlink()  # the maps that are open keep the old content
    if damage != "missing":
        file.write_bytes({"empty": b"", "cut": content[:-4], "nonsense": b"nonsense" * 20}[damage])
    after = cache.open(dataset.cases[0])
    np.testing.assert_array_equal(after.image, image)
    np.testing.assert_array_equal(after.positions, positions)
    assert file.read_bytes() == content


def test_a_missing_image_names_its_file(cache: Cache, dataset: Dataset) -> None:
    dataset.cases[0].image.unlink()
    with pytest.raises(DataError, match=r"0\.png: This file cannot be read"):
        cache.open(dataset.cases[0])


def test_threads_may_open_one_case_at_once(cache: Cache, dataset: Dataset) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(cache.open, [dataset.cases[0]] * 32))
    assert len({case.digest for case in opened}) == 1
    for case in opened:
        np.testing.assert_array_equal(case.image[..., 0], pixels(dataset.cases[0].image))
    assert len([file for file in cache.folder.rglob("*") if file.is_file()]) == 3
    assert list(cache.folder.rglob(".*")) == [], "no temporary file is left"


OPEN_ALL = """
import sys
from pathlib import Path
from pixelwise.data.cache import Cache
from pixelwise.data.folder import scan
dataset = scan(Path(sys.argv[1]))
sys.stdin.read(1)  # both begin together
for case in Cache(Path(sys.argv[2]), dataset).open_all(dataset.cases):
    print(case.digest, int(case.image.sum()), case.positions.sum())
"""


@pytest.mark.slow
def test_two_processes_may_fill_one_cache_at_once(discs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN_ALL, str(discs), str(tmp_path / "cache")]
    pair = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in pair:
        process.stdin.write("!")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert len(results[0][0].splitlines()) == 8
    assert len([file for file in (tmp_path / "cache").rglob("*") if file.is_file()]) == 8 * 3
