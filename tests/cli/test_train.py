import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from steadface.errors import Conflict, InvalidInput, NotFound
from steadface.training import loop
from steadface.training.constraint import LevelMissed
from steadface.training.lock import locked

from .conftest import Call

ARM = {
    "accuracy",
    "eer",
    "genuine_mean",
    "impostor_mean",
    "operating_points",
    "attacks",
    "seconds",
    "steps",
    "duty_cycle",
}


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C in the middle of a step."""
    take = loop.TrainingRun._step

    def interrupted(self: loop.TrainingRun, *rest: object) -> object:
        if self.step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, *rest)

    monkeypatch.setattr(loop.TrainingRun, "_step", interrupted)


def test_train_trains_judges_and_reports(call: Call, recipe: Path, tmp_path: Path) -> None:
    said = call("train", recipe, "--set", "run.steps=3")
    assert said.code == 0, said.err
    assert "tiny: 100%  step 3" in said.out
    assert "gate open" in said.out
    assert "finished: 3 steps" in said.out
    assert "FNMR, dodging linf 4/255" in said.out
    run = tmp_path / "run"
    for what, path in (("model", run), ("report", run / "report.html")):
        assert f"{what}: {path}\n" in said.out
    (arm,) = json.loads((run / "report.json").read_text())["arms"]
    assert arm.keys() >= ARM
    assert (arm["steps"], arm["duty_cycle"]) == (3, 1.0)
    command = json.loads((run / "report.json").read_text())["command"]
    assert command == f"steadface train {recipe} --set run.steps=3"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("asked", "code"), [("51%", 0), ("1.0", LevelMissed.exit_code)])
def test_a_clean_level_is_asked_for_and_what_was_reached_is_said(
    call: Call, recipe: Path, tmp_path: Path, asked: str, code: int
) -> None:
    judging = ("--set", "method.gate.kind=loss", "--set", "method.gate.clean.every=2")
    said = call("train", recipe, "--target-clean", asked, *judging)
    assert said.code == code, said.err
    run, missed = tmp_path / "run", code != 0
    reached = json.loads((run / "reached.json").read_text())
    assert reached["missed"] == missed
    assert reached["ci"][0] <= reached["clean"] <= reached["ci"][1]
    answer = said.err if missed else said.out
    assert f"asked for {'100' if missed else '51'} % clean" in answer
    assert f"reached {100 * reached['clean']:.1f} %" in answer
    assert "attacked at linf 4/255" in answer
    assert ("out of reach" in answer) == missed
    assert (run / "model.safetensors").exists()
    assert (run / "report.html").exists()


@pytest.mark.parametrize(
    ("asked", "answer"),
    [("40%", "ask for more than 50%"), ("much", "--target-clean much is not a share"), ("97%", "kind always has none")],
)
def test_a_clean_level_that_cannot_be_asked_for_is_refused(call: Call, recipe: Path, asked: str, answer: str) -> None:
    said = call("train", recipe, "--target-clean", asked)
    assert said.code == InvalidInput.exit_code
    assert answer in said.err
    assert not (recipe.parent / "run").exists()


def test_a_shipped_recipe_goes_by_its_name(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # not taken for the recipe
    said = call("train", "demo", "--set", "data.images=/nowhere", "--set", "data.synthetic=null")
    assert "/nowhere is not a folder of faces" in said.err


@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_says_how_to_go_on_and_resume_does(
    call: Call, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "a run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        said = call("train", recipe, "--set", f"run.out={run}")
    assert said.code == 130
    assert "stopped: 3 steps" in said.out
    assert f"go on with: steadface resume '{run}'\n" in said.out
    assert not (run / "model.safetensors").exists()

    said = call("resume", run)
    assert said.code == 0
    assert "finished: 4 steps" in said.out
    assert (run / "report.html").exists()
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == [1, 2, 3, 4]


@pytest.mark.usefixtures("undrawn")
def test_train_onto_a_run_is_refused_and_resuming_a_finished_one_reports_again(call: Call, recipe: Path) -> None:
    assert call("train", recipe).code == 0
    said = call("train", recipe)
    assert said.code == Conflict.exit_code
    assert "already holds a run: go on with steadface resume" in said.err
    run = recipe.parent / "run"
    (run / "report.html").unlink()
    said = call("resume", run)
    assert said.code == 0
    assert (run / "report.html").exists()


def test_a_folder_in_which_somebody_works_is_a_conflict(call: Call, recipe: Path, faces: Path, tmp_path: Path) -> None:
    assert call("train", recipe, "--set", "run.steps=1").code == 0
    run, before = tmp_path / "run", sorted(tmp_path.rglob("*"))
    for words in (
        ("train", recipe),
        ("train", recipe, "--set", f"run.out={run}/../run"),
        ("resume", run),
        ("harden", run, "--images", faces, "--out", run),
        ("harden", run, "--images", faces, "--out", run, "--choose", "step 1"),
    ):
        with locked(run):
            said = call(*words)
        assert said.code == Conflict.exit_code, said.err
        assert f"process {os.getpid()} works in" in said.err
        assert said.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_run_is_not_made_one(call: Call, tmp_path: Path) -> None:
    assert call("resume", tmp_path / "nowhere" / "run").code == NotFound.exit_code
    assert not list(tmp_path.iterdir())


def test_ctrl_c_outside_of_the_steps_says_how_to_go_on(
    call: Call, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """While listing, between two steps for the second time, and while judging."""
    run = tmp_path / "run"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def pressed(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    def pressed_twice(*_: object) -> None:
        pressed()
        pressed()

    for place, press, then in (
        ("steadface.training.loop.open_recipe_faces", pressed, f"go on with: steadface train {recipe}"),
        ("steadface.training.loop.TrainingRun._step", pressed_twice, f"go on with: steadface resume {run}"),
        ("steadface.training.loop.TrainingRun._export", pressed_twice, f"go on with: steadface resume {run}"),
        ("steadface.workflows.train.calibrated", pressed, f"go on with: steadface resume {run}"),
        ("steadface.cli.train.judge", pressed, f"go on with: steadface resume {run}"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, press)
            said = call("resume", run) if run.exists() else call("train", recipe)
        assert said.code == 130
        assert then in said.err
        assert said.err.count("\n") == 1
        assert not list(tmp_path.rglob("*.partial"))
    said = call("resume", run)
    assert said.code == 0, said.err
    assert (run / "report.html").exists()


def test_too_few_people_to_judge_by_are_a_warning(call: Call, recipe: Path) -> None:
    said = call("train", recipe, "--set", "evaluation.fmr=1e-6")
    assert said.code == 0
    assert "warning: not judged on the held-out people:" in said.err
    assert f"model: {recipe.parent / 'run'}" in said.out


def test_without_held_out_people_there_is_no_judgement(call: Call, recipe: Path) -> None:
    said = call("train", recipe, "--set", "data.validation=0")
    assert said.code == 0
    assert f"model: {recipe.parent / 'run'}" in said.out
    assert not (recipe.parent / "run" / "report.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_what_was_skipped_is_said_once(call: Call, recipe: Path, faces: Path, tmp_path: Path) -> None:
    own = shutil.copytree(faces, tmp_path / "faces")
    (own / "person_000000" / "empty [x].png").touch()
    said = call("train", recipe, "--set", f"data.images={own}", "--set", "data.min_images=2")
    assert said.code == 0
    assert said.err.count("skipped empty files: 1") == 1
    assert "empty [x].png" in said.err


DEMO = [
    "data.synthetic.people=24",
    "data.synthetic.images_per_person=3",
    "data.size=[16, 16]",
    "data.batch=4",
    "data.validation=0.5",
    "model.architecture={name: mobilefacenet, width: 0.125, blocks: [1, 0, 0, 0], embedding_size: 8}",
    "evaluation={fmr: 0.2, eps: [4/255], steps: 1, restarts: 1, max_pairs: 4}",
    "run.steps=3",
    "run.device=cpu",
    "run.threads=1",
    "run.tensorboard=false",
]


def demo(out: Path, *more: str) -> list[str]:
    return ["demo", "--out", str(out), *(word for override in (*DEMO, *more) for word in ("--set", override))]


@pytest.mark.usefixtures("undrawn")
def test_the_demonstration_leaves_its_report_and_goes_on_where_it_was(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        said = call(*demo(out))
    assert said.code == 130
    assert f"go on with: steadface demo --out {out} --set data.synthetic.people=24" in said.out

    said = call(*demo(out))
    assert said.code == 0, said.err
    assert "clean:  67%  step 2" not in said.out, "that step has been done"
    assert "gated: 100%  step 3" in said.out
    assert f"report: {out / 'report.html'}\n" in said.out
    report = json.loads((out / "report.json").read_text())
    assert [arm["name"] for arm in report["arms"]] == ["clean", "gated"]
    assert all(arm.keys() >= ARM for arm in report["arms"])
    assert [arm["steps"] for arm in report["arms"]] == [3, 3]
    assert "no claim about real faces" in (out / "report.html").read_text()

    (out / "report.html").unlink()
    said = call(*demo(out))
    assert said.code == 0
    assert "step 3" not in said.out, "both arms were finished"
    assert (out / "report.html").exists()

    said = call(*demo(out, "optimizer.rate=0.3"))
    assert said.code == 5
    assert f"{out / 'clean'} holds a run of another recipe (optimizer.rate: 0.1 -> 0.3): remove that folder" in said.err
