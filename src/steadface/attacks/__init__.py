"""Attacks on embeddings: balls of perturbations, goals on cosines, and one attack a file."""

from steadface.attacks.apgd import APGD
from steadface.attacks.balls import L2, Ball, Linf, Norm, ball
from steadface.attacks.base import Attack
from steadface.attacks.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from steadface.attacks.cw import CarliniWagnerL2
from steadface.attacks.evolutionary import Evolutionary
from steadface.attacks.fgsm import FGSM
from steadface.attacks.fmn import FMN
from steadface.attacks.gaussian import GaussianNoise
from steadface.attacks.generator import GenerativeAttack, PerturbationNetwork
from steadface.attacks.goals import CosineScore, Score, dodge, dodge_or_impersonate, impersonate, template
from steadface.attacks.gradients import crafting, score_and_gradient
from steadface.attacks.hopskipjump import HopSkipJump
from steadface.attacks.mifgsm import MIFGSM
from steadface.attacks.minimum_norm import Bisection, Closest, minimum_distance
from steadface.attacks.nfgsm import NFGSM
from steadface.attacks.patch import Patch, Wear, paste
from steadface.attacks.pgd import PGD
from steadface.attacks.printing import printable_colours
from steadface.attacks.queries import Counted
from steadface.attacks.smoothed import Smoothed
from steadface.attacks.square import Square
from steadface.attacks.transfer import Ensemble, Transformed, Transforms, on_surrogates
from steadface.attacks.universal import FixedPerturbation, Universal

__all__ = [
    "APGD",
    "CORRUPTIONS",
    "FGSM",
    "FMN",
    "L2",
    "MIFGSM",
    "NFGSM",
    "PGD",
    "SEVERITIES",
    "Attack",
    "Ball",
    "Bisection",
    "CarliniWagnerL2",
    "Closest",
    "Corruption",
    "CosineScore",
    "Counted",
    "Ensemble",
    "Evolutionary",
    "FixedPerturbation",
    "GaussianNoise",
    "GenerativeAttack",
    "HopSkipJump",
    "Linf",
    "Norm",
    "Patch",
    "PerturbationNetwork",
    "Score",
    "Smoothed",
    "Square",
    "Transformed",
    "Transforms",
    "Universal",
    "Wear",
    "ball",
    "crafting",
    "dodge",
    "dodge_or_impersonate",
    "impersonate",
    "minimum_distance",
    "on_surrogates",
    "paste",
    "printable_colours",
    "score_and_gradient",
    "template",
]
