"""The passes of an update that failed once more, with the same weights and samples, watched layer by layer.

They run in the same precision and modes, but uncompiled, and only after a loss or gradient has come out NaN or
infinite: while all is well nothing is watched. Weights, statistics, gradients and random states are afterwards as they
were. Of several ranks all look at their own samples, in the same passes, and hear what the others have found.
"""

import copy
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from steadface.attacks import GenerativeAttack
from steadface.errors import first_line
from steadface.heads import Head
from steadface.heads.heads import MarginObjective, SelfReference
from steadface.training.nonfinite.diagnosis import TERMS, Diagnosis, Gradient, Origin, Sample
from steadface.training.nonfinite.undoing import statistics, unmoved
from steadface.training.nonfinite.watch import ADVERSARIAL, CLEAN, TARGET, Watch, not_finite
from steadface.training.regularizers import Embeddings, Regularizer

if TYPE_CHECKING:
    from steadface.training.step import Samples, Trainer

DUMPED = 32
"""Samples at fault, of each rank, whose images are kept for a dump."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What one rank has seen of a part: the number of the first place that is not finite, and who is concerned there.

    On the way back `last` is the layer before that place; `terms` give such a gradient themselves.
    """

    place: int | None
    origin: Origin | None
    last: str | None
    terms: tuple[str, ...]
    samples: tuple[Sample, ...]
    losses: tuple[float, ...]
    tensors: dict[str, Tensor]
    embeddings: dict[str, Tensor]
    images: dict[str, Tensor]
    layers: dict[str, list[str]]


def diagnose(
    trainer: "Trainer", update: Sequence["Samples"], values: Sequence[float], norm: float | None = None
) -> Diagnosis:
    """Why the `values` of a loss and its terms, or the `norm` of its gradient, are not finite. Collective."""
    terms = dict(zip(TERMS, values[1:] or values, strict=False))
    said = next((name for name, value in terms.items() if not math.isfinite(value)), "loss")
    what = (
        f"the {said} became {terms.get(said, values[0])}"
        if norm is None
        else f"the loss is finite, but the norm of its gradient became {norm}"
    )
    plain = Diagnosis(what=what, terms=terms, count=sum(len(samples.part.images) for samples in update))
    try:
        return _diagnosed(trainer, update, plain, said, norm)
    except Exception as error:  # the error itself is to be heard, whatever a second look stumbles on
        if not trainer.ranks.alone:
            raise
        return replace(plain, trouble=first_line(error))


def _diagnosed(
    trainer: "Trainer", update: Sequence["Samples"], plain: Diagnosis, said: str, norm: float | None
) -> Diagnosis:
    ranks, back = trainer.ranks, norm is not None
    gradients = ranks.collected(_gradients(trainer) if back else [])
    with _untouched(trainer):
        parts = [ranks.collected(_looked_at(trainer, samples, back=back)) for samples in update]
    # The first part in which anything is seen, and there the ranks that see it first.
    part = next((found for found in parts if any(one.place is not None for one in found)), parts[0])
    first = min((one.place for one in part if one.place is not None), default=None)
    seen = [one for one in part if first is not None and one.place == first]
    origin = seen[0].origin if seen else None
    if origin is None and not all(math.isfinite(one.losses[0]) for one in part):
        origin = Origin(place="loss", images="", name=said)
    crafted = origin is not None and origin.place == "image"
    return replace(
        plain,
        terms=plain.terms or _terms(update, parts),
        count=sum(len(one.tensors["slot"]) for one in part),
        origin=None if back else origin,
        gradient=None if norm is None else _gradient(norm, gradients, seen),
        weights={name: few for own in ranks.collected(_weights(trainer, crafted)) for name, few in own.items()},
        identities=tuple(one for own in ranks.collected(_identities(trainer)) for one in own),
        samples=tuple(sample for one in seen for sample in one.samples),
        layers=part[0].layers,
        tensors=_joined([one.tensors for one in part]) | _joined([one.embeddings for one in seen]),
        images=_joined([one.images for one in seen]),
    )


def _joined(ranks: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([one[name] for one in ranks]) for name in (ranks[0] if ranks else ())}


def _terms(update: Sequence["Samples"], parts: Sequence[Sequence[_Found]]) -> dict[str, float]:
    """The terms of the whole update as they come out once more."""
    totals = [0.0] * len(parts[0][0].losses)
    for samples, found in zip(update, parts, strict=True):
        for number in range(len(totals)):
            totals[number] += samples.part.share * sum(one.losses[number] for one in found)
    return dict(zip(TERMS, totals[1:] or totals, strict=False))


def _gradient(norm: float, ranks: Sequence[Sequence[tuple[str, float]]], seen: Sequence[_Found]) -> Gradient:
    # Of what all ranks have, and of what one has more of.
    values = {name: max(value, dict(ranks[0])[name]) for own in ranks for name, value in own}
    bad = tuple(name for name, value in values.items() if math.isinf(value))
    found = Gradient(norm=norm, parameters=bad)
    if not bad:
        found = replace(found, largest=max(values.items(), key=lambda pair: pair[1]))
    if not seen:
        return found
    origin, terms = seen[0].origin, tuple(dict.fromkeys(term for one in seen for term in one.terms))
    assert origin is not None
    return replace(found, images=origin.images, first=origin.name, last=seen[0].last, terms=terms)


def _looked_at(trainer: "Trainer", samples: "Samples", *, back: bool) -> _Found:
    own = copy.copy(trainer)
    own.shared = None  # whose gradients are everybody's
    watch = Watch(trainer.backbone, len(samples.part.images))
    with torch.set_grad_enabled(back):
        embeddings = _embedded(own, samples, watch)
        losses = own.losses(samples, *embeddings)
    each = _each(own, samples, *embeddings)
    for name, values in each.items():
        watch.take("loss", ADVERSARIAL if name == TERMS[1] else CLEAN, values, name)
    terms = _gone_back(own, samples, embeddings, losses, watch) if back else ()
    events = watch.back if back else watch.forth
    place = next((number for number, seen in enumerate(events) if bool(seen.bad.any())), None)
    found = None if place is None else events[place]
    rows = [] if found is None else found.bad.nonzero().flatten().tolist()
    before = [seen for seen in events[:place] if found and seen.origin.images == found.origin.images]
    grown = float(before[-1].largest.max()) if before else None
    return _Found(
        place=place,
        origin=None if found is None else replace(found.origin, before=grown),
        last=before[-1].origin.name if before else None,
        terms=terms,
        samples=tuple(_sample(samples, row) for row in rows),
        losses=tuple(float(loss.detach()) for loss in losses),
        tensors={
            "slot": torch.tensor([_sample(samples, row).slot for row in range(watch.count)]),
            **{name: values.float().cpu() for name, values in each.items()},
            **watch.largest(),
        },
        embeddings=_rows(embeddings, "embedding", rows),
        images=_rows(_images(samples), "image", rows[:DUMPED]),
        layers=watch.layers(),
    )


def _embedded(trainer: "Trainer", samples: "Samples", watch: Watch) -> tuple[Tensor, Tensor | None, Tensor | None]:
    part, targets = samples.part, samples.targets
    watch.take("image", CLEAN, part.images)
    watch.take("image", "reference embedding", part.reference)
    with watch.over(CLEAN):
        if samples.x_a is None:
            return trainer.clean_embeddings(part), None, None
        e_s = trainer.source_embeddings(part)[0]
    watch.take("image", ADVERSARIAL, samples.x_a)
    watch.take("image", TARGET, None if targets is None else targets.images)
    with watch.over(ADVERSARIAL):
        return e_s, *trainer.robust_embeddings(samples.x_a, targets)


@torch.no_grad()
def _each(
    trainer: "Trainer", samples: "Samples", e_s: Tensor, e_a: Tensor | None, e_t: Tensor | None
) -> dict[str, Tensor]:
    """The loss of each sample `(B,)` by itself, term by term, as far as it can be told."""
    e_s, e_a = e_s.detach(), None if e_a is None else e_a.detach()
    found = {TERMS[0]: _losses(trainer, e_s, samples)}
    if e_a is not None:
        found[TERMS[1]] = _losses(trainer, e_a, samples)
        if trainer.regularizer is not None and trainer.weights.regularizer:
            found[TERMS[2]] = _regularized(trainer.regularizer, trainer.regularized(samples, e_s, e_a, e_t), len(e_s))
    return {name: values for name, values in found.items() if values is not None}


def _losses(trainer: "Trainer", embeddings: Tensor, samples: "Samples") -> Tensor | None:
    part, objective = samples.part, trainer.objective
    if isinstance(objective, MarginObjective | SelfReference):
        return objective.losses(embeddings, part.labels, part.reference)
    if not trainer.ranks.alone:
        return None
    rows = [slice(row, row + 1) for row in range(len(embeddings))]
    references = [None if part.reference is None else part.reference[row] for row in rows]
    return torch.stack(
        [
            objective(embeddings[row], part.labels[row], reference, clean=False)
            for row, reference in zip(rows, references, strict=True)
        ]
    )


def _regularized(regularizer: Regularizer, whole: Embeddings, count: int) -> Tensor | None:
    """Of each sample twice, since a function of the user's own may want more than one; None where it takes no such."""

    def twice(row: int) -> Embeddings:
        given: dict[str, Any] = {
            name: value[[row, row]].detach() if isinstance(value, Tensor) else value
            for name, value in vars(whole).items()
        }
        return Embeddings(**given)

    try:
        return torch.stack([regularizer(twice(row)) for row in range(count)]).reshape(count)
    except Exception:
        return None


def _gone_back(
    trainer: "Trainer",
    samples: "Samples",
    embeddings: Sequence[Tensor | None],
    losses: Sequence[Tensor],
    watch: Watch,
) -> tuple[str, ...]:
    """Goes back from the loss, watched; the terms whose gradient in the embeddings is not finite."""
    wanted = [e for e in embeddings if e is not None and e.requires_grad]
    terms = []
    for name, loss in zip(TERMS, losses[1:] or losses, strict=False):
        if wanted and loss.requires_grad:
            found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
            if any(gradient is not None and not_finite(gradient) for gradient in found):
                terms.append(name)
    watch.back.clear()
    learnt = [p for group in trainer.optimizer.param_groups for p in group["params"] if p.requires_grad]
    torch.autograd.grad(losses[0] * samples.part.share, learnt, allow_unused=True)  # and leaves `.grad` alone
    return tuple(terms)


def _images(samples: "Samples") -> tuple[Tensor | None, ...]:
    return samples.part.images, samples.x_a, None if samples.targets is None else samples.targets.images


def _rows(values: Sequence[Tensor | None], what: str, rows: list[int]) -> dict[str, Tensor]:
    """Of clean images, adversarial ones and targets what there is, of these samples."""
    named = zip((CLEAN, ADVERSARIAL, TARGET), values, strict=True)
    return {f"{what}, {kind}": value[rows].detach().cpu() for kind, value in named if value is not None}


def _sample(samples: "Samples", row: int) -> Sample:
    part = samples.part
    return Sample(
        slot=part.start + part.own.start + row, index=None if part.indices is None else int(part.indices[row])
    )


def _weights(trainer: "Trainer", crafted: bool) -> dict[str, tuple[int, int]]:
    """Parameters that are not finite: how many numbers of how many. Of what crafts where `crafted` samples are not."""
    modules = {"backbone": trainer.backbone, "objective": trainer.objective}
    if crafted and isinstance(trainer.attack, GenerativeAttack):
        modules["attack"] = trainer.attack.network
    return {
        f"{prefix}.{name}": (int((~value.isfinite()).sum()), value.numel())
        for prefix, module in modules.items()
        if isinstance(module, nn.Module)
        for name, value in module.named_parameters()
        if not_finite(value)
    }


def _identities(trainer: "Trainer") -> list[int]:
    """Of this rank's rows of the head those that are not finite."""
    head = getattr(trainer.objective, "head", None)
    if not isinstance(head, Head):
        return []
    found: list[int] = head.numbers[~head.weight.isfinite().all(1)].tolist()
    return found


def _gradients(trainer: "Trainer") -> list[tuple[str, float]]:
    """The largest number of each parameter's gradient, infinite where it is not finite, from the loss back."""
    modules = (("objective", trainer.objective), ("backbone", trainer.backbone))
    named = [
        (f"{prefix}.{name}", parameter.grad)
        for prefix, module in modules
        if isinstance(module, nn.Module)
        for name, parameter in reversed(list(module.named_parameters()))
    ]
    return [
        (name, math.inf if not_finite(gradient) else float(gradient.abs().max()))
        for name, gradient in named
        if gradient is not None and gradient.numel()
    ]


@contextmanager
def _untouched(trainer: "Trainer") -> Iterator[None]:
    device = trainer.generator.device
    # Hooks are not heard of in what has been compiled.
    compiles = "torch._dynamo" in sys.modules
    with (
        unmoved(statistics(trainer)),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.compiler.set_stance("force_eager") if compiles else nullcontext(),
    ):
        yield
