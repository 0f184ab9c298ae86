"""What settings are worth on scenes of another drive: CamVid, with one sequence left out of training.

    python scripts/left_out_sequence.py benchmarks/data/camvid --leave 0006R0 --passes 40 --epochs 3 \
        --try augment.scale=0.9 --try "augment.scale=0.9 data.normalisation=image" --out runs/left-out

CamVid at a small size: two sequences train, the third one validates, and SegNet's validation images, which are of
0016E5, are the test side. All settings are given, so that the runs differ in what is tried and in the seed alone.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import pixelwise
from pixelwise.data.cache import hash_of

SEQUENCES = ("0001TP", "0006R0", "0016E5")
OF_VALIDATION = "0016E5"
BATCH = 16
GIVEN = {
    "model.depth": "4",
    "model.stride": "1",
    "data.foreground_fraction": "0.5",
    "data.normalisation": "standard",
    "loss.class_weights": "balanced",
    "augment.flip_vertical": "0",
    "augment.rotation_degrees": "10",
    "augment.elastic_sigma_px": "0",
    "augment.scale": "0.25",
    "augment.saturation": "0",
    "augment.tint": "0",
    "training.batch_size": str(BATCH),
    "training.accumulate": "1",
    "training.compile": "false",
    "training.ema_decay": "0.99",
}
DATA = """train: [{train}]
val: [train/{left}_*.jpg]
test: val
images: "*/*.jpg"
masks: "{{dir}}annot/{{stem}}.png"
names: [sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist]
ignore: 11
"""


def main() -> None:
    """Train what is missing, and print a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("--leave", choices=SEQUENCES, default="0006R0", help="the sequence that validates")
    parser.add_argument("--try", dest="tried", action="append", default=[], help="settings, beside none; repeatable")
    parser.add_argument("--passes", type=int, default=40, help="how often each training pixel is drawn, on average")
    parser.add_argument("--epochs", type=int, default=3, help="validations, of which the best counts")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 96), help="of images: width and height")
    parser.add_argument("--width", type=int, default=16, help="of the network")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    width, height = given.size
    data = shrunk(given.camvid, (width, height), given.leave, given.out / f"data-{width}x{height}")
    images = sum(len([*data.parent.glob(pattern)]) for pattern in trained_on(given.leave))
    same = given.leave != OF_VALIDATION
    print("| tried | seed | mIoU, another sequence | mIoU, the same sequence |")
    print("|---|---:|---:|---:|")
    for tried in ["", *given.tried]:
        for seed in range(given.seeds):
            more = {
                "model.width": given.width,
                "data.patch_size": [edge // 16 * 16 for edge in (height, width)],
                "training.precision": given.precision,
                "training.epochs": given.epochs,
                "training.steps_per_epoch": given.passes * images // BATCH // given.epochs,
                "seed": seed,
            }
            texts = [f"{key}={value}" for key, value in {**GIVEN, **more}.items()] + tried.split()
            name = hash_of(text.encode() for text in (data.parent.name, *texts))
            scores = trained(data, given.out / f"{given.leave}-{name}", texts, same=same)
            print(f"| {tried or '-'} | {seed} | {' | '.join(scores)} |", flush=True)


def trained_on(left: str) -> list[str]:
    """Patterns of the images of the other sequences."""
    return [f"train/{sequence}_*.jpg" for sequence in SEQUENCES if sequence != left]


def trained(data: Path, folder: Path, settings: Sequence[str], *, same: bool) -> tuple[str, str]:
    """The mIoU of another sequence, and of the same one where it was trained on, of a run that is made if it is not."""
    if not (folder / "scores.json").exists():
        pixelwise.train(data, folder, config=pixelwise.settings(overrides=settings))
    other = pixelwise.evaluate(folder, split="validation").miou
    return f"{other:.3f}", f"{pixelwise.evaluate(folder, split='test').miou:.3f}" if same else ""


def shrunk(camvid: Path, size: tuple[int, int], left: str, out: Path) -> Path:
    """The images and masks of training and validation at a size, and the data.yaml that names their sides."""
    for folder in ("train", "val"):
        for below in (folder, f"{folder}annot"):
            (out / below).mkdir(parents=True, exist_ok=True)
        for path in sorted((camvid / folder).glob("*.jpg")):
            Image.open(path).resize(size, Image.Resampling.BOX).save(out / folder / path.name, quality=95)
            mask = Image.open(camvid / f"{folder}annot" / f"{path.stem}.png")
            mask.resize(size, Image.Resampling.NEAREST).save(out / f"{folder}annot" / f"{path.stem}.png")
    declared = out / f"{left}.yaml"
    declared.write_text(DATA.format(train=", ".join(trained_on(left)), left=left))
    return declared


if __name__ == "__main__":
    main()
