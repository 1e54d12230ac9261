"""The table of bounds in docs/security.md says what the code does."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import steadface

DOCS = Path(__file__).parents[1] / "docs" / "security.md"
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
ROWS = re.findall(
    r"^\| ([^|]+) \| ([\d,]+) ?([KMG]iB)? \|[^|]*\| `([\w.]+)\.(\w+)` \|$", DOCS.read_text(), re.MULTILINE
)
SHOWN = {
    # What is drawn, sampled or said, and no bound of a reader.
    *("audit.battery.LARGEST", "backbones.torchfiles.LONGEST_NAME", "backbones.torchfiles.MOST_DIMENSIONS"),
    *("cli.export.MOST_FACES", "evaluation.thresholds.MOST_IMAGES", "evaluation.thresholds.MOST_PER_PERSON"),
    *(
        "faces.alignment.LARGEST",
        "faces.scrfd.MOST_FACES",
        "faces.searching.MOST_ENLARGED",
        "faces.surveying.MOST_WORKERS",
    ),
    *("data.loading.LONGEST_SOCKET", "data.recordio.LARGEST_LABEL", "recognizers.convention.LARGEST_MEAN"),
    *("faces.yunet.MOST_FACES", "gallery.index.encodings.LONGEST", "report.audit.checks.MOST_SURFACES"),
    *("report.history.MOST_STEPS", "report.sheet.MOST_EXAMPLES", "report.style.MOST_POINTS"),
    *("report.training_plots.MOST_SPANS", "training.recipe.recipe.MOST_SAID"),
}


@pytest.mark.parametrize(("what", "number", "unit", "module", "name"), ROWS, ids=[row[0] for row in ROWS])
def test_each_bound_is_that_of_the_code(what: str, number: str, unit: str, module: str, name: str) -> None:
    stated = int(number.replace(",", "")) * UNITS[unit]
    assert getattr(import_module(f"steadface.{module}"), name) == stated, what


def test_every_bound_of_the_code_is_in_the_table() -> None:
    root = Path(steadface.__file__).parent
    found = set()
    for file in root.rglob("*.py"):
        module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        constants = re.findall(
            r"^((?:MOST|LARGEST|LONGEST|DEEPEST)(?:_[A-Z]+)?)\b[^=\n]*=", file.read_text(), re.MULTILINE
        )
        found |= {f"{module}.{name}" for name in constants}
    missing = sorted(found - SHOWN - {f"{module}.{name}" for *_, module, name in ROWS})
    assert not missing, " ".join(missing)
