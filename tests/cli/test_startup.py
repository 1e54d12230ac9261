"""What only says or lists something loads nothing of what trains and recognises."""

import inspect
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

HEAVY = ("torch", "matplotlib", "onnxruntime", "pyarrow", "cv2", "scipy")
CODE = f"""
import sys
from steadface.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", [name for name in {HEAVY} if name in sys.modules])
"""


def run(*words: str, **environment: str) -> str:
    """What a fresh process of the command says, and which heavy packages it has loaded."""
    source = str(Path(steadface.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words],
        env={**os.environ, "PYTHONPATH": source, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["gallery", "--help"], ["gallery", "list", "--help"]])
def test_what_only_says_something_loads_nothing_heavy(words: list[str]) -> None:
    assert "loaded: []" in run(*words)


def test_listing_a_gallery_loads_nothing_heavy(tmp_path: Path) -> None:
    file, key = str(tmp_path / "g.db"), str(tmp_path / "key")
    with Gallery.create(file, model=ModelIdentity(fingerprint="0" * 64, dimension=4, mirror=False, name="m")) as made:
        shutil.copy(made.key.source, key)  # with its mode
    assert "loaded: []" in run("gallery", "list", "--gallery", file, "--key", key)


@pytest.mark.parametrize(
    ("typed", "place", "offered"), [("steadface ver", "1", "verify"), ("steadface gallery l", "2", "list")]
)
def test_a_shell_is_offered_commands_without_loading_them(typed: str, place: str, offered: str) -> None:
    said = run(_STEADFACE_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=place)
    assert said.splitlines()[0] == offered
    assert "loaded: []" in said


def test_the_version_is_that_of_the_package() -> None:
    assert steadface.__version__ in run("--version")


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
