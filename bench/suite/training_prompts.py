"""Prompts that a compared model was trained on: a score on them says how well it remembers.

The list is of the 4,000 prompts that the published SPO models were trained on, as hashes
(``prompts/spo-4k-normalised.sha256``); the prompts themselves are not part of this project.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from collections.abc import Iterable

from bench.errors import MachineError
from bench.records import Prompt
from bench.suite.prompt_files import prompts_folder

HASH_DIGITS = 16
"""Hex digits of a sha256 that the list keeps: two of 2^64 values are equal by chance in no set of prompts."""
LIST = "spo-4k-normalised.sha256"


def normalise(prompt: str) -> str:
    """A prompt without what does not make it another one: Unicode NFKC, casefolded, letters and digits only.

    Empty for a prompt of signs alone (an emoji, dots).
    """
    return "".join(sign for sign in unicodedata.normalize("NFKC", prompt).casefold() if sign.isalnum())


def is_training_prompt(prompt: str) -> bool:
    """Whether SPO was trained on the prompt, whatever its case, spaces and punctuation.

    A prompt that is empty after ``normalise`` never is: all such prompts look alike. Raises MachineError when
    the list is missing or damaged.
    """
    plain = normalise(prompt)
    return bool(plain) and hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS] in _hashes()


def training_prompts_in(prompts: Iterable[Prompt]) -> tuple[str, ...]:
    """The ids of the prompts that SPO was trained on, in their order; raises as ``is_training_prompt``."""
    return tuple(prompt.id for prompt in prompts if is_training_prompt(prompt.text))


@functools.cache
def _hashes() -> frozenset[str]:
    path = prompts_folder() / LIST
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(
            f"{path}: the list of training prompts cannot be read ({type(error).__name__}).",
            "pip install --force-reinstall hotart-bench",
        ) from error
    hashes = frozenset(line for line in lines if line and not line.startswith("#"))
    if any(len(line) != HASH_DIGITS or set(line) - set("0123456789abcdef") for line in hashes) or not hashes:
        raise MachineError(
            f"{path}: the list of training prompts is damaged.", "pip install --force-reinstall hotart-bench"
        )
    return hashes
