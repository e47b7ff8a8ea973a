"""What is written of a run beside its results: settings, model and data, as a trainer in Python knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from transformers import PreTrainedModel

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.data.class_names import names_of_model
from hf_ltsam.losses import LOSSES
from hf_ltsam.methods import METHODS
from hf_ltsam.metrics.calibration import Calibration
from hf_ltsam.models.text_classifier import classifies_texts
from hf_ltsam.models.trained_weights import architecture
from hf_ltsam.runs.experiment import OF_CHOOSING_THE_BEST, OF_THE_EXPERIMENT, OF_THE_OPTIMIZER, OTHER_DEFAULTS, SEEDS
from hf_ltsam.runs.folder import MADE_IN_PYTHON
from hf_ltsam.runs.record import hub_commit, hub_name
from hf_ltsam.training.config import LTSamConfig
from hf_ltsam.training.training_set import require_statistics, without_adapter


@dataclass(frozen=True)
class RunDescription:
    """What a trainer does not know of its run itself.

    Args:
        class_names: C names.
        statistics: of the training set, with the groups that are reported.
        settings: of `recipe.yaml`.
        comments: its first lines; the command that repeats the run, where there is one.
        model, data, hub, command, second_stage, resumed: as in `RunRecord`.
        train_metrics: that training returned; its times are kept, from a resume on.
        calibration: of the probabilities; where there is one, the test's logits are kept.
    """

    class_names: Sequence[str]
    statistics: ClassStatistics
    settings: Mapping[str, Any]
    comments: tuple[str, ...]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    train_metrics: Mapping[str, float]
    hub: Mapping[str, str] | None = None
    command: str = ""
    second_stage: Mapping[str, Any] = field(default_factory=dict)
    resumed: bool = False
    calibration: Calibration | None = None


def describe_trainer(
    trainer: Any, names: Sequence[str], data: Mapping[str, Any], stage: Mapping[str, Any]
) -> RunDescription:
    """Of a run that was made in Python.

    Args:
        names: C names of the classes.
        data: where the data lie, by the options of `ltsam train`, as far as the user says it.
        stage: as in `RunRecord.second_stage`.
    """
    statistics = require_statistics(trainer.class_statistics)
    inner = without_adapter(trainer.whole_model)
    start = getattr(getattr(inner, "config", None), "name_or_path", "") or None
    groups = {name: getattr(statistics, name) for name in ("many_above", "few_below", "group_sizes")}
    given = {**{name: value for name, value in groups.items() if value is not None}, **data}
    dataset = hub_name(given.get("dataset"))
    hub = {"dataset": dataset, "dataset_commit": hub_commit(trainer.train_dataset, dataset), "model": hub_name(start)}
    return RunDescription(
        names,
        statistics,
        {**_settings(trainer), **_settings_of(stage), **given},
        (MADE_IN_PYTHON,),
        model={"model": start or type(inner).__name__, **architecture(trainer.whole_model)},
        data={
            **given,
            **({"task": "text"} if isinstance(inner, PreTrainedModel) and classifies_texts(inner) else {}),
            "training_labels_sha256": trainer.training_set.fingerprint,
        },
        train_metrics=next((e for e in reversed(trainer.state.log_history) if "train_runtime" in e), {}),
        hub={kind: name for kind, name in hub.items() if name is not None},
        second_stage=stage,
        resumed=trainer._resumed is not None,
    )


def name_classes(trainer: Any) -> list[str]:
    """The names of the classes; a model that has none is given those of the training set."""
    config = getattr(without_adapter(trainer.whole_model), "config", None)
    of_model = names_of_model(getattr(config, "id2label", None))
    if of_model is not None:
        return list(of_model)
    C = require_statistics(trainer.class_statistics).num_classes
    of_data = trainer.training_set.class_names(trainer.label_reader)
    if of_data is None or len(of_data) != C:
        return [str(c) for c in range(C)]
    if config is not None:
        config.id2label = dict(enumerate(of_data))
        config.label2id = {name: c for c, name in enumerate(of_data)}
    return list(of_data)


def _settings(trainer: Any) -> dict[str, Any]:
    """Those that make the experiment, where they are not transformers' or ours by default; for `recipe.yaml`.

    Where the command line has other defaults than transformers they are stated in any case.
    """
    args, kept = trainer.args, OF_THE_EXPERIMENT | OF_CHOOSING_THE_BEST | SEEDS
    settings = {
        f.name: _plain(getattr(args, f.name))
        for f in fields(LTSamConfig)
        if f.name in kept and (f.name in OTHER_DEFAULTS or getattr(args, f.name) != f.default)
    }
    settings |= {"tail_threshold": trainer.class_statistics.tail_threshold}
    if trainer.own_optimizer:
        settings = {name: value for name, value in settings.items() if name not in OF_THE_OPTIMIZER}
    registries: dict[str, Mapping[str, type]] = {"method": METHODS, "loss": LOSSES}
    identity = trainer.identity()
    for kind, registry in registries.items():
        described = identity[kind]
        known = described["name"] in registry
        settings |= {kind: described["name"], f"{kind}_args": described["args"]} if known else {}
    return {name: value for name, value in settings.items() if isinstance(value, int | float | str | list | dict)}


def _settings_of(stage: Mapping[str, Any]) -> dict[str, Any]:
    """By the options of `ltsam decouple`."""
    if not stage:
        return {}
    return {
        "second_stage": stage["name"],
        "second_stage_args": stage["args"],
        "first_stage": stage["first_stage"]["folder"],
    }


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
