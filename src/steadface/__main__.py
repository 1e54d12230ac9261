"""The `steadface` command, also as `python -m steadface`."""

import sys

from steadface.machine import keep_memory, share_cores
from steadface.signals import ignore_ctrl_c, leave_on_ctrl_c


def main() -> None:
    """Runs the command. How its threads wait has to be chosen before a command loads torch."""
    leave_on_ctrl_c()
    if "torch" not in sys.modules:  # otherwise the Python that called this has chosen
        share_cores()
        keep_memory()
    from steadface.cli.main import main as run

    try:
        run()
    finally:
        ignore_ctrl_c()


if __name__ == "__main__":
    main()
