"""`steadface export`: a recogniser as an ONNX file that other software takes."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from steadface.cli.console import console
from steadface.cli.options import ContractOption, JsonOption, OutputOption, given_pictures, print_json
from steadface.data.faces import read_image
from steadface.recognizers.embedder import Faces, stacked
from steadface.recognizers.export import PARITY, Exported, export_with_contract
from steadface.recognizers.under_contract import opened_under_contract

MOST_FACES = 512
"""Of a large folder so many are looked at, spread evenly over it."""


def export_model(
    model: Annotated[str, typer.Argument(help="A run folder, a file of weights, or module:function.")],
    out: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
    half: Annotated[bool, typer.Option("--half", help="Weights and arithmetic in float16: half the size.")] = False,
    images: Annotated[
        Path | None, typer.Option(help="Aligned faces to compare the embeddings on; patches of colour otherwise.")
    ] = None,
    output: OutputOption = None,
    contract: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a **model** as ONNX: raw RGB pixels (B, 3, H, W) in, raw embeddings (B, D) out, any B.

    The file opens in InsightFace as it is. It is written only if it embeds as the model does, and carries the model's
    contract, so that thresholds and galleries hold for both.
    """
    opened, known = opened_under_contract(model, output=output, file=contract)
    faces = None if images is None else _faces(images, opened.convention.size)
    exported = export_with_contract(opened, out, contract=known, half=half, faces=faces)
    if as_json:
        print_json(exported.to_json())
    else:
        _print(exported)


def _faces(images: Path, size: tuple[int, int]) -> Faces:
    files = given_pictures([images])
    chosen = np.linspace(0, len(files) - 1, min(len(files), MOST_FACES)).round().astype(int)
    return stacked([read_image(files[one]) for one in chosen], size)


def _print(exported: Exported) -> None:
    console.print(
        f"{exported.path}: {exported.size / 1e6:.1f} MB, {exported.dimension}-d; embeds like the model up "
        f"to {exported.parity:.1e}{' before halving' if exported.half else ''} (below {PARITY:g})",
        soft_wrap=True,
        highlight=False,
    )
    if exported.half:
        on = f"{exported.faces} faces" if exported.faces else "patches of colour; give --images for real ones"
        console.print(
            f"cosine of float16 to float32 embeddings: {exported.mean_cosine:.6f} on average, "
            f"{exported.least_cosine:.6f} at least, on {on}",
            soft_wrap=True,
            highlight=False,
        )
