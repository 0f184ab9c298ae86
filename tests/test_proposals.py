"""Lines of a data.yaml that are proposed: small folders, and what must never be proposed for them."""

from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise.data.listing import File, Listing, walk
from pixelwise.data.proposals import Proposal, propose

SHAPE = (12, 16)
PHOTO = np.random.default_rng(1).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
FLAT = np.repeat(np.arange(4, dtype=np.uint8), 48).reshape(SHAPE)
"""Four values."""


def listing(root: Path, files: dict[str, np.ndarray]) -> Listing:
    for name, pixels in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return walk(root)


def proposed(found: Listing, choices: dict[str, list[str]]) -> Proposal | None:
    by_name: dict[str, File] = {file.posix: file for file in found.files}
    return propose(found, {by_name[image]: [by_name[mask] for mask in masks] for image, masks in choices.items()})


def test_files_of_mask_folders_and_files_called_masks_are_no_images(tmp_path: Path) -> None:
    files = {f"{n}/{name}": FLAT for n in "ab" for name in ("label.png", "label_viz.png", "gt/1.png", "seg/1.png")}
    found = listing(tmp_path, files)
    assert proposed(found, {f"{n}/label.png": [f"{n}/label_viz.png"] for n in "ab"}) is None
    assert proposed(found, {f"{n}/gt/1.png": [f"{n}/seg/1.png"] for n in "ab"}) is None


def test_a_mask_has_not_far_more_values_than_an_image_of_few(tmp_path: Path) -> None:
    found = listing(tmp_path, {f"{n}{end}.png": p for n in "ab" for end, p in (("", FLAT), ("_over", PHOTO))})
    assert proposed(found, {f"{n}.png": [f"{n}_over.png"] for n in "ab"}) is None
    turned = proposed(found, {f"{n}_over.png": [f"{n}.png"] for n in "ab"})
    assert turned == Proposal("*_over.png", ["{1}.png"])


def test_a_mask_that_serves_two_files_of_the_pattern_is_not_proposed(tmp_path: Path) -> None:
    names = ["in/1_a.png", "in/1_b.png", "in/2_a.png", "in/2_b.png"]
    found = listing(tmp_path, {**dict.fromkeys(names, PHOTO), "out/1.png": FLAT, "out/2.png": FLAT})
    assert proposed(found, {name: [f"out/{name[3]}.png"] for name in names}) is None


def test_most_images_have_a_mask_by_what_is_proposed(tmp_path: Path) -> None:
    images = [f"in/{n}.png" for n in range(5)]
    for count, works in ((2, False), (3, True)):
        masks = {f"out/{n}_seen.png": FLAT for n in range(count)} | {"out/9.png": FLAT}
        found = listing(tmp_path / str(count), {**dict.fromkeys(images, PHOTO), **masks})
        choices = {f"in/{n}.png": [f"out/{n}_seen.png" if n < count else "out/9.png"] for n in range(5)}
        assert proposed(found, choices) == (Proposal("in/*.png", ["out/{stem}_seen.png"]) if works else None)
