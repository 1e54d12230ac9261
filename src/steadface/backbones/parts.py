"""The networks that a file of tensors holds, whatever they are wrapped in: nested dicts, and prefixes of the keys."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from steadface.backbones.filekinds import shown
from steadface.backbones.layouts import LAYOUTS, OTHERS, Layout
from steadface.errors import InvalidInput, Unsupported

# What DistributedDataParallel, torch.compile, FSDP and activation checkpointing put into names, wherever they wrap.
_WRAPPERS = re.compile(r"(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

_DEEP, _MANY = 4, 1000
"""How far down, and how many dicts and lists, a file is looked through; the optimiser's are the last."""
MOST_NETWORKS = 32
"""In a file; each is built, without numbers, to see whether it fits."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One network of a file. `state` has our key names; `others` are the tensors beside it that are no part of it.

    `name` is where it was found, as in `state_dict.ema_model`; empty at the top without a prefix.
    """

    name: str
    layout: Layout
    state: dict[str, Tensor]
    others: dict[str, Tensor]

    def same(self, other: "Part") -> bool:
        """Whether it is the very same network."""
        mine, theirs = self.state, other.state
        return mine.keys() == theirs.keys() and all(
            mine[key].dtype == theirs[key].dtype
            and not (mine[key].is_meta or theirs[key].is_meta)
            and torch.equal(mine[key], theirs[key])
            for key in mine
        )


def parts_of(content: Any) -> list[Part]:
    """All that looks like a network of a known layout in what a file holds, complete or not.

    Raises InvalidInput for more than `MOST_NETWORKS`.
    """
    found = (part for place, state in _states(content) for part in _in_state(place, state))
    parts = list(islice(found, MOST_NETWORKS + 1))
    if len(parts) > MOST_NETWORKS:
        raise InvalidInput(f"holds more than {MOST_NETWORKS} networks; save the one that you want by itself")
    return parts


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what wrappers put into the names, unless two tensors would then share one."""
    bare = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    return bare if len(bare) == len(state) else dict(state)


def nothing_fits(content: Any) -> Unsupported:
    """What is in a file that holds no known network, which layout comes nearest and what that lacks."""
    known = ", ".join(layout.title for layout in LAYOUTS)
    return Unsupported(
        f"holds no network of a known layout, but {_listed(content)}.{_nearest(content)} Known are {known} and files "
        "written by this package. For another network give code that makes it and loads this file, as "
        "path/to/file.py:function, or its export to ONNX"
    )


def some(tensors: Mapping[str, Tensor]) -> str:
    """The first few names and shapes."""
    names = [f"{shown(key)} {tuple(value.shape)}" for key, value in list(tensors.items())[:3]]
    return ", ".join(names) + (f", ... ({len(tensors)} tensors)" if len(tensors) > 3 else "")


def _states(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(where, its tensors) of every dict with tensors, the outermost first."""
    # A pickle can hold a dict inside itself, so what was seen is not seen again.
    waiting, seen = [("", content, 0)] if isinstance(content, dict | list | tuple) else [], {id(content)}
    for place, one, depth in waiting:
        items = one.items() if isinstance(one, dict) else enumerate(one[:16])
        if isinstance(one, dict) and (state := _tensors(one)):
            yield place, state
        for key, inner in items:
            fresh = isinstance(inner, dict | list | tuple) and id(inner) not in seen
            if fresh and depth < _DEEP and len(waiting) < _MANY:
                seen.add(id(inner))
                waiting.append((f"{place}.{key}".strip("."), inner, depth + 1))


def _tensors(one: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(key): value for key, value in one.items() if isinstance(value, Tensor)}


def _in_state(place: str, state: dict[str, Tensor]) -> Iterator[Part]:
    state = unwrapped(state)
    for layout in LAYOUTS:
        for prefix in layout.prefixes(state):
            own = {key: value for key, value in state.items() if _belongs(key, prefix, layout)}
            yield Part(
                name=f"{place}.{prefix}".strip("."),
                layout=layout,
                state=layout.converted({key.removeprefix(prefix): value for key, value in own.items()}),
                others={key: value for key, value in state.items() if key not in own},
            )


def _belongs(key: str, prefix: str, layout: Layout) -> bool:
    return key.startswith(prefix) and key.removeprefix(prefix).partition(".")[0] in layout.parts


def _listed(content: Any) -> str:
    if isinstance(content, dict) and len(tensors := _tensors(content)) == len(content) and tensors:
        return some(tensors)
    if isinstance(content, dict) and content:
        shortly = [f"{shown(str(key))} ({_shortly(value)})" for key, value in list(content.items())[:6]]
        return ", ".join(shortly) + (f" and {len(content) - 6} more" if len(content) > 6 else "")
    return _shortly(content)


def _shortly(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, dict) and (tensors := _tensors(value)):
        return some(tensors)
    if isinstance(value, dict | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def _nearest(content: Any) -> str:
    best, words = 1, ""
    for _, state in _states(content):
        state = unwrapped(state)
        for end, title in OTHERS.items():
            if any(f".{key}".endswith(f".{end}") for key in state):
                return f" It looks like {title}, which is not built here."
        for layout in LAYOUTS:
            prefix, count = layout.likeliest(state)[0]
            if count > best:
                best = count
                under = f" under {shown(prefix)}" if prefix else ""
                words = f" Nearest is {layout.title}{under}, without {', '.join(layout.missing(state, prefix)[:4])}."
    return words
