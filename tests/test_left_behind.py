"""Importing the package and running its commands leaves nothing but what was asked for, and asks no network."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

import steadface
from steadface.data.synthetic import write_synthetic_faces
from steadface.recognizers.export import export_onnx

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

    def python(self, *words: object, fails: bool = False, **extra: str) -> "subprocess.CompletedProcess[str]":
        clean: Mapping[str, str] = {name: value for name, value in os.environ.items() if name not in CHOICES}
        places = {"HOME": self.path, "TMPDIR": self.path / "tmp"}
        for name in ("CACHE", "CONFIG", "DATA", "STATE", "RUNTIME"):
            places[f"XDG_{name}_{'DIR' if name == 'RUNTIME' else 'HOME'}"] = self.path / name.lower()
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            env={**clean, **{name: str(place) for name, place in places.items()}, "PYTHONPATH": str(SOURCE), **extra},
            cwd=self.work,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done

    def left(self) -> list[str]:
        """Files that came, and folders except in the temporary one, where torch makes one that stays empty."""
        there = {path.relative_to(self.path) for path in self.path.rglob("*")} - {Path("cache"), Path("config")}
        return sorted(str(path) for path in there if path.parts[0] != "tmp" or not (self.path / path).is_dir())


@pytest.fixture
def home() -> Iterator[Home]:
    with TemporaryDirectory() as folder:  # workers talk through sockets below it, whose paths have 107 bytes at most
        yield Home(Path(folder))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left") / "faces"
    return write_synthetic_faces(folder, people=12, images_per_person=4, size=(16, 16))


IMPORT = """
import sys
asked = []
sys.addaudithook(lambda event, _: asked.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
import steadface
light = [name for name in ("torch", "onnxruntime", "matplotlib", "cv2", "onnx") if name in sys.modules]
names = [getattr(steadface, name) for name in steadface.__all__]
steadface.Architecture().build()
heavy = [name for name in ("onnxruntime", "matplotlib", "sympy") if name in sys.modules]
print(light, heavy, asked, len(names) > 20)
"""
LOOK = """
from steadface.devices import open_session
try: open_session(b'')
except Exception: pass
import sys
assert 'onnxruntime' in sys.modules
"""


def test_importing_leaves_nothing_and_asks_no_network(home: Home) -> None:
    assert home.python("-c", IMPORT + LOOK).stdout == "[] [] [] True\n"
    assert home.left() == []


def test_asking_for_help_leaves_nothing(home: Home) -> None:
    assert "Usage" in home.python("-m", "steadface", "--help").stdout
    assert home.left() == []


def test_recognising_with_an_onnx_file_leaves_nothing(home: Home, faces: Path) -> None:
    model, (one, other) = home.work / "m.onnx", sorted(faces.rglob("*.png"))[:2]
    network = steadface.Architecture(image_size=(16, 16), embedding_size=8, width=0.125, blocks=(1, 0, 0, 0)).build()
    steadface.save_backbone(home.work / "m.safetensors", network, {})
    export_onnx(steadface.open_recognizer(home.work / "m.safetensors"), model)
    words = ("verify", one, other, "--aligned", "--model", model, "--threshold", "-1", "--json")
    assert '"match": true' in home.python("-m", "steadface", *words).stdout
    assert home.left() == []


def test_training_and_its_report_leave_the_run_alone(home: Home, faces: Path) -> None:
    recipe = {**RECIPE, "data": {**RECIPE["data"], "images": str(faces)}}
    recipe["run"] = {**RECIPE["run"], "out": "run"}
    (home.work / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    home.python("-m", "steadface", "train", "tiny.yaml")
    assert (home.work / "run" / "report.html").exists()
    assert home.left() == []
    assert sorted(path.name for path in home.work.iterdir()) == ["run", "tiny.yaml"]


def test_the_test_would_see_what_onnxruntime_leaves(home: Home) -> None:
    """Where the same code left nothing above; and who has asked for its telemetry gets it."""
    home.python("-c", LOOK, ORT_DISABLE_TELEMETRY="0")
    if not home.left():
        pytest.skip("this onnxruntime writes nothing")
    assert any("onnxruntime" in path for path in home.left())


def test_whoever_has_settings_of_matplotlibs_keeps_them(home: Home) -> None:
    (home.path / "config" / "matplotlib").mkdir()
    (home.path / "config" / "matplotlib" / "matplotlibrc").write_text("lines.linewidth: 7\n")
    code = "from steadface.report.fonts import load_matplotlib; load_matplotlib(); import matplotlib as m, os; "
    assert home.python("-c", code + "print(m.rcParams['lines.linewidth'])").stdout == "7.0\n"
    other = Home(home.path.parent / "other")
    assert other.python("-c", code + "print('MPLCONFIGDIR' in os.environ)").stdout == "False\n"
    assert other.left() == []
