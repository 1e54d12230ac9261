import math

import pytest

from steadface.report.arm import Rate
from steadface.report.text import (
    count,
    decimal,
    interval,
    listing,
    minutes,
    percent,
    points,
    points_interval,
    power,
    radius,
    with_interval,
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (percent(0.1234), "12.3"),
        (percent(0.0), "0.0"),
        (percent(0.0002), "<0.1"),
        (percent(1.0), "100.0"),
        (percent(math.nan), "\N{EN DASH}"),
        (power(1e-3), "10⁻³"),
        (power(1.0), "1"),
        (power(0.003), "0.003"),
        (power(0.0), "\N{EN DASH}"),
        (radius(4 / 255, "linf"), "4/255"),
        (radius(0.5 / 255, "linf"), "0.5/255"),
        (radius(2.0, "l2"), "2"),
        (radius(0.01, "linf"), "0.01"),
        (decimal(-0.5, 1), "\N{MINUS SIGN}0.5"),
        (decimal(None), "\N{EN DASH}"),
        (minutes(90.0), "1.5"),
        (count(12345), "12,345"),
        (interval(Rate(rate=0.2, low=0.1, high=0.3)), "10.0\N{EN DASH}30.0"),
        (interval(Rate(rate=0.2)), ""),
        (with_interval(14.0, 9.6, 23.2, digits=0), "14 (10 to 23)"),
        (with_interval(21.0, 6.0, 46.0, unit=" %"), "21.0 % (6.0 to 46.0)"),
        (with_interval(3.0, -1.0, 7.0, signed=True), "+3.0 (-1.0 to +7.0)"),
        (points(-0.031), "\N{MINUS SIGN}3.1"),
        (points(0.031, 2, signed=False), "3.10"),
        (points_interval(Rate(rate=0.0, low=-0.1, high=0.1)), "\N{MINUS SIGN}10.0 to +10.0"),
        (points_interval(Rate(rate=0.2)), ""),
        (listing(["a", "b", "c"]), "a, b and c"),
        (listing([]), ""),
    ],
)
def test_written(written, expected):
    assert written == expected
