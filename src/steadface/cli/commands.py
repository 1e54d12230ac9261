"""Commands that are imported when they are called: their names and one-line helps are known without."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from steadface.files import check_given
from steadface.signals import raise_on_ctrl_c


class LateCommands(TyperGroup):
    """A group whose `late` commands, name -> (place, help), are imported from their place, `module:function`, when they
    are asked for. A `typer.Typer` at a place is a group of its own.

    Help and the completion of a shell, which list commands, see stand-ins with their names and helps.
    """

    late: ClassVar[Mapping[str, tuple[str, str]]] = {}

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._listing = False
        for name, (_, help) in self.late.items():
            self.add_command(TyperCommand(name, help=help, rich_markup_mode=self.rich_markup_mode))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.late or self._listing:
            return super().get_command(ctx, cmd_name)
        return self._imported(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with self._stand_ins():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        with self._stand_ins():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _stand_ins(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False

    def _imported(self, name: str) -> Any:
        module, _, attribute = self.late[name][0].partition(":")
        here = getattr(import_module(f"steadface.cli.{module}"), attribute)
        raise_on_ctrl_c()  # what takes long to import is there
        if not isinstance(here, typer.Typer):
            alone = typer.Typer(add_completion=False, rich_markup_mode=self.rich_markup_mode)
            alone.command(name)(here)
            here = alone
        for one in here.registered_commands:
            one.callback = _with_checked_paths(one.callback)
        command = typer.main.get_command(here)
        command.name = name
        return command


def _with_checked_paths(run: Any) -> Any:
    """`run`, once the paths that it is given are known to be some, and no pipes or devices: see `check_given`.

    Before it does anything else, and whatever it does with them.
    """
    if hasattr(run, "__wrapped__"):  # asked for before
        return run

    @wraps(run)
    def checked(**given: Any) -> Any:
        for value in given.values():
            for path in value if isinstance(value, list | tuple) else (value,):
                if isinstance(path, Path):
                    check_given(path)
        return run(**given)

    return checked
