"""The settings of a training run: transformers' own, and the few that this library adds."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from hf_ltsam.data.bad_images import check_policy
from hf_ltsam.data.mixing import MixingSettings
from hf_ltsam.data.sampling.class_sampling import SAMPLINGS, UNIFORM, check_sampling
from hf_ltsam.hyperparameters import (
    BELOW_ONE,
    COUNT,
    NON_NEGATIVE,
    POSITIVE,
    SHARE,
    canonical,
    nearest,
    require,
    require_choice,
    require_finite,
    require_name,
)
from hf_ltsam.losses import LOSSES, FeatureLoss, Loss, ModelLoss, make_any_loss
from hf_ltsam.losses.reweighting import DRW, Reweighting, without_drw
from hf_ltsam.methods import METHODS, Method, make_method
from hf_ltsam.metrics.long_tail import greater_is_better
from hf_ltsam.runs.secrets import without_secrets
from hf_ltsam.schedules import epochs_to_shares
from hf_ltsam.training.interruption import check_launched, join_processes

_SMALLEST_OF_SGD = 5e-4  # half the smallest rate of a recipe of the sources; transformers' default 5e-5 stands still
_LARGEST_OF_ADAM = 0.01  # ten times Adam's own default (Kingma and Ba 2015)

ASCENT_SCOPES = ("micro", "step")

# trackers whose package has another name
_PACKAGES = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "dagshub": "dagshub mlflow"}
_CHOICES = "_choices"  # attribute: how a choice is made -> (its settings, the object)


@dataclass(repr=False)  # transformers' own hides tokens
class LTSamConfig(MixingSettings, TrainingArguments):
    """`transformers.TrainingArguments` with the settings of long-tailed sharpness-aware training.

    All of transformers' settings are there with transformers' defaults, so that a script keeps its optimizer and schedule
    when it changes the name. The sources train with SGD: optim="sgd", optim_args="momentum=0.9", lr_scheduler_type="cosine",
    max_grad_norm=0, which are the defaults of the command line and its recipes.

    Method, loss and re-weighting are made here: `update_rule`, `sample_loss` and `class_weighting` are the objects that a
    training uses, the same ones as long as their settings are the same. (They are made on demand: a trainer may be given
    another name than `method`, and `method_args` belong to that one then.)

    Raises:
        ValueError: a setting that cannot work, named with the reason and the way out.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*TrainingArguments._VALID_DICT_FIELDS, "method_args", "loss_args"]

    method: str = field(
        default="sam",
        metadata={"help": f"The update rule: {', '.join(METHODS)} (see `ltsam methods`), or as papers write it."},
    )
    method_args: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": 'Its hyper-parameters as JSON, for example \'{"rho": 0.1}\'. A schedule: \'{"rho": {"piecewise": '
            '{"values": [0.1, 0.2], "epochs": [160]}}}\', or linear or cosine; boundaries in place of epochs are '
            "shares of the training."
        },
    )
    loss: str = field(
        default="cross_entropy",
        metadata={"help": f"The training loss: {', '.join(LOSSES)}, or as papers write it: LA, CE, LDAM-DRW."},
    )
    loss_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Its hyper-parameters as JSON, for example '{\"tau\": 1.0}'."}
    )
    loss_start: float = field(
        default=0.0,
        metadata={
            "help": "Share of the training after which the loss applies, in [0, 1]; cross-entropy before it "
            "(influence_balanced: 0.5)."
        },
    )
    reweighting: str = field(
        default="none", metadata={"help": "Class weights of the loss: none, inverse or effective_number."}
    )
    reweighting_start: float = field(
        default=0.0, metadata={"help": "Share of the training after which they apply, in [0, 1] (DRW: 0.8)."}
    )
    ascent_scope: str = field(
        default="micro",
        metadata={
            "help": "What is perturbed together: micro (each micro-batch of each process on its own) or step (all of an "
            "optimizer step, over gradient accumulation and processes)."
        },
    )
    ascent_size: int | None = field(
        default=None,
        metadata={
            "help": "Perturb this number of samples at a time (m-sharpness), in place of all that ascent_scope says."
        },
    )
    max_skipped_steps: int = field(
        default=10,
        metadata={
            "help": "Stop after this number of skipped steps in a row: a step whose gradient is not finite is skipped and "
            "named."
        },
    )
    telemetry: bool = field(
        default=True,
        metadata={"help": "Log what the perturbation does (sam_*), and losses and gradient norms by group of classes."},
    )
    tail_threshold: int | None = field(
        default=None,
        metadata={"help": "Classes with at most this number of training samples are the tail (ImbSAM, SSE-SAM)."},
    )
    sampling: str = field(
        default=UNIFORM,
        metadata={
            "help": f"Which training samples an epoch shows: {', '.join(SAMPLINGS)}. uniform: each one once. class_aware: "
            "classes in turn, and the samples of a class in turn; class_balanced: every class with probability 1/C; "
            "square_root: in proportion to the root of its number of samples. An epoch has as many steps either way."
        },
    )
    exact_rows: bool = field(
        default=True,
        metadata={
            "help": "Where samples do not interact, leave out what gives the same gradient without: rows of weight zero, "
            "repeated backward passes. False for models whose samples see each other in hidden ways (a memory bank)."
        },
    )
    channels_last: bool = field(
        default=False,
        metadata={
            "help": "Keep images and weights of convolutions in channels-last order, in which GPUs compute bf16 and tf32."
        },
    )
    cuda_graphs: bool = field(
        default=False,
        metadata={
            "help": "Replay passes as CUDA graphs: the same numbers, sooner where a small model waits for kernels to start."
        },
    )
    decay_all_parameters: bool = field(
        default=False,
        metadata={"help": "Apply weight decay to norms and biases too, as plain SGD in the sources does."},
    )
    lr_milestones: list[float] | None = field(
        default=None,
        metadata={
            "help": "Multiply the learning rate by lr_gamma at each of these shares of the training, in (0, 1), after "
            "the warm-up and in place of lr_scheduler_type: 160 of 200 epochs is 0.8."
        },
    )
    lr_gamma: float = field(default=0.1, metadata={"help": "The factor at each milestone, positive."})
    on_bad_image: str = field(
        default="raise",
        metadata={
            "help": "A training image that cannot be read: raise stops and names it, skip leaves it out, counts it in the "
            "logs (bad_images) and names the first ones. A test image always stops."
        },
    )
    save_run: bool = field(
        default=True,
        metadata={
            "help": "At the end of train(), test the model and write what `ltsam report` and the others read, as save_run() "
            "does: where output_dir is stated, save_strategy is not no, and eval_dataset is a test. Costs one pass over it."
        },
    )
    swa_start: float | None = field(
        default=None,
        metadata={
            "help": "Share of the training, in [0, 1), from which weights are averaged (SWA: 0.75). When the training ends, "
            "the model takes the mean, with batch norm's statistics computed anew. None: no averaging."
        },
    )
    swa_interval: int | None = field(
        default=None, metadata={"help": "Average every swa_interval steps. None: at the end of every epoch."}
    )
    swa_learning_rate: float | None = field(
        default=None,
        metadata={"help": "The constant learning rate from swa_start on. None: the schedule goes on as it is."},
    )

    def __post_init__(self) -> None:
        self.check()
        says_which_is_better = self.greater_is_better is not None
        join_processes(self)
        super().__post_init__()
        check_launched(self)
        self._check_numbers()  # those in what was JSON text until here
        if self.metric_for_best_model is not None and not says_which_is_better:
            self.greater_is_better: bool | None = greater_is_better(self.metric_for_best_model)
        self._follow_the_metric()
        check_reports(self.report_to)
        for name in ("method_args", "loss_args"):
            if not isinstance(getattr(self, name), dict | None):
                raise ValueError(
                    f"LTSamConfig({name}=...) must be a mapping or its JSON text such as '{{\"rho\": 0.1}}', "
                    f"got {getattr(self, name)!r}."
                )

    def check(self) -> None:
        """Take names as they are meant, and refuse what cannot work; a search calls it again for every trial.

        Raises:
            ValueError: naming the setting, the reason and the way out.
        """
        self._name_choices()
        self._check_numbers()
        self._check_learning_rate()
        self._check_data()
        self._check_ascent()
        self._check_averaging()
        require(SHARE, self, loss_start=self.loss_start)

    def _name_choices(self) -> None:
        """Method and loss by the keys of their registries; a loss "..._drw" is the loss and its re-weighting."""
        require_name(
            self,
            "the trainer, LTSamTrainer(..., {}=...): settings are saved as text",
            method=self.method,
            loss=self.loss,
        )
        base = without_drw(self.loss)
        if base is not None:
            scheme, start = DRW
            self.reweighting = scheme if self.reweighting == "none" else self.reweighting
            self.reweighting_start = self.reweighting_start or start
        self.loss = canonical(LOSSES, self.loss if base is None else base)
        self.method = canonical(METHODS, self.method)

    def make_choices(self) -> tuple[Method, Loss | FeatureLoss | ModelLoss, Reweighting]:
        """Method, loss and re-weighting.

        Raises:
            ValueError: a name that does not exist, or an argument or value that it does not take.
        """
        return self.update_rule, self.sample_loss, self.class_weighting

    def _check_numbers(self) -> None:
        """Of all settings, stock's too, which takes NaN."""
        require_finite(self, vars(self), unbounded=("max_grad_norm", "eval_delay"))
        optimizer = dict(pair.split("=", 1) for pair in (self.optim_args or "").split(",") if "=" in pair)
        if any(value.strip().lstrip("+-").lower() in ("nan", "inf", "infinity") for value in optimizer.values()):
            raise ValueError(f"LTSamConfig(optim_args=...) must hold finite numbers, got {self.optim_args!r}.")
        if isinstance(self.learning_rate, float):
            require(NON_NEGATIVE, self, learning_rate=self.learning_rate)

    def _follow_the_metric(self) -> None:
        """Schedules that wait for a better metric are told which is better: both take a smaller one for it by default."""
        if self.lr_scheduler_type in (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY) and self.greater_is_better:
            given: Any = self.lr_scheduler_kwargs
            self.lr_scheduler_kwargs: Any = {"mode": "max", **(given or {})}

    def _check_learning_rate(self) -> None:
        for share in self.lr_milestones or []:
            if not 0 < share < 1:
                raise ValueError(
                    f"LTSamConfig(lr_milestones=...) are shares of the training in (0, 1), got {share}: "
                    "epoch 160 of 200 is 0.8."
                )
        if self.lr_milestones and self.lr_scheduler_kwargs:
            raise ValueError(
                f"LTSamConfig(lr_scheduler_kwargs={self.lr_scheduler_kwargs!r}) belongs to lr_scheduler_type, whose place "
                "lr_milestones take: leave one of them out."
            )
        require(POSITIVE, self, lr_gamma=self.lr_gamma)

    def _check_data(self) -> None:
        check_policy(self.on_bad_image)
        check_sampling(self.sampling)
        self.check_mixing()
        if self.sampling != UNIFORM and self.train_sampling_strategy != "random":
            raise ValueError(
                f"LTSamConfig(sampling={self.sampling!r}) and train_sampling_strategy={self.train_sampling_strategy!r} "
                "both say which image comes next: leave one out."
            )

    def _check_ascent(self) -> None:
        require_choice(self, ASCENT_SCOPES, ascent_scope=self.ascent_scope)
        if self.ascent_size is not None:
            require(COUNT, self, ascent_size=self.ascent_size)
        require(COUNT, self, max_skipped_steps=self.max_skipped_steps)

    def _check_averaging(self) -> None:
        if self.swa_start is None:
            for name in ("swa_interval", "swa_learning_rate"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"LTSamConfig({name}={getattr(self, name)}) says how weights are averaged, but not from when on: "
                        "set swa_start as well, 0.75 for example."
                    )
            return
        require(BELOW_ONE, self, swa_start=self.swa_start)
        if self.swa_interval is not None:
            require(COUNT, self, swa_interval=self.swa_interval)
        if self.swa_learning_rate is not None:
            require(POSITIVE, self, swa_learning_rate=self.swa_learning_rate)
        if self.load_best_model_at_end:
            raise ValueError(
                "LTSamConfig(load_best_model_at_end=True) does not go with swa_start: the mean would take the place of the "
                "best checkpoint. Set it to False."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Settings alone, without tokens: `training_args.bin`, a pickle of this, may go anywhere. Copies ask HF_TOKEN."""
        settings = {name: value for name, value in self.__dict__.items() if name != _CHOICES}
        return without_secrets({name: None if name.endswith("_token") else value for name, value in settings.items()})

    def to_dict(self) -> dict[str, Any]:
        """As stock, without secrets in nested arguments either: loggers such as TensorBoard's write it down."""
        return {name: without_secrets(value) for name, value in super().to_dict().items()}

    @property
    def update_rule(self) -> Method:
        """Of `method` and `method_args`."""
        return self._choice(make_method, self.method, **self.method_hyperparameters)

    @property
    def sample_loss(self) -> Loss | FeatureLoss | ModelLoss:
        """Of `loss` and `loss_args`."""
        return self._choice(make_any_loss, self.loss, **(self.loss_args if isinstance(self.loss_args, dict) else {}))

    @property
    def class_weighting(self) -> Reweighting:
        """Of `reweighting` and `reweighting_start`."""
        return self._choice(Reweighting, self.reweighting, start=self.reweighting_start)

    def _choice(self, make: Callable[..., Any], name: str, /, **hyperparameters: Any) -> Any:
        """The object of these settings, made anew once they differ, be it by a change inside a mapping."""
        settings = (name, hyperparameters)
        choices = self.__dict__.setdefault(_CHOICES, {})
        if make not in choices or choices[make][0] != settings:
            choices[make] = (deepcopy(settings), make(name, **hyperparameters))
        return choices[make][1]

    @property
    def memory_format(self) -> torch.memory_format:
        """Of images and weights of convolutions."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def method_hyperparameters(self) -> dict[str, Any]:
        """`method_args` as `make_method` takes them: schedules by epoch have become schedules by progress."""
        given = self.method_args if isinstance(self.method_args, dict) else {}
        return epochs_to_shares(given, self.num_train_epochs, self.max_steps)

    @property
    def doubtful_learning_rate(self) -> str | None:
        """A warning of a learning rate that was made for another optimizer, or None."""
        optimizer = OptimizerNames(self.optim).value
        if optimizer == "sgd" and 0 < self.learning_rate < _SMALLEST_OF_SGD:
            return (
                f"learning_rate={self.learning_rate:g} is one for AdamW, and the optimizer is SGD, which usually needs 0.01 "
                "to 0.1: take such a rate, or optim='adamw_torch'."
            )
        if optimizer.startswith("adam") and self.learning_rate > _LARGEST_OF_ADAM:
            return (
                f"learning_rate={self.learning_rate:g} is one for SGD, and the optimizer is {optimizer}, transformers' "
                "default: take about 1e-5 to 1e-3, or optim='sgd', optim_args='momentum=0.9' as the sources do."
            )
        return None


def check_reports(report_to: list[str]) -> None:
    """Refuse a tracker that does not exist or is not installed, before model and data are loaded.

    Raises:
        ValueError: naming the package.
    """
    installed = get_available_reporting_integrations() if report_to else []  # a search through all of sys.path
    for name in map(str, report_to):
        if name not in INTEGRATION_TO_CALLBACK:
            close = nearest(name, [*INTEGRATION_TO_CALLBACK, "none"])
            raise ValueError(f"LTSamConfig(report_to={name!r}) does not exist.{close}")
        if name not in installed and name != "flyte":  # which looks for itself
            raise ValueError(
                f"LTSamConfig(report_to={name!r}) needs a package that is not installed: "
                f"`pip install {_PACKAGES.get(name, name)}`, or take {' or '.join([*installed, 'none'])} instead."
            )
