"""Processes that read faces for a training: one that is killed ends it in words, and none is waited for without end."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from steadface.data.loading import LONGEST_SOCKET, FaceLoader, lost_worker
from steadface.data.sampling import UniformSampler
from steadface.data.synthetic import synthetic_faces
from steadface.errors import SteadfaceError, Unavailable
from steadface.training.loop import Progress, TrainingRun

from .runs import tiny


def children() -> list[int]:
    """The processes that this one has started and that are still there."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def test_a_killed_worker_ends_the_run_in_words_and_it_can_be_gone_on_with(tmp_path: Path) -> None:
    run = TrainingRun.start(tiny(tmp_path / "run", "data.workers=1", "run.steps=100000"))
    before = children()

    def kill(at: Progress) -> None:
        if at.step == 3:
            (worker,) = set(children()) - set(before)
            os.kill(worker, signal.SIGKILL)

    with pytest.raises(Unavailable) as ended:
        run.train(kill)
    assert "a process that reads faces is gone" in str(ended.value)
    assert f"steadface resume {tmp_path / 'run'}" in str(ended.value)
    assert "lower data.workers in" in str(ended.value)
    assert "\n" not in str(ended.value)
    assert set(children()) <= set(before)
    resumed = TrainingRun.resume(tmp_path / "run")
    assert resumed.step >= 2
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), True),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (ConnectionRefusedError(111, "Connection refused"), True),
        (EOFError(), True),
        (FileNotFoundError(2, "No such file or directory"), True),  # as sockets have it, without its name
        (FileNotFoundError(2, "No such file or directory", "model.safetensors"), False),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nkilled by signal"), False),
        (ValueError("DataLoader"), False),
    ],
)
def test_in_which_ways_a_worker_is_lost(error: Exception, lost: bool) -> None:
    assert bool(lost_worker(error)) == lost


def loader(folder: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> FaceLoader:
    """One that hands over through sockets in a temporary folder whose path has `length` bytes."""
    inner = folder / ("t" * 200)
    place = Path(str(inner)[:length].rstrip("/"))
    while len(str(place)) < length:
        place = Path(f"{place}/{'t' * (length - len(str(place)) - 1)}")
    place.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    faces = synthetic_faces(people=2, images_per_person=2, size=(16, 16), seed=0)
    return FaceLoader(faces, sampler=UniformSampler(faces.labels, batch_size=2, seed=0), size=(16, 16), workers=1)


def test_a_temporary_folder_too_deep_for_sockets_is_refused_rather_than_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        longest = LONGEST_SOCKET - len("/pymp-01234567/listener-01234567")
        batches = loader(Path(folder), monkeypatch, longest).batches()
        assert next(batches).images.shape == (2, 3, 16, 16)
        batches.close()
        with pytest.raises(SteadfaceError, match=r"set TMPDIR to one with a shorter path, or data\.workers to 0"):
            loader(Path(folder), monkeypatch, longest + 1)
