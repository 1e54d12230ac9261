"""The errors that users see, by what the caller can do about them; values in their words are short."""

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
    The command line prints it without a traceback and ends with ``exit_code``, a service answers with ``http_status``;
    everything else that escapes is a bug.
    """

    exit_code: ClassVar[int] = 2
    http_status: ClassVar[int] = 400

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
