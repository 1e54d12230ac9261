"""steadface harden: the same recogniser, harder to deceive, as one command."""

import csv
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from steadface.backbones import Architecture, Backbone, load_backbone, read_metadata, save_backbone
from steadface.backbones.soundness import weights_digest
from steadface.cli.main import main
from steadface.data.faces import FaceSource
from steadface.data.folders import open_faces
from steadface.errors import NotFound, SteadfaceError
from steadface.evaluation.intervals import Figure
from steadface.evaluation.labelled import ValidationMetrics
from steadface.recognizers import open_recognizer
from steadface.recognizers.contract import read_contract
from steadface.training.assembly.faces import open_recipe_faces
from steadface.training.recipe import Recipe
from steadface.training.runfolder import read_run_recipe
from steadface.training.selection import looks
from steadface.workflows import harden as hardening
from steadface.workflows.harden import ORIGINAL, Wishes, harden_recipe, keep_original

from ..few import SMALLEST
from .conftest import Call

SMALL = (
    *("data.batch=4", "data.validation=0.5", "data.workers=0", "method.attack.ramp=2"),
    *("evaluation.fmr=0.2", "evaluation.max_pairs=2", "evaluation.steps=1", "evaluation.restarts=1"),
    *(
        "run.select.interpolate=2",
        "run.select.recover=1",
        "run.minutes=null",
        "run.steps=4",
        "run.validate_every=2",
        "run.checkpoint_every=2",
        "run.threads=1",
    ),
    *("run.compile=off", "run.precision=fp32", "run.device=cpu", "run.tensorboard=false"),
)


def planted(attacked: Callable[[int], float]) -> Callable[..., ValidationMetrics]:
    """Real looks, but for what is compared: nothing is lost, and what a look sees under attack goes by its number."""
    numbers = count()
    validate = looks.validate  # type: ignore[attr-defined]

    def look(recipe: Recipe, backbone: Backbone, faces: FaceSource) -> ValidationMetrics:
        rate = attacked(next(numbers))
        figures = {"clean": 0.1, "attacked": rate}
        return replace(
            validate(recipe, backbone, faces),
            **{name: Figure(value=value, without=(value, value)) for name, value in figures.items()},
        )

    return look


@pytest.fixture(autouse=True)
def _resisting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps on a random network gain nothing: every look sees less succeed than the one before."""
    monkeypatch.setattr(looks, "validate", planted(lambda look: 0.9 - 0.05 * look))
    monkeypatch.setattr(looks, "STEPS", 1)  # whatever they find is planted


PUBLISHED = Architecture(width=0.25, blocks=(1, 0, 0, 0), embedding_size=8, image_size=(16, 16))


def write_weights(path: Path, seed: int = 0, architecture: Architecture = SMALLEST) -> Path:
    save_backbone(path, architecture.build(torch.Generator().manual_seed(seed)).eval(), {})
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "given.safetensors")


def sets(*overrides: str) -> list[str]:
    return [word for override in (*SMALL, *overrides) for word in ("--set", override)]


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> tuple[object, ...]:
    """The words of a command that has run to its end; the run keeps the model that it has when a test ends."""
    folder = tmp_path_factory.mktemp("hardened")
    given = ("harden", write_weights(folder / "given.safetensors"), "--images", faces, "--out", folder / "run")
    words = (*given, "--eps", "2/255", "--max-clean-drop", "100%", *sets())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looks, "validate", planted(lambda look: 0.9 - 0.05 * look))
        patch.setattr(looks, "STEPS", 1)
        patch.setattr(sys, "argv", ["steadface", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    return words


def assert_hardened(run: Path, weights: Path) -> None:
    """The run holds a model of the same kind, and all that says what it is."""
    assert read_metadata(run)["selected"]["step"] in (2, 4)
    corner = read_run_recipe(run).model.corner
    assert load_backbone(run).architecture == load_backbone(weights).architecture.model_copy(update={"corner": corner})
    found = json.loads((run / "compatibility.json").read_text())
    assert found["old"]["fmr"] <= 0.2
    assert -1 <= found["drift"] <= 1
    recipe = (run / "recipe.yaml").read_text()
    assert f"eps: {2.5 / 255}" in recipe
    assert "max_clean_drop: 1.0" in recipe
    assert (run / "report.html").is_file()


def test_the_run_is_a_model_of_the_same_kind(hardened: tuple[object, ...], faces: Path, call: Call) -> None:
    _, weights, _, _, _, run, *_ = hardened
    assert_hardened(run, weights)
    assert call("evaluate", run, "--images", faces).code == 0


@pytest.mark.usefixtures("undrawn")
def test_with_labels_too(faces: Path, tmp_path: Path, call: Call) -> None:
    weights, run = write_weights(tmp_path / "given.safetensors", architecture=PUBLISHED), tmp_path / "run"
    words = ("harden", weights, "--images", faces, "--out", run, "--labels", "--eps", "2/255")
    said = call(*words, "--max-clean-drop", "100%", *sets())
    assert said.code == 0, said.err
    assert "old template, new probe" in said.out
    assert_hardened(run, weights)
    assert call("evaluate", run, "--images", faces).code == 0


@pytest.mark.usefixtures("undrawn")
def test_where_nothing_is_gained_there_is_no_model_and_the_command_ends_with_its_own_code(
    weights: Path, faces: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "validate", planted(lambda _: 0.9))
    run = tmp_path / "run"
    words = ("harden", weights, "--images", faces, "--out", run)
    said = call(*words, *sets())
    assert said.code == 3
    assert "none of 5 candidates is shown to resist better" in said.err
    assert "stay valid" not in said.out
    assert "not shown to gain" in said.out
    assert not (run / "model.safetensors").exists()
    page = (run / "report.html").read_text()
    assert "nothing gained" in page
    assert "start, recovered" in page
    again = call(*words, *sets())
    assert again.code == 3
    assert "none of 5 candidates" in again.err


@pytest.mark.usefixtures("undrawn")
def test_another_candidate_of_a_finished_run_takes_no_training(
    hardened: tuple[object, ...], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hardened[5]
    assert read_metadata(run)["selected"]["name"] == "start, recovered", "the last that was looked at, as planted"
    monkeypatch.delattr(looks, "validate")
    named = call(*hardened, "--choose", "step 4")
    assert named.code == 0, named.err
    assert read_metadata(run)["selected"]["name"] == "step 4"
    assert read_contract(run) is not None
    assert "old template, new probe" in named.out
    other = call(*hardened, "--choose", "step 9")
    assert other.code == NotFound.exit_code
    assert "no candidate 'step 9'; choose one of" in other.err
    assert read_metadata(run)["selected"]["name"] == "step 4"
    for drop in ("1%", "100%"):
        assert call(*hardened, "--max-clean-drop", drop).code == 0
        assert read_metadata(run)["selected"]["name"] == "start, recovered"


def test_nothing_can_be_chosen_before_there_is_a_run(weights: Path, faces: Path, tmp_path: Path, call: Call) -> None:
    said = call("harden", weights, "--images", faces, "--out", tmp_path / "run", "--choose", "step 4", *sets())
    assert said.code == 2
    assert "harden first, then choose" in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("undrawn")
def test_the_same_command_goes_on_and_another_is_refused(
    hardened: tuple[object, ...], tmp_path: Path, call: Call
) -> None:
    model = hardened[5] / "model.safetensors"
    before = model.read_bytes()
    said = call(*hardened)
    assert said.code == 0
    assert "old template, new probe" in said.out
    assert model.read_bytes() == before
    for changed in ("run.steps=2", "optimizer.rate=1e-5"):
        other = call(*hardened, *sets(changed))
        assert other.code == 5
        assert "another recipe" in other.err
    other = call(hardened[0], write_weights(tmp_path / "given.safetensors", seed=1), *hardened[2:])
    assert other.code == 5
    assert "began with other weights" in other.err
    assert model.read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_is_made_longer_by_its_own_command(
    weights: Path, faces: Path, tmp_path: Path, call: Call
) -> None:
    run = tmp_path / "run"
    words = ("harden", weights, "--images", faces, "--out", run, "--max-clean-drop", "100%", *sets())
    assert call(*words).code == 0
    said = call(*words, *sets("run.steps=6"))
    assert said.code == 0, said.err
    facts = read_metadata(run)
    assert (facts["steps"], facts["selected"]["name"], facts["selected"]["step"]) == (6, "start, recovered", 6)
    assert "step 6" in (run / "report.html").read_text()


def test_weights_left_by_a_run_that_never_began_are_not_those_of_the_next(faces: Path, tmp_path: Path) -> None:
    first, second = (open_recognizer(write_weights(tmp_path / f"{seed}.safetensors", seed)) for seed in (0, 1))
    keep_original(first, tmp_path / "run", open_faces(faces), None)
    keep_original(second, tmp_path / "run", open_faces(faces), None)
    assert weights_digest(load_backbone(tmp_path / "run" / f"{ORIGINAL}.safetensors")) == second.content


@pytest.mark.usefixtures("undrawn")
def test_a_student_of_another_architecture_learns_the_embeddings(
    weights: Path, faces: Path, tmp_path: Path, call: Call
) -> None:
    run = tmp_path / "run"
    overrides = ("model.architecture.width=0.0625", "method.gate.loss=0.9")
    said = call("harden", weights, "--images", faces, "--out", run, "--student", "iresnet18", *sets(*overrides))
    assert said.code == 0, said.err
    made = load_backbone(run).architecture
    assert (made.name, made.embedding_size, made.image_size, made.corner) == ("iresnet18", 8, (16, 16), 0)
    assert "old template, new probe" in said.out


def test_who_is_who_enters_the_loss_where_that_is_wished_for_and_known(
    weights: Path, faces: Path, plain: Path, tmp_path: Path
) -> None:
    given, run, labels = open_recognizer(weights), tmp_path / "run", Wishes(labels=True)
    assert harden_recipe(given, faces, run, Wishes()).head.kind == "none"
    assert harden_recipe(given, faces, run, labels).head.kind == "cosface"
    noise = harden_recipe(given, faces, run, Wishes(sigma=0.12))
    assert (noise.name, noise.method.attack.kind, noise.method.attack.eps) == ("harden_noise", "gaussian", 0.12)
    assert harden_recipe(given, plain, run, labels, ["data.people=people.csv"]).head.kind == "cosface"
    with pytest.raises(SteadfaceError, match=r"--labels needs to know who is who in .*plain.*data\.people=FILE\.csv"):
        harden_recipe(given, plain, run, labels)
    with pytest.raises(SteadfaceError, match="leave --labels out, or --extra"):
        harden_recipe(given, faces, run, labels, extra=plain)
    with pytest.raises(SteadfaceError, match="leave --labels out, or --extra and --student"):
        harden_recipe(given, faces, run, replace(labels, student="iresnet18"))
    with pytest.raises(SteadfaceError, match="leave --labels and --student out"):
        harden_recipe(given, faces, run, replace(labels, sigma=0.1))


@pytest.fixture
def plain(faces: Path, tmp_path: Path) -> Path:
    """One folder of twelve people with four equal images each, and two who are seen once."""
    root = tmp_path / "plain"
    root.mkdir()
    for number, person in enumerate(sorted(faces.iterdir())):
        image, other, *_ = sorted(person.iterdir())
        for copy in range(4):
            shutil.copy(image, root / f"{copy}-{person.name}.png")
        if number < 2:
            shutil.copy(other, root / f"alone-{person.name}.png")
    return root


def equal_embeddings(embeddings: np.ndarray, **_: object) -> np.ndarray:
    """Whom a random network, to which everybody looks alike, still tells apart."""
    equal = np.abs(embeddings[:, None] - embeddings).max(2) < 1e-5
    return np.unique(equal.argmax(1), return_inverse=True)[1]


@pytest.mark.usefixtures("undrawn")
def test_without_labels_the_recogniser_says_who_is_who(
    weights: Path, plain: Path, faces: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardening, "people_alike", equal_embeddings)
    run, extra = tmp_path / "run", tmp_path / "extra"
    shutil.copytree(faces, extra)
    words = ("harden", weights, "--images", plain, "--extra", extra, "--out", run, *sets())
    said = call(*words)
    assert said.code == 0, said.err
    assert "50 faces of" in said.err
    assert "look like 14 people, 12 of them on two or more" in said.err
    with (run / "people.csv").open() as file:
        named = {line["image"]: line["person"] for line in csv.DictReader(file)}
    assert named.keys() == {path.name for path in plain.iterdir()}
    everybody = {(person, image.partition("-")[2]) for image, person in named.items() if image[0].isdigit()}
    assert len(everybody) == len({person for person, _ in everybody}) == 12
    split = open_recipe_faces(read_run_recipe(run))
    assert split.validation is not None
    assert sorted(Counter(split.validation.labels.tolist()).values()) == [4] * 6
    trained = [Path(split.training.name(index)) for index in range(len(split.training))]
    assert len(trained) == 6 * 4 + 2 + 48
    assert {path for path in trained if path.is_relative_to(extra)} == set(extra.rglob("*.png"))
    assert len([path for path in trained if path.name.startswith("alone")]) == 2

    monkeypatch.delattr(hardening, "people_alike")  # a run keeps the people that it began with
    before = (run / "model.safetensors").read_bytes()
    again = call(*words)
    assert again.code == 0, again.err
    assert (run / "model.safetensors").read_bytes() == before
    next(extra.rglob("*.png")).unlink()
    assert "the faces have changed since step 4: 98 images of 62 people then, 97 of 61 now" in call(*words).err


def test_where_too_few_people_look_alike_nothing_begins(
    weights: Path, plain: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hardening, "people_alike", lambda embeddings, **_: np.maximum(np.arange(len(embeddings)), 1) - 1
    )
    said = call("harden", weights, "--images", plain, "--out", tmp_path / "run", *sets())
    assert said.code == 2
    assert "1 of them on two or more, too few to hold some out" in said.err
    assert "one folder per person, or --set data.people=FILE.csv" in said.err
    assert not (tmp_path / "run").exists()


def test_where_too_few_people_can_be_held_out_nothing_begins(
    weights: Path, faces: Path, tmp_path: Path, call: Call
) -> None:
    options = sets("data.validation=0.5", "evaluation.fmr=1e-9")
    said = call("harden", weights, "--images", faces, "--out", tmp_path / "run", *options)
    assert said.code == 2
    assert "too few to hold some out" in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--student", "resnet"], "iresnet18"),
        (["--eps", "4"], "write 4/255"),
        (["--max-clean-drop", "much"], "write 0.5% or 0.005"),
    ],
)
def test_wrong_wishes_are_refused_before_anything(
    weights: Path, faces: Path, tmp_path: Path, call: Call, words: list[str], remedy: str
) -> None:
    said = call("harden", weights, "--images", faces, "--out", tmp_path / "run", *words)
    assert said.code == 2
    assert remedy in said.err
    assert not (tmp_path / "run").exists()
