"""Tiny encoders of transformers with and without a head, and adapters with random parameters."""

from __future__ import annotations

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    SiglipConfig,
    SiglipForImageClassification,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from hf_ltsam.adapters import AdaptFormerConfig, SSFConfig, VPTConfig

NUM_CLASSES = 5
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
TOWER = {**SIZES, "intermediate_size": 24}
TEXT = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 9,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
DINOV2 = {**SIZES, "layerscale_value": 0.5, "mlp_ratio": 2}
NAMES = ["clip", "siglip", "vit", "dinov2"]
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(7))
LABELS = torch.tensor([0, 1, 2, 4])


def with_head(name: str, seed: int = 0) -> nn.Module:
    """logits (n, 5), every weight random (some of transformers start at zero), in evaluation mode."""
    builders = {
        "clip": lambda: CLIPForImageClassification(
            CLIPConfig(vision_config=TOWER, text_config=TEXT, num_labels=NUM_CLASSES)
        ),
        "siglip": lambda: SiglipForImageClassification(
            SiglipConfig(vision_config=TOWER, text_config=TEXT, num_labels=NUM_CLASSES)
        ),
        "vit": lambda: ViTForImageClassification(ViTConfig(**TOWER, num_labels=NUM_CLASSES)),
        "dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**DINOV2, num_labels=NUM_CLASSES)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return shaken(builders[name](), seed)


def bare(name: str, seed: int = 0) -> nn.Module:
    builders = {
        "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**TOWER)),
        "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**TOWER)),
        "vit": lambda: ViTModel(ViTConfig(**TOWER)),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**DINOV2)),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return shaken(builders[name](), seed)


def shaken(model: nn.Module, seed: int, trainable_only: bool = False) -> nn.Module:
    """Move parameters by random numbers that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad or not trainable_only:
                p.add_(0.3 * torch.randn(p.shape, generator=generator).to(p.dtype))
    return model.eval()


def logits(model: nn.Module, images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        return model(pixel_values=images)[0]


METHODS = {
    "adaptformer": lambda **args: AdaptFormerConfig(bottleneck=3, **args),
    "vpt_deep": lambda **args: VPTConfig(num_tokens=3, deep=True, **args),
    "vpt_shallow": lambda **args: VPTConfig(num_tokens=3, deep=False, **args),
    "ssf": lambda **args: SSFConfig(**args),
    "bias": lambda **args: SSFConfig(learn_scale=False, **args),
}
MERGEABLE = {"ssf", "bias"}


def adapted(method: str, model: nn.Module, seed: int | None = 1, **args) -> PeftModel:
    """A model with a trained head and an adapter, whose parameters are random unless the seed is None."""
    args.setdefault("modules_to_save", ["classifier"])
    torch.manual_seed(3)  # prompts start at random
    model = get_peft_model(model, METHODS[method](**args)).eval()
    return model if seed is None else shaken(model, seed, trainable_only=True)
