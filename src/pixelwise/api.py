"""What a user can do with Pixelwise, one function each; the command line calls these and nothing else."""

import glob
import json
import math
import time as clocks
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pixelwise import config as configs
from pixelwise.config import Config
from pixelwise.data import check as checks
from pixelwise.data import folder as folders
from pixelwise.data import formats
from pixelwise.data.cache import Cache, Decoded, default_folder, to_npy, unify_channels
from pixelwise.data.check import Finding
from pixelwise.data.dataset import Dataset, MaskEncoding
from pixelwise.data.split import Split, restore
from pixelwise.errors import ConfigError, DataError, PixelwiseError
from pixelwise.evaluation import evaluate as evaluation
from pixelwise.evaluation import figures, report
from pixelwise.files import make_folder, read_json, write_atomically, write_json
from pixelwise.inference import predictor
from pixelwise.inference.predictor import Model
from pixelwise.metrics import Scores
from pixelwise.models.unet import UNet, build
from pixelwise.training import run as runs
from pixelwise.training.run import Files
from pixelwise.training.watch import Watcher

SplitChoice = Literal["train", "validation", "test", "all"]


@dataclass(frozen=True)
class Run:
    """The folder of a training run."""

    folder: Path

    @property
    def model(self) -> Model:
        """The model that was best on the validation split."""
        return load(self.folder)

    @property
    def scores(self) -> Scores:
        """Of the test split, or of the validation split where there is no test split.

        Raises:
            DataError: the run was not evaluated.
        """
        return Scores.from_summary(read_json(self.folder / "scores.json"))

    @property
    def report(self) -> Path:
        """The page to open in a browser."""
        return self.folder / "report.html"


def check(data: Path | str, watcher: Watcher | None = None) -> tuple[Dataset, list[Finding]]:
    """Look at every file of a data set once and list every problem.

    Args:
        data: a folder of images and masks, or a data.yaml.
        watcher: told how far it is.

    Raises:
        DataError: there are no pairs of images and masks, or it is not clear which belong together.
    """
    dataset = folders.scan(Path(data))
    return dataset, checks.examine(dataset, partial((watcher or Watcher()).work, "checking files"))


def train(
    data: Path | str,
    out: Path | str | None = None,
    *,
    config: Config | None = None,
    start_from: Path | str | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    command: str = "pixelwise.train(...)",
) -> Run:
    """Check, split, plan, train, evaluate and report.

    Args:
        data: a folder of images and masks, or a data.yaml.
        out: folder of the run; a new one below `runs` if none is given.
        config: settings; those that are not given are planned. See `settings`.
        start_from: a run or bundle whose weights to start from.
        resume: go on with the run in `out`.
        watcher: told what happens; none hears nothing.
        command: what the report shows as the way to repeat it.

    Raises:
        DataError: the data cannot be trained on; all reasons are listed.
        ConfigError: a setting is not possible.
        TrainingError: the loss is not finite.
    """
    began, watcher = clocks.monotonic(), watcher or Watcher()
    folder = Path(out) if out is not None else new_run_folder(Path(data))
    dataset, findings = check(data, watcher)
    for line in describe(dataset):
        watcher.say(line)
    if checks.is_fatal(findings):
        raise DataError(f"This data cannot be trained on.\n\n{checks.to_text(findings)}", where=data)
    request = runs.Request(
        data=Path(data),
        dataset=dataset,
        folder=folder,
        config=config or Config(),
        start_from=Path(start_from) if start_from is not None else None,
        resume=resume,
        began=began,
    )
    trained = runs.train(request, watcher)
    if trained.is_main:
        _evaluate_run(trained, findings, watcher, command)
    return Run(folder)


def settings(file: Path | str | None = None, overrides: Iterable[str] = ()) -> Config:
    """Settings for `train` from a YAML file and texts such as 'training.batch_size=8'.

    Raises:
        ConfigError: a setting does not exist or has no such value; the nearest existing one is named.
    """
    return configs.load(Path(file) if file is not None else None, overrides)


def load(path: Path | str, device: str = "auto") -> Model:
    """A trained model, from a run's folder or a bundle.

    Args:
        path: the folder of a run, or a `.safetensors` file.
        device: auto, cpu, cuda or mps.

    Raises:
        BundleError: there is no bundle, or it is damaged.
    """
    return predictor.load(path, device)


def evaluate(
    run: Path | str | Model,
    data: Path | str | None = None,
    *,
    split: SplitChoice = "test",
    out: Path | str | None = None,
    watcher: Watcher | None = None,
    command: str = "pixelwise.evaluate(...)",
) -> Scores:
    """Score a model on images whose masks are known.

    Args:
        run: folder of a run, a bundle, or a loaded model.
        data: images and masks; those of the run if none are given.
        split: which side. Of a folder that the run has not seen and that has no such side, all images count.
        out: folder for scores.json and report.html; none writes nothing.
        watcher: told how far it is.
        command: what the report shows as the way to repeat it.

    Raises:
        DataError: images or masks cannot be read, or their classes are not the model's.
        BundleError: there is no model.
    """
    watcher = watcher or Watcher()
    files = Files(Path(run)) if not isinstance(run, Model) and Path(run).is_dir() else None
    model = run if isinstance(run, Model) else load(run)
    dataset = _dataset_to_score(model, files, data)
    cases, name = _side(dataset, files if data is None else None, split)
    cache = Cache(default_folder(), dataset)
    decoded = unify_channels(cache.open_all(cases, progress=partial(watcher.work, "reading images")))
    scores = evaluation.score(model, decoded, partial(watcher.work, f"predicting {name} images"))
    if out is not None:
        facts = _facts(read_json(files.run) if files and data is None else {}, dataset)
        subject = _Subject(model, decoded, scores, name, command, facts, files if data is None else None)
        _write_results(make_folder(Path(out)), subject, [])
    return scores


@dataclass(frozen=True)
class Predicted:
    """What `predict_files` did."""

    written: list[Path] = field(default_factory=list)
    failed: list[PixelwiseError] = field(default_factory=list)


def predict_files(
    run: Path | str | Model,
    inputs: Sequence[Path | str],
    out: Path | str,
    *,
    suffix: str = ".png",
    overlay: bool = False,
    probabilities: bool = False,
    watcher: Watcher | None = None,
) -> Predicted:
    """Write a mask for every image, at the image's size, with the classes' colours as its palette.

    A multi-page file gives a multi-page TIFF, without overlay and probabilities. One unreadable image does not keep the others from being done.

    Args:
        run: folder of a run, a bundle, or a loaded model.
        inputs: files, folders and glob patterns.
        out: folder for the masks; folders below an input folder are kept.
        suffix: `.png` or `.tif`.
        overlay: also write NAME_overlay.png, the mask over the image.
        probabilities: also write NAME_probabilities.npy, float32 K H W.
        watcher: told how far it is.

    Raises:
        DataError: an input does not exist, or nothing was found.
        BundleError: there is no model.
    """
    watcher, result = watcher or Watcher(), Predicted()
    model = run if isinstance(run, Model) else load(run)
    targets = _targets(inputs, Path(out), suffix)
    for index, (source, target) in enumerate(targets):
        try:
            result.written.extend(_predict_file(model, source, target, overlay, probabilities))
        except PixelwiseError as error:
            result.failed.append(type(error)(error.what, where=source, remedy=error.remedy))
        watcher.work("predicting", index + 1, len(targets))
    return result


def preview(data: Path | str, out: Path | str, config: Config | None = None, patches: int = 24) -> Path:
    """Write a picture of what the network will see: augmented patches with their masks.

    Args:
        data: a folder of images and masks, or a data.yaml.
        out: the picture to write (.png).
        config: settings of data and augmentation.
        patches: how many.
    """
    import torch

    from pixelwise.data.augment import augment
    from pixelwise.data.loader import Share, stream

    dataset = folders.scan(Path(data))
    material = runs.prepare(dataset, config or Config(), None, Watcher())
    chosen = runs.make_plan(dataset, config or Config(), material).config
    material = runs.resized(material, chosen)
    batch = next(stream(runs.windows(chosen, material), 0, patches, Share()))
    image, mask = augment(batch.image, batch.mask, batch.seeds, chosen.data.patch_size, chosen.augment)
    fingerprint = material.fingerprint
    raw = image * torch.tensor(fingerprint.deviation)[:, None, None] + torch.tensor(fingerprint.mean)[:, None, None]
    kind = material.train[0].image.dtype
    pictures = [figures.to_display(_as_type(one.permute(1, 2, 0).numpy(), kind)) for one in raw]
    names = [f"patch {number + 1}" for number in range(patches)]
    path = Path(out)
    make_folder(path.parent)
    formats.write_picture(path, figures.contact_sheet(pictures, list(mask.numpy()), names, dataset.classes))
    return path


def unet(config: configs.ModelConfig | None = None, *, channels: int = 3, classes: int = 2) -> UNet:
    """A U-Net as a plain torch module, from images B C H W to logits B K H W, with He's initialisation.

    Args:
        config: width, depth, normalisation ...; `pixelwise.config.SIZES` has named ones.
        channels: C of the images.
        classes: K of the logits.
    """
    return build(config or configs.ModelConfig(), channels, classes)


def new_run_folder(data: Path) -> Path:
    """runs/NAME-1, or the next number that is free; NAME is that of the data."""
    name = (data.parent if data.suffix in {".yaml", ".yml"} else data).resolve().name.replace(" ", "_") or "run"
    number = 1
    while (Path("runs") / f"{name}-{number}").exists():
        number += 1
    return Path("runs") / f"{name}-{number}"


@dataclass(frozen=True)
class _Subject:
    """What a report is about."""

    model: Model
    decoded: Sequence[Decoded]
    scores: Scores
    side: str
    command: str
    facts: dict[str, str]
    files: Files | None


def _evaluate_run(trained: runs.Trained, findings: list[Finding], watcher: Watcher, command: str) -> None:
    files = Files(trained.folder)
    model = load(files.best)
    side, name = (trained.split.test, "test") if trained.split.test else (trained.split.validation, "validation")
    decoded = unify_channels(trained.cache.open_all(side))
    scores = evaluation.score(model, decoded, partial(watcher.work, f"predicting {name} images"))
    facts = _facts(read_json(files.run), trained.cache.dataset)
    _write_results(trained.folder, _Subject(model, decoded, scores, name, command, facts, files), findings)


def _write_results(folder: Path, subject: _Subject, findings: list[Finding]) -> None:
    """scores.json, report.html and, for a run, its learning curves."""
    files = subject.files
    history = _history(files)
    if history:
        figures.save_learning_curves(folder / "curves.png", history)
    summary = {"split": subject.side, **subject.scores.summary()}
    write_json(folder / "scores.json", summary)
    content = report.Content(
        title=folder.resolve().name,
        command=subject.command,
        scores=summary,
        split_name=subject.side,
        classes=subject.model.classes,
        history=history,
        decisions=read_json(files.plan)["decisions"] if files else [],
        findings=checks.to_json(findings),
        facts=subject.facts,
        examples=evaluation.examples(subject.model, subject.decoded, subject.scores),
    )
    report.write(folder / "report.html", content)


def _history(files: Files | None) -> list[dict[str, Any]]:
    if files is None or not files.history.exists():
        return []
    return [json.loads(line) for line in files.history.read_text(encoding="utf-8").splitlines()]


def _facts(said: dict[str, Any], dataset: Dataset) -> dict[str, str]:
    facts = {"data": str(dataset.root), "layout": dataset.layout, "masks": dataset.encoding.description}
    facts |= {name: text for name, text in said.items() if isinstance(text, str)}
    return facts | {f"{name} version": text for name, text in said.get("versions", {}).items()}


def _dataset_to_score(model: Model, files: Files | None, data: Path | str | None) -> Dataset:
    if data is None and files is None:
        raise ConfigError("A bundle does not know its data.", remedy="Name the folder of images and masks to score.")
    said = read_json(files.run) if files is not None else {}
    dataset = folders.scan(Path(data if data is not None else said["data"]))
    if "mask_encoding" in said:
        # masks of one test folder may lack a class: what their values mean is what the run learnt
        encoding = MaskEncoding.model_validate(said["mask_encoding"])
        return replace(dataset, encoding=encoding, classes=model.classes)
    if dataset.classes.names != model.classes.names:
        raise DataError(
            f"These masks have the classes {', '.join(dataset.classes.names)}; "
            f"the model knows {', '.join(model.classes.names)}.",
            where=dataset.root,
            remedy="Name the classes in a data.yaml, or evaluate the run's folder, which remembers its masks.",
        )
    return dataset


def _side(dataset: Dataset, files: Files | None, split: SplitChoice) -> tuple[Sequence[Any], str]:
    """The cases to score, and what to call them."""
    if split == "all":
        return dataset.cases, "all"
    if files is not None:
        sides: Split = restore(dataset, files.split)
        chosen = getattr(sides, split)
        if not chosen:
            raise DataError(f"This run has no {split} images.", where=files.split, remedy="Use --split validation.")
        return chosen, split
    given = [case for case in dataset.cases if case.split == split]
    return (given, split) if given else (dataset.cases, "all")


def _targets(inputs: Sequence[Path | str], out: Path, suffix: str) -> list[tuple[Path, Path]]:
    """Each image with where its mask goes; no two masks go to one place.

    Raises:
        DataError: an input does not exist, or nothing was found.
    """
    pairs = [pair for text in inputs for pair in _expand(str(text))]
    if not pairs:
        raise DataError("No images were found.", where=", ".join(map(str, inputs)))
    stems = [relative.with_suffix("") for _, relative in pairs]
    repeated = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
    targets = []
    for (source, relative), stem in zip(pairs, stems, strict=True):
        name = relative.name if stem in repeated else stem.name
        targets.append((source, out / relative.parent / f"{name}{suffix}"))
    return targets


def _expand(text: str) -> Iterator[tuple[Path, Path]]:
    """Images that an input stands for, each with its path below it."""
    path = Path(text)
    if path.is_file():
        yield path, Path(path.name)
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in formats.READERS and file.is_file():
                yield file, file.relative_to(path)
    elif glob.has_magic(text):
        for name in sorted(glob.glob(text, recursive=True)):  # noqa: PTH207  patterns may be absolute
            yield from _expand(glob.escape(name)) if Path(name).is_dir() else [(Path(name), Path(Path(name).name))]
    else:
        raise DataError("There is no such file or folder.", where=path)


def _predict_file(model: Model, source: Path, target: Path, overlay: bool, probabilities: bool) -> list[Path]:
    pages = formats.page_count(source)
    if pages > 1:
        return _predict_stack(model, source, target.with_suffix(".tif"), pages)
    image = formats.read_image(source)
    prediction = model.predict(image, probabilities=probabilities)
    make_folder(target.parent)
    formats.write_mask(target, prediction.mask, model.classes)
    written = [target]
    if overlay:
        written.append(target.with_name(f"{target.stem}_overlay.png"))
        formats.write_picture(written[-1], figures.overlay(figures.to_display(image), prediction.mask, model.classes))
    if prediction.probabilities is not None:
        written.append(target.with_name(f"{target.stem}_probabilities.npy"))
        write_atomically(written[-1], to_npy(prediction.probabilities))
    return written


def _predict_stack(model: Model, source: Path, target: Path, pages: int) -> list[Path]:
    """A stack of images gives a stack of masks, page by page."""
    import numpy as np

    masks = [model.predict(formats.read_image(source, page)).mask for page in range(pages)]
    make_folder(target.parent)
    formats.write_mask(target, np.stack(masks), model.classes)
    return [target]


def _as_type(values: Any, kind: Any) -> Any:
    import numpy as np

    if not np.issubdtype(kind, np.integer):
        return values
    limits = np.iinfo(kind)
    return np.clip(np.rint(values), limits.min, limits.max).astype(kind)


def describe(dataset: Dataset) -> list[str]:
    """What was found in a folder, a line each."""
    counts = f"{len(dataset.cases)} images with masks, classes: {', '.join(dataset.classes.names)}"
    return [dataset.layout, dataset.encoding.description, counts, *dataset.notices]


def score_lines(scores: Scores) -> list[str]:
    """Headline and scores per class, a line each."""
    width = max(len(name) for name in scores.classes)
    rows = zip(scores.classes, scores.iou.tolist(), scores.dice.tolist(), strict=True)
    headline = (
        f"mIoU {_text(scores.miou)}  Dice {_text(scores.mean_dice)}  pixel accuracy {_text(scores.accuracy)}  "
        f"pooled over {len(scores.names)} images"
    )
    return [headline, *(f"  {name:<{width}}  IoU {_text(iou)}  Dice {_text(dice)}" for name, iou, dice in rows)]


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
