"""A wider network computes what the narrower one does, and its copies of a channel can part."""

from pathlib import Path

import pytest
import torch

from steadface.backbones import Architecture, Backbone, load_backbone, save_backbone
from steadface.backbones.widening import widened
from steadface.errors import InvalidInput, SteadfaceError, Unsupported
from steadface.recognizers import open_recognizer
from steadface.recognizers.contract import contract_of, read_contract, store_contract
from steadface.workflows.widen import widen


def network(name: str, width: float) -> Backbone:
    """Small, with statistics and slopes that differ from channel to channel."""
    blocks = (1, 1, 1, 0) if name == "mobilefacenet" else (1, 1, 1, 1)
    architecture = Architecture(name=name, width=width, blocks=blocks, embedding_size=8, image_size=(32, 16))
    generator = torch.Generator().manual_seed(0)
    made = architecture.build(generator).eval()
    for value in made.state_dict().values():
        if value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return made


@pytest.mark.parametrize(
    ("name", "width", "factor"),
    [("mobilefacenet", 0.125, 2), ("mobilefacenet", 0.125, 3), ("mobilefacenet", 1, 2), ("iresnet18", 0.125, 2)],
)
def test_the_embeddings_stay_and_the_copies_of_a_channel_part(name: str, width: float, factor: int) -> None:
    narrow = network(name, width)
    wide = widened(narrow, factor, torch.Generator().manual_seed(1))
    images = torch.rand((3, 3, 32, 16), generator=torch.Generator().manual_seed(2))
    expected = narrow(images).detach()
    # A sum over every layer's terms, each rounded anew.
    torch.testing.assert_close(wide(images), expected, rtol=0, atol=float(expected.abs().max()) * 1e-4)
    assert sum(map(torch.numel, wide.parameters())) > sum(map(torch.numel, narrow.parameters()))
    wide(images).square().sum().backward()
    first = next(value for value in wide.parameters() if value.ndim == 4)
    assert not torch.allclose(first.grad[0], first.grad[1], rtol=1e-3, atol=0)


def test_a_file_is_written_with_the_contract(tmp_path: Path) -> None:
    model, out = tmp_path / "narrow.safetensors", tmp_path / "wide.safetensors"
    save_backbone(model, network("mobilefacenet", 0.125), {})
    known = contract_of(open_recognizer(model), mirror=True)
    store_contract(model, known)
    widen(model, out)
    made = read_contract(out)
    assert made is not None
    assert (made.space, made.mirror) == (known.space, True)
    assert made.weights == open_recognizer(out).content != known.weights
    architecture = load_backbone(out).architecture
    assert isinstance(architecture, Architecture)
    assert architecture.options["width"] == 0.25


@pytest.mark.parametrize(
    ("factor", "name", "error"), [(1, "wide.safetensors", InvalidInput), (2, "wide.pt", InvalidInput)]
)
def test_what_cannot_be(tmp_path: Path, factor: int, name: str, error: type[SteadfaceError]) -> None:
    model = tmp_path / "narrow.safetensors"
    save_backbone(model, network("mobilefacenet", 0.125), {})
    with pytest.raises(error):
        widen(model, tmp_path / name, factor=factor)
    assert not (tmp_path / name).exists()


def test_layers_that_grow_by_no_whole_factor() -> None:
    with pytest.raises(Unsupported, match="no whole factor"):
        widened(network("mobilefacenet", 0.6), 2)  # 38 channels, of which 64 may be hidden
