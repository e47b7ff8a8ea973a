"""The cost tables of the sources: seconds of an epoch by data set and method, beside the published ratios.

    python benchmarks/epoch.py --data cifar100 --methods sam imbsam cc_sam focal_sam [--images 1024] [--rounds 3]

Called by `epoch.py`. Li et al. 2025 Table 1 has four data sets against SAM, Zhou et al. 2023b Table 5 three methods against
cross-entropy on a set that it does not name. Images are noise of the set's size, labels are drawn by its class counts (CIFAR
at ratio 100): what is in an image changes no time. All methods in one process, one epoch of each in turn.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PrinterCallback, ResNetConfig, ResNetForImageClassification

from dataset_builders.catalogue import long_tail_statistics
from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer, make_loss
from hf_ltsam.data.in_memory.images import InMemoryImages
from hf_ltsam.models import CifarResNetConfig, CifarResNetForImageClassification

# Seconds of an epoch, Li et al. 2025 Table 1
LI = {
    "cifar10": {"sam": 5.66, "imbsam": 7.80, "cc_sam": 11.61, "focal_sam": 7.67},
    "cifar100": {"sam": 4.81, "imbsam": 6.68, "cc_sam": 19.70, "focal_sam": 6.71},
    "imagenet_lt": {"sam": 170.04, "imbsam": 293.11, "cc_sam": 1626.54, "focal_sam": 291.05},
    "inaturalist2018": {"sam": 831.67, "imbsam": 1088.61, "cc_sam": 12869.89, "focal_sam": 1068.92},
}
# Hours of a training, Zhou et al. 2023b Table 5
ZHOU = {"sgd": 0.62, "ldam": 0.68, "cc_sam": 0.96}
DATA, METHODS = tuple(LI), ("sgd", "ldam", "sam", "imbsam", "cc_sam", "focal_sam")
BATCH = {"cifar10": 64, "cifar100": 64, "imagenet_lt": 256, "inaturalist2018": 512}  # Li et al. 2025 App. C.4


def statistics_of(data: str) -> ClassStatistics:
    name = f"{data}_lt" if data.startswith("cifar") else data
    counts = long_tail_statistics(name).counts
    return ClassStatistics(counts, tail_threshold={"cifar10": 1000}.get(data, 100))


def model_of(data: str, classes: int, cosine: bool) -> nn.Module:
    """ResNet-32 on CIFAR, ResNet-50 on the large sets, with the head that LDAM wants where it is LDAM's."""
    if data.startswith("cifar"):
        head: dict[str, Any] = {"head": "cosine"} if cosine else {}
        return CifarResNetForImageClassification(CifarResNetConfig(depth=32, num_labels=classes, **head))
    return ResNetForImageClassification(ResNetConfig(num_labels=classes))


def noise(data: str, statistics: ClassStatistics, number: int) -> InMemoryImages:
    side = 32 if data.startswith("cifar") else 224
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (number, 3, side, side), generator=draws, dtype=torch.uint8)
    labels = torch.multinomial(torch.tensor(statistics.prior), number, replacement=True, generator=draws)
    return InMemoryImages(pixels, labels, [0.5] * 3, [0.25] * 3, augment=side == 32)


def trainer_of(
    method: str,
    data: str,
    statistics: ClassStatistics,
    images: InMemoryImages,
    options: argparse.Namespace,
    folder: str,
) -> LTSamTrainer:
    cosine = method == "ldam"
    if cosine and not data.startswith("cifar"):
        raise SystemExit("ldam is timed on CIFAR alone, as Zhou et al. 2023b have it.")
    torch.manual_seed(0)
    batch = options.batch[0] if options.batch else BATCH[data]
    config = LTSamConfig(
        folder, num_train_epochs=1, per_device_train_batch_size=min(batch, len(images)),
        learning_rate=0.01, report_to="none", disable_tqdm=True, save_strategy="no", logging_steps=100_000, telemetry=False,
        use_cpu=not torch.cuda.is_available(), bf16=options.bf16, channels_last=options.channels_last,
    )  # fmt: skip
    made = LTSamTrainer(
        model_of(data, statistics.num_classes, cosine), config, train_dataset=images, class_statistics=statistics,
        method="sgd" if cosine else method, loss=make_loss("ldam") if cosine else None,
    )  # fmt: skip
    made.remove_callback(PrinterCallback)
    return made


def cost_table(
    data: str, options: argparse.Namespace, timed: Callable[[LTSamTrainer], float]
) -> dict[str, list[float]]:
    """Seconds of an epoch by method, one of each in turn; printed with ratios and the published ones.

    Args:
        timed: trains for one epoch; its seconds, without those of the start.
    """
    statistics = statistics_of(data)
    images = noise(data, statistics, options.images or 1024)
    methods = [method for method in METHODS if method in options.methods]
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {method: trainer_of(method, data, statistics, images, options, folder) for method in methods}
        for round_ in range(-1, options.rounds):  # one to warm up
            for method, trainer in trainers.items():
                taken = timed(trainer)
                if round_ >= 0:
                    seconds[method].append(taken)
    print("\n".join(lines(data, len(images), seconds)))
    return seconds


def lines(data: str, images: int, seconds: Mapping[str, list[float]]) -> list[str]:
    """Medians; x SAM beside Li et al. 2025 Table 1, x cross-entropy beside Zhou et al. 2023b Table 5."""
    table = [f"\n{data}: {images} images an epoch, median of {min(map(len, seconds.values()))}, in turn"]
    table += [f"{'method':12}{'seconds':>9}{'x SAM':>9}{'Li 2025':>9}{'x CE':>9}{'Zhou 2023b':>12}"]
    for method, values in seconds.items():
        cells = [_ratio(seconds, method, base) for base in ("sam", "sgd")]
        published = [_published(LI[data], method, "sam"), _published(ZHOU, method, "sgd")]
        table.append(
            f"{method:12}{np.median(values):9.3f}{cells[0]:>9}{published[0]:>9}{cells[1]:>9}{published[1]:>12}"
        )
    missing = [method for method in LI[data] if method not in seconds]
    return [*table, *([f"not timed: {', '.join(missing)}"] if missing else [])]


def _ratio(seconds: Mapping[str, list[float]], method: str, base: str) -> str:
    if base not in seconds:
        return "-"
    return f"{np.median(np.divide(seconds[method], seconds[base])):.2f}"  # round by round


def _published(times: Mapping[str, float], method: str, base: str) -> str:
    return f"{times[method] / times[base]:.2f}" if method in times else "-"
