"""The embedded family: an SDXL in miniature, its world, its weights and its training recipes."""
