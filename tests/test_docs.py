"""What the documentation of the method names exists."""

import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

from steadface.audit.presets import FULL, QUICK, STANDARD

ROOT = Path(__file__).resolve().parent.parent
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
