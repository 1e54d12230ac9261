"""``steadface evaluate``: clean verification and white-box attacks on any model file that we know."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from steadface import api
from steadface.attacks.balls import radius_from
from steadface.cli.console import console, say_warning, stage_bar
from steadface.cli.options import OrderOption, OutputOption, RangeOption, SizeOption, given_rate, opened_faces
from steadface.data.bins import read_bin
from steadface.data.pairs import PairSet, read_pairs
from steadface.devices import resolve_device
from steadface.errors import SteadfaceError
from steadface.evaluation.evaluate import Evaluation, evaluate, write_json
from steadface.evaluation.labelled import pairs_from_labels
from steadface.evaluation.verification import why_no_row
from steadface.recognizers import Convention, check_exists, parse_size
from steadface.report.arm import Arm
from steadface.report.text import percent, power, radius


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
    if pairs is not None and images is None:
        raise SteadfaceError(f"--pairs {pairs} names images: give their folder with --images DIR")
    if images is None and not bins:
        raise SteadfaceError("nothing to judge by: give --images DIR (with --pairs FILE) or --bin FILE")
    plan = None
    if attack == "pgd":
        radii = [parsed_radius(text, norm) for text in eps or ["4/255"]]
        plan = api.pgd_plan(eps=radii, norm=norm, steps=steps, restarts=restarts)
    elif eps:
        raise SteadfaceError("--eps is the radius of an attack: say which with --attack pgd")
    if json_file is not None and json_file.is_dir():
        raise SteadfaceError(f"--json {json_file} is a folder: name a file, as in --json {json_file / 'out.json'}")
    chosen = resolve_device(device)
    check_exists(model)
    pairs_judged = None if images is None else pair_set(images, pairs, seed)
    bin_sets = _bins(bins or [])
    with stage_bar() as progress:
        opened = api.open_probed(
            model,
            next(iter(bin_sets.values())) if pairs_judged is None else pairs_judged,
            image_size=None if size is None else parse_size(size),
            pixel_range=pixel_range,
            channel_order=channel_order,
            output=output,
            seed=seed,
            progress=partial(progress, "probing"),
        )
        if plan is not None and not opened.differentiable:
            raise SteadfaceError(
                f"{model} has no gradients for --attack pgd; `steadface audit` attacks it without them"
            )
        result = evaluate(
            opened.network,
            pairs_judged,
            bins=bin_sets,
            mirror=mirror,
            attack=plan,
            fmr=fmr,
            max_pairs=max_pairs,
            seed=seed,
            device=chosen,
            batch_size=batch,
            progress=progress,
        )
    if json_file is not None:
        described = {"convention": opened.convention.to_json(), "output": opened.output, "notes": list(opened.notes)}
        write_json(json_file, {"model": model, **described, **result.to_json()})
    _print(model, opened.convention, result)
    if report is not None:
        _report(Path(model), result, report, seed, opened.notes)


def pair_set(images: Path, pairs: Path | None, seed: int) -> PairSet:
    """The pairs that a file lists, or pairs drawn from the folders where there is none."""
    if pairs is not None:
        return read_pairs(pairs, images)
    return pairs_from_labels(opened_faces(images), seed=seed)


def _bins(paths: list[Path]) -> dict[str, PairSet]:
    names = [path.stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise SteadfaceError(f"--bin: two files are called {name}, and figures go by that name; rename one")
    return {name: read_bin(path) for name, path in zip(names, paths, strict=True)}


def parsed_radius(text: str, norm: str) -> float:
    """A radius as `radius_from` reads it; raises SteadfaceError for what is no radius of that norm."""
    try:
        value = radius_from(text)
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if not 0 < value < math.inf:
        raise SteadfaceError(f"--eps {text} is no positive radius; write 4/255 or 0.0157")
    if norm == "linf" and value > 1:
        raise SteadfaceError(f"--eps {text} is more than the whole pixel range: write {text}/255")
    return value


def _print(model: str, convention: Convention, result: Evaluation) -> None:
    figures = result.to_json()
    console.print(f"[bold]{escape(model)}[/bold] ({convention})", soft_wrap=True, highlight=False)
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
    if (model / "recipe.yaml").is_file() and (model / "model.safetensors").is_file():
        arm = api.run_arm(model, result)
    else:
        examples = () if result.robustness is None else result.robustness.examples
        arm = Arm(name=model.stem, recipe={}, evaluation=result.to_json(), examples=examples)
    page = api.report(
        [arm], folder, title=f"Evaluation of {model.name}", seed=seed, command=api.command_line(), notes=notes
    )
    console.print(f"report: [bold]{escape(str(page))}[/bold]", soft_wrap=True)
