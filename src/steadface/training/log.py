"""What a run writes down while it trains: a JSON line per logged step, and the same for TensorBoard."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from steadface.errors import SteadfaceError
from steadface.files import write_atomically

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """``metrics.jsonl`` and TensorBoard events of the run in ``folder``.

    Opened at ``step``: where an earlier process got further than its last checkpoint, what it logged after that
    is cut away, so that no step stands twice.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool) -> None:
        self._path = folder / METRICS_FILE
        kept = [line for line in _lines(self._path) if line["step"] <= step]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1) if tensorboard else None

    def step(self, step: int, seconds: float, values: dict[str, Any]) -> None:
        """A training step; values of None mean that there is nothing to say."""
        self._write({"step": step, "seconds": seconds, **values})
        self._plot("train", step, values)

    def validation(self, step: int, values: dict[str, Any]) -> None:
        """A look at the held-out people."""
        self._write({"step": step, "validation": values})
        self._plot("validation", step, values)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def _plot(self, group: str, step: int, values: dict[str, Any]) -> None:
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{group}/{name}", float(value), step)

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise SteadfaceError(
                f"cannot write {self._path}: {error.strerror}; free some space, then go on with "
                f"steadface resume {self._path.parent}"
            ) from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a log; a line that a killed process left half written is dropped."""
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "step" in line:
            yield line
