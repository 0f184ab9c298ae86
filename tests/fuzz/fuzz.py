"""Damaged and hostile files, by the thousand: every one is read or refused in a sentence.

    python tests/fuzz/fuzz.py --cases 10000 --seed 0

Each case takes sound files, changes one of them by chance, and does with it what a user would. It fails with any error
that is not Pixelwise's own, after ten seconds, above two gigabytes of memory, and where a file outside of the output
folder appears, changes or goes. The seed of a failed case repeats it: `--only SEED`.
"""

import argparse
import io
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from PIL import Image

from pixelwise import api
from pixelwise.classes import ClassTable
from pixelwise.config import ModelConfig, PredictionConfig, Preprocessing
from pixelwise.data import windows
from pixelwise.errors import PixelwiseError
from pixelwise.models import bundle, unet

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, it finds what the tests share
from encoded import npy, pillow, png, png_chunk, tiff

LIMIT_SECONDS = 10.0
LIMIT_BYTES = 2 * 2**30
SIZE = (24, 32)


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    seed: int
    target: str
    verdict: str
    """accepted, refused, or what went wrong: traceback, hang, memory, files."""
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        return self.verdict not in ("accepted", "refused")


# sound files -------------------------------------------------------------------------------------------------------


def _picture(number: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, shape or (*SIZE, 3)).astype(np.uint8)


def _mask(number: int) -> np.ndarray:
    return (np.random.default_rng(number).random(SIZE) < 0.4).astype(np.uint8)


def _indexed(mask: np.ndarray, kind: str) -> bytes:
    """With a palette."""
    stream, picture = io.BytesIO(), Image.fromarray(mask)
    picture.putpalette(bytes(range(256)) * 3)
    picture.save(stream, format=kind)
    return stream.getvalue()


@cache
def images() -> dict[str, bytes]:
    """Images by suffix; what stands before the colon only tells them apart."""
    exif = Image.Exif()
    exif[0x0112] = 6
    grey, deep = _picture(1, *SIZE), _picture(2, *SIZE).astype(np.uint16) * 257
    return {
        "rgb:.png": pillow(_picture(0), "PNG"),
        "grey:.png": pillow(grey, "PNG"),
        "alpha:.png": pillow(_picture(3, *SIZE, 4), "PNG"),
        "deep:.png": pillow(deep, "PNG"),
        "palette:.png": _indexed(grey, "PNG"),
        "rgb:.jpg": pillow(_picture(0), "JPEG"),
        "turned:.jpg": pillow(_picture(0), "JPEG", exif=exif),
        "rgb:.bmp": pillow(_picture(0), "BMP"),
        "rgb:.webp": pillow(_picture(0), "WEBP"),
        "grey:.gif": pillow(grey, "GIF"),
        "rgb:.ppm": pillow(_picture(0), "PPM"),
        "rgb:.tif": tiff(_picture(0), photometric="rgb"),
        "deflate:.tif": tiff(_picture(0), photometric="rgb", compression="zlib"),
        "lzw:.tif": tiff(_picture(0), photometric="rgb", compression="lzw"),
        "tiles:.tif": tiff(_picture(0), photometric="rgb", tile=(16, 16), compression="zlib"),
        "float:.tif": tiff(_picture(4).astype(np.float32), photometric="rgb"),
        "big:.tif": tiff(_picture(0), photometric="rgb", bigtiff=True),
        "ome:.tif": tiff(_picture(5, 2, *SIZE), ome=True, metadata={"axes": "CYX"}),
        "rgb:.npy": npy(_picture(0)),
    }


@cache
def masks() -> dict[str, bytes]:
    """Masks by suffix."""
    mask = _mask(0)
    return {
        "0/255:.png": pillow(255 * mask, "PNG"),
        "index:.png": pillow(mask, "PNG"),
        "palette:.png": _indexed(mask, "PNG"),
        "colours:.png": pillow(np.stack([255 * mask, 0 * mask, 0 * mask], axis=2), "PNG"),
        "grey:.bmp": pillow(255 * mask, "BMP"),
        "palette:.gif": _indexed(mask, "GIF"),
        "deflate:.tif": tiff(mask, compression="zlib"),
        "signed:.tif": tiff(np.where(np.arange(mask.size).reshape(mask.shape) < 9, -1, mask.astype(np.int32))),
        "layers:.tif": tiff(np.stack([mask, 1 - mask]), photometric="minisblack"),
        "index:.npy": npy(mask.astype(np.int64)),
        "noise:.jpg": pillow(255 * mask, "JPEG"),
    }


@cache
def model_file() -> bytes:
    """A small bundle."""
    torch.manual_seed(0)
    settings = ModelConfig(width=8, depth=2)
    network = unet.build(settings, 3, 2)
    described = bundle.Description(
        model=settings,
        preprocessing=Preprocessing(
            channels=3, normalisation="standard", mean=(1.0,) * 3, deviation=(2.0,) * 3, types=("uint8",), largest=255.0
        ),
        classes=ClassTable.from_names(["background", "object"]),
        patch_size=(32, 32),
        prediction=PredictionConfig(),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        bundle.save(bundle.Bundle(described, bundle.state_on_cpu(network)), path)
        return path.read_bytes()


def coco() -> dict[str, Any]:
    """Annotations of four images: polygons with two parts, run lengths as list and as text."""
    square, far = [2.0, 2.0, 10.0, 2.0, 10.0, 10.0, 2.0, 10.0], [20.0, 5.0, 28.5, 5.5, 24.0, 20.0]
    runs = {"size": list(SIZE), "counts": [100, 50, 24 * 32 - 150]}
    shapes: list[Any] = [[square], [square, far], runs, {"size": list(SIZE), "counts": [300, 60, 24 * 32 - 360]}]
    return {
        "info": {"description": "x"},
        "images": [{"id": i, "file_name": f"c{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(4)],
        "categories": [{"id": 1, "name": "cell"}, {"id": 7, "name": "other"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": (1, 7)[i % 2], "iscrowd": i // 2, "segmentation": shape}
            for i, shape in enumerate(shapes)
        ],
    }


def labelme() -> dict[str, Any]:
    """Shapes of one image."""
    return {
        "version": "5.0",
        "shapes": [
            {"label": "cell", "points": [[2, 2], [9, 2], [9, 9.5]], "shape_type": "polygon", "flags": {}},
            {"label": "cell", "points": [[12, 2], [19, 9]], "shape_type": "rectangle"},
            {"label": "other", "points": [[20, 12], [22, 12]], "shape_type": "circle"},
        ],
        "imagePath": "c0.png",
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    }


DATA_FILE: dict[str, Any] = {
    "path": ".",
    "images": "images/*.png",
    "masks": "masks/{stem}.png",
    "names": ["background", "object"],
    "colors": [[0, 0, 0], [255, 0, 0]],
    "values": {0: 0, 255: 1},
    "ignore": 9,
    "train": ["c0", "c1", "c2"],
    "val": "images/c3.png",
    "group": "c([0-9])",
}

SETTINGS: dict[str, Any] = {
    "seed": 3,
    "device": "cpu",
    "data": {"patch_size": [64, 64], "resize": None, "test_fraction": 0.2, "normalisation": "standard", "folds": 3},
    "model": {"width": 8, "depth": 3, "norm": "batch", "dropout": 0.1},
    "augment": {"strength": 1.0, "elastic_sigma_px": 3.0},
    "loss": {"name": "focal", "class_weights": [1.0, 2.0]},
    "training": {"time": "15m", "learning_rate": 1e-3, "optimizer": "adamw", "batch_size": 4, "precision": "float32"},
    "prediction": {"overlap": 0.5},
}


# damage ------------------------------------------------------------------------------------------------------------

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 255, 256, 2**31, -(2**63), 2**64, 10**40, 1e308, -1e-320),
    *(math.nan, math.inf, -math.inf, "", " ", "a" * 5000, "../../evil", "/etc/passwd", "C:\\evil", "\\\\host\\x"),
    *("\0", "%s%n", "{}", "{0}", "{stem", "\u202eé\U0001f600", "*", "**/*", "[", "(", "(a+)+$", "a{9999999}", "?", "~"),
    *("2021-13-45", "0x10", "nan", "1e999", "15m", "-5s", "ignore", "__ignore__", "=1+1", "null", "\n", "- a\n- b"),
    *([], {}, [[]], [None], [1, 2, 3], [0.1] * 500, ["x"] * 300, {"a": {}}, {"": ""}, {"1": "x"}, [{}], [[[1]]]),
)


def _deep(levels: int) -> Any:
    tree: Any = 1
    for _ in range(levels):
        tree = [tree]
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a tree with a key in it."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield tree, key
        yield from _places(value)


def changed_tree(tree: Any, chance: random.Random) -> Any:
    """The same tree with one to three entries replaced, removed, doubled or renamed."""
    tree = json.loads(json.dumps(tree)) if not any(isinstance(k, int) for k in tree) else dict(tree)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            return tree
        holder, key = chance.choice(places)
        act = chance.random()
        if act < 0.7:
            holder[key] = chance.choice([*HOSTILE, _deep(40)])
        elif act < 0.8:
            del holder[key]
        elif isinstance(holder, dict):
            holder[chance.choice(["", "x" * 300, "names", "path", "\0", "images", f"{key} "])] = holder[key]
        else:
            holder.append(holder[key])
    return tree


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The same bytes with one to four accidents, most of them where the head is."""
    content = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if not content:
            break
        reach = len(content) if chance.random() < 0.5 else min(len(content), 256)
        at, length = chance.randrange(reach), chance.choice([1, 1, 1, 2, 4, 16, 200])
        act = chance.randrange(6)
        if act == 0:
            content[at] ^= 1 << chance.randrange(8)
        elif act == 1:
            content[at : at + length] = bytes(chance.choice([0, 255, 127, 128]) for _ in range(length))
        elif act == 2:
            del content[at : at + length]
        elif act == 3:
            content[at:at] = chance.randbytes(length)
        elif act == 4:
            content[at:at] = content[at : at + 40 * length]
        else:
            del content[at:]
    return _with_checksums(bytes(content)) if chance.random() < 0.5 else bytes(content)


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums again, so that the damage is read further."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    done, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        done += png_chunk(body[:4], body[4:])
        at += 12 + length
    return bytes(done + data[at:])


def bomb(suffix: str, chance: random.Random) -> bytes:
    """A small file that promises very many pixels."""
    edge = chance.choice([30_000, 100_000, 2**31 - 1])
    if suffix == ".png":
        return png((edge, edge, 8, chance.choice([0, 2, 6])), bytes(100_000))
    if suffix == ".npy":
        text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({edge}, {edge}), }}".ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    if suffix == ".bmp":
        return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, edge, edge, 1, 24, 0, 0, 0, 0, 0, 0)
    if suffix == ".ppm":
        return f"P6 {edge} {edge} 255\n".encode() + bytes(50)
    tags = [(256, 4, 1, edge), (257, 4, 1, edge), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 1), (278, 4, 1, edge), (279, 4, 1, 10)]
    table = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return (
        b"II*\0"
        + struct.pack("<I", 8 + 20)
        + zlib.compress(bytes(8)).ljust(20, b"\0")
        + struct.pack("<H", len(tags))
        + table
        + bytes(4)
    )


def hostile_text(chance: random.Random) -> str:
    """YAML and JSON that parsers stumble over."""
    laughs = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 30))]
    names = ["n0: &n0 [x, x]", *(f"n{i}: &n{i} [*n{i - 1}, *n{i - 1}]" for i in range(1, 40)), "names: *n39"]
    return chance.choice(
        (
            *(
                "\n".join(laughs),
                "\n".join(names),
                "names: &a [*a]\nimages: &b {c: *b}",
                "[" * 20_000,
                '{"a":' * 20_000,
            ),
            *("!!python/object/apply:os.system ['touch evil']", "\t- x", "a: b: c", "? [a]\n: b", "\ufeff", "\0", "&x"),
            *("names: !!binary aGk=", "---\na: 1\n---\nb: 2", "images: .inf", "9" * 6000, "images: " + "9" * 6000),
            *(
                "<<: *x",
                "a: !<tag:yaml.org,2002:int> x",
                "images: 2021-13-45",
                "values: {[1]: 2}",
                "names: {1: {2: 3}}",
            ),
        )
    )


# what a user does with it ------------------------------------------------------------------------------------------


def _write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


def write_pairs(folder: Path, image: str = "rgb:.png", mask: str = "0/255:.png") -> None:
    """Four images with masks, the first of these kinds; all masks are of one kind."""
    for number in range(4):
        kind = "rgb:.png" if number else image
        picture = pillow(_picture(number), "PNG") if number else images()[image]
        _write(folder / "images" / f"c{number}{suffix_of(kind)}", picture)
        _write(folder / "masks" / f"c{number}{suffix_of(mask)}", masks()[mask])


def _damaged_or_bomb(kind: str, content: bytes, chance: random.Random) -> bytes:
    return bomb(suffix_of(kind), chance) if chance.random() < 0.05 else damaged(content, chance)


def suffix_of(kind: str) -> str:
    """'.png' of 'rgb:.png'."""
    return kind.partition(":")[2]


Use = Callable[[Path], object]
"""What is done with the files; it may write into one folder."""


def _looked_at(folder: Path) -> Use:
    """Check, and write the repaired copy."""

    def use(out: Path) -> None:
        api.check(folder)
        api.fix(folder, out / "copy")

    return use


def fuzz_image(folder: Path, chance: random.Random) -> Use:
    kind = chance.choice(list(images()))
    write_pairs(folder, image=kind)
    _write(folder / "images" / f"c0{suffix_of(kind)}", _damaged_or_bomb(kind, images()[kind], chance))
    return _looked_at(folder)


def fuzz_mask(folder: Path, chance: random.Random) -> Use:
    kind = chance.choice(list(masks()))
    write_pairs(folder, mask=kind)
    _write(folder / "masks" / f"c0{suffix_of(kind)}", _damaged_or_bomb(kind, masks()[kind], chance))
    return _looked_at(folder)


def fuzz_data_yaml(folder: Path, chance: random.Random) -> Use:
    write_pairs(folder)
    _write(folder / "groups.csv", damaged(b"image,patient\nc0,1\nc1,1\nc2,2\nc3,3\n", chance))
    table = {"file": "groups.csv", "column": "patient"}
    whole = {**DATA_FILE, **({"group": None, "group_table": table} if chance.random() < 0.3 else {})}
    wanted = chance.sample(list(whole), chance.randint(1, len(whole)))
    act = chance.random()
    text = yaml.safe_dump(changed_tree({key: whole[key] for key in wanted}, chance))
    text = hostile_text(chance) if act < 0.15 else text
    _write(folder / "data.yaml", damaged(text.encode(), chance) if act > 0.8 else text)
    return _looked_at(folder)


def fuzz_annotation(folder: Path, chance: random.Random) -> Use:
    for number in range(4):
        _write(folder / "images" / f"c{number}.png", pillow(_picture(number), "PNG"))
    kind = chance.choice(["coco", "coco", "labelme", "yolo"])
    act = chance.random()
    if kind == "yolo":
        for number in range(4):
            _write(folder / "labels" / f"c{number}.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.6 0.6 0.9 0.6 0.7 0.9\n")
        words = (folder / "labels" / "c1.txt").read_text().split(" ")
        words[chance.randrange(len(words))] = str(chance.choice(HOSTILE))
        text = " ".join(words)
        path = folder / "labels" / "c1.txt"
    elif kind == "labelme":
        for number in range(1, 4):
            _write(folder / "images" / f"c{number}.json", json.dumps(labelme()))
        text, path = json.dumps(changed_tree(labelme(), chance)), folder / "images" / "c0.json"
    else:
        text, path = json.dumps(changed_tree(coco(), chance)), folder / "instances.json"
    text = hostile_text(chance) if act < 0.08 else text
    _write(path, damaged(text.encode(), chance) if act > 0.75 else text)
    return _looked_at(folder)


def fuzz_settings(folder: Path, chance: random.Random) -> Use:
    act = chance.random()
    text = hostile_text(chance) if act < 0.1 else yaml.safe_dump(changed_tree(SETTINGS, chance))
    _write(folder / "config.yaml", damaged(text.encode(), chance) if act > 0.8 else text)
    wishes = [f"{chance.choice(['training.time', 'data.resize', 'model', 'x', 'loss', ''])}={chance.choice(HOSTILE)}"]
    wishes = wishes if chance.random() < 0.3 else []
    return lambda _: api.settings(folder / "config.yaml", wishes)


def fuzz_bundle(folder: Path, chance: random.Random) -> Use:
    content = model_file()
    (length,) = struct.unpack("<Q", content[:8])
    if chance.random() < 0.6:
        head = json.loads(content[8 : 8 + length])
        if chance.random() < 0.8:  # what the file says of itself
            told = head["__metadata__"]
            told["description"] = json.dumps(changed_tree(json.loads(told["description"]), chance))
            if chance.random() < 0.2:
                told[chance.choice(["format", "version", "hash"])] = str(chance.choice(HOSTILE))
        else:
            head = changed_tree(head, chance)
        text = json.dumps(head).encode()
        content = struct.pack("<Q", len(text)) + text + content[8 + length :]
    else:
        content = damaged(content, chance)
    _write(folder / "model.safetensors", content)
    _write(folder / "x.png", images()["rgb:.png"])
    return lambda out: api.predict_files(folder / "model.safetensors", [folder / "x.png"], out / "masks", overlay=True)


@cache
def _model() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(model_file())
        return api.load(path)


def fuzz_prediction(folder: Path, chance: random.Random) -> Use:
    kind = chance.choice(list(images()))
    _write(folder / f"x{suffix_of(kind)}", _damaged_or_bomb(kind, images()[kind], chance))

    def use(out: Path) -> None:
        done = api.predict_files(_model(), [folder], out / "masks", overlay=True)
        if done.failed:
            raise done.failed[0]

    return use


def write_zarr(path: Path) -> None:
    """A sound OME-Zarr image of six chunks."""
    import zarr

    group = zarr.open_group(path, mode="w")
    array = group.create_array("0", shape=(3, *SIZE), chunks=(3, 16, 16), dtype="uint8")
    array[:] = _picture(0).transpose(2, 0, 1)
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}


def fuzz_windows(folder: Path, chance: random.Random) -> Use:
    """As images that are larger than memory."""
    if chance.random() < 0.3:
        write_zarr(folder / "x.ome.zarr")
        path = chance.choice(sorted(path for path in (folder / "x.ome.zarr").rglob("*") if path.is_file()))
        if path.suffix == ".json" and chance.random() < 0.7:
            _write(path, json.dumps(changed_tree(json.loads(path.read_text()), chance)))
        else:
            _write(path, damaged(path.read_bytes(), chance))
    else:
        kind = chance.choice([kind for kind in images() if kind.endswith(".tif")])
        _write(folder / "x.tif", _damaged_or_bomb(kind, images()[kind], chance))

    def use(out: Path) -> None:
        with mock.patch.object(windows, "WHOLE_BYTES", 0):
            done = api.predict_files(_model(), [folder], out / "masks", overlay=True, probabilities=True)
        if done.failed:
            raise done.failed[0]

    return use


TARGETS: dict[str, tuple[Callable[[Path, random.Random], Use], int]] = {
    "image": (fuzz_image, 20),
    "mask": (fuzz_mask, 20),
    "data.yaml": (fuzz_data_yaml, 15),
    "annotation": (fuzz_annotation, 15),
    "settings": (fuzz_settings, 10),
    "bundle": (fuzz_bundle, 10),
    "prediction": (fuzz_prediction, 5),
    "windows": (fuzz_windows, 5),
}
"""What is fuzzed, and how often of a hundred times."""


# one case, and many ------------------------------------------------------------------------------------------------


def _files(folder: Path, but: Path) -> dict[str, bytes]:
    """What lies in a folder, without one inside it."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(but))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def target_of(seed: int) -> str:
    """What the case of a seed fuzzes."""
    names, weights = list(TARGETS), [weight for _, weight in TARGETS.values()]
    return random.Random(f"target {seed}").choices(names, weights)[0]


def run_case(seed: int, room: Path) -> Outcome:
    """One case, in a folder of its own, which is removed afterwards."""
    target = target_of(seed)
    sandbox = room / f"case {seed}"
    folder, out = sandbox / "a" / "b" / "data", sandbox / "out"
    folder.mkdir(parents=True)
    out.mkdir()
    (sandbox / "evil").write_text("here already")
    use = TARGETS[target][0](folder, random.Random(seed))
    before = _files(sandbox, out)
    verdict, detail = "accepted", ""
    try:
        with _inside(sandbox):
            use(out)
    except PixelwiseError as error:
        verdict, detail = "refused", str(error)
    except Exception:  # noqa: BLE001  that is what is looked for
        verdict, detail = "traceback", traceback.format_exc()
    after = _files(sandbox, out)
    if after != before:
        verdict, detail = "files", str(sorted({path for path, _ in after.items() ^ before.items()}))
    unit = 1 if sys.platform == "darwin" else 1024
    if (peak := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit) > LIMIT_BYTES:
        verdict, detail = "memory", f"{peak / 2**30:.1f} GiB"
    shutil.rmtree(sandbox, ignore_errors=True)
    return Outcome(seed, target, verdict, detail)


def _work(pipe: Connection, seeds: Sequence[int], room: Path) -> None:
    """A process that does one case after the other and tells of each."""
    torch.set_num_threads(1)
    os.environ["PIXELWISE_CACHE"] = str(room / "cache")
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  decoders write their complaints
        os.dup2(nowhere.fileno(), 2)
    model_file(), images(), masks(), _model()
    for seed in seeds:
        pipe.send(run_case(seed, room))
    pipe.send(None)


def run_cases(seeds: Sequence[int], room: Path, tell: Callable[[Outcome], None]) -> None:
    """Cases in a process beside this one, which is replaced after a hang or a flood."""
    left = list(seeds)
    while left:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(theirs, left, room), daemon=True)
        process.start()
        theirs.close()
        patience = 120.0  # importing torch
        while left:
            try:
                outcome = ours.recv() if ours.poll(patience) else Outcome(left[0], target_of(left[0]), "hang")
            except EOFError:
                process.join(LIMIT_SECONDS)
                outcome = Outcome(left[0], target_of(left[0]), "killed", f"exit code {process.exitcode}")
            patience = LIMIT_SECONDS
            tell(outcome)
            left.pop(0)
            if outcome.verdict in ("hang", "killed", "memory"):
                break
        process.kill()
        process.join()


def main() -> None:
    """Run the cases and say what became of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first case; each has a seed of its own")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, help="one case, in this process")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as room:
        if wanted.only is not None:
            os.environ["PIXELWISE_CACHE"] = f"{room}/cache"
            outcome = run_case(wanted.only, Path(room))
            print(f"{outcome.target}: {outcome.verdict}\n{outcome.detail}")
            sys.exit(outcome.is_failure)
        failures = _run_all(range(wanted.seed, wanted.seed + wanted.cases), wanted.processes, Path(room))
    sys.exit(bool(failures))


def _run_all(seeds: range, processes: int, room: Path) -> list[Outcome]:
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[Outcome] = []
    began = time.monotonic()

    def tell(outcome: Outcome) -> None:
        counts[outcome.target, outcome.verdict] += 1
        if outcome.is_failure:
            failures.append(outcome)
            print(f"{outcome.target} {outcome.seed}: {outcome.verdict}\n{outcome.detail}", flush=True)

    threads = [
        threading.Thread(target=run_cases, args=(seeds[start::processes], room, tell)) for start in range(processes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdicts = sorted({verdict for _, verdict in counts})
    print(f"\n{'':12}" + "".join(f"{verdict:>12}" for verdict in verdicts))
    for target in TARGETS:
        print(f"{target:12}" + "".join(f"{counts[target, verdict]:12}" for verdict in verdicts))
    print(f"{len(seeds)} cases, {len(failures)} failures, {time.monotonic() - began:.0f} s")
    return failures


if __name__ == "__main__":
    main()
