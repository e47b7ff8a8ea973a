"""Prompts enter after the class token, leave before the pooling, and start as in the paper."""

import math

import pytest
import torch
from adapters.by_hand import blocks_of, first, into_the_blocks, outputs_after
from adapters.tiny import IMAGES, NAMES, adapted, bare, logits, with_head
from peft import get_peft_model
from transformers import ViTConfig, ViTModel

from hf_ltsam.adapters import VPTConfig
from hf_ltsam.adapters.vpt import VPTLayer

CLASS_TOKENS = {"clip": 1, "siglip": 0, "vit": 1, "dinov2": 1}


def prompts_of(model):
    return [value for key, value in model.state_dict().items() if "vpt_prompts" in key]


def with_prompts(tokens, prompts, k):
    return torch.cat([tokens[:, :k], prompts.expand(len(tokens), -1, -1), tokens[:, k:]], 1)


def without(tokens, count, k):
    return torch.cat([tokens[:, :k], tokens[:, k + count :]], 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("deep", [True, False])
def test_the_equation(name, deep):
    plain, images, k = bare(name).double(), IMAGES.double(), CLASS_TOKENS[name]
    model = adapted("vpt_deep" if deep else "vpt_shallow", bare(name).double(), modules_to_save=None)
    prompts = prompts_of(model)
    assert len(prompts) == (3 if deep else 1)
    tokens = into_the_blocks(name, plain, images)
    with torch.no_grad():
        for i, block in enumerate(blocks_of(name, plain)):
            if deep or i == 0:
                tokens = with_prompts(tokens, prompts[i], k)
            tokens = first(block(tokens, None) if name != "dinov2" else block(tokens))
            if deep:
                tokens = without(tokens, 3, k)
        ours = model(pixel_values=images)
    theirs = outputs_after(name, plain, images, tokens if deep else without(tokens, 3, k))
    torch.testing.assert_close([ours.last_hidden_state, ours.pooler_output], theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_enter_after_the_class_token(name):
    """If there is one. The position does not matter to a block, but to hidden states and masks."""
    model = adapted("vpt_deep", bare(name), modules_to_save=None)
    inputs = []
    for wrapper in blocks_of(name, model.get_base_model()):
        wrapper.base_layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    logits(model)
    k = CLASS_TOKENS[name]
    for tokens, prompts in zip(inputs, prompts_of(model), strict=True):
        assert tokens.shape[1] == k + 3 + 4
        assert torch.equal(tokens[:, k : k + 3], prompts.expand(4, -1, -1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["vpt_deep", "vpt_shallow"])
def test_the_pooling_sees_no_prompts(name, method):
    model = adapted(method, bare(name), modules_to_save=None)
    with torch.no_grad():
        assert (
            model(pixel_values=IMAGES).last_hidden_state.shape
            == bare(name)(pixel_values=IMAGES).last_hidden_state.shape
        )


def test_the_mean_over_patch_tokens_has_no_prompts():
    """transformers' CLIP head averages the patch tokens: prompts among them would change its logits."""
    model = adapted("vpt_shallow", with_head("clip"), modules_to_save=None)
    tower = adapted("vpt_shallow", with_head("clip").vision_model, modules_to_save=None)
    with torch.no_grad():
        tokens = tower(pixel_values=IMAGES).last_hidden_state
        torch.testing.assert_close(logits(model), with_head("clip").classifier(tokens[:, 1:].mean(1)))


def test_initial_prompts():
    p, width = 4, 400
    config = ViTConfig(
        hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=p
    )
    (prompts,) = prompts_of(get_peft_model(ViTModel(config), VPTConfig(num_tokens=200)))
    bound = math.sqrt(6 / (3 * p * p + width))
    assert prompts.shape == (200, width) and prompts.abs().max() <= bound
    assert prompts.abs().max() > 0.999 * bound and prompts.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_one_block_is_first_and_last():
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
    )
    model = get_peft_model(ViTModel(config), VPTConfig(num_tokens=3, deep=False))
    assert model(pixel_values=IMAGES).last_hidden_state.shape == (4, 5, 16)


def test_shallow_prompts_run_from_the_first_to_the_last_named_block():
    model = get_peft_model(bare("vit"), VPTConfig(num_tokens=3, deep=False, target_modules=["layers.1", "layers.2"]))
    assert [key for key in model.state_dict() if "vpt_prompts" in key] == [
        "base_model.model.layers.1.vpt_prompts.default"
    ]
    assert model(pixel_values=IMAGES).last_hidden_state.shape == (4, 5, 16)


def test_other_modules_are_refused():
    with pytest.raises(
        ValueError, match=r"before whole blocks, and 'layers.0.mlp' \(ViTMLP\) is none. Blocks are layers.0, layers.1"
    ):
        get_peft_model(bare("vit"), VPTConfig(target_modules=["mlp"]))


@pytest.mark.parametrize("method", ["vpt_deep", "vpt_shallow"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_mask_covers_the_prompts(method, implementation):
    """What is hidden from all tokens has no influence, and a mask that hides nothing changes nothing."""
    model = adapted(method, bare("vit"), modules_to_save=None)
    model.get_base_model().set_attn_implementation(implementation)
    hidden = torch.tensor([[1, 1, 1, 1, 0]] * 4)
    images = IMAGES.clone()
    images[:, :, 4:, 4:] = 5  # the last of four patches

    def class_tokens(images, mask):
        with torch.no_grad():
            return model(pixel_values=images, attention_mask=mask).last_hidden_state[:, :4]

    torch.testing.assert_close(class_tokens(IMAGES, torch.ones(4, 5)), class_tokens(IMAGES, None))
    torch.testing.assert_close(class_tokens(images, hidden), class_tokens(IMAGES, hidden))
    assert not torch.allclose(class_tokens(images, None), class_tokens(IMAGES, None))


def test_masks_of_another_form_are_refused():
    layer = next(m for m in adapted("vpt_deep", bare("vit"), modules_to_save=None).modules() if isinstance(m, VPTLayer))
    with pytest.raises(ValueError, match=r'cannot add its tokens to this attention_mask .*attn_implementation="sdpa"'):
        layer(torch.zeros(2, 5, 16), attention_mask=object())


@pytest.mark.parametrize("num_tokens", [0, 1.5])
def test_wrong_numbers_of_prompts_are_refused(num_tokens):
    with pytest.raises(ValueError, match=r"VPTConfig\(num_tokens=...\) must be a whole number"):
        VPTConfig(num_tokens=num_tokens)
