"""`steadface import-compreface`: everybody anew, once, and a reason for whoever is not."""

import csv
import json
from pathlib import Path

import pytest

from steadface.recognition import face_finder

from ..cli.conftest import Call, call
from ..data.dumps import dump
from .test_compreface import WholePicture

__all__ = ["call"]


@pytest.fixture(autouse=True)
def _detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_finder, "open_detector", WholePicture)


def test_everybody_is_enrolled_anew_and_once(call: Call, model: Path, pngs: list[list[bytes]], tmp_path: Path) -> None:
    file, report = tmp_path / "dump.sql", tmp_path / "left.csv"
    people = {
        "Ada": [*pngs[0][:1] * 2, b"no picture"],
        "Eve": pngs[1][:1],
        "Two in one": [pngs[2][0], pngs[5][0], pngs[9][0], pngs[14][0]],
        "One odd": [*pngs[7][:1] * 3, pngs[14][0]],
        "Nobody kept": [None, None],
        " ": pngs[3][:1],
        "None usable": [b"neither"],
    }
    file.write_text(dump({"doors": people}))
    words = ("import-compreface", file, "--gallery", tmp_path / "g.db", "--key", tmp_path / "g.key", "--model", model)
    first = call(*words, "--report", report, "--consent", "form 7", "--json")
    assert first.code == 1, first.err
    told = json.loads(first.out)
    assert [told[name] for name in ("enrolled", "pictures", "before")] == [3, 6, 0]
    with report.open(newline="") as lines:
        left = [(row["subject"], bool(row["picture"])) for row in csv.DictReader(lines)]
    assert left == [
        ("Ada", True),
        ("Two in one", False),
        ("One odd", True),
        ("Nobody kept", False),
        ("Nobody kept", False),
        (" ", False),
        ("None usable", True),
        ("None usable", False),
    ]
    assert report.stat().st_mode & 0o077 == 0

    listed = ("gallery", "list", "--gallery", tmp_path / "g.db", "--key", tmp_path / "g.key", "--json")
    before = json.loads(call(*listed).out)
    assert [(one["person"], one["templates"], one["consent"]) for one in before] == [
        ("Ada", 1, "form 7"),
        ("Eve", 1, "form 7"),
        ("One odd", 1, "form 7"),
    ]
    again = json.loads(call(*words, "--json").out)
    assert [again[name] for name in ("enrolled", "pictures", "before")] == [0, 0, 3]
    assert json.loads(call(*listed).out) == before

    file.write_text(dump({"doors": {"Eve": pngs[1][:1] * 2}}))
    more = call(*words)
    assert more.code == 1
    assert "Eve is enrolled already" in more.err
    assert json.loads(call(*listed).out) == before


def test_it_goes_on_where_it_was_interrupted(
    call: Call, model: Path, pngs: list[list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "dump.sql"
    file.write_text(dump({"doors": {"Ada": pngs[0][:1], "Eve": pngs[1][:1]}}))
    words = ("import-compreface", file, "--gallery", tmp_path / "g.db", "--key", tmp_path / "g.key", "--model", model)
    looked: list[object] = []

    class Interrupted(WholePicture):
        def detect(self, image: object) -> object:  # type: ignore[override]
            looked.append(image)
            if len(looked) == 2:
                raise KeyboardInterrupt
            return super().detect(image)  # type: ignore[arg-type]

    monkeypatch.setattr(face_finder, "open_detector", Interrupted)
    assert call(*words).code == 130
    told = json.loads(call(*words, "--json").out)
    assert [told[name] for name in ("enrolled", "before")] == [1, 1]


def test_a_service_is_asked_for_before_anything_is_made(call: Call, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "dump.sql"
    several = {"doors": {"Ada": [b"x"]}, "demo": {"Bob": [b"y"]}}
    file.write_text(dump(several))
    said = call("import-compreface", file, "--gallery", tmp_path / "g.db", "--model", model)
    assert said.code == 2
    assert "--service" in said.err
    said = call("import-compreface", file, "--gallery", tmp_path / "g.db", "--model", model, "--report", file)
    assert (said.code, file.read_text()) == (5, dump(several))
    assert not (tmp_path / "g.db").exists()
