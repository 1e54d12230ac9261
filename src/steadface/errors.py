"""The one error that users see."""


class SteadfaceError(Exception):
    """Something the user can put right: the message names the offending value and the remedy.

    The command line prints it without a traceback; everything else that escapes is a bug.
    """
