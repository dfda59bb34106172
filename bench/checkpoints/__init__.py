"""Checkpoints of every layout behind one protocol, ``Checkpoint``. Imports no torch."""
