"""Merges as recipes: a short text file that says what is made of which models, and the file that it makes.

``opening.open_recipe`` gives a recipe as a checkpoint, ``merge.merge`` writes it. Importing this imports no torch.
"""
