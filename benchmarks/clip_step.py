"""Throughput and peak memory of fine-tuning CLIP's ViT-B/16 at 224 with AdaptFormer, per method.

    python benchmarks/clip_step.py [--batch 128] [--layers 12] [--repetitions 10]

Random weights: speed and memory do not depend on them. bf16 on an accelerator, float32 on a CPU, where a smaller batch and
fewer layers are in order. Steps are interleaved; peak memory is that of one step and, like the time, never asserted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile

import torch
from steps import CLASSES, Row, Step, class_counts, measure, ratios, rows, shown, step_of, tail_threshold
from transformers import CLIPVisionConfig
from transformers.utils import logging

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.adapters import make_adapter
from hf_ltsam.models import ClipForLongTail
from hf_ltsam.models.clip_config import ClipForLongTailConfig

ROWS = rows("sgd", "sam", "imbsam", "sse_sam", "focal_sam", ("focal_sam", {"plain": "reuse"}, 1), "cc_sam")


def lift(layers: int) -> torch.nn.Module:
    vision = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=layers,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
    )
    model = ClipForLongTail(ClipForLongTailConfig(vision_config=vision, num_labels=CLASSES))
    return make_adapter(model, "adaptformer", {"bottleneck": 4}, num_classes=CLASSES)


def trainer_for(row: Row, layers: int, folder: str) -> LTSamTrainer:
    on_device = torch.cuda.is_available()
    config = LTSamConfig(
        output_dir=folder,
        report_to="none",
        learning_rate=0.01,
        optim="sgd",
        optim_args="momentum=0.9",
        lr_scheduler_type="cosine",
        max_grad_norm=0.0,
        disable_tqdm=True,
        save_strategy="no",
        bf16=on_device,
        use_cpu=not on_device,
        tail_threshold=tail_threshold(),
        method_args=dict(row.options),
    )
    return LTSamTrainer(lift(layers), config, method=row.method, class_statistics=ClassStatistics(class_counts()))


def peak_megabytes(step: Step) -> float:
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() / 2**20


class SavedByPasses:
    """Megabytes that each forward pass of a step keeps for its backward pass, besides the weights; on any device."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.megabytes: list[float] = []
        self._model = model
        self._weights: set[int] = set()
        self._storages: dict[int, int] = {}
        model.register_forward_pre_hook(lambda *_: self._begin())

    def _begin(self) -> None:
        self._end()
        self._weights, self._storages = {p.untyped_storage().data_ptr() for p in self._model.parameters()}, {}

    def _end(self) -> None:
        if self._storages:
            self.megabytes.append(sum(self._storages.values()) / 2**20)

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def of(self, step: Step) -> list[float]:
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
            step()
        self._end()
        return self.megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repetitions", type=int, default=10)
    options = parser.parse_args()
    logging.set_verbosity_error()
    torch.manual_seed(0)
    labels = torch.arange(options.batch) % CLASSES
    inputs = {"pixel_values": torch.randn(options.batch, 3, 224, 224), "labels": labels}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {row.name: trainer_for(row, options.layers, folder) for row in ROWS}
        steps = {name: (step_of(made, inputs), 1) for name, made in trainers.items()}
        seconds = measure(steps, options.repetitions)
    to_sam = ratios(seconds, "sam")
    print(f"batch {options.batch}, {options.layers} blocks: median of {options.repetitions} interleaved steps")
    for name, values in seconds.items():
        time = statistics.median(values)
        memory = f"{peak_megabytes(steps[name][0]):8.0f} MB" if torch.cuda.is_available() else ""
        kept = ", ".join(f"{m:.0f}" for m in SavedByPasses(trainers[name].model).of(steps[name][0]))
        print(
            f"{name:26}{1000 * time:9.1f} ms {options.batch / time:8.1f} images/s   {shown(to_sam[name])} x SAM {memory}"
            f"   passes keep {kept} MB"
        )


if __name__ == "__main__":
    main()
