"""Time per epoch of LTSamTrainer against a loop written by hand, and what the Trainer itself costs per step.

    python benchmarks/epoch.py [--batch 64 128] [--images 1024] [--rounds 5] [--models resnet32 linear]
    python benchmarks/epoch.py --data cifar100 --methods sam imbsam cc_sam focal_sam      # beside published ratios

Three ways to train with the same passes: LTSamTrainer on in-memory images; a bare loop on batches made in memory in the
plainest way; a bare loop on a DataLoader with torchvision's transforms image by image. For SGD also the stock Trainer, on
the same in-memory images. All in one process, one epoch of each in turn; an epoch is timed from its first batch to its last
step, starting the training not counted. `linear` is a single layer on 32 x 32 images: what is left is what the loop costs.
Images are CIFAR-100's where LTSAM_SHARED has them, else noise. On a GPU, `idle` is the share of an epoch without a kernel
(one more epoch, under torch.profiler). Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cost_tables
import torch
from bare_loops import Images, epoch_of, focal_sam, imbsam, in_memory_batches, loader_batches, sam, sgd
from steps import resnet32
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import logging

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.data.in_memory.images import CUSTOMARY_NORMALISATION, InMemoryImages

Epoch = Callable[[], float]  # trains for one epoch; its seconds
MEAN, STD = CUSTOMARY_NORMALISATION["cifar100"]
CLASSES, METHODS = 100, ("sgd", "sam", "imbsam", "focal_sam")


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, CLASSES)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> ImageClassifierOutput:
        logits = self.layer(pixel_values.flatten(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


MODELS: dict[str, Callable[[], nn.Module]] = {"resnet32": resnet32, "linear": Linear}


def images(count: int | None) -> Images:
    """CIFAR-100-LT at imbalance ratio 10, shuffled; noise where it is absent."""
    file = Path(os.environ.get("LTSAM_SHARED") or "../shared") / "data" / "cifar100" / "train_ir10.parquet"
    if file.is_file():
        import numpy as np
        import pyarrow.parquet as pq
        from PIL import Image

        table = pq.read_table(file, columns=["img", "fine_label"]).to_pydict()
        order = torch.randperm(len(table["img"]), generator=torch.Generator().manual_seed(0))[:count].tolist()
        decoded = [np.asarray(Image.open(io.BytesIO(table["img"][i]["bytes"])).convert("RGB")) for i in order]
        pixels = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()
        return Images(pixels, torch.tensor([table["fine_label"][i] for i in order]), MEAN, STD)
    number = count or 10_000
    print("noise in place of images: LTSAM_SHARED has no CIFAR-100")
    return Images(torch.randint(0, 256, (number, 3, 32, 32)).byte(), torch.randint(0, CLASSES, (number,)), MEAN, STD)


class Stopwatch(TrainerCallback):
    """The seconds of the last epoch."""

    def on_epoch_begin(self, args: object, state: object, control: object, **_: object) -> None:
        self.start = now()

    def on_epoch_end(self, args: object, state: object, control: object, **_: object) -> None:
        self.seconds = now() - self.start


def epoch_of_trainer(trainer: LTSamTrainer) -> float:
    """Its seconds, from the first batch to the last step."""
    watch = Stopwatch()
    trainer.add_callback(watch)
    trainer.train()
    trainer.remove_callback(watch)
    return watch.seconds


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(epoch: Callable[[], None]) -> Epoch:
    def run() -> float:
        start = now()
        epoch()
        return now() - start

    return run


def trainer_epoch(
    method: str | None, model: nn.Module, given: Images, options: argparse.Namespace, batch: int, folder: str
) -> Epoch:
    """One epoch of LTSamTrainer; None: of the stock Trainer."""
    settings = {
        "output_dir": folder,
        "num_train_epochs": 1,
        "per_device_train_batch_size": batch,
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 100,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": options.bf16,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "cosine",
    }
    watch = Stopwatch()
    data = InMemoryImages(given.pixels, given.labels, MEAN, STD, augment=True)
    made: Trainer
    if method is None:
        made = Trainer(model, TrainingArguments(**settings), train_dataset=data, callbacks=[watch])
    else:
        config = LTSamConfig(channels_last=options.channels_last, telemetry=not options.no_telemetry, **settings)
        made = LTSamTrainer(
            model, config, train_dataset=data, callbacks=[watch], method=method, class_statistics=statistics_of(given)
        )
    made.remove_callback(PrinterCallback)

    def run() -> float:
        made.train()
        return watch.seconds

    return run


def statistics_of(given: Images) -> ClassStatistics:
    counts = torch.bincount(given.labels, minlength=CLASSES)
    return ClassStatistics(counts.clamp(min=1).tolist(), tail_threshold=int(counts.double().quantile(0.2).clamp(min=1)))


def bare_epoch(
    method: str, model: nn.Module, given: Images, options: argparse.Namespace, batch: int, loader: bool
) -> Epoch:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device, memory_format=torch.channels_last if options.channels_last else torch.contiguous_format)
    of_classes = statistics_of(given)
    prior = torch.tensor(of_classes.counts, dtype=torch.float32, device=device)
    passes = {
        "sgd": sgd,
        "sam": sam,
        "focal_sam": focal_sam(prior / prior.sum()),
        "imbsam": imbsam(prior <= of_classes.tail_threshold),
    }[method]
    batches = (
        loader_batches(given, batch, device, options.workers) if loader else in_memory_batches(given, batch, device)
    )
    epoch = epoch_of(model, passes, batches, steps_in_all=options.rounds * len(given.labels) // batch + 1)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            epoch()

    return timed(run)


def ways(
    method: str, model: Callable[[], nn.Module], given: Images, options: argparse.Namespace, batch: int, folder: str
) -> dict[str, Epoch]:
    stock = {"stock Trainer": trainer_epoch(None, model(), given, options, batch, folder)} if method == "sgd" else {}
    return stock | {
        "LTSamTrainer": trainer_epoch(method, model(), given, options, batch, folder),
        "bare loop": bare_epoch(method, model(), given, options, batch, loader=False),
        "bare loop, DataLoader": bare_epoch(method, model(), given, options, batch, loader=True),
    }


def idle(epoch: Epoch) -> float:
    """Share of an epoch in which the GPU runs no kernel; one stream."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        seconds = epoch()
    return 1 - sum(e.self_device_time_total for e in profile.key_averages()) / 1e6 / seconds


def report(title: str, seconds: dict[str, list[float]], steps: int, busy: dict[str, Epoch]) -> None:
    print(f"\n{title}: {steps} steps an epoch, best of {len(seconds['bare loop'])}, in turn")
    for name, values in seconds.items():
        rounds = [v / b for v, b in zip(values, seconds["bare loop"])]
        idle_share = f"   idle {idle(busy[name]):.0%}" if torch.cuda.is_available() else ""
        best, median = min(values) / min(seconds["bare loop"]), statistics.median(rounds)
        print(
            f"{name:24}{min(values):8.3f} s{1e6 * min(values) / steps:10.0f} us a step   x bare loop {best:.3f} "
            f"(median of the rounds {median:.3f}){idle_share}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", help="128; with --data that of the source")
    parser.add_argument(
        "--data", nargs="+", choices=cost_tables.DATA, default=[], help="the cost tables of the sources"
    )
    parser.add_argument("--images", type=int, help="so many in an epoch. None: 1024 on a CPU, all on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=cost_tables.METHODS, default=list(METHODS))
    parser.add_argument(
        "--workers", type=int, default=0 if not torch.cuda.is_available() else 8, help="of the DataLoader"
    )
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--channels_last", action="store_true")
    parser.add_argument("--no_telemetry", action="store_true")
    parser.add_argument("--output", type=Path, help="write all timings to this JSON file")
    options = parser.parse_args()
    logging.set_verbosity_error()
    if options.data:
        results = {data: cost_tables.cost_table(data, options, epoch_of_trainer) for data in options.data}
        if options.output:
            options.output.write_text(json.dumps(results, indent=2) + "\n")
        return
    bare = [method for method in options.methods if method in METHODS]
    options.batch = options.batch or [128]
    given = images(options.images or (None if torch.cuda.is_available() else 1024))
    results = {}
    for model in options.models:
        for batch in options.batch:
            for method in bare:
                with tempfile.TemporaryDirectory() as folder:
                    torch.manual_seed(0)
                    made = ways(method, MODELS[model], given, options, batch, folder)
                    seconds: dict[str, list[float]] = {name: [] for name in made}
                    for round_ in range(-1, options.rounds):  # one to warm up
                        for name, epoch in made.items():
                            taken = epoch()
                            if round_ >= 0:
                                seconds[name].append(taken)
                    title = f"{model}, batch {batch}, {method}"
                    report(title, seconds, -(-len(given.labels) // batch), made)
                    results[title] = seconds
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
