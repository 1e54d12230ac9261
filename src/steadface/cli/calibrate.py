"""`steadface calibrate`: thresholds that mean something, stored with the model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from steadface.cli.console import console, say_where, stage_bar
from steadface.cli.options import (
    JsonOption,
    OrderOption,
    OutputOption,
    RangeOption,
    SizeOption,
    print_json,
    stated,
)
from steadface.errors import InvalidInput
from steadface.evaluation.thresholds import GRID
from steadface.evaluation.verification import why_no_row
from steadface.files import check_replaced
from steadface.recognizers import check_exists
from steadface.recognizers.contract import is_named
from steadface.report.text import percent
from steadface.workflows.calibrate import calibrate, calibrate_guard, sign_contract
from steadface.workflows.opening import listed_faces


def calibrate_model(
    model: Annotated[str, typer.Argument(help="A run folder, a file of weights, an .onnx file or module:function.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Aligned faces, one folder per person: people whom the model was not trained on."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write weights and contract into this new .safetensors file instead; the contract of module:function "
            "into this file, for --contract elsewhere."
        ),
    ] = None,
    mirror: Annotated[bool, typer.Option(help="Sum the embeddings of image and mirror image.")] = False,
    size: SizeOption = None,
    pixel_range: RangeOption = None,
    channel_order: OrderOption = None,
    output: OutputOption = None,
    guard: Annotated[
        Path | None, typer.Option(help="Also write a guard for this model, which flags likely adversarial probes.")
    ] = None,
    false_alarms: Annotated[float, typer.Option(help="Share of clean faces that the guard may flag.")] = 1e-2,
    seed: Annotated[int, typer.Option(min=0, help="Draws the images that are measured.")] = 0,
    key: Annotated[
        Path | None,
        typer.Option(help="Sign contract and guard with the key in this file; without --images the contract as it is."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure which similarity stands for which FMR, and store that with the **model**.

    Models of ours and exported .onnx files carry their contract inside; other files are left as they are and get a
    FILE.contract.json beside them. What is not stated of the pixels, and in no file, is tried on the faces. A model
    that does not tell them apart gets no contract.
    """
    check_exists(model)
    if guard is not None:
        check_replaced(guard, b"{")
    if images is None:
        _sign(model, key, out, as_json)
        return
    faces = listed_faces(images)
    with stage_bar() as progress:
        made, where = calibrate(
            model,
            faces,
            out=out,
            mirror=mirror,
            seed=seed,
            key=key,
            progress=progress,
            **stated(size, pixel_range, channel_order, output),
        )
    if guard is not None:
        written, contract = (model, where) if is_named(model) else (out or model, None)
        calibrate_guard(written, faces, guard, contract=contract, rate=false_alarms, seed=seed, key=key)
    thresholds = made.contract.thresholds
    assert thresholds is not None
    if as_json:
        print_json({"stored": str(where), **made.contract.to_json()})
        return
    table = Table("FMR", "threshold", "95 % interval", "FNMR %", "95 % interval")
    for point in thresholds.points:
        few = "*" if thresholds.rests_on_few_people(point.fmr) else ""
        table.add_row(
            f"{point.fmr:g}{few}",
            f"{point.threshold:.4f}",
            f"{point.threshold_ci[0]:.4f} to {point.threshold_ci[1]:.4f}",
            percent(point.fnmr, 2),
            f"{percent(point.fnmr_ci[0], 2)} to {percent(point.fnmr_ci[1], 2)}",
        )
    console.print(table)
    console.print(
        f"{thresholds.people} people, {thresholds.images} images, {thresholds.impostor_pairs} impostor pairs; "
        "* more than these people can speak of"
    )
    if why := why_no_row(thresholds.impostor_pairs, GRID):
        console.print(why, soft_wrap=True)
    for pair in made.alike[:3]:
        console.print(
            f"most alike strangers: {pair.first} and {pair.second} ({pair.similarity:.3f}); one person "
            "under two names would raise the thresholds",
            soft_wrap=True,
        )
    console.print(f"pixels taken as {made.contract.convention}", soft_wrap=True, highlight=False)
    say_where("contract", where)
    if guard is not None:
        say_where("guard", guard)


def _sign(model: str, key: Path | None, out: Path | None, as_json: bool) -> None:
    if key is None:
        raise InvalidInput("give aligned faces of known people with --images FACES, or a --key FILE to sign with")
    contract, where = sign_contract(model, key, contract=out if is_named(model) else None)
    if as_json:
        print_json({"stored": str(where), **contract.to_json()})
        return
    say_where("signed contract", where)
