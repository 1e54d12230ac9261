"""A look at the held-out people while a run goes on: clean verification, and a short attack."""

from steadface.attacks import PGD, ball
from steadface.backbones import Backbone
from steadface.data.faces import FaceSource
from steadface.evaluation.labelled import ValidationMetrics, validation_metrics
from steadface.evaluation.robustness import AttackPlan
from steadface.training.recipe import Recipe

STEPS = 10


def validate(recipe: Recipe, backbone: Backbone, faces: FaceSource) -> ValidationMetrics:
    """The figures of ``backbone`` on ``faces``, under PGD inside the largest ball of ``recipe.evaluation``.

    Its randomness is its own, so that validating more often does not change what is trained. Raises SteadfaceError
    where the faces are too few for ``evaluation.fmr``.
    """
    options = recipe.evaluation
    around = ball(options.norm, max(options.eps))
    return validation_metrics(
        backbone,
        faces,
        fmr=options.fmr,
        attack=AttackPlan(attacks={"pgd": PGD(ball=around, steps=STEPS)}, balls=[around], examples=0),
        attacked_pairs=options.max_pairs,
        seed=recipe.run.seed,
    )
