"""The `steadface` command, also as `python -m steadface`."""

import gc
import sys

BROKEN = 70
"""The exit code, as `steadface.cli.ending` has it for what nobody foresaw; Python's own, 1, would mean "no match"."""


def main() -> None:
    """Runs the command. How its threads wait has to be chosen before a command loads torch."""
    try:
        from steadface.machine import keep_memory, share_cores
        from steadface.signals import ignore_ctrl_c, leave_on_ctrl_c

        leave_on_ctrl_c()
        if "torch" not in sys.modules:  # otherwise the Python that called this has chosen
            share_cores()
            keep_memory()
        from steadface.cli.main import main as run
    except Exception as error:  # a damaged installation, or a file of somebody's under the name of a module
        _say_why(error)
        sys.exit(BROKEN)
    try:
        run()
    finally:
        ignore_ctrl_c()
        gc.freeze()  # or Python's own end looks through all that came with torch, for most of a second


def _say_why(error: Exception) -> None:
    """With what Python has of itself."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" in {place.tb_frame.f_code.co_filename}, line {place.tb_lineno}"
    said = f"error: steadface cannot start: {type(error).__name__}: {error}{where}".replace("\n", " ")
    if sys.stderr is None:
        return
    try:
        print(f"{said}; install it anew, or move away what has the name of a module", file=sys.stderr)
    except OSError:  # nobody listens
        return


if __name__ == "__main__":
    main()
