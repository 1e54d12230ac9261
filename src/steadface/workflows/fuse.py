"""Several recognisers made one: `steadface fuse`."""

from collections.abc import Sequence
from dataclasses import replace

from steadface.arguments import AnyPath, as_path
from steadface.recognizers.contract import contract_of
from steadface.recognizers.export import Exported, export_with_contract
from steadface.recognizers.fusion import fused
from steadface.recognizers.under_contract import opened_under_contract


def fuse(models: Sequence[AnyPath], out: AnyPath) -> Exported:
    """Writes recognisers that open with gradients as one ONNX file, `out`, whose cosine is the mean of theirs; raw RGB
    pixels (B, 3, H, W) in, embeddings (B, D_1 + ... + D_n) out, any B. Its contract has no thresholds, and sums mirror
    images where all of theirs do.

    Raises SteadfaceError as `recognizers.fusion.fused` and `recognizers.export.export_onnx` do.
    """
    out = as_path(out, "out")
    opened = [opened_under_contract(as_path(model, "a model")) for model in models]
    whole = fused([one for one, _ in opened])
    notes = tuple(dict.fromkeys(note for _, contract in opened for note in contract.notes))
    mirror = all(contract.mirror for _, contract in opened)
    contract = replace(contract_of(whole, mirror=mirror), name=out.stem, notes=notes)
    return export_with_contract(whole, out, contract=contract)
