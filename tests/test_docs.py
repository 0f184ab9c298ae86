"""What the documents say is run."""

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import QUICK, draw_discs

import pixelwise
from pixelwise import api

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
@pytest.mark.slow
def test_python_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_discs(tmp_path / "data")
    quick = ", ".join(f'"{setting}"' for setting in QUICK)
    for block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        code = block.replace('"training.time=15m"', quick)
        exec(compile(code, page, "exec"), {"image": np.zeros((30, 40, 1), dtype=np.uint8)})
    assert (tmp_path / "runs" / "first" / "report.html").exists()


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
            if target.startswith("http"):
                continue
            other = page.parent / target if target else page
            assert other.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(other), f"{page}: {target}#{anchor}"


@pytest.mark.parametrize("module", [pixelwise, api])
def test_every_public_name_is_there_and_listed_once(module: ModuleType) -> None:
    homes = [name for names in module._HOMES.values() for name in names]
    assert sorted(homes) == sorted(module.__all__)
    assert len(set(homes)) == len(homes)
    for name in homes:
        assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing
