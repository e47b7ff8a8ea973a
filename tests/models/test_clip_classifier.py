"""CLIP's and SigLIP's image tower with a cosine classifier: forward by hand, saving, types, saved activations."""

import inspect
import subprocess

import pytest
import torch
import torch.nn.functional as F
from forked import PYTHON
from models.clips import NAMES, transformers_clip
from transformers import AutoModelForImageClassification, CLIPImageProcessor, pipeline

from hf_ltsam.models import ClipForLongTail, ClipForLongTailConfig

KINDS = ("clip", "siglip")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}


def a_model(kind="clip", seed=0, attn=None, **settings):
    torch.manual_seed(seed)
    config = ClipForLongTailConfig(
        vision_config={"model_type": f"{kind}_vision_model", **SIZES}, num_labels=5, **settings
    )
    model = ClipForLongTail._from_config(config, attn_implementation=attn)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def images(n=3, dtype=torch.float32):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_clip_by_hand():
    """Radford et al. 2021: patches, class token, norm, pre-norm blocks with quick-GELU; the class token, normed again."""
    model = a_model(cosine_scale=20.0).double()
    w = {k.removeprefix("vision_model."): v for k, v in model.state_dict().items()}

    def norm(x, name):
        return F.layer_norm(x, (32,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = images(dtype=torch.float64)
    patches = F.conv2d(x, w["embeddings.patch_embedding.weight"], stride=8).flatten(2).transpose(1, 2)
    h = (
        torch.cat([w["embeddings.class_embedding"].expand(3, 1, 32), patches], 1)
        + w["embeddings.position_embedding.weight"]
    )
    h = norm(h, "pre_layrnorm")
    for k in range(3):
        block = f"encoder.layers.{k}"
        y = norm(h, f"{block}.layer_norm1")
        q, key, v = (linear(y, f"{block}.self_attn.{p}_proj").view(3, 5, 4, 8).transpose(1, 2) for p in "qkv")
        mixed = ((q @ key.transpose(2, 3)) / 8**0.5).softmax(-1) @ v
        h = h + linear(mixed.transpose(1, 2).reshape(3, 5, 32), f"{block}.self_attn.out_proj")
        y = linear(norm(h, f"{block}.layer_norm2"), f"{block}.mlp.fc1")
        h = h + linear(y * torch.sigmoid(1.702 * y), f"{block}.mlp.fc2")
    feature = norm(h[:, 0], "post_layernorm")
    cosine = (feature / feature.norm(dim=1, keepdim=True)) @ (
        w["classifier.weight"] / w["classifier.weight"].norm(dim=1, keepdim=True)
    ).T
    torch.testing.assert_close(model.features(x), feature, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model(x).logits, 20 * cosine, rtol=1e-10, atol=1e-10)


def test_the_feature_of_siglip_is_its_attention_pooling():
    model = a_model("siglip")
    tokens = model.vision_model(images()).last_hidden_state
    torch.testing.assert_close(model.features(images()), model.vision_model.head(tokens))


def test_loss_is_plain_cross_entropy_if_labels_are_given():
    model, labels = a_model(), torch.tensor([0, 4, 2])
    outputs = model(images(), labels=labels)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, labels))
    assert model(images()).loss is None
    kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    assert inspect.Parameter.VAR_KEYWORD not in kinds  # the Trainer would stop dividing by accumulation steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("learnable", [False, True])
def test_round_trip_through_the_auto_class(tmp_path, kind, learnable):
    model = a_model(kind, cosine_scale=12.0, learnable_scale=learnable, image_mean=[0.1, 0.2, 0.3])
    model.save_pretrained(tmp_path)
    state = torch.get_rng_state()
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was initialised that was then overwritten
    assert type(loaded) is ClipForLongTail and not loaded.training
    assert {k: v.tolist() for k, v in loaded.state_dict().items()} == {
        k: v.tolist() for k, v in model.state_dict().items()
    }
    assert torch.equal(loaded(images()).logits, model(images()).logits)
    assert isinstance(loaded.classifier.scale, torch.nn.Parameter) is learnable
    assert tuple(loaded.config.image_mean) == (0.1, 0.2, 0.3) and loaded.config.cosine_scale == 12.0
    assert loaded.config.vision_config.model_type == f"{kind}_vision_model"


def test_another_number_of_classes_gets_new_unit_vectors_on_the_same_tower(tmp_path):
    model = a_model()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=9, ignore_mismatched_sizes=True)
    assert loaded.classifier.weight.shape == (9, 32) and loaded.config.num_labels == 9
    torch.testing.assert_close(loaded.classifier.weight.norm(dim=1), torch.ones(9))
    torch.testing.assert_close(loaded.features(images()), model.features(images()), rtol=0, atol=0)


def test_it_serves_a_pipeline(tmp_path):
    from PIL import Image

    folder = tmp_path / "clip"
    transformers_clip(folder)
    model = ClipForLongTail.from_clip(str(folder), NAMES, progress=False)
    model.save_pretrained(tmp_path / "model")
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor.save_pretrained(tmp_path / "model")
    image = Image.effect_noise((40, 30), 50).convert("RGB")
    best = pipeline("image-classification", model=str(tmp_path / "model"), device="cpu")(image)[0]
    logits = model(**processor(image, return_tensors="pt")).logits[0]
    assert best["label"] == NAMES[int(logits.argmax())]
    assert best["score"] == pytest.approx(float(logits.softmax(0).max()), rel=1e-4)


@pytest.mark.slow  # a process of its own
def test_the_same_logits_in_a_fresh_process(tmp_path):
    model = a_model()
    model.save_pretrained(tmp_path)
    torch.save(images(), tmp_path / "x.pt")
    code = f"""
import hf_ltsam.models, torch
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained({str(tmp_path)!r})
torch.save(model(torch.load({str(tmp_path / "x.pt")!r})).logits.detach(), {str(tmp_path / "y.pt")!r})
"""
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "y.pt"), model(images()).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_near_float32(kind, tmp_path):
    model = a_model(kind)
    model.save_pretrained(tmp_path)
    half = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    logits = half(images(dtype=torch.bfloat16)).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), model(images()).logits, rtol=0, atol=0.5)  # logits reach 25


@pytest.mark.parametrize("kind", KINDS)
def test_eager_attention_gives_the_same_and_second_derivatives(kind, tmp_path):
    a_model(kind).save_pretrained(tmp_path)
    fused, eager = (
        AutoModelForImageClassification.from_pretrained(tmp_path, attn_implementation=a).double()
        for a in ("sdpa", "eager")
    )
    x = images(dtype=torch.float64)
    torch.testing.assert_close(eager(x).logits, fused(x).logits, rtol=0, atol=1e-5)  # its softmax is float32
    assert eager.vision_model.encoder.layers[0].self_attn.config._attn_implementation == "eager"
    weights = [p for p in eager.parameters() if p.requires_grad]
    labels = torch.tensor([0, 1, 2])
    gradients = torch.autograd.grad(eager(x, labels=labels).loss, weights, create_graph=True)
    norm = sum(g.square().sum() for g in gradients)
    second = torch.autograd.grad(norm, weights)  # 2 H g
    assert all(g.isfinite().all() for g in second) and any(g.abs().max() > 0 for g in second)


def kept_bytes(model, x):
    """Bytes that autograd keeps for the backward pass, apart from the weights."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = model(x, labels=torch.zeros(len(x), dtype=torch.long)).loss
    return sum(kept.values()), loss


@pytest.mark.parametrize("kind", KINDS)
def test_activation_checkpointing_keeps_less_and_gives_the_same_gradients(kind):
    model, x = a_model(kind).train(), images()
    all_of_it, loss = kept_bytes(model, x)
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    little, loss = kept_bytes(model, x)
    loss.backward()
    assert little < 0.6 * all_of_it
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, expected[name], msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_frozen_trunk_keeps_nothing_that_no_gradient_needs(kind):
    """Below the first trained weight autograd records nothing, above it a frozen linear layer keeps no input.

    No `no_grad` in the model could save more.
    """
    model, x = a_model(kind).train(), images()
    everything, _ = kept_bytes(model, x)
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    head_alone, _ = kept_bytes(model, x)
    assert not model.features(x).requires_grad
    assert head_alone <= 8 * x.shape[0] * (32 + 5) * 4 + 8 * 5 * 32 * 4  # a few features, logits and class vectors
    block = model.vision_model.encoder.layers[1]
    block.mlp.fc2.bias.requires_grad_(True)  # from the middle block on
    entered = []
    hook = block.register_forward_hook(lambda _, inputs, __: entered.append(inputs[0]))
    half, _ = kept_bytes(model, x)
    hook.remove()
    assert not entered[0].requires_grad  # neither embeddings nor the first block are in the graph
    assert half < 0.45 * everything


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ClipForLongTailConfig(cosine_scale=0), r"cosine_scale=.*positive.*0"),
        (
            lambda: ClipForLongTailConfig(vision_config={"model_type": "vit"}),
            r"'vit'.*clip_vision_model, siglip_vision_model",
        ),
        (
            lambda: ClipForLongTailConfig(
                vision_config={"model_type": "siglip_vision_model", "vision_use_head": False}
            ),
            "vision_use_head=True",
        ),
    ],
)
def test_invalid_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_changed_configuration_is_checked_again():
    config = ClipForLongTailConfig(vision_config=SIZES)
    config.cosine_scale = -1.0
    with pytest.raises(ValueError, match=r"cosine_scale=.*-1"):
        ClipForLongTail(config)


def test_a_fixed_scale_may_become_learnable(tmp_path):
    a_model(cosine_scale=12.0).save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path, learnable_scale=True)
    assert loaded.classifier.scale.item() == 12.0
