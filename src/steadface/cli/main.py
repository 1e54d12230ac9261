"""The ``steadface`` command: parse, call, print."""

import sys

import typer

from steadface.cli.attack_train import train_attack
from steadface.cli.audit import audit_model
from steadface.cli.console import say_error, show_warnings
from steadface.cli.evaluate import evaluate_model
from steadface.cli.faces import write_faces
from steadface.cli.train import demo, resume_run, train_recipe
from steadface.errors import SteadfaceError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Train face recognisers that resist adversarial attack, and measure how well they resist.",
)
app.command("demo")(demo)
app.command("train")(train_recipe)
app.command("resume")(resume_run)
app.command("evaluate")(evaluate_model)
app.command("faces")(write_faces)
app.command("audit")(audit_model)
app.command("attack-train")(train_attack)


def main() -> None:
    """Runs the command; what the user can put right is printed without a traceback, with exit code 2."""
    show_warnings()
    try:
        app()
    except SteadfaceError as error:
        say_error(str(error))
        sys.exit(2)
