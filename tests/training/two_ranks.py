"""Two processes that run one script, as `accelerate launch` would start them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from forked import two_ranks


def outputs_of_two_ranks(*command: str) -> list[str]:
    """What both say; they must end well."""
    codes, outputs = zip(*[script.wait() for script in two_ranks(*command)], strict=True)
    assert codes == (0, 0), "\n".join(outputs)
    return list(outputs)


def results_of_two_ranks(script: Path, folder: Path) -> list[Any]:
    """What a script, called with a folder, leaves there as rank0.pt and rank1.pt."""
    outputs_of_two_ranks(str(script), str(folder))
    return [torch.load(folder / f"rank{r}.pt", weights_only=False) for r in (0, 1)]
