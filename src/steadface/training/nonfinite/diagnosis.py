"""Why a loss or its gradient is not finite, as far as a second look can tell, and what likely helps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from steadface.data.faces import FaceSource
from steadface.training.compute import Compute
from steadface.training.recipe import Recipe

TERMS = ("source loss", "adversarial loss", "regularizer")
Place = Literal["image", "layer", "loss"]
NAMED = 3
"""Samples, weights and people that a message names; the dump has all."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One of the batch, by its number there, and its image's index in the data (None: not known)."""

    slot: int
    index: int | None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The first of all numbers that are not finite, in the order in which they are computed.

    At `place`: in `images` of that kind, in the output of the layer `name` in their pass, or in the loss `name`.
    `statistics` are those of that layer which are not finite themselves, and `before` it numbers were as large as that.
    """

    place: Place
    images: str
    name: str = ""
    statistics: tuple[str, ...] = ()
    before: float | None = None


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """Its `norm`; the `parameters`, from the loss back, in which it is not finite; and the `largest` of finite ones.

    On the way back, of `images` of that kind, it is finite at the output of `last` and no more at that of `first`.
    Where the loss already gives such a gradient, `terms` are those that do.
    """

    norm: float
    parameters: tuple[str, ...] = ()
    largest: tuple[str, float] | None = None
    images: str = ""
    first: str | None = None
    last: str | None = None
    terms: tuple[str, ...] = ()

    def words(self, whose: str) -> str:
        """In a sentence; `whose` are the samples, as far as any can be told apart."""
        whose = f", for {whose}" if whose else ""
        parameters = _listed(self.parameters)
        if self.terms:
            return f"already the gradient of the {' and the '.join(self.terms)} in the embeddings is not finite{whose}"
        if self.first is not None:
            came = "of the loss" if self.last is None else f"at the output of {layer(self.last)}"
            return (
                f"on the way back it is finite {came}, and no more at that of {layer(self.first)} (pass of the "
                f"{self.images}s{whose}); the first parameters concerned are {parameters}"
            )
        if self.parameters:
            return f"finite at the output of each layer, it is not in {parameters}"
        where = "" if self.largest is None else f": the largest, {self.largest[1]:.3g}, is in {self.largest[0]}"
        return f"each of its numbers is finite, and too large to be squared{where}"

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        largest = None if self.largest is None else {"parameter": self.largest[0], "value": self.largest[1]}
        return {**vars(self), "norm": number(self.norm), "largest": largest}


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is known. `weights`, by name how many numbers of how many, were not finite before, and of the head's the
    rows of `identities`.

    `samples` are at fault, of `count` looked at. For the dump there are `tensors`, a row a sample, the names of
    the `layers` that are their columns, and `images`. `trouble` says what kept a second look from its end.
    """

    what: str
    terms: Mapping[str, float]
    count: int
    origin: Origin | None = None
    gradient: Gradient | None = None
    weights: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    identities: tuple[int, ...] = ()
    samples: tuple[Sample, ...] = ()
    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    images: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    trouble: str = ""

    def words(self, faces: FaceSource) -> str:
        """In a sentence or two; `faces` have the names."""
        told = [self._where(_listed([_named(sample, faces) for sample in self.samples]))]
        if self.weights:
            spoilt = [f"{name} ({bad} of {every} numbers)" for name, (bad, every) in self.weights.items()]
            told.append(f"not finite before this update: {_listed(spoilt)}")
        if self.identities:
            told.append(f"in the head it is the prototype of {_listed([faces.people[one] for one in self.identities])}")
        finite = ", ".join(f"{name} {value:.4g}" for name, value in self.terms.items() if math.isfinite(value))
        return f"{self.what}{f' ({finite})' if finite else ''}: {'; '.join(told)}"

    def _where(self, names: str) -> str:
        several = f"{len(self.samples)} of {self.count} samples"
        whose = f"{several}: {names}" if len(self.samples) < self.count else f"all {self.count} samples"
        if self.trouble:
            return f"where it comes from cannot be told ({self.trouble})"
        if self.gradient is not None:
            return self.gradient.words(whose if self.samples else "")
        match self.origin:
            case None:
                return "looked at once more, uncompiled, with the same weights and images, all numbers are finite"
            case Origin(place="image"):
                return f"the {self.origin.images}s themselves are not finite, for {whose}"
            case Origin(place="layer"):
                spoilt = f", whose {' and '.join(self.origin.statistics)} are not" if self.origin.statistics else ""
                grown = "" if self.origin.before is None else f", after numbers of up to {self.origin.before:.3g}"
                where = f"of the {self.origin.images}s{grown}, for {whose}"
                return f"the first output that is not finite is that of {layer(self.origin.name)}{spoilt}, {where}"
            case _:
                whole = f"for {whose}" if self.samples else "for no sample by itself, but for all together"
                return f"embeddings are finite, and the {self.origin.name} is not, {whole}"

    def to_json(self, faces: FaceSource) -> dict[str, Any]:
        """All of it but the tensors, with names; numbers that JSON does not have as text."""
        origin, gradient = self.origin, self.gradient
        return {
            "diagnosis": self.words(faces),
            "terms": {name: number(value) for name, value in self.terms.items()},
            "samples": [
                {"slot": sample.slot, "image": image, "person": person}
                for sample in self.samples
                for image, person in [_names(sample, faces)]
            ],
            "samples_looked_at": self.count,
            "origin": None if origin is None else vars(origin),
            "gradient": None if gradient is None else gradient.to_json(),
            "weights_not_finite": {name: f"{bad} of {every}" for name, (bad, every) in self.weights.items()},
            "prototypes_not_finite": [faces.people[one] for one in self.identities],
            "layers": {name: list(layers) for name, layers in self.layers.items()},
        }


def remedy(found: Diagnosis, recipe: Recipe, rate: float, compute: Compute) -> str:
    """What likely helps, in words; `rate` is that of the step."""
    method = recipe.method
    slower = f"lower optimizer.rate ({rate:.3g} in this step)"
    if recipe.optimizer.clip_norm is None:
        slower += " or set optimizer.clip_norm"
    own = method.regularizer.function
    terms = found.gradient.terms if found.gradient is not None else (found.origin.name if found.origin else "",)
    if found.weights or found.identities:
        return f"An update before this one made weights too large: {slower}"
    if "regularizer" in terms and own is not None:
        return f"Look at {own} (method.regularizer.function), which has to be finite for these embeddings"
    if "regularizer" in terms:
        return f"Lower method.weight, or {slower}"
    if found.origin is not None and found.origin.place == "image" and method.attack.kind == "generator":
        return f"Lower method.attack.learning_rate, or {slower}"
    if found.origin is None and found.gradient is None and compute.compiled:
        return "Set run.compile to off to see whether it stays away"
    helps = slower[0].upper() + slower[1:]
    if compute.half is not None:
        helps += ", or set run.precision to fp32"
    if found.origin is not None and found.origin.images == "adversarial image":
        helps += ", or lower method.alpha"
    if 0 < len(found.samples) <= NAMED < found.count:
        helps += "; look at the images that are named"
    return helps


def layer(name: str) -> str:
    """A module of the network, in words."""
    return f"layer {name}" if name else "the network as a whole"


def number(value: float) -> float | str:
    """As JSON has it: what is not finite as text."""
    return value if math.isfinite(value) else str(value)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _named(sample: Sample, faces: FaceSource) -> str:
    image, person = _names(sample, faces)
    return image if person is None else f"{image} ({person})"


def _names(sample: Sample, faces: FaceSource) -> tuple[str, str | None]:
    if sample.index is None:
        return f"number {sample.slot}", None
    return faces.name(sample.index), faces.people[int(faces.labels[sample.index])]
