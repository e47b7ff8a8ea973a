"""Names of array types that all corruptions share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.floating[Any]]  # (H, W, 3), float32 in [0, 1] before a corruption
Layer = NDArray[np.floating[Any]]  # (H, W)
