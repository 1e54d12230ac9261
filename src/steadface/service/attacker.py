"""The process in which attacks of the bench run: one thread, the lowest priority, one attack after the other.

It tells of each iterate as it is scored. What it holds are two pictures and the models; nothing is written anywhere.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any, Literal, assert_never

import torch
from torch import Tensor, nn

from steadface.attacks import APGD, PGD, CosineScore, Linf, crafting, dodge, impersonate
from steadface.attacks.rounding import as_bytes, towards_source
from steadface.data.faces import Image
from steadface.errors import SteadfaceError, Unsupported
from steadface.evaluation.embedding import unit_embeddings
from steadface.recognizers.network import fitted
from steadface.recognizers.under_contract import opened_under_contract

Goal = Literal["dodge", "impersonate"]
Method = Literal["apgd", "pgd"]
Embed = Callable[[Tensor], Tensor]

NICE = 19
BETWEEN = 0.1
"""Seconds between two pictures that are told of."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model that is attacked, as `opened_under_contract` takes it; it accepts from the cosine `threshold` on, None
    where it is not calibrated.
    """

    name: str
    model: str
    contract: Path | None = None
    output: str | None = None
    fmr: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """Change the face `first` by at most `eps` grey levels a pixel, so that each target takes it for another person
    than `second` (dodge), or for that one (impersonate). Faces are aligned, (H, W, 3) uint8 RGB of one size.
    """

    targets: tuple[Target, ...]
    first: Image
    second: Image
    goal: Goal
    eps: float
    steps: int
    method: Method = "apgd"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """The cosine of an iterate, the first that of the face as it is; now and then with the iterate, (H, W, 3)."""

    target: int
    cosine: float
    picture: Image | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """The best iterate in whole grey levels, as a file would hold it, and its cosine; `changed` is the largest
    change, in grey levels.
    """

    target: int
    cosine: float
    changed: int
    picture: Image


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Of a task; `problem` says why where it failed."""

    problem: str | None = None


Event = Step | Result | Ended


class Stopped(Exception):
    """Nobody wants the attack any more."""


def work(connection: Connection, nice: int = NICE) -> None:
    """Does tasks as they come, until nobody is there any more; None stops the one that is being done. Loading torch
    comes before it gives way, and is done once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    if hasattr(os, "nice"):
        os.nice(nice)
    torch.set_num_threads(1)
    opened: dict[tuple[Any, ...], tuple[nn.Module, bool]] = {}

    def tell(event: Event) -> None:
        if connection.poll():
            raise Stopped
        connection.send(event)

    try:
        while True:
            task = connection.recv()
            if task is not None:  # the attack that was to be stopped had ended
                connection.send(Ended(problem=_problem(task, tell, opened)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _problem(
    task: Task, tell: Callable[[Event], object], opened: dict[tuple[Any, ...], tuple[nn.Module, bool]]
) -> str | None:
    try:
        for place, target in enumerate(task.targets):
            key = (target.model, target.contract, target.output)
            if key not in opened:
                opened[key] = _opened(target)
            attack(task, place, *opened[key], tell)
    except SteadfaceError as error:
        return str(error)
    except Stopped:
        return "it was stopped"
    except (RuntimeError, MemoryError) as error:  # of whatever network somebody brought
        return f"the attack failed: {type(error).__name__}"
    return None


def _opened(target: Target) -> tuple[nn.Module, bool]:
    """Its network, and whether mirror images are summed."""
    found, contract = opened_under_contract(target.model, output=target.output, file=target.contract)
    if not found.differentiable:
        raise Unsupported(f"{found.name} has no gradients, so nothing can be crafted on it; choose another model")
    return found.network, contract.mirror


def attack(task: Task, place: int, network: nn.Module, mirror: bool, tell: Callable[[Event], object]) -> None:
    """One target's: the face as it is, each iterate, then the best one in whole grey levels."""
    first, second = _images(task.first), _images(task.second)
    fitting = fitted(network, (first.shape[2], first.shape[3]))

    def embed(images: Tensor) -> Tensor:
        return unit_embeddings(fitting, images, mirror=mirror)

    with crafting(fitting):
        with torch.no_grad():
            anchor = embed(second)
        score = _score(task.goal, embed, anchor)
        with torch.no_grad():
            tell(Step(target=place, cosine=_cosine(score, first), picture=task.first))
        best = _attack(task)(
            Watched(score=score, tell=_Teller(place, tell)), first, generator=torch.Generator().manual_seed(task.seed)
        )
        kept = towards_source(best, first)
        with torch.no_grad():
            cosine = _cosine(score, kept)
    changed = round(255 * float((kept - first).abs().max()))
    tell(Result(target=place, cosine=cosine, changed=changed, picture=_picture(kept)))


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A `Score` of one image that tells of each iterate and its cosine."""

    score: CosineScore
    tell: Callable[[Tensor, float], object]

    def __call__(self, images: Tensor) -> Tensor:
        values = self.score(images)
        self.tell(images.detach(), float((self.score.signs * values.detach())[0]))
        return values

    def take(self, indices: Tensor) -> "Watched":
        return replace(self, score=self.score.take(indices))

    def succeeded(self, values: Tensor) -> Tensor:
        return self.score.succeeded(values)


class _Teller:
    """Sends every cosine, and a picture now and then."""

    def __init__(self, place: int, tell: Callable[[Event], object]) -> None:
        self._place, self._tell, self._last = place, tell, 0.0

    def __call__(self, images: Tensor, cosine: float) -> None:
        now = monotonic()
        due = now - self._last >= BETWEEN
        self._last = now if due else self._last
        self._tell(Step(target=self._place, cosine=cosine, picture=_picture(images) if due else None))


def _attack(task: Task) -> Callable[..., Tensor]:
    ball = Linf(task.eps / 255)
    match task.method:
        case "apgd":
            return APGD(ball=ball, steps=task.steps)
        case "pgd":
            return PGD(ball=ball, steps=task.steps)
        case _:
            assert_never(task.method)


def _score(goal: Goal, embed: Embed, anchor: Tensor) -> CosineScore:
    """Without an end: how far an attack comes is worth seeing, and not only that it came over the threshold."""
    match goal:
        case "dodge":
            return dodge(embed, anchor)
        case "impersonate":
            return impersonate(embed, anchor)
        case _:
            assert_never(goal)


def _cosine(score: CosineScore, images: Tensor) -> float:
    return float((score.signs * score(images))[0])


def _images(face: Image) -> Tensor:
    return torch.from_numpy(face.copy()).permute(2, 0, 1)[None].float() / 255


def _picture(images: Tensor) -> Image:
    """(H, W, 3) of the first of images in [0, 1]."""
    found: Image = as_bytes(images[0]).permute(1, 2, 0).contiguous().numpy()
    return found
