"""One step of the method: train on the source batch, judge, and while the gate is open train robustly.

For every batch of source samples `(x_s, y_s)`::

    train on the source batch:       l = FR(x_s, y_s),  update the weights
    judge:                           gate open  iff  the performance value exceeds its threshold  (l < threshold)
    gate open                        for each of n >= 1 adversarial batches made from it:
                                       x_t, y_t, q_t = targets(x_s, y_s)
                                       x_a = attack(x_s; dodge z_s | impersonate q_t)
                                       L = FR(x_s, y_s) + alpha * FR(x_a, y_s) + lambda * R
                                       update the weights

That is timing `same`. With timing `next` the verdict on this batch decides whether the *single* update of the next
batch carries the adversarial part. A gate that opens by degrees scales the attack's radius, or alpha and lambda.
(Patent application CN116665282A.)
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.attacks import Attack, CosineScore, crafting, dodge_or_impersonate
from steadface.data.loading import Batch
from steadface.errors import InvalidInput
from steadface.heads.heads import Objective
from steadface.training.batchnorm import BatchNormPasses
from steadface.training.gate import WIDE, Gate, Opening
from steadface.training.performance import Performance, SourcePass
from steadface.training.regularizers import Embeddings, Regularizer
from steadface.training.targets import Source, Targets, TargetSampler

Goal = Literal["dodge", "impersonate", "both"]
Timing = Literal["same", "next"]


class NonFiniteLoss(Exception):
    """A loss or its gradient came out NaN or infinite; the weights have not been updated with it."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """`source * FR(x_s) + alpha * FR(x_a) + regularizer * R`: the three parts of an open update."""

    source: float = 1.0
    alpha: float = 1.0
    regularizer: float = 1.0


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What a step did: the judged source loss, whether adversarial samples took part, how far (`strength`), and their
    means if so.
    """

    loss: float
    gate_open: bool
    performance: float
    updates: int
    eps: float | None = None
    adversarial_loss: float | None = None
    regularizer: float | None = None
    strength: float | None = None


@dataclass
class Ramp:
    """eps grows linearly over the first `steps` *open* steps, and keeps its place when the gate closes."""

    steps: int = 0
    open_steps: int = 0

    def advance(self) -> float:
        """The factor for this open step, in `(0, 1]`."""
        self.open_steps += 1
        return self.factor

    @property
    def factor(self) -> float:
        """Of the newest open step."""
        return min(1.0, self.open_steps / self.steps) if self.steps else 1.0


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A micro-batch of the source batch: its share of the gradient, and `z_ref` where something uses it."""

    images: Tensor
    labels: Tensor
    share: float
    reference: Tensor | None


@dataclass(kw_only=True)
class Trainer:
    """The training device: three units, `train_on_source`, `judge` and `train_robustly`, and their `step`.

    `network` maps images to raw float32 embeddings (compiled, in bf16 or plain) and has the parameters of
    `backbone`; `reference` maps images to the unit embeddings of a frozen copy.
    """

    backbone: nn.Module
    network: Callable[[Tensor], Tensor]
    objective: Objective
    optimizer: torch.optim.Optimizer
    gate: Gate
    performance: Performance
    batchnorm: BatchNormPasses
    generator: torch.Generator
    attack: Attack | None = None
    targets: TargetSampler | None = None
    regularizer: Regularizer | None = None
    reference: Callable[[Tensor], Tensor] | None = None
    timing: Timing = "same"
    adversarial_batches: int = 1
    goal: Goal = "both"
    weights: Weights = Weights()
    ramp: Ramp
    accumulate: int = 1
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.attack is not None and self.targets is None and self.goal != "dodge":
            raise InvalidInput(f"goal {self.goal!r} impersonates designated people: give targets, or goal 'dodge'")
        if self.weights.source == 0 and self.batchnorm.starves_without_source:
            raise InvalidInput(
                f"batchnorm {self.batchnorm.mode!r} learns its statistics from source passes, and a source weight of 0 "
                "leaves none: use batchnorm 'joint'"
            )

    def step(self, batch: Batch) -> StepRecord:
        """One source batch through the method."""
        parts = list(self._parts(batch))
        if self.timing == "next":
            opened, opening = self.gate.is_open, self.gate.opening
            source, robust = (
                self.train_robustly(parts, self.ramp.advance(), opening)
                if opened
                else (self.train_on_source(parts), {})
            )
            performance = self.judge(source)
            updates = 1
        elif self.timing == "same":
            source, robust = self.train_on_source(parts), {}
            performance = self.judge(source)
            opened = self.gate.is_open
            updates = 1 + (self.adversarial_batches if opened else 0)
            factor = self.ramp.advance() if opened else 0.0
            for _ in range(updates - 1):
                _, robust = self.train_robustly(parts, factor, self.gate.opening)
        else:
            assert_never(self.timing)
        return StepRecord(loss=source.loss, gate_open=opened, performance=performance, updates=updates, **robust)

    def train_on_source(self, parts: list[_Part]) -> SourcePass:
        """The source training unit: `l = FR(x_s, y_s)`, update the weights."""
        loss, raw = 0.0, []
        for part in parts:
            with self.batchnorm.clean():
                embeddings = self.network(part.images)
            l_part = self.objective(embeddings, part.labels, part.reference, clean=True)
            loss += part.share * self._backward(l_part, part.share)
            raw.append(embeddings.detach())
        self._update()
        return _source_pass(loss, raw, parts)

    def judge(self, source: SourcePass) -> float:
        """The judging unit: opens or closes the gate by the performance on the batch just trained on."""
        performance = self.performance(source)
        self.gate.judge(performance)
        return performance

    def train_robustly(
        self, parts: list[_Part], factor: float, opening: Opening = WIDE
    ) -> tuple[SourcePass, dict[str, float]]:
        """The robust training unit: `L = FR(x_s, y_s) + alpha FR(x_a, y_s) + lambda R`, update the weights.

        `factor` scales the attack's radius (the ramp), and `opening` that or alpha and lambda.
        """
        factor *= opening.radius
        loss, raw, means = 0.0, [], {"eps": 0.0, "adversarial_loss": 0.0, "regularizer": 0.0}
        for part in parts:
            e_s, anchors = self._source_embeddings(part)
            with crafting(self.backbone):
                source = Source(
                    images=part.images,
                    labels=part.labels,
                    embeddings=anchors,
                    embed=self.network,
                    prototypes=self.objective.prototypes(),
                    ramp=factor,
                )
                targets = None if self.targets is None else self.targets(source, self.generator)
                x_a = self._adversarial_samples(source, targets)
            e_a, e_t = self._robust_embeddings(x_a, targets)

            # Under timing "same" these samples have moved the head's statistics already: once each, open or closed.
            l_s = self.objective(e_s, part.labels, part.reference, clean=self.timing == "next")
            l_a = self.objective(e_a, part.labels, part.reference, clean=False)
            r = self._regularizer(part, e_s, e_a, e_t, targets)
            w = self.weights
            alpha, weight = w.alpha * opening.weight, w.regularizer * opening.weight
            self._backward(w.source * l_s + alpha * l_a + weight * r, part.share)

            loss += part.share * float(l_s.detach())
            raw.append(e_s.detach())
            means["adversarial_loss"] += part.share * float(l_a.detach())
            means["regularizer"] += part.share * float(r.detach())
        means["eps"] = self._ball_radius(factor)
        means["strength"] = opening.radius * opening.weight
        self._update()
        return _source_pass(loss, raw, parts), means

    def scores(self, images: Tensor, attacks: Sequence[Attack], seed: int) -> list[Tensor]:
        """The attacker's score `(B,)` of clean images, each their own class, and of what each attack makes of them.

        At the radius of the newest open step and with the same randomness for all; nothing is trained.
        """
        with crafting(self.backbone), torch.no_grad():
            embeddings = F.normalize(self.network(images))
            labels = torch.arange(len(images), device=images.device)
            generator = torch.Generator(self.generator.device).manual_seed(seed)
            source = Source(
                images=images, labels=labels, embeddings=embeddings, embed=self.network, ramp=self.ramp.factor
            )
            targets = None if self.targets is None else self.targets(source, generator)
            score = self._score(source, targets, generator)
            start, found = generator.get_state(), [score(images)]
            for attack in attacks:
                generator.set_state(start)
                within = attack.within(attack.ball.scaled(source.ramp))
                found.append(score(within(score, images, generator=generator)))
        return found

    def _parts(self, batch: Batch) -> Iterator[_Part]:
        for images, labels in zip(
            batch.images.chunk(self.accumulate), batch.labels.chunk(self.accumulate), strict=True
        ):
            reference = None if self.reference is None else self.reference(images)
            if not self.objective.labelled:
                labels = torch.arange(len(images), device=images.device)
            yield _Part(images=images, labels=labels, share=len(images) / len(batch.images), reference=reference)

    def _source_embeddings(self, part: _Part) -> tuple[Tensor, Tensor]:
        """Raw source embeddings for the loss, and the unit anchors `z_s` (evaluation mode) that crafting leans on.

        One pass serves both where BatchNorm is frozen; where no source term is trained the anchors alone are made.
        """
        if self.weights.source == 0:
            with crafting(self.backbone), torch.no_grad():
                embeddings = self.network(part.images)
            return embeddings, F.normalize(embeddings)
        with self.batchnorm.clean():
            embeddings = self.network(part.images)
        if self.batchnorm.frozen:
            return embeddings, F.normalize(embeddings.detach())
        with crafting(self.backbone), torch.no_grad():
            return embeddings, F.normalize(self.network(part.images))

    def _adversarial_samples(self, source: Source, targets: Targets | None) -> Tensor:
        """`x_a = attack(x_s; dodge z_s | impersonate q_t)`."""
        assert self.attack is not None, "an open gate needs an attack"
        score = self._score(source, targets, self.generator)
        attack = self.attack.within(self.attack.ball.scaled(source.ramp))
        return attack(score, source.images, generator=self.generator)

    def _score(self, source: Source, targets: Targets | None, generator: torch.Generator) -> CosineScore:
        """What the attacker wants of each source sample."""
        own = source.embeddings
        match self.goal:
            case "dodge" | "impersonate":
                dodges = torch.full((len(own),), self.goal == "dodge", device=own.device)
            case "both":  # exactly half, so that neither goal starves in a small batch
                order = torch.randperm(len(own), generator=generator, device=generator.device)
                dodges = (order < len(own) // 2).to(own.device)
            case unknown:
                assert_never(unknown)
        other = own if targets is None else targets.repel
        return dodge_or_impersonate(source.embed, own, other, dodges)

    def _robust_embeddings(self, x_a: Tensor, targets: Targets | None) -> tuple[Tensor, Tensor | None]:
        """Raw embeddings of adversarial samples and, in the same pass, of targets that are pulled home."""
        with self.batchnorm.adversarial():
            # A function of the user's own that does not say is taken to use the targets.
            if targets is None or not targets.keeps_identity or not getattr(self.regularizer, "uses_target", True):
                return self.network(x_a), None
            e_a, e_t = self.network(torch.cat([x_a, targets.images])).chunk(2)
            return e_a, e_t

    def _regularizer(
        self, part: _Part, e_s: Tensor, e_a: Tensor, e_t: Tensor | None, targets: Targets | None
    ) -> Tensor:
        if self.regularizer is None or self.weights.regularizer == 0:
            return e_a.new_zeros(())
        repel = None if targets is None else targets.repel
        return self.regularizer(
            Embeddings(
                source=F.normalize(e_s),
                adversarial=F.normalize(e_a),
                target=repel if e_t is None else F.normalize(e_t),
                repel=repel,
                reference=part.reference,
                keeps_identity=e_t is not None,
            )
        )

    def _ball_radius(self, factor: float) -> float:
        assert self.attack is not None
        return self.attack.ball.radius * factor

    def _backward(self, loss: Tensor, share: float) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLoss(f"the loss became {value}")
        torch.autograd.backward(loss * share)
        return value

    def _update(self) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        # Without a bound the gradients stay as they are, and the norm still tells whether they are finite.
        norm = float(nn.utils.clip_grad_norm_(parameters, math.inf if self.clip_norm is None else self.clip_norm))
        if not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLoss(f"the loss is finite, but the norm of its gradient became {norm}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _source_pass(loss: float, raw: list[Tensor], parts: list[_Part]) -> SourcePass:
    references = [part.reference for part in parts if part.reference is not None]
    return SourcePass(
        loss=loss,
        embeddings=torch.cat(raw),
        labels=torch.cat([part.labels for part in parts]),
        reference=torch.cat(references) if references else None,
    )
