"""`steadface certify`: what a smoothed verifier withstands for certain."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from steadface.certification.request import RADII
from steadface.cli.audit import MODEL_HELP, audit_bar
from steadface.cli.console import console, line, say_warning, say_where, stage_bar
from steadface.cli.options import (
    OrderOption,
    OutputOption,
    RangeOption,
    SizeOption,
    given_rate,
    given_threshold,
    stated,
)
from steadface.devices import resolve_device
from steadface.report.text import percent
from steadface.workflows.certify import Certified, certification_request, run_certification
from steadface.workflows.report import command_line


def certify_model(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    images: Annotated[Path, typer.Option(help="Aligned faces, one folder per person.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html and certificate.json.")],
    pairs: Annotated[
        Path | None, typer.Option(help="LFW-style pairs.txt; without it pairs are drawn from the folders.")
    ] = None,
    sigma: Annotated[
        float, typer.Option(help="Standard deviation of the noise, of the pixel range (0.25 are 64 grey levels).")
    ] = 0.25,
    radius: Annotated[
        list[float] | None,
        typer.Option(help="l2 radius to report, of the pixel range; may be repeated. [default: 0.25, 0.5]"),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Noisy versions of each pair's first image.")] = 1000,
    confidence: Annotated[
        float, typer.Option(callback=given_rate, help="With which all statements about the pairs hold together.")
    ] = 0.95,
    fmr: Annotated[
        float, typer.Option(callback=given_rate, help="FMR whose threshold the smoothed verifier uses.")
    ] = 1e-2,
    threshold: Annotated[
        float | None, typer.Option(callback=given_threshold, help="Its own threshold, in place of --fmr.")
    ] = None,
    max_pairs: Annotated[int, typer.Option(min=1, help="Genuine, and as many impostor, pairs certified.")] = 100,
    attacked: Annotated[
        int, typer.Option(min=0, help="Pairs of each kind that are attacked, to check their certificates.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the pairs, and draws the noise.")] = 0,
    mirror: Annotated[bool, typer.Option(help="Embed the image and its mirror image.")] = False,
    blur: Annotated[
        float,
        typer.Option(help="Pixels by which the verifier blurs what it sees, noise and all."),
    ] = 0.0,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the model: pays from some 50 pairs on.")] = False,
    size: SizeOption = None,
    pixel_range: RangeOption = None,
    channel_order: OrderOption = None,
    output: OutputOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
) -> None:
    """Certify what any **model** withstands when its verifier is smoothed by noise: an l2 radius for every pair.

    Within its radius no change of the picture makes the smoothed verifier decide a pair otherwise. Leaves report.html
    and certificate.json in --out. A certification that was stopped goes on with the same command. Exit code **8** where
    an attack contradicts a certificate.
    """
    resolve_device(device)  # before anything is opened
    with stage_bar() as probing:
        request = certification_request(
            model,
            images=images,
            pairs=pairs,
            sigma=sigma,
            radii=radius or RADII,
            draws=samples,
            confidence=confidence,
            fmr=fmr,
            threshold=threshold,
            max_pairs=max_pairs,
            attacked=attacked,
            seed=seed,
            mirror=mirror,
            blur=blur,
            compile=compile,
            device=device,
            progress=probing,
            **stated(size, pixel_range, channel_order, output),
        )
    files = {"images": str(images), "pairs": None if pairs is None else str(pairs)}
    try:
        with audit_bar(request.model.name) as progress:
            _print(run_certification(request, out, files=files, command=command_line(), progress=progress))
    except KeyboardInterrupt:
        console.print(line("stopped; what is done is kept. Go on with: ", (command_line(), "bold")), soft_wrap=True)
        raise typer.Exit(130) from None


def _print(certified: Certified) -> None:
    found = certified.record
    smoothed = found.smoothed
    console.print(
        f"threshold {found.threshold:.4f} at FMR {found.calibration.fmr:.3g}   smoothed, without attack: FNMR "
        f"{percent(smoothed.fnmr)} %, FMR {percent(smoothed.fmr)} %"
    )
    table = Table(
        "l2 radius", "genuine pairs certified %", "95 % interval", "impostor pairs certified %", "95 % interval"
    )
    for radius in dict.fromkeys(entry.radius for entry in found.certified):
        entries = [entry for entry in found.certified if entry.radius == radius]
        cells = [(percent(one.share), f"{percent(one.ci[0])} to {percent(one.ci[1])}") for one in entries]
        table.add_row(f"{radius:g}", *(text for pair in cells for text in pair))
    console.print(table)
    if found.sandwich is not None:
        closest = found.sandwich.closest
        console.print(
            f"attacked: {found.sandwich.broken} of {found.sandwich.pairs} certified pairs broken within l2 "
            f"{found.sandwich.radius:g}, none within its radius"
            + ("" if closest is None else f"; the closest at {closest:.2f} times its radius")
        )
    if found.pairs_per_minute is not None:
        console.print(f"{found.pairs_per_minute:.1f} pairs a minute")
    for warning in found.warnings:
        say_warning(warning)
    say_where("report", certified.page)
