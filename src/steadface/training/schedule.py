"""The learning rate as a pure function of how far a run has come."""

import math

from steadface.training.sections import Optimiser


def learning_rate(progress: float, options: Optimiser) -> float:
    """The rate at ``progress`` in ``[0, 1]``: linear warm-up, then cosine, polynomial or no decay to ``final``."""
    if progress < options.warmup:
        # Never zero: the first step of a run should move the weights.
        return options.rate * max(progress / options.warmup, 0.01)
    left = 1 - min(1.0, (progress - options.warmup) / max(1 - options.warmup, 1e-12))
    if options.decay == "cosine":
        shape = (1 - math.cos(math.pi * left)) / 2
    elif options.decay == "polynomial":
        shape = left**options.power
    else:
        shape = 1.0
    return options.rate * (options.final + (1 - options.final) * shape)
