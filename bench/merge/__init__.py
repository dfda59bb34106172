"""Merges as recipes: a short text file says what is made of which models. Importing this imports no torch."""
