"""The published networks are recognised by their keys and shapes alone, whole or without the counters of batches."""

import pytest
import torch

from steadface.backbones import Architecture
from steadface.backbones.layouts import LAYOUTS
from steadface.backbones.parts import parts_of


@pytest.mark.parametrize("counters", [True, False])
@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18", "iresnet34", "iresnet50", "iresnet100", "iresnet200"])
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
