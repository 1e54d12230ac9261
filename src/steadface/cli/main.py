"""The `steadface` command: parse, call, print."""

import os
import sys
from typing import Annotated

import typer

from steadface.cli.commands import LateCommands
from steadface.cli.console import show_warnings
from steadface.cli.ending import ended

COMPLETE = "_STEADFACE_COMPLETE"
"""Environment variable in which a shell asks for completions."""


class Commands(LateCommands):
    late = {  # noqa: RUF012
        "demo": (
            "train:demo",
            "Train on built-in **synthetic faces**, clean beside gated, and compare both under attack.",
        ),
        "train": (
            "train:train_recipe",
            "Train the recognisers of a **recipe**, then judge it on the people held out and write its report.",
        ),
        "plan": (
            "plan:plan_training",
            "Say what a training needs of each GPU, by **formula**: memory by part, traffic and images a second.",
        ),
        "resume": ("train:resume_run", "Go on with a **run** that was stopped or killed, from its newest checkpoint."),
        "harden": (
            "harden:harden_model",
            "Harden a trained recogniser: same input, same dimension, more resistance, and little "
            "of its accuracy lost.",
        ),
        "widen": (
            "widen:widen_model",
            "Write a **wider** network that embeds as the given one does (Net2Net), to go on from.",
        ),
        "fuse": (
            "fuse:fuse_models",
            "Write several **models** as one, whose cosine is the mean of theirs.",
        ),
        "evaluate": (
            "evaluate:evaluate_model",
            "Measure a **model**: 10-fold accuracy, error rates with intervals, and what PGD does to them.",
        ),
        "faces": (
            "faces:write_faces",
            "Write procedural **synthetic faces** as identity folders, one person each, already aligned.",
        ),
        "audit": (
            "audit:audit_model",
            "Measure how well any **model** resists attack: the worst case over several attacks at a frozen threshold.",
        ),
        "certify": (
            "certify:certify_model",
            "Certify what any **model** withstands when its verifier is smoothed by noise: an l2 radius for every "
            "pair.",
        ),
        "attack-train": (
            "attack_train:train_attack",
            "Train a network that attacks **MODEL** in a single pass: it dodges and impersonates, "
            "whoever the person is.",
        ),
        "calibrate": (
            "calibrate:calibrate_model",
            "Measure which similarity stands for which FMR, and store that with the **model**.",
        ),
        "detect": (
            "detect:detect_faces",
            "Find the **faces** in photographs, and say what is wrong with those that are hard to recognise.",
        ),
        "align": ("detect:align_photographs", "Make a **training folder** of aligned faces from photographs."),
        "embed": (
            "embed:embed_pictures",
            "Write the unit embeddings of the largest face of each picture. Exit code **1** if some "
            "could not be embedded.",
        ),
        "verify": (
            "verify:verify_pair",
            "Do two photographs show one person? Exit code **0** if they match, **1** if not, **2** or more on an "
            "error.",
        ),
        "enroll": (
            "enroll:enroll_person",
            "Add a person to a **gallery**, which is made if there is none: one template of all pictures, "
            "or nothing at all.",
        ),
        "identify": (
            "identify:identify_photograph",
            "Who of the enrolled people is in a photograph? Exit code **0** if anybody, **1** if nobody, "
            "**2** or more on an error.",
        ),
        "watch": (
            "watch:watch_source",
            "Who of the enrolled people **comes and goes** before a camera?",
        ),
        "gallery": (
            "gallery:gallery_app",
            "Look at a **gallery**, remove people from it, check its log, change its key, copy it.",
        ),
        "import-compreface": (
            "import_compreface:import_compreface",
            "Enrol the people of a **CompreFace** anew, from the pictures in a dump of its database. Exit code **1** "
            "if somebody, or a picture, could not be.",
        ),
        "serve": (
            "serve:serve_recognition",
            "Recognise over **HTTP**: verify, identify and enrol, with API keys, limits and metrics.",
        ),
        "keys": ("keys:keys_app", "Make, list, rotate and revoke the **API keys** of a service, while it runs."),
        "export": (
            "export:export_model",
            "Write a **model** as ONNX: raw RGB pixels (B, 3, H, W) in, raw embeddings (B, D) out, any B.",
        ),
    }


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Train face recognisers that resist adversarial attack, measure how well they do, and recognise with them.",
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"steadface {version('steadface')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="Say which version this is, and end."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command and ends with its exit code; see `steadface.cli.ending`."""
    show_warnings()
    sys.exit(ended(_command))


def _command() -> None:
    command = typer.main.get_command(app)
    if COMPLETE in os.environ:
        command._main_shell_completion({}, "steadface", COMPLETE)
    with command.make_context("steadface", sys.argv[1:]) as context:
        command.invoke(context)
