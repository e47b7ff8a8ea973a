"""SigLIPs of open_clip as transformers': the same numbers."""

import json

import pytest
import torch
from models.clips import NAMES

from hf_ltsam.models import ClipForLongTail
from hf_ltsam.models.clip_source import load_clip

open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")


@timm.models.register_model
def vit_tests_siglip(pretrained=False, **kwargs):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        num_classes=kwargs["num_classes"],
        img_size=16,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=4,
        mlp_ratio=1.5,
        class_token=False,
        global_pool="map",
    )


def a_siglip(folder, tanh):
    """As ViT-B-16-SigLIP but small, every weight random; tanh: the activations of SigLIP 2's text tower."""
    text = {
        "context_length": 9,
        "vocab_size": 60,
        "width": 24,
        "heads": 2,
        "layers": 3,
        "mlp_ratio": 2.5,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
        **({"act_kwargs": {"approximate": "tanh"}} if tanh else {}),
    }
    vision = {
        "image_size": 16,
        "timm_model_name": "vit_tests_siglip",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    }
    name = f"siglip-tests-{tanh}"
    (folder / f"{name}.json").write_text(
        json.dumps(
            {"embed_dim": 32, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
        )
    )
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained_image=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    torch.save(model.state_dict(), folder / f"{name}.pt")
    return model, f"open_clip:{name}/{folder / f'{name}.pt'}"


@pytest.mark.parametrize("tanh", [False, True])
def test_equal_logits_and_features(tmp_path, tanh):
    theirs, name = a_siglip(tmp_path, tanh)
    source = load_clip(name)
    x, tokens = torch.randn(3, 3, 16, 16), torch.randint(0, 60, (4, 9))
    with torch.no_grad():
        image, text, scale, bias = theirs(x, tokens)
        outputs = source.text.clip(pixel_values=x, input_ids=tokens)
        features = source.vision_model(x).pooler_output
    torch.testing.assert_close(outputs.logits_per_image, scale * image @ text.T + bias, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.nn.functional.normalize(features), image, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.text_embeds, text, rtol=0, atol=1e-5)


def test_a_classifier_on_it(tmp_path, monkeypatch):
    """The tokenizer of real SigLIPs comes from the Hub; here every text has its own tokens."""
    theirs, name = a_siglip(tmp_path, tanh=False)

    def tokenize(texts):
        return torch.tensor([[1 + ord(c) % 59 for c in f"{text:9.9}"] for text in texts])

    monkeypatch.setattr(open_clip, "get_tokenizer", lambda _: tokenize)
    model = ClipForLongTail.from_clip(name, NAMES, ("{}",), progress=False)
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        image, text, *_ = theirs(x, tokenize([n.replace("_", " ") for n in NAMES]))
        torch.testing.assert_close(model(x).logits, 25 * image @ text.T, rtol=0, atol=1e-4)
    assert model.config.vision_config.model_type == "siglip_vision_model"
