"""What one rank holds at once, by part and by formula.

Legend as in `workload`, and P weights of the backbone, n rows of the head on a rank, s of them in a step, k moments of
the optimiser. All parameters, moments and logits are float32, whatever the backbone computes in.
"""

from dataclasses import asdict, dataclass

from steadface.training.planning.activations import Network
from steadface.training.planning.workload import Workload

FLOAT = 4
GIB = 2**30
RESERVE = int(1.7 * GIB)
"""What no formula has: the driver's context, NCCL's and cuDNN's work space, and what the allocator rounds up and leaves
lying. Least squares find as much in the table of arcface_torch for its V100 (tests/training/test_planning.py)."""

Phase = tuple[float, float]
"""Tensors of the size of the rows (s, D), and of the logits (R B, s), that are there at the same time."""
PHASES: tuple[Phase, ...] = ((1, 4), (5, 0))
"""Of a loss on its way back: the softmax, then the rows' own lengths and gradients. Of ArcFace, CosFace and AdaFace;
the plain softmax takes less."""
WAITING: Phase = (1, 2)
"""What a loss keeps while another is on its way."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one rank. The parts are never all at their largest at once, so that their sum is a bound."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    reference: int
    images: int
    activations: int
    head: int
    head_optimizer: int
    head_work: int
    embeddings: int
    prototypes: int
    reserve: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    @property
    def parts(self) -> dict[str, int]:
        """Those that there are."""
        return {name: size for name, size in asdict(self).items() if size}


FORMULAS = {
    "weights": "4 (P + buffers)",
    "gradients": "4 P",
    "optimizer": "4 k P",
    "average": "4 (P + buffers)",
    "reference": "4 (P + buffers)",
    "images": "12 B H W, four times with an open gate",
    "activations": "what layers keep, of each pass, and a map",
    "head": "4 n D",
    "head_optimizer": "4 k n D",
    "head_work": "4 s max(4 R B + D, 5 D), and more",
    "embeddings": "12 R B D, of each loss",
    "prototypes": "4 C D with targets made on the source, or twice",
    "reserve": "context, work space, rounding",
}


def memory_of(
    workload: Workload, network: Network, *, reserve: int = RESERVE, phases: tuple[Phase, ...] = PHASES
) -> Memory:
    """What `workload` needs with the counted `network`; `phases` are those of the head that computes the loss."""
    work, size = workload, workload.architecture.embedding_size
    state = FLOAT * (network.weights + network.buffers)
    learning, rows = FLOAT * network.learning, FLOAT * work.rows * size
    height, width = work.architecture.image_size
    kept = network.kept(work.batch, passes=work.passes, recompute=work.recompute)
    return Memory(
        weights=state,
        gradients=learning,
        optimizer=work.moments * learning,
        average=state if work.average else 0,
        reference=state if work.reference else 0,
        images=FLOAT * 3 * height * width * work.batch * (4 if work.opens else 1),
        activations=kept + network.passing(work.batch, recompute=work.recompute),
        head=rows,
        head_optimizer=work.moments * rows,
        head_work=_head_work(work, phases),
        embeddings=FLOAT * 3 * work.losses * work.faces * size,
        prototypes=_prototypes(work),
        reserve=reserve,
    )


def _prototypes(work: Workload) -> int:
    """The unit rows that targets made on the source are compared with: all of them, which come from all ranks."""
    if not work.opens or not work.targets:
        return 0
    return (2 if work.ranks > 1 else 1) * FLOAT * work.architecture.embedding_size * work.identities


def _head_work(work: Workload, phases: tuple[Phase, ...]) -> int:
    rows, logits = FLOAT * work.sampled * work.architecture.embedding_size, FLOAT * work.faces * work.sampled
    drawn = (1 + work.moments) * rows if work.sample_rate < 1 else 0
    waiting = (work.losses - 1) * (WAITING[0] * rows + WAITING[1] * logits)
    return round(drawn + waiting + max(of_rows * rows + of_logits * logits for of_rows, of_logits in phases))
