"""A few images of other data: how much better a model that starts from another one is than one from scratch.

    python scripts/few_images.py camvid_day.yaml camvid_dusk.yaml --first 300 --unit 60 --seeds 3 --out runs/dusk

The first data train a model; of the second, one is trained from it and one from scratch for each seed, in equal time.
The commands are printed before they run, and what is there already is not run again. The mean over seeds is that of the
scores of all predictions together; its interval is over the test images, or groups of them.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from chain import run, spread
from torch import Tensor

from pixelwise.evaluation.saved import read_scores
from pixelwise.metrics.counts import dice, iou, mean_over_classes
from pixelwise.metrics.intervals import difference
from pixelwise.metrics.weighted import ratios


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first_data", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--first", type=float, default=300, help="seconds for the model to start from")
    parser.add_argument("--unit", type=float, default=60, help="seconds for each of the others")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    out, seeds = given.out, range(given.seeds)
    first = out / "first"
    no_test = ("--set", "data.test_fraction=0")
    run(first, "train", str(given.first_data), "--time", f"{given.first:g}s", *no_test, "--out", str(first))
    run(out / "as-it-is", "evaluate", str(first), str(given.data), "--split", "test", "--out", str(out / "as-it-is"))
    for seed in seeds:
        for name, more in (("scratch", ()), ("tuned", ("--from", str(first)))):
            words = (str(given.data), "--time", f"{given.unit:g}s", "--seed", str(seed), *more)
            run(out / f"{name}-{seed}", "train", *words, "--out", str(out / f"{name}-{seed}"))
    long = out / "scratch-long"
    run(long, "train", str(given.data), "--time", f"{given.first + given.unit:g}s", "--out", str(long))
    tuned, scratch = ([out / f"{name}-{seed}" for seed in seeds] for name in ("tuned", "scratch"))
    rows = {
        "the first model, as it is": [out / "as-it-is"],
        "from scratch": scratch,
        "from scratch, in the time of both": [long],
        "from the first model": tuned,
    }
    table(rows, tuned)
    for run_folder in tuned:
        print(forgotten(run_folder))


def table(rows: dict[str, list[Path]], own: Sequence[Path]) -> None:
    """Scores of the second data's test images, and by how much the last row is better."""
    print("| model | mIoU | by seed | mean Dice | the last row against it: mIoU (95 %) | p |")
    print("|---|---:|---|---:|---|---:|")
    units = read_scores(own[0] / "scores.json").units
    counts = {name: torch.stack([counted(folder, own[0]) for folder in folders]) for name, folders in rows.items()}
    *_, last = counts.values()
    for name, each in counts.items():
        together, seeds = each.sum((0, 1)), ", ".join(f"{miou(one.sum(0)):.3f}" for one in each)
        mean_dice = float(mean_over_classes(dice(together)))
        print(f"| {name} | {miou(together):.3f} | {seeds} | {mean_dice:.3f} ", end="")
        if each is last:
            print("| | |")
            continue
        # one model stands for as many as there are on the other side
        other = each.sum(0) * (len(last) // len(each))
        found = difference(ratios(last.sum(0))["iou"], ratios(other)["iou"], units)
        print(f"| {found.value:+.4f} ({spread(found)}), {found.units} units | {found.p:.2g} |")


def counted(folder: Path, order_of: Path) -> Tensor:
    """Confusion of each test image, in the order of another run: N K K."""
    scores = read_scores(folder / "scores.json")
    return scores.counts[[scores.names.index(name) for name in read_scores(order_of / "scores.json").names]]


def miou(counts: Tensor) -> float:
    """Mean over classes of the pooled IoU."""
    return float(mean_over_classes(iou(counts)))


def forgotten(folder: Path) -> str:
    """What the run still knows of the first data."""
    rows = json.loads((folder / "forgetting.json").read_text())
    return f"{folder.name}, on the first data: " + ", ".join(
        f"{row['class']} {row['iou_before']:.3f} -> {row['iou_after']:.3f}"
        for row in rows
        if row["iou_before"] is not None
    )


if __name__ == "__main__":
    sys.exit(main())
