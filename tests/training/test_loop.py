import errno
import itertools
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from steadface.backbones import load_backbone, read_metadata
from steadface.backbones.weights import write_safetensors
from steadface.errors import Conflict, SteadfaceError
from steadface.training import checkpoint, loop, runfolder
from steadface.training.loop import Progress, TrainingRun
from steadface.training.recipe import Recipe
from steadface.training.regularizers import Embeddings
from steadface.training.schedule import learning_rate

from .runs import GATED, assert_same_run, metrics, steps, tiny, write_faces

pytestmark = pytest.mark.usefixtures("short_looks")


def noisy_pull(embeddings: Embeddings) -> Tensor:
    """A user's own regulariser that draws from torch's global generator."""
    return (embeddings.adversarial - embeddings.source).square().mean() * torch.rand(())


class Stop:
    """Asks the run to stop after a step, as Ctrl-C would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, at: Progress) -> None:
        if at.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_leaves_its_recipe_its_log_its_checkpoints_and_its_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    outcome = TrainingRun.start(tiny(out, *GATED, "run.keep=2", "run.tensorboard=true")).train()

    assert (outcome.finished, outcome.steps, outcome.folder) == (True, 6, out)
    assert [path.name for path in checkpoint.paths(out)] == ["step-000000004.safetensors", "step-000000006.safetensors"]
    assert steps(out) == [1, 2, 3, 4, 5, 6]
    assert list((out / "tensorboard").glob("events.*"))
    facts = read_metadata(out)
    assert (facts["recipe"], facts["steps"], facts["duty_cycle"]) == ("tiny", 6, outcome.duty_cycle)
    open_steps = sum(line["gate"] for line in metrics(out))
    assert outcome.duty_cycle == open_steps / 6
    last = checkpoint.load(checkpoint.paths(out)[-1])
    model = load_backbone(out).state_dict()
    assert all(torch.equal(model[name], tensor) for name, tensor in last.part("backbone").items())
    assert yaml.safe_load((out / "recipe.yaml").read_text())["optimizer"]["rate"] == 0.1, "defaults are written out"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs with these overrides that nothing stopped, each made once; to be looked at only."""

    @cache
    def made(*overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("finished") / "run"
        TrainingRun.start(tiny(folder, *overrides)).train()
        return folder

    return made


LOOKED_AT = ["data.validation=0.4", "data.synthetic.people=10", "run.validate_every=2", *GATED]


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_a_run_stopped_by_ctrl_c_and_resumed_ends_bitwise_equal(
    tmp_path: Path, finished: Callable[..., Path], stop_at: int
) -> None:
    stopped = TrainingRun.start(tiny(tmp_path / "stopped", *LOOKED_AT)).train(Stop(stop_at))

    assert not stopped.finished
    assert stopped.steps == stop_at
    assert checkpoint.paths(tmp_path / "stopped")[-1].name == f"step-{stop_at:09d}.safetensors"
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    assert TrainingRun.resume(tmp_path / "stopped").train().finished
    assert_same_run(tmp_path / "stopped", finished(*LOOKED_AT))


def test_a_rate_measured_now_and_then_is_measured_when_it_would_have_been(tmp_path: Path) -> None:
    measured = [
        "data.validation=0.4",
        "data.synthetic.people=10",
        "method.gate.kind=verification",
        "method.gate.every=4",
        "method.gate.fmr=0.2",
        "method.gate.threshold=0.1",
    ]
    TrainingRun.start(tiny(tmp_path / "whole", *measured)).train()
    TrainingRun.start(tiny(tmp_path / "stopped", *measured)).train(Stop(3))
    TrainingRun.resume(tmp_path / "stopped").train()
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_what_a_users_function_draws_from_torch_goes_on_too(tmp_path: Path) -> None:
    recipe = [
        *GATED,
        "method.gate.kind=always",
        f"method.regularizer.function={__name__}:noisy_pull",
    ]
    for out, stop in (("whole", 99), ("stopped", 3)):
        torch.manual_seed(7)
        TrainingRun.start(tiny(tmp_path / out, *recipe)).train(Stop(stop))
    torch.manual_seed(8)
    TrainingRun.resume(tmp_path / "stopped").train()
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    first = TrainingRun.start(tiny(tmp_path / "run")).train()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    again = TrainingRun.resume(tmp_path / "run").train(lambda _: pytest.fail("nothing is left to do"))
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_run_killed_between_its_last_checkpoint_and_its_model_gets_the_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    TrainingRun.start(tiny(out, "data.validation=0.4", "data.synthetic.people=10")).train()
    log, model = (out / "metrics.jsonl").read_text(), (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").unlink()
    TrainingRun.resume(out).train()
    assert (out / "model.safetensors").read_bytes() == model
    assert (out / "metrics.jsonl").read_text() == log, "the held-out people are not looked at twice"


def test_training_onto_a_run_is_refused(tmp_path: Path, finished: Callable[..., Path]) -> None:
    recipe = tiny(shutil.copytree(finished(), tmp_path / "run"))
    with pytest.raises(SteadfaceError, match=r"already holds a run: go on with steadface resume"):
        TrainingRun.start(recipe)
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # the model alone is enough to be lost
    with pytest.raises(SteadfaceError, match="already holds a run"):
        TrainingRun.start(recipe)


def test_a_folder_without_a_checkpoint_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(SteadfaceError, match="is not a run folder"):
        TrainingRun.resume(tmp_path)
    TrainingRun.start(tiny(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(SteadfaceError, match="holds no checkpoint to resume from: start it again with steadface train"):
        TrainingRun.resume(tmp_path / "run")


def test_leftovers_of_killed_writers_do_no_harm(tmp_path: Path, finished: Callable[..., Path]) -> None:
    out = tmp_path / "run"
    TrainingRun.start(tiny(out)).train(Stop(3))
    for leftover in ("checkpoints/.step-000000004.safetensors.partial", ".model.safetensors.partial", ".writable"):
        (out / leftover).write_bytes(b"half")
    with (out / "metrics.jsonl").open("a") as log:
        log.write('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    TrainingRun.resume(out).train()
    assert_same_run(out, finished())


def test_a_start_killed_before_its_first_checkpoint_is_simply_repeated(
    tmp_path: Path, finished: Callable[..., Path]
) -> None:
    out = tmp_path / "run"
    (out / "tensorboard").mkdir(parents=True)
    for name in ("recipe.yaml", "metrics.jsonl", "start.safetensors", "tensorboard/events.out.1"):
        (out / name).write_text("half")
    start = f"model.start={finished()}"
    TrainingRun.start(tiny(out, start)).train()
    assert TrainingRun.start(tiny(tmp_path / "clean", start)).train().finished
    assert_same_run(out, tmp_path / "clean")
    assert not (out / "tensorboard" / "events.out.1").exists()


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    tmp_path: Path, finished: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    TrainingRun.start(tiny(out, *GATED)).train(Stop(5))
    newest = checkpoint.paths(out)[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = TrainingRun.resume(out)
    assert resumed.step == 4
    assert f"{newest} cannot be" in caplog.text
    assert "step-000000004.safetensors, 1 step before" in caplog.text
    assert resumed.train().finished
    assert_same_run(out, finished(*GATED))
    assert steps(out) == [1, 2, 3, 4, 5, 6]


def test_a_step_beyond_the_end_is_refused(tmp_path: Path) -> None:
    for length in ("run.steps=6", "run.epochs=1"):
        out = tmp_path / length
        TrainingRun.start(tiny(out, length)).train(Stop(1))
        saved = checkpoint.load(checkpoint.paths(out)[-1])
        seconds = saved.state["seconds"] + 9e6
        checkpoint.save(out, replace(saved, state={**saved.state, "step": 999_999_999, "seconds": seconds}), keep=9)
        with pytest.raises(SteadfaceError, match="step 999999999, beyond the end of the run"):
            TrainingRun.resume(out)


def test_weights_that_a_run_began_with_are_compared(tmp_path: Path, finished: Callable[..., Path]) -> None:
    out = tmp_path / "run"
    TrainingRun.start(tiny(out, f"model.start={finished()}")).train(Stop(3))
    start = out / "start.safetensors"
    whole = start.read_bytes()
    start.write_bytes(whole[:-4] + b"\0\0\0\0")
    with pytest.raises(Conflict, match=r"start\.safetensors of the run has changed since step 3"):
        TrainingRun.resume(out)
    start.write_bytes(whole)
    assert TrainingRun.resume(out).step == 3


def test_a_changed_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    out = tmp_path / "run"
    TrainingRun.start(tiny(out)).train(Stop(2))
    values = yaml.safe_load((out / "recipe.yaml").read_text())
    values["optimizer"]["rate"] = 0.2
    values["method"]["attack"]["eps"] = 0.5
    (out / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SteadfaceError) as refused:
        TrainingRun.resume(out)
    assert "since step 2" in str(refused.value)
    assert "optimizer.rate: 0.1 -> 0.2" in str(refused.value)
    assert "method.attack.eps: 0.01568627450980392 -> 0.5" in str(refused.value)
    (out / "recipe.yaml").write_text("name: [")
    with pytest.raises(SteadfaceError, match="is not YAML any more"):
        TrainingRun.resume(out)


def _one_image_more(faces: Path) -> None:
    shutil.copy(faces / "person_000000" / "000.png", faces / "person_000000" / "new.png")


def _one_person_less(faces: Path) -> None:
    shutil.rmtree(faces / "person_000003")


def _other_content(faces: Path) -> None:
    (faces / "person_000000" / "000.png").write_bytes(b"another picture")


def _other_pixels(faces: Path) -> None:
    """Of the same size in bytes."""
    for path in faces.rglob("*.png"):
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)


def _one_other_picture(faces: Path) -> None:
    path = faces / "person_000002" / "009.png"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")


def test_how_many_processes_read_the_faces_may_change(tmp_path: Path, finished: Callable[..., Path]) -> None:
    out = tmp_path / "run"
    TrainingRun.start(tiny(out, "data.workers=1")).train(Stop(3))
    recipe = out / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("workers: 1", "workers: 0").replace("prefetch: 2", "prefetch: 3"))
    assert TrainingRun.resume(out).train().finished
    assert_same_run(out, finished())


@pytest.mark.parametrize("compared", ["sample", "all"])
def test_of_more_images_than_are_sampled_every_one_counts_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: str
) -> None:
    monkeypatch.setattr("steadface.training.assembly.faces.SAMPLE", 4)
    faces = write_faces(tmp_path / "faces", people=3)
    recipe = ["data.synthetic=null", f"data.images={faces}", f"data.contents={compared}"]
    run = TrainingRun.start(tiny(tmp_path / "run", *recipe))
    run.train(Stop(3))
    changed = {}
    for path in sorted(faces.rglob("*.png")):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"\1")
        try:
            TrainingRun.resume(tmp_path / "run")
        except Conflict:
            changed[path] = True
        path.write_bytes(whole)
    assert len(changed) == (4 if compared == "sample" else 12)


def test_a_run_of_an_earlier_version_goes_on_and_what_is_not_compared_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    TrainingRun.start(tiny(out)).train(Stop(3))
    path = checkpoint.paths(out)[-1]
    saved = checkpoint.load(path)
    for younger in ("contents", "weights"):
        del saved.state["data"][younger]
    write_safetensors(path, saved.tensors, saved.state)
    assert TrainingRun.resume(out).train().finished
    assert "has no checksum" in caplog.text
    assert "names and sizes alone are compared" in caplog.text


def test_a_key_younger_than_the_run_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    written = runfolder.comparable

    def before_that_key(recipe: Recipe) -> dict[str, Any]:
        values = written(recipe)
        del values["optimizer"]["average"]
        return values

    monkeypatch.setattr(runfolder, "comparable", before_that_key)
    TrainingRun.start(tiny(out)).train(Stop(2))
    monkeypatch.undo()
    values = yaml.safe_load((out / "recipe.yaml").read_text())
    del values["optimizer"]["average"]
    (out / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert TrainingRun.resume(out).step == 2
    values["optimizer"]["average"] = 0.5
    (out / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SteadfaceError, match=r"optimizer\.average: None -> 0\.5"):
        TrainingRun.resume(out)


def test_a_run_folder_with_older_names_is_gone_on_with(tmp_path: Path, finished: Callable[..., Path]) -> None:
    """As written before `optimizer` had its present spelling, in the recipe and in the checkpoints."""
    out = tmp_path / "run"
    TrainingRun.start(tiny(out)).train(Stop(3))
    recipe = (out / "recipe.yaml").read_text()
    assert "optimizer:" in recipe
    (out / "recipe.yaml").write_text(recipe.replace("optimizer:", "optimiser:"))
    for path in checkpoint.paths(out):
        saved = checkpoint.load(path)
        saved.state["recipe"]["optimiser"] = saved.state["recipe"].pop("optimizer")
        write_safetensors(path, saved.tensors, saved.state)
    assert TrainingRun.resume(out).train().finished
    assert_same_run(out, finished())


def test_a_run_begun_on_a_gpu_is_gone_on_with_on_a_cpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A GPU's generator has a state of 16 bytes, a CPU's some thousand."""
    ends = []
    for out in (tmp_path / "one", tmp_path / "other"):
        TrainingRun.start(tiny(out, *GATED)).train(Stop(3))
        for path in checkpoint.paths(out):
            saved = checkpoint.load(path)
            saved.tensors["random.method"] = torch.arange(16, dtype=torch.uint8)
            write_safetensors(path, saved.tensors, saved.state)
        assert TrainingRun.resume(out).train().finished
        ends.append(out)
    assert_same_run(*ends)
    assert "another kind of device" in caplog.text


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (_one_image_more, "24 images of 6 people then, 25 of 6 now"),
        (_one_person_less, "24 images of 6 people then, 20 of 5 now"),
        (_other_content, "24 images of 6 people then, 24 of 6 now, but other names, sizes or contents"),
        (_other_pixels, "24 images of 6 people then, 24 of 6 now, but other names, sizes or contents"),
        (_one_other_picture, "24 images of 6 people then, 24 of 6 now, but other names, sizes or contents"),
    ],
)
def test_a_changed_data_set_is_refused_with_the_difference(
    tmp_path: Path, change: Callable[[Path], None], difference: str
) -> None:
    faces = write_faces(tmp_path / "faces")
    TrainingRun.start(tiny(tmp_path / "run", f"data.images={faces}", "data.synthetic=null")).train(Stop(3))
    change(faces)
    with pytest.raises(SteadfaceError, match=f"the faces have changed since step 3: {difference}"):
        TrainingRun.resume(tmp_path / "run")


def test_a_run_and_its_faces_may_move(tmp_path: Path) -> None:
    faces = write_faces(tmp_path / "faces")
    from_folder = ["data.synthetic=null", *GATED]
    TrainingRun.start(tiny(tmp_path / "whole", f"data.images={faces}", *from_folder)).train()
    TrainingRun.start(tiny(tmp_path / "run", f"data.images={faces}", *from_folder)).train(Stop(3))
    (tmp_path / "run").rename(tmp_path / "moved")
    faces.rename(tmp_path / "elsewhere")
    recipe = tmp_path / "moved" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(faces), str(tmp_path / "elsewhere")))
    TrainingRun.resume(tmp_path / "moved").train()
    assert_same_run(tmp_path / "moved", tmp_path / "whole")


def test_a_changed_map_of_targets_is_refused(tmp_path: Path) -> None:
    people = [f"person_{n:06d}" for n in range(6)]
    targets = tmp_path / "targets.yaml"
    targets.write_text(yaml.safe_dump(dict(zip(people, people[1:] + people[:1], strict=True))))
    mapped = ["method.gate.kind=always", "method.targets.designate=map", f"method.targets.map={targets}"]
    TrainingRun.start(tiny(tmp_path / "run", *mapped)).train(Stop(3))
    targets.write_text(yaml.safe_dump(dict(zip(people, people[2:] + people[:2], strict=True))))
    with pytest.raises(SteadfaceError, match=r"method\.targets\.map has changed since step 3"):
        TrainingRun.resume(tmp_path / "run")


def test_a_full_disk_is_reported_and_leaves_the_last_checkpoint_whole(
    tmp_path: Path, finished: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fsync = tmp_path / "run", os.fsync

    def full(descriptor: int) -> None:
        if "step-000000004" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SteadfaceError) as reported:
        TrainingRun.start(tiny(out)).train()
    monkeypatch.undo()
    last = out / "checkpoints" / "step-000000002.safetensors"
    assert "No space left on device" in str(reported.value)
    assert f"the last good checkpoint is {last}, to go on from with: steadface resume {out}" in str(reported.value)
    assert checkpoint.load(last).state["step"] == 2
    assert not list(out.rglob("*.partial")), "what was half written makes room"

    TrainingRun.resume(out).train()
    assert_same_run(out, finished())


def test_a_log_that_cannot_be_written_names_the_last_good_checkpoint(
    tmp_path: Path, finished: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "run", loop.MetricsLog.step  # type: ignore[attr-defined]

    def full(self: loop.MetricsLog, step: int, *rest: Any) -> None:  # type: ignore[name-defined]
        if step == 4:  # a device on which every write fails for want of space
            self._file.close()
            self._file = Path("/dev/full").open("w")  # noqa: SIM115 - the log closes it
        write(self, step, *rest)

    monkeypatch.setattr(loop.MetricsLog, "step", full)  # type: ignore[attr-defined]
    with pytest.raises(SteadfaceError, match=r"cannot write the log.*No space left.*step-000000002\.safetensors"):
        TrainingRun.start(tiny(out)).train()
    monkeypatch.undo()
    TrainingRun.resume(out).train()
    assert_same_run(out, finished())


def test_a_model_that_cannot_be_written_names_the_last_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = TrainingRun.start(tiny(out))
    (out / ".model.safetensors.partial").mkdir()  # a root user may write everywhere, but no file over a folder
    with pytest.raises(SteadfaceError, match=r"cannot write .*model\.safetensors.*step-000000006\.safetensors"):
        run.train()
    (out / ".model.safetensors.partial").rmdir()
    assert TrainingRun.resume(out).train().finished
    assert (out / "model.safetensors").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SteadfaceError, match=r"run\.out .*file/run cannot be written: Not a directory; choose another"):
        TrainingRun.start(tiny(tmp_path / "file" / "run"))


def test_a_loss_that_is_not_finite_stops_with_step_and_last_good_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = tiny(out, "optimizer.clip_norm=null", "optimizer.warmup=0.5", "run.checkpoint_every=1", "run.steps=9")
    run = TrainingRun.start(recipe)

    def spoil(at: Progress) -> None:
        if at.step == 3:
            with torch.no_grad():
                run._parts.objective.head.weight.fill_(float("inf"))

    # Spoilt weights are never saved, so the last checkpoint is a good one although every step makes one.
    with pytest.raises(SteadfaceError) as stopped:
        run.train(spoil)
    last = out / "checkpoints" / "step-000000002.safetensors"
    assert str(stopped.value).startswith("step 3: objective.head.weight is no longer finite")
    assert f"the last good checkpoint is {last}" in str(stopped.value)
    assert checkpoint.non_finite(checkpoint.load(last).tensors) is None


def test_a_nan_in_the_step_names_that_step(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = TrainingRun.start(tiny(out))

    def spoil(at: Progress) -> None:
        if at.step == 3:
            with torch.no_grad():
                run._parts.objective.head.weight.fill_(float("nan"))

    with pytest.raises(SteadfaceError) as stopped:
        run.train(spoil)
    last = out / "checkpoints" / "step-000000002.safetensors"
    assert str(stopped.value).startswith("step 4: the source loss became nan")
    assert f"the last good checkpoint is {last}" in str(stopped.value)
    assert steps(out) == [1, 2, 3]


def test_a_gate_that_never_opens_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shut = ["method.gate.kind=loss", "method.gate.warn_after=3"]
    TrainingRun.start(tiny(tmp_path / "shut", *shut, "method.gate.loss=1e-9")).train()
    (warning,) = [record for record in caplog.records if "has not opened" in record.message]
    assert "the gate has not opened in 3 steps" in warning.message
    assert "raise method.gate.loss" in warning.message
    caplog.clear()
    TrainingRun.start(tiny(tmp_path / "open", *shut, "method.gate.loss=1e9")).train()
    TrainingRun.start(tiny(tmp_path / "never", "method.gate.kind=never", "method.gate.warn_after=3")).train()
    assert not [record for record in caplog.records if "has not opened" in record.message]


def test_validation_is_logged_and_changes_nothing_else(tmp_path: Path) -> None:
    recipe = ["data.validation=0.4", "data.synthetic.people=10", *GATED]
    for out, every in (("often", 2), ("end", 0)):
        TrainingRun.start(tiny(tmp_path / out, f"run.validate_every={every}", *recipe)).train()
    looks = {out: [line for line in metrics(tmp_path / out) if "validation" in line] for out in ("often", "end")}
    assert [line["step"] for line in looks["often"]] == [2, 4, 6]
    assert [line["step"] for line in looks["end"]] == [6]
    assert looks["often"][-1] == looks["end"][-1]
    assert {"tar", "eer", "genuine_mean", "impostor_mean"} <= looks["end"][0]["validation"].keys()
    weights = [checkpoint.load(checkpoint.paths(tmp_path / out)[-1]).part("backbone") for out in ("often", "end")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_too_few_held_out_people_are_a_warning_and_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = ["data.validation=0.2", "evaluation.fmr=1e-4", "run.validate_every=3"]
    assert TrainingRun.start(tiny(tmp_path / "run", *few)).train().finished
    assert len([record for record in caplog.records if "no validation" in record.message]) == 2  # at steps 3 and 6


@pytest.mark.parametrize(
    ("length", "expected"),
    [("run.steps=5", 5), ("run.epochs=2", 12), ("run.epochs=0.5", 3), ("run.epochs=0.1", 1), ("run.minutes=0.125", 8)],
)
def test_a_run_is_as_long_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: str, expected: int) -> None:
    ticks = iter(range(10**6))  # a second passes in every step: 0.125 minutes are 7.5 of them
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    seen: list[Progress] = []
    outcome = TrainingRun.start(tiny(tmp_path / "run", length)).train(seen.append)
    assert (outcome.finished, outcome.steps, outcome.seconds) == (True, expected, expected)
    assert [at.step for at in seen] == list(range(1, expected + 1))
    assert seen[-1].done == 1
    assert all(before.done < after.done for before, after in itertools.pairwise(seen))


def test_the_rate_follows_the_schedule(tmp_path: Path) -> None:
    recipe = tiny(tmp_path / "run", "optimizer.warmup=0.5")
    TrainingRun.start(recipe).train()
    assert [line["lr"] for line in metrics(tmp_path / "run")] == [
        learning_rate(n / 6, recipe.optimizer) for n in range(6)
    ]


def test_worker_processes_end_with_the_run_even_where_it_fails(tmp_path: Path) -> None:
    def fail(_: Progress) -> None:
        assert multiprocessing.active_children()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as kept:
        TrainingRun.start(tiny(tmp_path / "run", "data.workers=1")).train(fail)
    assert kept.value.__traceback__ is not None, "the frames, and what they hold, are still alive"
    assert not multiprocessing.active_children()


def test_what_the_listing_left_out_and_what_cannot_be_read_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faces = write_faces(tmp_path / "faces")
    (faces / "person_000000" / "empty.png").write_bytes(b"")
    (faces / "alone").mkdir()
    shutil.copy(faces / "person_000000" / "000.png", faces / "alone")
    (faces / "person_000001" / "000.png").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        run = TrainingRun.start(tiny(tmp_path / "run", f"data.images={faces}", "data.synthetic=null", "run.epochs=4"))
        run.train()
    said = [record.message for record in caplog.records]
    assert any(message.startswith("skipped empty files: 1 (") for message in said)
    assert any(message.startswith("skipped people with fewer than 2 images: 1 (alone)") for message in said)
    # The broken image came up once in each of four epochs; that is said at 1, 2 and 4.
    unreadable = [message for message in said if "unreadable images so far" in message]
    assert [message.split("(")[-1] for message in unreadable] == [f"{n} unreadable images so far)" for n in (1, 2, 4)]
    assert "person_000001/000.png cannot be decoded" in unreadable[0]


def test_a_ramp_can_be_a_share_of_the_run(tmp_path):
    TrainingRun.start(tiny(tmp_path, "method.gate.kind=always", "method.attack.ramp=0.5", "run.steps=8")).train()
    eps = [line["eps"] for line in metrics(tmp_path) if line.get("eps")]
    assert eps[-5:] == pytest.approx([4 / 255] * 5), "four of eight steps at most"
    assert eps[1] < 4 / 255
