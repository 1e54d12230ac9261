"""Figures as a page that explains them: `report.html` and `report.json`."""

import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from steadface.arguments import AnyPath, as_path
from steadface.errors import InvalidInput
from steadface.evaluation.evaluate import Evaluation
from steadface.report.arm import Arm
from steadface.report.fonts import load_matplotlib
from steadface.report.history import read_history
from steadface.training.log import METRICS_FILE
from steadface.training.networks import read_facts
from steadface.training.runfolder import RECIPE_FILE, model_file, read_run_recipe
from steadface.training.selection.candidates import read_candidates


def run_arm(folder: AnyPath, evaluation: Evaluation | None = None) -> Arm:
    """A run folder and the evaluation of its model, if it has one, as an arm of a report."""
    folder = as_path(folder, "the run")
    recipe = read_run_recipe(folder)
    history = read_history(folder / METRICS_FILE)
    state = read_facts(folder)
    try:
        seconds, duty_cycle = float(state["seconds"]), float(state["duty_cycle"])
        steps = int(state["steps"] if "steps" in state else state["step"])  # a finished model, or a checkpoint
        skipped = int(state.get("skipped", 0))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(
            f"the model of {folder} does not say how it was trained (seconds, steps, duty_cycle): it is not the one "
            "that its run wrote; put that back"
        ) from error
    return Arm(
        name=recipe.name,
        recipe=recipe.model_dump(mode="json"),
        evaluation={} if evaluation is None else evaluation.to_json(),
        history=history,
        candidates=read_candidates(folder),
        seconds=seconds,
        steps=steps,
        duty_cycle=duty_cycle,
        skipped=skipped,
        examples=() if evaluation is None else evaluation.examples,
    )


def model_arm(model: Path, evaluation: Evaluation) -> Arm:
    """Any model and its evaluation as an arm; a run folder brings its history."""
    if (model / RECIPE_FILE).is_file() and model_file(model) is not None:
        return run_arm(model, evaluation)
    return Arm(name=model.stem, recipe={}, evaluation=evaluation.to_json(), examples=evaluation.examples)


def write_report(
    arms: Sequence[Arm], folder: AnyPath, *, title: str, seed: int, command: str, notes: Sequence[str] = ()
) -> Path:
    """Writes `report.html` and `report.json` into `folder`; returns the path of the page."""
    folder = as_path(folder, "the folder of the report")
    page = folder / "report.html"
    load_matplotlib()
    from steadface.report import page as pages  # loads matplotlib

    pages.write_report(
        page,
        folder / "report.json",
        title=title,
        arms=arms,
        versions=versions(),
        seed=seed,
        command=command,
        notes=notes,
    )
    return page


def versions() -> dict[str, str]:
    """What a figure depends on besides the recipe."""
    return {
        "steadface": version("steadface"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "hardware": _hardware(),
    }


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def command_line() -> str:
    """The command of this process, to be repeated."""
    called = Path(sys.argv[0])
    name = "steadface" if called.name in ("steadface", "__main__.py") else str(called)
    return shlex.join([name, *sys.argv[1:]])
