"""The command line: one function per verb, which parses, calls and prints."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from pixelwise import launcher
from pixelwise.bench import sizes
from pixelwise.errors import ConfigError, DataError, PixelwiseError

if TYPE_CHECKING:
    from pixelwise.api import Run
    from pixelwise.data.finding import Finding
    from pixelwise.training.watch import Watcher

INTERRUPTED = 130

LONGEST_LINE = 100
"""Of paragraphs, in characters, however wide the terminal is."""

NARROW_COLUMNS = 70
"""On terminals with fewer, help stands in plain lines: tables would cut the names of options."""

STARTED = monotonic()
"""A time budget counts from here, before torch is imported."""


class _Verbs(TyperGroup):
    """The verbs; Typer alone would end without a word at a Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:  # the home of its type depends on Typer's version
        """Run the verb that was typed."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as end:
            if launcher.is_first():
                for line in ("interrupted", *getattr(end, "__notes__", ())):
                    typer.echo(line, err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            told = getattr(error, "format_message", None)  # a wrong argument, which all processes were given
            if told is not None:
                launcher.leave_to_torchrun(told())
            if told is None or launcher.is_first():
                raise
            raise typer.Exit(ConfigError.exit_code) from None


app = typer.Typer(
    cls=_Verbs,
    name="pixelwise",
    help="Semantic segmentation with U-Net: from a folder of images and masks to a model that can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if shutil.get_terminal_size().columns >= NARROW_COLUMNS else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_seconds(text: str | None) -> str | None:
    """A time without a unit is in seconds, which not everybody means."""
    if text is not None and text.strip().isdigit() and launcher.is_first():
        typer.echo(f"note: {text.strip()} are seconds; {text.strip()}m would be minutes", err=True)
    return text  # what a callback returns is the option's value


DataArgument = Annotated[Path, typer.Argument(help="Folder of images and masks, or a data.yaml.")]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run, a bundle (.safetensors), or eight bits (.xml).")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, as training.batch_size=8; repeatable."),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings from a YAML file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Split = Literal["train", "validation", "test", "all"]
FlipsOption = Annotated[
    Literal["none", "horizontal", "both", "rotations"] | None,
    typer.Option(
        "--flips", help="Average over mirror images and turns, which takes longer; else as the model was told."
    ),
]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the sample images and the run.")] = Path(
        "pixelwise-demo"
    ),
    time: Annotated[str, typer.Option(help="Time budget.")] = "110s",
) -> None:
    """Draw a small sample data set, train, evaluate and write the report: the whole path in about two minutes."""
    from pixelwise import api
    from pixelwise.data.demo import draw
    from pixelwise.training.watch import on_this_terminal

    draw(out / "data")
    typer.echo(f"drew a sample data set in {out / 'data'}", err=True)
    with on_this_terminal() as watcher:
        run = api.train(
            out / "data", api.next_free(out, "run"), time=time, watcher=watcher, command=_command(), began=STARTED
        )
    _finish(run)


@app.command()
def check(
    data: DataArgument,
    fix: Annotated[
        Path | None, typer.Option("--fix", metavar="OUT", help="Write a repaired copy into this new folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at every file once and list every problem, with its remedy; exit code 1 if training would be wrong."""
    import json

    from pixelwise import api
    from pixelwise.data import finding, repair
    from pixelwise.training.watch import on_this_terminal

    try:
        with on_this_terminal() as watcher:
            dataset, findings, repairs = api.fix(data, fix, watcher) if fix else (*api.check(data, watcher), [])
            left = _findings_of(fix, watcher) if fix else findings
    except DataError as error:
        if not as_json:
            raise
        typer.echo(json.dumps(finding.to_json(finding.of_error(error)), indent=2))
        raise typer.Exit(1) from None
    if as_json:
        found = finding.to_json(findings)
        copied = {"findings": found, "repairs": repair.to_json(repairs), "left": finding.to_json(left)}
        typer.echo(json.dumps(copied if fix else found, indent=2))
    else:
        width = _width()
        for line in api.describe(dataset):
            _say(line)
        typer.echo(finding.to_text(findings, width))
        if fix:
            done, rest = repair.to_text(repairs, dataset, fix, width), finding.to_text(left, width)
            typer.echo(f"\n{done}\n\nwhat is left in the copy:\n{rest}")
            if not finding.is_fatal(left):
                warned = any(one.severity == "warning" for one in left)
                first = "look at these warnings first; then " if warned else ""
                typer.echo(f"\n{first}it can be trained on: pixelwise train {shlex.quote(str(fix))}")
    if finding.is_fatal(left):
        raise typer.Exit(1)


def _findings_of(data: Path, watcher: "Watcher") -> "list[Finding]":
    """What is wrong with a folder, also where that keeps it from being understood."""
    from pixelwise import api
    from pixelwise.data import finding

    try:
        return api.check(data, watcher)[1]
    except DataError as error:
        return finding.of_error(error)


@app.command()
def preview(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write.")] = Path("preview.png"),
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Draw what the network will see: augmented patches with their masks."""
    from pixelwise import api
    from pixelwise.training.watch import on_this_terminal

    settings = api.settings(config, overrides or [])
    with on_this_terminal() as watcher:
        path = api.preview(data, out, settings, watcher=watcher)
    typer.echo(path)


@app.command()
def train(
    data: DataArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run; runs/NAME-1 if not given.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(callback=_tell_seconds, help="Budget for everything, report included: 90s, 15m, 1h30m."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs, instead of a time budget.")] = None,
    seed: Annotated[int | None, typer.Option(help="Split, weights and augmentation follow from it.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    start_from: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Fine-tune: start from the weights of a run.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Learn from this model, such as an ensemble, beside the masks.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Cross-validate: so many models, one report of all images, and an ensemble."),
    ] = None,
) -> None:
    """Check, split, plan, train, evaluate and report."""
    if resume and out is None:
        raise ConfigError("--resume does not know which run to go on with.", remedy="Name its folder with --out.")
    if folds is not None and (start_from is not None or teacher is not None):
        raise ConfigError("--folds goes neither with --from nor with --teacher.", remedy="Leave one of them out.")
    from pixelwise import api
    from pixelwise.training.watch import on_this_terminal

    settings = api.settings(config, overrides or [], time=time, epochs=epochs, seed=seed)
    if folds is not None:
        with on_this_terminal() as watcher:
            done = api.train_folds(
                data,
                folds,
                out,
                config=settings,
                resume=resume,
                watcher=watcher,
                command=_command(),
                began=STARTED,
            )
        if done.out_of_fold is None:
            place = shlex.quote(str(done.run.folder.parent))
            typer.echo(f"no ensemble yet: {done.run.folder.name} was interrupted")
            typer.echo(f"go on with: pixelwise train {shlex.quote(str(data))} --folds {folds} --out {place} --resume")
            raise typer.Exit(INTERRUPTED)
        typer.echo("every image by the model that has not seen it:")
        for line in api.score_lines(done.out_of_fold):
            _say(line)
        typer.echo(f"report: {done.run.folder / 'out-of-fold' / 'report.html'}")
        is_tested = done.run.scores.split == "test"
        typer.echo(f"the ensemble of {folds} on the test side:" if is_tested else "there is no test side")
        _finish(done.run)
        return
    with on_this_terminal() as watcher:
        run = api.train(
            data,
            out,
            config=settings,
            start_from=start_from,
            teacher=teacher,
            resume=resume,
            watcher=watcher,
            command=_command(),
            began=STARTED,
        )
    _finish(run)


@app.command()
def tune(
    data: DataArgument,
    time: Annotated[str, typer.Option(callback=_tell_seconds, help="Budget for everything: 1h, 8h.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the search, to begin or to go on with; else runs/NAME-tune-1."),
    ] = None,
    trial_time: Annotated[
        str | None, typer.Option("--trial-time", help="Of each trial; a tenth of --time if not given.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="So many at most, of all workers.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Split, weights, augmentation and suggestions follow from it.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    space: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What is searched (YAML), as space.yaml of another search.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Database that several workers share: postgresql://...")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name in that database; that of the data if not given.")] = None,
    search_only: Annotated[
        bool, typer.Option("--search-only", help="Only trials: another worker trains the winner.")
    ] = False,
) -> None:
    """Search for better settings than the plan's by short runs, then train with the best."""
    from pixelwise import api
    from pixelwise.training.watch import on_this_terminal

    settings = api.settings(config, overrides or [], seed=seed)
    out = out if out is not None else api.new_search_folder(data)
    try:
        with on_this_terminal() as watcher:
            done = api.tune(
                data,
                out,
                time=time,
                trial_time=trial_time,
                trials=trials,
                config=settings,
                space=space,
                storage=storage,
                study=study,
                search_only=search_only,
                watcher=watcher,
                command=_command(),
                began=STARTED,
            )
    except KeyboardInterrupt as end:
        end.add_note(f"go on with the same command, and --out {shlex.quote(str(out))}")
        raise
    found = done.tuned.found
    against = f"; the plan's settings {found.plan.miou or 0.0:.3f}" if found.plan is not None else ""
    against = "; these are the plan's own settings, which no other trial has beaten" if found.best.is_plan else against
    _say(f"best trial: {found.best.number}, validation mIoU {found.best.miou or 0.0:.3f}{against}")
    if done.tuned.verdict:
        _say(f"test split: {done.tuned.verdict}")
    typer.echo(f"search: {done.report}")
    if done.run is not None:
        _finish(done.run)


@app.command()
def evaluate(
    run: RunArgument,
    data: Annotated[Path | None, typer.Argument(help="Images and masks; those of the run if not given.")] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="Which side. If not given: test, or all images of other data without sides."),
    ] = None,
    tolerance_px: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Outlines that are not farther off count as right for surface Dice; else as the run."
        ),
    ] = None,
    flips: FlipsOption = None,
    device: DeviceOption = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for scores.json and report.html.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model on a split of its data, or on another folder."""
    import json

    from pixelwise import api
    from pixelwise.training.watch import on_this_terminal

    with on_this_terminal() as watcher:
        scores = api.evaluate(
            run,
            data,
            split=split,
            tolerance_px=tolerance_px,
            flips=flips,
            device=device,
            out=out,
            watcher=watcher,
            command=_command(),
        )
    if as_json:
        typer.echo(json.dumps(scores.summary(), indent=2))
        return
    for line in api.score_lines(scores):
        _say(line)
    if out is not None:
        typer.echo(f"report: {out / 'report.html'}")


@app.command()
def predict(
    run: RunArgument,
    inputs: Annotated[list[str], typer.Argument(help="Images, folders, glob patterns.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the masks.")],
    mask_format: Annotated[
        Literal["png", "tif", "cog"] | None,
        typer.Option("--format", help="Of the masks; png, and tif where an image has coordinates or is very large."),
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write the mask over the image.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write all class probabilities (.npy, K x H x W).")
    ] = False,
    polygons: Annotated[
        Literal["geojson", "labelme", "coco"] | None, typer.Option("--polygons", help="Also write outlines of objects.")
    ] = None,
    simplify: Annotated[
        float, typer.Option("--simplify", min=0.0, metavar="PX", help="How far outlines may be from the true ones.")
    ] = 0.0,
    flips: FlipsOption = None,
    memory: Annotated[
        str, typer.Option("--memory", help="What a process may take for an image of more than 256 MB of pixels.")
    ] = "2GB",
    device: DeviceOption = "auto",
) -> None:
    """Write a mask for every image, at the image's size."""
    from pixelwise import api
    from pixelwise.config import parse_bytes
    from pixelwise.training.watch import Watcher, on_this_terminal

    try:
        with on_this_terminal() if launcher.is_first() else Watcher() as watcher:
            result = api.predict_files(
                run,
                inputs,
                out,
                mask_format=mask_format,
                overlay=overlay,
                probabilities=probabilities,
                polygons=polygons,
                tolerance_px=simplify,
                flips=flips,
                memory_bytes=parse_bytes(memory),
                device=device,
                watcher=watcher,
            )
    except KeyboardInterrupt as end:
        end.add_note(_how_to_go_on(out))
        raise
    if not result.is_complete:
        return  # of several processes, the last one to end speaks for all
    if result.passed_over:
        _say(f"passed over as masks of other images: {_such(result.passed_over)}; name them to predict them", err=True)
    if result.without_extras:
        said = "of stacks, volumes and OME-Zarr there are masks only, of very large images no outlines"
        _say(f"not all that was asked for is written of {_such(result.without_extras)}: {said}", err=True)
    if result.written or not (result.unchanged or result.failed):
        _say(f"{_files(len(result.written))} written to {out}")
    if result.unchanged:
        are = "is" if len(result.unchanged) == 1 else "are"
        _say(f"{_files(len(result.unchanged))} {are} there already, from the same images by the same model")
    if result.edited:
        edited = _such(result.edited)
        _say(f"kept, since changed after they were predicted: {edited}; delete them to predict anew", err=True)
    if result.failed:
        raise DataError("\n- ".join([_how_many_failed(len(result.failed), result.images), *map(str, result.failed)]))


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _such(files: Sequence[Path]) -> str:
    """The one file, or how many there are, and the first."""
    return str(files[0]) if len(files) == 1 else f"{len(files)} files, such as {files[0]}"


def _how_many_failed(failed: int, images: int) -> str:
    if failed < images:
        return f"{failed} of {images} images could not be predicted, all others are:"
    return "The image could not be predicted:" if images == 1 else f"None of the {images} images could be predicted:"


def _how_to_go_on(out: Path) -> str:
    """What becomes of a prediction that was interrupted."""
    kept = "; until then hidden files there (.pixelwise-...) keep what is finished of an image"
    return f"the same command goes on with what is missing in {out}{kept if any(out.rglob('.pixelwise-*')) else ''}"


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or of evaluations.")], as_json: JsonOption = False
) -> None:
    """Lay runs side by side: scores and the settings that differ."""
    from pixelwise import api

    comparison = api.compare(runs)
    typer.echo(comparison.to_json() if as_json else comparison.to_text(shutil.get_terminal_size().columns))


@app.command()
def refine(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    flips: Annotated[
        bool, typer.Option("--flips", help="Also average over flips that training has shown: 2 to 8 times as slow.")
    ] = False,
) -> None:
    """Find out on validation images what helps after training (weights of classes, small objects), and keep that."""
    from pixelwise import api
    from pixelwise.training.watch import on_this_terminal

    with on_this_terminal() as watcher:
        done = api.refine(run, flips=flips, watcher=watcher)
    for step in done.steps:
        _say(step.describe())
    if done.caution:
        _say(f"note: {done.caution}")
    kept = sum(step.kept for step in done.steps)
    changes = f"{kept} change{'s' * (kept != 1)}" if kept else "nothing"
    _say(f"{changes} kept in {done.path}; `pixelwise evaluate {shlex.quote(str(run))}` scores it")


@app.command()
def quantise(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write (.xml; a .bin comes beside it); RUN/int8.xml if not given."),
    ] = None,
) -> None:
    """Put a model into eight bits, for prediction on a processor, and say what that gains and loses."""
    from pixelwise import api
    from pixelwise.evaluation.quantised import MOST_LOST
    from pixelwise.training.watch import on_this_terminal

    with on_this_terminal() as watcher:
        done = api.quantise(run, out, watcher=watcher)
    for name, side in (("as trained", done.before), ("in eight bits", done.after)):
        typer.echo(f"{name + ':':15} validation mIoU {side.scores.miou:.3f}, {side.seconds:.3f} s for an image")
    if done.after.seconds >= done.before.seconds:
        typer.echo("it is no faster here: keep the model as it was trained")
    if done.lost > MOST_LOST:
        typer.echo(f"warning: the mIoU falls by {done.lost:.3f}")
    _say(f"model: {done.path}; predict with it: pixelwise predict {shlex.quote(str(done.path))} IMAGES --out MASKS")


@app.command()
def models(
    encoders: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="List timm's encoders of such names instead, as '*resnet*'."),
    ] = None,
    speeds: Annotated[
        bool, typer.Option("--speeds/--no-speeds", help="Measure each for some seconds; large ones take a minute.")
    ] = True,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """List the named networks: parameters, arithmetic, and speed on this machine."""
    import json

    from pixelwise import api
    from pixelwise.bench import networks
    from pixelwise.models.encoders import timm_names
    from pixelwise.training.watch import on_this_terminal

    if encoders is not None:
        names = timm_names(encoders)
        typer.echo(json.dumps(names, indent=2) if as_json else "\n".join(names))
        return
    with on_this_terminal() as watcher:
        rows = api.networks(device, watcher, speeds=speeds)
    typer.echo(json.dumps(networks.to_json(rows), indent=2) if as_json else networks.to_text(rows))


@app.command()
def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(help="training, small networks, inference, large image, samples or start; repeatable."),
    ] = None,
    device: DeviceOption = "auto",
    rivals: Annotated[
        Path | None, typer.Option(help="Python that has MONAI, nnU-Net, albumentations: measured at the same work.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="That steps of a network are measured for, at least.")
    ] = sizes.STEPS_AT_LEAST,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Page to write (.md).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast this machine is, and how much of that Pixelwise uses."""
    import json

    from pixelwise import api
    from pixelwise.bench import page
    from pixelwise.files import write_atomically
    from pixelwise.training.watch import on_this_terminal

    with on_this_terminal() as watcher:
        measured = api.bench(device, only or (), rivals, watcher, seconds=seconds)
    text = page.to_markdown(*measured)
    typer.echo(json.dumps(page.to_json(*measured), indent=2) if as_json else text)
    if out is not None:
        write_atomically(out, text.encode())


def _finish(run: "Run") -> None:
    """Print what a run has led to; only one process of a distributed run does."""
    from pixelwise import api
    from pixelwise.facts import read_facts

    if run.is_main:
        for line in api.score_lines(run.scores):
            _say(line)
        typer.echo(f"model:  {run.folder / 'best.safetensors'}")
        typer.echo(f"report: {run.report}")
    if run.interrupted:
        if run.is_main:
            data = read_facts(run.folder / "run.json").data
            typer.echo(f"go on with: pixelwise train {shlex.quote(data)} --out {shlex.quote(str(run.folder))} --resume")
        raise typer.Exit(INTERRUPTED)


def _say(line: str, *, err: bool = False) -> None:
    """Print a line, on a terminal that is too narrow for it as several."""
    from pixelwise.training.watch import hanging

    is_terminal = (sys.stderr if err else sys.stdout).isatty()
    typer.echo(hanging(line, shutil.get_terminal_size().columns) if is_terminal else line, err=err)


def _width() -> int:
    """Of paragraphs, in characters: that of the terminal, unless lines would be hard to read."""
    return min(shutil.get_terminal_size().columns, LONGEST_LINE)


def _command() -> str:
    """What was typed."""
    return shlex.join(["pixelwise", *sys.argv[1:]])


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"pixelwise {version('pixelwise')}")
        raise typer.Exit
    return wanted  # what a callback returns is the option's value


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of all verbs."""


def main() -> None:
    """Run the command line; an error of the user's is one paragraph and an exit code, never a traceback."""
    try:
        launcher.share_cores()
        app(standalone_mode=True)
    except PixelwiseError as error:
        kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == PixelwiseError.__module__)
        said = f"{kind.removesuffix('Error').lower()} error: {error}"
        if not launcher.leave_to_torchrun(said):
            typer.echo(said, err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
