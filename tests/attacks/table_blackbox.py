"""The attacks without gradients in the table of ``test_table.py``."""

from dataclasses import dataclass

from steadface.attacks.evolutionary import Evolutionary
from steadface.attacks.hopskipjump import HopSkipJump
from steadface.attacks.square import Square

from .table import Case


@dataclass(frozen=True, kw_only=True)
class Deciding(Case):
    """An attack that is told whether it succeeded, no more: it owes something only where the score has an end."""

    drops: bool = False
    best: bool = False


BLACK_BOX = (
    Case(name="Square", make=lambda ball: Square(ball=ball, queries=60)),
    Deciding(name="HopSkipJump", make=lambda ball: HopSkipJump(ball=ball, queries=100, probes=20)),
    Deciding(name="Evolutionary", make=lambda ball: Evolutionary(ball=ball, queries=80, grid=16), radius=(0.08, 3.0)),
)
