"""The model as a smooth, deterministic function that can be differentiated twice, and as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.backends import cudnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel


@contextmanager
def fixed_for_curvature(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout, batch norm by its running statistics), eager attention, no TF32; then all put back.

    Fused attention kernels have no second derivative, and TF32 would drown small eigenvalues.

    Raises:
        ValueError: weights of less than 32 bits.
    """
    narrow = {p.dtype for p in model.parameters() if p.is_floating_point() and p.dtype.itemsize < 4}
    if narrow:
        raise ValueError(f"Curvature needs weights in float32 or wider, got {narrow.pop()}: model.float() first.")
    modes = {module: module.training for module in model.modules()}
    exact = cudnn.flags(cudnn.enabled, cudnn.benchmark, deterministic=True, allow_tf32=False)
    try:
        model.eval()
        with _eager_attention(model), sdpa_kernel(SDPBackend.MATH), exact:
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _eager_attention(model: nn.Module) -> Iterator[None]:
    """Of the models of transformers, by their setting; `sdpa_kernel` covers those of timm and open_clip."""
    changed: list[tuple[PreTrainedModel, str]] = []
    try:
        for module in model.modules():
            if isinstance(module, PreTrainedModel) and module.config._attn_implementation not in (None, "eager"):
                changed.append((module, module.config._attn_implementation))
                module.set_attn_implementation("eager")
        yield
    finally:
        for module, implementation in reversed(changed):
            module.set_attn_implementation(implementation)
