"""Faces: finding them in a picture, how many a prompt asks for, and the metrics on what was found."""
