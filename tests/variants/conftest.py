from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.mini import weights
from bench.records import Settings, Variant

SETTINGS = Settings(width=64, height=64, steps=3, guidance=3.0, sampler="ddim", batch=2)


@pytest.fixture(scope="session")
def settings() -> Settings:
    return SETTINGS


@pytest.fixture(scope="session")
def mini_pipe() -> Any:
    """The embedded pipeline, loaded once; a test that changes it loads its own."""
    import torch

    from bench.variants import load_pipeline

    torch.set_num_threads(1)
    return load_pipeline(Variant(name="base", checkpoint="mini"), SETTINGS, device="cpu")


@pytest.fixture
def mini_copy(tmp_path: Path) -> Path:
    """The embedded pipeline's folder at another place."""
    return Path(shutil.copytree(weights.pipeline_folder(), tmp_path / "elsewhere"))
