"""`steadface attack-train`: a generative attack against one recogniser, for `steadface audit --generator`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from steadface.attacks import ball
from steadface.audit.generator import check_out
from steadface.audit.generator_training import Moved, Options, Trained
from steadface.cli.audit import MODEL_HELP
from steadface.cli.console import console, errors, say_warning, say_where, stage_bar
from steadface.cli.options import OutputOption, parsed_radius
from steadface.errors import InvalidInput
from steadface.signals import stop_on_signal
from steadface.workflows import audit

FEW = 0.05
"""Cosines moved less than this on average make a generator that says nothing of its victim."""


def train_attack(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    images: Annotated[
        Path | None, typer.Option(help="Aligned faces, one folder per person; not those of the audit.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The .safetensors file to write.")] = None,
    eps: Annotated[str, typer.Option(help="Radius of the pixel range, e.g. 8/255.")] = "8/255",
    norm: Annotated[Literal["linf", "l2"], typer.Option(help="Norm of the radius.")] = "linf",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = 500,
    batch: Annotated[int, typer.Option(min=4, help="Faces a step; an even number.")] = 32,
    width: Annotated[int, typer.Option(min=1, help="Channels of the network that proposes.")] = 24,
    rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = 3e-3,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same attack.")] = 0,
    output: OutputOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
) -> None:
    """Train a network that attacks **MODEL** in a single pass: it dodges and impersonates, whoever the person is.

    Try it with `steadface audit MODEL --generator FILE`, on other people. Ctrl-C writes what has been learnt so far.
    Attack only systems that you may test.
    """
    if images is None or out is None:
        raise InvalidInput("name the faces to train on with --images DIR and the file to write with --out FILE")
    around = ball(norm, parsed_radius(eps, norm))
    options = Options(ball=around, steps=steps, batch=batch, width=width, rate=rate, seed=seed)
    check_out(out)
    with stage_bar() as probing:
        victim = audit.open_victim(model, images, output=output, device=device, seed=seed, progress=probing)
    began = time.perf_counter()
    with stop_on_signal() as stop, generator_bar(steps) as observe:
        trained = audit.train_attack(victim, out, options, observe=observe, stop=lambda: bool(stop))
    if not trained.moved:
        console.print("stopped before the first step: nothing was written")
        raise typer.Exit(130)
    _say(trained, steps, out, time.perf_counter() - began)
    if len(trained.moved) < steps:
        raise typer.Exit(130)


@contextmanager
def generator_bar(steps: int) -> Iterator[Callable[[Moved], None]]:
    """A bar with how far cosines are moved and the time left; a plain line now and then off a terminal."""
    columns = (
        TextColumn("training"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=not errors.is_terminal) as bar:
        task = bar.add_task("training", total=steps, status="")
        spoken = 0

        def observe(at: Moved) -> None:
            nonlocal spoken
            done = at.step + 1
            status = f"cosine moved: dodging {at.dodging:.3f}, impersonation {at.impersonation:.3f}"
            bar.update(task, completed=done, status=status)
            tenth = 10 * done // steps
            if not errors.is_terminal and tenth > spoken:
                spoken = tenth
                errors.print(f"step {done} of {steps}  {status}", highlight=False, soft_wrap=True)

        yield observe


def _say(trained: Trained, steps: int, out: Path, seconds: float) -> None:
    done, (dodging, impersonation) = len(trained.moved), trained.lately()
    state = "finished" if done == steps else f"stopped (of {steps}, so it is weaker than it could be)"
    console.print(
        f"{state}: {done} steps in {seconds / 60:.1f} minutes; on the faces trained on it moves the cosine by "
        f"{dodging:.3f} dodging and {impersonation:.3f} impersonating",
        soft_wrap=True,
    )
    say_where("generator", out)
    if not min(dodging, impersonation) >= FEW:
        say_warning(
            f"it moves cosines by less than {FEW} for one goal at least: train it for more steps, or on more faces, "
            "before concluding anything from it"
        )
