"""`steadface fuse`: several recognisers as one."""

from pathlib import Path
from typing import Annotated

import typer

from steadface.cli.console import console
from steadface.workflows.fuse import fuse


def fuse_models(
    models: Annotated[list[str], typer.Argument(help="Run folders, files of weights, ONNX files or module:function.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
) -> None:
    """Write several **models** as one, whose cosine is the mean of theirs.

    The file takes raw RGB pixels (B, 3, H, W) and gives all embeddings, one behind the other. It needs a calibration of
    its own (`steadface calibrate`), and faces have to be enrolled anew.
    """
    written = fuse(models, out)
    console.print(
        f"{out}: {written.size / 1e6:.1f} MB, {written.dimension}-d; embeds like the {len(models)} models up to "
        f"{written.parity:.1e}",
        soft_wrap=True,
        highlight=False,
    )
