"""`steadface keys`: the API keys of a service."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from steadface.arguments import choice
from steadface.cli.console import console, line, say_warning
from steadface.cli.options import JsonOption, print_json
from steadface.gallery.person import parse_expiry
from steadface.service.keys import EVERYWHERE, ApiKey, Keys, Scope

keys_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Make, list, rotate and revoke the **API keys** of a service, while it runs.",
)

KeysOption = Annotated[Path, typer.Option("--keys", help="The file of API keys.")]
KeyArgument = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `list` shows it.")]


@keys_app.command("make")
def make_key(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    keys: KeysOption,
    scope: Annotated[
        list[str],
        typer.Option(
            help="What it may be used for: verify, identify, enroll, embed, delete, audit or admin; may be given "
            "several times."
        ),
    ],
    collection: Annotated[
        list[str] | None, typer.Option(help="In which collections; may be given several times. [default: all]")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Until when: 2031-12-31, or a time with its zone.")] = None,
    shows: Annotated[
        Literal["decision", "rounded", "full"],
        typer.Option(help="How much of a similarity its answers tell: nothing, a tenth, or all."),
    ] = "rounded",
    rate: Annotated[int, typer.Option(min=1, max=10**6, help="Requests a minute.")] = 600,
    probes: Annotated[
        int, typer.Option(min=1, max=10**6, help="Answers in an hour in which one enrolled person is the likeliest.")
    ] = 60,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is shown once, and kept nowhere; the file is made if there is none."""
    key, token = Keys.create(keys).make(
        name,
        [choice("--scope", one, Scope) for one in scope],
        collections=collection or (EVERYWHERE,),
        expires=None if expires is None else parse_expiry(expires),
        shows=shows,
        rate=rate,
        probes=probes,
    )
    _show(key, token, as_json)


@keys_app.command("list")
def list_keys(keys: KeysOption, as_json: JsonOption = False) -> None:
    """List the keys, without what opens anything."""
    held = Keys(keys).listed()
    if as_json:
        print_json([key.shown() for key in held])
        return
    table = Table("id", "name", "may", "in", "shows", "a minute", "until")
    for key in held:
        until = "" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M}"
        words = (", ".join(key.scopes), ", ".join(key.collections), key.shows, str(key.rate), until)
        table.add_row(key.id, key.name, *words)
    console.print(table)


@keys_app.command("rotate")
def rotate_key(identity: KeyArgument, keys: KeysOption, as_json: JsonOption = False) -> None:
    """Give a key another secret, shown once; the old one opens nothing any more."""
    _show(*Keys(keys).rotate(identity), as_json)


@keys_app.command("revoke")
def revoke_key(identity: KeyArgument, keys: KeysOption) -> None:
    """Take a key away, at once."""
    key = Keys(keys).revoke(identity)
    console.print(line("revoked ", (key.id, "bold"), f", {key.name}"))


def _show(key: ApiKey, token: str, as_json: bool) -> None:
    if as_json:
        print_json({**key.shown(), "key": token})
        return
    say_warning("this is the only time that the key is shown")
    console.print(token, soft_wrap=True)
