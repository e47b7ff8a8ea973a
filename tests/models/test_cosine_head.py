"""Any image classifier of transformers or timm with a cosine head instead of its linear one."""

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    ResNetConfig,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
)

from hf_ltsam.models import CosineClassifier, CosineHeadForImageClassification

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 16,
    "patch_size": 8,
}
LABELS = {"id2label": dict(enumerate("abcde")), "label2id": {c: n for n, c in enumerate("abcde")}}


def linear_model(kind):
    torch.manual_seed(0)
    if kind == "timm":
        arguments = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
        config = TimmWrapperConfig(
            architecture="vit_tiny_patch16_224", model_args=arguments, num_labels=5, do_pooling=True
        )
        return TimmWrapperForImageClassification(config).eval()
    config = (
        ViTConfig(**SIZES, **LABELS)
        if kind == "vit"
        else ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **LABELS)
    )
    return AutoModelForImageClassification.from_config(config).eval()


def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def features_of(model):
    """The inputs of the linear layer."""
    inputs = []
    (last,) = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 5]
    hook = last.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    model(images())
    hook.remove()
    return inputs[0]


@pytest.mark.parametrize("kind", ["vit", "timm", "resnet"])
def test_the_same_features_another_head_and_a_round_trip(kind, tmp_path):
    linear = linear_model(kind)
    x = features_of(linear)
    model = CosineHeadForImageClassification.of(linear, cosine_scale=12.0, learnable_scale=True).eval()
    (head,) = [m for m in model.modules() if isinstance(m, CosineClassifier)]
    w = head.weight
    expected = 12 * (x / x.norm(dim=1, keepdim=True)) @ (w / w.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(model(images()).logits, expected, rtol=1e-5, atol=1e-5)
    assert "scale" in dict(head.named_parameters())
    model.save_pretrained(tmp_path)
    state = torch.get_rng_state()
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state) and type(loaded) is CosineHeadForImageClassification
    assert torch.equal(loaded(images()).logits, model(images()).logits)
    assert loaded.config.num_labels == 5
    if kind == "vit":
        assert loaded.config.id2label == LABELS["id2label"]


def test_attention_types_and_checkpointing(tmp_path):
    model = CosineHeadForImageClassification.of(linear_model("vit"))
    model.save_pretrained(tmp_path)
    eager = AutoModelForImageClassification.from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.bfloat16)
    assert eager.model.config._attn_implementation == "eager"
    assert eager(images().bfloat16(), labels=torch.tensor([0, 1, 4])).loss.dtype == torch.bfloat16
    model.train().gradient_checkpointing_enable({"use_reentrant": False})
    assert any(getattr(m, "gradient_checkpointing", False) for m in model.modules())


def test_a_cosine_head_is_not_replaced():
    model = CosineHeadForImageClassification.of(linear_model("vit"))
    with pytest.raises(ValueError, match="no linear layer, but a CosineClassifier"):
        CosineHeadForImageClassification.of(model)
