"""Vision transformers: attention that can be differentiated twice, and as it was afterwards; adapters."""

import peft
import pytest
import timm
import torch
from curvature.problems import mean_loss
from transformers import ViTConfig, ViTForImageClassification

from hf_ltsam.curvature import Hessian, fixed_for_curvature


def tiny_vit(implementation="sdpa"):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=8,
        patch_size=4,
        num_labels=3,
        hidden_dropout_prob=0.3,
        attn_implementation=implementation,
    )
    return ViTForImageClassification(config).double()


def tiny_timm():
    torch.manual_seed(0)
    return Timm(timm.create_model("test_vit", img_size=16, num_classes=3)).double()


class Timm(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model(pixel_values)


def with_lora():
    adapted = peft.get_peft_model(
        tiny_vit(), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj", "query", "value"])
    )
    with torch.no_grad():
        for p in adapted.parameters():
            if p.requires_grad:
                p.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    return adapted.double()


# the eager attention of transformers takes its softmax in float32, so differences need longer steps there
@pytest.mark.parametrize(
    "build, side, h, tolerance", [(tiny_vit, 8, 1e-2, 1e-4), (with_lora, 8, 1e-2, 1e-4), (tiny_timm, 16, 1e-5, 1e-7)]
)
def test_the_product_is_the_derivative_of_the_gradient(build, side, h, tolerance):
    model = build()
    x = torch.randn(4, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    objective = mean_loss(model, x, torch.tensor([0, 1, 2, 0]), 3)
    trainable = objective.weights.parameters
    hessian = Hessian(objective)
    v = torch.randn(hessian.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    v /= v.norm()
    with fixed_for_curvature(model):
        product, start, gradients = hessian(v), torch.nn.utils.parameters_to_vector(trainable).detach(), []
        for sign in (1, -1):
            torch.nn.utils.vector_to_parameters(start + sign * h * v, trainable)
            gradients.append(objective.gradient())
        torch.nn.utils.vector_to_parameters(start, trainable)
    difference = (gradients[0] - gradients[1]) / (2 * h)
    assert float(product.norm()) > 100 * tolerance
    assert float((product - difference).norm()) < tolerance * max(1.0, float(product.norm()))


def test_adapters_alone_are_in_the_hessian():
    model = with_lora()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    size = Hessian(mean_loss(model, x, torch.tensor([0, 1, 2, 0]))).size
    assert size == sum(p.numel() for n, p in model.named_parameters() if "lora_" in n) > 0


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_attention_comes_back(implementation):
    model = tiny_vit(implementation)
    with pytest.raises(KeyError), fixed_for_curvature(model):
        assert model.config._attn_implementation == "eager"
        raise KeyError
    assert model.config._attn_implementation == implementation
    assert all(m.config._attn_implementation == implementation for m in model.modules() if hasattr(m, "config"))
    backends = torch.backends.cuda
    assert backends.flash_sdp_enabled() and backends.mem_efficient_sdp_enabled()
