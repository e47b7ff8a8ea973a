"""SSF equals y = gamma x + beta after every affine layer; bias tuning is its shift alone."""

import pytest
import torch
from adapters.tiny import IMAGES, LABELS, NAMES, adapted, bare, logits, with_head
from peft import get_peft_model
from torch import nn

from hf_ltsam.adapters import SSFConfig

OUTSIDE = {
    "clip": {"pre_layrnorm", "post_layernorm"},
    "siglip": {"embeddings.patch_embedding", "post_layernorm"},
    "vit": {"embeddings.patch_embeddings.projection", "layernorm"},
    "dinov2": {"embeddings.patch_embeddings.projection", "layernorm"},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["ssf", "bias"])
def test_the_equation(name, method):
    model = adapted(method, bare(name).double(), modules_to_save=None)
    plain, state = bare(name).double(), model.state_dict()

    def scale_and_shift(layer_name):
        gamma = state.get(f"base_model.model.{layer_name}.ssf_scale.default", torch.ones(1))
        beta = state[f"base_model.model.{layer_name}.ssf_shift.default"]
        shape = (1, -1, 1, 1) if "patch_embedding" in layer_name else (-1,)
        return lambda module, args, output: output * gamma.view(shape) + beta.view(shape)

    for layer_name in model.targeted_module_names:
        plain.get_submodule(layer_name).register_forward_hook(scale_and_shift(layer_name))
    torch.testing.assert_close(logits(model, IMAGES.double()), logits(plain, IMAGES.double()), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_after_every_affine_layer_and_no_other(name):
    plain = bare(name)
    layers = {
        n
        for n, m in plain.named_modules()
        if isinstance(m, nn.Linear | nn.LayerNorm) and ".layer" in f".{n}" and any(c.isdigit() for c in n.split("."))
    }
    adapted_layers = set(adapted("ssf", bare(name), modules_to_save=None).targeted_module_names)
    assert adapted_layers == layers | OUTSIDE[name]
    assert len(layers) == 3 * 8  # query, key, value, output, two of the MLP, two norms


def test_bias_tuning_moves_by_the_gradient_of_the_bias():
    """Zaken et al. 2022, as an equation between gradients: d/d beta is d/d b of the layer's own bias."""
    model, plain = adapted("bias", with_head("vit").double(), seed=None), with_head("vit").double()
    for net in (model, plain):
        nn.functional.cross_entropy(net(pixel_values=IMAGES.double())[0], LABELS).backward()
    shifts = {n: p.grad for n, p in model.named_parameters() if "ssf_shift" in n}
    assert not any("ssf_scale" in n for n, _ in model.named_parameters())
    for key, grad in shifts.items():
        name = key.removeprefix("base_model.model.").removesuffix(".ssf_shift.default")
        torch.testing.assert_close(grad, plain.get_submodule(name).bias.grad, rtol=0, atol=1e-14)
    biases = {n for n, _ in plain.named_parameters() if n.endswith(".bias") and not n.startswith("classifier")}
    assert len(shifts) == len(biases)


def test_a_layer_without_a_bias_cannot_be_merged():
    model = get_peft_model(bare("clip"), SSFConfig(target_modules=["patch_embedding"]))
    with pytest.raises(ValueError, match=r"merged into this Conv2d: it has no bias .*exclude_modules"):
        model.merge_and_unload()


def test_a_safe_merge_refuses_a_damaged_adapter():
    model = adapted("ssf", bare("vit"), modules_to_save=None)
    model.base_model.model.layernorm.ssf_scale["default"].data[0] = torch.nan
    with pytest.raises(ValueError, match="'default' is damaged"):
        model.merge_and_unload(safe_merge=True)


def test_two_adapters_are_not_merged_into_one():
    model = adapted("ssf", bare("vit"), modules_to_save=None)
    model.add_adapter("second", SSFConfig())
    with pytest.raises(ValueError, match="one adapter at a time, got default, second"):
        model.merge_adapter(["default", "second"])


def test_merged_and_disabled_is_the_base_model():
    before = logits(bare("vit"))
    model = adapted("ssf", bare("vit"), modules_to_save=None)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), before)


def test_other_modules_are_refused():
    with pytest.raises(ValueError, match=r"'layers.0.mlp' is a ViTMLP. Change target_modules"):
        get_peft_model(bare("vit"), SSFConfig(target_modules=["mlp"]))
