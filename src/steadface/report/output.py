"""What the report puts on the disk: plain JSON values, and several files that appear together."""

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from steadface.errors import Unavailable


def plain(value: Any) -> Any:
    """The same in the types of JSON: arrays and tuples as lists, NaN and infinities as None, the rest as text."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def write_together(texts: Mapping[Path, str]) -> None:
    """Write every text to its path; each is on the disk beside its place before the first one moves there.

    Missing folders are made. Raises SteadfaceError, every file left as it was, where one cannot be written.
    """
    waiting: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
            waiting[path] = Path(name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            waiting[path].chmod(0o644)  # mkstemp's files are for the owner alone; a report is to be shown
        for path, temporary in waiting.items():
            temporary.replace(path)
    except OSError as error:
        places = " and ".join(str(path) for path in texts)
        raise Unavailable(
            f"the report cannot be written to {places} ({error.strerror}); choose another folder or free some space"
        ) from error
    finally:
        for temporary in waiting.values():
            temporary.unlink(missing_ok=True)
