"""What the documentation names exists, commands can be typed, examples run, generated pages are up to date."""

import ast
import doctest
import functools
import importlib
import importlib.util
import re
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import PIL.Image
import pytest
import torch
import typer
import yaml

from steadface.audit import request
from steadface.audit.request import FULL, QUICK, STANDARD
from steadface.backbones import Architecture, architecture, save_backbone
from steadface.cli.main import app
from steadface.data.folders import open_faces
from steadface.data.synthetic import synthetic_faces, write_synthetic_faces
from steadface.faces.detection import WholePicture
from steadface.recognition import face_finder
from steadface.workflows.calibrate import calibrate

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
DOCTESTED = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
CODE = sorted(set(re.findall(r"`(steadface[\w.]*):([\w.]+)`", METHOD)))
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", METHOD)))
ROWS = [line for line in METHOD.splitlines() if line.startswith("|") and "::" in line]


@functools.cache
def functions_of(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_statement_names_code_and_a_test():
    assert len(ROWS) > 40
    for row in ROWS:
        statement, code, test = (cell.strip() for cell in row.strip("|").split("|"))
        assert statement
        assert re.fullmatch(r"`steadface[\w.]*:[\w.]+`", code), row
        assert re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`", test), row


@pytest.mark.parametrize(("module", "name"), CODE, ids=lambda part: part)
def test_the_code_exists(module, name):
    functools.reduce(getattr, name.split("."), importlib.import_module(module))


@pytest.mark.parametrize(("path", "name"), TESTS, ids=lambda part: part)
def test_the_test_exists(path, name):
    assert name in functions_of(path)


@pytest.mark.parametrize("script", sorted(set(re.findall(r"`(benchmarks/\w+\.py)`", METHOD))))
def test_the_benchmark_exists(script):
    assert (ROOT / script).is_file()


def test_the_presets_in_the_documentation_are_those_of_the_code():
    rows = {}
    for line in (ROOT / "docs" / "audit.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4:
            rows[cells[0].lower().replace(" ", "_")] = [cell.replace(",", "") for cell in cells[1:]]
    for name in QUICK.to_json().keys() - {"name"}:
        assert rows[name] == [str(preset.to_json()[name]) for preset in (QUICK, STANDARD, FULL)], name


FILES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = {path.name: path.read_text(encoding="utf-8") for path in FILES}
EXAMPLES = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in PAGES.items()
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
]
LINES = sorted(
    {
        re.sub(r"\s*\\\n\s*", " ", line)
        for text in PAGES.values()
        for line in re.findall(r"^    (?:\.venv/bin/)?(steadface (?:.*\\\n)*.*)$", text, re.MULTILINE)
    }
)
MENTIONED = re.compile(r"`(steadface [^`]+)`")
MENTIONS = sorted({" ".join(found.split()) for text in PAGES.values() for found in MENTIONED.findall(text)})
TINY = {
    "data": {"size": [16, 16], "batch": 4, "validation": 0.5, "workers": 0},
    "model": {"architecture": {"name": "mobilefacenet", "width": 0.125, "blocks": [1, 0, 0, 0], "embedding_size": 8}},
    "head": {"kind": "cosface", "s": 8, "m": 0.1},
    "method": {"gate": {"kind": "always"}},
    "evaluation": {"fmr": 0.1, "eps": ["4/255"], "steps": 1, "restarts": 1, "max_pairs": 2},
    "run": {"steps": 2, "log_every": 1, "checkpoint_every": 2, "device": "cpu", "threads": 1, "tensorboard": False},
}
"""A recipe like those that ship, for faces of 16 x 16 and two steps."""
FEW = dict.fromkeys(("apgd_steps", "fmn_start_steps", "fmn_steps", "square_queries", "transfer_steps"), 2)
"""Steps of an audit that has to run, not to find anything."""


@pytest.fixture(scope="module")
def named_faces(tmp_path_factory):
    """A folder of faces whose files are named as those of LFW."""
    faces = write_synthetic_faces(
        tmp_path_factory.mktemp("docs") / "FACES", people=40, images_per_person=4, size=(16, 16)
    )
    for image in sorted(faces.rglob("*.png")):
        number = int(image.stem) + 1
        image.rename(image.with_name(f"{image.parent.name}_{number:04d}{image.suffix}"))
    return faces


@pytest.fixture
def desk(tmp_path, monkeypatch, named_faces):
    """A folder with small stand-ins for everything that the examples name, to run them in."""
    for name in ("FACES", "LFW"):
        (tmp_path / name).symlink_to(named_faces)
    people = sorted(path.name for path in named_faces.iterdir())
    genuine = "".join(f"{person}\t1\t2\n{person}\t3\t4\n" for person in people)
    impostor = "".join(f"{one}\t1\t{other}\t1\n" for one, other in pairwise(people))
    (tmp_path / "pairs.txt").write_text(genuine + impostor)
    pictures = synthetic_faces(people=2, images_per_person=3, size=(112, 112), seed=5)
    # What no network that was hardly trained takes for two people is the same picture twice.
    for name, place in {"a": 0, "ada1": 1, "ada2": 1, "b": 3, "crowd": 4}.items():
        PIL.Image.fromarray(pictures.read(place)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "gated.yaml").write_text(yaml.safe_dump({"name": "gated", **TINY}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(request, "STANDARD", replace(QUICK, name="standard", **FEW))
    monkeypatch.setattr(face_finder, "open_detector", lambda *_: WholePicture())
    monkeypatch.setattr(architecture, "FAMILIES", architecture.FAMILIES)  # an example adds to them
    return tmp_path


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_run(desk, example):
    if "model.safetensors" in example:
        small = Architecture(image_size=(16, 16), embedding_size=16, width=0.25, blocks=(1, 0, 0, 0))
        save_backbone(desk / "model.safetensors", small.build(torch.Generator().manual_seed(0)).eval(), {})
        calibrate(desk / "model.safetensors", open_faces(desk / "FACES"))
    exec(compile(example, "example", "exec"), {"__name__": "__main__"})


def test_there_are_examples_and_commands():
    assert len(EXAMPLES) >= 2
    assert len(LINES) >= 10
    assert len(MENTIONS) >= 10


def understood(words):
    """The command of a line, in a context of its own, and the words that are left for it."""
    command, context = typer.main.get_command(app), None
    while hasattr(command, "resolve_command") and words and not words[0].startswith("-"):
        context = command.context_class(command, parent=context, info_name="steadface", resilient_parsing=True)
        _, command, words = command.resolve_command(context, words)
    return command, context, words


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_documentation_can_be_typed(line):
    command, context, words = understood(shlex.split(line.replace("PRESET", "quick"), comments=True)[1:])
    command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("mention", MENTIONS)
def test_a_command_that_is_mentioned_exists_with_its_options(mention):
    command, _, words = understood(shlex.split(mention, comments=True)[1:])
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--") and word != "--help"} <= options


@pytest.mark.parametrize("path", DOCTESTED, ids=lambda path: path.stem)
def test_the_examples_of_docstrings_run(path):
    found = doctest.testmod(importlib.import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts)))
    assert found.attempted > 0
    assert found.failed == 0


def reference():
    """The program that writes the pages of the reference."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("page", "written"), [("cli.md", "command_line"), ("python.md", "python_names")])
def test_the_reference_is_what_the_program_says(page, written):
    assert getattr(reference(), written)() == PAGES[page], "make reference, or run docs/reference.py"
