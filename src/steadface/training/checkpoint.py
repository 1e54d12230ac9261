"""Checkpoints: one safetensors file each, with everything a run needs to go on bitwise where it stopped.

Tensors are named by prefix, see `training/state.py`; all else is JSON in the file's metadata. No pickle. A checksum of
both lies there too, and is compared whenever a checkpoint is read: one that is damaged, cut off or edited by hand is
passed over for the one before it. It shows accidents, and keeps out nobody who can compute it anew.

Where several ranks have rows of a head, these lie beside the file in a folder of their own (`training/rowfiles.py`), of
which the file knows the checksums. It is written last, and without it the folder counts for nothing.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from steadface.backbones.reading import METADATA_KEY
from steadface.backbones.weights import write_safetensors
from steadface.errors import InvalidInput, NotFound, SteadfaceError, short
from steadface.ranks import ALONE, Ranks
from steadface.training.rowfiles import read_rows, write_rows

CHECKSUM = "checksum"
"""Its entry beside those of the state."""
MOST_STEPS = 999_999_999
"""The files' names have nine digits."""
_NAME = re.compile(r"step-(\d{9})\.safetensors")
_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """`state` is JSON (step, gate, ramp, recipe, architecture ...); `tensors` are named by prefix.

    `path` is where it was read; `checked` is false where it has no checksum, as written before there were any. `rows`
    names the tensors of which this is one rank's part, and how many rows they have in all.
    """

    state: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False)
    path: Path | None = None
    checked: bool = True
    rows: Mapping[str, int] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix.`, without it."""
        start = prefix + "."
        return {key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)}


def folder_of(run: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run / "checkpoints"


def paths(run: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    return sorted(path for path in folder_of(run).glob("step-*.safetensors") if _NAME.fullmatch(path.name))


def save(run: Path, checkpoint: Checkpoint, *, keep: int, ranks: Ranks = ALONE) -> Path:
    """Writes the checkpoint atomically, then removes all but the newest `keep`.

    Raises SteadfaceError naming the last good checkpoint where the disk is full or the folder not writable.
    """
    path = folder_of(run) / f"step-{checkpoint.state['step']:09d}.safetensors"
    state = checkpoint.state
    if checkpoint.rows:
        own = {name: checkpoint.tensors[name] for name in checkpoint.rows}
        files = write_rows(rows_of(path), own, checkpoint.rows, ranks)
        forms = {name: [count, *own[name].shape[1:]] for name, count in checkpoint.rows.items()}
        state = {**state, "rows": {"files": files, "forms": forms}}

    def write() -> None:
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in checkpoint.tensors.items()
            if name not in checkpoint.rows
        }
        try:
            write_safetensors(path, tensors, {**state, CHECKSUM: digest(tensors, state)})
        except SteadfaceError as error:
            raise type(error)(f"{error}; {last_good(run)}") from error
        for old in paths(run)[:-keep]:
            old.unlink(missing_ok=True)
        for folder in folder_of(run).glob("step-*.rows"):
            if not folder.with_suffix(".safetensors").exists():
                shutil.rmtree(folder, ignore_errors=True)

    ranks.from_first(write)
    return path


def rows_of(path: Path) -> Path:
    """The folder with the rows that several ranks wrote beside the checkpoint `path`."""
    return path.with_suffix(".rows")


def last_good(run: Path) -> str:
    """Which checkpoint is left after a failure, in words: the newest that is whole."""
    for path in reversed(paths(run)):
        try:
            load(path)
        except SteadfaceError:
            continue
        return f"the last good checkpoint is {path}, to go on from with: steadface resume {run}"
    return "there is no checkpoint yet"


def non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor with a NaN or an infinity in it, or None."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            return name
    return None


def load_newest(run: Path, ranks: Ranks = ALONE) -> Checkpoint:
    """A run's newest checkpoint that is whole, of each rank its part; what is passed over on the way is said.

    Raises NotFound where there is none, and InvalidInput where none is whole.
    """
    saved, refused = paths(run), list[str]()
    if not saved:
        raise NotFound(f"{run} holds no checkpoint to resume from: start it again with steadface train")
    for path in reversed(saved):
        try:
            found = with_rows(load(path), ranks)
        except InvalidInput as error:
            refused.append(str(error))
            continue
        if refused:
            steps = _step_of(saved[-1]) - _step_of(path)
            lost = f"{steps} step{'' if steps == 1 else 's'} before"
            logger.warning("%s; going on from %s, %s", "; ".join(refused), path.name, lost)
        if not found.checked:
            logger.warning("%s has no checksum, as written by earlier versions: it is taken as it is", path)
        return found
    raise InvalidInput(
        f"none of the checkpoints of {run} can be used: {'; '.join(refused)}. Put one back from a backup, or start the "
        "run again in another folder"
    )


def with_rows(checkpoint: Checkpoint, ranks: Ranks) -> Checkpoint:
    """With this rank's rows of what several ranks wrote. Raises InvalidInput where they are not whole."""
    saved = checkpoint.state.get("rows")
    if saved is None:
        return checkpoint
    assert checkpoint.path is not None
    try:
        forms = {str(name): tuple(map(int, form)) for name, form in saved["forms"].items()}
        rows = read_rows(rows_of(checkpoint.path), forms, saved["files"], ranks)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"checkpoint {checkpoint.path} cannot be used: it does not say what its rows are") from error
    counts = {} if ranks.alone else {name: form[0] for name, form in forms.items()}
    return replace(checkpoint, tensors={**checkpoint.tensors, **rows}, rows=counts)


def set_aside_after(run: Path, step: int) -> None:
    """Renames checkpoints of later steps, which have been passed over: they are not to count as the newest again."""
    for path in paths(run):
        if _step_of(path) > step:
            path.replace(path.with_name(f"{path.name}.damaged"))


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint; raises InvalidInput where it is damaged, was edited, is not finite or not one of ours."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise OSError("not a file")
        with safetensors.safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})[METADATA_KEY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    # RuntimeError is torch's, where there is no memory, and Python's, where JSON is too deep.
    except (OSError, KeyError, ValueError, RuntimeError, MemoryError, safetensors.SafetensorError) as error:
        raise InvalidInput(f"checkpoint {path} cannot be read ({short(str(error))})") from error
    if (problem := _problem(path, state, tensors)) is not None:
        raise InvalidInput(f"checkpoint {path} cannot be used: {problem}")
    checked = state.pop(CHECKSUM, None) is not None
    return Checkpoint(state=state, tensors=tensors, path=path, checked=checked)


def _problem(path: Path, state: Any, tensors: Mapping[str, Tensor]) -> str | None:
    """What is wrong with what a file holds, by itself; None where nothing is."""
    if not isinstance(state, dict):
        return "its state is not an object"
    if CHECKSUM in state and state[CHECKSUM] != digest(tensors, state):
        return "its checksum is not that of what it holds: it is damaged, or was edited"
    strange = [f"{short(name)} of {value.dtype}" for name, value in tensors.items() if value.dtype not in _TYPES]
    if strange:
        return f"it holds {strange[0]}, which no run does"
    if (spoilt := non_finite(tensors)) is not None:
        return f"{short(spoilt)} is not finite"
    if _NAME.fullmatch(path.name) and state.get("step") != _step_of(path):
        return f"it is of step {short(state.get('step'))}, and its name of another"
    return None


def digest(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the state and of every tensor's name, type, shape and values."""
    plain = {key: value for key, value in state.items() if key != CHECKSUM}
    found = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode("utf-8", "surrogatepass"))
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _step_of(path: Path) -> int:
    """By its name, which `paths` has looked at."""
    return int(path.name[5:14])


def difference(before: object, now: object, where: str = "") -> list[str]:
    """What differs between two JSON values, a line each: `section.key: before -> now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in sorted({*before, *now}):
            inner = f"{where}.{key}" if where else str(key)
            lines += difference(before.get(key), now.get(key), inner)
        return lines
    return [] if before == now else [f"{where}: {before!r} -> {now!r}"]
