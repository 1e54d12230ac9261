"""The plan of a training: what a rank needs, whether it has that, and what would help where it has not."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from steadface.training.planning.activations import Network, traced
from steadface.training.planning.memory import RESERVE, Memory, memory_of
from steadface.training.planning.pace import Pace, Traffic, pace_of, traffic_of
from steadface.training.planning.workload import Workload

RATES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
SEARCHED = 1 << 16
"""GPUs up to which more are tried."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`available` are the bytes that a rank has, where that is known, and `remedies` what would make it fit."""

    workload: Workload
    network: Network
    memory: Memory
    traffic: Traffic
    open_traffic: Traffic
    available: int | None = None
    remedies: tuple[str, ...] = ()
    pace: Pace | None = None

    @property
    def fits(self) -> bool:
        return self.available is None or self.memory.total <= self.available

    def to_json(self) -> dict[str, Any]:
        work = asdict(self.workload) | {"architecture": self.workload.architecture.model_dump()}
        return {
            "workload": work | {"rows": self.workload.rows, "sampled_rows": self.workload.sampled},
            "weights": self.network.weights,
            "memory": asdict(self.memory) | {"total": self.memory.total, "available": self.available},
            "fits": self.fits,
            "remedies": list(self.remedies),
            "traffic": {
                "closed": asdict(self.traffic) | {"total": self.traffic.total},
                "open": asdict(self.open_traffic) | {"total": self.open_traffic.total} if self.workload.opens else None,
            },
            "pace": None if self.pace is None else asdict(self.pace),
        }


def plan(
    workload: Workload,
    *,
    available: int | None = None,
    reserve: int = RESERVE,
    images_per_second: float | None = None,
    bandwidth: float | None = None,
    head_rate: float | None = None,
) -> Plan:
    """What `workload` needs, beside the bytes that a rank has; its pace where one device's is known (see `pace_of`)."""
    network = traced(workload.architecture, workload.precision)
    memory = memory_of(workload, network, reserve=reserve)

    def fits(other: Workload) -> bool:
        return available is None or memory_of(other, network, reserve=reserve).total <= available

    given = {} if head_rate is None else {"head_rate": head_rate}
    return Plan(
        workload=workload,
        network=network,
        memory=memory,
        available=available,
        remedies=() if fits(workload) else tuple(remedies(workload, fits)),
        traffic=traffic_of(workload, network),
        open_traffic=traffic_of(workload, network, opened=True),
        pace=None
        if images_per_second is None
        else pace_of(workload, network, images_per_second=images_per_second, bandwidth=bandwidth, **given),
    )


Fits = Callable[[Workload], bool]


def largest_batch(workload: Workload, fits: Fits) -> int | None:
    """The most faces a rank, up to those of `workload`, of which a step fits; None where two do not."""
    least, beyond = 1, workload.batch + 1
    while beyond - least > 1:
        middle = (least + beyond) // 2
        least, beyond = (middle, beyond) if fits(replace(workload, batch=middle)) else (least, middle)
    return least if least >= 2 else None


def remedies(workload: Workload, fits: Fits) -> Iterator[str]:
    """Each of which alone would do; where none does, what does together."""
    alone = list(_single(workload, fits))
    yield from alone or _together(workload, fits)


def _single(workload: Workload, fits: Fits) -> Iterator[str]:
    if batch := largest_batch(workload, fits):
        yield f"a batch of {batch:,} a GPU in place of {workload.batch:,}"
    if not workload.recompute and fits(replace(workload, recompute=True)):
        yield "recomputed activations (run.recompute)"
    if (rate := _rate(workload, fits)) is not None:
        yield f"a sample rate of {rate:g} in place of {workload.sample_rate:g}"
    if (ranks := _ranks(workload, fits)) is not None:
        yield f"{ranks:,} GPUs in place of {workload.ranks:,}"


def _together(workload: Workload, fits: Fits) -> Iterator[str]:
    """Recomputed activations, with the highest sample rate at which the whole batch fits, or else the largest one."""
    lower = (rate for rate in RATES if rate < workload.sample_rate)
    thrifty = [replace(workload, recompute=True, sample_rate=rate) for rate in (workload.sample_rate, *lower)]
    batches = [largest_batch(one, fits) or 0 for one in thrifty]
    best = thrifty[batches.index(max(batches))]
    words = ["recomputed activations"]
    if best.sample_rate != workload.sample_rate:
        words.append(f"a sample rate of {best.sample_rate:g}")
    if 0 < max(batches) < workload.batch:
        words.append(f"a batch of {max(batches):,} a GPU")
    if not max(batches):
        if (ranks := _ranks(thrifty[-1], fits)) is None:
            return
        words = ["recomputed activations", f"a sample rate of {thrifty[-1].sample_rate:g}", f"{ranks:,} GPUs"]
    yield " and ".join(words)


def _rate(workload: Workload, fits: Fits) -> float | None:
    lower = (rate for rate in RATES if rate < workload.sample_rate)
    return next((rate for rate in lower if fits(replace(workload, sample_rate=rate))), None)


def _ranks(workload: Workload, fits: Fits) -> int | None:
    """The fewest that will do, the batch of each the same."""
    more = workload.ranks
    while more < SEARCHED:
        more *= 2
        if fits(replace(workload, ranks=more)):
            return _fewest(workload, fits, more)
    return None


def _fewest(workload: Workload, fits: Fits, enough: int) -> int:
    short = enough // 2
    while enough - short > 1:
        middle = (short + enough) // 2
        short, enough = (short, middle) if fits(replace(workload, ranks=middle)) else (middle, enough)
    return enough
