"""Methods and losses as the papers write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOSSES = {
    "cross_entropy": "CE", "focal": "Focal", "class_balanced": "CB", "ldam": "LDAM", "logit_adjustment": "LA",
    "balanced_softmax": "BS", "vector_scaling": "VS", "label_aware_smoothing": "LAS", "influence_balanced": "IB",
}  # fmt: skip
METHODS = {
    "sgd": "SGD", "sam": "SAM", "asam": "ASAM", "imbsam": "ImbSAM", "sse_sam": "SSE-SAM", "sam_ext": "SAM (ext)",
    "focal_sam": "Focal-SAM", "cc_sam": "CC-SAM", "gradient_norm": "gradient norm", "gsam": "GSAM", "looksam": "LookSAM",
    "msam": "MSAM", "friendly_sam": "Friendly-SAM", "pgd": "PGD", "lpf_sgd": "LPF-SGD",
    "model_perturbation": "model perturbation",
}  # fmt: skip


def title(facts: Mapping[str, Any]) -> str:
    """CE + SGD, or CE-DRW + SAM for deferred re-weighting.

    Args:
        facts: may hold `loss`, `method`, `reweighting` and `reweighting_start`.
    """
    loss, method = str(facts.get("loss", "cross_entropy")), str(facts.get("method", "sam"))
    weighted = facts.get("reweighting", "none") != "none"
    suffix = ("-DRW" if facts.get("reweighting_start") else "-RW") if weighted else ""
    return f"{LOSSES.get(loss, loss)}{suffix} + {METHODS.get(method, method)}"
