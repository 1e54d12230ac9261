import json
import os
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from steadface.errors import SteadfaceError
from steadface.report.history import read_history
from steadface.training.log import METRICS_FILE, MetricsLog


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def write(folder: Path, *content: str) -> None:
    (folder / METRICS_FILE).write_text("".join(content))


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, tensorboard=False)
    log.step(1, 0.5, {"loss": 2.0, "eps": None})
    log.validation(1, {"eer": 0.1})
    assert lines(tmp_path) == [
        {"step": 1, "seconds": 0.5, "loss": 2.0, "eps": None},
        {"step": 1, "validation": {"eer": 0.1}},
    ]
    log.close()


def test_what_was_logged_after_the_checkpoint_is_cut_away(tmp_path: Path) -> None:
    write(tmp_path, *(f'{{"step": {step}, "loss": 1}}\n' for step in range(1, 8)))
    log = MetricsLog(tmp_path, 4, tensorboard=False)
    log.step(5, 1.0, {})
    log.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5]


def test_one_that_is_a_pipe_or_has_no_end_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")):
        make()
        for read in (lambda: MetricsLog(tmp_path, 0, tensorboard=False), lambda: read_history(path)):
            with pytest.raises(SteadfaceError, match=r"cannot be read .*(pipe|device)"):
                read()
        path.unlink()


@pytest.mark.parametrize("half", ['{"step": 3, "lo', "{", "3", '{"loss": 1}', '{"step": null}', "\n"])
def test_a_half_written_line_is_dropped(tmp_path: Path, half: str) -> None:
    write(tmp_path, '{"step": 1}\n{"step": 2}\n', half)
    log = MetricsLog(tmp_path, 9, tensorboard=False)
    log.step(3, 1.0, {})
    log.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_it_knows_the_last_look_at_the_held_out_people(tmp_path: Path) -> None:
    write(tmp_path, '{"step": 2, "validation": {}}\n{"step": 3}\n{"step": 4, "validation": {}}\n')
    for step, last in ((1, 0), (3, 2), (4, 4)):
        copy = tmp_path / str(step)
        copy.mkdir()
        write(copy, (tmp_path / METRICS_FILE).read_text())
        log = MetricsLog(copy, step, tensorboard=False)
        assert log.validated == last
        log.validation(step + 1, {})
        assert log.validated == step + 1
        log.close()


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, tensorboard=True)
    for step in (1, 2):
        log.step(step, 1.0, {"loss": 0.5 * step, "gate": step == 2, "eps": None})
    log.validation(2, {"eer": 0.25})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {
        "train/loss": [(1, 0.5), (2, 1.0)],
        "train/gate": [(1, 0.0), (2, 1.0)],
        "validation/eer": [(2, 0.25)],
    }


def test_no_tensorboard_unless_asked(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, tensorboard=False)
    log.step(1, 1.0, {"loss": 1.0})
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


def test_a_full_disk_is_reported_and_closing_stays_quiet(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, tensorboard=False)
    log._file.close()
    with Path("/dev/full").open("w") as full:
        log._file = full
        with pytest.raises(
            SteadfaceError, match=r"cannot write the log of .*No space left.*there is no checkpoint yet"
        ):
            log.step(1, 1.0, {})
        log.close()


def test_events_that_cannot_be_written_are_reported(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    with pytest.raises(SteadfaceError, match="cannot write the log"):
        MetricsLog(tmp_path, 0, tensorboard=True)
