"""Work that is done once: kept, found again, and never mixed with another audit's."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from steadface.audit.session import Chunks
from steadface.errors import SteadfaceError

IDENTITY = {"model": "abc", "eps": [0.01, 0.02], "seed": 0}


def unreachable():
    raise AssertionError("this chunk was finished already")


def test_a_finished_chunk_is_not_made_again(tmp_path):
    made = {"cosine": np.arange(6, dtype=np.float32).reshape(2, 3), "broken": np.array([True, False])}
    Chunks(tmp_path, IDENTITY).get("one", lambda: made)
    again = Chunks(tmp_path, IDENTITY).get("one", unreachable)
    assert again.keys() == made.keys()
    for name, value in made.items():
        assert again[name].dtype == value.dtype
        assert np.array_equal(again[name], value)


def test_a_damaged_chunk_is_made_again(tmp_path):
    chunks = Chunks(tmp_path, IDENTITY)
    chunks.get("one", lambda: {"x": np.zeros(3)})
    (tmp_path / "state" / "one.safetensors").write_bytes(b"half a fi")
    assert chunks.get("one", lambda: {"x": np.ones(3)})["x"].tolist() == [1, 1, 1]


def test_a_chunk_that_was_changed_is_made_again_and_one_of_an_earlier_version_is_not(tmp_path):
    chunks, file = Chunks(tmp_path, IDENTITY), tmp_path / "state" / "one.safetensors"
    chunks.get("one", lambda: {"x": np.zeros(3)})
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"\x40")
    assert chunks.get("one", lambda: {"x": np.ones(3)})["x"].tolist() == [1, 1, 1]
    assert chunks.get("one", unreachable)["x"].tolist() == [1, 1, 1]
    save_file({"x": np.full(3, 2.0)}, file)
    assert chunks.get("one", unreachable)["x"].tolist() == [2, 2, 2]


def test_another_audit_in_the_folder_is_refused_and_named(tmp_path):
    Chunks(tmp_path, IDENTITY)
    with pytest.raises(SteadfaceError, match="seed was 0 and is 1"):
        Chunks(tmp_path, IDENTITY | {"seed": 1})
    Chunks(tmp_path, IDENTITY)


def test_a_finished_audit_is_not_overwritten(tmp_path):
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(SteadfaceError, match="finished audit already"):
        Chunks(tmp_path, IDENTITY)
    assert (tmp_path / "audit.json").read_text() == "{}"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, "\xff", " " * 2**21])
def test_what_says_nothing_of_the_audit_begun_there_is_refused(tmp_path, text):
    Chunks(tmp_path, IDENTITY)
    (tmp_path / "state" / "audit-of.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SteadfaceError, match="choose another --out"):
        Chunks(tmp_path, IDENTITY)


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "7", '{"model": {"a": [[[]]]}}'])
def test_what_is_of_something_else_is_another_audit(tmp_path, text):
    Chunks(tmp_path, IDENTITY)
    (tmp_path / "state" / "audit-of.json").write_text(text)
    with pytest.raises(SteadfaceError, match="another audit"):
        Chunks(tmp_path, IDENTITY)
