"""peft's requirements of every tuner, for each of ours in each encoder: a new method is a row in `tiny.METHODS`."""

import copy
import json

import pytest
import torch
from adapters.tiny import (
    IMAGES,
    LABELS,
    MERGEABLE,
    METHODS,
    NAMES,
    NUM_CLASSES,
    TOWER,
    adapted,
    bare,
    logits,
    shaken,
    with_head,
)
from peft import PeftModel, get_model_status, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

cases = [(method, name) for method in METHODS for name in NAMES]
every_case = pytest.mark.parametrize(("method", "name"), cases, ids=[f"{m}-{n}" for m, n in cases])


@every_case
def test_at_the_start(method, name):
    """AdaptFormer and SSF start as the identity, bit for bit; prompts do not."""
    before = logits(with_head(name))
    after = logits(adapted(method, with_head(name), seed=None))
    assert torch.equal(before, after) == (not method.startswith("vpt"))
    assert after.isfinite().all() and not torch.equal(logits(adapted(method, with_head(name))), after)


@every_case
def test_save_and_load(method, name, tmp_path):
    model = adapted(method, with_head(name))
    model.save_pretrained(tmp_path)
    for adapter in ("default", "another"):
        loaded = PeftModel.from_pretrained(with_head(name), tmp_path, adapter_name=adapter).eval()
        assert torch.equal(logits(loaded), logits(model))
        assert not any(p.requires_grad for p in loaded.parameters())
    trainable = PeftModel.from_pretrained(with_head(name), tmp_path, is_trainable=True)
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names == {n for n, p in trainable.named_parameters() if p.requires_grad}
    small = PeftModel.from_pretrained(with_head(name), tmp_path, low_cpu_mem_usage=True).eval()
    assert torch.equal(logits(small), logits(model))


@every_case
def test_state_dict_keys(method, name, tmp_path):
    """Without the adapter's name, and nothing of the encoder."""
    model = adapted(method, with_head(name), seed=1)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    prefix = model.base_model.prefix
    of_adapter = {key for key in saved if f".{prefix}" in key}
    heads = {f"base_model.model.classifier.{part}" for part in ("weight", "bias")}
    assert set(saved) == of_adapter | heads and of_adapter
    assert not any("default" in key or "base_layer.weight" in key for key in saved)
    assert set(saved) == set(get_peft_model_state_dict(model))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(t.numel() for t in saved.values()) == trained
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["peft_type"].startswith("HF_LTSAM_") and settings["target_modules"]


@every_case
def test_a_disabled_adapter_leaves_the_original_model(method, name):
    before = logits(with_head(name))
    model = adapted(method, with_head(name))
    trained = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(model), trained) and not torch.equal(trained, before)


@every_case
def test_several_adapters(method, name):
    model = adapted(method, with_head(name), seed=1)
    first = logits(model)
    torch.manual_seed(3)
    model.add_adapter("second", METHODS[method](modules_to_save=["classifier"]))
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    shaken(model, 2, trainable_only=True)
    second = logits(model)
    assert not torch.equal(second, first)
    assert all(".second" in n for n, p in model.named_parameters() if p.requires_grad)
    alone = adapted(method, with_head(name), seed=2)
    assert torch.equal(logits(alone), second)  # the first left no trace
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.delete_adapter("second")
    assert torch.equal(logits(model), first) and not any("second" in n for n, _ in model.named_parameters())


@every_case
def test_unloading(method, name):
    before = bare(name)
    model = adapted(method, bare(name), modules_to_save=None)
    plain = model.unload()
    assert torch.equal(logits(plain), logits(before))
    assert set(plain.state_dict()) == set(before.state_dict())
    again = adapted(method, plain, modules_to_save=None)
    assert torch.equal(logits(again), logits(adapted(method, bare(name), modules_to_save=None)))


def gradients_of(model):
    """Gradients of all trained weights; transformers' head for CLIP does not use the last layer norm."""
    trained = {
        n: p.grad for n, p in model.named_parameters() if p.requires_grad and "vision_model.post_layernorm" not in n
    }
    return list(trained.values())


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_adapters_on_request(method):
    model = get_peft_model(with_head("vit").bfloat16(), METHODS[method](), autocast_adapter_dtype=False)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert logits(model, IMAGES.bfloat16()).isfinite().all()


@every_case
def test_half_precision_base(method, name):
    model = get_peft_model(with_head(name).bfloat16(), METHODS[method](modules_to_save=["classifier"]))
    of_adapter = [p for n, p in model.named_parameters() if f".{model.base_model.prefix}" in n]
    assert {p.dtype for p in of_adapter} == {torch.float32}
    if not method.startswith("vpt"):
        assert torch.equal(
            logits(model.eval(), IMAGES.bfloat16()), logits(with_head(name).bfloat16(), IMAGES.bfloat16())
        )
    with torch.autocast("cpu", torch.bfloat16):  # as bf16 training does; the head of peft is float32 here
        model(pixel_values=IMAGES.bfloat16())[0].float().sum().backward()
    assert all(g.isfinite().all() for g in gradients_of(model))


@every_case
def test_autocast(method, name):
    model = adapted(method, with_head(name))
    with torch.autocast("cpu", torch.bfloat16):
        half = model(pixel_values=IMAGES)[0]
        half.float().sum().backward()
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), logits(model), rtol=0.1, atol=0.15)
    assert all(g.isfinite().all() for g in gradients_of(model))


@every_case
def test_training_changes_the_adapter_and_the_head_alone(method, name):
    model = adapted(method, with_head(name)).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(pixel_values=IMAGES)[0], LABELS).backward()
        optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    allowed = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(f".{model.base_model.prefix}" in n or "classifier.modules_to_save.default" in n for n in allowed)
    assert changed <= allowed
    # a key's bias moves all scores of a query alike, and CLIP's head does not use the last layer norm
    assert all("k_proj.ssf_shift" in n or "vision_model.post_layernorm" in n for n in allowed - changed)


@every_case
def test_merging(method, name, tmp_path):
    model = adapted(method, with_head(name).double())
    trained = logits(model, IMAGES.double())
    if method not in MERGEABLE:
        for merge in (model.merge_and_unload, model.merge_adapter):
            with pytest.raises(
                NotImplementedError, match=r"cannot be merged into the encoder: .*PeftModel.from_pretrained"
            ):
                merge()
        assert torch.equal(logits(model, IMAGES.double()), trained)
        return
    before = copy.deepcopy(model.state_dict())
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(logits(model, IMAGES.double()), trained, rtol=0, atol=1e-12)
    model.unmerge_adapter()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    plain = model.merge_and_unload()
    assert set(plain.state_dict()) == set(with_head(name).state_dict())
    plain.save_pretrained(tmp_path)
    loaded = type(plain).from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(logits(loaded, IMAGES.double()), trained, rtol=0, atol=1e-12)


@every_case
def test_activation_checkpointing(method, name):
    """The same gradients, with frozen embeddings before the first block."""
    model = adapted(method, with_head(name).double()).train()
    trained = [p for p in model.parameters() if p.requires_grad]

    def gradients():
        loss = torch.nn.functional.cross_entropy(model(pixel_values=IMAGES.double())[0], LABELS)
        return torch.autograd.grad(loss, trained, allow_unused=True)

    plain = gradients()
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    calls = []
    mlps = [m for n, m in model.named_modules() if type(m).__name__.endswith("MLP") and ".layer" in n]
    for mlp in mlps:
        mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    for a, b in zip(gradients(), plain, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    assert len(calls) == 2 * len(mlps) == 6, "every block ran twice"


@every_case
def test_a_copy_is_independent(method, name):
    model = adapted(method, with_head(name))
    twin = copy.deepcopy(model)
    before = logits(model)
    assert torch.equal(logits(twin), before)
    shaken(twin, 5)
    assert torch.equal(logits(model), before) and not torch.equal(logits(twin), before)


@every_case
def test_status_and_trainable_parameters_in_peft(method, name, capsys):
    model = adapted(method, with_head(name))
    model.print_trainable_parameters()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f"trainable params: {trained:,}" in capsys.readouterr().out
    status = get_model_status(model)
    assert (
        status.enabled is True and status.active_adapters == ["default"] and status.requires_grad == {"default": True}
    )


@every_case
def test_another_number_of_classes_is_refused(method, name, tmp_path):
    adapted(method, with_head(name)).save_pretrained(tmp_path)
    other = with_head(name)
    other.classifier = torch.nn.Linear(other.classifier.in_features, NUM_CLASSES + 2)
    with pytest.raises(
        ValueError,
        match=rf"does not fit this model: .*classifier.*\({NUM_CLASSES}.* in the file and \(7.*number of classes",
    ):
        PeftModel.from_pretrained(other, tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_another_width_is_refused(method, tmp_path):
    from transformers import ViTConfig, ViTModel

    adapted(method, bare("vit"), modules_to_save=None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not fit this model"):
        PeftModel.from_pretrained(ViTModel(ViTConfig(**{**TOWER, "hidden_size": 32})), tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_unknown_encoders_are_refused_with_the_known_ones(method):
    from transformers import ConvNextConfig, ConvNextForImageClassification

    model = ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[4, 4, 4, 4], depths=[1, 1, 1, 1]))
    known = "clip_vision_model, dinov2, siglip_vision_model, vit"
    with pytest.raises(ValueError, match=rf"ConvNextForImageClassification \(model_type 'convnext'\) are.*{known}"):
        get_peft_model(model, METHODS[method]())


@pytest.mark.parametrize("method", ["vpt_deep", "ssf"])
def test_two_active_adapters_are_refused(method):
    model = adapted(method, bare("vit"), modules_to_save=None)
    model.add_adapter("second", METHODS[method]())
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ValueError, match=r"'default' and 'second' are active at once.*set_adapter\('default'\)"):
        logits(model)


def test_a_part_of_the_blocks():
    """`target_modules` narrows, `exclude_modules` leaves out."""
    for method in METHODS:
        everywhere = set(adapted(method, bare("vit"), modules_to_save=None).targeted_module_names)
        some = adapted(method, bare("vit"), modules_to_save=None, exclude_modules=r"layers\.0(\..*)?")
        assert set(some.targeted_module_names) == {n for n in everywhere if not n.startswith("layers.0")}
        assert logits(some).isfinite().all()
