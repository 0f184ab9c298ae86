"""What is done with a model after training: eight bits, and what helps without training again."""

from dataclasses import dataclass, replace
from pathlib import Path

from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation import refine as refining
from pixelwise.evaluation.quantised import Quantised
from pixelwise.evaluation.quantised import quantise as quantise_run
from pixelwise.evaluation.refine import Step
from pixelwise.evaluation.scores import units_of
from pixelwise.files import write_json
from pixelwise.models import bundle as bundles
from pixelwise.training.watch import Watcher
from pixelwise.verbs.runs import Finished

SHOWN_IMAGES = 16
"""About so many training images show a network that is put into eight bits which values its maps have."""


@dataclass(frozen=True)
class Refined:
    """What was tried after training, and the bundle that holds what was kept."""

    path: Path
    steps: tuple[Step, ...]

    @property
    def caution(self) -> str:
        """Why what was kept may not hold for other images; empty where there is no reason."""
        return refining.caution(self.steps)


def quantise(run: Path | str, out: Path | str | None = None, *, watcher: Watcher | None = None) -> Quantised:
    """Write the best model of a run in eight bits, for prediction on a processor, and score both on validation images.

    Args:
        run: its folder.
        out: the `.xml` file to write, beside which a `.bin` file comes; none is `int8.xml` in the run's folder.
        watcher: told how far it is.

    Raises:
        BundleError: there is no model.
        ConfigError: NNCF or OpenVINO is not installed.
        DataError: the folder is not that of a run, its images cannot be read, or the file cannot be written.
    """
    watcher = watcher or Watcher()
    path = Path(out) if out is not None else Path(run) / "int8.xml"
    if path.suffix != ".xml":
        raise ConfigError(f"The file to write is called {path.name}.", remedy="OpenVINO reads names that end in .xml.")
    finished = Finished.open(run, "cpu")
    training, validation = finished.split.train, finished.split.validation
    if not validation:
        raise DataError(
            "This run has no validation images.", where=run, remedy="Put the run of one fold into eight bits."
        )
    shown = finished.cases(training[:: max(1, len(training) // SHOWN_IMAGES)], watcher)
    scored = finished.cases(validation, watcher)
    watcher.say(f"finding the range of maps on {len(shown)} training images")
    return quantise_run(Path(run), shown, scored, path)


def refine(run: Path | str, *, flips: bool = False, watcher: Watcher | None = None) -> Refined:
    """Find out on the validation images of a run what helps after training, and write that into its bundle.

    Weights of classes (for two classes, a threshold), the smallest objects, and flips if wanted: what clearly helps is
    kept. What an earlier call has found is forgotten.

    Args:
        run: its folder.
        flips: also try to average over flips that training has shown, which makes prediction two to eight times slower.
        watcher: told how far it is.

    Raises:
        BundleError: there is no model.
        DataError: the folder is not that of a run, its images cannot be read, or the bundle cannot be written.
    """
    watcher, finished = watcher or Watcher(), Finished.open(run)
    cases, best = finished.cases(finished.split.validation, watcher), finished.files.best
    if not cases:
        raise DataError(
            "This run has no validation images.",
            where=run,
            remedy="An ensemble trains on all of them: refine one fold.",
        )
    tried = refining.familiar_flips(finished.config.augment) if flips else None
    if tried == ():
        watcher.say("flips are not tried: training has shown none")
    units = units_of([case.case.name for case in cases], [case.case.group for case in cases])
    refined, steps = refining.refine(finished.model, cases, units, tried, watcher.say)
    bundle = bundles.load(best)
    kept = {"prediction": refined.description.prediction, "postprocessing": refined.description.postprocessing}
    bundles.save(replace(bundle, description=bundle.description.model_copy(update=kept)), best)
    write_json(finished.files.folder / "refine.json", [step.to_json() for step in steps])
    return Refined(best, tuple(steps))
