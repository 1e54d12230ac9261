"""A recogniser made wider, so that it has room to learn more: `steadface widen`."""

from dataclasses import replace

import torch

from steadface.arguments import AnyPath, as_path, count
from steadface.arguments import seed as checked_seed
from steadface.backbones import Backbone, save_backbone
from steadface.backbones.frozen import PARITY
from steadface.backbones.soundness import noise_for
from steadface.backbones.widening import widened
from steadface.errors import InvalidInput, Unsupported
from steadface.recognizers.contract import store_contract
from steadface.recognizers.network import OpenedRecognizer
from steadface.recognizers.opening import open_recognizer
from steadface.recognizers.under_contract import opened_under_contract


def widen(model: AnyPath, out: AnyPath, *, factor: int = 2, seed: int = 0) -> OpenedRecognizer:
    """Writes weights of a network `factor` times as wide as that of `model`, which embed as it does, to `out`, a
    .safetensors file, with its contract: thresholds, templates and galleries hold for both.

    Raises SteadfaceError for what is no MobileFaceNet or IResNet of RGB images, for a path of another kind, and where
    the two do not embed alike.
    """
    out = as_path(out, "out")
    if out.suffix != ".safetensors" or out.is_dir():
        raise InvalidInput(f"{out} is no name for weights; give one that ends in .safetensors")
    opened, contract = opened_under_contract(as_path(model, "the model"))
    narrow = opened.network
    if not isinstance(narrow, Backbone):
        raise Unsupported(f"{opened.name} cannot be widened: give weights of a MobileFaceNet or IResNet of RGB images")
    generator = torch.Generator().manual_seed(checked_seed(seed))
    wide, noise = widened(narrow.eval(), count("factor", factor, least=2), generator), noise_for(narrow)
    with torch.inference_mode():
        one, other = (torch.nn.functional.normalize(network(noise)) for network in (narrow, wide))
    if not (one - other).abs().max() <= PARITY:
        raise Unsupported(f"{opened.name} does not embed alike once it is {factor} times as wide; nothing was written")
    save_backbone(out, wide, {})
    again = open_recognizer(out)
    assert again.content is not None
    store_contract(out, replace(contract, weights=again.content))
    return again
