"""The weights of the judges: found, downloaded, and checked before anything is read from them. Imports no torch.

An encoder or head asks for them by their name in the catalogue::

    path = find_weights("hpsv2.1", place)       # a file, or the folder of an entry of several files
    tensors = read_tensors(path)["state_dict"]

They are looked for in the folder that the user names (``--weights-dir`` or ``HOTART_WEIGHTS``), as
``DIR/owner/name/FILE``, ``DIR/name/FILE`` or, where the name is its own, ``DIR/FILE``; then among what was
downloaded before; and last on the network, which is left alone where a folder is named or ``HF_HUB_OFFLINE`` is set.
"""

from bench.weights.catalogue import CATALOGUE, Entry, File, find_entry
from bench.weights.find import Place, Stored, fetch_weights, find_weights, look_up, read_tensors
from bench.weights.lock import lock_path

__all__ = [
    "CATALOGUE",
    "Entry",
    "File",
    "Place",
    "Stored",
    "fetch_weights",
    "find_entry",
    "find_weights",
    "lock_path",
    "look_up",
    "read_tensors",
]
