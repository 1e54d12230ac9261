"""How the command ends: one exit code, and one line, for each way it can.

    0    done, or a match         1    no match, and what else a command says of it in its help
    2    wrong usage, output that cannot be written, and errors whose class in `steadface.errors` has no other code:
         4 not found, 5 in conflict with what is there, 6 unsupported, 75 unavailable just now; 3 nothing was gained,
         or a level missed; 8 a certificate contradicted
    70   what nobody foresaw (EX_SOFTWARE of BSD's sysexits.h): a fault of the program or of the machine
    130  Ctrl-C                   141  the reader of the output has left the pipe, as shells say of SIGPIPE

Output is flushed here. Python itself would do so after the exit code is settled, and end with 120 where it fails.
"""

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.text import Text

from steadface.cli.console import errors, say_error
from steadface.errors import SteadfaceError, short
from steadface.files import NO_ROOM
from steadface.signals import INTERRUPTED

WRONG, UNFORESEEN, READER_LEFT = 2, 70, 141

NAMED_WRONG = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EROFS)
"""What a name that somebody has given can be to blame for."""

DEBUG = "STEADFACE_DEBUG"
"""Environment variable: with any value, what nobody foresaw is shown with its traceback."""

UsageError = typer.BadParameter.__mro__[2]
"""click's ClickException, which typer brings along under a name of its own."""


def ended(command: Callable[[], object]) -> int:
    """Runs a command and returns its exit code; raises nothing, and says what went wrong."""
    if sys.stdout is None:  # as Python has it where descriptor 1 is closed: before any work, and nothing is half done
        return _said("standard output is closed; send it to /dev/null where it is not wanted", WRONG)
    if not _somewhere():
        return _said("the folder that this is run in is not there any more; change to another one", WRONG)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that a terminal cannot show is no failure
    try:
        code = _code_of_exit(command)
        sys.stdout.flush()
    except BaseException as error:
        try:
            code = _code_of(error)
        except Exception:  # no memory to say so with
            code = UNFORESEEN
    for stream in (sys.stdout, sys.stderr):
        if not _flushed(stream):
            _send_nowhere(stream)
    return code


def _somewhere() -> bool:
    """Whether there is a current folder: without one libraries end the process where they are loaded."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _code_of_exit(command: Callable[[], object]) -> int:
    try:
        command()
    except typer.Exit as end:
        return end.exit_code
    return 0


def _code_of(error: BaseException) -> int:
    if isinstance(error, SteadfaceError):
        return _said(str(error), error.exit_code)
    if isinstance(error, UsageError):
        # Where a group is called without a command its help has been printed, and is all there is to say.
        return WRONG if type(error).__name__ == "NoArgsIsHelpError" else _said(_usage(error), WRONG)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _said(str(error) or "interrupted", INTERRUPTED)
    # SystemExit(1) is how rich ends where nobody reads the help any more.
    if isinstance(error, BrokenPipeError) or (isinstance(error, SystemExit) and error.code == 1):
        return _said("whoever read the output has left before its end", READER_LEFT)
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or 0
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = f", {error.filename}" if error.filename else ""
        return _said(f"no room for the output ({error.strerror}{where}); free some, or send it elsewhere", WRONG)
    if isinstance(error, OSError) and error.filename is not None and error.errno in NAMED_WRONG:
        return _said(f"{error.filename} cannot be used: {error.strerror}; name another", WRONG)
    return _unforeseen(error)


def _usage(error: Any) -> str:
    """What typer says of the words of a call, choices included, and where help is."""
    said = " ".join(part.strip() for part in error.format_message().splitlines())
    context = getattr(error, "ctx", None)
    return said if context is None else f"{said} ({context.command_path} --help says what it takes)"


def _unforeseen(error: BaseException) -> int:
    if os.environ.get(DEBUG):
        errors.print(Text("".join(traceback.format_exception(error))), soft_wrap=True, highlight=False)
    reason = next((line for line in str(error).splitlines() if line.strip()), "")
    return _said(
        f"unforeseen {type(error).__name__}{': ' if reason else ''}{short(reason, 300)} (a fault of the program or the "
        f"machine; {DEBUG}=1 shows where)",
        UNFORESEEN,
    )


def _said(message: str, code: int) -> int:
    """`code`; what cannot be said, because nobody listens, changes nothing about it."""
    with suppress(Exception, SystemExit):
        say_error(message)
    return code


def _flushed(stream: TextIO | None) -> bool:
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):  # ValueError: it is closed
        return False
    return True


def _send_nowhere(stream: TextIO) -> None:
    """So that what is left in it does not fail once more at Python's own end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
