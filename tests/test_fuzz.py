"""A few of the damaged and hostile files of `tests/fuzz/fuzz.py`, which makes as many as one likes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import fuzz

CASES = 150


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the fuzzer watches memory as Unix does")
def test_damaged_files_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    outcomes: list[fuzz.Outcome] = []
    fuzz.run_cases(range(CASES), tmp_path, outcomes.append)
    assert [outcome for outcome in outcomes if outcome.is_failure] == []
    assert len(outcomes) == CASES
    assert {outcome.target for outcome in outcomes} == set(fuzz.TARGETS)
    assert {outcome.verdict for outcome in outcomes} == {"accepted", "refused"}
