"""What a run writes down while it trains: a JSON line per logged step, and the same for TensorBoard."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from steadface.errors import InvalidInput, Unavailable
from steadface.files import read_file, write_atomically
from steadface.records import LARGEST_LOG
from steadface.training import checkpoint

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events of the run in `folder`.

    Opened at `step`: where an earlier process got further than its last checkpoint, what it logged after that
    is cut away, so that no step stands twice. `validated` is the last step with a look at the held-out people.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool) -> None:
        self._folder = folder
        path = folder / METRICS_FILE
        kept = [line for line in _lines(path) if line["step"] <= step]
        self.validated = max((line["step"] for line in kept if "validation" in line), default=0)
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        with self._reported():
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1) if tensorboard else None
            self._file = path.open("a", encoding="utf-8")

    @staticmethod
    def clear(folder: Path) -> None:
        """An empty log: an earlier run here was killed before its first checkpoint."""
        write_atomically(folder / METRICS_FILE, b"")
        for events in (folder / "tensorboard").glob("events.*"):
            events.unlink()

    def step(self, step: int, seconds: float, values: dict[str, Any]) -> None:
        """A training step; values of None mean that there is nothing to say."""
        self._write({"step": step, "seconds": seconds, **values})
        self._plot("train", step, values)

    def validation(self, step: int, values: dict[str, Any]) -> None:
        """A look at the held-out people."""
        self._write({"step": step, "validation": values})
        self._plot("validation", step, values)
        self.validated = step

    def close(self) -> None:
        """Closes both; silent where the disk refuses what is left, since that has been reported or is lost anyway."""
        for part in (self._file, self._board):
            with suppress(OSError):
                if part is not None:
                    part.close()

    def _plot(self, group: str, step: int, values: dict[str, Any]) -> None:
        if self._board is None:
            return
        with self._reported():
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{group}/{name}", float(value), step)

    def _write(self, line: dict[str, Any]) -> None:
        with self._reported():
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(
                f"cannot write the log of {self._folder}: {error.strerror or error}; free some space "
                f"({checkpoint.last_good(self._folder)})"
            ) from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a log; a line that a killed process left half written, or that is none, is dropped."""
    try:
        text = read_file(path, most=LARGEST_LOG).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}): put it back, or remove it") from error
    for written in text.splitlines():
        try:
            line = json.loads(written)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and type(line.get("step")) is int:
            yield line
