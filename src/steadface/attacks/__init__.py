"""Attacks on embeddings: balls of perturbations, goals on cosines, and one attack a file."""

from steadface.attacks.balls import L2, Ball, Linf, Norm, ball
from steadface.attacks.base import Attack
from steadface.attacks.generator import GenerativeAttack, PerturbationNetwork
from steadface.attacks.goals import CosineScore, Score, dodge, dodge_or_impersonate, impersonate
from steadface.attacks.gradients import crafting, score_and_gradient
from steadface.attacks.nfgsm import NFGSM
from steadface.attacks.pgd import PGD

__all__ = [
    "L2",
    "NFGSM",
    "PGD",
    "Attack",
    "Ball",
    "CosineScore",
    "GenerativeAttack",
    "Linf",
    "Norm",
    "PerturbationNetwork",
    "Score",
    "ball",
    "crafting",
    "dodge",
    "dodge_or_impersonate",
    "impersonate",
    "score_and_gradient",
]
