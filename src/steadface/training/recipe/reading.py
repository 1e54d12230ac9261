"""How YAML is read that somebody else may have written: as plain values, of which a few bytes cannot make many.

An alias stands for as many values as what it repeats (`*a` ten times in `b`, `*b` ten times in `c`, ...: "billion
laughs"), and so does a merge key; all of them are counted while the file is read, before any is made.
"""

import os
from typing import Any

import yaml

from steadface.files import read_file

MOST_BYTES = 1 << 20
"""Of a recipe; the longest that ship have 3,000."""
MOST_VALUES = 10_000
"""Keys, values, lists and mappings, those that an alias repeats counted again; a recipe with every key has 250."""
MOST_DEPTH = 32
"""Of lists and mappings in one another; a recipe has five."""
MOST_DIGITS = 100
"""Characters of a number or a date."""

NUMBERS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))


class UnfitYaml(yaml.YAMLError):
    """No YAML, or more of it than is read; the message says which."""


def read_yaml(path: str | os.PathLike[str], *, most: int = MOST_BYTES, values: int = MOST_VALUES) -> Any:
    """What a YAML file holds, of at most that many bytes and values. Raises OSError and UnfitYaml."""
    return parse_yaml(read_file(path, most=most), values=values)


def parse_yaml(text: str | bytes, *, values: int = MOST_VALUES) -> Any:
    """What a YAML text holds. Raises UnfitYaml."""
    try:
        loader = _Bounded(text.decode("utf-8") if isinstance(text, bytes) else text, values)
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise UnfitYaml(str(error)) from None
    # What a tag promises and its value does not keep ends in whatever the constructor stumbled on.
    except Exception as error:
        raise UnfitYaml(f"{type(error).__name__}: {error}") from None


class _Bounded(yaml.SafeLoader):
    def __init__(self, text: str, values: int) -> None:
        super().__init__(text)
        self._values, self._most, self._depth = 0, values, 0
        self._of_anchor: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.NodeEvent = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._of_anchor:
                raise UnfitYaml(f"*{event.anchor} stands inside what it repeats; write the values out")
            self._count(self._of_anchor.get(str(event.anchor), 0))
            return super().compose_node(parent, index)
        before = self._values
        self._count(1)
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise UnfitYaml(f"lists and mappings lie more than {MOST_DEPTH} deep in one another; write it flatter")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode) and node.tag in NUMBERS and len(node.value) > MOST_DIGITS:
            raise UnfitYaml(f"a number of {len(node.value):,} characters, of at most {MOST_DIGITS}; write it shorter")
        if event.anchor is not None:
            self._of_anchor[event.anchor] = self._values - before
        return node

    def _count(self, more: int) -> None:
        self._values += more
        if self._values > self._most:
            raise UnfitYaml(f"it holds more than {self._most:,} values, those repeated by aliases counted; part it")
