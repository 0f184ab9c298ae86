"""Scenes at all distances: what a wider range of sizes is worth on another sequence, by how often images are seen.

    python scripts/left_out_sequence.py benchmarks/data/camvid --passes 40 --epochs 3 --out runs/left-out

CamVid at about a quarter of its size: two sequences train, a third one (0006R0) validates, and SegNet's validation
images, which are of one of the first two, are the test side. All settings are given, so that the runs differ in
`augment.scale` and seed alone.
"""

import argparse
from pathlib import Path

from PIL import Image

import pixelwise

SIZE = (128, 96)
BATCH = 16
GIVEN = {
    "model.width": "16",
    "model.depth": "4",
    "model.stride": "1",
    "data.patch_size": "[96, 128]",
    "data.foreground_fraction": "0.5",
    "data.normalisation": "standard",
    "loss.class_weights": "balanced",
    "augment.flip_vertical": "0",
    "augment.rotation_degrees": "10",
    "augment.elastic_sigma_px": "0",
    "training.batch_size": str(BATCH),
    "training.accumulate": "1",
    "training.precision": "bfloat16",
    "training.compile": "false",
    "training.ema_decay": "0.99",
}
DATA = """train: [train/0001TP_*.jpg, train/0016E5_*.jpg]
val: [train/0006R0_*.jpg]
test: val
images: "*/*.jpg"
masks: "{dir}annot/{stem}.png"
names: [sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist]
ignore: 11
"""


def main() -> None:
    """Train what is missing, and print a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("--passes", type=int, default=40, help="how often each training pixel is drawn, on average")
    parser.add_argument("--epochs", type=int, default=3, help="validations, of which the best counts")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    data = shrunk(given.camvid, given.out / "data")
    images = len([*data.parent.glob("train/0001TP_*.jpg"), *data.parent.glob("train/0016E5_*.jpg")])
    steps = given.passes * images // BATCH // given.epochs
    print("| augment.scale | seed | mIoU, another sequence | mIoU, the same sequence |")
    print("|---:|---:|---:|---:|")
    for scale in (0.25, 0.9):
        for seed in range(given.seeds):
            more = {
                "training.epochs": given.epochs,
                "training.steps_per_epoch": steps,
                "augment.scale": scale,
                "seed": seed,
            }
            texts = [f"{key}={value}" for key, value in {**GIVEN, **more}.items()]
            folder = given.out / f"{given.passes}-{scale}-{seed}"
            if not (folder / "scores.json").exists():
                pixelwise.train(data, folder, config=pixelwise.settings(overrides=texts))
            other, same = (pixelwise.evaluate(folder, split=side).miou for side in ("validation", "test"))
            print(f"| {scale} | {seed} | {other:.3f} | {same:.3f} |", flush=True)


def shrunk(camvid: Path, out: Path) -> Path:
    """The images and masks of training and validation at `SIZE`, and the data.yaml that names their sides."""
    for folder in ("train", "val"):
        for below in (folder, f"{folder}annot"):
            (out / below).mkdir(parents=True, exist_ok=True)
        for path in sorted((camvid / folder).glob("*.jpg")):
            Image.open(path).resize(SIZE, Image.Resampling.BOX).save(out / folder / path.name, quality=95)
            mask = Image.open(camvid / f"{folder}annot" / f"{path.stem}.png")
            mask.resize(SIZE, Image.Resampling.NEAREST).save(out / f"{folder}annot" / f"{path.stem}.png")
    (out / "data.yaml").write_text(DATA)
    return out / "data.yaml"


if __name__ == "__main__":
    main()
