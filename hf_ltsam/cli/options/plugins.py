"""Methods and losses of your own on the command line: modules that add them to the registries, named by the environment.

LTSAM_PLUGINS=my_method.py ltsam train --method mine ...      # the file ends with METHODS["mine"] = Mine
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

PLUGINS = "LTSAM_PLUGINS"  # names of modules and paths of .py files, parted by commas; started commands inherit them


def load_plugins() -> None:
    """Import what the environment names, once in a process.

    Raises:
        ValueError: a module or file that does not exist or cannot be imported.
    """
    for place in filter(None, map(str.strip, os.environ.get(PLUGINS, "").split(","))):
        try:
            if place.endswith(".py"):
                _load_file(Path(place))
            else:
                import_module(place)
        except Exception as error:
            raise ValueError(
                f"{PLUGINS} names {place!r}, which cannot be imported: {type(error).__name__}: {error}. Give modules that "
                "Python finds, or paths of .py files, parted by commas."
            ) from error


def _load_file(path: Path) -> None:
    """As a module of the file's name, which dataclasses and processes look up."""
    path = path.resolve(strict=True)
    found = find_spec(path.stem)  # imported already, or only to be found
    if found is not None and found.origin != str(path):
        raise ImportError(f"a module {path.stem} is there already; give the file another name")
    if path.stem in sys.modules:
        return
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = sys.modules[path.stem] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
