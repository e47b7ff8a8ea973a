"""NaN and infinity are refused by every number of every configuration, method, loss, schedule and second stage, by name."""

import dataclasses
import math

import pytest

from hf_ltsam import LOSSES, METHODS, LTSamConfig
from hf_ltsam.adapters import ADAPTERS
from hf_ltsam.cli.evaluate.evaluation import EvaluationSettings
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.cli.options.wording import in_options
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.settings import DataArguments, ModelArguments, SecondStageArguments
from hf_ltsam.curvature.analysis import CurvatureSettings
from hf_ltsam.data.in_memory.randaugment import RandAugment
from hf_ltsam.losses.reweighting import Reweighting
from hf_ltsam.schedules import SCHEDULES
from hf_ltsam.training.second_stage import SECOND_STAGES

OURS = [adapter.config for adapter in ADAPTERS.values() if adapter.config.__module__.startswith("hf_ltsam")]
SETTINGS = [LTSamConfig, ModelArguments, DataArguments, SecondStageArguments, CurvatureSettings, EvaluationSettings]
CLASSES = [
    *SETTINGS,
    *METHODS.values(),
    *LOSSES.values(),
    *SCHEDULES.values(),
    *SECOND_STAGES.values(),
    Reweighting,
    RandAugment,
    *OURS,
]
UNBOUNDED = {("LTSamConfig", "max_grad_norm"), ("LTSamConfig", "eval_delay")}  # no clipping; no evaluation


def numbers(cls):
    """Names of the float arguments, whether a number or several."""
    for field in dataclasses.fields(cls):
        if field.init and ("float" in str(field.type) or isinstance(field.default, float)):
            yield field.name, "tuple" in str(field.type) or "list" in str(field.type)


def required(cls):
    missing = dataclasses.MISSING
    for field in dataclasses.fields(cls):
        if field.init and field.default is missing and field.default_factory is missing:
            yield field.name, (0.1,) if "tuple" in str(field.type) else 0.1 if "float" in str(field.type) else "x"


CASES = [(cls, name, several) for cls in CLASSES for name, several in numbers(cls)]


def test_the_table_is_not_empty():
    assert len(CASES) > 90 and {cls for cls, _, _ in CASES} > {LTSamConfig, ModelArguments, *METHODS.values()} - {
        METHODS["sgd"]
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("cls, name, several", CASES, ids=[f"{cls.__name__}-{name}" for cls, name, _ in CASES])
def test_every_number_is_finite(cls, name, several, value, tmp_path):
    more = {"output_dir": str(tmp_path), "use_cpu": True} if cls is LTSamConfig else {}
    given = {**dict(required(cls)), **more, name: (value, value) if several else value}
    if value == math.inf and (cls.__name__, name) in UNBOUNDED:
        cls(**given)
        return
    with pytest.raises(ValueError, match=rf"\b{name.removesuffix('s')}") as refused:
        cls(**given)
    assert str(value).lstrip("-") in str(refused.value), "the value is named"


NESTED = [
    ("lr_scheduler_kwargs", '{"gamma": NaN}'), ("lr_milestones", ["nan"]), ("optim_args", "momentum=nan"), ("method_args", '{"rho": NaN}'),
    ("loss_args", '{"tau": Infinity}'), ("adapter_args", '{"lora_dropout": NaN}'), ("second_stage_args", '{"tau": NaN}'),
    ("method_args", '{"rho": {"piecewise": {"values": [0.1, NaN], "boundaries": [0.5]}}}'), ("learning_rate", "nan"), ("learning_rate", "-1"),
]  # fmt: skip


@pytest.mark.parametrize("name, value", NESTED)
def test_on_the_command_line(name, value, tmp_path):
    words = [f"--{name}", *(value if isinstance(value, list) else [value])]
    with pytest.raises(ValueError) as refused:
        parse(["--output_dir", str(tmp_path), "--method", "sam", *words]).config.make_choices()
    said = in_options(str(refused.value), OptionParser.declared)
    assert f"--{name} must" in said or name in ("lr_milestones", "method_args", "loss_args", "second_stage_args")
    assert any(word in said for word in ("nan", "inf", "-1"))
