"""Long-tailed data sets and their shifted tests. `datasets` is imported when the first of them is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset_builders.catalogue import join_images, load_lists, load_long_tailed, load_shifted, long_tail_statistics

__all__ = ["join_images", "load_lists", "load_long_tailed", "load_shifted", "long_tail_statistics"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dataset_builders import catalogue

    return vars(catalogue)[name]
