"""`steadface widen`: a recogniser with room to learn more."""

from pathlib import Path
from typing import Annotated

import typer

from steadface.cli.console import console
from steadface.workflows.widen import widen


def widen_model(
    model: Annotated[Path, typer.Argument(help="A run folder, or weights of a MobileFaceNet or IResNet.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    factor: Annotated[int, typer.Option(min=2, max=64, help="How many times as wide.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of what tells copies of a channel apart.")] = 0,
) -> None:
    """Write a **wider** network that embeds as the given one does (Net2Net), to go on from.

    Thresholds, templates and galleries hold for both. `steadface harden` and `model.start` of a recipe take it.
    """
    made = widen(model, out, factor=factor, seed=seed)
    weights = sum(value.numel() for value in made.network.parameters())
    console.print(f"{out}: {weights:,} weights, embeds like {model}", soft_wrap=True, highlight=False)
