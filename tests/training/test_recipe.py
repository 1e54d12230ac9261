import os
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import BaseModel

from steadface.backbones import Architecture, save_backbone
from steadface.errors import InvalidInput, SteadfaceError
from steadface.training.assembly.faces import open_recipe_faces
from steadface.training.assembly.trainer import assemble
from steadface.training.compute import Compute
from steadface.training.recipe import Recipe, load_recipe, make_recipe
from steadface.training.recipe.recipe import recipe_path
from steadface.training.runfolder import read_run_recipe

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
LEAST: dict[str, Any] = {"name": "least", "data": {"images": "faces"}, "run": {"steps": 1}}


def sections(model: type[BaseModel] = Recipe) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from sections(inner)


def refusal(*overrides: str) -> str:
    with pytest.raises(SteadfaceError) as refused:
        make_recipe(LEAST, list(overrides))
    return str(refused.value)


def needs(recipe: Path) -> list[str]:
    """What a shipped recipe leaves to its user."""
    start = ["model.start=weights.safetensors"] if recipe.stem.startswith("harden") else []
    return start if "synthetic" in yaml.safe_dump(_values(recipe)) else ["data.images=faces", *start]


def _values(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text())
    base = values.get("extends")
    return {**(_values(path.parent / base) if base else {}), **values}


def test_all_the_recipes_promised_ship() -> None:
    names = {path.stem for path in SHIPPED}
    assert names >= {
        "clean",
        "pgd_at",
        "trades",
        "gated_literal",
        "gated",
        "gated_no_targets",
        "gated_generator",
        "demo",
        "harden",
        "harden_labelled",
    }


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_load_say_what_they_are_for_and_assemble(path: Path, tmp_path: Path) -> None:
    assert path.read_text().startswith("# ")
    recipe = load_recipe(path, needs(path))
    assert recipe.name
    small = [
        "data.images=null",
        "data.synthetic.people=6",
        "data.synthetic.images_per_person=2",
        "data.size=[16, 16]",
        "data.validation=0",
        "run.select=null",
        "method.attack.probe=null",
        "model.architecture.blocks=[1, 0, 0, 0]",
        "model.architecture.width=0.125",
    ]
    start = tmp_path / "start.safetensors" if path.stem.startswith("harden") else None
    if start is not None:
        architecture = Architecture(width=0.125, blocks=(1, 0, 0, 0), image_size=(16, 16), embedding_size=8)
        save_backbone(start, architecture.build(torch.Generator()), {})
        small += [f"model.start={start}", "run.compile=off"]
    recipe = load_recipe(path, small)
    faces = open_recipe_faces(recipe)
    parts = assemble(recipe, faces, Compute(device=torch.device("cpu")), fresh=True, start=start)
    assert parts.trainer.gate.is_open == (recipe.method.gate.kind == "always")


def test_training_recipes_differ_in_method_only() -> None:
    """One loop for all, so that comparisons are fair."""
    trained = [load_recipe(path, needs(path)) for path in SHIPPED if not path.stem.startswith(("demo", "harden"))]
    for part in ("data", "model", "head", "optimizer", "evaluation", "run"):
        assert len({getattr(recipe, part).model_dump_json() for recipe in trained}) == 1, part


@pytest.mark.parametrize("section", sorted(set(sections()), key=attrgetter("__name__")), ids=attrgetter("__name__"))
def test_every_section_is_documented(section: type[BaseModel]) -> None:
    assert section.__doc__
    assert "!!!" not in section.__doc__
    assert section.__doc__ != BaseModel.__doc__
    assert "__doc__" in vars(section), "inherited words are about something else"


@pytest.mark.parametrize(
    ("text", "radius"), [("4/255", 4 / 255), ("8 / 255", 8 / 255), ("0.03", 0.03), ("1", 1.0), ("0.5/255", 0.5 / 255)]
)
def test_a_radius_may_be_a_fraction(text: str, radius: float) -> None:
    assert make_recipe(LEAST, [f"method.attack.eps={text}"]).method.attack.eps == radius
    assert make_recipe(LEAST, [f"evaluation.eps=[{text}]"]).evaluation.eps == (radius,)


@pytest.mark.parametrize("text", ["0", "-1/255", "4/0", "4/four", "1/nan", "four", "nan"])
def test_a_radius_is_a_positive_number(text: str) -> None:
    assert "method.attack.eps" in refusal(f"method.attack.eps={text}")


def test_faces_without_labels_need_a_loss_without_labels() -> None:
    assert "data.extra has no labels, and head.kind arcface needs them" in refusal("data.extra=more")
    recipe = make_recipe(LEAST, ["data.extra=more", "head.kind=none", "model.start=weights"])
    assert recipe.data.extra == Path("more")


def test_names_of_people_are_names_of_images() -> None:
    said = refusal("data.people=people.csv", "data.images=null", "data.synthetic.people=6")
    assert "data.people says who is on data.images" in said


def test_a_radius_in_grey_levels_is_caught() -> None:
    assert "write 4/255" in refusal("method.attack.eps=4")
    assert "write 4/255" in refusal("evaluation.eps=[2/255, 4]")
    assert make_recipe(LEAST, ["method.attack.norm=l2", "method.attack.eps=2"]).method.attack.eps == 2


def test_older_names_are_read_with_the_same_meaning(tmp_path: Path) -> None:
    now = make_recipe({**LEAST, "optimizer": {"kind": "adamw", "rate": 0.5}})
    assert make_recipe({**LEAST, "optimiser": {"kind": "adamw"}}, ["optimiser.rate=0.5"]) == now
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**LEAST, "optimiser": {"kind": "adamw", "rate": 0.1}}))
    (tmp_path / "newer.yaml").write_text("{extends: base.yaml, optimizer: {rate: 0.5}}")
    assert load_recipe(tmp_path / "newer.yaml") == now
    assert "optimiser" not in now.model_dump()
    with pytest.raises(InvalidInput, match="older name"):
        make_recipe({**LEAST, "optimiser": {"rate": 0.5}, "optimizer": {"rate": 0.5}})


@pytest.mark.parametrize(
    ("text", "value", "of_chance"),
    [("3", 3, False), ("0.3 chance", 0.3, True), ("0.3 of chance", 0.3, True), ("{value: 2}", 2, False)],
)
def test_a_gates_bound_is_a_number_or_a_fraction_of_chance(text: str, value: float, of_chance: bool) -> None:
    bound = make_recipe(LEAST, [f"method.gate.loss={text}"]).method.gate.loss
    assert (bound.value, bound.of_chance) == (value, of_chance)


@pytest.mark.parametrize("text", ["0", "-1", "chance", "0.3 cats"])
def test_no_other_bound_is(text: str) -> None:
    assert "method.gate.loss" in refusal(f"method.gate.loss={text}")


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("optimizer.rat=1", "optimizer.rat is not a key of a recipe; did you mean rate?"),
        ("optimzer.rate=1", "optimzer is not a key of a recipe; did you mean optimizer?"),
        ("model.architecture.widht=1", "model.architecture.widht is not a key of a recipe; did you mean width?"),
        ("data.synthetic.poeple=1", "did you mean people?"),
        ("method.gate.loss={valeu: 1}", "did you mean value?"),
        ("method.eps=1/255", "did you mean method.attack.eps or evaluation.eps?"),
        ("minutes=10", "did you mean run.minutes?"),
        ("head.zzz=1", "head.zzz is not a key of a recipe; known keys: kind, m, s"),
    ],
)
def test_a_wrong_key_is_answered_with_the_nearest_right_one(override: str, answer: str) -> None:
    assert answer in refusal(override)


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("head.kind=arcfase", "head.kind = 'arcfase': Input should be 'arcface', 'cosface'"),
        ("data.batch=1", "data.batch = 1: Input should be greater than or equal to 2"),
        ("data.validation=1", "data.validation = 1: Input should be less than 1"),
        ("run.seed=-1", "run.seed = -1: Input should be greater than or equal to 0"),
        ("optimizer=3", "optimizer = 3"),
        ("run.steps", "--set run.steps: write section.key=value"),
        ("data.size=[112", "--set data.size=[112: the value is not YAML"),
    ],
)
def test_a_wrong_value_is_named(override: str, answer: str) -> None:
    assert answer in refusal(override)


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (["data.images=null"], "give either data.images"),
        (["data.synthetic.people=4"], "give either data.images"),
        (["run.steps=null"], "give exactly one of run.steps, run.epochs and run.minutes, got none"),
        (["head.kind=none"], "give model.start"),
        (["method.regularizer.reference_source=1"], "give model.start"),
        (["method.targets.kind=none"], "set attack.goal: dodge and regularizer.triplet: 0"),
        (["method.source=0"], "set gate.kind: always and timing: next"),
        (["method.targets.designate=map"], "targets.designate map and targets.map FILE belong together"),
        (["method.targets.map=m.yaml"], "targets.designate map and targets.map FILE belong together"),
        (["method.batchnorm=frozen"], "give model.start"),
        (["method.gate.kind=verification", "data.validation=0"], "data.validation above 0"),
        (["method.gate.clean.level=0.9", "data.validation=0"], "set data.validation above 0"),
        (["method.gate.clean.level=0.4"], "greater than 0.5"),
        (["method.gate.clean.level=0.9", "method.gate.kind=always"], "kind always has none: set kind to one of loss"),
        (["method.gate.anneal.times=2", "method.gate.kind=accuracy"], "gate.anneal moves the bound on the loss"),
        (["data.batch=9", "optimizer.accumulate=2"], "data.batch 9 does not part into 2 equal micro-batches"),
        (["data.batch=4", "optimizer.accumulate=4"], "equal micro-batches of two or more"),
        (
            ["data.sampling=balanced", "data.batch=9", "data.images_per_person=2"],
            "not a multiple of data.images_per_person",
        ),
        (["evaluation.eps=[]"], "eps is empty"),
        (["method.attack.kind=gaussian"], "set attack.norm to l2"),
        (["method.attack.blur=1"], "attack.blur goes with kind gaussian"),
    ],
)
def test_combinations_that_cannot_work_are_refused_with_the_remedy(overrides: list[str], remedy: str) -> None:
    assert remedy in refusal(*overrides)


def test_every_key_can_be_overridden() -> None:
    recipe = make_recipe(
        LEAST,
        ["name=other", "method.attack.kind=pgd", "method.attack.steps=7", "data.size=[112, 96]", "run.compile=on"],
    )
    assert (recipe.name, recipe.method.attack.kind, recipe.method.attack.steps) == ("other", "pgd", 7)
    assert recipe.data.size == (112, 96)
    assert recipe.run.compile == "on", "YAML reads a bare on as true"
    assert make_recipe(LEAST, ["run.compile=off"]).run.compile == "off"
    assert make_recipe(LEAST, ["optimizer.clip_norm=null"]).optimizer.clip_norm is None
    assert make_recipe(LEAST, ["data.images=~/faces"]).data.images == Path.home() / "faces"
    assert LEAST == {"name": "least", "data": {"images": "faces"}, "run": {"steps": 1}}, "the values given are kept"


def test_a_length_replaces_one_in_another_unit() -> None:
    assert make_recipe(LEAST, ["run.minutes=2"]).run.steps is None
    run = make_recipe(LEAST, ["run.minutes=2", "run.epochs=3", "run.log_every=5"]).run
    assert (run.steps, run.minutes, run.epochs, run.log_every) == (None, None, 3, 5)
    assert make_recipe(LEAST, ["run.log_every=5"]).run.steps == 1


def test_a_recipe_extends_another_section_by_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("name: base\ndata: {images: a, batch: 8}\nrun: {epochs: 3, seed: 5}\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "top.yaml").write_text("extends: ../base.yaml\ndata: {batch: 16}\nrun: {steps: 7}\n")
    recipe = load_recipe(tmp_path / "inner" / "top.yaml", ["data.workers=0"])
    assert (recipe.name, recipe.data.batch, recipe.data.workers, recipe.data.images) == ("base", 16, 0, Path("a"))
    assert (recipe.run.steps, recipe.run.epochs, recipe.run.seed) == (7, None, 5)


def test_files_that_are_no_recipe_are_named(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "lost.yaml").write_text("extends: nowhere.yaml\n")
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    for name, said in {
        "list.yaml": "holds no mapping of sections",
        "broken.yaml": "is not YAML",
        "binary.yaml": "is not YAML",
        "missing.yaml": "No such file.*recipes/ holds the ones that ship",
        "lost.yaml": "nowhere.yaml: No such file",
        "a.yaml": "extends itself",
        "": "Is a directory",
    }.items():
        with pytest.raises(SteadfaceError, match=said):
            load_recipe(tmp_path / name)


def laughs(levels: int) -> str:
    """Nine aliases of nine aliases of ...: a few hundred bytes that stand for 9 ** levels values."""
    rest = (f"a{level}: &a{level} [{', '.join(9 * [f'*a{level - 1}'])}]" for level in range(1, levels))
    return "\n".join(("a0: &a0 [x, x, x, x, x, x, x, x, x]", *rest))


def merges(levels: int) -> str:
    rest = (f"a{level}: &a{level} {{<<: [{', '.join(9 * [f'*a{level - 1}'])}]}}" for level in range(1, levels))
    return "\n".join(("a0: &a0 {x0: 1, x1: 1}", *rest))


def block(depth: int) -> str:
    return "".join(" " * level + "a:\n" for level in range(depth))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (laughs(9), "more than 10,000 values"),
        (merges(9), "more than 10,000 values"),
        ("data: [" + "a," * 20_000 + "]", "more than 10,000 values"),
        ("name: &a {x: *a}", "inside what it repeats"),
        ("name: " + "[" * 10_000, "deep"),
        ("name: " + "{a: " * 10_000, "deep"),
        (block(500), "deep"),
        ("- " * 10_000, "deep"),
        ("? " * 10_000, "deep"),
        ("run: {seed: " + "1" * 5000 + "}", "a number of 5,000"),
        ("run: {seed: 0x" + "f" * 5000 + "}", "a number of"),
        ("run: {seed: 1" + ":1" * 5000 + "}", "a number of"),
        ("run: {minutes: 1" + ":1" * 5000 + ".0}", "a number of"),
        ("run: {minutes: 1" + "0" * 5000 + ".0}", "a number of"),
        ("name: 2001-99-99", "not YAML"),
        ("name: 0001-01-01 00:00:00 +23:00", "valid string"),
        ('name: !!int ""', "not YAML"),
        ("name: !!bool x", "not YAML"),
        ("name: !!float x", "not YAML"),
        ("name: !!timestamp x", "not YAML"),
        ("name: !!binary ä", "not YAML"),
        ("name: !!python/object/apply:os.system [true]", "not YAML"),
        ("? [a, b]\n: 1", "not YAML"),
        ("name: a\0b", "not YAML"),
        ("name: x\n" + "#" * 2_000_000, "at most 1,048,576"),
        ("extends: [a]", "name a file"),
        ("extends: ''", "name a file"),
        ("extends: 7", "name a file"),
        ("extends: /dev/zero", "leads out"),
        ("extends: ../../base.yaml", "leads out"),
        ("extends: .", "Is a directory"),
        ('extends: "a\\0b"', "called"),
        ("extends: " + "a" * 5000, "too long"),
        ("\n".join(f"key{number}: 1" for number in range(2000)), "and 19.. more mistakes"),
    ],
)
def test_what_a_file_may_hold_ends_in_a_message_soon(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(SteadfaceError, match=said):
        load_recipe(path)


def test_aliases_and_merge_keys_of_a_sound_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    written = "name: x\ndata: {images: faces, SIZE, batch: &b 8}\nrun: {steps: STEPS, keep: STEPS}\n"
    path.write_text(written.replace("SIZE", "size: [112, 96]").replace("STEPS", "8"))
    plain = load_recipe(path)
    path.write_text(written.replace("SIZE", "<<: {size: [112, 96]}").replace("STEPS", "*b"))
    assert load_recipe(path) == plain


def test_names_in_a_recipe_stay_below_it_or_the_folder_one_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "base.yaml").write_text("name: base\ndata: {images: a}\nrun: {steps: 3}\n")
    (tmp_path / "inner" / "top.yaml").write_text("extends: ../base.yaml\n")
    (tmp_path / "inner" / "link.yaml").symlink_to(tmp_path / "base.yaml")
    (tmp_path / "inner" / "through.yaml").write_text("extends: link.yaml\n")
    (tmp_path / "entrance.yaml").symlink_to(tmp_path / "inner" / "top.yaml")
    monkeypatch.chdir(tmp_path / "inner")
    for name in ("top.yaml", "through.yaml"):
        with pytest.raises(SteadfaceError, match="leads out"):
            load_recipe(tmp_path / "inner" / name)
    monkeypatch.chdir(tmp_path)
    for name in ("top.yaml", "through.yaml"):
        assert load_recipe(tmp_path / "inner" / name).name == "base"


def test_a_chain_of_recipes_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text("name: base\ndata: {images: a}\nrun: {steps: 3}\n")
    for number in range(1, 40):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number - 1}.yaml\n")
    assert load_recipe(tmp_path / "10.yaml").name == "base"
    with pytest.raises(SteadfaceError, match="more than 20"):
        load_recipe(tmp_path / "39.yaml")


def test_a_recipe_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gated.yaml")
    assert recipe_path(tmp_path / "gated.yaml") == tmp_path / "gated.yaml", "not the one of that name that ships"
    with pytest.raises(InvalidInput, match="a pipe"):
        load_recipe(tmp_path / "gated.yaml")
    (tmp_path / "top.yaml").write_text("extends: gated.yaml\n")
    with pytest.raises(InvalidInput, match="a pipe"):
        load_recipe(tmp_path / "top.yaml")


@pytest.mark.parametrize("name", ["/", ".", "..", "", "a" * 5000, "x/" * 3000])
def test_whatever_is_given_as_a_recipe_is_answered(name: str) -> None:
    with pytest.raises(SteadfaceError):
        load_recipe(recipe_path(Path(name)))


@pytest.mark.parametrize(
    "override",
    [
        "data.batch=100000000000000000000",
        "data.batch=90000000",
        "data.size=[100000, 100000]",
        "data.workers=100000",
        "data.prefetch=0",
        "run.seed=18446744073709551616",
        "run.threads=99999999",
        "run.steps=10000000000",
        "run.minutes=.inf",
        "optimizer.rate=.inf",
        "optimizer.rate=1e300",
        "optimizer.weight_decay=1e300",
        "method.alpha=.nan",
        "method.regularizer.margin=.inf",
        "method.attack.steps=100000000000",
        'data.images="a\\0b"',
        "data.images=" + "a" * 300,
        "data.images=" + "a/" * 3000,
        "data.images=~nobody-of-that-name/x",
        "a." * 2000 + "b=1",
    ],
)
def test_numbers_and_names_that_cannot_be_meant_are_refused(override: str) -> None:
    assert refusal(override)


def test_so_many_made_faces_are_refused() -> None:
    with pytest.raises(SteadfaceError, match="10,000,000"):
        make_recipe({"name": "x", "data": {"synthetic": {"people": 10**8}}, "run": {"steps": 1}})


def test_a_recipe_written_down_is_the_same_recipe() -> None:
    for path in SHIPPED:
        recipe = load_recipe(path, needs(path))
        again = make_recipe(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))))
        assert again == recipe


def test_the_recipe_of_a_run_is_read_within_the_same_bounds(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(laughs(9))
    with pytest.raises(InvalidInput, match="more than 10,000 values"):
        read_run_recipe(tmp_path)
    (tmp_path / "recipe.yaml").unlink()
    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(InvalidInput, match="a pipe"):
        read_run_recipe(tmp_path)


def test_a_recipe_that_is_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").symlink_to("x.yaml")
    with pytest.raises(SteadfaceError, match="symbolic links"):
        load_recipe(tmp_path / "x.yaml")
