"""Where the recipes that ship are found: in the package once installed, else beside it in the checkout."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def recipe_path(given: Path) -> Path:
    """`given` if it is a file, else the shipped recipe of that name (`gated` as well as `recipes/gated.yaml`)."""
    if given.is_file():
        return given
    name = Path(given.name).with_suffix(".yaml")
    folders = (PACKAGE / "recipes", PACKAGE.parents[1] / "recipes")
    return next((folder / name for folder in folders if (folder / name).is_file()), given)
