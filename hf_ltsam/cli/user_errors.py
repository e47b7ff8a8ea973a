"""Errors that the user can mend, shown as one message instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRACEBACK = "LTSAM_TRACEBACK"  # environment variable: set to 1, errors come with their traceback


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a bad value, a missing file or a refusal as one message and exit with status 2; Ctrl-C exits with 130."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        print(f"\nInterrupted. {interrupt}".rstrip(), file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, NotImplementedError) as error:
        if os.environ.get(TRACEBACK) == "1":
            raise
        notes = vars(error).get("__notes__", [])  # of whoever knew more on its way
        print("\n".join([f"error: {error}", *notes, f"({TRACEBACK}=1 shows where it was raised.)"]), file=sys.stderr)
        sys.exit(2)
