"""`ltsam export --onnx`: the same logits in onnxruntime; without the packages a refusal before anything is written."""

import importlib.util

import pytest
import torch
from cli.test_cli import run
from transformers import (
    AutoModelForImageClassification,
    BertConfig,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification
from hf_ltsam.cli import export

INSTALLED = all(importlib.util.find_spec(name) for name in export.ONNX_PACKAGES)
needs_onnx = pytest.mark.skipif(not INSTALLED, reason="not installed: pip install onnx onnxscript onnxruntime")
MODELS = {
    "linear": lambda: CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3)),
    "cosine": lambda: CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3, head="cosine")),
    "resnet": lambda: ResNetForImageClassification(
        ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    ),
    "vit": lambda: ViTForImageClassification(
        ViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32, patch_size=8
        )
    ),
}


@pytest.fixture
def saved(tmp_path):
    """A finished run of a model."""

    def saved(name):
        torch.manual_seed(0)
        model = MODELS[name]()
        model.save_pretrained(tmp_path / "run")
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "run")
        return tmp_path / "run"

    return saved


@needs_onnx
@pytest.mark.slow  # torch.export traces the model for seconds
@pytest.mark.parametrize("name", MODELS)
def test_the_same_logits_for_any_batch(name, saved, tmp_path, capsys):
    import onnxruntime

    folder = saved(name)
    status, out, err = run(capsys, "export", str(folder), str(tmp_path / "out"), "--onnx")
    assert status == 0 and "the same logits" in out, err
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    for size in (1, 5):
        images = torch.randn(size, 3, 32, 32)
        with torch.no_grad():
            expected = model(pixel_values=images).logits
        torch.testing.assert_close(
            torch.from_numpy(session.run(["logits"], {"pixel_values": images.numpy()})[0]),
            expected,
            rtol=1e-4,
            atol=1e-5,
        )


@needs_onnx
@pytest.mark.slow
def test_other_logits_are_not_kept(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "_TOLERANCE", -1.0)
    status, _, err = run(capsys, "export", str(saved("linear")), str(tmp_path / "out"), "--onnx")
    assert status == 2 and "model.onnx is not kept" in err and not (tmp_path / "out" / "model.onnx").exists()


def test_without_the_packages_nothing_is_written(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "ONNX_PACKAGES", ("onnx_that_is_not_there",))
    status, _, err = run(capsys, "export", str(saved("linear")), str(tmp_path / "out"), "--onnx")
    assert status == 2 and "--onnx needs onnx_that_is_not_there: pip install onnx_that_is_not_there." in err
    assert not (tmp_path / "out").exists()


def test_a_run_of_texts_is_refused_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "ONNX_PACKAGES", ())
    BertConfig(architectures=["BertForSequenceClassification"]).save_pretrained(tmp_path / "run")
    status, _, err = run(capsys, "export", str(tmp_path / "run"), str(tmp_path / "out"), "--onnx")
    assert status == 2 and "--onnx is for models of images" in err and not (tmp_path / "out").exists()
