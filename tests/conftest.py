"""What several tests share: no network, no display, Ctrl-C as Python means it, and where the shared material lies."""

import gc
import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may wait for the network
os.environ.setdefault("MPLBACKEND", "Agg")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests ignoring it

SHARED = Path(os.environ.get("LTSAM_SHARED") or Path(__file__).resolve().parents[2] / "shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests come first, so that several workers end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What imports have left stays for good: without this, every `gc.collect()` of a Trainer walks through it (0.5 s)."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # so that the interpreter ends as it would


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material (papers' data samples, golden numbers); never part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"shared material is not at {SHARED}: set LTSAM_SHARED")
    return SHARED
