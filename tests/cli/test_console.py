"""Nothing that stands in a name, a note or somebody else's message is obeyed by a terminal."""

import ast
import json
import logging
import re
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table
from rich.text import Text

import steadface.cli
from steadface.cli import console as shown
from steadface.cli.options import print_json
from steadface.errors import visible
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import read_or_write_key
from steadface.gallery.storage import ModelIdentity

from .conftest import Call

CODES = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "clear": "\x1bc\x1b[2J\x1b[H",
    "paste": "\x1b]52;c;cm0gLXJm\x07",
    "C1": "\x9b31mred\x9d0;owned\x9c",
    "overwritten": "harmless\rerror: none\b\b\b\b",
    "a line of its own": "x\nerror: the gallery was stolen\x0b\x0c\x85\u2028\u2029",
    "right to left": "annexe\u202egpj.exe\u2066\u2069\u200f\u061c",
    "unseen": "ad\u200ba\u00ad\u2060\ufeff\u034f\u3164\ufff9\U000e0041",
    "joined": "a\u200db",
    "DEL": "a\x7fb",
    "no Unicode": "a\udcffb",
    "NUL": "a\x00b",
}
MARKUP = ["[red]x[/red]", "[/]", "[link=x]y[/link]", "x[bold", ":bomb:", "[[x]]"]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line breaks."""
    monkeypatch.setenv("COLUMNS", "2000")


def harmless(text: str) -> bool:
    """Whether a terminal shows every character of it, each in its place."""
    categories = {unicodedata.category(one) for one in text if one not in "\n\t"}
    return not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"} and not set(text) & set("\u034f\u3164\u115f\uffa0")


@pytest.mark.parametrize("text", CODES.values(), ids=CODES.keys())
def test_what_is_not_seen_is_made_visible_once(text: str) -> None:
    seen = visible(text)
    assert harmless(seen)
    assert "\n" not in seen
    assert visible(seen) == seen
    assert [one for one in seen if one.isalnum()][:1] == [one for one in text if one.isalnum()][:1] or "\\" in seen[:2]


def test_every_control_and_format_character_is_seen() -> None:
    unseen = [
        chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ]
    # Those that are drawn: Arabic, Syriac and Kaithi number signs, Egyptian hieroglyphs joined.
    drawn = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U00013430-\U0001345f]")
    assert [hex(ord(one)) for one in unseen if visible(one) == one and not drawn.match(one)] == []


@pytest.mark.parametrize(
    "name",
    [
        "گل\u200cرخ",
        "क्\u200dष",
        "👩\u200d💻",
        "❤\ufe0f\u200d🔥",
        "👍🏽\u200d",
        "Zoë",
        "O'Neil",
        "李雷",
        "a b",
        "x" * 5000,
    ],
)
def test_names_are_shown_as_they_are_written(name: str) -> None:
    assert visible(name) == name


def test_lines_stay_where_they_are_meant() -> None:
    assert visible("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"


@pytest.mark.parametrize("text", [*CODES.values(), *MARKUP])
def test_whatever_is_printed_is_shown_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown.say_error(text)
    shown.say_warning(text)
    shown.console.print(text, soft_wrap=True)
    shown.console.print(f"in {text} front", text, soft_wrap=True)
    shown.say_where("model", Path(text))
    shown.TerminalLog().emit(logging.LogRecord("steadface", logging.WARNING, "", 0, "%s", (text,), None))
    shown.TerminalLog().emit(logging.LogRecord("steadface", logging.INFO, "", 0, "%s", (text,), None))
    found = capsys.readouterr()
    lines = (found.out + found.err).splitlines()
    assert len(lines) == 7
    for one in lines:
        assert harmless(one)
        assert visible(text) in one


@pytest.mark.parametrize("text", [*CODES.values(), *MARKUP])
def test_tables_hold_one_line_for_each_row(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a", text, title=text, caption=text)
    table.add_row(text, "b")
    shown.console.print(table)
    found = capsys.readouterr().out
    assert harmless(found)
    assert found.count(visible(text)) == 4
    assert len(found.splitlines()) == 7


def test_styled_texts_may_have_lines_and_no_codes(capsys: pytest.CaptureFixture[str]) -> None:
    shown.console.print(Text("a\nb\x1b[31m", "red"))
    assert capsys.readouterr().out == "a\nb\\x1b[31m\n"


@pytest.mark.parametrize("text", CODES.values(), ids=CODES.keys())
def test_json_is_strict_and_keeps_every_character(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": text, text: [float("nan"), float("inf"), np.float32(0.5)]})
    said = capsys.readouterr().out
    assert harmless(said)
    assert said.isascii()
    assert json.loads(said, parse_constant=pytest.fail) == {"name": text, text: [None, None, 0.5]}


def test_bars_show_their_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with shown.stage_bar() as report:
        report("[red]\x1b[31m:bomb:", 1, 2)
    said = capsys.readouterr().err
    assert harmless(said)
    assert r"[red]\x1b[31m:bomb:" in said


@pytest.mark.filterwarnings("default")
def test_what_libraries_warn_of_is_one_line(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    call("--version")  # which sends warnings to the terminal
    warnings.warn("the file \x1b[31m\n is odd", stacklevel=1)
    said = capsys.readouterr().err
    assert harmless(said)
    assert said.count("\n") == 1
    assert r"the file \x1b[31m\n is odd (UserWarning" in said


def test_nothing_is_printed_by_other_ways() -> None:
    found = []
    for file in Path(steadface.cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "rprint", "typer.secho", "sys.stdout.write", "sys.stderr.write", "Console"):
                found.append(f"{file.name}: {called}")
            if called == "typer.echo" and file.name not in ("options.py", "main.py"):  # JSON, and the version
                found.append(f"{file.name}: {called}")
            if isinstance(node, ast.keyword) and node.arg in ("markup", "emoji") and ast.unparse(node.value) != "False":
                found.append(f"{file.name}: {node.arg}={ast.unparse(node.value)}")
    assert found == []


def test_what_a_gallery_says_of_people(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steadface.gallery.person.unwritable", lambda _: False)  # earlier versions took any text
    path, key = tmp_path / "g.db", tmp_path / "g.key"
    model = ModelIdentity(fingerprint="0" * 64, name="m[/]\x1b[31m", mirror=False, dimension=2)
    hostile = "".join(CODES.values()).replace("\udcff", "").replace("\x00", "") + "".join(MARKUP)
    with Gallery.create(path, model=model, key=read_or_write_key(key)) as gallery:
        gallery.enroll("[red]ada[/red]", np.array([[1, 0]]), consent=hostile, notes=hostile)
    given = ("--gallery", path, "--key", key)
    for words in (
        ["list"],
        ["show", "[red]ada[/red]"],
        ["info"],
        ["show", hostile],
        ["rename", "[red]ada[/red]", hostile],
    ):
        said = call("gallery", *words, *given)
        assert harmless(said.out + said.err), words
        assert "Traceback" not in said.err
    for words in (["list"], ["show", "[red]ada[/red]"]):
        told = call("gallery", *words, *given, "--json")
        assert harmless(told.out)
        person = json.loads(told.out)
        person = person[0] if isinstance(person, list) else person
        assert (person["person"], person["consent"], person["notes"]) == ("[red]ada[/red]", hostile, hostile)
    assert "[red]ada[/red]" in call("gallery", "list", *given).out


@pytest.mark.parametrize("text", CODES.values(), ids=CODES.keys())
def test_words_of_a_call_come_back_harmless(call: Call, text: str) -> None:
    for words in ([text], ["gallery", text], ["train", f"--{text}"], ["embed", "--model", text, text, "--out", text]):
        said = call(*words)
        assert said.code in (2, 4), words
        assert harmless(said.out + said.err), words
        assert said.err.count("\n") == 1
