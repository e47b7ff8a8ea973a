"""The CIFAR ResNets: sizes and shortcut by hand, saving and loading, and the requirements of a Trainer."""

import inspect
import subprocess

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forked import PYTHON
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification

from hf_ltsam.models import CifarResNetConfig, CifarResNetForImageClassification, CosineClassifier


def a_model(seed=0, **settings):
    torch.manual_seed(seed)
    return CifarResNetForImageClassification(CifarResNetConfig(**{"depth": 8, "num_labels": 5, **settings}))


def trained(model):
    """Random weights and running statistics, unlike any initialisation."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + (0.5 if name.endswith("running_var") else -0.4))
            else:
                tensor.fill_(7)
    return model


def images(n=3, size=8, channels=3, dtype=torch.float32):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("depth, count", [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_parameter_counts(depth, count):
    """By hand for ResNet-32: stem 464, stages 23,360 + 88,192 + 351,488, classifier 650; option A adds none."""
    n = (depth - 2) // 6
    conv_bn = lambda a, b: 9 * a * b + 2 * b  # noqa: E731
    stages = 2 * n * conv_bn(16, 16)
    for a, b in ((16, 32), (32, 64)):
        stages += conv_bn(a, b) + (2 * n - 1) * conv_bn(b, b)
    assert conv_bn(3, 16) + stages + 64 * 10 + 10 == count
    model = a_model(depth=depth, num_labels=10)
    assert sum(p.numel() for p in model.parameters()) == count == model.num_parameters()
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth


def test_grey_images_another_width_and_a_cosine_head():
    model = a_model(num_channels=1, width=4, head="cosine", num_labels=7, cosine_scale=16.0)
    assert model(images(channels=1)).logits.shape == (3, 7)
    assert model.classifier.weight.shape == (7, 16) and model.classifier.scale == 16.0
    assert not hasattr(model.classifier, "bias")


@pytest.mark.parametrize("size", [8, 28, 32, 33])
def test_image_sizes(size):
    assert a_model()(images(size=size)).logits.shape == (3, 5)


def test_forward_by_hand():
    """ResNet-8 in evaluation mode with functional operations only (He et al. 2016, Fig. 2 and Sec. 4.2, option A)."""
    model = trained(a_model()).eval().double()
    weights = model.state_dict()

    def conv_bn(x, conv, bn, stride):
        x = F.conv2d(x, weights[f"{conv}.weight"], stride=stride, padding=1)
        mean, variance, scale, shift = (
            weights[f"{bn}.{k}"].view(-1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift

    x = images(dtype=torch.float64)
    h = conv_bn(x, "conv1", "bn1", 1).clamp_min(0)
    for stage, stride in enumerate((1, 2, 2)):
        name = f"stages.{stage}.0"
        residual = conv_bn(h, f"{name}.conv1", f"{name}.bn1", stride).clamp_min(0)
        residual = conv_bn(residual, f"{name}.conv2", f"{name}.bn2", 1)
        if stride == 2:
            half = h.shape[1] // 2
            zeros = torch.zeros(h.shape[0], half, h.shape[2] // 2, h.shape[3] // 2, dtype=h.dtype)
            h = torch.cat([zeros, h[:, :, ::2, ::2], zeros], dim=1)
        h = (h + residual).clamp_min(0)
    features = h.mean((2, 3))
    logits = features @ weights["classifier.weight"].T + weights["classifier.bias"]
    torch.testing.assert_close(model.features(x), features, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model(x).logits, logits, rtol=1e-12, atol=1e-12)


def test_initial_values():
    model = a_model(depth=20)
    conv = model.stages[2][1].conv1.weight
    assert conv.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)  # He et al. 2015: sqrt(2 / fan-in)
    assert a_model(num_labels=1000).classifier.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.02)
    assert not a_model().classifier.bias.any()
    cosine = a_model(head="cosine", num_labels=300).classifier.weight
    torch.testing.assert_close(cosine.norm(dim=1), torch.ones(300))
    assert cosine.mean().abs() < 0.01 and (cosine @ cosine.T).fill_diagonal_(0).abs().mean() < 0.15
    assert not torch.equal(a_model(seed=0).conv1.weight, a_model(seed=1).conv1.weight)


def test_loss_is_plain_cross_entropy_if_labels_are_given():
    model, labels = a_model(), torch.tensor([0, 4, 2])
    outputs = model(images(), labels=labels)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, labels))
    assert model(images()).loss is None
    assert "pixel_values" in inspect.signature(model.forward).parameters and model.main_input_name == "pixel_values"
    kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    assert inspect.Parameter.VAR_KEYWORD not in kinds  # the Trainer would stop dividing by accumulation steps


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_round_trip_through_the_auto_class(tmp_path, head):
    model = trained(a_model(depth=14, width=8, head=head, cosine_scale=12.0)).eval()
    model.config.id2label = {c: f"class {c}" for c in range(5)}
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    state = torch.get_rng_state()
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was initialised that was then overwritten
    assert type(loaded) is CifarResNetForImageClassification and not loaded.training
    saved = model.state_dict()
    assert saved.keys() == loaded.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, saved[name]), name
    assert (loaded.config.depth, loaded.config.width, loaded.config.head) == (14, 8, head)
    assert loaded.config.id2label[3] == "class 3"
    torch.testing.assert_close(loaded(images()).logits, model(images()).logits, rtol=0, atol=0)


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_a_new_head_on_old_features(tmp_path, head):
    model = trained(a_model(head=head))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=9, ignore_mismatched_sizes=True)
    assert torch.equal(loaded.conv1.weight, model.conv1.weight)
    assert loaded.classifier.weight.shape == (9, 64)
    norms = loaded.classifier.weight.norm(dim=1)
    assert norms.isfinite().all() and (norms > 0).all()
    if head == "cosine":
        torch.testing.assert_close(norms, torch.ones(9))


def test_a_new_stem_leaves_the_rest_unchanged(tmp_path):
    """Loading with one missing weight initialises that one alone; cosine weights keep their lengths."""
    model = trained(a_model(head="cosine"))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path, num_channels=1, ignore_mismatched_sizes=True)
    assert loaded.conv1.weight.shape == (16, 1, 3, 3)
    for name, tensor in loaded.state_dict().items():
        assert name == "conv1.weight" or torch.equal(tensor, model.state_dict()[name]), name


def test_configuration_by_name():
    config = AutoConfig.for_model("hf_ltsam_cifar_resnet", depth=20, num_labels=4)
    assert type(config) is CifarResNetConfig and config.num_labels == 4
    assert type(AutoModelForImageClassification.from_config(config)) is CifarResNetForImageClassification


@pytest.mark.slow  # a process of its own, for a first import
def test_importing_the_library_registers_the_model_silently_and_repeatedly():
    code = """
import importlib
import hf_ltsam.models
from transformers import AutoConfig
AutoConfig.for_model("hf_ltsam_cifar_resnet")
importlib.reload(hf_ltsam.models)
importlib.reload(hf_ltsam.models.resnet_cifar)
importlib.reload(hf_ltsam.models)
"""
    result = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "ltsam" not in result.stderr and "cifar" not in result.stderr and "register" not in result.stderr


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_float64(head):
    model = a_model(head=head).double()
    logits = model(images(dtype=torch.float64)).logits
    logits.sum().backward()
    assert logits.dtype == torch.float64 and all(p.grad.dtype == torch.float64 for p in model.parameters())


def test_channels_last_changes_the_layout_and_not_the_numbers():
    model = a_model().double()
    x = images(dtype=torch.float64)
    expected = model(x).logits
    got = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)).logits
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_it_compiles_into_one_graph():
    model = a_model(head="cosine").eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images()).logits, model(images()).logits)


def test_cosine_logits_by_hand():
    head = CosineClassifier(4, 3, scale=20.0).double()
    features = torch.randn(5, 4, dtype=torch.float64)
    x, w = features.numpy(), head.weight.detach().numpy()
    expected = [[20 * np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for b in w] for a in x]
    np.testing.assert_allclose(head(features).detach().numpy(), expected, rtol=1e-12)
    assert [name for name, _ in head.named_parameters()] == ["weight"]


def test_only_directions_matter():
    head = CosineClassifier(4, 3).double()
    features = torch.randn(5, 4, dtype=torch.float64)
    before = head(features)
    with torch.no_grad():
        head.weight.mul_(7.0)
    torch.testing.assert_close(head(3 * features), before, rtol=1e-12, atol=1e-12)
    assert before.abs().max() <= 30
    assert head(torch.zeros(1, 4, dtype=torch.float64)).tolist() == [[0, 0, 0]]  # no direction: no preference


def test_learnable_scale():
    head = CosineClassifier(4, 3, scale=25.0, learnable_scale=True)
    head(torch.randn(2, 4)).sum().backward()
    assert {name for name, _ in head.named_parameters()} == {"weight", "scale"}
    assert head.scale.item() == 25.0 and head.scale.grad is not None
    assert "learnable" in repr(head) and "scale=30" in repr(CosineClassifier(4, 3))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CifarResNetConfig(depth=18), r"depth=.*6n \+ 2.*18"),
        (lambda: CifarResNetConfig(depth=2), r"depth=.*2"),
        (lambda: CifarResNetConfig(depth="32"), r"depth=.*'32'"),
        (lambda: CifarResNetConfig(head="cosin"), r"head=.*'cosin'.*'cosine'"),
        (lambda: CifarResNetConfig(width=0), r"width=.*0"),
        (lambda: CifarResNetConfig(num_channels=-1), r"num_channels=.*-1"),
        (lambda: CifarResNetConfig(cosine_scale=0), r"cosine_scale=.*positive.*0"),
        (lambda: CosineClassifier(4, 3, scale=-1.0), r"CosineClassifier\(scale=.*-1\.0"),
    ],
)
def test_invalid_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_changed_configuration_is_checked_again():
    config = CifarResNetConfig(depth=8)
    config.head = "liner"
    with pytest.raises(ValueError, match=r"'liner'.*'linear'"):
        CifarResNetForImageClassification(config)
