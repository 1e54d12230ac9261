"""How much of a similarity leaves the service: raw scores let whoever asks climb towards somebody enrolled."""

import re
from collections.abc import Callable, Mapping
from typing import Any, assert_never

from steadface.service.keys import Shows

SIMILARITIES = ("similarity", "agreement", "score")
"""Figures of an answer that come from embeddings; a detector's own score stays, see `_disclosed`."""
FIGURE = re.compile(r"-?\d\.\d+")


def disclosed(answer: Mapping[str, Any], shows: Shows) -> dict[str, Any]:
    """An answer of the recogniser as JSON, with what `shows` allows; who is below the threshold is nobody's name."""
    match shows:
        case "full":
            return dict(answer)
        case "rounded":
            return dict(_disclosed(answer, lambda value: None if value is None else round(value, 1)))
        case "decision":
            return dict(_disclosed(answer, None))
        case _:
            assert_never(shows)


def without_figures(text: str, shows: Shows) -> str:
    """A note or the words of an error, for those who may not see similarities."""
    return text if shows == "full" else FIGURE.sub("...", text)


def _disclosed(told: Any, rounded: Callable[[float | None], float | None] | None) -> Any:
    if isinstance(told, list | tuple):
        return [_disclosed(one, rounded) for one in told]
    if not isinstance(told, Mapping):
        return told
    found: dict[str, Any] = {}
    for name, value in told.items():
        if name == "candidates":
            matching = value[:1] if told.get("match") else []
            found[name] = _disclosed(matching, rounded)
        elif name == "notes":
            found[name] = [without_figures(note, "decision") for note in value]
        elif name in SIMILARITIES and not (name == "score" and "box" in told):
            if rounded is not None:
                found[name] = rounded(value)
        else:
            found[name] = _disclosed(value, rounded)
    return found
