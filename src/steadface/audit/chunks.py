"""What an audit has finished so far, on the disk: one file a chunk of work, so that a stopped audit goes on.

A chunk is kept under its name in the folder `state` of the audit, together with what the audit is of. The folder holds
adversarial faces and goes away once the report is written.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from steadface.errors import Conflict
from steadface.files import write_atomically

Arrays = Mapping[str, NDArray[Any]]
Progress = Callable[[str, float, float], None]
"""Called with (what is being done, work done, all work), in passes of one image through the network."""


STATE = "state"


class Chunks:
    """The chunks of one audit in `folder`/state.

    Raises `SteadfaceError` where the folder holds a finished audit, or the state of one whose `identity`, plain JSON,
    differs; the message names what.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder / STATE
        if (folder / "audit.json").exists():
            raise Conflict(f"{folder} holds a finished audit already: choose another --out, or remove that folder")
        text = json.dumps(identity, indent=2, sort_keys=True)
        file = self.folder / "audit-of.json"
        if file.exists():
            _check(folder, json.loads(file.read_text(encoding="utf-8")), json.loads(text))
        else:
            write_atomically(file, text.encode())

    def get(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of that chunk: those on the disk, or what `make` returns, kept from then on."""
        file = self.folder / f"{name}.safetensors"
        if file.exists():
            try:
                kept: Arrays = load_file(file)
                return kept
            except (SafetensorError, OSError):
                file.unlink()  # damaged: it can be made again
        made = {key: np.ascontiguousarray(value) for key, value in make().items()}
        write_atomically(file, save(made))
        return made


def _check(folder: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    changed = [key for key in sorted(found.keys() | asked.keys()) if found.get(key) != asked.get(key)]
    if changed:
        told = "; ".join(f"{key} was {found.get(key)!r} and is {asked.get(key)!r}" for key in changed[:3])
        raise Conflict(
            f"{folder} holds the beginning of another audit ({told}): choose another --out, or remove that folder"
        )
