"""The folder in which the pages' blocks are run: what they name is there, in tiny."""

from __future__ import annotations

import torch
from cli.picture_folders import draw_images
from datasets import ClassLabel, Dataset, Features
from models.clips import transformers_clip
from text_models import save_encoder, texts, write_lines
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from dataset_builders.folders import load_image_folder
from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig
from hf_ltsam.cli.train import train
from hf_ltsam.data.transforms import image_transform, on_the_fly

RUN = (
    "--model",
    "cifar_resnet",
    "--depth",
    "8",
    "--learning_rate",
    "0.1",
    "--num_train_epochs",
    "1",
    "--tail_threshold",
    "6",
    "--many_above",
    "10",
    "--few_below",
    "5",
    "--disable_tqdm",
    "true",
    "--logging_strategy",
    "no",
)


def draw_all(root):
    """`path/to/folder` (12, 6 and 3 images to train on), `path/to/flat`, and models under the names they have on the Hub."""
    draw_images(root / "path/to/folder/train", (12, 6, 3), 12)
    draw_images(root / "path/to/folder/test", (4, 4, 4), 12, seed=1)
    draw_images(root / "path/to/flat", (8, 5, 4), 12, seed=2)
    write_lines(root / "path/to/texts", train=texts((12, 6, 3)), test=texts((4, 4, 4), seed=1))
    save_encoder(root / "distilbert/distilbert-base-uncased", "distilbert")
    _resnet(root / "microsoft/resnet-18")
    clip = root / "openai/clip-vit-base-patch16"
    clip.mkdir(parents=True)
    transformers_clip(clip)


def train_runs(root):
    """`runs/mine` and `runs/other`, each with a checkpoint; run in `root`."""
    for name, seed in (("mine", 0), ("other", 1)):
        where = ["--dataset", "path/to/folder", "--output_dir", f"runs/{name}", "--seed", str(seed)]
        # cross-entropy leaves errors, relative to which a page states others
        train.main([*where, *RUN, "--loss", "cross_entropy", "--save_strategy", "epoch"])


def _resnet(folder):
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=7)
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 24}, crop_pct=0.875).save_pretrained(folder)


def given_names():
    """What a block takes as the reader's own: a model, its settings, data, labels."""
    images = load_image_folder("path/to/folder")
    transform = image_transform(16, [0.5] * 3, [0.25] * 3, train=False)
    features = Features({"label": ClassLabel(num_classes=2)})
    return {
        "model": CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=3)),
        "args": LTSamConfig(
            output_dir="given",
            num_train_epochs=1,
            optim="sgd",
            optim_args="momentum=0.9",
            max_grad_norm=0.0,
            learning_rate=0.1,
            tail_threshold=6,
            report_to="none",
        ),
        "train": on_the_fly(images["train"], transform),
        "test": on_the_fly(images["test"], transform),
        "labels": images["train"]["label"],
        "class_names": images["train"].features["label"].names,
        "dataset": Dataset.from_dict({"label": [0, 1] * 200}, features=features),
    }
