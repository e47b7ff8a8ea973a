"""What several tests share: where the shared material lies, and one thread per process so that timings stay calm."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")      # no test may wait for the network
os.environ.setdefault("MPLBACKEND", "Agg")

SHARED = Path(os.environ.get("LTSAM_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material (papers' data samples, golden numbers); never part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"shared material is not at {SHARED}: set LTSAM_SHARED")
    return SHARED
