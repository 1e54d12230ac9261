"""`steadface audit`: what an attacker can do to a recogniser at the threshold that it is used with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from steadface.audit.request import Name
from steadface.cli.console import console, errors, line, say_warning, say_where, stage_bar
from steadface.cli.options import (
    OrderOption,
    OutputOption,
    RangeOption,
    SizeOption,
    given_rate,
    given_threshold,
    parsed_radius,
    stated,
)
from steadface.devices import resolve_device
from steadface.errors import InvalidInput, visible
from steadface.evaluation.intervals import trials_for_width
from steadface.report.text import percent, radius, with_interval
from steadface.workflows.audit import Audited, audit_request, run_audit
from steadface.workflows.audit import compare as compare_audits
from steadface.workflows.report import command_line

MODEL_HELP = (
    "A run folder or checkpoint of ours, an InsightFace state dict, an .onnx file, or module:function (or "
    "file.py:function): a torch module, or a function from uint8 RGB faces (B, H, W, 3) to embeddings."
)


def audit_model(
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    images: Annotated[Path | None, typer.Option(help="Aligned faces, one folder per person.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="LFW-style pairs.txt; without it pairs are drawn from the folders.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html, audit.json and adversarial/.")] = None,
    preset_name: Annotated[
        Name, typer.Option("--preset", help="How hard to try; `quick` supports no claim.")
    ] = "standard",
    norm: Annotated[Literal["linf", "l2"], typer.Option(help="Norm of the radii.")] = "linf",
    eps: Annotated[
        list[str] | None, typer.Option(help="Radius of the pixel range, e.g. 4/255; may be repeated.")
    ] = None,
    fmr: Annotated[float, typer.Option(callback=given_rate, help="FMR whose threshold the verifier uses.")] = 1e-2,
    threshold: Annotated[
        float | None, typer.Option(callback=given_threshold, help="The verifier's own threshold, in place of --fmr.")
    ] = None,
    max_pairs: Annotated[int, typer.Option(min=1, help="Genuine, and as many impostor, pairs attacked.")] = 100,
    interval_width: Annotated[
        float | None, typer.Option(help="Attack as many pairs as 95 % intervals of this width take, e.g. 0.1.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the pairs and the attacks' starts.")] = 0,
    calibration_pairs: Annotated[
        Path | None, typer.Option(help="Pairs of other people, below --images, that the threshold comes from.")
    ] = None,
    surrogate: Annotated[
        list[str] | None, typer.Option(help="A MODEL to craft transfer attacks on; may be repeated.")
    ] = None,
    generator: Annotated[
        list[Path] | None, typer.Option(help="A network that `attack-train` wrote, tried as well; may be repeated.")
    ] = None,
    detail: Annotated[
        bool, typer.Option("--detail", help="Also attacks that no worst case needs; more pictures.")
    ] = False,
    mirror: Annotated[bool, typer.Option(help="Embed the image and its mirror image.")] = False,
    size: SizeOption = None,
    pixel_range: RangeOption = None,
    channel_order: OrderOption = None,
    output: OutputOption = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two models, or two folders of finished audits, side by side on the same pairs."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
) -> None:
    """Measure how well any **model** resists attack: the worst case over several attacks at a frozen threshold.

    Leaves report.html, audit.json and adversarial/*.png in --out. An audit that was stopped goes on with the same
    command. Attack only systems that you may test.
    """
    if (model is None) == (compare is None):
        raise InvalidInput("name one MODEL to audit, or two with --compare A B")
    if out is None:
        raise InvalidInput("name the folder for the report with --out DIR")
    radii = tuple(parsed_radius(text, norm) for text in eps or ["2/255", "4/255"])
    if interval_width is not None:
        if not 0 < interval_width < 1:
            raise InvalidInput(f"--interval-width {interval_width} is not a width between 0 and 1; 0.1 takes 402 pairs")
        max_pairs = trials_for_width(interval_width)
    resolve_device(device)  # before anything is opened
    named = {"images": images, "pairs": pairs, "calibration_pairs": calibration_pairs}

    def audited(name: str, folder: Path) -> Audited:
        if images is None:
            raise InvalidInput("an audit needs faces: give --images DIR (and --pairs FILE)")
        with stage_bar() as probing:
            request = audit_request(
                name,
                images=images,
                pairs=pairs,
                calibration_pairs=calibration_pairs,
                preset_name=preset_name,
                eps=radii,
                norm=norm,
                fmr=fmr,
                threshold=threshold,
                max_pairs=max_pairs,
                seed=seed,
                mirror=mirror,
                detail=detail,
                surrogates=surrogate or (),
                generators=generator or (),
                device=device,
                progress=probing,
                **stated(size, pixel_range, channel_order, output),
            )
        files = {what: None if path is None else str(path) for what, path in named.items()}
        with audit_bar(request.model.name) as progress:
            return run_audit(request, folder, files=files, command=command_line(), progress=progress)

    try:
        if compare is None:
            assert model is not None
            _print(audited(model, out))
        else:
            _compare(compare, out, audited)
    except KeyboardInterrupt:
        console.print(line("stopped; what is done is kept. Go on with: ", (command_line(), "bold")), soft_wrap=True)
        raise typer.Exit(130) from None


def _compare(names: tuple[str, str], out: Path, audited: Callable[[str, Path], Audited]) -> None:
    labels = _labels(names)
    folders = []
    for name, label in zip(names, labels, strict=True):
        if (Path(name) / "audit.json").is_file():
            folders.append(Path(name))
        elif (out / label / "audit.json").is_file():
            folders.append(out / label)
        else:
            folders.append(audited(name, out / label).folder)
    page, data = compare_audits(folders[0], folders[1], out, names=labels, command=command_line())
    table = Table("goal", "radius", f"{labels[0]} %", f"{labels[1]} %", "difference", "p (McNemar)")
    for test in data["tests"]:
        one, other = test["rates"]
        low, high = test["ci"]
        table.add_row(
            test["goal"],
            f"{test['norm']} {radius(test['eps'], test['norm'])}",
            percent(one),
            percent(other),
            with_interval(100 * test["difference"], 100 * low, 100 * high, signed=True),
            f"{test['p']:.3g}",
        )
    console.print(table)
    say_where("report", page)


def _labels(names: tuple[str, str]) -> tuple[str, str]:
    first, second = (Path(name.split(":")[0]).stem or name for name in names)
    return (first, second) if first != second else (f"{first}-1", f"{second}-2")


@contextmanager
def audit_bar(name: str) -> Iterator[Callable[[str, float, float], None]]:
    """One bar for all attacks with the time left; a plain line now and then off a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as bar:
        task = bar.add_task(visible(name), total=None)
        spoken = ""

        def report(what: str, done: float, total: float) -> None:
            nonlocal spoken
            bar.update(task, completed=done, total=total, description=visible(f"{name}: {what}"))
            if not errors.is_terminal and what != spoken:
                spoken = what
                errors.print(f"{name}: {what} ({done / max(total, 1):.0%})", highlight=False, soft_wrap=True)

        yield report


def _print(audited: Audited) -> None:
    data = audited.data
    clean = data["clean"]
    console.print(
        f"threshold {data['threshold']:.4f} at FMR {data['fmr']:.3g}   clean: FNMR {percent(clean['fnmr'])} %, "
        f"FMR {percent(clean['fmr'])} %"
    )
    table = Table("attack", "goal", "radius", "error %", "95 % interval", "saved as PNG %", "pairs")
    for entry in [*data["attacks"], *data["worst_case"]]:
        low, high = entry["ci"]
        table.add_row(
            entry["attack"],
            entry["goal"],
            f"{entry['norm']} {radius(entry['eps'], entry['norm'])}",
            percent(entry["error_rate"]),
            f"{percent(low)} to {percent(high)}",
            percent(entry["error_rate_8bit"]),
            str(entry["pairs"]),
            style="bold" if entry["attack"] == "worst case" else None,
        )
    console.print(table)
    for norm, goals in data["distances"].items():
        for goal, found in goals.items():
            console.print(f"median smallest distance, {goal}: {_distance(found['median'], norm)}")
    for check in data["checks"]:
        mark = {True: ("holds", "green"), False: ("fails", "red"), None: ("not judged", "")}[check["passed"]]
        console.print(line(mark, f": {check['name']} ({check['finding']})"), soft_wrap=True)
    for warning in data["warnings"]:
        say_warning(warning)
    say_where("report", audited.page)


def _distance(median: float | None, norm: str) -> str:
    if median is None:
        return "not reached: more than half of the pairs hold in the largest ball searched"
    return f"{255 * median:.2f}/255" if norm == "linf" else f"{median:.3f} (l2)"
