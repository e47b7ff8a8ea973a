"""A package that nobody looks for while training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def not_looked_for(package: str) -> Iterator[None]:
    """For the duration of a `with` block the package counts as not installed; finding that out takes no time.

    accelerate's optimizer looks for `lomo_optim` twice in every step, in every folder of `sys.path`: a quarter of a
    millisecond, as much as the optimizer's own step. LOMO is refused here (see `refusals.py`).
    """
    missing = object()
    known = sys.modules.get(package, missing)
    sys.modules[package] = None  # type: ignore[assignment]        # Python's own sign for what cannot be imported
    try:
        yield
    finally:
        if known is missing:
            sys.modules.pop(package, None)
        else:
            sys.modules[package] = known  # type: ignore[assignment]
