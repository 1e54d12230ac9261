"""What only says or lists something loads nothing of what trains and recognises."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

import steadface
from steadface.cli import options
from steadface.cli.commands import LateCommands
from steadface.cli.gallery import GalleryCommands
from steadface.cli.main import Commands, app
from steadface.gallery.gallery import Gallery
from steadface.gallery.storage import ModelIdentity
from steadface.recognizers.convention import ChannelOrder, PixelRange
from steadface.recognizers.embedder import Backend

SAYING = [["--help"], ["--version"], ["gallery", "--help"], ["gallery", "list", "--help"]]
HEAVY = ("torch", "matplotlib", "onnxruntime", "pyarrow", "cv2", "scipy")
CODE = f"""
import gc, json, os, sys
from steadface.__main__ import main
for words, environment in json.loads(sys.argv[1]):
    sys.argv = ["steadface", *words]
    os.environ |= environment
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    print("loaded:", [name for name in {HEAVY} if name in sys.modules])
    print("left to Python's end:", len(gc.get_objects()) > 10_000)
    print("END")
    for name in environment:
        del os.environ[name]
"""
COMPLETIONS = {("steadface ver", "1"): "verify", ("steadface gallery l", "2"): "list"}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a new process says that runs one such command after the other, and which heavy packages it has loaded."""
    folder = tmp_path_factory.mktemp("gallery")
    file, key = str(folder / "g.db"), str(folder / "key")
    with Gallery.create(file, model=ModelIdentity(fingerprint="0" * 64, dimension=4, mirror=False, name="m")) as made:
        shutil.copy(made.key.source, key)  # with its mode
    listed = ["gallery", "list", "--gallery", file, "--key", key]
    commands = {" ".join(words): words for words in SAYING} | {"listed": listed}
    cases: dict[str, tuple[list[str], dict[str, str]]] = {name: (words, {}) for name, words in commands.items()}
    for typed, place in COMPLETIONS:
        asked = {"_STEADFACE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": place}
        cases[typed] = ([], asked)
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(list(cases.values()))],
        env={**os.environ, "PYTHONPATH": str(Path(steadface.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, done.stdout.split("END\n"), strict=False))


@pytest.mark.parametrize("words", SAYING)
def test_what_only_says_something_loads_nothing_heavy(said: dict[str, str], words: list[str]) -> None:
    assert "loaded: []" in said[" ".join(words)]


def test_listing_a_gallery_loads_nothing_heavy(said: dict[str, str]) -> None:
    assert "loaded: []" in said["listed"]


@pytest.mark.parametrize("typed", [typed for typed, _ in COMPLETIONS])
def test_a_shell_is_offered_commands_without_loading_them(said: dict[str, str], typed: str) -> None:
    assert said[typed].splitlines()[0] == COMPLETIONS[typed, str(typed.count(" "))]
    assert "loaded: []" in said[typed]


def test_what_is_there_when_a_command_ends_is_not_looked_through_for_garbage(said: dict[str, str]) -> None:
    assert all("left to Python's end: False" in one for one in said.values() if one)


def test_the_version_is_that_of_the_package(said: dict[str, str]) -> None:
    assert steadface.__version__ in said["--version"]


@pytest.mark.parametrize("group", [Commands, GalleryCommands])
def test_the_help_in_a_list_is_that_of_the_command(group: type[LateCommands]) -> None:
    made = group(name="group")
    context = typer.main.get_command(app).make_context("steadface", [], resilient_parsing=True)
    for name, (_, listed) in group.late.items():
        command = made.get_command(context, name)
        first = " ".join(inspect.cleandoc(command.help).split("\n\n")[0].split())
        assert first == listed, name


@pytest.mark.parametrize(
    ("option", "engine"),
    [(options.RangeOption, PixelRange), (options.OrderOption, ChannelOrder), (options.BackendOption, Backend)],
)
def test_the_choices_of_an_option_are_those_of_the_engine(option: Any, engine: Any) -> None:
    (kind, *_) = get_args(option)
    choices = {one for part in (kind, *get_args(kind)) for one in get_args(part) if isinstance(one, str)}
    assert choices == set(get_args(engine))
