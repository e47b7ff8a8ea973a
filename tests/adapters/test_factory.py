"""Kinds of fine-tuning by name."""

import copy

import pytest
import torch
from adapters.tiny import NAMES, NUM_CLASSES, bare, logits, shaken, with_head
from peft import PeftModel
from torch import nn

from hf_ltsam.adapters import ADAPTERS, make_adapter
from hf_ltsam.adapters.factory import adapter_names
from hf_ltsam.models import CosineClassifier
from hf_ltsam.models.classifier import classifier_of

OF_PEFT = ["ln_tuning", "lora", "dora", "ia3", "linear_probe"]
# Ours are checked in every encoder by test_common_checks.py.
CASES = [
    (adapter, name) for adapter in [*ADAPTERS, "linear_probe"] for name in NAMES if adapter in OF_PEFT or name == "vit"
]


def with_cosine_head(name):
    model = with_head(name)
    model.classifier = CosineClassifier(model.classifier.in_features, NUM_CLASSES, scale=25)
    return model.eval()


@pytest.mark.parametrize(("adapter", "name"), CASES)
def test_trains_and_round_trips(adapter, name, tmp_path):
    model = make_adapter(with_head(name), adapter, num_classes=NUM_CLASSES)
    assert isinstance(model, PeftModel)
    assert classifier_of(model, NUM_CLASSES) is model.get_base_model().classifier.modules_to_save["default"]
    shaken(model, 4, trainable_only=True)
    base = with_head(name)
    assert not torch.equal(logits(model), logits(base))
    model.save_pretrained(tmp_path)
    whole = sum(p.numel() * p.element_size() for p in base.parameters())
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < whole
    assert torch.equal(logits(PeftModel.from_pretrained(base, tmp_path).eval()), logits(model))
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(with_head(name)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("adapter", "last_names"),
    [
        ("lora", {"q_proj", "v_proj"}),
        ("dora", {"q_proj", "v_proj"}),
        ("ia3", {"k_proj", "v_proj", "fc2"}),
        ("adaptformer", {"mlp"}),
    ],
)
def test_adapted_modules(adapter, last_names, name):
    model = make_adapter(with_head(name), adapter, num_classes=NUM_CLASSES)
    older = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}  # DINOv2's in transformers 5.10
    targets = {n.rpartition(".")[2] for n in model.targeted_module_names}
    assert {older.get(n, n) for n in targets} == last_names
    assert len(model.targeted_module_names) == 3 * len(last_names)
    assert all(".layer" in f".{n}" for n in model.targeted_module_names)


@pytest.mark.parametrize("name", NAMES)
def test_layer_norms_of_the_blocks(name):
    model = make_adapter(with_head(name), "ln_tuning", num_classes=NUM_CLASSES)
    assert len(model.targeted_module_names) == 6
    assert all(
        isinstance(model.get_base_model().get_submodule(n).get_base_layer(), nn.LayerNorm)
        for n in model.targeted_module_names
    )


def test_arguments_reach_the_configuration():
    model = make_adapter(with_head("vit"), "lora", {"r": 3, "lora_alpha": 6, "target_modules": ["fc1"]}, NUM_CLASSES)
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.target_modules, config.modules_to_save) == (
        3,
        6,
        {"fc1"},
        ["classifier"],
    )
    assert make_adapter(with_head("vit"), "dora", {"r": 2}, NUM_CLASSES).peft_config["default"].use_dora is True
    named = make_adapter(with_head("vit"), "dora", {"target_modules": ["fc1"]}, NUM_CLASSES).peft_config["default"]
    assert named.use_dora is True and named.target_modules == {"fc1"}
    prompts = make_adapter(with_head("vit"), "vpt_shallow", {"num_tokens": 4}, NUM_CLASSES).peft_config["default"]
    assert (prompts.num_tokens, prompts.deep) == (4, False)


def test_the_width_of_adaptformer():
    by_rule = make_adapter(with_head("vit"), "adaptformer", num_classes=NUM_CLASSES).peft_config["default"]
    explicit = make_adapter(with_head("vit"), "adaptformer", {"bottleneck": 6}, NUM_CLASSES).peft_config["default"]
    assert (by_rule.num_classes, by_rule.bottleneck, explicit.bottleneck) == (NUM_CLASSES, 1, 6)


def test_an_encoder_without_a_head():
    model = make_adapter(bare("clip"), "lora", modules_to_save=[])
    assert all("lora_" in n for n, p in model.named_parameters() if p.requires_grad)
    with pytest.raises(ValueError, match=r"num_classes=\.\.\.: set it, or name the classifier"):
        make_adapter(bare("clip"), "lora")
    with pytest.raises(ValueError, match=r"no trainable nn\.Linear or CosineClassifier has 5 outputs"):
        make_adapter(bare("clip"), "lora", num_classes=5)
    with pytest.raises(ValueError, match="linear_probe trains modules_to_save alone"):
        make_adapter(bare("clip"), "linear_probe", modules_to_save=[])


def test_a_cosine_head():
    plain = with_cosine_head("vit")
    model = make_adapter(copy.deepcopy(plain), "adaptformer", num_classes=NUM_CLASSES)
    assert isinstance(classifier_of(model, NUM_CLASSES), CosineClassifier)
    assert torch.equal(logits(model.eval()), logits(plain))


@pytest.mark.parametrize("adapter", ["lora", "adaptformer"])
def test_a_layer_of_the_adapter_with_as_many_outputs_is_not_the_classifier(adapter):
    args = {"r": NUM_CLASSES} if adapter == "lora" else {"bottleneck": NUM_CLASSES}
    model = make_adapter(with_head("vit"), adapter, args, NUM_CLASSES)
    assert (
        sum(
            isinstance(m, nn.Linear) and m.out_features == NUM_CLASSES and m.weight.requires_grad
            for m in model.modules()
        )
        > 1
    )
    assert classifier_of(model, NUM_CLASSES) is model.get_base_model().classifier.modules_to_save["default"]


@pytest.mark.parametrize("name", NAMES)
def test_full_fine_tuning_is_that_of_the_protocol(name):
    """Blocks and classifier train; embeddings, first and last layer norm, pooling stay."""
    model = make_adapter(with_head(name), "none", num_classes=NUM_CLASSES)
    assert type(model) is type(with_head(name))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    expected = {
        n for n, _ in model.named_parameters() if ".layers." in n or ".layer." in n or n.startswith("classifier")
    }
    assert trained == expected and len(trained) > 3 * 16


def test_linear_probe_trains_the_head_alone(tmp_path):
    model = make_adapter(with_head("vit"), "linear_probe", num_classes=NUM_CLASSES)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained == [f"base_model.model.classifier.modules_to_save.default.{n}" for n in ("weight", "bias")]


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("adaptfromer", {}, r"Unknown adapter 'adaptfromer'. Did you mean 'adaptformer'.* Valid: .*lora"),
        ("lora", {"rank": 4}, r"The adapter 'lora' has no argument 'rank'.*rank_pattern.*Valid"),
        ("none", {"r": 4}, "'none' has no arguments, got r"),
        ("vpt_deep", {"num_tokens": 0}, "num_tokens"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest(name, args, message):
    with pytest.raises(ValueError, match=message):
        make_adapter(with_head("vit"), name, args, NUM_CLASSES)


@pytest.mark.parametrize("name", ["lora", "ln_tuning", "none"])
def test_unknown_encoders_are_refused(name):
    from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification

    model = CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=5))
    with pytest.raises(
        ValueError, match=r"does not know where the blocks of CifarResNet.*clip_vision_model.*(target_modules|Freeze)"
    ):
        make_adapter(model, name, num_classes=5)


def test_other_methods_of_peft():
    names = adapter_names()
    assert {"loha", "lokr", "oft", "vera", "adalora"} <= set(names) and len(names) == len(set(names))
    for name in ("loha", "oft", "vera"):
        args = {"oft_block_size": 4} if name == "oft" else {"r": 2}
        model = make_adapter(with_head("vit"), name, args, NUM_CLASSES)
        assert {n.rpartition(".")[2] for n in model.targeted_module_names} == {"q_proj", "v_proj"}
    assert logits(model).shape == (4, NUM_CLASSES)
