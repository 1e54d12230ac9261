"""The attacks without gradients in the table of ``test_table.py``."""

from dataclasses import dataclass

from steadface.attacks.square import Square

from .table import Case


@dataclass(frozen=True, kw_only=True)
class Deciding(Case):
    """An attack that is told whether it succeeded, no more: it owes something only where the score has an end."""

    drops: bool = False
    best: bool = False


BLACK_BOX = (Case(name="Square", make=lambda ball: Square(ball=ball, queries=60)),)
