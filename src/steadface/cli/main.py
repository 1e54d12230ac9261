"""The ``steadface`` command: parse, call, print."""

import sys

import typer

from steadface.cli.attack_train import train_attack
from steadface.cli.audit import audit_model
from steadface.cli.calibrate import calibrate_model
from steadface.cli.console import show_warnings
from steadface.cli.detect import align_photographs, detect_faces
from steadface.cli.embed import embed_pictures
from steadface.cli.ending import ended
from steadface.cli.enroll import enroll_person
from steadface.cli.evaluate import evaluate_model
from steadface.cli.export import export_model
from steadface.cli.faces import write_faces
from steadface.cli.gallery import gallery_app
from steadface.cli.harden import harden_model
from steadface.cli.identify import identify_photograph
from steadface.cli.re_embed import re_embed_gallery
from steadface.cli.train import demo, resume_run, train_recipe
from steadface.cli.verify import verify_pair

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Train face recognisers that resist adversarial attack, measure how well they do, and recognise with them.",
)
app.command("demo")(demo)
app.command("train")(train_recipe)
app.command("resume")(resume_run)
app.command("harden")(harden_model)
app.command("evaluate")(evaluate_model)
app.command("faces")(write_faces)
app.command("audit")(audit_model)
app.command("attack-train")(train_attack)
app.command("calibrate")(calibrate_model)
app.command("detect")(detect_faces)
app.command("align")(align_photographs)
app.command("embed")(embed_pictures)
app.command("verify")(verify_pair)
app.command("enroll")(enroll_person)
app.command("identify")(identify_photograph)
gallery_app.command("re-embed")(re_embed_gallery)
app.add_typer(gallery_app, name="gallery")
app.command("export")(export_model)


def main() -> None:
    """Runs the command and ends with its exit code; see `steadface.cli.ending`."""
    show_warnings()
    sys.exit(ended(_command))


def _command() -> None:
    command = typer.main.get_command(app)
    with command.make_context("steadface", sys.argv[1:]) as context:
        command.invoke(context)
