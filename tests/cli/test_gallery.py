import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from steadface.backbones import Architecture, save_backbone
from steadface.gallery.gallery import Gallery
from steadface.gallery.storage import ModelIdentity

from ..gallery.engines import MemoryEngine
from .conftest import Call, Said

if TYPE_CHECKING:
    from ..postgres_server import Server

MODEL = ModelIdentity(fingerprint="ab" * 32, dimension=4, mirror=True, name="[ours]")
VECTORS = np.eye(4, dtype=np.float32)


@pytest.fixture(autouse=True)
def _keys_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("STEADFACE_GALLERY_KEY", raising=False)
    monkeypatch.delenv("STEADFACE_GALLERY_KEY_FILE", raising=False)


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Ada with a consent and two templates, Bob [the builder] with one."""
    path = tmp_path / "g.db"
    with Gallery.create(path, model=MODEL) as made:
        made.enroll("Ada", VECTORS[:2], consent="form [7]", expires=datetime(2999, 1, 1, tzinfo=UTC))
        made.enroll("Bob [the builder]", VECTORS[2:3])
    return path


def told(said: Said) -> object:
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_create_makes_a_gallery_for_a_model_and_tells_where_the_key_is(call: Call, tmp_path: Path) -> None:
    model, path = tmp_path / "tiny.safetensors", tmp_path / "g.db"
    architecture = Architecture(width=0.125, blocks=(1, 0, 0, 0), embedding_size=8, image_size=(16, 16))
    save_backbone(model, architecture.build(torch.Generator().manual_seed(0)), {})
    said = call("gallery", "create", "--gallery", path, "--model", model)
    assert said.code == 0, said.err
    (key,) = (tmp_path / "config" / "steadface" / "keys").iterdir()
    assert f"its key is in {key}: keep a copy of that elsewhere" in said.err
    assert "8 numbers" in said.out
    again = call("gallery", "create", "--gallery", path, "--model", model)
    assert (again.code, "there is a file at" in again.err) == (5, True)
    other = call(
        "gallery", "create", "--gallery", tmp_path / "h.db", "--model", model, "--key", tmp_path / "k", "--json"
    )
    assert told(other)["key"] == str(tmp_path / "k")  # type: ignore[index]
    assert call("gallery", "info", "--gallery", tmp_path / "h.db").code == 4
    assert call("gallery", "info", "--gallery", tmp_path / "h.db", "--key", tmp_path / "k").code == 0


def test_list_and_show_tell_who_is_enrolled(call: Call, gallery: Path) -> None:
    said = call("gallery", "list", "--gallery", gallery)
    assert said.code == 0
    for expected in ("Ada", "form [7]", "2999-01-01", "Bob [the builder]"):
        assert expected in said.out
    people = told(call("gallery", "list", "--gallery", gallery, "--json"))
    assert [(one["person"], one["templates"], one["expired"]) for one in people] == [  # type: ignore[attr-defined]
        ("Ada", 2, False),
        ("Bob [the builder]", 1, False),
    ]
    shown = told(call("gallery", "show", "Ada", "--gallery", gallery, "--json"))
    assert people[0].items() <= shown.items()  # type: ignore[index, attr-defined]
    assert [one["template"] for one in shown["template_list"]] == [1, 2]  # type: ignore[index]
    assert "form [7]" in call("gallery", "show", "Ada", "--gallery", gallery).out


@pytest.mark.parametrize(
    "words",
    [
        *(("show", "Eve"), ("remove", "Eve"), ("remove", "Eve", "--template", 1), ("rename", "Eve", "x")),
        *(("merge", "Eve", "Ada"), ("merge", "Ada", "Eve")),
    ],
)
def test_somebody_unknown_is_exit_code_one(call: Call, gallery: Path, words: tuple[object, ...]) -> None:
    said = call("gallery", *words, "--gallery", gallery)
    assert (said.code, "'Eve' is not enrolled" in said.err) == (4, True)


def test_one_template_is_removed(call: Call, gallery: Path) -> None:
    said = call("gallery", "remove", "Ada", "--template", 1, "--gallery", gallery)
    assert (said.code, said.out) == (0, "removed template 1 of Ada, now 1 template(s)\n")
    wrong = call("gallery", "remove", "Ada", "--template", 3, "--gallery", gallery)
    assert (wrong.code, "template 3" in wrong.err) == (4, True)
    last = call("gallery", "remove", "Ada", "--template", 2, "--gallery", gallery, "--json")
    assert (last.code, "the only one of Ada" in last.err) == (5, True)
    assert call("gallery", "verify-log", "--gallery", gallery).code == 0


def test_rename_renames(call: Call, gallery: Path) -> None:
    said = call("gallery", "rename", "Bob [the builder]", "\u0410da", "--gallery", gallery)
    assert (said.code, said.out) == (0, "renamed Bob [the builder] to \u0410da\n")
    assert "the name \u0410da is easily taken for Ada" in said.err
    taken = call("gallery", "rename", "\u0410da", "Ada", "--gallery", gallery)
    assert (taken.code, "Ada is enrolled already" in taken.err) == (5, True)
    told_so = told(call("gallery", "rename", "\u0410da", "Bob", "--gallery", gallery, "--json"))
    assert (told_so["person"], told_so["confusable"]) == ("Bob", [])  # type: ignore[index]


def test_merge_makes_one_of_two(call: Call, gallery: Path) -> None:
    said = call("gallery", "merge", "Bob [the builder]", "Ada", "--gallery", gallery)
    assert (said.code, said.out) == (
        0,
        "merged Bob [the builder] into Ada, now 3 templates (highest cosine between both 0.000)\n",
    )
    assert "was not judged without --model" in said.err
    (ada,) = told(call("gallery", "list", "--gallery", gallery, "--json"))  # type: ignore[misc]
    assert (ada["person"], ada["templates"]) == ("Ada", 3)  # type: ignore[has-type]


def test_remove_removes(call: Call, gallery: Path) -> None:
    said = call("gallery", "remove", "Bob [the builder]", "--gallery", gallery)
    assert (said.code, said.out) == (0, "removed Bob [the builder] and 1 template(s)\n")
    removed = told(call("gallery", "remove", "Ada", "--gallery", gallery, "--json"))
    assert removed == {"removed": [{"person": "Ada", "templates": 2}]}
    assert told(call("gallery", "list", "--gallery", gallery, "--json")) == []


def test_expire_removes_who_expired(call: Call, gallery: Path) -> None:
    assert "nobody's consent has expired" in call("gallery", "expire", "--gallery", gallery).out
    past = datetime.now(UTC) - timedelta(days=2)
    with Gallery.open(gallery, clock=lambda: past) as opened:
        opened.enroll("Eve", VECTORS[3:], expires=past + timedelta(days=1))
    assert "(expired)" in call("gallery", "list", "--gallery", gallery).out
    assert call("gallery", "expire", "--gallery", gallery).out == "removed Eve and 1 template(s)\n"


def test_rotate_key_makes_a_new_one(call: Call, gallery: Path, tmp_path: Path) -> None:
    (old,) = (tmp_path / "config" / "steadface" / "keys").iterdir()
    said = call("gallery", "rotate-key", "--gallery", gallery)
    assert said.code == 0
    assert f"the old key, in {old}, still opens older backups" in said.err
    wrong = call("gallery", "info", "--gallery", gallery, "--key", old)
    assert (wrong.code, "is sealed with the key" in wrong.err) == (2, True)
    new = told(call("gallery", "rotate-key", "--gallery", gallery, "--new-key", tmp_path / "mine", "--json"))
    assert new["source"] == str(tmp_path / "mine")  # type: ignore[index]
    assert call("gallery", "info", "--gallery", gallery, "--key", tmp_path / "mine").code == 0


def test_verify_log_says_what_is_wrong_with_exit_code_one(call: Call, gallery: Path) -> None:
    said = call("gallery", "verify-log", "--gallery", gallery)
    assert (said.code, "the log is intact: 3 entries, head " in said.out) == (0, True)
    head = said.out.split()[-1]
    assert call("gallery", "verify-log", "--gallery", gallery, "--head", head).code == 0
    for same in (head.upper(), f" {head} "):
        assert call("gallery", "verify-log", "--gallery", gallery, "--head", same).code == 0
    assert call("gallery", "verify-log", "--gallery", gallery, "--head", "00" * 32).code == 1
    for wrong in ("00", head[:-1], head[:-1] + "g", ""):
        assert "no head of a log" in call("gallery", "verify-log", "--gallery", gallery, "--head", wrong).err
    with closing(sqlite3.connect(gallery, isolation_level=None)) as connection:
        connection.execute("UPDATE journal SET time = 'later' WHERE sequence = 2")
    said = call("gallery", "verify-log", "--gallery", gallery)
    assert (said.code, "entry 2 (enroll) was edited" in said.err) == (1, True)
    said = call("gallery", "verify-log", "--gallery", gallery, "--json")
    assert (said.code, json.loads(said.out)["findings"][0]["sequence"]) == (1, 2)


def test_export_and_import_carry_people_over(call: Call, gallery: Path, tmp_path: Path) -> None:
    file, sealing, target = tmp_path / "e.parquet", tmp_path / "sealing", tmp_path / "h.db"
    Gallery.create(target, model=MODEL).close()
    assert told(call("gallery", "export", file, "--gallery", gallery, "--json")) == {"file": str(file), "rows": 2}
    assert call("gallery", "import", file, "--gallery", target).code == 2
    assert call("gallery", "export", file, "--gallery", gallery, "--sealed-with", sealing).code == 0
    said = call("gallery", "import", file, "--gallery", target, "--sealed-with", sealing)
    assert (said.code, "2 people enrolled" in said.out) == (0, True)
    assert call("gallery", "import", file, "--gallery", target, "--sealed-with", sealing).code == 5
    assert call("gallery", "export", file, "--gallery", gallery, "--plain-vectors").code == 0


def test_backup_copies(call: Call, gallery: Path, tmp_path: Path) -> None:
    said = call("gallery", "backup", tmp_path / "b.db", "--gallery", gallery)
    assert (said.code, "copied to" in said.out) == (0, True)
    assert told(call("gallery", "info", "--gallery", tmp_path / "b.db", "--json"))["people"] == 2  # type: ignore[index]


def test_info_tells_model_and_size(call: Call, gallery: Path) -> None:
    said = call("gallery", "info", "--gallery", gallery)
    assert said.code == 0
    for expected in ("the model [ours] (abababababab, 4 numbers, with mirror images)", "MiB", "head of the log"):
        assert expected in said.out
    info = told(call("gallery", "info", "--gallery", gallery, "--json"))
    assert (info["people"], info["templates"], info["model"]["dimension"]) == (2, 3, 4)  # type: ignore[index]


def test_where_no_gallery_is_the_exit_code_says_so(call: Call, tmp_path: Path) -> None:
    said = call("gallery", "list", "--gallery", tmp_path / "missing.db")
    assert (said.code, "no gallery at" in said.err) == (4, True)


def test_a_gallery_goes_into_a_database_and_back(call: Call, gallery: Path, postgres: "Server", tmp_path: Path) -> None:
    address = postgres.address()
    copied = told(call("gallery", "copy", gallery, address, "--json"))
    assert told(call("gallery", "info", "--gallery", address, "--json"))["head"] == copied["head"]  # type: ignore[index]
    again = call("gallery", "copy", gallery, address)
    assert (again.code, "move it away" in again.err) == (5, True)
    removed = call("gallery", "remove", "Ada", "--gallery", address)
    assert (removed.code, "does not overwrite what was deleted" in removed.err) == (0, True)
    assert "remains" in told(call("gallery", "remove", "Bob [the builder]", "--gallery", address, "--json"))  # type: ignore[operator]
    back = call("gallery", "copy", address, tmp_path / "back.db")
    assert (back.code, f"to {tmp_path / 'back.db'}" in back.out) == (0, True)
    assert call("gallery", "verify-log", "--gallery", tmp_path / "back.db", "--head", copied["head"]).code == 0  # type: ignore[index]


def test_rights_are_printed_or_granted_in_a_database_alone(call: Call, gallery: Path, postgres: "Server") -> None:
    address = postgres.address()
    assert call("gallery", "copy", gallery, address).code == 0
    printed = call("gallery", "grant", 'a "b"', "--gallery", address, "--sql")
    assert (printed.code, 'journal TO "a ""b""";' in printed.out) == (0, True)
    assert call("gallery", "grant", 'a "b"', "--gallery", address).code == 4
    postgres.sql("DROP ROLE IF EXISTS visitor_1", "CREATE ROLE visitor_1")
    assert call("gallery", "grant", "visitor_1", "--gallery", address, "--read-only").code == 0
    assert call("gallery", "grant", "visitor_1", "--gallery", gallery).code == 6


def test_an_index_is_checked_and_mended(call: Call, gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = MemoryEngine(4)
    monkeypatch.setattr("steadface.cli.gallery.index_at", lambda _: {"engine": lambda _: engine})
    command = ("gallery", "check-index", "--gallery", gallery, "--index", "an address")
    right = {"templates": 3, "missing": 0, "other": 0, "surplus": 0, "pending": 0, "right": True, "mended": False}
    assert told(call(*command, "--json")) == right
    engine.behind = 2
    said = call(*command)
    assert (said.code, "2 of its vectors are not in the graph" in said.err) == (0, True)
    engine.behind = 0
    engine.remove([1, 3])
    said = call(*command)
    assert (said.code, "lacked 2" in said.out, "--mend" in said.err) == (1, True, True)
    assert json.loads(call(*command, "--after", 1, "--json").out)["missing"] == 1
    said = call(*command, "--mend")
    assert (said.code, "put right" in said.out) == (0, True)
    assert told(call(*command, "--json")) == right

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "within", stopped)
    said = call(*command)
    assert (said.code, "go on with --after 0" in said.err) == (130, True)


def test_what_names_no_index_is_refused_before_a_model_is_opened(call: Call, gallery: Path) -> None:
    assert call("gallery", "check-index", "--gallery", gallery, "--index", "exact").code == 2
    for command in (("identify", "x.jpg"), ("watch", "x.mp4")):
        said = call(*command, "--gallery", gallery, "--model", "none", "--index", "flat")
        assert (said.code, "'flat' names no index" in said.err) == (2, True)
