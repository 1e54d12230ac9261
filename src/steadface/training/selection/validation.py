"""A look at the held-out people while a run goes on: clean verification, and a short attack."""

from typing import cast

from steadface.attacks import PGD, ball
from steadface.backbones import Backbone
from steadface.backbones.frozen import frozen
from steadface.data.faces import FaceSource
from steadface.evaluation.labelled import ValidationMetrics, validation_metrics
from steadface.evaluation.robustness import AttackPlan
from steadface.training.recipe import Recipe

STEPS = 10
CHOOSING = 3000
"""Genuine pairs at most where a moment is chosen by them: a change of half a point should not be a single pair."""


def validate(recipe: Recipe, backbone: Backbone, faces: FaceSource) -> ValidationMetrics:
    """The figures of `backbone` on `faces`, under PGD as `recipe.evaluation` has its radii.

    Its randomness is its own, so that validating more often does not change what is trained. Raises InvalidInput
    where the faces are too few for `evaluation.fmr`.
    """
    options = recipe.evaluation
    # A choice by these figures compares radii; for a look the largest is enough.
    radii = options.eps if recipe.run.select is not None else (max(options.eps),)
    balls = [ball(options.norm, eps) for eps in radii]
    return validation_metrics(
        cast(Backbone, frozen(backbone)),
        faces,
        fmr=options.fmr,
        attack=AttackPlan(attacks={"pgd": PGD(ball=balls[0], steps=STEPS)}, balls=balls, examples=0),
        max_pairs=CHOOSING if recipe.run.select is not None else 300,
        attacked_pairs=options.max_pairs,
        compared=recipe.run.select is not None,
        seed=recipe.run.seed,
    )
