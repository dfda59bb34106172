"""LoRA files of every layout that is met: which tensors they change, how, and by how much.

Without torch: ``read_adapter`` resolves every key of a file, or says what is left over. With torch, in modules of their
own: ``parts`` reads the numbers, ``arithmetic`` computes with them, ``runtime`` applies them beside the weights.
"""

from bench.variants.adapters.change import Adapter, Change
from bench.variants.adapters.reading import read_adapter

__all__ = ["Adapter", "Change", "read_adapter"]
