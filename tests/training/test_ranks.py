"""Several processes train the model that one trains: heads whose rows lie on all of them, whole runs, and resuming."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.data.loading import Batch
from steadface.errors import SteadfaceError
from steadface.heads import AdaFace, ArcFace, CosFace, Head, Softmax
from steadface.heads.heads import MarginObjective, SelfReference
from steadface.ranks import ALONE, Ranks, joined
from steadface.training import checkpoint
from steadface.training.assembly import trainer
from steadface.training.assembly.faces import open_recipe_faces
from steadface.training.assembly.trainer import assemble
from steadface.training.compute import Compute
from steadface.training.loop import Progress, TrainingRun
from steadface.training.lossscale import LossScale
from steadface.training.step import Trainer

from ..forks import Forks, end, together
from ..rounding import rounding
from .runs import metrics, tiny

IDENTITIES, SAMPLES, SIZE = 5, 7, 4
HEADS: dict[str, Callable[..., Head]] = {"arcface": ArcFace, "cosface": CosFace, "adaface": AdaFace, "softmax": Softmax}


def test_what_ranks_have_is_divided_without_a_gap() -> None:
    for size in (1, 2, 3, 5):
        ranks = [Ranks(rank=rank, size=size) for rank in range(size)]
        for count in (1, 4, 7, 10):
            for shares in ([one.slots(count) for one in ranks], [one.rows(count) for one in ranks]):
                assert [i for share in shares for i in range(count)[share]] == list(range(count))
            parts = [one.shares(count, 3) for one in ranks]
            whole = torch.arange(count).chunk(3)
            for number, part in enumerate(whole):
                assert [slot for one in parts for slot in one[number]] == part.tolist()


def test_alone_every_sum_is_the_value_itself() -> None:
    value = torch.rand(3)
    assert ALONE.sum(value) is value
    assert ALONE.gather(value, 3) is value
    assert ALONE.sums([1.5, 2.0]) == [1.5, 2.0]
    assert ALONE.from_first(lambda: 7) == 7


@pytest.mark.parametrize("size", [2, 4])
def test_a_head_on_several_ranks_is_the_undivided_head(size: int, in_a_fork: Forks) -> None:
    """In double precision; of four ranks one has a single row of five, and another none."""
    ended = in_a_fork(together, size, check_heads)
    assert ended.returncode == 0, ended.stderr


def check_heads() -> None:
    with joined() as ranks:
        for kind in HEADS:
            _check_head(kind, ranks)
        _check_reference(ranks)
        _check_scale(ranks)
        assert ranks.collected(ranks.rank) == list(range(ranks.size))
        with pytest.raises(SteadfaceError, match="on the first"):
            ranks.from_first(_refuse)


def _refuse() -> None:
    raise SteadfaceError("on the first")


def _check_scale(ranks: Ranks) -> None:
    """Ranks take the step of one process; and what one of them alone meets, in its rows of the head or in the samples
    that it crafts, all of them leave out.
    """
    recipe = tiny(Path("unused"), "method.gate.kind=always")
    faces, compute = open_recipe_faces(recipe), Compute(device=torch.device("cpu"), half=torch.float16)
    alone, parts = (assemble(recipe, faces, compute, fresh=True, ranks=one) for one in (ALONE, ranks))
    method, head, own = parts.trainer, parts.objective.head, ranks.slots(8)
    assert isinstance(head, Head)
    assert method.scale is not None
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    labels = torch.arange(8) % 6
    batch = Batch(images=images[own], labels=labels[own], whole=8)
    moves = []
    for one, its in ((alone.trainer, Batch(images=images, labels=labels)), (method, batch)):
        assert one.scale is not None
        one.scale.value = SCALE
        before = torch.cat([weight.detach().flatten() for weight in one.backbone.parameters()])
        one.train_on_source(list(one._parts(its)))
        moves.append(torch.cat([weight.detach().flatten() for weight in one.backbone.parameters()]) - before)
    assert F.cosine_similarity(moves[0], moves[1], dim=0) > 0.98
    assert float(moves[1].norm()) == pytest.approx(float(moves[0].norm()), rel=0.05)
    for meets in (_in_its_rows, _in_its_samples):
        before, skipped = head.weight.detach().clone(), method.scale.skipped
        with meets(method, head) if ranks.first else nullcontext():
            method.step(batch)
        assert method.scale.skipped - skipped == (2 if meets is _in_its_rows else 1), "of the source and the robust one"
        assert ranks.collected(method.scale.value) == [method.scale.value] * ranks.size
        assert torch.equal(head.weight, before) == (meets is _in_its_rows or not len(before))


@contextmanager
def _in_its_rows(_: Trainer, head: Head) -> Iterator[None]:
    handle = head.weight.register_hook(lambda gradient: gradient + torch.inf)
    yield
    handle.remove()


@contextmanager
def _in_its_samples(method: Trainer, _: Head) -> Iterator[None]:
    assert method.scale is not None
    usable = method.scale.usable
    method.scale.usable = lambda gradient: usable(gradient + torch.inf)  # type: ignore[method-assign]
    yield
    method.scale.usable = usable  # type: ignore[method-assign]


def _own(ranks: Ranks) -> slice:
    """Of the samples the first rank has most, and the others one each, as where a batch is taken in parts."""
    first = SAMPLES - ranks.size + 1
    return slice(0, first) if ranks.first else slice(first + ranks.rank - 1, first + ranks.rank)


def _check_head(kind: str, ranks: Ranks) -> None:
    whole = HEADS[kind](IDENTITIES, SIZE, generator=torch.Generator().manual_seed(1)).double()
    part = HEADS[kind](
        IDENTITIES, SIZE, generator=torch.Generator().manual_seed(1), rows=ranks.rows(IDENTITIES)
    ).double()
    assert torch.equal(part.weight, whole.weight[part.rows])
    generator = torch.Generator().manual_seed(2)
    embeddings = torch.randn(SAMPLES, SIZE, generator=generator, dtype=torch.float64)
    labels = torch.randint(IDENTITIES, (SAMPLES,), generator=generator)
    own = _own(ranks)
    mine, all_of_them = embeddings[own].clone().requires_grad_(), embeddings.clone().requires_grad_()
    undivided, divided = MarginObjective(whole), MarginObjective(part, ranks)
    for clean in (True, False):  # AdaFace's statistics move with the first
        expected = undivided(all_of_them, labels, None, clean=clean)
        share = divided(mine, labels[own], None, clean=clean)
        (2 * expected).backward()
        (2 * share).backward()
        assert ranks.sums([float(share.detach())])[0] == pytest.approx(float(expected.detach()), rel=1e-12)
    assert all_of_them.grad is not None
    _same(mine.grad, all_of_them.grad[own])
    _same(part.weight.grad, whole.weight.grad[part.rows])  # type: ignore[index]
    assert torch.equal(
        divided.correct(mine.detach(), labels[own], None), undivided.correct(embeddings, labels, None)[own]
    )
    _same(divided.prototypes(), whole.prototypes)
    assert divided.chance_loss() == undivided.chance_loss()


def _check_reference(ranks: Ranks) -> None:
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.randn(SAMPLES, SIZE, generator=generator, dtype=torch.float64)
    reference, own = F.normalize(embeddings.flip(0)), _own(ranks)
    labels = torch.arange(SAMPLES)
    expected = SelfReference()(embeddings, labels, reference, clean=True)
    share = SelfReference(ranks)(embeddings[own], labels[own], reference[own], clean=True)
    assert ranks.sums([float(share.detach())])[0] == pytest.approx(float(expected.detach()), rel=1e-12)
    right = SelfReference(ranks).correct(embeddings[own], labels[own], reference[own])
    assert torch.equal(right, SelfReference().correct(embeddings, labels, reference)[own])


def _same(one: Tensor | None, other: Tensor) -> None:
    assert one is not None
    torch.testing.assert_close(one, other, rtol=0, atol=rounding(SIZE * SAMPLES, scale=64.0, dtype=torch.float64))


# Signs of gradients and many steps would make much of the last digits.
SMOOTH = ["method.attack.norm=l2", "method.attack.eps=0.5"]
OPEN = [*SMOOTH, "method.gate.kind=loss", "method.gate.loss=1e6", "optimizer.rate=0.0005", "run.checkpoint_every=1000"]
RUNS = {
    "next": [
        *OPEN,
        "method.timing=next",
        "method.targets.designate=random",
        "method.batchnorm=joint",
        "data.batch=5",
        "head.kind=adaface",
    ],
    "blend": [
        *OPEN,
        "method.targets.kind=blend",
        "method.targets.designate=random",
        "method.attack.kind=pgd",
        "method.attack.steps=1",
        "method.batchnorm=clean",
        "optimizer.accumulate=2",
        "data.batch=10",
        "data.augmentation={mirror: 0.5}",
    ],
    "drawn": [
        *OPEN,
        "head.sample_rate=0.5",
        "method.targets.kind=kept_blend",
        "method.attack.kind=nfgsm",
    ],
    "generator": [
        *OPEN,
        "method.attack.kind=generator",
        "method.targets.kind=perturbed",
        "method.targets.steps=1",
        "method.gate.kind=accuracy",
        "method.gate.threshold=0.1",
        "optimizer.kind=adamw",
        "optimizer.rate=0.001",
        "optimizer.average=0.9",
    ],
    # Larger steps would make much of the rounding.
    "half": [
        *OPEN,
        "run.precision=fp16",
        "method.attack.eps=0.02",
        "method.timing=next",
        "method.targets.designate=random",
        "method.batchnorm=joint",
        "optimizer.accumulate=2",
        "optimizer.rate=0.00001",
        "data.batch=8",
    ],
}
STEPS = 3
SCALE = 2.0**6
"""With which so small a network overflows in no step."""
Job = tuple[str, str, int]
"""(folder, which of `RUNS`, the step after which it is stopped)."""


@pytest.fixture(scope="module")
def ran(in_a_fork: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process; runs that two begin, three go on with and one ends; runs of two, stopped once or not."""
    folder = tmp_path_factory.mktemp("ranks")
    ended = in_a_fork(run_legs, folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def run_legs(folder: Path) -> None:
    # Once, for all that are forked from here.
    import torch._dynamo
    import torch.distributed.checkpoint.hf_storage  # noqa: F401

    def relay(until: int) -> list[Job]:
        return [("relay", name, until) for name in RUNS]

    legs: list[tuple[int, list[Job]]] = [
        (1, [("alone", name, STEPS) for name in RUNS]),
        (2, [*relay(1), ("stopped", "drawn", 2)]),
        (3, relay(2)),
        (1, relay(STEPS)),
        (2, [("stopped", "drawn", STEPS), ("straight", "drawn", STEPS)]),
    ]
    for size, jobs in legs:
        if not (child := os.fork()):
            end(together, size, run_jobs, folder, jobs)
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise SystemExit(code)


def run_jobs(folder: Path, jobs: list[Job]) -> None:
    patch = pytest.MonkeyPatch()  # of a process that ends with them
    patch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: True)
    patch.setattr(trainer, "LossScale", partial(LossScale, value=SCALE))
    with joined() as ranks:
        for kind, name, until in jobs:
            run_until(folder / kind / name, name, until, ranks)


def run_until(folder: Path, name: str, until: int, ranks: Ranks) -> None:
    """Begins or goes on with a run, and stops it after that step."""

    def observe(progress: Progress) -> None:
        if progress.step == until and ranks.first:
            signal.raise_signal(signal.SIGINT)

    if ranks.from_first(folder.exists):
        run = TrainingRun.resume(folder, ranks=ranks)
    else:
        run = TrainingRun.start(tiny(folder, *RUNS[name], f"run.steps={STEPS}"), ranks=ranks)
    run.train(observe)
    assert run.step == until


@pytest.mark.parametrize("name", RUNS)
def test_ranks_train_what_one_process_trains_and_go_on_for_each_other(name: str, ran: Path) -> None:
    alone, relayed = ran / "alone" / name, ran / "relay" / name
    for one, other in zip(metrics(alone), metrics(relayed), strict=True):
        assert (one["step"], one["gate"]) == (other["step"], other["gate"])
        for key in ("loss", "adversarial_loss", "regularizer"):
            assert (one[key] is None) == (other[key] is None)
            # Which rows are drawn is every rank's own affair.
            close = {"rel": 5e-2, "abs": 5e-2} if name == "half" else {"rel": 1e-2, "abs": 1e-3}
            alike = name == "drawn" or one[key] is None or one[key] == pytest.approx(other[key], **close)
            assert alike, (one["step"], key, one[key], other[key])
    assert any(line["gate"] for line in metrics(alone))
    first, last = (checkpoint.load(checkpoint.paths(run)[-1]) for run in (alone, relayed))
    assert first.tensors.keys() == last.tensors.keys()
    assert torch.equal(first.tensors["random.method"], last.tensors["random.method"])
    scale = {"value": SCALE, "good": STEPS, "skipped": 0} if name == "half" else None
    assert first.state.get("scale") == last.state.get("scale") == scale
    for key, value in first.part("objective").items():
        assert value.shape == last.tensors[f"objective.{key}"].shape
        if name not in ("drawn", "half"):
            torch.testing.assert_close(value, last.tensors[f"objective.{key}"], rtol=1e-2, atol=1e-4)


def test_two_ranks_that_were_stopped_end_bitwise_as_if_they_had_not_been(ran: Path) -> None:
    one, other = (
        checkpoint.with_rows(checkpoint.load(checkpoint.paths(ran / run / "drawn")[-1]), ALONE)
        for run in ("stopped", "straight")
    )
    assert one.tensors.keys() == other.tensors.keys()
    assert {"objective.head.weight", "optimiser.0.momentum_buffer"} <= one.tensors.keys()
    for name in one.tensors.keys() - {"random.torch"}:
        assert torch.equal(one.tensors[name], other.tensors[name]), name


def test_rows_that_were_changed_are_passed_over(ran: Path, tmp_path: Path) -> None:
    shutil.copytree(ran / "straight" / "drawn", tmp_path / "run")
    before, newest = checkpoint.paths(tmp_path / "run")[-2:]
    file = sorted(checkpoint.rows_of(newest).glob("*.safetensors"))[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SteadfaceError, match="damaged"):
        checkpoint.with_rows(checkpoint.load(newest), ALONE)
    assert checkpoint.load_newest(tmp_path / "run").path == before
