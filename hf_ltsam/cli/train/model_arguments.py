"""The options of a training run that say which model is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ModelArguments:
    """Which model is trained."""

    _argument_group_name = "model"

    model: str = field(
        default="cifar_resnet",
        metadata={
            "help": "cifar_resnet; a transformers or timm image classifier, a CLIP or a SigLIP: a name on the Hub or a "
            "folder; or a CLIP of open_clip: open_clip:ViT-B-16/laion2b_s34b_b88k, open_clip:ViT-B-16/FILE, "
            "hf-hub:OWNER/NAME, local-dir:FOLDER."
        },
    )
    pretrained: bool = field(
        default=True,
        metadata={"help": "Start from the weights of `model` (cifar_resnet has none: it starts at random)."},
    )
    depth: int = field(default=32, metadata={"help": "Layers of cifar_resnet: 8, 20, 32, 44, 56, ..."})
    head: str = field(default="linear", metadata={"help": "linear, or cosine (LDAM needs it). That of CLIP is cosine."})
    cosine_scale: float | None = field(
        default=None,
        metadata={"help": "Scale of the cosine head; equal to LDAM's s. None: 30 for cifar_resnet, 25 otherwise."},
    )
    learnable_scale: bool = field(default=False, metadata={"help": "Train that scale too (not with cifar_resnet)."})
    init: str | None = field(
        default=None,
        metadata={
            "help": "Where a cosine head starts: text (CLIP), class_mean, linear_probe or random. None: text for CLIP, "
            "random otherwise."
        },
    )
    templates: str = field(
        default="one",
        metadata={"help": "Prompts for init text: one ('a photo of a {}.'), clip80, or a file with one on each line."},
    )
    prompt_names: str | None = field(
        default=None,
        metadata={"help": "A file of class names for the prompts, one on each line. None: those of the data set."},
    )
    max_per_class: int | None = field(
        default=None,
        metadata={
            "help": "For init class_mean and linear_probe: use the first so many images of every class. None: all."
        },
    )
    adapter: str | None = field(
        default=None,
        metadata={
            "help": "What is trained: adaptformer, vpt, ssf, lora or another PEFT method, with the classifier; none for "
            "encoder blocks and classifier. None: all weights."
        },
    )
    adapter_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Its hyper-parameters as JSON, for example '{\"r\": 8}'."}
    )
    spectral_norm: list[str] | None = field(
        default=None,
        metadata={
            "help": "Linear and convolutional layers whose weights are divided by their largest singular value, by name, * "
            "for any text: classifier, 'resnet.*'. None: no layer."
        },
    )
    spectral_norm_iterations: int = field(
        default=5, metadata={"help": "Power iterations for that in every training step (Zhou et al. 2023b: 5)."}
    )
