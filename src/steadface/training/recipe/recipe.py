"""A recipe: everything a training run depends on, checked before anything long starts, and how it is read.

`extends: other.yaml` starts from another file, beside the recipe or below the current folder, and every key can be
overridden as `section.key=value`. Unknown keys are answered with the nearest right one. Keys of older recipes and run
folders get their present names here, and nowhere else.
"""

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from steadface.arguments import AnyPath, as_path
from steadface.backbones import Architecture
from steadface.errors import InvalidInput, quoted, short, unreadable
from steadface.files import check_below
from steadface.training.recipe.method import Method
from steadface.training.recipe.reading import UnfitYaml, parse_yaml, read_yaml
from steadface.training.recipe.sections import (
    LENGTHS,
    Data,
    EvaluationOptions,
    HeadOptions,
    Model,
    Optimizer,
    Run,
    Section,
)

PACKAGE = Path(__file__).parents[2]
"""In the checkout the recipes lie beside `src`, and in the package once it is installed."""

MOST_EXTENDED = 20
"""Files that a recipe builds on, one upon the other; those that ship have three."""
MOST_SAID = 20
"""Of the mistakes in a recipe."""


class Recipe(Section):
    """One training run: its sections, and what has to hold between them."""

    name: str
    data: Data = Data()
    model: Model = Model()
    head: HeadOptions = HeadOptions()
    method: Method = Method()
    optimizer: Optimizer = Optimizer()
    evaluation: EvaluationOptions = EvaluationOptions()
    run: Run

    @property
    def needs_reference(self) -> bool:
        """Whether a term compares with the embeddings of a frozen model."""
        return self.head.kind == "none" or self.method.regularizer.uses_reference

    @model_validator(mode="after")
    def _faces_are_named(self) -> "Recipe":
        data = self.data
        if (data.images is None) == (data.synthetic is None):
            raise ValueError(
                "give either data.images (a folder of identity folders, or a .rec file) or data.synthetic, and set the "
                "other to null"
            )
        if data.people is not None and data.images is None:
            raise ValueError("data.people says who is on data.images: give that folder, or set data.people to null")
        if data.extra is not None and self.head.kind != "none":
            raise ValueError(
                f"data.extra has no labels, and head.kind {self.head.kind} needs them: set head.kind to none, or "
                "data.extra to null"
            )
        return self

    @model_validator(mode="after")
    def _batches_come_out_even(self) -> "Recipe":
        batch, parts = self.data.batch, self.optimizer.accumulate
        if batch % parts or batch // parts < 2:
            raise ValueError(
                f"data.batch {batch} does not part into {parts} equal micro-batches of two or more "
                "(optimizer.accumulate)"
            )
        if self.data.sampling == "balanced" and batch % self.data.images_per_person:
            raise ValueError(
                f"data.batch {batch} is not a multiple of data.images_per_person {self.data.images_per_person}"
            )
        return self

    @model_validator(mode="after")
    def _models_are_there(self) -> "Recipe":
        model = self.model
        if self.needs_reference and model.start is None and model.reference is None:
            raise ValueError(
                "a reference model is asked for (head.kind none, or reference terms): give model.start, or "
                "model.reference for a student"
            )
        if model.corner is not None and model.start is None:
            raise ValueError("model.corner rounds what model.start brings: give that, or set model.architecture.corner")
        if model.reference is not None and not (self.needs_reference or self.method.regularizer.function):
            raise ValueError("nothing asks for model.reference: set head.kind none, or weights of the reference terms")
        return self

    @model_validator(mode="after")
    def _method_fits_together(self) -> "Recipe":
        method, targets = self.method, self.method.targets
        if targets.kind == "none" and (method.attack.goal != "dodge" or method.regularizer.triplet):
            raise ValueError("without targets (targets.kind none) set attack.goal: dodge and regularizer.triplet: 0")
        if method.source == 0 and (method.gate.kind != "always" or method.timing != "next"):
            raise ValueError(
                "method.source 0 trains on adversarial samples only: set gate.kind: always and timing: next"
            )
        if (targets.designate == "map") != (targets.map is not None):
            raise ValueError("targets.designate map and targets.map FILE belong together")
        if self.run.recompute and method.batchnorm not in ("frozen", "folded"):
            raise ValueError(
                "run.recompute would move the statistics of BatchNorms twice a pass: set method.batchnorm to frozen or "
                "folded"
            )
        if method.batchnorm in ("frozen", "folded") and self.model.start is None:
            raise ValueError(f"batchnorm {method.batchnorm} keeps the statistics of trained weights: give model.start")
        return self

    @model_validator(mode="after")
    def _people_are_held_out(self) -> "Recipe":
        if self.run.select is not None and not (self.run.validate_every and self.data.validation):
            raise ValueError(
                "run.select chooses by looks at held-out people: set run.validate_every and data.validation above 0"
            )
        if self.method.attack.probe is not None and self.data.validation == 0:
            raise ValueError("attack.probe needs held-out people: data.validation above 0")
        if self.method.gate.kind == "verification" and self.data.validation == 0:
            raise ValueError("gate.kind verification needs held-out people: data.validation above 0")
        if self.method.gate.clean is not None and self.data.validation == 0:
            raise ValueError("gate.clean is a level of held-out people: set data.validation above 0")
        return self


RENAMED = {"optimiser": "optimizer"}
"""Sections by the names that older recipes have for them."""


def load_recipe(path: AnyPath, overrides: Sequence[str] | None = None) -> Recipe:
    """The recipe of a YAML file with `section.key=value` overrides.

    Raises NotFound where there is no such file, and InvalidInput naming the key, the value and what is allowed.
    """
    return make_recipe(_merged(as_path(path, "the recipe")), overrides, source=str(path))


def make_recipe(values: dict[str, Any], overrides: Sequence[str] | None = None, *, source: str = "recipe") -> Recipe:
    """A recipe from plain values; see `load_recipe`.

    >>> import steadface as sf
    >>> recipe = sf.make_recipe({"name": "mine", "data": {"images": "faces"}}, ["run.minutes=10"])
    >>> recipe.run.minutes, recipe.method.timing
    (10.0, 'same')
    """
    values = with_present_names(values) if isinstance(values, dict) else values
    for override in [overrides] if isinstance(overrides, str) else overrides or []:
        values = _set(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        said = [_explain(item) for item in error.errors()[:MOST_SAID]]
        more = [f"and {error.error_count() - MOST_SAID} more mistakes"] if error.error_count() > MOST_SAID else []
        raise InvalidInput(f"{source}: " + "; ".join([*said, *more])) from None


def with_present_names(values: dict[str, Any]) -> dict[str, Any]:
    """Values of a recipe, those under older names under the present ones. Raises InvalidInput where both are given."""
    twice = [(old, new) for old, new in RENAMED.items() if old in values and new in values]
    if twice:
        old, new = twice[0]
        raise InvalidInput(f"{old} is the older name of {new}, and both are given: keep {new}")
    return {RENAMED.get(key, key): value for key, value in values.items()}


def _real(path: Path) -> Path:
    """Links followed; a link to itself, which `Path.resolve` raises RuntimeError for, is left for opening to refuse."""
    return Path(os.path.realpath(path))


def _merged(path: Path, inner: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a file over those of the file that it extends; `inner` are the files that led to it."""
    if _real(path) in inner:
        raise InvalidInput(f"recipe {path} extends itself: {' -> '.join(map(str, (*inner, _real(path))))}")
    values = _read(path)
    base = values.pop("extends", None)
    return values if base is None else _overlay(_merged(_base(path, base, inner), (*inner, _real(path))), values)


def _base(path: Path, base: Any, inner: tuple[Path, ...]) -> Path:
    """The file that the one at `path` extends: below the first recipe, where that really lies, or the current folder.

    Raises InvalidInput for any other, and for what is no name.
    """
    if not isinstance(base, str) or not base:
        raise InvalidInput(f"recipe {path}: extends is {quoted(base)}; name a file beside it, such as clean.yaml")
    if len(inner) >= MOST_EXTENDED:
        raise InvalidInput(f"recipe {path} is extended more than {MOST_EXTENDED} times; bring some of them together")
    first = inner[0].parent if inner else _real(path).parent
    check_below(path.parent / base, first, Path.cwd(), named_in=path)
    return path.parent / base


def _read(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path)
    except OSError as error:
        problem = f"recipe {path}: {error.strerror or error}; recipes/ holds the ones that ship"
        raise unreadable(error, problem) from None
    except UnfitYaml as error:
        raise InvalidInput(f"recipe {path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise InvalidInput(f"recipe {path} holds no mapping of sections")
    return with_present_names(values)


def _overlay(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """`values` over `base`, section by section; a length of the run replaces one in another unit."""
    run = values.get("run")
    if isinstance(run, dict) and isinstance(base.get("run"), dict) and any(run.get(name) for name in LENGTHS):
        base = {**base, "run": {key: value for key, value in base["run"].items() if key not in LENGTHS}}
    return _nested(base, values)


def _nested(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        inner = merged.get(key)
        merged[key] = _nested(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _set(values: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InvalidInput(f"--set {override}: write section.key=value, as in run.minutes=10")
    try:
        nested: Any = parse_yaml(text) if text else None
    except UnfitYaml as error:
        raise InvalidInput(f"--set {override}: the value is not YAML ({error}); quote it") from None
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return _overlay(values, with_present_names(nested))


def _explain(item: Any) -> str:
    location = [short(str(part)) for part in item["loc"]]
    where = ".".join(location) or "recipe"
    if item["type"] == "extra_forbidden":
        return f"{where} is not a key of a recipe; {_hint(location)}"
    message = item["msg"].removeprefix("Value error, ")
    value = item["input"]
    # Of a whole section the message says what is wrong; its values would only bury that.
    return f"{where}: {message}" if isinstance(value, dict) else f"{where} = {quoted(value)}: {message}"


def _hint(location: list[str]) -> str:
    """What an unknown key was probably meant to be: one spelt alike beside it, or one of that name elsewhere."""
    every = list(_keys(Recipe, ()))
    beside = [path[-1] for path in every if list(path[:-1]) == location[:-1]]
    near = difflib.get_close_matches(location[-1], beside, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    elsewhere = [".".join(path) for path in every if path[-1] == location[-1]]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return "known keys: " + ", ".join(sorted(beside))


def _keys(section: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The path of every key below `section`."""
    for name in section.keys() if issubclass(section, Architecture) else section.model_fields:
        yield (*above, name)
        field = section.model_fields.get(name)
        for inner in () if field is None else (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _keys(inner, (*above, name))


def recipe_path(given: Path) -> Path:
    """`given` if there is such a file, of whatever kind, else the shipped recipe of that name.

    `gated` names the same as `recipes/gated.yaml`.
    """
    if given.name in ("", "..") or (os.path.lexists(given) and not given.is_dir()):
        return given
    name = Path(given.name).with_suffix(".yaml").name
    folders = (PACKAGE / "recipes", PACKAGE.parents[1] / "recipes")
    return next((file for folder in folders for file in folder.glob("*.yaml") if file.name == name), given)
