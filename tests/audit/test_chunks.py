"""Work that is done once: kept, found again, and never mixed with another audit's."""

import os
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from steadface.audit.generator import Description, SteadyNetwork, load_generative, save_generative
from steadface.audit.session import Chunks
from steadface.errors import Conflict, SteadfaceError
from steadface.training.lock import locked
from steadface.workflows.audit import run_audit

from .audits import request

IDENTITY = {"model": "abc", "eps": [0.01, 0.02], "seed": 0}
DESCRIPTION = Description(
    **{"embedding_size": 32, "width": 2, "blocks": 1, "norm": "linf", "eps": 0.1, "victim": "v", "fingerprint": "f"},
    **{"steps": 1, "planned": 1, "batch": 4, "seed": 0, "faces": "f"},
)


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


def test_a_chunk_that_was_changed_or_belongs_elsewhere_is_made_again(tmp_path):
    chunks, file = Chunks(tmp_path / "a", IDENTITY), tmp_path / "a" / "state" / "one.safetensors"
    other = Chunks(tmp_path / "b", IDENTITY | {"seed": 1})
    for made in (chunks, other):
        made.get("one", lambda: {"x": np.zeros(3)})
    chunks.get("two", lambda: {"x": np.full(3, 2.0)})
    for put in (
        lambda: file.write_bytes(file.read_bytes()[:-1] + b"\x40"),
        lambda: shutil.copy(file.with_stem("two"), file),
        lambda: shutil.copy(other.folder / file.name, file),
        lambda: save_file({"x": np.full(3, 2.0)}, file),  # as earlier versions wrote them
        file.unlink,
    ):
        put()
        assert chunks.get("one", lambda: {"x": np.ones(3)})["x"].tolist() == [1, 1, 1]
        assert chunks.get("one", unreachable)["x"].tolist() == [1, 1, 1]


def test_chunks_of_other_images_are_made_again(tmp_path):
    for contents, value in (("a", 1), ("b", 2)):
        made = Chunks(tmp_path, IDENTITY, contents).get("one", partial(dict, x=np.array([value])))
        assert made["x"].tolist() == [value]
    assert Chunks(tmp_path, IDENTITY, "b").get("one", unreachable)["x"].tolist() == [2]


def test_a_chunk_that_is_a_pipe_is_not_waited_for(tmp_path):
    chunks = Chunks(tmp_path, IDENTITY)
    os.mkfifo(tmp_path / "state" / "one.safetensors")
    with pytest.raises(SteadfaceError, match="pipe"):
        chunks.get("one", lambda: {"x": np.ones(3)})


def test_one_process_at_a_time_works_in_the_folder(tmp_path):
    with locked(tmp_path), pytest.raises(Conflict, match="already"):
        run_audit(request(), tmp_path)


def test_what_a_trained_attack_has_learnt_is_part_of_what_an_audit_is_of(tmp_path):
    told = set()
    for seed in (0, 0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = SteadyNetwork(embedding_size=32, width=2, blocks=1)
        save_generative(tmp_path / "g.safetensors", network, DESCRIPTION)
        asked = request(extra=(("generator g", load_generative(tmp_path / "g.safetensors")),))
        told.add(str(asked.identity()["extra"]))
    assert len(told) == 2


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
