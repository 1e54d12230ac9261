"""Reading the tensors of a file, and nothing but tensors: safetensors, and torch files without what needs classes."""

import io
import itertools
import json
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from steadface.backbones.filekinds import ONNX, SAFETENSORS, TORCH, file_kind, first_few, is_archive, shown
from steadface.backbones.torchfiles import MOST_PICKLED, read_torch
from steadface.errors import InvalidInput, SteadfaceError, Unsupported
from steadface.files import open_file

METADATA_KEY = "steadface"
PREFIX = "backbone."

LARGEST = 8 << 30
"""Bytes of a file: a network of 118 million parameters, its optimiser's state and a head of a million people."""
MOST_HEADER = 8 << 20
"""Bytes of the header of a safetensors file; ours, with recipes and thresholds, have 1 MB at most."""
MOST_TENSORS = 1 << 16

# What a pickle of tensors alone names.
_HARMLESS = re.compile(
    r"torch\.\w+|torch\._utils\.\w+|torch\.storage\.\w+|torch\.nn\.parameter\.\w+|"
    r"collections\.(OrderedDict|defaultdict)|_codecs\.encode|(__builtin__|builtins)\.set"
)


def read_file(file: Path) -> tuple[Any, dict[str, Any]]:
    """What `file` holds (a dict of tensors, or what else torch.save wrote of them), and our metadata or {}.

    Which of both it is its bytes say, not its name. Raises InvalidInput for everything else, and says what it is.
    """
    kind = file_kind(file)
    if kind == SAFETENSORS:
        return read_safetensors(file)
    if kind == TORCH:
        _check_size(file)
        return _read_torch(file), {}
    if kind == ONNX and file.suffix == ".onnx":
        raise InvalidInput(f"{file} is an ONNX file, with no layers to train: give the state dict that it came from")
    raise kind.refusal(file)


def read_safetensors(file: Path, keys: Iterable[str] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, metadata of ours or {}); `keys` restricts what is read, and a checkpoint gives its backbone alone."""
    if (kind := file_kind(file)) != SAFETENSORS:
        raise kind.refusal(file)
    _check_size(file)
    _check_header(file)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = json.loads((opened.metadata() or {}).get(METADATA_KEY, "{}"))
            if not isinstance(metadata, dict):
                raise InvalidInput(f"{file}: the metadata entry {METADATA_KEY!r} is not a JSON object")
            names = list(opened.keys() if keys is None else keys)
            if len(names) > MOST_TENSORS:
                raise InvalidInput(
                    f"{file} holds {len(names):,} tensors, and {MOST_TENSORS:,} is the most that is read"
                )
            # A checkpoint also holds the head, the optimiser and more, which need not be read.
            if "architecture" in metadata and any(name.startswith(PREFIX) for name in names):
                names = [name for name in names if name.startswith(PREFIX)]
            state = {name: opened.get_tensor(name) for name in names}
    except SteadfaceError:
        raise
    except Exception as error:  # its own of types that torch lacks, and what torch and JSON raise
        raise InvalidInput(
            f"{file} is not a readable safetensors file ({shown(str(error))}); it may be truncated, fetch it again"
        ) from error
    return state, metadata


def _check_size(file: Path) -> None:
    if (size := file.stat().st_size) > LARGEST:
        raise InvalidInput(
            f"{file} has {size:,} bytes, and {LARGEST:,} is the most that is read; save the network's weights alone"
        )


def _check_header(file: Path) -> None:
    with open_file(file) as opened:
        header = int.from_bytes(opened.read(8), "little")
    if header > MOST_HEADER:
        raise InvalidInput(
            f"{file} begins with a header of {header:,} bytes, and {MOST_HEADER:,} is the most that is read; save the "
            "network's weights alone"
        )


def _read_torch(file: Path) -> Any:
    try:
        return read_torch(file)
    except SteadfaceError:
        raise
    except pickle.UnpicklingError as error:
        raise _refused(file) from error
    except Exception as error:  # where a file is damaged its parts raise what they will
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput(
            f"{file} is not a readable torch file ({shown(reason)}); it may be truncated, fetch it again"
        ) from error


def _refused(file: Path) -> InvalidInput | Unsupported:
    """Why a torch file was not unpickled: it is a whole module, or has objects of some classes beside its tensors."""
    strange = [name for name in dict.fromkeys(_classes(file)) if not _HARMLESS.fullmatch(name)]
    if any(name.startswith("torch.nn.modules.") for name in strange):
        own = [name for name in strange if not name.startswith("torch.")] or strange
        what, save = f"is a whole module, which needs its classes ({first_few(own, shown)}),", "model.state_dict()"
    elif strange:
        what, save = f"needs classes beside its tensors ({first_few(strange, shown)})", 'loaded["state_dict"]'
    else:
        what, save = "is damaged, or pickled in a way that torch does not read as tensors alone,", "model.state_dict()"
    kind = Unsupported if strange else InvalidInput
    return kind(
        f"{file} {what} and was not read: unpickling can run code. Where you trust it, open it once where these are "
        f"installed and save the weights alone: torch.save({save}, NEW)"
    )


def _classes(file: Path) -> Iterator[str]:
    """The classes and functions that a torch file's pickles name, as they are written there; nothing is looked up."""
    try:
        for pickled in _pickles(file):
            yield from _named_in(pickled)
    except (ValueError, OverflowError, MemoryError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return  # a damaged pickle, of which what came so far is known


def _named_in(pickled: io.BytesIO) -> Iterator[str]:
    strings: list[str] = []
    memo: dict[int, str] = {}
    last = ""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = last
        elif opcode.name.endswith("PUT"):
            memo[int(argument or 0)] = last
        elif opcode.name.endswith("GET"):
            strings.append(memo.get(int(argument or 0), ""))
        else:
            last = argument if isinstance(argument, str) else ""
            strings += [last] if last else []


def _pickles(file: Path) -> Iterator[io.BytesIO]:
    """Of an archive, the one that describes it; of the older format, those one after the other at its beginning."""
    with open_file(file) as opened:
        if is_archive(opened.read(4)):
            with zipfile.ZipFile(opened) as archive:
                name = next(name for name in archive.namelist() if name.partition("/")[2] == "data.pkl")
                yield io.BytesIO(archive.open(name).read(MOST_PICKLED))
            return
        opened.seek(0)
        whole = io.BytesIO(opened.read(MOST_PICKLED))
    # Magic number, protocol, system and the object itself.
    yield from itertools.repeat(whole, 4)
