"""How figures are written: percentages, intervals, budgets, false-match rates. Plain text, not yet HTML."""

import math
from collections.abc import Sequence

from steadface.report.arm import Rate

SPACE, DASH, MINUS = "\N{NO-BREAK SPACE}", "\N{EN DASH}", "\N{MINUS SIGN}"
NONE = DASH
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(value: float, digits: int = 1) -> str:
    """0.1234 -> `12.3`, without the sign, for columns headed with it; what rounds to 0 but is not: `<0.1`."""
    if not math.isfinite(value):
        return NONE
    smallest = 10.0**-digits
    return f"<{smallest:.{digits}f}" if 0 < 100 * value < smallest / 2 else f"{100 * value:.{digits}f}"


def share(value: float, digits: int = 1) -> str:
    """0.1234 -> `12.3 %`, for running text."""
    return f"{percent(value, digits)}{SPACE}%"


def interval(rate: Rate, digits: int = 1) -> str:
    """`10.1–14.9` in per cent, empty where it is not known."""
    if not math.isfinite(rate.low + rate.high):
        return ""
    return f"{100 * rate.low:.{digits}f}{DASH}{100 * rate.high:.{digits}f}"


def with_interval(
    value: float, low: float, high: float, *, digits: int = 1, signed: bool = False, unit: str = ""
) -> str:
    """`12.3 (10.1 to 14.9)`, in the unit that the numbers are in; `signed` ones with their sign."""
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{value:{form}}{unit} ({low:{form}} to {high:{form}})"


def points(value: float, digits: int = 1, *, signed: bool = True) -> str:
    """A difference of rates in percentage points with a true minus sign, -0.031 -> `−3.1`, +0.031 -> `+3.1`."""
    return NONE if not math.isfinite(value) else f"{100 * value:{'+' if signed else ''}.{digits}f}".replace("-", MINUS)


def points_interval(rate: Rate, digits: int = 1, *, signed: bool = True) -> str:
    """`−8.2 to +2.0`, empty where it is not known."""
    if not math.isfinite(rate.low + rate.high):
        return ""
    return f"{points(rate.low, digits, signed=signed)} to {points(rate.high, digits, signed=signed)}"


def decimal(value: float | None, digits: int = 3) -> str:
    """A plain number with a true minus sign."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.{digits}f}".replace("-", MINUS)


def count(value: float | None) -> str:
    """12345 -> `12,345`."""
    return NONE if value is None or not math.isfinite(value) else f"{int(value):,}"


def minutes(seconds: float | None) -> str:
    """Seconds as minutes with one decimal."""
    return decimal(None if seconds is None else seconds / 60, 1)


def power(value: float) -> str:
    """A false-match rate: `10⁻³` for a power of ten, else two significant digits."""
    if not math.isfinite(value) or value <= 0:
        return NONE
    exponent = round(math.log10(value))
    if math.isclose(value, 10.0**exponent, rel_tol=1e-6):
        return "10" + str(exponent).translate(_SUPERSCRIPT) if exponent else "1"
    return f"{value:.2g}"


def radius(eps: float, norm: str) -> str:
    """`4/255` for linf radii, which people think of in pixel values; a plain number for other norms."""
    if not math.isfinite(eps):
        return NONE
    pixels = eps * 255
    if norm == "linf" and math.isclose(pixels, round(pixels, 1), abs_tol=1e-3):
        return f"{round(pixels, 1):g}/255"
    return f"{eps:.4g}"


def listing(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
