"""Source as a tree."""

import ast
import gc


def tree_of(source):
    """What `ast.parse` gives, without garbage collection meanwhile.

    A finalizer whose error is shown parses lines of its own, and Python 3.11 then finds the depth of the first tree wrong.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if enabled:
            gc.enable()
