"""AdaptFormer equals its equation in every encoder, and has the size stated by LIFT."""

import pytest
import torch
from adapters.by_hand import FORMULAS, blocks_of, into_the_blocks, outputs_after
from adapters.tiny import IMAGES, NAMES, adapted, bare, logits, with_head
from peft import get_peft_model
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel, ViTConfig, ViTModel

from hf_ltsam.adapters import AdaptFormerConfig


def bottleneck(state, block, x):
    """s up(relu(down(ln(x)))) from the adapter's parameters alone."""
    p = {
        key.split(f"{block}.mlp.adaptformer_")[-1]: value
        for key, value in state.items()
        if f".{block}.mlp.adaptformer_" in key
    }
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    normed = normed * p["norm.default.weight"] + p["norm.default.bias"]
    hidden = (normed @ p["down.default.weight"].T + p["down.default.bias"]).clamp_min(0)
    return p["scale.default.weight"] * (hidden @ p["up.default.weight"].T + p["up.default.bias"])


@pytest.mark.parametrize("name", NAMES)
def test_the_equation(name):
    plain, images = bare(name).double(), IMAGES.double()
    model = adapted("adaptformer", bare(name).double(), modules_to_save=None)
    state = model.state_dict()
    h = into_the_blocks(name, plain, images)
    with torch.no_grad():
        for i, block in enumerate(blocks_of(name, plain)):
            h = FORMULAS[name](block, h, lambda x, i=i: bottleneck(state, i, x))
        ours = model(pixel_values=images)
    theirs = outputs_after(name, plain, images, h)
    torch.testing.assert_close([ours.last_hidden_state, ours.pooler_output], theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_the_equation_without_an_adapter(name):
    """The formulas themselves are those of transformers."""
    plain, images = bare(name).double(), IMAGES.double()
    h = into_the_blocks(name, plain, images)
    with torch.no_grad():
        for block in blocks_of(name, plain):
            h = FORMULAS[name](block, h, lambda x: 0.0)
        output = plain(pixel_values=images)
    torch.testing.assert_close(
        [output.last_hidden_state, output.pooler_output], outputs_after(name, plain, images, h), rtol=0, atol=1e-12
    )


# Shi et al. 2024 (LIFT), ViT-B
@pytest.mark.parametrize(
    ("num_classes", "width", "parameters"),
    [
        (10, 1, 46_104),
        (100, 4, 101_436),
        (1000, 32, 617_868),
        (8142, 256, 4_749_324),
    ],
)
@pytest.mark.parametrize("encoder", [lambda: CLIPVisionModel(CLIPVisionConfig()), lambda: ViTModel(ViTConfig())])
def test_size_in_a_vit_b(encoder, num_classes, width, parameters):
    with torch.device("meta"):
        base = encoder()
    config = AdaptFormerConfig(num_classes=num_classes)
    model = get_peft_model(base, config, low_cpu_mem_usage=True)
    assert config.bottleneck == width
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == parameters


@pytest.mark.parametrize(
    ("num_classes", "num_blocks", "width"),
    [(1, 12, 1), (24, 12, 1), (48, 12, 2), (191, 12, 4), (192, 12, 8), (1000, 24, 16)],
)
def test_the_rule(num_classes, num_blocks, width):
    from hf_ltsam.adapters.adaptformer.model import lift_bottleneck

    assert lift_bottleneck(num_classes, num_blocks) == width


def test_initial_values():
    model = adapted("adaptformer", bare("vit"), seed=None, modules_to_save=None)
    wide = get_peft_model(
        ViTModel(
            ViTConfig(
                hidden_size=400,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=8,
                image_size=8,
                patch_size=4,
            )
        ),
        AdaptFormerConfig(bottleneck=300),
    )
    layer = wide.base_model.model.layers[0].mlp
    down = layer.adaptformer_down["default"].weight
    assert down.std().item() == pytest.approx((2 / (1 + 5) / 400) ** 0.5, rel=0.02)  # Kaiming normal, a = sqrt 5
    assert abs(down.mean()) < 3e-4
    for key, value in model.state_dict().items():
        if "adaptformer_" in key and "down.default.weight" not in key:
            one = key.endswith(("norm.default.weight", "scale.default.weight"))
            assert torch.equal(value, torch.full_like(value, float(one))), key


def test_an_explicit_width_overrides_the_rule():
    model = get_peft_model(bare("clip"), AdaptFormerConfig(bottleneck=7, num_classes=100))
    assert model.base_model.model.encoder.layers[0].mlp.adaptformer_up["default"].in_features == 7


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "needs num_classes=<C>, which sets the width by LIFT's rule, or bottleneck=<width>"),
        ({"num_classes": 0}, r"AdaptFormerConfig\(num_classes=...\) must be a whole number of at least 1, got 0"),
        ({"bottleneck": 2.5}, r"bottleneck=...\) must be a whole number of at least 1, got 2.5"),
    ],
)
def test_wrong_sizes_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        AdaptFormerConfig(**args)


def test_the_number_of_classes_of_the_head_is_checked_before_time_is_spent():
    with pytest.raises(
        ValueError, match=r"made for num_classes=100, but 'classifier' of ViTForImageClassification has 5 outputs"
    ):
        get_peft_model(with_head("vit"), AdaptFormerConfig(num_classes=100, modules_to_save=["classifier"]))


class Unknown(torch.nn.Module):
    """A third-party encoder with one block."""

    def __init__(self):
        super().__init__()
        self.block = torch.nn.ModuleDict({"before": torch.nn.LayerNorm(6), "feed_forward": torch.nn.Linear(6, 6)})

    def forward(self, x):
        return x + self.block["feed_forward"](self.block["before"](x))


def test_an_unknown_encoder_with_named_modules():
    x = torch.randn(2, 6)
    config = AdaptFormerConfig(bottleneck=2, target_modules=["feed_forward"], norm="before")
    model = get_peft_model(Unknown(), config)
    with torch.no_grad():
        layer = model.base_model.model.block["feed_forward"]
        layer.adaptformer_up["default"].weight.normal_()
        down, up = layer.adaptformer_down["default"], layer.adaptformer_up["default"]
        beside = F.linear(F.relu(F.linear(F.layer_norm(x, (6,)), down.weight)), up.weight)
        with model.disable_adapter():
            plain = model(x)
        torch.testing.assert_close(model(x), plain + beside)
    with pytest.raises(
        ValueError, match=r"ModuleDict has no 'ln2', only before, feed_forward. Set AdaptFormerConfig\(norm=...\)"
    ):
        get_peft_model(Unknown(), AdaptFormerConfig(bottleneck=2, target_modules=["feed_forward"], norm="ln2"))
    with pytest.raises(ValueError, match=r"AdaptFormer does not know .* Unknown are"):
        get_peft_model(Unknown(), AdaptFormerConfig(bottleneck=2, target_modules=["feed_forward"]))


def test_two_active_adapters_add_up():
    model = adapted("adaptformer", bare("dinov2").double(), modules_to_save=None)
    plain = bare("dinov2").double()
    state = dict(model.state_dict())
    model.add_adapter("default2", AdaptFormerConfig(bottleneck=3))
    model.load_state_dict(
        {k.replace(".default.", ".default2."): v for k, v in state.items() if "adaptformer" in k}, strict=False
    )
    model.base_model.set_adapter(["default", "default2"])
    h = into_the_blocks("dinov2", plain, IMAGES.double())
    with torch.no_grad():
        for i, block in enumerate(blocks_of("dinov2", plain)):
            h = FORMULAS["dinov2"](block, h, lambda x, i=i: 2 * bottleneck(state, i, x))
    theirs = outputs_after("dinov2", plain, IMAGES.double(), h)[0]
    torch.testing.assert_close(logits(model, IMAGES.double()), theirs, rtol=0, atol=1e-11)
