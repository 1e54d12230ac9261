"""The command as a user calls it: words in, exit code and text out."""

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from steadface.cli.main import main
from steadface.data.synthetic import write_synthetic_faces

from ..training.runs import TINY

RECIPE = {
    "name": "tiny",
    "data": {"size": [16, 16], "batch": 4, "validation": 0.5, "workers": 0},
    "model": TINY["model"],
    "head": TINY["head"],
    "method": {"gate": {"kind": "always"}},
    "evaluation": {"fmr": 0.2, "eps": ["4/255"], "steps": 1, "restarts": 1, "max_pairs": 2},
    "run": {"steps": 4, "log_every": 1, "checkpoint_every": 2, "device": "cpu", "threads": 1, "tensorboard": False},
}


@dataclass(frozen=True)
class Said:
    """What a call left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Runs ``steadface WORD ...`` in this process, wide enough for no line to break."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("TERMINAL_WIDTH", "250")
    logger = logging.getLogger("steadface")
    handlers, level = logger.handlers, logger.level

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["steadface", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        found = capsys.readouterr()
        return Said(code, found.out, found.err)

    yield run
    logger.handlers, logger.level = handlers, level


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic faces of twelve people in identity folders; not to be changed."""
    root = tmp_path_factory.mktemp("cli") / "faces"
    return write_synthetic_faces(root, people=12, images_per_person=4, size=(16, 16))


@pytest.fixture
def recipe(tmp_path: Path, faces: Path) -> Path:
    """A recipe that trains on ``faces`` into ``tmp_path / "run"``."""
    path = tmp_path / "tiny.yaml"
    values = {**RECIPE, "data": {**RECIPE["data"], "images": str(faces)}}
    values["run"] = {**RECIPE["run"], "out": str(tmp_path / "run")}
    path.write_text(yaml.safe_dump(values))
    return path
