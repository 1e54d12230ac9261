"""``steadface train``, ``resume`` and ``demo``."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from steadface import api
from steadface.cli.console import (
    arms_table,
    candidates_table,
    console,
    say_outcome,
    say_warning,
    stage_bar,
    training_bar,
)
from steadface.data.faces import FaceSource
from steadface.errors import SteadfaceError
from steadface.evaluation.labelled import pairs_from_labels
from steadface.recipes import recipe_path
from steadface.training.assembly.faces import open_recipe_faces
from steadface.training.loop import Outcome
from steadface.training.recipe import Recipe, load_recipe
from steadface.training.runfolder import read_run_recipe
from steadface.training.selection.rules import NothingGained

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, e.g. `--set run.minutes=10`."),
]


def train_recipe(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, e.g. recipes/gated.yaml; the ones that ship by name.")],
    overrides: Set = None,
) -> None:
    """Train the recognisers of a **recipe**, then judge it on the people held out and write its report.

    Ctrl-C saves and says how to go on. `steadface train recipes/gated.yaml --set data.images=DIR --set run.out=RUN`
    """
    loaded = load_recipe(recipe_path(recipe), overrides)
    with candidates_shown(loaded.run.out), training_bar(loaded.name) as observe:
        outcome = api.train(loaded, observe=observe)
    finish(outcome)


def resume_run(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Go on with a **run** that was stopped or killed, from its newest checkpoint."""
    with candidates_shown(run), training_bar(read_run_recipe(run).name) as observe:
        outcome = api.resume(run, observe=observe)
    finish(outcome)


def demo(
    out: Annotated[Path, typer.Option(help="Where the runs and the report go.")] = Path("demo"),
    overrides: Set = None,
) -> None:
    """Train on built-in **synthetic faces**, clean beside gated, and compare both under attack.

    Takes about six minutes on two cores; a demonstration that was stopped goes on where it was. No claim about real
    faces rests on it.
    """
    recipes = [_demo_recipe(name, out, overrides) for name in ("demo_clean.yaml", "demo.yaml")]
    faces = open_recipe_faces(recipes[0])
    pairs = pairs_from_labels(_held_out(faces.validation), seed=recipes[0].run.seed)
    for recipe in recipes:
        with training_bar(recipe.name) as observe:
            outcome = api.train_or_resume(recipe, faces=faces, observe=observe)
        say_outcome(outcome, command=shlex.join(["steadface", "demo", "--out", str(out), *_sets(overrides)]))
        if not outcome.finished:
            raise typer.Exit(130)
    arms = []
    for recipe in recipes:
        with stage_bar() as progress:
            arms.append(api.judge(recipe.run.out, pairs, progress=progress).arm)
    page = api.report(
        arms,
        out,
        title="Steadface demonstration on synthetic faces",
        seed=recipes[0].run.seed,
        command=api.command_line(),
        notes=["These faces are drawn by a program. They show how the method runs; no claim about real faces follows."],
    )
    console.print(arms_table(arms))
    _say_where("report", page)


def _demo_recipe(name: str, out: Path, overrides: list[str] | None) -> Recipe:
    recipe = load_recipe(recipe_path(Path(name)), overrides)
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"out": out / recipe.name})})


def _held_out(faces: FaceSource | None) -> FaceSource:
    if faces is None:
        raise SteadfaceError("the demonstration is judged on people held out: set data.validation above 0")
    return faces


def _sets(overrides: list[str] | None) -> list[str]:
    return [word for override in overrides or [] for word in ("--set", override)]


@contextmanager
def candidates_shown(folder: Path) -> Iterator[None]:
    """Where the run in ``folder`` ends without a model, its page still shows what there was to choose from."""
    try:
        yield
    except NothingGained:
        arm = api.run_arm(folder)
        console.print(candidates_table(arm))
        page = api.report(
            [arm],
            folder,
            title=f"{arm.name}: nothing gained",
            seed=read_run_recipe(folder).run.seed,
            command=api.command_line(),
            notes=["No candidate became the model."],
        )
        _say_where("report", page)
        raise


def finish(outcome: Outcome) -> None:
    """Says how a run ended; a finished one is judged and reported."""
    say_model(outcome)
    report_run(outcome)


def say_model(outcome: Outcome, *, command: str | None = None) -> None:
    """Says how a run ended, and the ``command`` to go on with; ends with 130 where it was stopped."""
    say_outcome(outcome, command=command)
    if not outcome.finished:
        raise typer.Exit(130)
    arm = api.run_arm(outcome.folder)
    if arm.candidates is not None:
        console.print(candidates_table(arm))
    _say_where("model", outcome.folder)


def report_run(outcome: Outcome) -> None:
    """Judges a finished run on the people held out, and writes its page."""
    recipe = read_run_recipe(outcome.folder)
    if recipe.data.validation == 0:
        return
    try:
        with stage_bar() as progress:
            judged = api.judge(outcome.folder, progress=progress)
    except SteadfaceError as error:
        # The model is trained and saved; too few held-out people to judge it by is no reason to call that a failure.
        say_warning(f"not judged on the held-out people: {error}")
        return
    page = api.report(
        [judged.arm],
        outcome.folder,
        title=f"{recipe.name}: training run",
        seed=recipe.run.seed,
        command=api.command_line(),
        notes=["Judged on people held out from the training set."],
    )
    console.print(arms_table([judged.arm]))
    _say_where("report", page)


def _say_where(what: str, path: Path) -> None:
    console.print(f"{what}: [bold]{escape(str(path))}[/bold]", soft_wrap=True)
