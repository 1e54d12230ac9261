"""`steadface plan`: what a training needs of each GPU, before anybody rents one."""

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from steadface.cli.console import console, line
from steadface.cli.options import JsonOption, SizeOption, print_json
from steadface.errors import InvalidInput, quoted

if TYPE_CHECKING:
    from steadface.training.planning.pace import Traffic
    from steadface.training.planning.plan import Plan

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def plan_training(
    identities: Annotated[float, typer.Option(help="People who are told apart, e.g. 29e6.")],
    backbone: Annotated[str, typer.Option(help="mobilefacenet or iresnet18 to iresnet200.")] = "iresnet50",
    gpus: Annotated[int, typer.Option(min=1, help="That train together.")] = 1,
    memory: Annotated[str | None, typer.Option(help="Of each GPU, e.g. 80G, in units of 1,024.")] = None,
    batch: Annotated[int, typer.Option(min=2, help="Faces of each GPU in a step.")] = 64,
    sample_rate: Annotated[float, typer.Option(help="Share of the head's rows in a step (Partial FC).")] = 1.0,
    precision: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Of the backbone.")] = "bf16",
    optimizer: Annotated[Literal["sgd", "adamw"], typer.Option(help="SGD has a momentum, AdamW two.")] = "sgd",
    average: Annotated[bool, typer.Option("--average", help="Keep a moving average of the weights.")] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="Compute activations anew (run.recompute).")] = False,
    duty: Annotated[float, typer.Option(help="Share of the steps with an open gate; 0 is clean training.")] = 0.0,
    timing: Annotated[Literal["same", "next"], typer.Option(help="Of the gate (method.timing).")] = "next",
    attack_steps: Annotated[int, typer.Option(min=1, help="Gradients that an adversarial sample takes.")] = 1,
    targets: Annotated[bool, typer.Option("--targets", help="Train on the target samples too.")] = False,
    reference: Annotated[bool, typer.Option("--reference", help="Compare with a frozen copy.")] = False,
    embedding_size: Annotated[int, typer.Option(min=1, help="Numbers of an embedding.")] = 512,
    width: Annotated[
        float | None, typer.Option(help="Of the backbone; the published one's where none is given.")
    ] = None,
    size: SizeOption = "112x112",
    reserve: Annotated[str, typer.Option(help="For context, work space and rounding.")] = "1.7G",
    images_per_second: Annotated[
        float | None, typer.Option(help="Measured on one GPU: clean, with this backbone, batch and precision.")
    ] = None,
    bandwidth: Annotated[float | None, typer.Option(help="GB that a GPU sends a second. [default: no limit]")] = None,
    head_tflops: Annotated[float, typer.Option(help="Speed of the head, all told; the default is a V100's.")] = 4.0,
    as_json: JsonOption = False,
) -> None:
    """Say what a training needs of each GPU, by **formula**: memory by part, traffic and images a second.

    Nothing is trained or downloaded. Exit code **1** where it does not fit into --memory, with what would make it fit.
    """
    available = None if memory is None else _bytes(memory, "--memory")
    kept_free = _bytes(reserve, "--reserve")
    for option, value in (
        ("--images-per-second", images_per_second),
        ("--bandwidth", bandwidth),
        ("--head-tflops", head_tflops),
    ):
        if value is not None and not 0 < value < 1e15:
            raise InvalidInput(f"{option} {value:g} is no speed; give a number above 0")
    from steadface.training.planning.plan import plan
    from steadface.training.planning.workload import Workload

    made = plan(
        Workload(
            architecture=_architecture(backbone, width, embedding_size, size),
            identities=_whole(identities, "--identities"),
            ranks=gpus,
            batch=batch,
            sample_rate=sample_rate,
            precision=precision,
            optimizer=optimizer,
            average=average,
            recompute=recompute,
            duty=duty,
            timing=timing,
            attack_steps=attack_steps,
            targets=targets,
            reference=reference,
        ),
        available=available,
        reserve=kept_free,
        images_per_second=images_per_second,
        bandwidth=None if bandwidth is None else 1e9 * bandwidth,
        head_rate=1e12 * head_tflops,
    )
    if as_json:
        print_json(made.to_json())
    else:
        _print(made)
    raise typer.Exit(0 if made.fits else 1)


def _whole(value: float, option: str) -> int:
    if not 2 <= value <= 1e12 or value != int(value):
        raise InvalidInput(f"{option} {value:g} is no number of people; give a whole number of 2 or more, e.g. 29e6")
    return int(value)


def _bytes(text: str, option: str) -> int:
    """`80G`, `80 GiB` or `512M` in bytes."""
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE | re.ASCII)
    if found is None:
        raise InvalidInput(f"{option} {quoted(text)} is no size; write 80G or 512M")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _architecture(name: str, width: float | None, embedding_size: int, size: str | None) -> Any:
    from pydantic import ValidationError

    from steadface.backbones import Architecture
    from steadface.recognizers import parse_size

    given = {"name": name, "width": width, "embedding_size": embedding_size}
    try:
        return Architecture(image_size=parse_size(size or "112x112"), **given)
    except ValidationError as error:
        raise InvalidInput(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None


def _print(made: "Plan") -> None:
    from steadface.training.planning.memory import FORMULAS, GIB

    work = made.workload
    _say(
        f"{work.architecture.name}, {made.network.weights:,} weights, {work.precision}; {work.identities:,} identities "
        f"on {work.ranks:,} GPUs, {work.batch:,} faces each; of the head {work.rows:,} rows a GPU, {work.sampled:,} of "
        "them in a step"
    )
    table = Table("memory of a GPU", "GiB", "bytes")
    table.columns[1].justify = "right"
    for name, size in made.memory.parts.items():
        table.add_row(name.replace("_", " "), f"{size / GIB:.2f}", FORMULAS[name])
    table.add_section()
    table.add_row("at most", f"{made.memory.total / GIB:.2f}", "the sum; not all is there at a time")
    console.print(table)
    _print_fit(made)
    _print_traffic("an update sends, from each GPU", made.traffic)
    if work.opens:
        _print_traffic("one with an open gate", made.open_traffic)
    _print_pace(made)


def _print_fit(made: "Plan") -> None:
    from steadface.training.planning.memory import GIB

    if made.available is None:
        return
    over = (made.memory.total - made.available) / GIB
    if made.fits:
        console.print(line(("fits", "green"), f" into {made.available / GIB:.4g} GiB, and leaves {-over:.2f}"))
        return
    console.print(line(("does not fit", "red"), f" into {made.available / GIB:.4g} GiB: {over:.2f} are missing"))
    for remedy in made.remedies:
        _say(f"  it would with {remedy}")
    if not made.remedies:
        _say("  nothing that is tried here would do: take a smaller backbone, or GPUs with more memory")


def _print_traffic(words: str, traffic: "Traffic") -> None:
    parts = ", ".join(f"{name.replace('_', ' ')} {size / 1e6:.1f}" for name, size in asdict(traffic).items() if size)
    _say(f"{words}: {traffic.total / 1e6:,.1f} MB{f' ({parts})' if parts else ''}")


def _print_pace(made: "Plan") -> None:
    pace = made.pace
    if pace is None:
        return
    parts = {"backbone": pace.backbone, "head": pace.head, "sending": pace.sending}
    said = ", ".join(f"{name} {1000 * seconds:.0f}" for name, seconds in parts.items())
    opened = f"; {1000 * pace.opened:.0f} ms with an open gate" if made.workload.opens else ""
    _say(f"a step: {1000 * pace.closed:.0f} ms ({said}){opened}")
    _say(f"about {pace.images_per_second:,.0f} images a second in all, if nothing overlaps")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False)
