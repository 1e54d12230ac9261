"""From a recipe to a finished model under its contract: `steadface train`, `resume` and `demo`."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from steadface.arguments import AnyPath, as_path
from steadface.devices import resolve_device
from steadface.errors import Conflict, InvalidInput, SteadfaceError
from steadface.evaluation.embedding import Embedded
from steadface.files import write_atomically
from steadface.ranks import ALONE, Ranks
from steadface.recognizers import OpenedRecognizer, open_recognizer
from steadface.recognizers.calibration import calibrated
from steadface.recognizers.contract import Contract, read_contract, store_contract
from steadface.training.assembly.faces import Faces, open_recipe_faces
from steadface.training.constraint import Reached
from steadface.training.lock import locked
from steadface.training.loop import Observe, Outcome, TrainingRun
from steadface.training.networks import load_network
from steadface.training.recipe import Recipe, load_recipe
from steadface.training.recipe.recipe import recipe_path
from steadface.training.runfolder import comparable, difference, holds_run, read_run_recipe, write_asked

REACHED_FILE = "reached.json"
DEMO = ("demo_clean.yaml", "demo.yaml")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trained(Outcome):
    """How a run ended, with what was opened on the way, for whoever goes on with it.

    `faces` are the run's. A finished model that was calibrated just now also comes as `model`, with its unit embeddings
    of the people held out; `contract` is None where they are too few for one. `reached` is the clean level of a
    finished model whose recipe asked for one.
    """

    recipe: Recipe
    faces: Faces
    contract: Contract | None = None
    model: OpenedRecognizer | None = None
    embedded: Embedded | None = None
    reached: Reached | None = None


def train(
    recipe: Recipe, *, faces: Faces | None = None, observe: Observe | None = None, ranks: Ranks = ALONE
) -> Trained:
    """Trains a recipe in its `run.out`, on the faces it names unless they are open already.

    A finished model carries its contract, with thresholds from the people held out, if they are enough for any. Where
    several `ranks` train together the first one has it, and writes it. Raises SteadfaceError where the folder already
    holds a run, see `resume`, or another process works there.
    """
    with worked_in_by(recipe.run.out, ranks):
        return _stored(run_to_end(TrainingRun.start(recipe, faces, ranks), observe))


def resume(
    folder: AnyPath, *, faces: Faces | None = None, observe: Observe | None = None, ranks: Ranks = ALONE
) -> Trained:
    """Goes on with the run in `folder` from its newest checkpoint, to the same end as if it had never stopped.

    A finished run is left as it is. Any number of `ranks` goes on with what another number has begun. Raises
    SteadfaceError where recipe or faces have changed since, or where another process works there.
    """
    folder = as_path(folder, "the run")
    read_run_recipe(folder)  # of what is no run nothing is made
    with worked_in_by(folder, ranks):
        return _stored(run_to_end(TrainingRun.resume(folder, faces, ranks), observe))


@contextmanager
def worked_in_by(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Nobody but these ranks works in `folder` within."""
    with ExitStack() as held:
        ranks.from_first(lambda: held.enter_context(locked(folder)))
        yield


def train_or_resume(recipe: Recipe, *, faces: Faces | None = None, observe: Observe | None = None) -> Trained:
    """Trains `recipe`, or goes on with a run of the same recipe that its `run.out` holds already.

    Raises as `start_or_resume`.
    """
    with locked(recipe.run.out):
        return _stored(run_to_end(start_or_resume(recipe, faces), observe))


def start_or_resume(recipe: Recipe, faces: Faces | None = None, ranks: Ranks = ALONE) -> TrainingRun:
    """A run of `recipe`: a new one, or that which its `run.out` holds.

    Which of its candidates a run chooses (`run.select.max_clean_drop` and `choose`) may be asked for anew: of a
    finished run that takes no training. One that chooses may be asked to take longer, and goes on, finished or not.
    Raises Conflict, showing the difference, where the folder holds a run of another recipe.
    """
    folder = recipe.run.out
    if not ranks.from_first(lambda: holds_run(folder)):
        return TrainingRun.start(recipe, faces, ranks)
    changed = difference(comparable(read_run_recipe(folder)), comparable(recipe))
    if changed:
        raise Conflict(
            f"{folder} holds a run of another recipe ({'; '.join(changed)}): remove that folder or choose another"
        )
    ranks.from_first(lambda: write_asked(folder, recipe.run))
    return TrainingRun.resume(folder, faces, ranks)


def run_to_end(run: TrainingRun, observe: Observe | None) -> Trained:
    """Trains; then calibrates a finished model on the people held out, where that has not been done.

    A contract made here is not stored yet, see `store`.
    """
    made_before = run.concluded
    outcome = run.train(observe)
    trained = Trained(**vars(outcome), recipe=run.recipe, faces=run.faces)
    if not outcome.finished or not run.ranks.first:
        return trained
    trained = replace(trained, reached=_reached(trained))
    contract = read_contract(outcome.folder) if made_before else None
    return _calibrated(trained) if contract is None else replace(trained, contract=contract)


def _reached(trained: Trained) -> Reached | None:
    """What the model has come to beside the level asked for, where one was; also written into the run's folder."""
    if trained.faces.validation is None or trained.recipe.method.gate.clean is None:
        return None
    device = resolve_device(trained.recipe.run.device)
    found = Reached.by(
        load_network(trained.folder, trained.recipe.model.code).to(device), trained.recipe, trained.faces.validation
    )
    told = {**found.to_json(), "duty_cycle": trained.duty_cycle}
    write_atomically(trained.folder / REACHED_FILE, json.dumps(told, indent=1).encode())
    return found


def _calibrated(trained: Trained) -> Trained:
    held_out, run = trained.faces.validation, trained.recipe.run
    if held_out is None:
        return trained
    try:
        code = trained.recipe.model.code
        opened = open_recognizer(trained.folder if code is None else f"{code}@{trained.folder}")
        made = calibrated(opened, held_out, seed=run.seed, device=resolve_device(run.device))
    except SteadfaceError as error:
        logger.warning("the model has no thresholds: %s", error)
        return trained
    notes = () if made.told_apart.enough else (f"the people held out are hardly told apart: {made.told_apart}",)
    for note in notes:
        logger.warning("%s", note)
    return replace(trained, contract=replace(made.contract, notes=notes), model=opened, embedded=made.embedded)


def _stored(trained: Trained) -> Trained:
    if trained.model is not None and trained.contract is not None:
        store(trained, trained.contract)
    return trained


def store(trained: Trained, contract: Contract) -> None:
    """Writes the contract into the run's model."""
    store_contract(trained.folder, contract)


def demo_recipes(out: Path, overrides: list[str] | None = None) -> tuple[list[Recipe], Faces]:
    """The recipes of the demonstration, clean and gated, to run below `out`, and the faces that both are trained on.

    Raises InvalidInput where nobody is held out to judge them by.
    """
    recipes = [load_recipe(recipe_path(Path(name)), overrides) for name in DEMO]
    faces = open_recipe_faces(recipes[0])
    if faces.validation is None:
        raise InvalidInput("the demonstration is judged on people held out: set data.validation above 0")
    placed = [
        recipe.model_copy(update={"run": recipe.run.model_copy(update={"out": out / recipe.name})})
        for recipe in recipes
    ]
    return placed, faces
