"""`steadface harden`: a recogniser that people have becomes one that resists."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from steadface.cli.console import console
from steadface.cli.options import OutputOption, parsed_radius, parsed_share
from steadface.cli.train import Set, candidates_shown, finish, report_run, resumable, say_model, together
from steadface.evaluation.compatibility import Compatibility
from steadface.report.text import percent
from steadface.workflows.harden import Wishes, harden


def harden_model(
    weights: Annotated[
        str,
        typer.Argument(help="A run folder, weights of a MobileFaceNet or IResNet, an .onnx file or module:function."),
    ],
    images: Annotated[
        Path,
        typer.Option(help="Aligned faces, one folder per person or all in one; a tenth of the people is held out."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the run, which is a MODEL for every other command.")],
    extra: Annotated[Path | None, typer.Option(help="More faces without labels to train on.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Of training; looks at the people held out come on top.")] = 60,
    eps: Annotated[str, typer.Option(help="linf radius to train against.")] = "4/255",
    max_clean_drop: Annotated[
        str, typer.Option(help="How much clean accuracy (1 - EER, people held out) may fall, e.g. 0.5%.")
    ] = "0.5%",
    choose: Annotated[
        str | None, typer.Option(metavar="NAME", help="Make this candidate of a finished run the model.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="Also train on who is who, for the sake of the people on these images.")
    ] = False,
    student: Annotated[
        str | None,
        typer.Option(help="Another network that learns the embeddings of the given one, from nothing, e.g. iresnet18."),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(help="Harden against noise of this deviation instead of --eps, for `steadface certify --sigma`."),
    ] = None,
    output: OutputOption = None,
    overrides: Set = None,
) -> None:
    """Harden a trained recogniser: same input, same dimension, more resistance, and little of its accuracy lost.

    The candidate that resists best among those that still recognise becomes the model; where none does the command
    ends with 3. Ctrl-C saves; the same command goes on. On a finished run another `--max-clean-drop`, or `--choose`,
    takes another candidate without training, and with more `--minutes` it trains on. Judge the result with
    `steadface audit`.
    """
    wishes = Wishes(
        minutes=minutes,
        eps=parsed_radius(eps, "linf"),
        max_clean_drop=parsed_share(max_clean_drop, "--max-clean-drop"),
        choose=choose,
        labels=labels,
        student=student,
        output=output,
        sigma=sigma,
    )
    with resumable(None):
        with together("harden") as (ranks, observe), candidates_shown(out, ranks):
            done = harden(
                weights,
                images,
                out,
                extra=extra,
                wishes=wishes,
                overrides=overrides or (),
                observe=observe,
                ranks=ranks,
            )
        if not ranks.first:
            finish(done.outcome, ranks)
            return
        say_model(done.outcome, command=shlex.join(["steadface", *sys.argv[1:]]))
        if done.compatibility is not None:
            _print(done.compatibility, done.keeps_templates)
        report_run(done.outcome)


def _print(found: Compatibility, keeps: bool) -> None:
    table = Table("pairs of people held out", "genuine cosine", "impostor cosine", "FNMR %", "FMR %")
    for name, pairs in (("old, old", found.old), ("new, new", found.new), ("old template, new probe", found.mixed)):
        table.add_row(
            name,
            f"{pairs.genuine:.3f}",
            f"{pairs.impostor:.3f}",
            percent(pairs.fnmr, 2),
            percent(pairs.fmr, 2),
        )
    console.print(table)
    verdict = "stay valid" if keeps else "do not serve it well: enrol anew, or `steadface gallery re-embed`"
    console.print(
        f"at the old threshold {found.threshold:.4f} (FMR {found.fmr:g}); mean cosine of new to old embedding "
        f"{found.drift:.3f}: enrolled templates {verdict}"
    )
