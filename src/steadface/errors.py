"""The one error that users see, and values in its words: short, whatever they are."""

import re
from typing import Any, ClassVar

WORD = 400
"""Characters of a word in a message; longer ones are no words (a picture as base64, say) and are cut."""
KEPT = 60
"""Of such a word."""
MESSAGE = 4000


class SteadfaceError(Exception):
    """Something the user can put right: the message names the offending value and the remedy.

    No message repeats a picture or another long text that was given: what is too long is cut, and its length said.
    The command line prints it without a traceback and ends with ``exit_code``; everything else that escapes is a bug.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str = "") -> None:
        words = re.sub(rf"\S{{{WORD},}}", lambda word: short(word[0], KEPT), message)
        super().__init__(short(words, MESSAGE))


def short(value: Any, most: int = 80) -> str:
    """`value` in about `most` characters at most: a text as it is, bytes and arrays by what they are, else its repr."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value):,} bytes"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def quoted(value: Any) -> str:
    """`short`, a text in quotation marks."""
    return repr(short(value)) if isinstance(value, str) else short(value)
