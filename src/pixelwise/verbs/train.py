"""From a folder of images and masks to a model with its report."""

import time as clocks
from pathlib import Path

from pixelwise import config as configs
from pixelwise import launcher
from pixelwise.config import Config
from pixelwise.data.cache import Cache
from pixelwise.data.dataset import Dataset
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.evaluation import forgetting, results, sides
from pixelwise.evaluation.forgetting import Forgotten
from pixelwise.files import LOCK, held, write_json
from pixelwise.training import run as runs
from pixelwise.training.folder import Begun, Files, read_begun, run_of, settle
from pixelwise.training.watch import Watcher
from pixelwise.verbs.data import Checked, checked
from pixelwise.verbs.runs import Finished, Run, load, open_cases
from pixelwise.verbs.scores import evaluate_run
from pixelwise.verbs.settings import agree_on_folder, name_of, next_free, with_budget

REMEMBERED_IMAGES = 100
"""So many images at most, spread evenly, show what a run has forgotten."""


def train(  # noqa: PLR0913  all but two are given by name
    data: Path | str | Checked,
    out: Path | str | None = None,
    *,
    time: str | float | None = None,
    config: Config | None = None,
    start_from: Path | str | None = None,
    teacher: Path | str | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    command: str = "pixelwise.train(...)",
    began: float | None = None,
    one_of: int = 1,
) -> Run:
    """Check, split, plan, train, evaluate and report.

    Args:
        data: a folder of images and masks, or a data.yaml; what was checked already is not checked again.
        out: folder of the run; a new one below `runs` if none is given.
        time: budget for everything, in seconds or as '90s', '15m', '1h30m'; instead of the settings' time or epochs.
        config: settings; those that are not given are planned. See `settings`.
        start_from: a run or bundle whose weights to start from.
        teacher: a run or bundle, such as an ensemble, whose probabilities to learn beside the masks; the network is
            like one of its own.
        resume: go on with the run in `out`.
        watcher: told what happens; none hears nothing.
        command: what the report shows as the way to repeat it.
        began: `time.monotonic()` of the moment the budget counts from; none is now.
        one_of: of so many folds, that will be joined: `train_folds` trains them so, and each leaves time for that.

    Raises:
        DataError: the data cannot be trained on; all reasons are listed.
        ConfigError: a setting is not possible.
        TrainingError: the loss is not finite.
    """
    watcher = watcher if watcher is not None and launcher.is_first() else Watcher()
    started = clocks.monotonic()
    source = Path(start_from) if start_from is not None else None
    # torchrun starts all processes again when one has died: the same command goes on then
    if not resume and out is not None and _is_of_this_launch(Files(Path(out))):
        resume, source, teacher = True, None, None
    if resume and teacher is not None:
        raise ConfigError("A run that is resumed has its teacher already.", remedy="Leave --teacher out.")
    named = data.source if isinstance(data, Checked) else Path(data)
    place = Path(out) if out is not None else next_free(Path("runs"), name_of(named))
    learns_from = Path(teacher).resolve() if teacher is not None else None
    wanted = with_budget(config or Config(), time, None)
    wanted = settle(place, wanted, resume=resume, start_from=source, teacher=learns_from)
    goes_on = resume and Files(place).has_checkpoint
    begun = read_begun(Files(place)) if resume and Files(place).begun.exists() else None
    learns_from = begun.teacher if begun is not None else learns_from
    if resume and not goes_on:
        watcher.say("note: the run ended before its first checkpoint; it begins anew")
        source = begun.started_from if begun is not None else None
    known = checked(data, watcher)
    folder = Path(out) if out is not None else agree_on_folder(named, wanted)
    _refuse_folder_of_data(folder, known.dataset)
    begun = begun or Begun(
        config=wanted,
        started_from=source and source.resolve(),
        teacher=learns_from,
        launch=launcher.launch(),
        commands=(command,),
    )
    request = runs.Request(
        data=named,
        dataset=known.dataset,
        findings=known.findings,
        folder=folder,
        config=wanted,
        start_from=source,
        teacher=learns_from,
        resume=goes_on,
        began=began if began is not None else started,
        one_of=one_of,
    )
    if not launcher.is_first():
        return _run(request, begun, watcher, is_fresh=False)
    with held(folder) as is_alone:
        if not is_alone:
            raise ConfigError(
                "Another process trains in this folder.",
                where=folder,
                remedy="Wait for it, end it, or choose another folder with --out.",
            )
        return _run(request, begun.and_by(command), watcher, is_fresh=not resume)


def _refuse_folder_of_data(folder: Path, dataset: Dataset) -> None:
    """The files of a run would become a part of the data."""
    files = {path for case in dataset.cases for path in (case.image, *case.masks)}
    if folder.resolve() in {dataset.root.resolve(), *(place.resolve() for place in {path.parent for path in files})}:
        raise ConfigError(
            "This folder holds the data, and would hold the files of the run too.",
            where=folder,
            remedy="Name another folder with --out, such as runs/first.",
        )


def _run(request: runs.Request, begun: Begun, watcher: Watcher, *, is_fresh: bool) -> Run:
    """Train, evaluate and report; what a run was asked to do is written first, and stays if there is anything of it."""
    files = Files(request.folder)
    if is_fresh:
        write_json(files.begun, begun.to_json())
    try:
        trained = runs.train(request, watcher)
    except PixelwiseError:
        if is_fresh and {path.name for path in files.folder.glob("*")} <= {files.begun.name, LOCK}:
            files.begun.unlink(missing_ok=True)
        raise
    except KeyboardInterrupt as end:
        end.add_note(f"begun in {files.folder}: the same command goes on with --out {files.folder} --resume")
        raise
    if trained.is_main:
        write_json(files.begun, begun.to_json())  # of a run that goes on not before: what was refused leads nowhere
        forgotten = _what_is_left(begun.started_from, request.folder, watcher) if begun.started_from else None
        evaluate_run(trained, watcher, "\n".join(begun.commands), forgotten)
    return Run(trained.folder, trained.is_main, trained.interrupted, trained.kept_seconds)


def _is_of_this_launch(files: Files) -> bool:
    """Whether a run was begun by the processes in whose place torchrun has started these.

    Not all machines count a start as a restart. Without `--rdzv-id` the launches of several machines are all called
    "none", so that only a restart can be told.
    """
    launch = launcher.launch()
    if launch is None or not files.begun.exists() or read_begun(files).launch != launch:
        return False
    return launch != "none" or launcher.is_restarted()


def _what_is_left(source: Path, folder: Path, watcher: Watcher) -> Forgotten | None:
    """What the run still knows of the data of the one it started from, where that can be seen."""
    Files(folder).forgetting.unlink(missing_ok=True)  # of an earlier end of this run
    known = run_of(source)
    if known is None:
        why = "is a model by itself, which does not know its data" if source.exists() else "is gone"
        watcher.say(f"note: what the model forgets is not measured: {source} {why}")
        return None
    try:
        config = configs.load(Files(folder).config)
        earlier, later = Finished.open(known.folder, config.device), load(folder, config.device)
        cases, side = sides.choose(earlier.dataset, None, earlier.split)
        chosen = cases[:: -(-len(cases) // REMEMBERED_IMAGES)]
        if later.description.preprocessing.channels != earlier.model.description.preprocessing.channels:
            watcher.say(
                "note: what the model forgets is not measured: its images have other channels than the old ones"
            )
            return None
        shown = open_cases(Cache.of(config, earlier.dataset), chosen, earlier.model, Watcher())
        rows = forgetting.before_and_after(earlier.model, later, shown)
    except PixelwiseError as error:  # the run itself is finished
        watcher.say(f"note: what the model forgets is not measured: {error}")
        return None
    forgotten = Forgotten(source=str(source), side=side, images=len(chosen), classes=rows)
    write_json(Files(folder).forgetting, forgotten.model_dump(mode="json"))
    for line in results.forgotten_lines(forgotten):
        watcher.say(line)
    return forgotten
