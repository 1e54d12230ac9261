"""`steadface evaluate`: clean verification and white-box attacks on any model file that we know."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from steadface.cli.console import console, line, say_warning, say_where, stage_bar
from steadface.cli.options import OrderOption, OutputOption, RangeOption, SizeOption, given_rate, parsed_radius, stated
from steadface.errors import InvalidInput
from steadface.evaluation.evaluate import Evaluation, write_json
from steadface.evaluation.verification import why_no_row
from steadface.files import check_replaced
from steadface.recognizers import Convention
from steadface.report.text import percent, power, radius
from steadface.workflows import evaluate
from steadface.workflows.report import command_line, model_arm, write_report


def evaluate_model(
    model: Annotated[str, typer.Argument(help="A run folder, a file of weights, an .onnx file or module:function.")],
    images: Annotated[Path | None, typer.Option(help="Aligned faces, one folder per person.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="LFW-style pairs.txt; without it pairs are drawn from the folders.")
    ] = None,
    bins: Annotated[
        list[Path] | None, typer.Option("--bin", help="InsightFace .bin verification set; may be repeated.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure here.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write report.html and report.json into this folder.")] = None,
    attack: Annotated[Literal["none", "pgd"], typer.Option(help="White-box attack on raw cosines.")] = "none",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the attack.")] = 20,
    restarts: Annotated[int, typer.Option(min=1, help="Restarts of the attack.")] = 2,
    eps: Annotated[
        list[str] | None, typer.Option(help="Radius of the pixel range, e.g. 4/255; may be repeated.")
    ] = None,
    norm: Annotated[Literal["linf", "l2"], typer.Option(help="Norm of the radius.")] = "linf",
    fmr: Annotated[
        float, typer.Option(callback=given_rate, help="FMR whose threshold the attack has to cross.")
    ] = 1e-2,
    max_pairs: Annotated[int, typer.Option(min=1, help="Genuine, and as many impostor, pairs attacked.")] = 200,
    mirror: Annotated[
        bool, typer.Option(help="Embed the image and its mirror image, as the LFW protocol does.")
    ] = True,
    size: SizeOption = None,
    pixel_range: RangeOption = None,
    channel_order: OrderOption = None,
    output: OutputOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the pairs and the attack's starts.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
) -> None:
    """Measure a **model**: 10-fold accuracy, error rates with intervals, and what PGD does to them.

    The threshold under attack is frozen on clean pairs of other people. PGD alone bounds robustness from above. What is
    not stated of the model's pixels, and in no file, is tried on some of the faces.
    """
    plan = None
    if attack == "pgd":
        radii = [parsed_radius(text, norm) for text in eps or ["4/255"]]
        plan = evaluate.pgd_plan(eps=radii, norm=norm, steps=steps, restarts=restarts)
    elif eps:
        raise InvalidInput("--eps is the radius of an attack: say which with --attack pgd")
    if json_file is not None and json_file.is_dir():
        raise InvalidInput(f"--json {json_file} is a folder: name a file, as in --json {json_file / 'out.json'}")
    if json_file is not None:
        check_replaced(json_file, b"{")
    with stage_bar() as progress:
        opened, result = evaluate.evaluate_model(
            model,
            images=images,
            pairs=pairs,
            bins=bins or (),
            attack=plan,
            mirror=mirror,
            fmr=fmr,
            max_pairs=max_pairs,
            seed=seed,
            device=device,
            batch_size=batch,
            progress=progress,
            **stated(size, pixel_range, channel_order, output),
        )
    if json_file is not None:
        described = {"convention": opened.convention.to_json(), "output": opened.output, "notes": list(opened.notes)}
        write_json(json_file, {"model": model, **described, **result.to_json()})
    _print(model, opened.convention, result)
    if report is not None:
        _report(Path(model), result, report, seed, opened.notes)


def _print(model: str, convention: Convention, result: Evaluation) -> None:
    figures = result.to_json()
    console.print(line((model, "bold"), f" ({convention})"), soft_wrap=True, highlight=False)
    console.print(
        f"accuracy {percent(figures['accuracy'], 2)} % +- {percent(figures['accuracy_std'], 2)}   "
        f"EER {percent(figures['eer'], 2)} %   cosine: genuine {figures['genuine_mean']:.3f}, "
        f"impostor {figures['impostor_mean']:.3f}"
    )
    points = Table("FMR", "threshold", "TAR %", "95 % interval")
    for point in figures["operating_points"]:
        low, high = point["tar_ci"]
        points.add_row(
            power(point["fmr"]),
            f"{point['threshold']:.4f}",
            percent(point["tar"], 2),
            f"{percent(low, 2)} to {percent(high, 2)}",
        )
    console.print(points)
    if why := why_no_row(figures["impostor_pairs"]):
        console.print(why, soft_wrap=True)
    if figures["attacks"]:
        attacks = Table("attack", "goal", "radius", "clean error %", "error %", "95 % interval", "pairs")
        for found in figures["attacks"]:
            low, high = found["ci"]
            attacks.add_row(
                found["attack"],
                found["goal"],
                f"{found['norm']} {radius(found['eps'], found['norm'])}",
                percent(found["clean_error_rate"]),
                percent(found["error_rate"]),
                f"{percent(low)} to {percent(high)}",
                str(found["pairs"]),
            )
        console.print(attacks)
    for warning in result.warnings:
        say_warning(warning)


def _report(model: Path, result: Evaluation, folder: Path, seed: int, notes: Sequence[str]) -> None:
    arm, title = model_arm(model, result), f"Evaluation of {model.name}"
    say_where("report", write_report([arm], folder, title=title, seed=seed, command=command_line(), notes=notes))
