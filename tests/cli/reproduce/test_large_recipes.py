"""A row of ImageNet-LT from its recipe to its result, on a copy of three classes and with a small ResNet."""

import json

import pytest
from copies import ilsvrc
from transformers import ConvNextImageProcessor, ResNetConfig

from hf_ltsam.cli import decouple
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
    if name.endswith("rangwani2022"):
        words += ["--group_sizes", "1", "1", "1"]  # the recipe's are of 1,000 classes
    train.main([*words, "--output_dir", str(tmp_path / "run")])
    record = RunFolder(tmp_path / "run").finished_record()
    assert (record.method["name"], record.loss["name"]) == (method, loss)
    assert f'"model_type": "{head}"' in (tmp_path / "run" / "config.json").read_text()
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    logged = [entry["sam_eps_norm"] for entry in history if "sam_eps_norm" in entry]  # of one step in each epoch
    assert logged == pytest.approx(radii, rel=1e-3)


@pytest.mark.parametrize(
    "first, second, loss",
    [
        (
            "second_stage/imagenet_lt_ce_sgd_mixup",
            "second_stage/imagenet_lt_ce_sgd_mixup_then_las",
            "label_aware_smoothing",
        ),
        ("imagenet_lt_ce_sgd_rangwani2022", "second_stage/imagenet_lt_ce_sgd_then_lws", "cross_entropy"),
    ],
)
def test_a_second_stage_of_imagenet_lt(tmp_path, small_resnet, first, second, loss):
    """Both stages from their recipes: mixup reaches the first one, groups by rank the records of both."""
    root = ilsvrc(tmp_path / "ilsvrc")
    data = ["--dataset", str(root), "--lists", str(root / "lists"), "--own_lists", "true", "--use_cpu", "true"]
    short = [
        "--max_steps",
        "2",
        "--per_device_train_batch_size",
        "7",
        "--save_strategy",
        "no",
        "--disable_tqdm",
        "true",
    ]
    words = [
        "--config",
        first,
        *data,
        *short,
        "--model",
        small_resnet,
        "--image_size",
        "65",
        "--dataloader_num_workers",
        "0",
    ]
    train.main([*words, "--group_sizes", "1", "1", "1", "--output_dir", str(tmp_path / "first")])
    record = RunFolder(tmp_path / "first").finished_record()
    assert record.mixing.get("mixup_alpha", 0.0) == (0.2 if "mixup" in first else 0.0)
    words = ["--config", second, "--first_stage", str(tmp_path / "first"), "--use_cpu", "true", *short]
    decouple.main([*words, "--output_dir", str(tmp_path / "second")])
    record = RunFolder(tmp_path / "second").finished_record()
    assert record.loss["name"] == loss and record.class_statistics["group_sizes"] == [1, 1, 1]


@pytest.mark.parametrize(
    "name, method", [("cifar10_lt_ir50_gcl_cc_sam_zhou2023b", "cc_sam"), ("cifar100_lt_ir100_ce_sse_sam", "sse_sam")]
)
def test_a_row_of_another_kind(images, tmp_path, name, method):
    """Noise on the logits below CC-SAM; a test that is averaged over a flip."""
    words = [
        "--builder",
        "image_folder",
        "--dataset",
        str(images),
        "--imbalance_ratio",
        "1",
        "--depth",
        "8",
        "--max_steps",
        "2",
    ]
    words += [
        "--per_device_train_batch_size",
        "8",
        "--use_cpu",
        "true",
        "--disable_tqdm",
        "true",
        "--save_strategy",
        "no",
    ]
    train.main(["--config", name, *words, "--tail_threshold", "6", "--output_dir", str(tmp_path / "run")])
    record = RunFolder(tmp_path / "run").finished_record()
    assert record.method["name"] == method
    assert record.data["test_time"] == ("flip" if method == "sse_sam" else "none")
