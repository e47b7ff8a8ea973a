"""The public interface of a `PeftModel`, for each of our methods: what peft's own methods do, or a refusal by name.

A row of `INTERFACE` is a check of one part of it, in addition to those of `test_common_checks.py`.
"""

import copy
import pickle

import pytest
import torch
from adapters.tiny import IMAGES, LABELS, MERGEABLE, METHODS, NAMES, adapted, bare, logits, shaken, with_head
from peft import PeftModel, get_base_model_state_dict, get_model_status, get_peft_model, set_base_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.hotswap import hotswap_adapter


def layers_of(model):
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def with_second(method, name="vit", **args):
    model = adapted(method, bare(name), modules_to_save=None, **args)
    torch.manual_seed(4)
    model.add_adapter("second", METHODS[method]())
    return model


def base_state(method, name, _):
    """The encoder below comes out under its own names, and goes in again, strictly."""
    before = with_head(name).state_dict()
    model = adapted(method, with_head(name))
    below = get_base_model_state_dict(model)
    assert set(below) == set(before) and all(torch.equal(below[key], before[key]) for key in before)
    other = with_head(name, seed=5).state_dict()
    assert set_base_model_state_dict(model, other, strict=True) == ([], [])
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(with_head(name, seed=5)))


def status(method, name, _):
    model = adapted(method, with_head(name))
    first = get_model_status(model)
    kind = {"adaptformer": "ADAPTFORMER", "ssf": "SSF", "bias": "SSF"}.get(method, "VPT")
    assert first.peft_types == {"default": f"HF_LTSAM_{kind}"} and first.available_adapters == ["default"]
    assert first.devices == {"default": ["cpu"]} and first.merged_adapters == [] and first.enabled is True
    model.add_adapter("second", METHODS[method](modules_to_save=["classifier"]))
    for active, other in (("second", "default"), ("default", "second")):
        model.set_adapter(active)
        now = get_model_status(model)
        assert now.active_adapters == [active] and now.requires_grad == {active: True, other: False}
    model.delete_adapter("default")
    now = get_model_status(model)
    assert now.active_adapters == now.available_adapters == ["second"] == list(now.peft_types)


def widths(method, name, _):
    for layer in layers_of(adapted(method, bare(name), modules_to_save=None)):
        base = layer.get_base_layer()
        inside = getattr(base, "in_features", 3 if isinstance(base, torch.nn.Conv2d) else 16)
        assert (layer.in_features, layer.out_features) == (inside, getattr(base, "out_features", 16)), type(base)


def exported(method, name, _):
    """The program that `torch.export` makes computes the same."""
    model = adapted(method, with_head(name))
    program = torch.export.export(model.get_base_model(), (), {"pixel_values": IMAGES}, strict=False)
    torch.testing.assert_close(program.module()(pixel_values=IMAGES).logits, logits(model))


def weighted_sums(method, name, _):
    model = with_second(method, name)
    with pytest.raises(NotImplementedError, match=r"no weighted sum of adapters \(default, second\). .*set_adapter"):
        model.add_weighted_adapter(["default", "second"], [0.5, 0.5], "sum")


def mixed_batches(method, name, _):
    model = with_second(method, name)
    with pytest.raises(
        NotImplementedError, match=r"whole batch, got adapter_names=\['default', 'second'\]: .*set_adapter"
    ):
        model(pixel_values=IMAGES[:2], adapter_names=["default", "second"])
    assert torch.equal(logits(model), model(pixel_values=IMAGES, adapter_names=None)[0])


def hot_swap(method, name, folder):
    """peft has it for LoRA alone and says so."""
    model = adapted(method, bare(name), modules_to_save=None)
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"Hotswapping only supports LORA but HF_LTSAM_.* was passed"):
        hotswap_adapter(model, folder, "default", torch_device="cpu")


def lora_conversion(method, name, _):
    assert adapted(method, bare(name), modules_to_save=None).supports_lora_conversion() is False


def merging_twice(method, name, _):
    model = adapted(method, bare(name), modules_to_save=None)
    if method not in MERGEABLE:
        return  # refused: test_common_checks.test_merging
    model.merge_adapter()
    merged = logits(model)
    with pytest.warns(UserWarning, match="already merged, nothing to do"):
        model.merge_adapter()
    assert torch.equal(logits(model), merged) and get_model_status(model).merged_adapters == ["default"]
    with pytest.raises(ValueError, match=r"while they are merged. Please unmerge them first"):
        model.delete_adapter("default")
    model.unmerge_adapter()
    with pytest.warns(UserWarning, match="Already unmerged"):
        model.unmerge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(bare(name)))


def disabling_while_merged(method, name, _):
    if method not in MERGEABLE:
        return
    model = adapted(method, bare(name), modules_to_save=None)
    model.merge_adapter()
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(bare(name)))
    torch.testing.assert_close(logits(model), logits(adapted(method, bare(name), modules_to_save=None)))


def damaged(method, name, _):
    if method not in MERGEABLE:
        return
    for value in (torch.nan, torch.inf):
        model = adapted(method, bare(name), modules_to_save=None)
        next(p for p in model.parameters() if p.requires_grad).data[0] = value
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match="'default' is damaged: merged, it gives weights that are not finite"):
            model.merge_adapter(safe_merge=True)
        model.unmerge_adapter()
        assert all(torch.equal(v.nan_to_num(), before[k].nan_to_num()) for k, v in model.state_dict().items())


def merging_one_of_two(method, name, _):
    if method not in MERGEABLE:
        return
    model = with_second(method, name)
    first = logits(model)
    model.merge_adapter(adapter_names=["default"])
    torch.testing.assert_close(logits(model), first)
    model.unmerge_adapter()
    with pytest.raises(ValueError, match="merges one adapter at a time, got default, second"):
        model.merge_adapter(adapter_names=["default", "second"])
    assert torch.equal(logits(model), first)


def deleting(method, name, _):
    model = with_second(method, name)
    first = logits(model)
    with pytest.raises(ValueError, match="Adapter third does not exist"):
        model.delete_adapter("third")
    model.delete_adapter("second")  # the inactive one
    assert torch.equal(logits(model), first)
    model.delete_adapter("default")
    assert torch.equal(logits(model.base_model.model), logits(bare(name)))
    for layer in layers_of(model):
        assert not layer._all_available_adapter_names() and layer.active_adapters == []


def unknown_and_taken_names(method, name, _):
    model = with_second(method, name)
    with pytest.raises(ValueError, match="Adapter third not found"):
        model.set_adapter("third")
    with pytest.raises(ValueError, match="Adapter with name 'second' already exists"):
        model.add_adapter("second", METHODS[method]())
    assert sorted(model.peft_config) == ["default", "second"]


def disabling_is_undone(method, name, _):
    model = adapted(method, bare(name), modules_to_save=None)
    with model.disable_adapter():
        assert all(layer.disable_adapters for layer in layers_of(model))
        assert get_model_status(model).enabled is False
    assert not any(layer.disable_adapters for layer in layers_of(model))
    model.base_model.disable_adapter_layers()
    with model.disable_adapter():
        pass
    assert all(layer.disable_adapters for layer in layers_of(model))
    model.base_model.enable_adapter_layers()
    layers_of(model)[0].enable_adapters(False)
    with (
        pytest.warns(UserWarning, match="layers that are enabled and others that are disabled"),
        model.disable_adapter(),
    ):
        pass


def selected_adapters(method, name, folder):
    model = with_second(method, name)
    model.save_pretrained(folder, selected_adapters=["second"])
    assert (folder / "second" / "adapter_model.safetensors").is_file()
    assert not (folder / "adapter_model.safetensors").exists()
    with pytest.raises(ValueError, match="invalid `selected_adapters`"):
        model.save_pretrained(folder, selected_adapters=["third"])
    loaded = PeftModel.from_pretrained(bare(name), folder / "second", adapter_name="other").eval()
    model.set_adapter("second")
    assert torch.equal(logits(loaded), logits(model))


def loading_a_second(method, name, folder):
    adapted(method, bare(name), seed=6, modules_to_save=None).save_pretrained(folder)
    wanted = logits(adapted(method, bare(name), seed=6, modules_to_save=None))
    for low_memory in (False, True):
        model = adapted(method, bare(name), modules_to_save=None)
        first = logits(model)
        result = model.load_adapter(folder, "second", low_cpu_mem_usage=low_memory)
        assert not result.unexpected_keys and not [k for k in result.missing_keys if "second" in k]
        assert torch.equal(logits(model), first)
        model.set_adapter("second")
        assert torch.equal(logits(model), wanted)


def names_within_names(method, name, folder):
    """An adapter whose name begins like another's, or like a part of the encoder."""
    model = adapted(method, bare(name), modules_to_save=None)
    wanted = logits(model)
    for other in ("layer", "base_layer_2", "default2"):
        model.add_adapter(other, METHODS[method]())
    model.save_pretrained(folder, selected_adapters=["default"])
    assert torch.equal(logits(PeftModel.from_pretrained(bare(name), folder).eval()), wanted)


def trained_weights(method, name, folder):
    """requires_grad follows the active adapter, is_trainable and set_requires_grad."""
    model = with_second(method, name)
    model.save_pretrained(folder)
    model.set_requires_grad("second", True)
    model.set_requires_grad("default", False)
    assert get_model_status(model).requires_grad == {"default": False, "second": True}
    model.set_adapter("default", inference_mode=True)
    assert not any(p.requires_grad for p in model.parameters())
    for is_trainable in (False, True):
        loaded = PeftModel.from_pretrained(bare(name), folder, is_trainable=is_trainable)
        assert get_model_status(loaded).requires_grad == {"default": is_trainable}
        assert loaded.peft_config["default"].inference_mode is not is_trainable
        loaded.set_adapter("default")
        assert get_model_status(loaded).requires_grad == {"default": True}


def copies(method, name, _):
    model = adapted(method, bare(name), modules_to_save=None)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin), logits(model))
        assert twin.peft_config["default"].peft_type is model.peft_config["default"].peft_type
        shaken(twin, 9)
        assert not torch.equal(logits(twin), logits(model))


def half_precision(method, name, _):
    model = adapted(method, bare(name).half(), modules_to_save=None)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert logits(model, IMAGES.half()).isfinite().all()
    model = model.half()
    assert logits(model, IMAGES.half()).isfinite().all()
    if method in MERGEABLE:
        assert {p.dtype for p in model.merge_and_unload().parameters()} == {torch.float16}


def checkpointed_by_the_model(method, name, _):
    """Also where peft makes the embeddings require gradients, as re-entrant checkpoints need."""
    model = adapted(method, with_head(name)).train()
    trained = [p for p in model.parameters() if p.requires_grad]

    def gradients():
        loss = torch.nn.functional.cross_entropy(model(pixel_values=IMAGES)[0], LABELS)
        return torch.autograd.grad(loss, trained, allow_unused=True)

    plain = gradients()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for a, b in zip(gradients(), plain, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.allclose(a, b, atol=1e-6))


def injected(method, name, _):
    """`inject_adapter_in_model`, as transformers' `add_adapter` does it."""
    from peft import inject_adapter_in_model

    torch.manual_seed(3)
    model = shaken(inject_adapter_in_model(METHODS[method](), bare(name)), 1, trainable_only=True)
    assert torch.equal(logits(model), logits(adapted(method, bare(name), modules_to_save=None)))
    on_meta = inject_adapter_in_model(METHODS[method](), bare(name), low_cpu_mem_usage=True)
    assert {p.device.type for p in on_meta.parameters() if p.requires_grad} == {"meta"}


def wrapped_again(method, name, _):
    """After `unload` nothing is left, and another method may follow."""
    plain = adapted(method, bare(name), modules_to_save=None).unload()
    assert not layers_of(plain) and not hasattr(plain, "peft_config")
    assert get_peft_model(plain, METHODS["ssf"]()).peft_type == "HF_LTSAM_SSF"


INTERFACE = [
    base_state,
    status,
    widths,
    exported,
    weighted_sums,
    mixed_batches,
    hot_swap,
    lora_conversion,
    merging_twice,
    disabling_while_merged,
    damaged,
    merging_one_of_two,
    deleting,
    unknown_and_taken_names,
    disabling_is_undone,
    selected_adapters,
    loading_a_second,
    names_within_names,
    trained_weights,
    copies,
    half_precision,
    checkpointed_by_the_model,
    injected,
    wrapped_again,
]
DEPENDS_ON_THE_ENCODER = {base_state, status, widths, exported, loading_a_second}
CASES = [
    (check, method, name)
    for check in INTERFACE
    for method in METHODS
    for name in (NAMES if check in DEPENDS_ON_THE_ENCODER else ["vit"])
]


@pytest.mark.parametrize(("check", "method", "name"), CASES, ids=[f"{c.__name__}-{m}-{n}" for c, m, n in CASES])
@pytest.mark.filterwarnings("ignore:Adapter .* was active which is now deleted")
def test_the_interface_of_peft(check, method, name, tmp_path):
    check(method, name, tmp_path)
