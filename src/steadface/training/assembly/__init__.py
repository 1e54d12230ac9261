"""From a recipe to the objects of the method: every choice that a recipe can name is made here and nowhere else."""
