"""Writes docs/cli.md and docs/python.md from the program: `make reference`. Neither page is edited by hand.

tests/test_docs.py fails while a page says something else than the program.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

import steadface
from steadface.cli.main import app
from steadface.errors import Conflict, InvalidInput, NotFound, Unavailable, Unsupported

FOLDER = Path(__file__).parent
UNIONS = (Union, UnionType)
CODES = {
    0: "Done, or a match.",
    1: "No match, and what else a command says of it in its help.",
    3: "A hardening that gained nothing, or a training that has missed the clean level asked for.",
    8: "A certificate that an attack contradicts.",
    70: "What nobody foresaw: a fault of the program or of the machine; `STEADFACE_DEBUG=1` shows where.",
    130: "Ctrl-C.",
    141: "The reader of the output has left, as `head` does behind a pipe.",
}
ERRORS = (InvalidInput, NotFound, Conflict, Unsupported, Unavailable)
VALUES = {str: "text", Path: "path", int: "number", float: "number", bool: ""}
CLI_HEAD = """# Command line

What `steadface --help` and the `--help` of every command say; `steadface --install-completion` teaches the shell.

## Exit codes

| code | |
|---:|---|
{codes}

Wrong usage, and output that cannot be written, end with 2 too.
"""
PYTHON_HEAD = """# Python

`import steadface as sf` offers these names and loads each when it is asked for. Everything else is imported from its
module and may move between versions.
"""


def command_line() -> str:
    """The page of every command with its arguments and options, in the order of `steadface --help`."""
    command = typer.main.get_command(app)
    sections = _sections(command, command.context_class(command, info_name="steadface"))
    codes = CODES | {kind.exit_code: inspect.cleandoc(kind.__doc__ or "").splitlines()[0] for kind in ERRORS}
    rows = "\n".join(f"| {code} | {meaning} |" for code, meaning in sorted(codes.items()))
    return CLI_HEAD.format(codes=rows) + "".join(sections)


def python_names() -> str:
    """The page of every public name: how it is called, and its docstring with the methods' first lines."""
    return PYTHON_HEAD + "".join(_name(name, getattr(steadface, name)) for name in sorted(steadface.__all__))


def _sections(command: Any, context: Any) -> Iterator[str]:
    yield _section(command, context)
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if not child.hidden:
                yield from _sections(child, child.context_class(child, info_name=name, parent=context))


def _section(command: Any, context: Any) -> str:
    parts = [f"## `{context.command_path}`", _prose(command.help or "")]
    if not hasattr(command, "list_commands"):
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        parts.append(f"```text\n{usage}\n```")
    # Help and completion, which no command declares, come with every program.
    declared = inspect.signature(command.callback).parameters if command.callback else ()
    shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name in declared]
    if shown:
        parts.append("| word | value | |\n|---|---|---|\n" + "\n".join(_row(one, command) for one in shown))
    return "\n" + "\n\n".join(parts) + "\n"


def _row(parameter: Any, command: Any) -> str:
    is_option = parameter.param_type_name == "option"
    names = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.name.upper()]
    declared = get_type_hints(inspect.unwrap(command.callback), include_extras=True)[parameter.name]
    default = inspect.signature(command.callback).parameters[parameter.name].default
    said = [_cell(parameter.help or ""), *_remarks(declared, default)]
    return f"| {' '.join(f'`{name}`' for name in names)} | {_values(declared)} | {' '.join(said)} |"


def _values(declared: Any) -> str:
    """What may stand behind an option, by its annotation `Annotated[type, typer.Option(...)]`; nothing for a flag."""
    kind, info = get_args(declared)[:2]
    parts = [part for part in get_args(kind) if part is not NoneType] if get_origin(kind) in UNIONS else [kind]
    (kind,) = parts
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if info.metavar:
        return f"`{info.metavar}`"
    if get_origin(kind) is tuple:
        return f"{len(get_args(kind))} words"
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
    return " ".join([VALUES[kind], *_bounds(info)])


def _bounds(info: Any) -> Iterator[str]:
    if info.min is not None:
        yield f"from {info.min}"
    if info.max is not None:
        yield f"to {info.max}"


def _remarks(declared: Any, default: Any) -> Iterator[str]:
    kind = get_args(declared)[0]
    if default is inspect.Parameter.empty:
        yield "Required."
    elif default not in (None, False):
        yield f"Default: `{default}`."
    if any(get_origin(part) is list for part in (kind, *get_args(kind))):
        yield "May be repeated."


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


def _name(name: str, thing: Any) -> str:
    parts = [f"## `{name}`", *_described(thing, name)]
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            function = getattr(value, "__func__", value)
            if not member.startswith("_") and inspect.isfunction(function) and function.__doc__:
                parts += [f"### `{name}.{member}`", *_described(function, member)]
    return "\n" + "\n\n".join(parts) + "\n"


def _described(thing: Any, name: str) -> Iterator[str]:
    yield f"```text\n{_signature(thing, name)}\n```"
    yield _fenced(inspect.cleandoc(thing.__doc__ or ""))


def _signature(thing: Any, name: str) -> str:
    """How `thing` is called, with the annotations as its source has them, so that no library's version shows."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    words = _fields(node) if isinstance(node, ast.ClassDef) else _parameters(node)
    returned = f" -> {ast.unparse(node.returns)}" if isinstance(node, ast.FunctionDef) and node.returns else ""
    flat = f"{name}({', '.join(words)}){returned}"
    if len(flat) <= 100:
        return flat
    return f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){returned}"


def _fields(node: ast.ClassDef) -> list[str]:
    """Of `__init__`, or the fields of a record."""
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return _parameters(member)
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    return [ast.unparse(one) for one in fields if "ClassVar" not in ast.unparse(one.annotation)] or ["..."]


def _parameters(node: Any) -> list[str]:
    return [word for word in _joined(ast.unparse(node.args).split(", ")) if word not in ("self", "cls")]


def _joined(words: list[str]) -> list[str]:
    """`words` of which those are one that a comma between brackets had parted."""
    whole: list[str] = []
    for word in words:
        if whole and sum(map(whole[-1].count, "([{")) > sum(map(whole[-1].count, ")]}")):
            whole[-1] += f", {word}"
        else:
            whole.append(word)
    return whole


def _fenced(text: str) -> str:
    """`text` with its doctests and indented formulas as blocks of code."""
    text = text.replace("``", "`")
    doctest = re.compile(r"(?:^ *>>> .*\n(?:^ *\S.*\n)*)(?:\n(?= *>>> )(?:^ *>>> .*\n(?:^ *\S.*\n)*))*", re.MULTILINE)
    return doctest.sub(lambda found: f"```pycon\n{inspect.cleandoc(found[0])}\n```\n", text + "\n").rstrip()


if __name__ == "__main__":
    (FOLDER / "cli.md").write_text(command_line(), encoding="utf-8")
    (FOLDER / "python.md").write_text(python_names(), encoding="utf-8")
