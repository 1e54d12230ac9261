"""One process at a time works in a run folder, and none is kept out by one that is gone."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

from steadface.errors import Conflict, SteadfaceError
from steadface.training.lock import LOCK_FILE, locked

HOLDER = """
import os, sys, time
from pathlib import Path
from multiprocessing import get_context
from steadface.training.lock import locked

def forked():
    print(os.getpid(), flush=True)  # it runs, and has given its part in the lock up
    time.sleep(1000)

with locked(Path(sys.argv[1])):
    get_context("fork").Process(target=forked).start()
    time.sleep(1000)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process that works in `tmp_path / "run"`, and the process id of a fork of it."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        fork = int(process.stdout.readline())
        yield process, fork
        process.kill()
        os.kill(fork, signal.SIGKILL)


def test_another_process_is_kept_out_and_told_by_whom(
    tmp_path: Path, holder: tuple["subprocess.Popen[str]", int]
) -> None:
    process, _ = holder
    with pytest.raises(Conflict, match=f"process {process.pid} works in .*run"), locked(tmp_path / "run"):
        pytest.fail("somebody works there")
    with locked(tmp_path / "other"):
        pass


def test_a_killed_process_keeps_nobody_out_though_its_forks_live(
    tmp_path: Path, holder: tuple["subprocess.Popen[str]", int]
) -> None:
    process, fork = holder
    process.kill()
    process.wait()
    os.kill(fork, 0)  # it is there
    with locked(tmp_path / "run"):
        pass


def test_a_fork_that_ends_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    with locked(tmp_path):
        child = get_context("fork").Process(target=int)
        child.start()
        child.join()
        with pytest.raises(Conflict, match=str(os.getpid())), locked(tmp_path):
            pass


def test_two_threads_are_told_apart_and_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    found = []

    def enter() -> None:
        try:
            with locked(tmp_path / "run"):
                found.append("in")
        except Conflict:
            found.append("out")

    def with_an_error() -> None:
        with locked(tmp_path / "run"):
            thread = threading.Thread(target=enter)
            thread.start()
            thread.join()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with_an_error()
    enter()
    assert found == ["out", "in"]


def test_a_folder_that_nothing_was_put_into_goes_again(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run").is_dir()
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    with locked(tmp_path / "there"), locked(tmp_path / "run"):
        (tmp_path / "run" / "recipe.yaml").touch()
    assert (tmp_path / "there").is_dir()
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def a_link(path: Path) -> None:
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize("make", [Path.mkdir, a_link])
def test_what_is_no_lock_is_refused_in_words(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / LOCK_FILE)
    with pytest.raises(SteadfaceError, match="cannot be written"), locked(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(SteadfaceError, match="cannot be written"), locked(tmp_path / "file"):
        pass


def test_what_a_lock_file_says_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text('{"pid": 1, "host": "nowhere"}')  # of a process that was killed
    with locked(tmp_path):
        for text in ("", "{", "[" * 4000, '{"pid": "\x1b[2J", "host": 3}', '{"host": 1}'):
            (tmp_path / LOCK_FILE).write_text(text)
            with pytest.raises(Conflict, match=r"another process works in"), locked(tmp_path):
                pass


def test_where_there_are_no_locks_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with locked(tmp_path):
        assert "cannot be locked (No locks available)" in caplog.text
