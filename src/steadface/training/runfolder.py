"""A run folder: the recipe it was started with, and what must not have changed when it is gone on with."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import yaml

from steadface.errors import Conflict, InvalidInput, NotFound
from steadface.files import write_atomically
from steadface.training import checkpoint
from steadface.training.assembly.faces import Faces
from steadface.training.recipe import Recipe, make_recipe
from steadface.training.recipe.reading import UnfitYaml, read_yaml
from steadface.training.recipe.recipe import with_present_names
from steadface.training.recipe.sections import Selection
from steadface.training.selection.candidates import Candidates

RECIPE_FILE = "recipe.yaml"
MODEL_FILE = "model.safetensors"


def holds_run(folder: Path) -> bool:
    """Whether there is something to lose in `folder`: a checkpoint or a finished model."""
    return bool(checkpoint.paths(folder)) or (folder / MODEL_FILE).exists()


def make_run_folder(folder: Path) -> None:
    """Creates `folder` and tries to write in it; raises InvalidInput where that fails."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise InvalidInput(f"run.out {folder} cannot be written: {error.strerror}; choose another folder") from error


def write_run_recipe(recipe: Recipe, folder: Path) -> None:
    """Every key of the recipe, defaults included, so that later defaults change nothing."""
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(folder / RECIPE_FILE, text.encode())


def write_choice(folder: Path, select: Selection) -> None:
    """Lets the run in `folder`, finished or not, choose among its candidates as `select` says.

    Raises NotFound, and leaves the run as it was, for a name that none of its candidates has.
    """
    recipe = read_run_recipe(folder)
    then = recipe.run.select
    if then is None or then.choice == select.choice:
        return
    if select.choose is not None:
        Candidates(folder, select, until=sys.maxsize).named(select.choose)
    run = recipe.run.model_copy(update={"select": then.model_copy(update=select.choice)})
    write_run_recipe(recipe.model_copy(update={"run": run}), folder)


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
    """What must not change between start and resume: all but where run and faces lie, and which candidate is chosen.

    The faces may move since their listing, people included, is compared, see `described`.
    """
    return _without_places(recipe.model_dump(mode="json"))


def _without_places(values: dict[str, Any]) -> dict[str, Any]:
    values["run"].pop("out", None)
    if values["run"].get("select") is not None:
        values["run"]["select"] = {
            key: value for key, value in values["run"]["select"].items() if key not in Selection().choice
        }
    for place in ("images", "people", "extra"):
        values["data"].pop(place, None)
    return values


def described(faces: Faces, recipe: Recipe) -> dict[str, Any]:
    """What a run depends on besides its recipe: the faces, and the map of targets if there is one."""
    sources = [faces.training, *([] if faces.validation is None else [faces.validation])]
    targets = recipe.method.targets.map
    return {
        "images": sum(len(source) for source in sources),
        "people": sum(len(source.people) for source in sources),
        "fingerprint": faces.fingerprint(),
        "target_map": None if targets is None else _digest(targets),
    }


def refuse_changed_recipe(folder: Path, saved: dict[str, Any], recipe: Recipe) -> None:
    """Raises Conflict, showing the difference, unless `recipe` is that of the checkpoint state `saved`."""
    # Every key was written down, so that one the file does not set is younger than the run, and changes nothing.
    now = _without_places(recipe.model_dump(mode="json", exclude_unset=True))
    changed = checkpoint.difference(with_present_names(saved["recipe"]), now)
    if changed:
        raise Conflict(
            f"{folder / RECIPE_FILE} has changed since step {saved['step']}: {'; '.join(changed)}. "
            "Put it back, or start a new run"
        )


def refuse_changed_data(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises Conflict, showing the difference, unless the faces are those of the checkpoint state `saved`."""
    then, step = saved["data"], saved["step"]
    if then["target_map"] != now["target_map"]:
        raise Conflict(f"method.targets.map has changed since step {step}: put it back, or start a new run")
    if then["fingerprint"] == now["fingerprint"]:
        return
    counts = f"{then['images']} images of {then['people']} people then, {now['images']} of {now['people']} now"
    if (then["images"], then["people"]) == (now["images"], now["people"]):
        counts += ", but other names, sizes or contents"
    raise Conflict(f"the faces have changed since step {step}: {counts}. Bring the old ones back, or start a new run")


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise NotFound(f"method.targets.map {path} cannot be read: {error.strerror}") from error
