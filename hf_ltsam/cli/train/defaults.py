"""Defaults of the command line and its recipes: the settings of a Trainer as the sources of the methods have them.

Scripts in Python keep transformers' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from hf_ltsam import LTSamConfig

# Where nothing states how to step, neither a recipe nor an option: transformers' 5e-5 is too small for all of these.
# Fine-tuning starts without a perturbation: none has been told to gain, at a second pass's cost (RESULTS.md).
# From scratch, SAM in the last fifth of the training gains over all classes at 1.2 times the cost; in the rare ones that
# is not told from chance (RESULTS.md). rho 0.1: best for SAM throughout on two reserves of three, 0.05 on the third.
# transformers' 3 epochs leave small sets below the nearest class mean from a start at random (docs/own_texts.md).
# A new classifier starts from class means: 73.5 % in the place of 59.5 on 462 images of CIFAR-10 (docs/own_images.md), below
# LoRA 88.7 in the place of 82.3 on 702 texts (docs/own_texts.md).
# From scratch as the sources train, 200 epochs at 0.1 for batches of 128; smaller batches have a rate in proportion.
STARTS: Mapping[str, Mapping[str, Any]] = {
    "training from scratch": {  # by SGD, the default
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "method": "sam",
        "method_args": {"rho": 0.1, "start": 0.8},
        "num_train_epochs": 200,
    },
    "fine-tuning": {
        "optim": "adamw_torch",
        "learning_rate": 3e-4,
        "weight_decay": 0.01,
        "warmup_steps": 0.1,
        "method": "sgd",
        "num_train_epochs": 10,
        "init": "auto",
    },
    "an adapter": {
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "warmup_steps": 0.1,
        "method": "sgd",
        "num_train_epochs": 10,
        "init": "auto",
    },
}
FULL_BATCH = 128  # of the rate from scratch: Cao et al. 2019, Rangwani et al. 2022 App. C


@dataclass(repr=False)  # transformers' own hides tokens
class SourceConfig(LTSamConfig):
    """`LTSamConfig` with the sources' defaults where transformers has others: they train with SGD, a cosine and no clipping.

    Unused columns are kept, since images are made by transforms.
    """

    optim: str | None = field(
        default=None,
        metadata={"help": "The optimizer, by transformers' names. None: SGD with momentum 0.9, as in all the sources."},
    )
    lr_scheduler_type: str = field(
        default="cosine",
        metadata={"help": "Learning-rate schedule, by transformers' names (Li et al. 2025: cosine to 0)."},
    )
    max_grad_norm: float = field(
        default=0.0, metadata={"help": "Clip the final gradient to this norm; 0 is off, as in the sources."}
    )
    remove_unused_columns: bool = field(
        default=False,
        metadata={"help": "Drop columns the model does not take. Off: it would drop the images under a transform."},
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "true: go on from the last checkpoint in --output_dir; auto: the same, or start anew where there is "
            "none, so that a job may be started again by the same command; or the folder of a checkpoint."
        },
    )
    save_run: bool = field(default=False, init=False)  # the command does it, which knows more of the run

    def __post_init__(self) -> None:
        names_no_optimizer = self.optim is None
        if names_no_optimizer:
            given = self.optim_args or ""
            self.optim = "sgd"
            self.optim_args: str | None = (
                given if "momentum" in given else ",".join(filter(None, [given, "momentum=0.9"]))
            )
        super().__post_init__()
        stock = {f.name: f.default for f in fields(TrainingArguments) if f.name.startswith("adam_")}
        given_to_adam = [name for name, value in stock.items() if getattr(self, name) != value]
        if names_no_optimizer and given_to_adam:
            name = given_to_adam[0]
            raise ValueError(
                f"--{name} {getattr(self, name)} belongs to Adam, but no optimizer is named, and that means SGD here: set "
                "--optim adamw_torch, or leave it out."
            )
