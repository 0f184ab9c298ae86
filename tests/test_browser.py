"""The report in a real browser: what people see, press and slide, on a desk and on a phone, by day and by night."""

import dataclasses
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import content, example, full, random_images

from pixelwise.evaluation import gallery, report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tools:
        started = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a thousand images with pictures."""
    written = content([f"class {i}" for i in range(11)], random_images(1000, 11))
    rng = np.random.default_rng(0)
    edge = gallery.edge_px(1000)
    pictures = {}
    for row in written.scores["per_image"]:
        image = np.kron(rng.integers(0, 256, (18, 24, 3)), np.ones((20, 20, 1))).astype(np.uint8)
        image = image + rng.integers(0, 20, image.shape).astype(np.uint8)
        truth = np.kron(rng.integers(0, 11, (36, 48)), np.ones((10, 10))).astype(np.uint8)
        picture = gallery.thumbnail(image, truth, np.roll(truth, 3, 1), written.classes, edge)
        pictures[row["name"]] = picture
        if len(pictures) == 20:
            break
    made = list(pictures.values())
    every = {row["name"]: made[i % len(made)] for i, row in enumerate(written.scores["per_image"])}
    path = tmp_path_factory.mktemp("thousand") / "report.html"
    report.write(path, dataclasses.replace(written, history=full().history, thumbnails=every))
    return path


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page of a size and theme; anything it says to the console, or asks of a network, fails the test."""
    contexts, complaints = [], []

    def note(address: str) -> None:
        if not address.startswith(("file:", "data:")):
            complaints.append(address)

    def open_page(path: Path, size: dict[str, int], theme: str = "light") -> Any:
        context = browser.new_context(viewport=size, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: note(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def overflow(page: Any) -> int:
    """By how much the page is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_a_thousand_images_open_fast_and_pictures_are_made_when_they_are_seen(thousand: Path, opened: Any) -> None:
    assert thousand.stat().st_size < 25 * 2**20
    began = time.monotonic()
    page = opened(thousand, DESK)
    assert page.locator("#image-table tbody tr").count() == 1000
    assert time.monotonic() - began < 5
    assert page.locator(".thumb img").count() < 100
    page.locator(".thumb").nth(700).scroll_into_view_if_needed()
    page.locator(".thumb").nth(700).locator("img").wait_for()
    assert page.locator(".thumb img").count() < 300


def test_a_picture_opens_large_with_layers_opacity_and_neighbours(thousand: Path, opened: Any) -> None:
    page = opened(thousand, DESK)
    names = page.locator("#image-table tbody th").all_text_contents()
    page.locator(".thumb").nth(3).click()
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    assert page.locator("#viewer-name").text_content() == names[3].strip()
    first = page.locator("#viewer-layer").get_attribute("src")
    page.get_by_label("errors").check()
    assert page.locator("#viewer-layer").get_attribute("src") != first
    page.locator("#viewer-opacity").fill("25")
    assert page.locator("#viewer-layer").evaluate("layer => layer.style.opacity") == "0.25"
    page.locator("#viewer-next").click()
    assert page.locator("#viewer-name").text_content() == names[4].strip()
    page.locator("#viewer-next").press("ArrowLeft")
    assert page.locator("#viewer-name").text_content() == names[3].strip()
    box = page.locator("#viewer-photo").bounding_box()
    assert box["width"] > 300
    page.locator("#viewer-in").click()
    larger = page.locator("#viewer-photo").bounding_box()
    assert larger["width"] == pytest.approx(1.5 * box["width"], rel=0.01)
    assert page.locator("#viewer-layer").bounding_box() == larger
    page.locator("#viewer-picture").hover(position={"x": 5, "y": 5})
    page.mouse.down()
    page.mouse.move(larger["x"] + 500, larger["y"] + 500)
    page.mouse.up()
    dragged = page.locator("#viewer-photo").bounding_box()
    assert (dragged["x"], dragged["y"]) == pytest.approx((box["x"], box["y"]), abs=1)  # no farther than its corner
    page.locator("#viewer-next").click()
    assert page.locator("#viewer-photo").bounding_box()["width"] == pytest.approx(box["width"], abs=1)
    page.keyboard.press("Escape")
    assert not viewer.is_visible()


def test_the_list_sorts_by_any_column_and_unknown_values_come_last(tmp_path: Path, opened: Any) -> None:
    images = random_images(12, 3)
    images["empty"] = [[0] * 3] * 3
    report.write(tmp_path / "report.html", content(["a", "b", "c"], images))
    page = opened(tmp_path / "report.html", DESK)

    def column(index: int) -> list[str]:
        cells = page.locator(f"#image-table tbody tr > :nth-child({index + 1})").all_text_contents()
        return [cell.strip() for cell in cells]

    def press(index: int) -> list[str]:
        page.locator("#image-table thead button").nth(index).click()
        return column(index)

    assert column(1)[-1] == "\N{EN DASH}"
    assert press(0) == ["empty", *(f"image {i}" for i in range(12))]
    assert press(0) == [*(f"image {i}" for i in reversed(range(12))), "empty"]
    for index in (1, 2, 3, 4):
        *values, last = press(index)
        assert list(map(float, values)) == sorted(map(float, values))
        assert last == "\N{EN DASH}"
    assert page.locator("#image-table [aria-sort]").count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_is_wider_than_the_window_and_text_stands_out(
    size: dict[str, int], theme: str, tmp_path: Path, opened: Any
) -> None:
    long = "a_very_long_name_without_any_place_to_break_it_" * 5
    images = {f"{long}{i}": counts for i, counts in enumerate(random_images(12, 9).values())}
    finding = {"severity": "warning", "what": long, "files": [long], "cause": long, "remedy": long}
    written = content(
        [f"{long}{i}" for i in range(9)],
        images,
        title=long,
        command=f"pixelwise train {long}",
        findings=[finding],
        history=full().history,
        decisions=[{"setting": long, "value": long, "because": long}],
        facts={long: long},
        examples=(example(name=long),),
    )
    report.write(tmp_path / "report.html", written)
    page = opened(tmp_path / "report.html", size, theme)
    assert overflow(page) <= 0
    brightness = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color].map(
             (text) => text.match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part) / 3, 0))"""
    )
    paper, ink = brightness
    assert abs(paper - ink) > 150
    assert (paper > ink) == (theme == "light")
    broken = "[...document.images].filter((image) => image.complete && image.src && !image.naturalWidth).length"
    assert page.evaluate(broken) == 0
