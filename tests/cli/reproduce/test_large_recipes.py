"""A row of ImageNet-LT from its recipe to its result, on a copy of three classes and with a small ResNet."""

import json

import pytest
from copies import ilsvrc
from transformers import ConvNextImageProcessor, ResNetConfig

from hf_ltsam.cli.train import train
from hf_ltsam.runs.folder import RunFolder


@pytest.fixture
def small_resnet(tmp_path):
    """In the place of microsoft/resnet-50, without weights, as the recipes ask."""
    sizes = {"depths": [1, 1], "hidden_sizes": [8, 16], "embedding_size": 8}
    ResNetConfig(**sizes, architectures=["ResNetForImageClassification"]).save_pretrained(tmp_path / "resnet")
    ConvNextImageProcessor(size={"shortest_edge": 224}, image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(
        tmp_path / "resnet"
    )
    return str(tmp_path / "resnet")


@pytest.mark.parametrize(
    "name, epochs, method, loss, head, radii",
    [
        ("imagenet_lt_la_focal_sam", 10, "focal_sam", "logit_adjustment", "resnet", [0.1] * 8 + [0.2] * 2),
        (
            "imagenet_lt_ldam_drw_sam_rangwani2022",
            61,
            "sam",
            "ldam",
            "hf_ltsam_cosine_head",
            [0.05] * 5 + [0.1] * 55 + [0.5],
        ),
    ],
)
def test_a_row_of_imagenet_lt(tmp_path, small_resnet, name, epochs, method, loss, head, radii):
    root = ilsvrc(tmp_path / "ilsvrc")
    words = [
        "--config",
        name,
        "--dataset",
        str(root),
        "--lists",
        str(root / "lists"),
        "--own_lists",
        "true",
        "--model",
        small_resnet,
    ]
    words += [
        "--image_size",
        "65",
        "--num_train_epochs",
        str(epochs),
        "--per_device_train_batch_size",
        "7",
        "--dataloader_num_workers",
        "0",
    ]
    words += ["--use_cpu", "true", "--save_strategy", "no", "--disable_tqdm", "true", "--logging_steps", "1"]
    train.main([*words, "--output_dir", str(tmp_path / "run")])
    record = RunFolder(tmp_path / "run").finished_record()
    assert (record.method["name"], record.loss["name"]) == (method, loss)
    assert f'"model_type": "{head}"' in (tmp_path / "run" / "config.json").read_text()
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    logged = [entry["sam_eps_norm"] for entry in history if "sam_eps_norm" in entry]  # of one step in each epoch
    assert logged == pytest.approx(radii, rel=1e-3)
