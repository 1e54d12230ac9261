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

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.attacks import Attack, CosineScore, crafting, dodge_or_impersonate
from steadface.attacks.draws import PartGenerator
from steadface.data.loading import Batch
from steadface.errors import InvalidInput
from steadface.heads.heads import Objective
from steadface.heads.sharded import DrawnRows
from steadface.ranks import ALONE, Ranks
from steadface.training.batchnorm import BatchNormPasses
from steadface.training.gate import WIDE, Gate, Opening
from steadface.training.lossscale import LossScale
from steadface.training.nonfinite.diagnosis import Diagnosis
from steadface.training.nonfinite.replay import diagnose
from steadface.training.nonfinite.undoing import undoing
from steadface.training.performance import Performance, SourcePass
from steadface.training.regularizers import Embeddings, Regularizer
from steadface.training.targets import Candidates, Source, Targets, TargetSampler

Goal = Literal["dodge", "impersonate", "both"]
Timing = Literal["same", "next"]


class SharedNetwork(Protocol):
    """Images to raw embeddings, whose gradients in the weights are summed over the ranks on the way back."""

    def __call__(self, images: Tensor, /) -> Tensor: ...
    def no_sync(self) -> AbstractContextManager[None]:
        """Within, they are kept for a later pass."""


class NonFiniteLoss(Exception):
    """A loss or its gradient came out NaN or infinite; the weights have not been updated with it.

    The updates of the same step that came before it, `updates`, stand.
    """

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.what)
        self.diagnosis = diagnosis
        self.updates = 0


@dataclass(frozen=True, kw_only=True)
class Weights:
    """`source * FR(x_s) + alpha * FR(x_a) + regularizer * R`: the three parts of an open update."""

    source: float = 1.0
    alpha: float = 1.0
    regularizer: float = 1.0


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What a step did: the judged source loss, whether adversarial samples took part, how far (`strength`), and their
    means if so. Of one that was `skipped`, since a loss or gradient was not finite, neither is known.
    """

    loss: float
    gate_open: bool
    performance: float
    updates: int
    eps: float | None = None
    adversarial_loss: float | None = None
    regularizer: float | None = None
    strength: float | None = None
    skipped: bool = False


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
class Part:
    """A micro-batch of the source batch: its share of the gradient, and `z_ref` where something uses it.

    Where several ranks share it these are the samples of one, of `count` in all those with numbers `own`. The first of
    them all has the number `start` in the batch; `indices` are those of the images in their source.
    """

    images: Tensor
    labels: Tensor
    share: float
    reference: Tensor | None
    count: int
    own: range
    is_last: bool
    start: int = 0
    indices: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What an update is made of, of one part: source samples, and in an open update what was crafted from them."""

    part: Part
    x_a: Tensor | None = None
    targets: Targets | None = None
    opening: Opening = WIDE


@dataclass(kw_only=True)
class Trainer:
    """The training device: three units, `train_on_source`, `judge` and `train_robustly`, and their `step`.

    `network` maps images to raw float32 embeddings (compiled, in bf16 or plain) and has the parameters of
    `backbone`; `reference` maps images to the unit embeddings of a frozen copy. Where several `ranks` train together
    `shared` is the network whose gradients are summed over them. `drawn` lets a step do with some rows of the head.
    Where it `undoes`, an update that fails (NonFiniteLoss) leaves everything but the random state as it was.
    `scale` is what a network in fp16 makes its gradients larger by.
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
    ranks: Ranks = ALONE
    shared: SharedNetwork | None = None
    drawn: DrawnRows | None = None
    undoes: bool = False
    scale: LossScale | None = None

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
        if self.scale is not None:
            self.scale.spoilt = None
        parts = list(self._parts(batch))
        if self.drawn is None:
            return self._step(parts)
        people = torch.cat([self.ranks.gather(part.labels, part.count) for part in parts])
        with self.drawn(people, self.generator, self.ranks):
            return self._step(parts)

    def _step(self, parts: list[Part]) -> StepRecord:
        robust: dict[str, Any] = {}
        if self.timing == "next":
            opened, opening = self.gate.is_open, self.gate.opening
            with self._whole():
                source, robust = (
                    self.train_robustly(parts, self.ramp.advance(), opening)
                    if opened
                    else (self.train_on_source(parts), robust)
                )
            performance = self.judge(source)
            updates = 1
        elif self.timing == "same":
            with self._whole():
                source = self.train_on_source(parts)
            performance = self.judge(source)
            opened = self.gate.is_open
            updates = 1 + (self.adversarial_batches if opened else 0)
            for before in range(1, updates):
                with self._whole(before):
                    factor = self.ramp.advance() if before == 1 else self.ramp.factor
                    _, robust = self.train_robustly(parts, factor, self.gate.opening)
        else:
            assert_never(self.timing)
        return StepRecord(loss=source.loss, gate_open=opened, performance=performance, updates=updates, **robust)

    @contextmanager
    def _whole(self, before: int = 0) -> Iterator[None]:
        """An update, after others of the step `before` it: where it fails, and undoes that, none was begun."""
        undo = undoing(self) if self.undoes else None
        try:
            yield
        except NonFiniteLoss as error:
            error.updates = before
            if undo is not None:
                undo()
            raise

    def train_on_source(self, parts: list[Part]) -> SourcePass:
        """The source training unit: `l = FR(x_s, y_s)`, update the weights."""
        loss, raw, update = 0.0, [], [Samples(part=part) for part in parts]
        for samples in update:
            part = samples.part
            with self._gradients_of(part):
                embeddings = self.clean_embeddings(part)
                loss += part.share * self._backward(samples, self.losses(samples, embeddings))[0]
            raw.append(embeddings.detach())
        self._update(update)
        return _source_pass(loss, raw, parts)

    def judge(self, source: SourcePass) -> float:
        """The judging unit: opens or closes the gate by the performance on the batch just trained on."""
        performance = self.performance(source)
        self.gate.judge(performance)
        return performance

    def train_robustly(
        self, parts: list[Part], factor: float, opening: Opening = WIDE
    ) -> tuple[SourcePass, dict[str, float]]:
        """The robust training unit: `L = FR(x_s, y_s) + alpha FR(x_a, y_s) + lambda R`, update the weights.

        `factor` scales the attack's radius (the ramp), and `opening` that or alpha and lambda.
        """
        factor *= opening.radius
        loss, raw, means = 0.0, [], {"eps": 0.0, "adversarial_loss": 0.0, "regularizer": 0.0}
        update = list[Samples]()
        for part in parts:
            with self._gradients_of(part):
                samples, e_s, values = self._train_part_robustly(part, factor, opening)
            update.append(samples)
            raw.append(e_s)
            loss += part.share * values[1]
            means["adversarial_loss"] += part.share * values[2]
            means["regularizer"] += part.share * values[3]
        means["eps"] = self._ball_radius(factor)
        means["strength"] = opening.radius * opening.weight
        self._update(update)
        return _source_pass(loss, raw, parts), means

    def _train_part_robustly(self, part: Part, factor: float, opening: Opening) -> tuple[Samples, Tensor, list[float]]:
        """What was trained on, embeddings (without gradient) of the source samples, and the values of `losses`."""
        e_s, anchors = self.source_embeddings(part)
        with crafting(self.backbone):
            source = self._source(part, anchors, factor)
            targets = None if self.targets is None else self.targets(source, self.generator)
            x_a = self._adversarial_samples(source, targets, part)
        samples = Samples(part=part, x_a=x_a, targets=targets, opening=opening)
        e_a, e_t = self.robust_embeddings(x_a, targets)
        return samples, e_s.detach(), self._backward(samples, self.losses(samples, e_s, e_a, e_t))

    def losses(
        self, samples: Samples, e_s: Tensor, e_a: Tensor | None = None, e_t: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The loss from raw embeddings; of an open update `L`, `FR(x_s)`, `FR(x_a)` and `R`."""
        part = samples.part
        if e_a is None:
            return (self.objective(e_s, part.labels, part.reference, clean=True),)
        # Under timing "same" these samples have moved the head's statistics already: once each, open or closed.
        l_s = self.objective(e_s, part.labels, part.reference, clean=self.timing == "next")
        l_a = self.objective(e_a, part.labels, part.reference, clean=False)
        r = self._regularizer(samples, e_s, e_a, e_t)
        w = self.weights
        alpha, weight = w.alpha * samples.opening.weight, w.regularizer * samples.opening.weight
        return w.source * l_s + alpha * l_a + weight * r, l_s, l_a, r

    def _source(self, part: Part, anchors: Tensor, factor: float) -> Source:
        batch, alone = None, self.ranks.alone
        if not alone:
            together = self.ranks.gather(anchors, part.count), self.ranks.gather(part.labels, part.count)
            batch = Candidates(embeddings=together[0], labels=together[1])
        if isinstance(self.generator, PartGenerator):
            self.generator.rows, self.generator.total = slice(part.own.start, part.own.stop), part.count
        wanted = getattr(self.targets, "uses_prototypes", self.targets is not None)
        return Source(
            images=part.images,
            labels=part.labels,
            embeddings=anchors,
            embed=self.network,
            prototypes=self.objective.prototypes() if wanted else None,
            ramp=factor,
            batch=batch,
            gather=lambda images: images if alone else _gathered_images(images, part.count, self.ranks),
        )

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
            score = self._score(source, targets, generator, len(images), range(len(images)))
            start, found = generator.get_state(), [score(images)]
            for attack in attacks:
                generator.set_state(start)
                within = attack.within(attack.ball.scaled(source.ramp))
                found.append(score(within(score, images, generator=generator)))
        return found

    def _parts(self, batch: Batch) -> Iterator[Part]:
        total = batch.whole or len(batch.labels)
        shares, counts = self.ranks.shares(total, self.accumulate), list(map(len, ALONE.shares(total, self.accumulate)))
        sizes, starts = list(map(len, shares)), list(itertools.accumulate(counts, initial=0))
        places = itertools.repeat(None) if batch.indices is None else iter(torch.split(batch.indices, sizes))
        for number, (images, labels) in enumerate(
            zip(torch.split(batch.images, sizes), torch.split(batch.labels, sizes), strict=True)
        ):
            reference = None if self.reference is None else self.reference(images)
            own = range(shares[number].start - starts[number], shares[number].stop - starts[number])
            if not self.objective.labelled:
                labels = torch.arange(own.start, own.stop, device=images.device)
            yield Part(
                images=images,
                labels=labels,
                share=counts[number] / total,
                reference=reference,
                count=counts[number],
                own=own,
                is_last=number == len(counts) - 1,
                start=starts[number],
                indices=next(places),
            )

    def _trained(self, images: Tensor) -> Tensor:
        """Raw embeddings whose gradients reach the weights."""
        return self.network(images) if self.shared is None else self.shared(images)

    def _gradients_of(self, part: Part) -> AbstractContextManager[None]:
        """Within, a part's passes forth and back: gradients are summed over the ranks after the last part."""
        return nullcontext() if self.shared is None or part.is_last else self.shared.no_sync()

    def clean_embeddings(self, part: Part) -> Tensor:
        """Raw embeddings of source samples in a training pass."""
        with self.batchnorm.clean():
            return self._trained(part.images)

    def source_embeddings(self, part: Part) -> tuple[Tensor, Tensor]:
        """Raw source embeddings for the loss, and the unit anchors `z_s` (evaluation mode) that crafting leans on.

        One pass serves both where BatchNorm is frozen; where no source term is trained the anchors alone are made.
        """
        if self.weights.source == 0:
            with crafting(self.backbone), torch.no_grad():
                embeddings = self.network(part.images)
            return embeddings, F.normalize(embeddings)
        embeddings = self.clean_embeddings(part)
        if self.batchnorm.frozen:
            return embeddings, F.normalize(embeddings.detach())
        with crafting(self.backbone), torch.no_grad():
            return embeddings, F.normalize(self.network(part.images))

    def _adversarial_samples(self, source: Source, targets: Targets | None, part: Part) -> Tensor:
        """`x_a = attack(x_s; dodge z_s | impersonate q_t)`."""
        assert self.attack is not None, "an open gate needs an attack"
        score = self._score(source, targets, self.generator, part.count, part.own)
        attack = self.attack.within(self.attack.ball.scaled(source.ramp))
        return attack(score, source.images, generator=self.generator)

    def _score(
        self, source: Source, targets: Targets | None, generator: torch.Generator, count: int, numbers: range
    ) -> CosineScore:
        """What the attacker wants of each source sample, of `count` those with these `numbers`."""
        own = source.embeddings
        match self.goal:
            case "dodge" | "impersonate":
                dodges = torch.full((len(own),), self.goal == "dodge", device=own.device)
            case "both":  # exactly half, so that neither goal starves in a small batch
                order = torch.randperm(count, generator=generator, device=generator.device)
                dodges = (order < count // 2)[numbers.start : numbers.stop].to(own.device)
            case unknown:
                assert_never(unknown)
        other = own if targets is None else targets.repel
        return dodge_or_impersonate(source.embed, own, other, dodges)

    def robust_embeddings(self, x_a: Tensor, targets: Targets | None) -> tuple[Tensor, Tensor | None]:
        """Raw embeddings of adversarial samples and, in the same pass, of targets that are pulled home."""
        with self.batchnorm.adversarial():
            # A function of the user's own that does not say is taken to use the targets.
            if targets is None or not targets.keeps_identity or not getattr(self.regularizer, "uses_target", True):
                return self._trained(x_a), None
            assert targets.images is not None, "it still shows the source"
            e_a, e_t = self._trained(torch.cat([x_a, targets.images])).chunk(2)
            return e_a, e_t

    def _regularizer(self, samples: Samples, e_s: Tensor, e_a: Tensor, e_t: Tensor | None) -> Tensor:
        if self.regularizer is None or self.weights.regularizer == 0:
            return e_a.new_zeros(())
        part, mean = samples.part, self.regularizer(self.regularized(samples, e_s, e_a, e_t))
        return mean if self.ranks.alone else mean * (len(part.own) / part.count)

    def regularized(self, samples: Samples, e_s: Tensor, e_a: Tensor, e_t: Tensor | None) -> Embeddings:
        """What a regulariser sees."""
        repel = None if samples.targets is None else samples.targets.repel
        return Embeddings(
            source=F.normalize(e_s),
            adversarial=F.normalize(e_a),
            target=repel if e_t is None else F.normalize(e_t),
            repel=repel,
            reference=samples.part.reference,
            keeps_identity=e_t is not None,
        )

    def _ball_radius(self, factor: float) -> float:
        assert self.attack is not None
        return self.attack.ball.radius * factor

    def _backward(self, samples: Samples, losses: Sequence[Tensor]) -> list[float]:
        """Takes the gradient of the first of `losses`; the values of all, over all ranks."""
        values = self.ranks.sums([float(value.detach()) for value in losses])
        if not math.isfinite(values[0]):
            raise self._failed([samples], values)
        torch.autograd.backward(losses[0] * samples.part.share)
        return values

    def _update(self, update: Sequence[Samples]) -> None:
        spoilt = self.scale is not None and self.ranks.any(self.scale.unscale(self.backbone.parameters()))
        # Without a bound the gradients stay as they are, and the norm still tells whether they are finite.
        norm = self._clip(math.inf if self.clip_norm is None else self.clip_norm)
        if spoilt or not math.isfinite(norm):
            if self.scale is not None and self.scale.lower():
                self.optimizer.zero_grad(set_to_none=True)
                return
            raise self._failed(update, norm=math.inf if spoilt else norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scale is not None:
            self.scale.used()

    def _failed(
        self, update: Sequence[Samples], values: Sequence[float] = (), norm: float | None = None
    ) -> NonFiniteLoss:
        """Why these `values` of the loss and its terms, or the `norm` of the gradient, are not finite."""
        diagnosis = diagnose(self, update, values, norm)
        self.optimizer.zero_grad(set_to_none=True)
        return NonFiniteLoss(diagnosis)

    def _clip(self, most: float) -> float:
        """Cuts the whole gradient, the backbone's and that of every rank's rows of the head, to a norm of `most`; the
        norm that it had.
        """
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.ranks.alone:
            total = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if math.isfinite(norm := float(total)):  # or what is looked at then would be none of the gradient any more
                nn.utils.clip_grads_with_norm_(parameters, most, total)
            return norm
        shared = {id(parameter) for parameter in self.backbone.parameters()}
        common = [p.grad for p in parameters if id(p) in shared and p.grad is not None]
        rows = [p.grad for p in parameters if id(p) not in shared and p.grad is not None]
        squares = [float(nn.utils.get_total_norm(some)) ** 2 if some else 0.0 for some in (common, rows)]
        norm = math.sqrt(squares[0] + self.ranks.sums([squares[1]])[0])
        if math.isfinite(norm):
            nn.utils.clip_grads_with_norm_(parameters, most, torch.tensor(norm, device=parameters[0].device))
        return norm


def _gathered_images(images: Tensor, count: int, ranks: Ranks) -> Tensor:
    """Everybody's images, which are whole grey levels and travel as such."""
    return ranks.gather(images.mul(255).round().to(torch.uint8), count).float().div_(255)


def _source_pass(loss: float, raw: list[Tensor], parts: list[Part]) -> SourcePass:
    references = [part.reference for part in parts if part.reference is not None]
    return SourcePass(
        loss=loss,
        embeddings=torch.cat(raw),
        labels=torch.cat([part.labels for part in parts]),
        reference=torch.cat(references) if references else None,
    )
