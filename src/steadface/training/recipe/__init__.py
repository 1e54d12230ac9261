"""Recipes: what a training run depends on (`sections`, `method`, `recipe`), and how they are read (`reading`)."""

from steadface.training.recipe.reading import load_recipe, make_recipe
from steadface.training.recipe.recipe import Recipe

__all__ = ["Recipe", "load_recipe", "make_recipe"]
