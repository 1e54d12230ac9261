"""The one error that users see."""

from typing import ClassVar


class SteadfaceError(Exception):
    """Something the user can put right: the message names the offending value and the remedy.

    The command line prints it without a traceback and ends with ``exit_code``; everything else that escapes is a bug.
    """

    exit_code: ClassVar[int] = 2
