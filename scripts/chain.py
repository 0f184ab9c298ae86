"""From the first run to a network that knows what many do: what each step brings on the test split, and what it costs.

    python scripts/chain.py isbi2012.yaml --unit 120 --folds 3 --out runs/chain-isbi

Every step is a command that is printed before it runs; what is there already is not run again. With a unit of U
seconds:

    plan        train in U
    plan, 3 U   train in 3 U: the time that the search has
    tuned       search in 3 U, of which the winner is trained in the last 30 %
    folds       N models in U each, with the settings of whichever of `plan` and `tuned` was better on validation images
    flips       the ensemble of these, averaged over mirror images
    distilled   one network in U, which learns from the ensemble
    refined     class weights, small objects and flips for it, as chosen on validation images

Differences are paired over test images, with intervals by the bootstrap of `pixelwise.metrics.intervals`.
"""

import argparse
import json
import math
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pixelwise import api
from pixelwise.evaluation.saved import read_scores
from pixelwise.metrics.intervals import Difference, difference
from pixelwise.metrics.weighted import ratios

TRAINING_SHARE = 0.92
"""Of the time for folds, about, for training them; the rest is for joining them."""


@dataclass(frozen=True)
class Step:
    """A row of the table."""

    name: str
    folder: Path
    """Holds scores.json of the test split."""
    against: str
    """The step that it is held against; none if empty."""
    commands: tuple[Path, ...]
    """What the commands that it took have made."""


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--unit", type=float, default=120, help="seconds")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--folds-data", type=Path, help="the same without a side for validation, where there is one")
    parser.add_argument("--flips", default="both", help="horizontal for scenes with an up and a down")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-search", action="store_true", help="end after `tuned`")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    table(run_all(given))


def run_all(given: argparse.Namespace) -> list[Step]:
    """The commands of all steps, one after the other."""
    out, data, unit = given.out, str(given.data), given.unit
    seeded = [data, "--seed", str(given.seed)]
    run(out / "plan", "train", *seeded, "--time", f"{unit:g}s", "--out", str(out / "plan"))
    run(out / "long", "train", *seeded, "--time", f"{3 * unit:g}s", "--out", str(out / "long"))
    run(out / "tune", "tune", *seeded, "--time", f"{3 * unit:g}s", "--out", str(out / "tune"))
    tuned = Path(json.loads((out / "tune" / "tune.json").read_text())["final"])
    steps = [
        Step("plan", out / "plan", "", (out / "plan",)),
        Step("plan, 3 U", out / "long", "plan", (out / "long",)),
        Step("tuned", tuned, "plan, 3 U", (out / "tune",)),
    ]
    if given.only_search:
        return steps
    chosen = max((out / "plan", tuned), key=validation_miou)
    print(f"better on validation images: {chosen}")
    config = settings_without_end(chosen, out / "chosen.yaml")
    seconds = f"{given.folds * unit / TRAINING_SHARE:.0f}s"
    folds, taught, refined = out / "folds", out / "distilled", out / "refined"
    count = ("--folds", str(given.folds))
    dealt = [str(given.folds_data or data), "--seed", str(given.seed)]
    run(folds, "train", *dealt, "--config", config, *count, "--time", seconds, "--out", str(folds))
    run(out / "flips", "evaluate", str(folds), "--flips", given.flips, "--out", str(out / "flips"))
    teacher = ("--teacher", str(folds))
    run(taught, "train", *seeded, "--config", config, *teacher, "--time", f"{unit:g}s", "--out", str(taught))
    run(out / "refine", "refine", str(taught), "--flips")
    run(refined, "evaluate", str(taught), "--out", str(refined))
    before = steps[0].name if chosen == steps[0].folder else "tuned"
    return [
        *steps,
        Step(f"{given.folds} folds", folds, before, (folds,)),
        Step("and flips", out / "flips", f"{given.folds} folds", (out / "flips",)),
        Step("distilled", taught, before, (taught,)),
        Step("and refined", refined, "distilled", (out / "refine", refined)),
    ]


def run(done: Path, *words: str) -> None:
    """A command, whose seconds are kept beside what it makes; nothing if they are there."""
    clock = clock_of(done)
    if clock.exists():
        return
    shutil.rmtree(done, ignore_errors=True)  # of a step that was interrupted
    print("$ pixelwise", shlex.join(words), flush=True)
    began = time.monotonic()
    subprocess.run(["pixelwise", *words], check=True)  # noqa: S603, S607  as a user would type it
    clock.parent.mkdir(parents=True, exist_ok=True)
    clock.write_text(f"{time.monotonic() - began:.0f}\n")


def validation_miou(folder: Path) -> float:
    """The best of a run's epochs."""
    return max(json.loads(line)["miou"] or 0.0 for line in (folder / "history.jsonl").read_text().splitlines())


def settings_without_end(folder: Path, path: Path) -> str:
    """All settings of a run but for its time."""
    config = api.settings(folder / "config.yaml").with_values({"training.time": None})
    path.write_text(config.to_yaml())
    return str(path)


def table(steps: list[Step]) -> None:
    """Scores, differences and costs, as Markdown."""
    print("| step | mIoU | mean Dice | against | Dice, difference (95 %) | p | seconds |")
    print("|---|---:|---:|---|---:|---:|---:|")
    scores = {step.name: read_scores(step.folder / "scores.json") for step in steps}
    for step in steps:
        own, told = scores[step.name], "| | |"
        if step.against:
            other = scores[step.against]
            order = [other.names.index(name) for name in own.names]
            found = difference(ratios(own.counts)["dice"], ratios(other.counts[order])["dice"], own.units)
            told = f"| {step.against} | {found.value:+.4f} ({spread(found)}) | {found.p:.2g}"
        pooled = own.summary()["pooled"]
        seconds = sum(int(clock_of(made).read_text()) for made in step.commands)
        print(f"| {step.name} | {pooled['miou']:.3f} | {pooled['dice']:.3f} {told} | {seconds} |")


def spread(found: Difference) -> str:
    """The interval of a difference, if there are units enough for one."""
    low, high = found.interval.low, found.interval.high
    return f"none of {found.units} units" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"


def clock_of(made: Path) -> Path:
    """Where the seconds of a command are kept, which says too that it came to its end."""
    return made.with_name(f"{made.name}.seconds")


if __name__ == "__main__":
    sys.exit(main())
