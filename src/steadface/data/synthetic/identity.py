"""Who somebody is: the parameters that stay the same in all images of one person."""

from collections.abc import Sequence
from dataclasses import dataclass

from steadface.data.synthetic.look import Glasses, Hair, Skin
from steadface.data.synthetic.parameters import Draws, Table, uniform_rows
from steadface.data.synthetic.shape import Build, Eyes, Head, Mouth, Nose

_PARAMETERS = 160
"""Columns drawn per person, the last of them spare."""


@dataclass(frozen=True, kw_only=True)
class Identity(Table):
    """All parameters of N people (or of the people in N images)."""

    head: Head
    eyes: Eyes
    nose: Nose
    mouth: Mouth
    skin: Skin
    hair: Hair
    glasses: Glasses


def draw_identities(seed: int, people: Sequence[int]) -> Identity:
    """The parameters of the people with these numbers; each depends on the seed and the own number only."""
    draws = Draws(uniform_rows(seed, 0, people, (_PARAMETERS,)))
    build = Build.draw(draws)
    return Identity(
        head=Head.draw(draws, build),
        eyes=Eyes.draw(draws, build),
        nose=Nose.draw(draws, build),
        mouth=Mouth.draw(draws, build),
        skin=Skin.draw(draws, build),
        hair=Hair.draw(draws, build),
        glasses=Glasses.draw(draws),
    )
