"""The CIFAR ResNets of He et al. 2016 (Sec. 4.2) as transformers models."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from hf_ltsam.hyperparameters import POSITIVE, nearest, require
from hf_ltsam.models.cosine_classifier import CosineClassifier, init_unloaded

HEADS = ("linear", "cosine")


class CifarResNetConfig(PreTrainedConfig):
    """Configuration of `CifarResNetForImageClassification`.

    Args:
        depth: number of layers, 6n + 2: 8, 14, 20, 32, 44, 56, ...
        width: channels of the first of the three stages; the others have 2 and 4 times as many.
        num_channels: channels of the images: 3 for colour, 1 for grey.
        head: "linear", or "cosine" for losses on bounded logits (LDAM).
        cosine_scale: factor from cosine to logit in a cosine head, > 0.
        kwargs: the settings of every transformers configuration: num_labels, id2label, label2id, dtype, ...

    Raises:
        ValueError: a setting outside its domain.
    """

    model_type = "hf_ltsam_cifar_resnet"  # transformers names it in its error if hf_ltsam is not imported

    depth: int = 32
    width: int = 16
    num_channels: int = 3
    head: str = "linear"
    cosine_scale: float = 30.0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.check()

    def check(self) -> None:
        """Refuse values that no network can be built from; the model checks again, since a configuration may be changed.

        Raises:
            ValueError: naming the setting, its domain and its value.
        """
        require(POSITIVE, self, width=self.width, num_channels=self.num_channels, cosine_scale=self.cosine_scale)
        if not isinstance(self.depth, int) or self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(
                f"CifarResNetConfig(depth=...) must be 6n + 2 (8, 14, 20, 32, 44, 56, ...), got {self.depth!r}."
            )
        if self.head not in HEADS:
            hint = nearest(str(self.head), HEADS)
            raise ValueError(f"CifarResNetConfig(head=...) does not know {self.head!r}.{hint}")


class CifarResNetForImageClassification(PreTrainedModel):
    """A 3 x 3 stem, three stages of (depth - 2)/6 basic blocks each, global average pooling and a classifier.

    Between stages a shortcut without parameters (option A) halves the resolution and doubles the width: every second
    pixel, and zeros for the new channels. Any image size works; CIFAR's is 32 x 32.
    ResNet-20, 32, 44 and 56 with 10 classes have 269,722, 464,154, 658,586 and 853,018 parameters.
    """

    config_class = CifarResNetConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ("BasicBlock",)

    def __init__(self, config: CifarResNetConfig) -> None:
        super().__init__(config)
        config.check()
        width, blocks = config.width, (config.depth - 2) // 6
        self.conv1 = _conv3x3(config.num_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = nn.Sequential(
            _stage(width, width, blocks, stride=1),
            _stage(width, 2 * width, blocks, stride=2),
            _stage(2 * width, 4 * width, blocks, stride=2),
        )
        self.classifier = _head(config)
        self.post_init()

    def features(self, pixel_values: Tensor) -> Tensor:
        """Images (n, num_channels, height, width) -> input of the classifier (n, 4 * width)."""
        x = F.relu(self.bn1(self.conv1(pixel_values)))
        return self.stages(x).mean(dim=(2, 3))

    # No **kwargs: transformers' Trainer takes them as a promise to scale the loss itself (transformers#47688).
    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutputWithNoAttention:
        """Logits (n, C); with labels (n,), the loss is their mean cross-entropy."""
        logits = self.classifier(self.features(pixel_values))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # transformers' functions do not overwrite weights that from_pretrained has loaded
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.kaiming_normal_(module.weight)  # He et al. 2015 Eq. 10
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, CosineClassifier):
            init_unloaded(module, self.config.cosine_scale)
        else:
            super()._init_weights(module)


class BasicBlock(nn.Module):
    """relu(x' + bn(conv(relu(bn(conv(x)))))), where x' is x at the new resolution and width (option A)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, channels_out - channels_in
        self.conv1 = _conv3x3(channels_in, channels_out, stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = _conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(self._shortcut(x) + residual)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x
        before = self.new_channels // 2  # half of the zeros before the channels of x, half after them
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before))


def _stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, stride=1) for _ in range(blocks - 1)))


def _conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)


def _head(config: CifarResNetConfig) -> nn.Module:
    if config.head == "cosine":
        return CosineClassifier(4 * config.width, config.num_labels, scale=config.cosine_scale)
    return nn.Linear(4 * config.width, config.num_labels)
