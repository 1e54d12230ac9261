import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from steadface.backbones.reading import METADATA_KEY
from steadface.backbones.weights import write_safetensors
from steadface.errors import InvalidInput, SteadfaceError
from steadface.training import checkpoint, state
from steadface.training.checkpoint import Checkpoint

TENSORS = {"backbone.weight": torch.randn(2, 3), "random.method": torch.arange(5, dtype=torch.uint8)}


def at(step: int, tensors: dict[str, Tensor] | None = None) -> Checkpoint:
    return Checkpoint(state={"step": step, "gate": {"average": 0.1 + 0.2}}, tensors=tensors or TENSORS)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    loaded = checkpoint.load(checkpoint.save(tmp_path, at(3), keep=1))
    assert loaded.state == at(3).state, "floats come back bitwise"
    assert loaded.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert torch.equal(loaded.part("backbone")["weight"], TENSORS["backbone.weight"])
    assert loaded.part("back") == {}, "a prefix ends at its point"


def test_checkpoints_are_plain_safetensors(tmp_path: Path) -> None:
    assert load_file(checkpoint.save(tmp_path, at(1), keep=1)).keys() == TENSORS.keys()


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (0, 5, 10, 100, 1000):
        checkpoint.save(tmp_path, at(step), keep=3)
    assert [checkpoint.load(path).state["step"] for path in checkpoint.paths(tmp_path)] == [10, 100, 1000]
    assert checkpoint.load_newest(tmp_path).state["step"] == 1000


def test_a_write_that_fails_costs_no_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = checkpoint.save(tmp_path, at(1), keep=1)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SteadfaceError) as reported:
        checkpoint.save(tmp_path, at(2), keep=1)
    assert "No space left" in str(reported.value)
    assert f"the last good checkpoint is {first}, to go on from with: steadface resume {tmp_path}" in str(
        reported.value
    )
    assert checkpoint.paths(tmp_path) == [first]
    assert checkpoint.load(first).state["step"] == 1


def test_without_any_checkpoint_the_failure_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(SteadfaceError, match="there is no checkpoint yet"):
        checkpoint.save(tmp_path, at(2), keep=1)
    with pytest.raises(SteadfaceError, match="holds no checkpoint to resume from"):
        checkpoint.load_newest(tmp_path)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"no safetensors"])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, damage: Any) -> None:
    path = checkpoint.save(tmp_path, at(3), keep=1)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SteadfaceError, match=rf"checkpoint {path} cannot be read"):
        checkpoint.load(path)


def rewritten(path: Path, edit: Callable[[dict[str, Any], dict[str, Tensor]], object], *, seal: bool = True) -> None:
    """As somebody who edits the file writes it, who may know of the checksum."""
    saved = checkpoint.load(path)
    state, tensors = saved.state, dict(saved.tensors)
    edit(state, tensors)
    sealed = {**state, checkpoint.CHECKSUM: checkpoint.digest(tensors, state)}
    write_safetensors(path, tensors, sealed if seal else state)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


def another_step(path: Path) -> None:
    data = path.read_bytes().replace(b'\\"step\\": 7', b'\\"step\\": 6')
    path.write_bytes(data)


def without_numbers(path: Path) -> None:
    rewritten(path, lambda _, tensors: tensors.update({"backbone.weight": torch.full((2, 3), torch.nan)}))


def another_type(path: Path) -> None:
    rewritten(path, lambda _, tensors: tensors.update({"backbone.weight": torch.zeros(2).to(torch.float8_e5m2)}))


def of_another_name(path: Path) -> None:
    rewritten(path, lambda state, _: state.update(step=1_000_000_000))


def no_object(path: Path) -> None:
    write_safetensors(path, TENSORS, [])  # type: ignore[arg-type]


def too_deep(path: Path) -> None:
    save_file(TENSORS, path, {METADATA_KEY: "[" * 100_000})


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = [cut, empty, flip, another_step, without_numbers, another_type, of_another_name, no_object, too_deep]


@pytest.mark.parametrize("damage", [*DAMAGES, a_folder, a_pipe])
def test_the_one_before_a_damaged_one_is_taken_and_it_is_said(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    for step in (2, 5, 7):
        newest = checkpoint.save(tmp_path, at(step), keep=3)
    damage(newest)
    assert checkpoint.load_newest(tmp_path).state["step"] == 5
    said = caplog.text
    assert str(newest) in said
    assert "step-000000005.safetensors, 2 steps before" in said
    assert "step-000000005.safetensors" in checkpoint.last_good(tmp_path)

    checkpoint.set_aside_after(tmp_path, 5)
    assert [path.name for path in checkpoint.paths(tmp_path)] == [
        "step-000000002.safetensors",
        "step-000000005.safetensors",
    ]
    assert newest.with_name(f"{newest.name}.damaged").exists(), "nothing is thrown away"
    assert checkpoint.save(tmp_path, at(6), keep=1).exists(), "what is newest by its name alone crowds nothing out"


def test_where_all_are_damaged_each_is_named(tmp_path: Path) -> None:
    for step in (2, 5):
        flip(checkpoint.save(tmp_path, at(step), keep=3))
    with pytest.raises(InvalidInput, match=r"none of .*step-000000005.*checksum.*step-000000002.*checksum"):
        checkpoint.load_newest(tmp_path)
    assert checkpoint.last_good(tmp_path) == "there is no checkpoint yet"


def test_every_bit_of_a_checkpoint_is_under_its_checksum(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, at(3), keep=1)
    whole = path.read_bytes()
    for place in range(8, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            loaded = checkpoint.load(path)
        except InvalidInput:
            continue
        # A space in its header, or the name of the checksum itself: what it says is the same.
        assert {key: loaded.state[key] for key in at(3).state} == at(3).state, place
        assert loaded.tensors.keys() == TENSORS.keys(), place
        assert all(torch.equal(loaded.tensors[name], TENSORS[name]) for name in TENSORS), place


def test_one_of_an_earlier_version_is_taken_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = checkpoint.save(tmp_path, at(3), keep=1)
    assert checkpoint.load_newest(tmp_path).checked
    assert not caplog.text
    rewritten(path, lambda *_: None, seal=False)
    assert checkpoint.load_newest(tmp_path).state == at(3).state
    assert "has no checksum" in caplog.text


def test_a_file_of_another_origin_is_no_checkpoint(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SteadfaceError, match="cannot be read"):
        checkpoint.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1),
    ],
)
def test_an_optimiser_goes_on_where_it_was(make: Any) -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()

    model = nn.Linear(3, 2)
    optimizer = make(model.parameters())
    step(model, optimizer, 1)
    other = nn.Linear(3, 2)
    other.load_state_dict(model.state_dict())
    resumed = make(other.parameters())
    written = {name: tensor.clone() for name, tensor in state.optimizer_tensors(optimizer).items()}
    state.restore_optimizer(resumed, written)
    for seed in (2, 3):
        step(model, optimizer, seed)
        step(other, resumed, seed)
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def test_differences_are_named_by_path() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "gone": None, "same": {"x": 0.5}}
    now = {"a": {"b": 2, "c": [1, 3]}, "new": "x", "same": {"x": 0.5}}
    assert checkpoint.difference(before, now) == ["a.b: 1 -> 2", "a.c: [1, 2] -> [1, 3]", "new: None -> 'x'"]
    assert checkpoint.difference(before, before) == []


def test_what_is_not_finite_is_named() -> None:
    assert checkpoint.non_finite(TENSORS) is None
    for bad in (float("nan"), float("inf")):
        assert checkpoint.non_finite({**TENSORS, "backbone.bias": torch.tensor([1.0, bad])}) == "backbone.bias"
