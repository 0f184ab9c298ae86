"""Predict an image that is larger than memory, as a user would, and say what it took.

    python scripts/large_image.py --edge 16384                 every tile differs
    python scripts/large_image.py --edge 50000 --filled 0.05   a scan whose surroundings are one value
    python scripts/large_image.py --edge 50000 --filled 0.05 --zarr
    python scripts/large_image.py --edge 50000 --filled 0.05 --cog    the mask as Cloud Optimized GeoTIFF

The image is made by code; the network has random weights, five classes, and the width given.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
import torch

from pixelwise.classes import ClassTable
from pixelwise.config import ModelConfig, PredictionConfig, Preprocessing
from pixelwise.models import bundle, unet

TILE_PX = 512

PROGRAM = """
import sys
from pathlib import Path
from pixelwise import api
from pixelwise.config import parse_bytes
asked = {"memory_bytes": parse_bytes(sys.argv[4]), "mask_format": sys.argv[5] or None}
done = api.predict_files(sys.argv[1], [sys.argv[2]], sys.argv[3], **asked)
assert done.written, done.failed
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)  # what getrusage says comes in part from the parent
"""


def tiles(edge: int, filled: float) -> Iterator[np.ndarray]:
    """Tiles of an image: a disc of noise that covers a share of it, and white around."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2 * TILE_PX, 2 * TILE_PX, 3), dtype=np.uint8)
    count = -(-edge // TILE_PX)
    radius = edge * np.sqrt(filled / np.pi)
    for row in range(count):
        for column in range(count):
            middle = (np.array((row, column)) + 0.5) * TILE_PX - edge / 2
            if filled < 1 and np.hypot(*middle) > radius:
                yield np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
            else:
                top, left = rng.integers(0, TILE_PX, 2)
                yield noise[top : top + TILE_PX, left : left + TILE_PX]


def write_image(path: Path, edge: int, filled: float) -> None:
    """A tiled BigTIFF, or OME-Zarr."""
    shape = (edge, edge, 3)
    if path.suffix == ".tif":
        tile = (TILE_PX, TILE_PX)
        options = {"shape": shape, "dtype": np.uint8, "tile": tile, "photometric": "rgb", "compression": "zlib"}
        tifffile.imwrite(path, tiles(edge, filled), bigtiff=True, **options)
        return
    import zarr

    group = zarr.open_group(path, mode="w")
    array = group.create_array("0", shape=(3, edge, edge), chunks=(3, TILE_PX, TILE_PX), dtype="uint8")
    across = -(-edge // TILE_PX)
    for number, tile in enumerate(tiles(edge, filled)):
        top, left = (TILE_PX * part for part in divmod(number, across))
        part = tile[: edge - top, : edge - left].transpose(2, 0, 1)
        array[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}


def write_model(path: Path, width: int) -> None:
    """A bundle with random weights."""
    torch.manual_seed(0)
    config = ModelConfig(width=width, depth=4)
    about = bundle.Description(
        model=config,
        preprocessing=Preprocessing(channels=3, normalisation="standard", mean=(127.5,) * 3, deviation=(74.0,) * 3),
        classes=ClassTable.from_names([f"class {index}" for index in range(5)]),
        patch_size=(256, 256),
        prediction=PredictionConfig(tile_size=(TILE_PX, TILE_PX), overlap=0.5),
        bfloat16=True,
    )
    bundle.save(bundle.Bundle(about, bundle.state_on_cpu(unet.build(config, 3, 5))), path)


def main() -> None:
    """Make the image, predict it in a process of its own, and print seconds and the highest memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edge", type=int, default=16384)
    parser.add_argument("--filled", type=float, default=1.0, help="share of the image that is not one value")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--zarr", action="store_true")
    parser.add_argument("--cog", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large-") as room:
        image = Path(room) / ("image.ome.zarr" if wanted.zarr else "image.tif")
        model = Path(room) / "model.safetensors"
        write_image(image, wanted.edge, wanted.filled)
        write_model(model, wanted.width)
        began = time.monotonic()
        arguments = [str(model), str(image), f"{room}/out", wanted.memory, "cog" if wanted.cog else ""]
        ran = subprocess.run(  # noqa: S603  our own program
            [sys.executable, "-c", PROGRAM, *arguments], check=True, stdout=subprocess.PIPE, text=True
        )
        seconds, peak = time.monotonic() - began, int(ran.stdout.split()[-1])
    print(f"edge {wanted.edge}, {wanted.filled:.0%} filled: {seconds:.0f} s, at most {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
