"""What is said of others on the machine, on planted figures and on those of this machine."""

import os
import sys
from pathlib import Path

import pytest

from steadface.cli.console import status_line
from steadface.machine import WINDOW, Sharing, Used, allowed_cores, lost, used
from steadface.training.loop import Progress
from steadface.training.step import StepRecord


class Planted:
    """A machine on which, in each window, others and we take so many cores."""

    def __init__(self) -> None:
        self.now: Used | None = Used(at=100.0, everybody=7000.0, us=50.0)

    def __call__(self) -> Used | None:
        return self.now

    def go_on(self, *, others: float, us: float, seconds: float = WINDOW) -> None:
        before = self.now
        assert before is not None
        self.now = Used(
            at=before.at + seconds,
            everybody=before.everybody + (others + us) * seconds,
            us=before.us + us * seconds,
        )


@pytest.mark.parametrize(
    ("others", "us", "cores", "wanted", "share"),
    [
        (0.0, 2.0, 2, 2, 0.0),
        (0.8, 1.2, 2, 2, 0.4),
        (2.0, 0.0, 2, 2, 1.0),
        (1.0, 1.0, 2, 1, 0.0),  # one for us, one for them
        (60.0, 4.0, 64, 4, 0.0),
        (62.0, 2.0, 64, 4, 0.5),
        (-0.01, 2.0, 2, 2, 0.0),  # the kernel's two counts do not agree to the last tick
    ],
)
def test_only_cores_that_we_wanted_are_lost(others: float, us: float, cores: int, wanted: int, share: float) -> None:
    machine = Planted()
    before = machine.now
    machine.go_on(others=others, us=us)
    assert before is not None
    assert machine.now is not None
    assert lost(before, machine.now, cores=cores, wanted=wanted) == pytest.approx(share, abs=1e-9)


def test_it_is_said_while_others_take_a_fifth_and_does_not_flicker() -> None:
    machine = Planted()
    sharing = Sharing(machine, cores=2)
    said = []
    for others in (0.0, 0.3, 0.8, 0.3, 0.25, 0.1, 0.3):
        machine.go_on(others=others, us=2 - others)
        said.append(sharing.note(2))
    shared = "machine shared: {} % of 2 cores to others".format
    assert said == [text.replace(" %", "%") for text in ("", "", shared(40), shared(15), shared(12), "", "")]


def test_between_windows_the_note_stays_as_it_is() -> None:
    machine = Planted()
    sharing = Sharing(machine, cores=2)
    machine.go_on(others=1.0, us=1.0)
    said = sharing.note(2)
    assert said
    machine.go_on(others=0.0, us=2.0, seconds=WINDOW / 2)
    assert sharing.note(2) == said
    machine.go_on(others=0.0, us=2.0, seconds=WINDOW / 2)
    assert sharing.note(2) == ""


def test_where_the_system_does_not_say_nothing_is_said(tmp_path: Path) -> None:
    assert used(tmp_path) is None
    assert Sharing(lambda: None).note(2) == ""


def test_time_on_our_cores_and_of_our_family_is_read(tmp_path: Path) -> None:
    core = min(allowed_cores())
    other = max(allowed_cores()) + 1
    (tmp_path / "stat").write_text(
        f"cpu  0 0 0 0 0 0 0 0 0 0\ncpu{core} 100 20 3 9999 9999 40 5 600 70 8\ncpu{other} 1 1 1 1 1 1 1 1 1 1\n"
    )
    me = os.getpid()
    rest = "0 " * 9
    for pid, name, parent, ticks in (
        (me, "(a name) with)", 1, "10 20 3 4"),
        (me + 1, "worker", me, "100 0 0 0"),
        (me + 2, "its child", me + 1, "1000 0 0 0"),
        (me + 3, "a stranger", 1, "7777 0 0 0"),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} {rest}{ticks} 20 0 1")
    found = used(tmp_path)
    assert found is not None
    second = os.sysconf("SC_CLK_TCK")
    assert (found.everybody, found.us) == (768 / second, 1137 / second)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_says_what_we_used() -> None:
    before = used()
    spent = os.times().user
    while os.times().user - spent < 0.2:
        pass
    after = used()
    assert before is not None
    assert after is not None
    assert after.us - before.us >= 0.2 - 2 / os.sysconf("SC_CLK_TCK")
    assert after.everybody > before.everybody


def test_the_bar_ends_with_the_note() -> None:
    record = StepRecord(loss=1.0, gate_open=False, performance=-1.0, updates=1)
    at = Progress(step=1, done=0.5, seconds=1.0, record=record, duty_cycle=0.0, images_per_second=3.0)
    assert status_line(at).plain.endswith("0:01 left")
    assert status_line(at, "machine shared").plain.endswith("0:01 left  machine shared")
