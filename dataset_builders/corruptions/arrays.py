"""Names of types that all corruptions share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]  # (H, W, 3), in [0, 1] before a corruption
Layer = NDArray[np.float32]  # (H, W)
