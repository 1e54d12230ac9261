"""`steadface train`, `resume` and `demo`."""

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steadface.cli.console import (
    arms_table,
    candidates_table,
    console,
    line,
    say_error,
    say_outcome,
    say_warning,
    say_where,
    stage_bar,
    training_bar,
    under_attack,
)
from steadface.cli.options import parsed_share
from steadface.errors import InvalidInput, SteadfaceError
from steadface.evaluation.labelled import pairs_from_labels
from steadface.ranks import Ranks, joined
from steadface.signals import INTERRUPTED
from steadface.training.constraint import LevelMissed, Reached
from steadface.training.loop import Observe
from steadface.training.recipe import load_recipe
from steadface.training.recipe.recipe import recipe_path
from steadface.training.runfolder import holds_run, read_run_recipe
from steadface.training.selection.candidates import read_candidates
from steadface.training.selection.rules import NothingGained
from steadface.workflows.evaluate import judge
from steadface.workflows.report import command_line, run_arm, write_report
from steadface.workflows.train import Trained, demo_recipes, resume, train, train_or_resume

if TYPE_CHECKING:
    from steadface.report.arm import Arm

OPEN = 0.01
"""The share of steps below which a gate has hardly been open."""
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, e.g. `--set run.minutes=10`."),
]


def train_recipe(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, e.g. recipes/gated.yaml; the ones that ship by name.")],
    target_clean: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="The clean level (1 - EER, people held out) to keep to, e.g. 97%."),
    ] = None,
    overrides: Set = None,
) -> None:
    """Train the recognisers of a **recipe**, then judge it on the people held out and write its report.

    With `--target-clean` the gate lets as much adversarial training happen as that clean level allows; where the level
    is not reached the command ends with 3, and the model stays. Ctrl-C saves and says how to go on.
    `torchrun --nproc-per-node 4 -m steadface train RECIPE` trains one model with four processes.
    `steadface train recipes/gated.yaml --set data.images=DIR --set run.out=RUN`
    """
    loaded = load_recipe(recipe_path(recipe), [*asked_for(target_clean), *(overrides or [])])
    with resumable(loaded.run.out):
        with together(loaded.name) as (ranks, observe), candidates_shown(loaded.run.out, ranks):
            trained = train(loaded, observe=observe, ranks=ranks)
        finish(trained, ranks)


def asked_for(target_clean: str | None) -> list[str]:
    """What a clean level that is asked for sets in a recipe. Raises InvalidInput for what is none."""
    if target_clean is None:
        return []
    level = parsed_share(target_clean, "--target-clean")
    if level <= 0.5:
        raise InvalidInput(f"--target-clean {target_clean} is what guessing comes to; ask for more than 50%")
    return [f"method.gate.clean.level={level}"]


def resume_run(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Go on with a **run** that was stopped or killed, from its newest checkpoint."""
    name = read_run_recipe(run).name
    with resumable(run):
        with together(name) as (ranks, observe), candidates_shown(run, ranks):
            trained = resume(run, observe=observe, ranks=ranks)
        finish(trained, ranks)


@contextmanager
def said_once(ranks: Ranks) -> Iterator[None]:
    """What all processes have met the first one says, before any ends: torchrun then ends those that are left."""
    try:
        yield
    except SteadfaceError as error:
        if ranks.alone or not error.common:
            raise
        if ranks.first:
            say_error(str(error))
        ranks.wait()
        raise typer.Exit(error.exit_code) from None


@contextmanager
def together(name: str) -> Iterator[tuple[Ranks, Observe | None]]:
    """The processes that torchrun has started for this command, and the bar of the first one, which alone speaks."""
    with joined() as ranks, said_once(ranks):
        if ranks.first:
            with training_bar(name) as observe:
                yield ranks, observe
        else:
            logging.getLogger("steadface").setLevel(logging.ERROR)
            yield ranks, None


def demo(
    out: Annotated[Path, typer.Option(help="Where the runs and the report go.")] = Path("demo"),
    overrides: Set = None,
) -> None:
    """Train on built-in **synthetic faces**, clean beside gated, and compare both under attack.

    Takes about six minutes on two cores; a demonstration that was stopped goes on where it was. No claim about real
    faces rests on it.
    """
    with resumable(None):
        _demonstrate(out, overrides)


def _demonstrate(out: Path, overrides: list[str] | None) -> None:
    recipes, faces = demo_recipes(out, overrides)
    assert faces.validation is not None
    pairs = pairs_from_labels(faces.validation, seed=recipes[0].run.seed)
    done = []
    for recipe in recipes:
        with training_bar(recipe.name) as observe:
            done.append(train_or_resume(recipe, faces=faces, observe=observe))
        say_outcome(done[-1], command=shlex.join(["steadface", "demo", "--out", str(out), *_sets(overrides)]))
        if not done[-1].finished:
            raise typer.Exit(130)
    arms = []
    for trained in done:
        with stage_bar() as progress:
            arms.append(judge(trained, pairs, progress=progress).arm)
    page = write_report(
        arms,
        out,
        title="Steadface demonstration on synthetic faces",
        seed=recipes[0].run.seed,
        command=command_line(),
        notes=["These faces are drawn by a program. They show how the method runs; no claim about real faces follows."],
    )
    console.print(arms_table(arms))
    say_where("report", page)


def _sets(overrides: list[str] | None) -> list[str]:
    return [word for override in overrides or [] for word in ("--set", override)]


@contextmanager
def resumable(folder: Path | None) -> Iterator[None]:
    """A Ctrl-C that ends the work at once says what to go on with: `steadface resume` where `folder` holds a run by
    then, else the command that was given."""
    try:
        yield
    except KeyboardInterrupt:
        begun = folder is not None and holds_run(folder)
        command = shlex.join(["steadface", "resume", str(folder)]) if begun else command_line()
        raise KeyboardInterrupt(f"interrupted; what was saved is kept, go on with: {command}") from None


@contextmanager
def candidates_shown(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Where the run in `folder` ends without a model, its page still shows what there was to choose from."""
    try:
        yield
    except NothingGained:
        if not ranks.first:
            raise
        arm = run_arm(folder)
        say_candidates(folder)
        page = write_report(
            [arm],
            folder,
            title=f"{arm.name}: nothing gained",
            seed=read_run_recipe(folder).run.seed,
            command=command_line(),
            notes=["No candidate became the model."],
        )
        say_where("report", page)
        raise


def say_candidates(folder: Path) -> None:
    """The table of what the run in `folder` had to choose from, where it chose."""
    if (candidates := read_candidates(folder)) is None:
        return
    if (select := read_run_recipe(folder).run.select) is not None:
        console.print(candidates_table(candidates, select.max_clean_drop))


def finish(trained: Trained, ranks: Ranks) -> None:
    """Says how a run ended; a finished one is judged and reported."""
    if ranks.first:
        say_model(trained)
        report_run(trained)
    elif not trained.finished:
        raise typer.Exit(INTERRUPTED)


def say_model(trained: Trained, *, command: str | None = None) -> None:
    """Says how a run ended, and the `command` to go on with; ends with 130 where it was stopped."""
    say_outcome(trained, command=command)
    if not trained.finished:
        raise typer.Exit(130)
    say_candidates(trained.folder)
    say_where("model", trained.folder)


def report_run(trained: Trained) -> None:
    """Judges a finished run on the people held out, and writes its page.

    Raises LevelMissed at the end where a clean level was asked for and is shown not to have been reached.
    """
    if trained.recipe.data.validation == 0:
        return
    arm, reached = _judged(trained), trained.reached
    said = None if reached is None else reached_in_words(reached, trained.duty_cycle, arm)
    if arm is not None:
        _write_page(trained, arm, [] if said is None else [f"{said[:1].upper()}{said[1:]}."])
    if reached is not None and said is not None:
        if reached.missed:
            raise LevelMissed(said)
        console.print(line(said), soft_wrap=True)


def reached_in_words(reached: Reached, duty: float, arm: "Arm | None") -> str:
    """Which clean level a run has come to beside the one that it was asked for, and with what robustness."""
    asked, clean = f"{100 * reached.asked:.4g} %", f"{100 * reached.clean:.1f} %"
    seen = f"{clean} (95 % interval {100 * reached.low:.1f} to {100 * reached.high:.1f} %)"
    words = [f"asked for {asked} clean (1 - EER, people held out), reached {seen}; gate open {duty:.0%} of the steps"]
    if arm is not None:
        words.extend(under_attack(arm))
    if reached.missed:
        words.append(
            "the level is out of reach of this run: "
            + ("clean training alone has not come so far" if duty < OPEN else "adversarial training took too much")
            + "; train for longer, on more faces or with a larger network, or ask for less. The model is kept"
        )
    elif reached.clean < reached.asked:
        words.append("the people held out do not tell whether that is short of it")
    if not reached.missed and duty < OPEN:
        words.append(
            "the level was reached too late for any adversarial training: ask for less, train for longer, or look more "
            "often (method.gate.clean.every)"
        )
    return "; ".join(words)


def _judged(trained: Trained) -> "Arm | None":
    try:
        with stage_bar() as progress:
            return judge(trained, progress=progress).arm
    except SteadfaceError as error:
        # The model is trained and saved; too few held-out people to judge it by is no reason to call that a failure.
        say_warning(f"not judged on the held-out people: {error}")
        return None


def _write_page(trained: Trained, arm: "Arm", notes: list[str]) -> None:
    page = write_report(
        [arm],
        trained.folder,
        title=f"{trained.recipe.name}: training run",
        seed=trained.recipe.run.seed,
        command=command_line(),
        notes=["Judged on people held out from the training set.", *notes],
    )
    console.print(arms_table([arm]))
    say_where("report", page)
