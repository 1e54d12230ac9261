"""Matplotlib, loaded without what it leaves in the home of somebody who does not use it otherwise."""

import os
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory


def load_matplotlib() -> None:
    """Call this before the first import of matplotlib, which makes folders and writes a list of the machine's fonts.

    They go to a temporary folder, which is removed at once; the fonts are looked through again in the next process.
    Where the user has set MPLCONFIGDIR or has settings of matplotlib's, it is loaded as it is, with its settings and
    its list of fonts.
    """
    if "matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ or any(place.is_dir() for place in _settings()):
        return
    with TemporaryDirectory(prefix="matplotlib-") as folder:
        os.environ["MPLCONFIGDIR"] = folder
        try:
            import_module("matplotlib.font_manager")
        finally:
            del os.environ["MPLCONFIGDIR"]


def _settings() -> list[Path]:
    """Where matplotlib looks for a user's settings on Linux, elsewhere and on Windows."""
    home = Path("~").expanduser()
    places = [os.environ.get("XDG_CONFIG_HOME") or home / ".config", os.environ.get("LOCALAPPDATA") or home]
    return [*(Path(place) / "matplotlib" for place in places), home / ".matplotlib"]
