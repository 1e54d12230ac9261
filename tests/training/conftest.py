"""A tiny recogniser, faces that it can learn in a moment, and trainers assembled from both."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steadface.attacks import NFGSM, PGD, Attack, Ball, GenerativeAttack, PerturbationNetwork, Score, ball
from steadface.data.loading import Batch
from steadface.heads import AdaFace, ArcFace
from steadface.heads.heads import MarginObjective
from steadface.training.batchnorm import BatchNormPasses
from steadface.training.gate import FixedGate
from steadface.training.performance import SourcePass, negative_loss
from steadface.training.regularizers import PullRepel
from steadface.training.selection import looks
from steadface.training.step import Ramp, StepRecord, Trainer
from steadface.training.targets import Nearest, OtherFace, Source, Targets, TargetSampler

PEOPLE, SIZE, EMBEDDING = 6, 16, 8


def tiny_network(*, norms: bool = True) -> nn.Sequential:
    """Images ``(B, 3, 16, 16)`` to embeddings ``(B, 8)``, with BatchNorm of both kinds or without any."""

    def norm(layer: nn.Module) -> nn.Module:
        return layer if norms else nn.Identity()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            norm(nn.BatchNorm2d(8)),
            nn.PReLU(8),
            nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False),
            norm(nn.BatchNorm2d(12)),
            nn.PReLU(12),
            nn.Flatten(),
            nn.Linear(12 * 4 * 4, EMBEDDING, bias=False),
            norm(nn.BatchNorm1d(EMBEDDING)),
        )


def person_faces(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Faces of those people: a pattern each, and noise that no two pictures share."""
    patterns = torch.rand(PEOPLE, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(len(labels), 3, SIZE, SIZE, generator=generator)
    return (patterns[labels] + 0.15 * noise).clamp(0, 1)


@dataclass
class Watched:
    """An attack that writes down what it was asked for and what it found."""

    inner: Attack
    calls: list[tuple[Score, Tensor, Tensor, Ball]] = field(default_factory=list)

    @property
    def ball(self) -> Ball:
        return self.inner.ball

    def within(self, ball: Ball) -> "Watched":
        return Watched(self.inner.within(ball), self.calls)

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        found = self.inner(score, images, generator=generator)
        self.calls.append((score, images, found, self.inner.ball))
        return found


@dataclass
class WatchedTargets:
    """A target sampler that writes down what it saw and gave."""

    inner: TargetSampler
    calls: list[tuple[Source, Targets]] = field(default_factory=list)

    def __call__(self, source: Source, generator: torch.Generator) -> Targets:
        targets = self.inner(source, generator)
        self.calls.append((source, targets))
        return targets


@dataclass(kw_only=True)
class CountedTrainer(Trainer):
    """A trainer that writes down which unit ran, and counts the updates of the weights."""

    units: list[str] = field(default_factory=list)
    updates: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.optimizer.register_step_post_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.updates += 1

    def train_on_source(self, parts: Any) -> SourcePass:
        self.units.append("source")
        return super().train_on_source(parts)

    def judge(self, source: SourcePass) -> float:
        self.units.append("judge")
        return super().judge(source)

    def train_robustly(self, parts: Any, *scaled: Any) -> tuple[SourcePass, dict[str, float]]:
        self.units.append("robust")
        return super().train_robustly(parts, *scaled)


class Scripted:
    """A performance that reads the losses from a list instead of the batch."""

    def __init__(self, losses: list[float]) -> None:
        self._losses = iter(losses)

    def __call__(self, source: SourcePass, /) -> float:
        return negative_loss(SourcePass(loss=next(self._losses), embeddings=source.embeddings, labels=source.labels))


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """At held-out people, for tests of something else than what the attack of a look finds."""
    monkeypatch.setattr(looks, "STEPS", 1)


@pytest.fixture
def scripted() -> Callable[[list[float]], Scripted]:
    return Scripted


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    return lambda seed: torch.Generator().manual_seed(seed)


@pytest.fixture
def network() -> Callable[..., nn.Sequential]:
    return tiny_network


@pytest.fixture
def faces_of() -> Callable[[Tensor, torch.Generator], Tensor]:
    return person_faces


@pytest.fixture
def batches() -> Callable[..., list[Batch]]:
    def make(count: int, size: int = 8) -> list[Batch]:
        generator = torch.Generator().manual_seed(5)
        labels = [(torch.arange(size) + step) % PEOPLE for step in range(count)]
        return [Batch(images=person_faces(each, generator), labels=each) for each in labels]

    return make


@pytest.fixture
def make_head() -> Callable[..., ArcFace | AdaFace]:
    def make(kind: type[ArcFace] | type[AdaFace] = ArcFace) -> ArcFace | AdaFace:
        return kind(PEOPLE, EMBEDDING, s=16.0, m=0.2, generator=torch.Generator().manual_seed(7))

    return make


@pytest.fixture
def watched() -> Callable[[Attack], Watched]:
    return Watched


@pytest.fixture
def watched_targets() -> Callable[[TargetSampler], WatchedTargets]:
    return WatchedTargets


@pytest.fixture
def make_attack() -> Callable[..., Attack]:
    def make(kind: str = "nfgsm", norm: str = "linf") -> Attack:
        around = ball(norm, 8 / 255 if norm == "linf" else 0.8)
        if kind == "nfgsm":
            return NFGSM(ball=around)
        if kind == "pgd":
            return PGD(ball=around, steps=3, keep_best=False)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            proposer = PerturbationNetwork(embedding_size=EMBEDDING, width=4, blocks=1)
        return GenerativeAttack(
            ball=around, network=proposer, optimizer=torch.optim.Adam(proposer.parameters(), lr=1e-3)
        )

    return make


@pytest.fixture
def make_trainer(make_head: Callable[..., Any], make_attack: Callable[..., Attack]) -> Callable[..., CountedTrainer]:
    """Trainers of one seed: clean ArcFace training with everything at hand that an open gate needs."""

    def make(**options: Any) -> CountedTrainer:
        network = options.pop("network", None) or tiny_network()
        objective = options.pop("objective", None) or MarginObjective(options.pop("head", None) or make_head())
        parameters = [p for module in (network, objective) for p in module.parameters()]
        rate, momentum = options.pop("rate", 0.05), options.pop("momentum", 0.9)
        mode = options.pop("batchnorm", "separate")
        defaults: dict[str, Any] = {
            "gate": FixedGate(is_open=True),
            "performance": negative_loss,
            "attack": make_attack(),
            "targets": OtherFace(designate=Nearest()),
            "regularizer": PullRepel(),
            "ramp": Ramp(),
        }
        return CountedTrainer(
            backbone=network,
            network=network,
            objective=objective,
            optimizer=torch.optim.SGD(parameters, lr=rate, momentum=momentum),
            batchnorm=BatchNormPasses(network, mode),
            generator=torch.Generator().manual_seed(11),
            **(defaults | options),
        )

    return make


@pytest.fixture
def weights_of() -> Callable[[Trainer], dict[str, Tensor]]:
    """A copy of all that a trainer learns: parameters and statistics of backbone and head."""

    def copied(trainer: Trainer) -> dict[str, Tensor]:
        modules: dict[str, Any] = {"backbone": trainer.backbone, "objective": trainer.objective}
        return copy.deepcopy({f"{k}.{n}": v for k, module in modules.items() for n, v in module.state_dict().items()})

    return copied


@pytest.fixture
def run_steps() -> Callable[[Trainer, list[Batch]], list[StepRecord]]:
    return lambda trainer, batches: [trainer.step(batch) for batch in batches]
