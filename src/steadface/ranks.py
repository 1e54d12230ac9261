"""The processes that train one model together, and what they tell each other.

torchrun starts them and numbers them: `rank` of `size`. Each has the whole backbone, its slots of every batch and its
rows of the head. Every loss is taken down in shares: what a rank computes adds up over the ranks to the loss of the
whole effective batch, and so do gradients. One process is the same code, in which a sum over ranks is the value itself.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from steadface.errors import InvalidInput, SteadfaceError, Unavailable

PATIENCE = timedelta(hours=12)
"""How long a rank waits for another, which may be judging candidates, before it takes it for lost."""

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that train together; by default it is alone.

    All methods but `slots`, `shares`, `rows` and `lost` are collective: every rank has to call them, in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes down and says what has happened."""
        return self.rank == 0

    def slots(self, count: int) -> slice:
        """This rank's of `count` slots of a batch: as many as any other's, or one more."""
        least, more = divmod(count, self.size)
        start = self.rank * least + min(self.rank, more)
        return slice(start, start + least + (self.rank < more))

    def shares(self, count: int, parts: int) -> list[range]:
        """This rank's slots of a batch of `count` that is taken in so many parts, as torch chunks it."""
        each = -(-count // parts)
        whole = [range(start, min(start + each, count)) for start in range(0, count, each)]
        return [part[self.slots(len(part))] for part in whole]

    def rows(self, count: int) -> slice:
        """This rank's of `count` rows of a head, as DTensor shards them: the last ranks may have fewer, or none."""
        each = -(-count // self.size)
        return slice(min(self.rank * each, count), min((self.rank + 1) * each, count))

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the ranks, in float64."""
        if self.alone:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return cast(list[float], total.tolist())

    def any(self, flag: bool) -> bool:
        """Whether it holds on any rank."""
        return flag if self.alone else self.sums([float(flag)])[0] > 0

    def sum(self, value: Tensor) -> Tensor:
        """Summed over the ranks, without gradient."""
        if self.alone:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    def maximum(self, value: Tensor) -> Tensor:
        """The largest over the ranks, element by element, without gradient."""
        if self.alone:
            return value
        largest = value.detach().clone()
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest

    def gather(self, part: Tensor, count: int) -> Tensor:
        """All `count` slots `(count, ...)`, of which `part` is this rank's; gradients come back summed over ranks."""
        return part if self.alone else self._gathered(part, Ranks.slots, count)

    def gather_rows(self, part: Tensor, count: int) -> Tensor:
        """All `count` rows of a head, of which `part` is this rank's."""
        return part if self.alone else self._gathered(part, Ranks.rows, count)

    def together(self, *parts: Tensor) -> tuple[list[Tensor], slice]:
        """All rows of tensors of which each rank has as many as it likes, and which are this one's; gradients as in
        `gather`.
        """
        if self.alone:
            return list(parts), slice(0, len(parts[0]))
        lengths = self.sums([len(parts[0]) if rank == self.rank else 0 for rank in range(self.size)])
        ends = [round(end) for end in itertools.accumulate(lengths, initial=0)]
        places = tuple(slice(*ends[rank : rank + 2]) for rank in range(self.size))
        return [_Gather.apply(part, places, self.rank) for part in parts], places[self.rank]  # type: ignore[no-untyped-call]

    def share(self, count: int) -> float:
        """Which share of all that the ranks have `count` is."""
        return 1.0 if self.alone else count / self.sums([count])[0]

    def _gathered(self, part: Tensor, divided: Callable[["Ranks", int], slice], count: int) -> Tensor:
        places = tuple(divided(Ranks(rank=rank, size=self.size), count) for rank in range(self.size))
        return cast(Tensor, _Gather.apply(part, places, self.rank))  # type: ignore[no-untyped-call]

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What `make` gives on the first rank, on all of them; also the SteadfaceError that it raises there."""
        if self.alone:
            return make()
        box: list[Any] = [None, None]
        if self.first:
            try:
                box[0] = make()
            except SteadfaceError as error:
                error.common = True
                box[1] = error
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        if box[1] is not None:
            raise box[1]
        return cast(Value, box[0])

    def collected(self, value: Value) -> list[Value]:
        """Every rank's value, in the order of ranks."""
        if self.alone:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def lost(self, error: BaseException) -> str:
        """That another rank is gone, in words, where `error` comes from that; else ''."""
        told = isinstance(error, dist.DistError) or re.search("gloo|NCCL", str(error)) is not None
        return "" if self.alone or not told else "another of the processes that train together is gone"

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Within, the first rank does its part before any other begins."""
        if not self.first:
            self.wait()
        try:
            yield
        finally:
            if self.first:
                self.wait()

    def wait(self) -> None:
        """Until all ranks have come here."""
        if not self.alone:
            dist.barrier()


ALONE = Ranks()
_groups: list[object] = []
"""Those that this process has been in, which live as long as it does."""


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, places: tuple[slice, ...], rank: int) -> Tensor:
        ctx.own = places[rank]
        lengths = [place.stop - place.start for place in places]
        padded = part.new_zeros(max(lengths), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in places]
        dist.all_gather(parts, padded)
        return torch.cat([one[:length] for one, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.own], None, None


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that torchrun has started beside this one; alone where none was.

    Each takes the GPU of its number on its machine, where there are any. Raises InvalidInput where there are fewer GPUs
    than ranks, and Unavailable where the others cannot be reached.
    """
    if dist.is_initialized():
        yield Ranks(rank=dist.get_rank(), size=dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if there := torch.cuda.device_count():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= there:
            raise InvalidInput(
                f"rank {local} of this machine has no GPU of its own, there are {there}: start as many processes, or "
                "hide the GPUs with CUDA_VISIBLE_DEVICES=''"
            )
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if there else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise Unavailable(f"the other ranks cannot be reached ({reason}): start all of them with torchrun") from error
    # What is left of a DistributedDataParallel would otherwise end the group, and wait for a thread that waits for it.
    _groups.append(dist.group.WORLD)
    try:
        yield Ranks(rank=dist.get_rank(), size=dist.get_world_size())
    finally:
        dist.destroy_process_group()
