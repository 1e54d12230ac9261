"""A run folder: the recipe it was started with, and what must not have changed when it is gone on with."""

import copy
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from steadface.errors import Conflict, InvalidInput, NotFound, unreadable
from steadface.files import sha256_of, write_atomically
from steadface.training import checkpoint
from steadface.training.assembly.faces import Faces
from steadface.training.networks import kept_file
from steadface.training.recipe import Recipe, make_recipe
from steadface.training.recipe.reading import UnfitYaml, read_yaml
from steadface.training.recipe.recipe import with_present_names
from steadface.training.recipe.sections import LENGTHS, Run, Selection
from steadface.training.selection.candidates import Candidates
from steadface.training.state import Seen, State

RECIPE_FILE = "recipe.yaml"
MODEL = "model"
"""The name of its file, which ends as the kind of network has it."""

logger = logging.getLogger(__name__)


def holds_run(folder: Path) -> bool:
    """Whether there is something to lose in `folder`: a checkpoint or a finished model."""
    return bool(checkpoint.paths(folder)) or model_file(folder) is not None


def model_file(folder: Path) -> Path | None:
    """The model of a finished run."""
    return kept_file(folder, MODEL)


def make_run_folder(folder: Path) -> None:
    """Creates `folder` and tries to write in it; raises InvalidInput where that fails."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise InvalidInput(f"run.out {folder} cannot be written: {error.strerror}; choose another folder") from error


def write_run_recipe(recipe: Recipe, folder: Path, *, begun: bool = False) -> None:
    """Every key of the recipe, defaults included, so that later defaults change nothing; of a run that has `begun`
    those that it had, so that keys which are younger than it stay unsaid.
    """
    text = yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=begun), sort_keys=False, allow_unicode=True)
    write_atomically(folder / RECIPE_FILE, text.encode())


def write_asked(folder: Path, now: Run) -> None:
    """Lets the run in `folder`, finished or not, take as long and choose among its candidates as `now` says.

    Raises, and leaves the run as it was, NotFound for a name that none of its candidates has, and Conflict where it
    ended early and more time changes nothing.
    """
    recipe = read_run_recipe(folder)
    then, select = recipe.run, now.select
    if then.select is None or select is None or (then.select.choice, then.length) == (select.choice, now.length):
        return
    if select.choose is not None and select.choose != then.select.choose:
        Candidates(folder, select, until=sys.maxsize).named(select.choose)
    if then.length != now.length and Candidates(folder, then.select, until=sys.maxsize).exhausted:
        raise Conflict(
            f"{folder} ended early, since {then.select.patience} looks brought nothing better, and would not go on for "
            "longer: start a new run with a higher run.select.patience"
        )
    run = then.model_copy(update={**now.length, "select": then.select.model_copy(update=select.choice)})
    write_run_recipe(recipe.model_copy(update={"run": run}), folder, begun=True)


def read_run_recipe(folder: Path) -> Recipe:
    """The resolved recipe that a run was started with. Raises NotFound where `folder` is not a run folder."""
    path = folder / RECIPE_FILE
    try:
        values = read_yaml(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{folder} is not a run folder: {path.name} cannot be read ({error.strerror})") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}; put it back, or start a new run") from error
    except UnfitYaml as error:
        raise InvalidInput(f"{path} is not YAML any more: {error}; put it back, or start a new run") from error
    recipe = make_recipe(values, source=str(path))
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"out": folder})})


def comparable(recipe: Recipe) -> dict[str, Any]:
    """What must not change between start and resume: all but where run and faces lie, how many processes read
    them and how far ahead, what becomes of batches that are not finite, and which candidate is chosen; see `difference`
    for how long it takes.

    The faces may move since their listing, people included, is compared, see `seen`.
    """
    return _without_places(recipe.model_dump(mode="json"))


def difference(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What has changed between two recipes, as `comparable` has them, a line each.

    That a run which chooses among candidates is to take longer is no change: it chooses again at its new end.
    """
    before, after = then["run"], now["run"]
    chooses = before.get("select") is not None and after.get("select") is not None
    if chooses and any(0 < (before.get(unit) or 0) < (after.get(unit) or 0) for unit in LENGTHS):
        now = {**now, "run": {**after, **{unit: before.get(unit) for unit in LENGTHS}}}
    return checkpoint.difference(then, now)


def _without_places(values: dict[str, Any]) -> dict[str, Any]:
    values = copy.deepcopy(values)
    for place in ("out", "nonfinite"):
        values["run"].pop(place, None)
    if values["run"].get("select") is not None:
        values["run"]["select"] = {
            key: value for key, value in values["run"]["select"].items() if key not in Selection().choice
        }
    for place in ("images", "people", "extra", "workers", "prefetch"):
        values["data"].pop(place, None)
    return values


def seen(faces: Faces, recipe: Recipe, weights: Iterable[Path | None]) -> Seen:
    """What a run depends on besides its recipe; `weights` are its own copies of what it began with."""
    sources = [faces.training, *([] if faces.validation is None else [faces.validation])]
    targets = recipe.method.targets.map
    return Seen(
        images=sum(len(source) for source in sources),
        people=sum(len(source.people) for source in sources),
        fingerprint=faces.fingerprint(),
        target_map=None if targets is None else _digest(targets, "method.targets.map"),
        contents=faces.contents(every=recipe.data.contents == "all", seed=recipe.run.seed),
        weights={path.name: _digest(path, "the run's own copy") for path in weights if path is not None},
    )


def refuse_changed_recipe(folder: Path, saved: State, recipe: Recipe) -> None:
    """Raises Conflict, showing the difference, unless `recipe` is that of the checkpoint state `saved`."""
    # Every key was written down, so that one the file does not set is younger than the run, and changes nothing.
    now = _without_places(recipe.model_dump(mode="json", exclude_unset=True))
    try:
        then = _without_places(with_present_names(saved.recipe))
        changed = difference(then, now)
    except (KeyError, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"the checkpoint of step {saved.step} in {folder} was edited: its recipe lacks whole sections; put it "
            "back, or remove it to go on from the one before"
        ) from error
    if changed:
        raise Conflict(
            f"{folder / RECIPE_FILE} has changed since step {saved.step}: {'; '.join(changed)}. "
            "Put it back, or start a new run"
        )


def refuse_changed_data(saved: State, now: Seen) -> None:
    """Raises Conflict, showing the difference, unless faces, map and weights are those of the checkpoint `saved`.

    What a run of an earlier version did not take down is not compared, and that is said.
    """
    then, step = saved.data, saved.step
    if then.target_map != now.target_map:
        raise Conflict(f"method.targets.map has changed since step {step}: put it back, or start a new run")
    for name, digest in then.weights.items():
        if now.weights.get(name) != digest:
            raise Conflict(f"{name} of the run has changed since step {step}: put it back, or start a new run")
    if then.fingerprint == now.fingerprint and then.contents in (now.contents, None):
        if then.contents is None:
            logger.warning("the run was begun by an earlier version: of its faces names and sizes alone are compared")
        return
    counts = f"{then.images} images of {then.people} people then, {now.images} of {now.people} now"
    if (then.images, then.people) == (now.images, now.people):
        counts += ", but other names, sizes or contents"
    raise Conflict(f"the faces have changed since step {step}: {counts}. Bring the old ones back, or start a new run")


def _digest(path: Path, what: str) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise unreadable(error, f"{what} {path} cannot be read: {error.strerror}") from error
