"""The errors that users see, by what the caller can do about them; values in their words are short.

`visible` is for whatever shows words to people. A text that somebody else wrote (a name in a file, a note, what a
library says of them) can hold codes that a terminal obeys, characters that turn the order of a line around or that
nobody sees, and line ends with lines of its own behind them.
"""

import re
import unicodedata
from typing import Any, ClassVar

WORD = 400
"""Characters of a word in a message; longer ones are no words (a picture as base64, say) and are cut."""
KEPT = 60
"""Of such a word."""
MESSAGE = 4000

_SUSPECT = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
"""Control characters (C0, C1, DEL), line and paragraph separators, halves of surrogate pairs, and what is not seen:
bidirectional controls and the other default-ignorable characters (UAX 44) but variation selectors."""
_JOINERS = "\u200c\u200d"
_VIRAMA = 9
_EMOJI = "\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
"""What may stand between an emoji and a joiner: the choice of its coloured form, and skin tones."""


class SteadfaceError(Exception):
    """Something the user can put right: the message names the offending value and the remedy.

    No message repeats a picture or another long text that was given: what is too long is cut, and its length said.
    The command line prints it without a traceback and ends with ``exit_code``, a service answers with ``http_status``;
    everything else that escapes is a bug.
    """

    exit_code: ClassVar[int] = 2
    http_status: ClassVar[int] = 400
    common = False
    """Whether all processes that train together have met it, so that one says it for all."""

    def __init__(self, message: str = "") -> None:
        words = re.sub(rf"\S{{{WORD},}}", lambda word: short(word[0], KEPT), message)
        super().__init__(short(words, MESSAGE))


class InvalidInput(SteadfaceError):
    """What was given cannot be meant, or does not suffice: give something else."""


class NotFound(SteadfaceError):
    """What was named is not there: a file, a person, a candidate. Name another, or make it first."""

    exit_code = 4
    http_status = 404


class Conflict(SteadfaceError):
    """It would clash with what is there already: another run, another person's templates. Decide which is to stay."""

    exit_code = 5
    http_status = 409


class Unsupported(SteadfaceError):
    """It can be meant and is not to be had of this model, file or installation: choose another way to the same end."""

    exit_code = 6
    http_status = 501


class Unavailable(SteadfaceError):
    """What is needed is busy, locked or unreachable just now: the same call may succeed later."""

    exit_code = 75  # EX_TEMPFAIL
    http_status = 503


def too_few(what: str, have: int, needed: int, *, why: str, remedy: str, there: str = "there are") -> InvalidInput:
    """Of `what` there is too little: how many it takes and `why`, how many `there` are, and the remedy."""
    return InvalidInput(f"{why} needs {needed} {what}, and {there} {have}; {remedy}")


def unreadable(error: Exception, message: str) -> SteadfaceError:
    """What to raise for a file that cannot be read: that it is not there, or else that another has to be given."""
    return (NotFound if isinstance(error, FileNotFoundError | NotADirectoryError) else InvalidInput)(message)


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


def first_line(error: BaseException) -> str:
    """What somebody else's error says: some 200 characters of its first line, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return short("".join(one if one.isprintable() else " " for one in line), 200)


def visible(text: str, *, lines: bool = False) -> str:
    """`text` as one line of which everything is seen: escapes, as Python writes them, for what is not.

    With `lines`, line ends and tabs stay. A joiner stays where scripts need it (behind an Arabic letter, a virama or an
    emoji, after RFC 5892, A.1 and A.2). What has been made visible stays as it is.
    """
    return _SUSPECT.sub(lambda found: _seen(found, lines), text)


def _seen(found: re.Match[str], lines: bool) -> str:
    one, start = found[0], found.start()
    before = found.string[max(0, start - 1) : start]
    if (lines and one in "\n\t") or (one in _JOINERS and before and _joins(before)):
        return one
    return one.encode("unicode_escape").decode("ascii")


def _joins(before: str) -> bool:
    return (
        unicodedata.bidirectional(before) == "AL"
        or unicodedata.combining(before) == _VIRAMA
        or unicodedata.category(before) == "So"
        or before in _EMOJI
    )
