"""What ranks tell each other in a step, and how many images a second that leaves.

Legend as in `workload`, and P weights that learn, s rows of the head in a step. Collectives are rings (Patarasuk and
Yuan, "Bandwidth optimal all-reduce algorithms", 2009): a rank sends 2 (R - 1) / R of what is summed over all, and
R - 1 times its own part of what is gathered. Nothing is taken to overlap.
"""

from dataclasses import asdict, dataclass

from steadface.training.planning.activations import Network
from steadface.training.planning.memory import FLOAT
from steadface.training.planning.workload import Workload

HEAD_RATE = 4e12
"""Products and sums of a head a second, with all that is done to its logits, on a V100 in float32: what the column
"model parallel" of arcface_torch's table comes to (tests/training/test_planning.py). Measure it for another device."""
LABEL = 8
SCALARS = 3
"""Of each face, for the softmax: the largest logit, the sum of exponentials and the true logit."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes that a rank sends for one update."""

    gradients: int
    embeddings: int
    embedding_gradients: int
    labels: int
    softmax: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def traffic_of(workload: Workload, network: Network, *, opened: bool = False) -> Traffic:
    """Of an update without, or with, adversarial samples, whose embeddings pass the head as well; the anchors' are
    gathered for the choice of targets.
    """
    others, losses = workload.ranks - 1, 1 + opened
    size = workload.architecture.embedding_size

    def summed(numbers: int) -> int:
        return 2 * others * FLOAT * numbers // workload.ranks

    return Traffic(
        gradients=summed(network.learning),
        embeddings=(losses + opened) * others * FLOAT * workload.batch * size,
        embedding_gradients=losses * summed(workload.faces * size),
        labels=losses * others * LABEL * workload.batch,
        softmax=losses * summed(SCALARS * workload.faces),
    )


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a step with a closed gate, by part, and of one with an open gate; and images a second at the duty."""

    backbone: float
    head: float
    sending: float
    closed: float
    opened: float
    images_per_second: float


def pace_of(
    workload: Workload,
    network: Network,
    *,
    images_per_second: float,
    bandwidth: float | None,
    head_rate: float = HEAD_RATE,
) -> Pace:
    """From what one device was measured at, clean, with this backbone and batch and a head of no account.

    `bandwidth` is what a rank sends in bytes a second (None: no time), `head_rate` the operations a second of a head.
    """
    work = workload
    backbone = work.batch / images_per_second
    head = 6 * work.faces * work.sampled * work.architecture.embedding_size / head_rate

    def sending(opened: bool) -> float:
        return 0.0 if bandwidth is None else traffic_of(work, network, opened=opened).total / bandwidth

    closed = backbone + head + sending(False)
    robust = open_update(work) * backbone + 2 * head + sending(True)
    opened = robust + (closed if work.timing == "same" else 0.0)
    mean = (1 - work.duty) * closed + work.duty * opened
    return Pace(
        backbone=backbone,
        head=head,
        sending=sending(False),
        closed=closed,
        opened=opened,
        images_per_second=work.faces / mean,
    )


def open_update(workload: Workload) -> float:
    """What an update with an open gate costs in clean passes, of which a forward pass is a third (`docs/method.md`).

    The anchors' forward pass, the attack's passes with their input gradients (as much again), the reference's forward
    pass where there is one, and training on source samples, adversarial samples and, where they are, targets.
    """
    forward = 1 + 2 * workload.attack_steps + workload.reference
    return forward / 3 + workload.passes
