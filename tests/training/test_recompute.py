"""Less is kept, and the gradients are the same."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from steadface.backbones import Architecture
from steadface.errors import SteadfaceError
from steadface.training.batchnorm import BatchNormPasses, Mode
from steadface.training.networks import Network, load_network
from steadface.training.recompute import recomputing

from ..cli.test_harden_onnx import foreign


def ours(_: Path) -> Network:
    architecture = Architecture(name="iresnet18", width=0.0625, image_size=32, embedding_size=16)
    return architecture.build(torch.Generator().manual_seed(0)).eval()


def theirs(folder: Path) -> Network:
    return load_network(foreign(folder / "theirs.onnx"))


def kept(network: nn.Module, images: Tensor) -> tuple[int, list[Tensor]]:
    """The numbers kept for the way back outside of what is computed anew, and the gradients."""
    numbers = 0

    def pack(value: Tensor) -> Tensor:
        nonlocal numbers
        numbers += value.numel()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        loss = network(images).square().sum()
    weights = [one for one in network.parameters() if one.requires_grad]
    return numbers, list(torch.autograd.grad(loss, weights))


@pytest.mark.parametrize("make", [ours, theirs])
def test_less_is_kept_and_the_gradients_are_the_same(make: Callable[[Path], Network], tmp_path: Path) -> None:
    network = make(tmp_path)
    images = torch.rand(4, 3, *network.image_size, generator=torch.Generator().manual_seed(1))
    before, expected = kept(network, images)
    recomputing(network)
    after, found = kept(network, images)
    assert after < before / 2
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_what_has_no_blocks_is_told_so() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))
    with pytest.raises(SteadfaceError, match="leave it off"):
        recomputing(flat)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["clean", "separate"])
def test_what_passes_leave_behind_is_the_same(mode: Mode) -> None:
    """The modes of BatchNorms are those of each pass, also once it is over, and no batch counts twice."""
    states = []
    for again in (False, True):
        network = ours(Path()).train()
        if again:
            recomputing(network)
        passes = BatchNormPasses(network, mode)
        images = torch.rand(4, 3, *network.image_size, generator=torch.Generator().manual_seed(1))
        with passes.clean():
            clean = network(images)
        with passes.adversarial():
            adversarial = network(1 - images)
        (clean.square().sum() + adversarial.sum()).backward()
        gradients = [one.grad for one in network.parameters() if one.grad is not None]
        states.append([*gradients, *network.state_dict().values(), *passes.state_dict().values()])
    for one, other in zip(*states, strict=True):
        assert torch.equal(one, other)
