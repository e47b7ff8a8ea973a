"""Run by two processes: trains and leaves weights, gradients and batches of every rank in a folder.

RANK=0 WORLD_SIZE=2 ... python two_processes.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset
from transformers import TrainerCallback

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.landscape.sharded import whole
from hf_ltsam.models.cosine_classifier import CosineClassifier


class Points(Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.labels = [i % 4 if i < 12 else 0 for i in range(32)]
        self.x = torch.randn(32, 6, dtype=torch.float64, generator=generator)

    def __len__(self):
        return 32

    def __getitem__(self, index):
        return {"input": self.x[index], "labels": self.labels[index]}


def model(batch_norm: bool, cosine: bool = False) -> nn.Module:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(7)] if batch_norm else []
    head = CosineClassifier(7, 4, scale=5.0) if cosine else nn.Linear(7, 4)
    return nn.Sequential(nn.Linear(6, 7), *middle, nn.Tanh(), head).double()


class Recording(LTSamTrainer):
    """Keeps the batches it was given and the gradients that the optimizer was given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.batches = []
        self.gradients = []
        self.weights = []
        self.add_callback(_Gradients(self))

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.batches.append((inputs["input"].clone(), inputs["labels"].clone()))
        self.weights.append([whole(p.detach()).clone() for p in self.model.parameters()])
        return super().training_step(model, inputs, num_items_in_batch)


class _Gradients(TrainerCallback):
    def __init__(self, trainer):
        self.trainer = trainer

    def on_pre_optimizer_step(self, args, state, control, **_):
        gradients = [p.grad for p in self.trainer.model.parameters() if p.grad is not None]
        self.trainer.gradients.append([whole(g).clone() for g in gradients])


class Sharded(Recording):
    """FSDP2 on CPUs: the sharding is real, only accelerate's rule that it needs an accelerator is set aside."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        PartialState().distributed_type = self.accelerator.state.distributed_type = DistributedType.FSDP
        self.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            reshard_after_forward=True,
            state_dict_type="FULL_STATE_DICT",
            cpu_ram_efficient_loading=False,
        )
        self.is_fsdp_enabled = True


class HalfShards(Sharded):
    """The same, whose layers compute in bfloat16 with weights that stay as wide as they are."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        self.accelerator.state.fsdp_plugin.mixed_precision_policy = half


class OfTheHead(Recording):
    """Its optimizer holds the last layer alone."""

    def create_optimizer(self, model=None):
        self.optimizer = torch.optim.SGD((self.model if model is None else model).head.parameters(), lr=0.1)
        return self.optimizer


class ShardedOfTheHead(OfTheHead, Sharded):
    """The same with shards."""


class WithLoss(nn.Module):
    """Its own loss is a mean over the labels of the whole step, of all processes; a third of the samples has none."""

    def __init__(self):
        super().__init__()
        self.net = model(False)

    def forward(self, input, labels, num_items_in_batch=None, **_):
        return {"loss": F.cross_entropy(self.net(input), labels, reduction="sum") / num_items_in_batch}


class Unlabelled(Points):
    """As `WithLoss` reads them."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return {**sample, "labels": -100 if sample["labels"] == 1 else sample["labels"]}


def with_own_loss(folder: Path, scope: str) -> dict:
    """Three steps of two micro-batches by SAM."""
    args = LTSamConfig(
        output_dir=str(folder),
        max_steps=3,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=0.1,
        optim="sgd",
        max_grad_norm=0.0,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo",
        save_strategy="no",
        logging_strategy="no",
        loss="model",
        method="sam",
        method_args={"rho": 0.3},
        ascent_scope=scope,
    )
    trainer = Recording(WithLoss(), args, train_dataset=Unlabelled())
    trainer.train()
    state = trainer.model.state_dict()
    return {"batches": trainer.batches, "gradients": trainer.gradients, "weights": trainer.weights, "state": state}


class Narrow(nn.Module):
    """Weights of another type than the samples."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.head = nn.Linear(6, 7, dtype=dtype), nn.Linear(7, 4, dtype=dtype)

    def forward(self, input):
        return self.head(torch.tanh(self.trunk(input.to(self.head.weight.dtype))))


def logs_of_unusual(folder: Path, dtype: torch.dtype, kind: type[LTSamTrainer], batch: int) -> list[dict[str, float]]:
    """Norms in the logs of two steps with SAM and a small radius."""
    args = LTSamConfig(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=batch,
        optim="sgd",
        optim_args="momentum=0.9",
        learning_rate=0.1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo" if "RANK" in os.environ else None,
        method="sam",
        max_grad_norm=0.5,  # over all gradients there are
        method_args={"rho": 0.002},
        tail_threshold=4,
    )
    trainer = kind(Narrow(dtype), args, train_dataset=Points())
    trainer.train()
    kept = ("sam_eps_norm", "sam_unmoved_share", "grad_norm")
    return [{name: log[name] for name in kept if name in log} for log in trainer.state.log_history[:2]]


# Every method, with what makes its gradient differ from the others'; LPF-SGD's shards would be other samples on each process
METHODS = {
    "sgd": {},
    "sam": {"rho": 0.3},
    "asam": {"rho": 0.5},
    "gradient_norm": {},
    "gsam": {},
    "looksam": {},
    "msam": {},
    "friendly_sam": {},
    "imbsam": {},
    "sse_sam": {"gamma": 0.5},
    "sam_ext": {},
    "focal_sam": {"rho": 0.3},
    "cc_sam": {"scale": 0.5, "mix": 0.5},
    "pgd": {"sigma": 0.1},
    "lpf_sgd": {"gamma": 0.1, "shards": 1},
    "model_perturbation": {},
    "le_sam": {"sigma": 0.2},
    "xsam": {"every": 2},
    "gnm": {"sigma": 0.1},
    "wsam": {"gamma": 0.3},
    "momentum_focal_sam": {"rho": 0.3},
    "gsa": {"scale": 0.3},
}


def run(
    folder: Path,
    batch_norm: bool,
    accumulation: int,
    method: str = "focal_sam",
    swa_start: float | None = None,
    kind: type[Recording] = Recording,
    resume: str | None = None,
    cosine: bool = False,
    **method_args: float,
) -> dict:
    settings = {name: method_args.pop(name) for name in SETTINGS if name in method_args}
    args = LTSamConfig(
        **{
            "output_dir": str(folder),
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": accumulation,
            "optim": "sgd",
            "optim_args": "momentum=0.9",
            "max_grad_norm": 0.0,
            "learning_rate": 0.1,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "ddp_backend": "gloo" if "RANK" in os.environ else None,
            "save_strategy": "no",
            "logging_strategy": "no",
            "method": method,
            "method_args": method_args,
            "tail_threshold": 4,
            "swa_start": swa_start,
            "swa_interval": None if swa_start is None else 1,
            **settings,
        }
    )
    trainer = kind(model(batch_norm, cosine), args, train_dataset=Points(), eval_dataset=Points())
    trainer.train(resume_from_checkpoint=resume)
    return {
        "batches": trainer.batches,
        "gradients": trainer.gradients,
        "weights": trainer.weights,
        "state": {k: whole(v) for k, v in trainer.model.state_dict().items()},
        "counts": trainer.class_statistics.counts,
    }


def communications(folder: Path, method: str, scope: str = "micro") -> int:
    """How often processes exchange as many numbers as the model has weights, in 3 steps of 2 micro-batches."""
    weights, sent, reduce = sum(p.numel() for p in model(False).parameters()), [], torch.distributed.all_reduce

    def counting(tensor, *args, **kwargs):
        sent.append(tensor.numel())
        return reduce(tensor, *args, **kwargs)

    torch.distributed.all_reduce = counting
    try:
        run(folder, False, 2, method, ascent_scope=scope, **METHODS[method])
    finally:
        torch.distributed.all_reduce = reduce
    return sum(numbers >= weights for numbers in sent)


def evaluated(folder: Path) -> tuple[dict, np.ndarray]:
    """Metrics and logits of 30 samples: the last batch is small, and accelerate fills it up with others."""
    args = LTSamConfig(
        output_dir=str(folder),
        per_device_eval_batch_size=4,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo" if "RANK" in os.environ else None,
    )
    trainer = LTSamTrainer(model(True), args, train_dataset=Points())
    found = trainer.predict(Subset(Points(), range(30)))
    return {k: v for k, v in found.metrics.items() if "per_second" not in k and "time" not in k}, found.predictions


SETTINGS = (
    "ascent_scope",
    "ascent_size",
    "max_steps",
    "save_strategy",
    "save_steps",
    "eval_strategy",
    "eval_steps",
    "per_device_train_batch_size",
    "torch_compile",
    "torch_compile_backend",
)


def resumed(folder: Path, method: str, kind: type[Recording], **changes: str) -> bool:
    """Whether a training that goes on from its second step ends where the uninterrupted one does."""
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, **METHODS[method], **changes}
    once = run(folder / method, False, 2, method, kind=kind, **settings)
    again = run(folder / method, False, 2, method, kind=kind, resume=str(folder / method / "checkpoint-2"), **settings)
    return all(torch.equal(v, again["state"][k]) for k, v in once["state"].items())


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    results = {
        (batch_norm, accumulation): run(folder, batch_norm, accumulation)
        for batch_norm in (False, True)
        for accumulation in (1, 2)
    }
    compiled = {"torch_compile": True, "torch_compile_backend": "eager"}
    results["compiled"] = run(folder, True, 1, **compiled)
    results["compiled_frames"] = torch._dynamo.utils.counters["frames"]["ok"]
    results["pgd"] = run(folder, False, 2, "pgd", sigma=0.5)
    results["averaged"] = run(folder, True, 1, "sam", swa_start=0.0)
    for method, args in METHODS.items():
        for accumulation in (1, 2):
            results["step", method, accumulation] = run(
                folder, False, accumulation, method, ascent_scope="step", **args
            )
    for accumulation in (1, 2):
        settings = {"ascent_scope": "step", "cosine": True, **METHODS["cc_sam"]}
        results["step", "cosine", accumulation] = run(folder, False, accumulation, "cc_sam", **settings)
    results["step", "groups", 2] = run(folder, False, 2, "sam", ascent_scope="step", ascent_size=4, rho=0.3)
    for scope in ("micro", "step"):
        results["own loss", scope] = with_own_loss(folder, scope)
    results["communications"] = {method: communications(folder, method) for method in ("sgd", "focal_sam", "cc_sam")}
    results["communications"]["cc_sam, step"] = communications(folder, "cc_sam", "step")
    results["resumed"] = {"cc_sam, step": resumed(folder, "cc_sam", Recording, ascent_scope="step")}
    results["evaluated"] = evaluated(folder)  # before weights are sharded
    for method, args in METHODS.items():
        results["sharded", method, 1] = run(folder, False, 1, method, kind=Sharded, **args)
    for method in ("sam", "msam"):  # an evaluation leaves some weights whole
        results["sharded", method, 1] = run(
            folder, False, 1, method, kind=Sharded, eval_strategy="steps", eval_steps=1, **METHODS[method]
        )
    results["sharded", "micro"] = run(folder, False, 2, "focal_sam", kind=Sharded, rho=0.3)
    results["sharded", "focal_sam", 2] = run(folder, False, 2, "focal_sam", kind=Sharded, ascent_scope="step", rho=0.3)
    results["half"] = run(folder, False, 1, "focal_sam", kind=HalfShards, rho=0.3)
    results["narrow"] = logs_of_unusual(folder, torch.bfloat16, Sharded, 4)
    results["head"] = logs_of_unusual(folder, torch.float32, ShardedOfTheHead, 4)
    results["resumed"] |= {
        method: resumed(folder, method, Sharded) for method in ("sam", "msam", "looksam", "friendly_sam")
    }
    torch.save(results, folder / f"rank{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
