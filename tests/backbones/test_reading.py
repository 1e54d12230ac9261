"""Torch files are read as tensors only: what needs classes is refused, named, and never run."""

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steadface.backbones import load_backbone
from steadface.backbones.reading import read_safetensors
from steadface.errors import SteadfaceError

from .networks import SMALL, bare, same, trained

both_formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("executed",)


class Settings:
    pass


def refusal(content: Any, file: Path, *, zipped: bool = True, protocol: int = 2) -> str:
    torch.save(content, file, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    with pytest.raises(SteadfaceError, match="was not read: unpickling can run code") as caught:
        load_backbone(file)
    return str(caught.value)


@both_formats
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4):
        message = refusal({"state_dict": Hostile()}, tmp_path / "w.pth", zipped=zipped, protocol=protocol)
        assert f"needs classes beside its tensors ({os.name}.mkdir)" in message
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(SteadfaceError, match="was not read: unpickling can run code"):
        load_backbone(tmp_path / "w.pth")
    assert not (tmp_path / "executed").exists()


@both_formats
def test_a_whole_module_is_named_with_the_way_to_save_its_weights(zipped: bool, tmp_path: Path) -> None:
    message = refusal(trained(SMALL), tmp_path / "w.pth", zipped=zipped)
    assert "is a whole module, which needs its classes (steadface.backbones." in message
    assert "torch.save(model.state_dict(), NEW)" in message
    message = refusal(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "w.pth", zipped=zipped)
    assert "whole module, which needs its classes (torch.nn.modules.container.Sequential, torch.nn.modules.l" in message


@both_formats
def test_the_classes_beside_the_tensors_are_named(zipped: bool, tmp_path: Path) -> None:
    state = bare(trained(SMALL))
    others = {"args": argparse.Namespace(epochs=3), "best": np.float64(0.99), "cfg": Settings()}
    message = refusal({"state_dict": state, **others}, tmp_path / "w.pth", zipped=zipped)
    assert "needs classes beside its tensors (argparse.Namespace, " in message
    assert "numpy." in message
    assert 'torch.save(loaded["state_dict"], NEW)' in message


def test_many_and_long_names_are_not_all_repeated(tmp_path: Path) -> None:
    kinds = [type("x" * 500 + str(i), (), {"__module__": __name__}) for i in range(9)]
    globals().update({kind.__name__: kind for kind in kinds})
    try:
        message = refusal([kind() for kind in kinds], tmp_path / "w.pth")
    finally:
        for kind in kinds:
            del globals()[kind.__name__]
    assert len(message) < len(str(tmp_path)) + 600


@both_formats
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickles_is_read(zipped: bool, protocol: int, tmp_path: Path) -> None:
    saved, file = trained(SMALL), tmp_path / "w.pth"
    torch.save(bare(saved), file, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    assert same(load_backbone(file), saved)


@both_formats
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_torch_file_that_ends_early_is_said_to(zipped: bool, keep: float, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(bare(trained(SMALL)), file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(SteadfaceError, match=r"truncated.*fetch it again"):
        load_backbone(file)


def test_flipped_bytes_of_a_torch_file_are_no_crash(tmp_path: Path) -> None:
    """Every error is ours, whichever byte of the description is hit; damaged weights may also go unseen."""
    file, random = tmp_path / "w.pth", np.random.default_rng(0)
    torch.save({"conv1.weight": torch.zeros(2)}, file, _use_new_zipfile_serialization=False)
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    for place in range(0, len(whole), 3):
        damaged = whole.copy()
        damaged[place] ^= random.integers(1, 256, dtype=np.uint8)
        file.write_bytes(damaged.tobytes())
        with pytest.raises(SteadfaceError):
            load_backbone(file)


def test_a_damaged_description_in_an_archive_is_no_crash(tmp_path: Path) -> None:
    """Its checksum fails."""
    file = tmp_path / "w.pth"
    torch.save({"conv1.weight": torch.zeros(2)}, file)
    whole = file.read_bytes()
    assert whole.count(b"_rebuild_tensor_v2") == 1
    file.write_bytes(whole.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_vX"))
    with pytest.raises(SteadfaceError, match=r"not a readable torch file"):
        load_backbone(file)


def test_tensors_saved_on_a_gpu_are_read_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = trained(SMALL)
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
    torch.save(bare(saved), tmp_path / "w.pth")
    monkeypatch.undo()
    assert b"cuda:0" in (tmp_path / "w.pth").read_bytes()
    assert same(load_backbone(tmp_path / "w.pth"), saved)


def test_a_header_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes((50_000_000).to_bytes(8, "little") + b'{"a":')
    os.truncate(file, 60_000_000)
    with pytest.raises(SteadfaceError, match=r"a header of 50,000,000 bytes, and .* is the most"):
        load_backbone(file)


def test_types_that_torch_lacks_are_refused(tmp_path: Path) -> None:
    for kind, count in (("F6_E2M3", 3), ("F4", 1), ("F8_E8M0", 1)):
        header = f'{{"fc.weight":{{"dtype":"{kind}","shape":[{4 if count == 3 else 2}],"data_offsets":[0,{count}]}}}}'
        (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(count))
        with pytest.raises(SteadfaceError):
            load_backbone(tmp_path / "w.safetensors")


@pytest.mark.parametrize("entry", ["[1]", "3", "{", "[" * 100_000])
def test_metadata_that_is_no_object_is_refused(entry: str, tmp_path: Path) -> None:
    save_file(bare(trained(SMALL)), tmp_path / "w.safetensors", metadata={"steadface": entry})
    with pytest.raises(SteadfaceError, match=r"is not a (JSON object|readable safetensors file)"):
        read_safetensors(tmp_path / "w.safetensors")
