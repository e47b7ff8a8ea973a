"""What the benchmarks time: small models, a batch, and one optimizer step of a trainer or of somebody else's optimizer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, ClassStatistics, LTSamConfig, LTSamTrainer

CLASSES, BATCH = 100, 64
STOCK = "stock Trainer, SGD"
Step = Callable[[], None]


def class_counts(num_classes: int = CLASSES) -> list[int]:
    """A long tail with imbalance ratio 100."""
    return [int(500 * 0.01 ** (c / (num_classes - 1))) for c in range(num_classes)]


def tail_threshold(num_classes: int = CLASSES) -> int:
    """The rarest fifth of the classes is the tail."""
    return class_counts(num_classes)[int(0.8 * num_classes)]


def resnet32(num_classes: int = CLASSES) -> nn.Module:
    return CifarResNetForImageClassification(CifarResNetConfig(depth=32, num_labels=num_classes))


def vit(num_classes: int = CLASSES) -> nn.Module:
    """2.7 million parameters: 6 blocks of width 192 on 4 x 4 patches."""
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=192,
            num_hidden_layers=6,
            num_attention_heads=3,
            intermediate_size=768,
            image_size=32,
            patch_size=4,
            num_labels=num_classes,
        )
    )


def adapters(num_classes: int = CLASSES) -> nn.Module:
    """That ViT with its trunk frozen, AdaptFormer of the protocol's width for so many classes, and the classifier."""
    from peft import get_peft_model

    from hf_ltsam.adapters import AdaptFormerConfig

    return get_peft_model(vit(num_classes), AdaptFormerConfig(bottleneck=4, modules_to_save=["classifier"]))


MODELS: dict[str, Callable[[int], nn.Module]] = {"resnet32": resnet32, "vit": vit, "adapters": adapters}


def batch(num_classes: int = CLASSES, tail_share: float = 0.2) -> dict[str, torch.Tensor]:
    """A batch with this share of rows from tail classes."""
    tail = [c for c, n in enumerate(class_counts(num_classes)) if n <= tail_threshold(num_classes)]
    labels = [tail[i % len(tail)] if i < tail_share * BATCH else i % tail[0] for i in range(BATCH)]
    return {"pixel_values": torch.randn(BATCH, 3, 32, 32), "labels": torch.tensor(labels)}


@dataclass(frozen=True)
class Row:
    """A method with its options; a method that works in rounds is timed by the round."""

    method: str
    options: dict[str, object]
    steps: int = 1

    @property
    def name(self) -> str:
        shown = ", ".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.method}({shown})" if shown else self.method


def trainer(row: Row | None, model: nn.Module, folder: str, num_classes: int = CLASSES) -> Trainer:
    """None is the stock Trainer with SGD."""
    settings = {
        "output_dir": folder,
        "report_to": "none",
        "learning_rate": 0.01,
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": not torch.cuda.is_available(),
        "optim": "sgd",
        "optim_args": "momentum=0.9",
    }
    if row is None:
        return Trainer(model, TrainingArguments(**settings))
    return LTSamTrainer(
        model,
        LTSamConfig(tail_threshold=tail_threshold(num_classes), method_args=dict(row.options), **settings),
        method=row.method,
        class_statistics=ClassStatistics(class_counts(num_classes)),
    )


def step_of(made: Trainer, inputs: dict[str, torch.Tensor]) -> Step:
    """One optimizer step of a trainer, as its own loop makes it."""
    optimizer = made.create_optimizer()
    model, optimizer = made.accelerator.prepare(made.model, optimizer)
    made.current_gradient_accumulation_steps = 1
    made.state.max_steps = 1000

    def step() -> None:
        made.training_step(model, dict(inputs))
        optimizer.step()
        model.zero_grad()
        made.state.global_step += 1
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return step


def public_optimizers(model: Callable[[], nn.Module], inputs: dict[str, torch.Tensor]) -> dict[str, tuple[Step, int]]:
    """Steps of SAM and LookSAM of `pytorch_optimizer`, in a bare loop of its own; none where it is not installed."""
    try:
        from pytorch_optimizer import SAM, LookSAM
    except ImportError:
        return {}
    kinds = {"SAM": (SAM, {"rho": 0.05}, 1), "LookSAM, k=5": (LookSAM, {"rho": 0.05, "k": 5}, 5)}
    return {
        f"pytorch_optimizer: {name}": (_bare_step(kind, options, model(), inputs), steps)
        for name, (kind, options, steps) in kinds.items()
    }


def _bare_step(kind: type, options: dict[str, object], model: nn.Module, inputs: dict[str, torch.Tensor]) -> Step:
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = kind(trained, torch.optim.SGD, lr=0.01, momentum=0.9, **options)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(pixel_values=inputs["pixel_values"]).logits, inputs["labels"])
        loss.backward()
        return loss

    def step() -> None:
        closure()
        optimizer.step(closure)

    return step


def measure(steps: dict[str, tuple[Step, int]], repetitions: int) -> dict[str, list[float]]:
    """Seconds per step, one entry per round; every method has its turn in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(-2, repetitions):  # two rounds to warm up
        for name, (step, count) in steps.items():
            start = time.perf_counter()
            for _ in range(count):
                step()
            if round_ >= 0:
                seconds[name].append((time.perf_counter() - start) / count)
    return seconds


def ratios(seconds: dict[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Median of a method over the median of the base, and the quartiles of the ratio round by round."""
    table = {}
    for name, values in seconds.items():
        low, _, high = statistics.quantiles([v / b for v, b in zip(values, seconds[base])], n=4)
        table[name] = {"ratio": statistics.median(values) / statistics.median(seconds[base]), "low": low, "high": high}
    return table


def shown(ratio: dict[str, float]) -> str:
    return f"{ratio['ratio']:5.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def rows(*names: tuple[str, dict[str, object], int] | str) -> Sequence[Row]:
    return [Row(name, {}) if isinstance(name, str) else Row(*name) for name in names]
