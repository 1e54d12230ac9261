"""Importing the package and running its commands leaves nothing but what was asked for, and asks no network."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import yaml
from onnx import helper

import steadface
from steadface.data.synthetic import write_synthetic_faces

from .recognizers.recognisers import written

SOURCE = Path(steadface.__file__).parents[1]
CHOICES = ("ORT_DISABLE_TELEMETRY", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "LOCALAPPDATA")
RECIPE = {
    "name": "tiny",
    "data": {"size": [16, 16], "batch": 4, "validation": 0.5, "workers": 1},
    "model": {"architecture": {"name": "mobilefacenet", "width": 0.125, "blocks": [1, 0, 0, 0], "embedding_size": 8}},
    "head": {"kind": "cosface", "s": 8, "m": 0.1},
    "evaluation": {"fmr": 0.2, "eps": ["4/255"], "steps": 1, "restarts": 1, "max_pairs": 2},
    "run": {"steps": 1, "device": "cpu", "threads": 1},
}


class Home:
    """An empty home with places for temporary and cached files in it, and a folder beside it to work in."""

    def __init__(self, folder: Path) -> None:
        self.path, self.work = folder / "home", folder / "work"
        for made in (self.path / "tmp", self.path / "cache", self.path / "config", self.work):
            made.mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        """Of a process that is at home there."""
        places = {"HOME": self.path, "TMPDIR": self.path / "tmp"}
        for name in ("CACHE", "CONFIG", "DATA", "STATE", "RUNTIME"):
            places[f"XDG_{name}_{'DIR' if name == 'RUNTIME' else 'HOME'}"] = self.path / name.lower()
        clean = {name: value for name, value in os.environ.items() if name not in CHOICES}
        return {**clean, **{name: str(place) for name, place in places.items()}, "PYTHONPATH": str(SOURCE)}

    def python(self, *words: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *map(str, words)],
            env=self.environment(),
            cwd=self.work,
            capture_output=True,
            text=True,
            check=False,
        )

    def left(self) -> list[str]:
        """Files that came, and folders except in the temporary one, where torch makes one that stays empty."""
        there = {path.relative_to(self.path) for path in self.path.rglob("*")} - {Path("cache"), Path("config")}
        return sorted(str(path) for path in there if path.parts[0] != "tmp" or not (self.path / path).is_dir())


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is done in a home of its own, where torch is there already, and what came of it."""

    home: Home
    code: str
    words: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def plan(self) -> dict[str, object]:
        environment = {**self.home.environment(), **self.environment}
        said = str(self.home.path.parent / "said")
        return {"code": self.code, "words": ["-c", *self.words], "work": str(self.home.work), "said": said} | {
            "environment": environment
        }

    def said(self) -> str:
        return (self.home.path.parent / "said").read_text()


IMPORT = """
import sys
asked = []
sys.addaudithook(lambda event, _: asked.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
import steadface
light = [name for name in ("torch", "onnxruntime", "matplotlib", "cv2", "onnx") if name in sys.modules]
names = [getattr(steadface, name) for name in steadface.__all__]
steadface.Architecture().build()
heavy = [name for name in ("onnxruntime", "matplotlib", "sympy") if name in sys.modules]
print(light, heavy, asked, len(names) > 20, flush=True)
"""
STEPS = """
import atexit, json, os
for step in json.loads(sys.argv[1]):
    if not os.fork():
        os.environ.clear()
        os.environ |= step["environment"]
        os.chdir(step["work"])
        for number in (1, 2):
            os.dup2(os.open(step["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.argv = step["words"]
        try:
            exec(step["code"], {})
        except SystemExit as end:
            assert not end.code, end.code
        sys.stdout.flush()
        atexit._run_exitfuncs()
        os._exit(0)  # the rest of Python's own end takes it a second to forget torch
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
COMMAND = """
from steadface.__main__ import main
import os
try: main()
finally: print('MPLCONFIGDIR' in os.environ)
"""
LOOK = """
from steadface.devices import open_session
try: open_session(b'')
except Exception: pass
import sys
assert 'onnxruntime' in sys.modules
"""
DRAW = """
from steadface.report.fonts import load_matplotlib; load_matplotlib()
import matplotlib
print(matplotlib.rcParams['lines.linewidth'])
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as folder:  # workers talk through sockets below it, whose paths have 107 bytes at most
        yield Path(folder)


@pytest.fixture(scope="module")
def steps(folder: Path) -> dict[str, Step]:
    """What is to be done, each in an empty home."""
    faces = write_synthetic_faces(folder / "faces", people=12, images_per_person=4, size=(16, 16))
    homes = {name: Home(folder / name) for name in ("look", "tell", "verify", "train", "settings")}

    layers = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["embeddings"]),
    ]
    weights = np.random.default_rng(0).normal(size=(3 * 16 * 16, 8)).astype(np.float32)
    written(homes["verify"].work / "m.onnx", layers, {"w": weights})
    pair = [str(path) for path in sorted(faces.rglob("*.png"))[:2]]
    verify = ["verify", *pair, "--aligned", "--model", "m.onnx", "--threshold", "-1", "--json"]

    recipe = {**RECIPE, "data": {**RECIPE["data"], "images": str(faces)}, "run": {**RECIPE["run"], "out": "run"}}
    (homes["train"].work / "tiny.yaml").write_text(yaml.safe_dump(recipe))

    (homes["settings"].path / "config" / "matplotlib").mkdir()
    (homes["settings"].path / "config" / "matplotlib" / "matplotlibrc").write_text("lines.linewidth: 7\n")
    return {
        "look": Step(home=homes["look"], code=LOOK),
        "tell": Step(home=homes["tell"], code=LOOK, environment={"ORT_DISABLE_TELEMETRY": "0"}),
        "verify": Step(home=homes["verify"], code=COMMAND, words=verify),
        "train": Step(home=homes["train"], code=COMMAND, words=["train", "tiny.yaml"]),
        "settings": Step(home=homes["settings"], code=DRAW),
    }


@pytest.fixture(scope="module")
def imported(folder: Path, steps: dict[str, Step]) -> tuple[Home, str]:
    """The home of a process that imports the package, and does each of the steps in a fork; and what it said."""
    home = Home(folder / "import")
    done = home.python("-c", IMPORT + STEPS, json.dumps([step.plan() for step in steps.values()]))
    said, *codes = done.stdout.splitlines()
    assert codes == ["0"] * len(steps), done.stderr + "".join(step.said() for step in steps.values())
    return home, said


@pytest.fixture
def done(imported: tuple[Home, str], steps: dict[str, Step]) -> dict[str, Step]:  # noqa: ARG001
    return steps


def test_importing_leaves_nothing_and_asks_no_network(imported: tuple[Home, str]) -> None:
    home, said = imported
    assert said == "[] [] [] True"
    assert home.left() == []


def test_asking_for_help_leaves_nothing(folder: Path) -> None:
    home = Home(folder / "help")
    assert "Usage" in home.python("-m", "steadface", "--help").stdout
    assert home.left() == []


def test_recognising_with_an_onnx_file_leaves_nothing(done: dict[str, Step]) -> None:
    assert done["look"].home.left() == []
    assert '"match": true' in done["verify"].said()
    assert done["verify"].home.left() == []


def test_training_and_its_report_leave_the_run_alone(done: dict[str, Step]) -> None:
    home = done["train"].home
    assert (home.work / "run" / "report.html").exists()
    assert home.left() == []
    assert sorted(path.name for path in home.work.iterdir()) == ["run", "tiny.yaml"]


def test_the_test_would_see_what_onnxruntime_leaves(done: dict[str, Step]) -> None:
    """Where the same code left nothing above; and who has asked for its telemetry gets it."""
    if not done["tell"].home.left():
        pytest.skip("this onnxruntime writes nothing")
    assert any("onnxruntime" in path for path in done["tell"].home.left())


def test_whoever_has_settings_of_matplotlibs_keeps_them(done: dict[str, Step]) -> None:
    assert done["settings"].said() == "7.0\n"
    assert done["train"].said().endswith("False\n"), "and whoever has none gets none"
