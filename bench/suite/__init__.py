"""Suite and prompt files -> ``Suite``, its protocol digest, and the images it stands for with their seeds."""

from __future__ import annotations

from bench.suite.file import list_suites, load_suite, public_sets_of
from bench.suite.planned_images import image_seed, plan_images, protocol_digest
from bench.suite.prompt_files import list_prompt_sets, prompts_folder, read_prompt_file, read_prompts
from bench.suite.sweep import sweep_suite

__all__ = [
    "image_seed",
    "list_prompt_sets",
    "list_suites",
    "load_suite",
    "plan_images",
    "prompts_folder",
    "protocol_digest",
    "public_sets_of",
    "read_prompt_file",
    "read_prompts",
    "sweep_suite",
]
