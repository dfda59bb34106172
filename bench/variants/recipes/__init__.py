"""Merges as recipes: a short text file says what is made of which models. Importing this imports no torch.

``open_recipe`` gives what a recipe makes as a checkpoint; ``merge.merge`` writes it as one file.
"""

from bench.variants.recipes.opening import open_recipe

__all__ = ["open_recipe"]
