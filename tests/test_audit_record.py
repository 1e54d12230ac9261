"""What `audit.json` may hold: it comes back as it was, older files are read, and what cannot be is refused by place."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steadface.audit_record import Audit, Comparison, read_audit
from steadface.errors import InvalidInput, NotFound

from .report.audits import audit, comparison, record

LATER = ("identification", "corruptions", "patches", "surfaces", "checks", "other_thresholds", "seconds", "versions")
"""Keys that not every file has."""


def written(folder: Path, data: Any) -> Path:
    file = folder / "audit.json"
    file.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return file


def leaves(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of one number, word or truth of every kind in the data: of lists, what their first entry has."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from leaves(value, (*place, key))
    elif isinstance(data, list):
        yield from leaves(data[0], (*place, 0)) if data else ()
    elif data is not None:
        yield place


def changed(data: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found = json.loads(json.dumps(data))
    inner = found
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return found


def at(data: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        data = data[step]
    return data


def test_a_record_comes_back_as_it_was() -> None:
    data = audit()
    assert record(data).to_json() == data
    both = comparison(data, audit(levels=60.0))
    assert Comparison.model_validate_json(json.dumps(both)).to_json() == both


@pytest.mark.parametrize("missing", LATER)
def test_a_file_without_later_keys_is_read_and_stays_without(tmp_path: Path, missing: str) -> None:
    data = {key: value for key, value in audit().items() if key != missing}
    assert read_audit(written(tmp_path, data)).to_json() == data


def test_keys_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    data = audit()
    assert read_audit(written(tmp_path, data | {"tomorrow": math.pi})).to_json() == data


@pytest.mark.parametrize("place", list(leaves(audit())), ids=lambda place: ".".join(map(str, place)))
def test_every_leaf_has_its_type(tmp_path: Path, place: tuple[Any, ...]) -> None:
    data = audit()
    wrong = 7 if isinstance(at(data, place), str) else "?"
    with pytest.raises(InvalidInput) as refused:
        read_audit(written(tmp_path, changed(data, place, wrong)))
    assert str(place[0]) in str(refused.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("threshold",), math.nan),
        (("seconds",), math.inf),
        (("clean", "fnmr"), 1.5),
        (("clean", "ci", "fmr"), [0.4, 0.2]),
        (("clean", "ci", "fmr"), [0.4]),
        (("worst_case", 0, "error_rate"), -0.1),
        (("worst_case", 0, "eps"), 0),
        (("worst_case", 0, "norm"), "l1"),
        (("worst_case", 0, "by", "APGD"), -1),
        (("attacks", 0, "pairs"), 2.5),
        (("attacks", 0, "part_of_worst_case"), "no"),
        (("settings", "eps"), []),
        (("settings", "preset"), "easy"),
        (("model", "image_size"), [112, 0]),
        (("pairs", 0, "distance"), -1.0),
        (("pairs", 0, "goal"), "hiding"),
        (("pairs",), []),
        (("worst_case",), []),
        (("surfaces", 0, "cosine"), [[0.1, 0.2]]),
        (("surfaces", 0, "gradient"), [0.1]),
        (("identification", "attacks", 0, "goal"), "neither"),
        (("kind",), "report"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"audit\.json is no audit"):
        read_audit(written(tmp_path, changed(audit(), place, value)))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "half a fi"])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput):
        read_audit(written(tmp_path, text))


def test_a_file_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"audit\.json"):
        read_audit(tmp_path / "audit.json")


def test_a_record_cannot_be_changed() -> None:
    found: Audit = record(audit())
    with pytest.raises(ValueError, match="frozen"):
        found.threshold = 0.5  # type: ignore[misc]
