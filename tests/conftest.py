"""What several tests share: no network, no display, Ctrl-C as Python means it, and where the shared material lies."""

import contextlib
import functools
import gc
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

import forked
import pytest
from forked import ForkingServer

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may wait for the network
os.environ.setdefault("MPLBACKEND", "Agg")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests ignoring it

SHARED = Path(os.environ.get("LTSAM_SHARED") or Path(__file__).resolve().parents[2] / "shared")


_servers: list[ForkingServer] = []


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        sys.executable = config.workerinput["executable"]
        return
    with contextlib.suppress(OSError):  # without it, every process imports all for itself
        _servers.append(ForkingServer())  # one for all workers, which are copies themselves
        config.option.tx = [f"{spec}//python={forked.PYTHON}" for spec in config.getoption("tx", None) or []]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["executable"] = sys.executable


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests come first, so that several workers end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    _keep_what_is_left()
    _look_for_packages_once()
    _seed_without_stacks()


_modules = 0  # when they were last kept


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if len(sys.modules) > _modules or nextitem is None or nextitem.path != item.path:
        _keep_what_is_left()


def _keep_what_is_left() -> None:
    """What imports and caches have left stays for good: every `gc.collect()` of a Trainer would walk through it.

    That takes 0.5 s after the imports, 0.03 s with those of the compiler alone, and a training collects twice or more.
    """
    global _modules
    gc.collect()
    gc.freeze()
    _modules = len(sys.modules)


def _look_for_packages_once() -> None:
    """accelerate searches all of sys.path for lomo-optim in every step of an optimizer, and for others in every loader."""
    imports = sys.modules.get("accelerate.utils.imports")
    if imports is not None and not hasattr(imports._is_package_available, "cache_clear"):
        imports._is_package_available = functools.cache(imports._is_package_available)


def _seed_without_stacks() -> None:
    """torch.manual_seed writes down the stack for each kind of device that is not there (2 ms), and every Trainer seeds."""
    for name in ("torch.cuda", "torch.mtia", "torch.xpu"):
        if hasattr(module := sys.modules.get(name), "traceback"):
            module.traceback = types.SimpleNamespace(format_stack=list)


def pytest_unconfigure() -> None:
    gc.unfreeze()  # so that the interpreter ends as it would
    while _servers:
        _servers.pop().close()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material (papers' data samples, golden numbers); never part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"shared material is not at {SHARED}: set LTSAM_SHARED")
    return SHARED
