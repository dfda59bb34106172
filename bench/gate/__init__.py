"""Verdicts: is the loss within its margin?"""
