"""What a run lets compete at its end, besides the moments that it has looked at.

    w(share) = w(first) + share (w(T) - w(first))          share = 1, 1 - 1/(n+1), ..., 1/(n+1)

(Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, equation 1), from the last moment downwards;
where the recipe says so after within-class covariance normalisation (`training/within_class.py`). `w(first)` is the
start in the form in which it is trained on. Rounding the corners of its activations costs it accuracy: it is first led
back to the embeddings of the recogniser as it came, by clean training alone, or the line would lead away from good
models. Led back, it is a candidate itself.
"""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from steadface.backbones import Backbone
from steadface.errors import InvalidInput
from steadface.signals import StopRequest
from steadface.training.assembly.faces import Faces, make_loader
from steadface.training.assembly.trainer import assemble, load_start
from steadface.training.averaging import between
from steadface.training.compute import Compute
from steadface.training.networks import Network, file_for, kept_file, load_network, save_network
from steadface.training.recipe import Recipe
from steadface.training.recipe.method import GateOptions
from steadface.training.recipe.sections import HeadOptions
from steadface.training.schedule import learning_rate
from steadface.training.selection.candidates import RECOVERED
from steadface.training.selection.rules import Kind
from steadface.training.step import NonFiniteLoss
from steadface.training.within_class import normalise_within

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Competitor:
    """Weights to be made and looked at."""

    name: str
    kind: Kind
    share: float
    make: Callable[[], Network]


def competitors(
    recipe: Recipe, faces: Faces, start: Path, recovered: Path | None, last: dict[str, Tensor], device: torch.device
) -> list[Competitor]:
    """Of a run from the weights `start` to the state `last`; `recovered` is what `recover` wrote, if it did."""
    options = recipe.run.select
    assert options is not None

    @cache
    def first() -> Network:
        return (load_start(recipe, start) if recovered is None else load_network(recovered, recipe.model.code)).to(
            device
        )

    def at(share: float) -> Network:
        network = between(first(), last, share)
        if options.within and isinstance(network, Backbone):
            normalise_within(network, faces.training, options.within)
        return network

    places = [1 - part / (options.interpolate + 1) for part in range(options.interpolate + 1)]
    line = [
        Competitor(name=_place(share, options.within), kind="line", share=share, make=partial(at, share))
        for share in (places if options.within else places[1:])
    ]
    if recovered is not None:
        line.append(Competitor(name="start, recovered", kind="recovered", share=0.0, make=first))
    return line


def _place(share: float, within: float) -> str:
    return f"{100 * share:.0f} % of the way" + (", normalised" if within else "")


def recover(
    recipe: Recipe,
    faces: Faces,
    start: Path,
    reference: Path | None,
    compute: Compute,
    out: Path,
    steps: int,
    stop: StopRequest,
) -> Path | None:
    """Writes the start of `recipe` into the folder `out`, rounded and led back by so many `steps` of clean training.

    None where stopped before. Every image is its own class against the recogniser as it came. What is there is kept.
    """
    if (kept := kept_file(out, RECOVERED)) is not None:
        return kept
    method = recipe.method.model_copy(update={"gate": GateOptions(kind="never"), "source": 1.0})
    clean = recipe.model_copy(update={"method": method, "head": HeadOptions(kind="none")})
    parts = assemble(clean, faces, compute, fresh=True, start=start, reference=reference)
    logger.info("the start recovers from the rounding of its corners: %d steps of clean training", steps)
    with closing(make_loader(clean, faces.training, compute.device).batches(0)) as batches:
        for step in range(steps):
            if stop:
                return None
            for group in parts.trainer.optimizer.param_groups:
                group["lr"] = learning_rate(step / steps, clean.optimizer)
            try:
                parts.trainer.step(next(batches))
            except NonFiniteLoss as error:
                raise InvalidInput(
                    f"step {step + 1} of recovering from the rounding of corners: {error}. Set run.select.recover to "
                    "0, lower optimizer.rate, or use precision fp32, in a new run"
                ) from error
            if parts.average is not None:
                parts.average.update()
    with parts.averaged():
        file = file_for(out, RECOVERED, parts.backbone)
        save_network(file, parts.backbone, {})
    return file
