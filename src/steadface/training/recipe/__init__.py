"""Recipes: what a training run depends on (`sections`, `method`), and how they are read (`recipe`)."""

from steadface.training.recipe.recipe import Recipe, load_recipe, make_recipe

__all__ = ["Recipe", "load_recipe", "make_recipe"]
