"""The published networks are recognised by their keys and shapes alone, whole or without the counters of batches."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from steadface.backbones import Architecture, load_backbone
from steadface.backbones.iresnet import PUBLISHED
from steadface.backbones.layouts import LAYOUTS
from steadface.backbones.parts import parts_of
from steadface.errors import SteadfaceError


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("name", ["mobilefacenet", *PUBLISHED])
def test_published_networks_are_recognised(name: str, counters: bool) -> None:
    published = Architecture(name=name, embedding_size=512)
    state = published.skeleton().state_dict()
    kept = {f"module.{key}": value for key, value in state.items() if counters or "num_batches_tracked" not in key}
    (part,) = parts_of({"epoch": 3, "state_dict_backbone": kept, "state_dict_softmax_fc": {"weight": torch.ones(2)}})
    assert part.name == "state_dict_backbone"
    assert part.others == {}
    assert Architecture.model_validate(part.layout.fields(part.state, None)) == published


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.title)
def test_no_layout_is_taken_for_another(layout) -> None:  # type: ignore[no-untyped-def]
    state = {f"net.{key}": torch.ones(1) for key in layout.typical}
    assert [one.title for one in LAYOUTS if one.prefixes(state)] == [layout.title]
    assert layout.prefixes(state) == ["net."]
    assert layout.missing(state, "net.") == []


def test_most_of_the_typical_keys_make_a_layout() -> None:
    for layout in LAYOUTS:
        half = len(layout.typical) // 2
        assert layout.prefixes(dict.fromkeys(layout.typical[:half], torch.ones(1))) == []
        assert layout.prefixes(dict.fromkeys(layout.typical[: half + 1], torch.ones(1))) == [""]


class Unit(nn.Module):
    """Of an IR network: AdaFace's where there is a BatchNorm `between` the first convolution and the PReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, between: bool) -> None:
        super().__init__()
        wider = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut_layer = nn.MaxPool2d(1, stride) if inputs == outputs else wider
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            *([nn.BatchNorm2d(outputs)] if between else []),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)  # type: ignore[no-any-return]


def ir(*, between: bool, depths: tuple[int, ...] = (2, 2, 2, 2), stem: int = 4) -> nn.Sequential:
    """An IR network of 32 x 32 images as those who publish them build it, with statistics like a trained one's."""
    torch.manual_seed(0)
    widths = [stem, *(stem * 2**stage for stage in range(4))]
    units = [
        Unit(widths[stage] if number == 0 else widths[stage + 1], widths[stage + 1], 1 + (number == 0), between=between)
        for stage, depth in enumerate(depths)
        for number in range(depth)
    ]
    network = nn.Sequential(
        OrderedDict(
            input_layer=nn.Sequential(nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.PReLU(stem)),
            body=nn.Sequential(*units),
            output_layer=nn.Sequential(
                nn.BatchNorm2d(8 * stem),
                nn.Dropout(0.4),
                nn.Flatten(),
                nn.Linear(8 * stem * 4, 16),
                nn.BatchNorm1d(16, affine=not between),
            ),
        )
    )
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.3)
    return network.eval()


@pytest.mark.parametrize("between", [True, False], ids=["AdaFace's", "face.evoLVe's"])
def test_ir_networks_become_iresnets_that_compute_the_same(between: bool, tmp_path: Path) -> None:
    theirs = ir(between=between)
    state = {f"model.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"epoch": 26, "state_dict": {**state, "head.kernel": torch.ones(16, 9)}}, tmp_path / "theirs.ckpt")
    ours = load_backbone(tmp_path / "theirs.ckpt")
    assert (ours.architecture.name, ours.image_size) == ("iresnet18", (32, 32))
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs((images - 0.5) / 0.5)
        torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert any("head.kernel" in note for note in ours.notes)
    assert any("--channel-order" in note for note in ours.notes)


def test_depth_of_an_ir_network_is_where_its_channels_become_more() -> None:
    for depths in ((3, 4, 14, 3), (3, 13, 30, 3)):
        (part,) = parts_of(dict(ir(between=True, depths=depths, stem=2).state_dict()))
        assert part.layout.fields(part.state, None)["blocks"] == depths


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"body.0.res_layer.se_block.fc1.weight": torch.ones(1, 4, 1, 1)}, "squeeze and excitation"),
        ({"body.0.res_layer.5.fc1.weight": torch.ones(1, 4, 1, 1)}, "squeeze and excitation"),
        ({"body.0.res_layer.8.weight": torch.ones(4)}, "three convolutions"),
        ({"body.0.res_layer.1.weight": torch.ones(4)}, r"layer1.0.conv1.weight \(4,\) instead of"),
        ({"body.7.res_layer.0.surprise": torch.ones(4)}, "layer4.1.bn1.surprise"),
        ({"output_layer.3.weight": torch.ones(())}, r"fc.weight \(\)"),
    ],
)
def test_ir_networks_that_are_not_built_are_refused_in_words(
    more: dict[str, Tensor], words: str, tmp_path: Path
) -> None:
    torch.save({**ir(between=True).state_dict(), **more}, tmp_path / "theirs.pth")
    with pytest.raises(SteadfaceError, match=words):
        load_backbone(tmp_path / "theirs.pth")
