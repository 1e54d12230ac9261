"""Arrows between the packages point one way, which keeps each of them usable and readable alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "steadface"

MATHEMATICS = {"attacks", "heads"}
FACES = {"data", "backbones"}
SHARED = {"errors", "files", "machine", "arguments", "devices", "records", "signals", "ranks"}
JOBS = {"training", "evaluation", "report", "recognizers", "audit", "certification", "faces", "gallery", "recognition"}

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "machine": {"errors"},
    "arguments": {"errors", "files"},
    "signals": set(),
    "devices": {"errors"},
    "ranks": {"errors", "devices"},  # the processes that train together
    "records": {"errors"},  # what a JSON file says, as types
    "graphs": {"errors"},  # what an ONNX file asks for, before it is run
    "attacks": {"errors", "arguments"},  # nothing of faces, nothing of training
    "data": SHARED,
    "backbones": SHARED,
    "heads": {"errors", "ranks"},
    "recognizers": {"evaluation", "gallery", "graphs"} | MATHEMATICS | FACES | SHARED,  # of any origin
    "faces": {"data", "graphs"} | SHARED,  # a photograph becomes aligned faces
    "gallery": SHARED,  # who is enrolled, and the search among them; knows vectors, no images
    "evaluation": MATHEMATICS | FACES | SHARED,
    "certificate_record": {"audit_record", "records"},  # the same of `certificate.json`
    "audit_record": {"errors", "files", "records"},  # what `audit.json` holds: audit writes it, report reads it
    "audit": {"audit_record", "evaluation", "recognizers"} | MATHEMATICS | FACES | SHARED,
    "certification": {"audit", "audit_record", "certificate_record", "evaluation", "recognizers"}
    | MATHEMATICS
    | FACES
    | SHARED,  # a bound from below
    "report": {"audit_record", "certificate_record"} | MATHEMATICS | FACES | SHARED,
    "recognition": {"faces", "gallery", "recognizers", "evaluation"} | MATHEMATICS | FACES | SHARED,
    "training": {"evaluation", "recognizers"} | MATHEMATICS | FACES | SHARED,  # networks of any origin
    "clustering": set(),  # knows vectors, no images
    "workflows": {"audit_record", "certificate_record", "clustering"}
    | JOBS
    | MATHEMATICS
    | FACES
    | SHARED,  # use cases
    "client": {"errors", "files"},  # for small programs: nothing of the recogniser
    "service": {"client", "workflows"} | JOBS | MATHEMATICS | FACES | SHARED,  # use cases over HTTP
    "cli": {"workflows", "service"} | JOBS | MATHEMATICS | FACES | SHARED,
    "__main__": {"cli", "machine", "signals"},
    "__init__": {"workflows"} | JOBS | MATHEMATICS | FACES | SHARED,
}
"""Package or module directly below ``steadface`` -> what it may import of the others."""


def imported(code: str, package: str) -> Iterator[str]:
    """What ``code``, a module in ``package`` (dotted), imports below ``steadface``, wherever in the code."""
    for node in ast.walk(ast.parse(code)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            top, *rest = name.split(".")
            if top == "steadface" and rest:
                yield rest[0]


def violations(code: str, path: Path) -> list[str]:
    """The arrows of ``code``, the module at ``path`` below ROOT, that point the wrong way."""
    owner = path.parts[0].removesuffix(".py")
    package = ".".join(["steadface", *path.parent.parts])
    return [f"{path} imports {name}" for name in imported(code, package) if name not in ALLOWED[owner] | {owner}]


MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def test_every_part_has_its_place() -> None:
    assert {path.parts[0].removesuffix(".py") for path in MODULES} == set(ALLOWED)


def test_the_arrows_make_no_circle() -> None:
    left = dict(ALLOWED)
    while left:
        free = [name for name, below in left.items() if not below & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_arrows_point_one_way() -> None:
    assert not [wrong for path in MODULES for wrong in violations((ROOT / path).read_text(), path)]


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("from steadface.training.recipe import Recipe", "evaluation/evaluate.py"),
        ("from steadface import training", "evaluation/evaluate.py"),
        ("import steadface.training.recipe as r", "evaluation/evaluate.py"),
        ("def f():\n    from steadface.data.faces import fit_size", "attacks/pgd.py"),
        ("from ..backbones import Backbone", "attacks/pgd.py"),
        ("from ...attacks import pgd", "data/synthetic/render.py"),
        ("if TYPE_CHECKING:\n    from steadface.workflows.train import train", "training/loop.py"),
        ("from steadface.backbones import Backbone", "data/faces.py"),
        ("from steadface.cli import main", "workflows/train.py"),
    ],
)
def test_the_check_sees_wrong_arrows(code: str, path: str) -> None:
    assert len(violations(code, Path(path))) == 1


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("from steadface.evaluation.labelled import validation_metrics", "training/loop.py"),
        ("from .balls import Ball\nimport torch, steadface", "attacks/pgd.py"),
        ("from ..faces import fit_size", "data/synthetic/render.py"),
        ("'from steadface.training import loop'", "evaluation/evaluate.py"),
    ],
)
def test_the_check_lets_right_ones_pass(code: str, path: str) -> None:
    assert not violations(code, Path(path))
