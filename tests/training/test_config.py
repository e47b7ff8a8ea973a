"""`LTSamConfig`: settings become objects once, and stay settings wherever they are copied or written."""

import copy
import dataclasses
import json
import pickle
import re

import pytest
import torch
from torch import nn

from hf_ltsam import LTSamConfig, LTSamTrainer, make_loss, make_method
from hf_ltsam.methods import SAM
from hf_ltsam.schedules import Piecewise

SETTINGS = {
    "method": "focal_sam",
    "method_args": {"rho": {"piecewise": {"values": [0.1, 0.2], "epochs": [2]}}},
    "loss": "logit_adjustment",
    "loss_args": {"tau": 0.5},
    "reweighting": "inverse",
    "reweighting_start": 0.5,
    "num_train_epochs": 4,
}
MADE = ("update_rule", "sample_loss", "class_weighting")
DATA = [{"input": torch.zeros(4), "labels": c} for c in (0, 0, 1, 2)]


def two_arguments(logits, labels, statistics=None):
    """A function, which is no name."""


def config(folder, **changes):
    return LTSamConfig(**{"output_dir": str(folder), "report_to": "none", "use_cpu": True, **SETTINGS, **changes})


def test_the_trainer_uses_what_the_config_has_made(tmp_path):
    args = config(tmp_path)
    args.make_choices()
    made = [getattr(args, name) for name in MADE]
    trainer = LTSamTrainer(nn.Linear(4, 3), args, train_dataset=DATA)
    for mine, theirs in zip([trainer.method, trainer.loss, trainer.reweighting], made, strict=True):
        assert mine is theirs
    assert args.update_rule.rho(0.0) == 0.1 and args.update_rule.rho(0.5) == 0.2  # epochs are shares now
    assert isinstance(args.update_rule.rho, Piecewise)


@pytest.mark.parametrize(
    ("stated", "given", "said"),
    [
        ({"method": "sgd"}, {"method": "sam"}, r"method='sgd' of LTSamConfig is not used.*trains with SAM\. Leave one"),
        ({"method": "sgd"}, {"method": SAM(rho=0.1)}, "method='sgd' of LTSamConfig is not used"),
        ({"loss": "focal"}, {"loss": "logit_adjustment"}, "loss='focal' of LTSamConfig is not used.*LogitAdjustment"),
        (
            {"loss": "focal"},
            {"loss": two_arguments},
            "loss='focal' of LTSamConfig is not used.*trains with two_arguments",
        ),
        ({"loss": "model"}, {"loss": "focal", "method": "sgd"}, "loss='model' of LTSamConfig"),
        ({"method": "sgd"}, {"method": "SGD"}, None),
        ({"loss": "model", "method": "sgd"}, {"loss": "model"}, None),
        ({}, {"method": "sgd", "loss": "focal"}, None),  # the defaults of the settings
        ({"method": "sgd", "loss": "focal"}, {}, None),
    ],
)
def test_a_choice_of_the_settings_that_is_not_used_is_told(stated, given, said, tmp_path, caplog):
    args = LTSamConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, **stated)
    LTSamTrainer(nn.Linear(4, 3), args, train_dataset=DATA, **given)
    assert bool(re.search(said, caplog.text)) if said else "is not used" not in caplog.text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "focal_sm"}, "'focal_sm'.*focal_sam"),
        ({"method_args": {"roh": 0.1}}, "'focal_sam' has no argument 'roh'"),
        ({"loss_args": {"tua": 1}}, "'logit_adjustment' has no argument 'tua'"),
        ({"reweighting": "inverze"}, "inverze.*inverse"),
    ],
)
def test_choices_are_checked_without_a_trainer(change, named, tmp_path):
    with pytest.raises(ValueError, match=named):
        config(tmp_path, **change).make_choices()


def test_another_setting_is_another_object(tmp_path):
    args = config(tmp_path)
    args.make_choices()
    loss, weighting = args.sample_loss, args.class_weighting
    args.method, args.method_args = "sam", {"rho": 0.3}
    assert args.update_rule == SAM(rho=0.3)
    assert args.sample_loss is loss and args.class_weighting is weighting
    args.num_train_epochs, args.method_args = 8, SETTINGS["method_args"]
    assert args.update_rule.rho(0.25) == 0.2


def test_a_change_inside_the_hyperparameters_is_another_object(tmp_path):
    """As a loop over a grid makes it: one config, whose mapping is written into between two trainers."""
    args = config(tmp_path, method="sam", method_args={"rho": 0.05}, loss_args={"tau": 0.5})
    first = LTSamTrainer(nn.Linear(4, 3), args, train_dataset=DATA)
    args.method_args["rho"], args.loss_args["tau"] = 0.5, 2.0
    second = LTSamTrainer(nn.Linear(4, 3), args, train_dataset=DATA)
    assert (first.method.rho, second.method.rho) == (0.05, 0.5)
    assert (first.loss.tau, second.loss.tau) == (0.5, 2.0)


def test_a_change_inside_a_schedule_is_another_object(tmp_path):
    args = config(tmp_path, method_args={"rho": {"piecewise": {"values": [0.1, 0.2], "boundaries": [0.5]}}})
    assert args.update_rule.rho(0.9) == 0.2
    args.method_args["rho"]["piecewise"]["values"][1] = 0.4
    assert args.update_rule.rho(0.9) == 0.4


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda args: pickle.loads(pickle.dumps(args))])
def test_copies_are_settings_alone(copied, tmp_path):
    args = config(tmp_path, hub_token="secret")
    before = pickle.dumps(args)
    args.make_choices()
    assert pickle.dumps(args) == before, "what is made of settings is not part of training_args.bin"
    again = copied(args)
    assert not set(MADE) & set(vars(again)) and again.hub_token is None
    assert again.sample_loss == args.sample_loss and again.class_weighting == args.class_weighting


def test_written_down_it_is_settings_alone(tmp_path):
    args = config(tmp_path)
    before = args.to_json_string()
    args.make_choices()
    assert args.to_json_string() == before and json.loads(before)["method"] == "focal_sam"
    assert not set(MADE) & (set(args.to_dict()) | set(dataclasses.asdict(args)) | set(args.to_sanitized_dict()))
    assert dataclasses.replace(args, method="sam", method_args=None).update_rule == SAM()


NO_NAMES = {  # value -> how it is shown
    "function": (two_arguments, "the function two_arguments"),
    "class": (SAM, "the class SAM"),
    "object": (SAM(rho=0.1), r"SAM\(.*rho=0.1\)"),
    "module": (nn.CrossEntropyLoss(), r"CrossEntropyLoss\(\)"),
    "number": (3, "3"),
    "list": (["sam"], r"\['sam'\]"),
}


@pytest.mark.parametrize("kind", ["method", "loss"])
@pytest.mark.parametrize("value, shown", NO_NAMES.values(), ids=NO_NAMES)
def test_what_is_no_name_is_refused_with_the_place_of_objects(kind, value, shown, tmp_path):
    where = rf"goes to the trainer, LTSamTrainer\(\.\.\., {kind}=\.\.\.\)"
    with pytest.raises(
        ValueError, match=rf"LTSamConfig\({kind}=\.\.\.\) takes the name of a {kind}, got {shown}\. .*{where}"
    ):
        config(tmp_path, **{kind: value, f"{kind}_args": None})
    make = {"method": make_method, "loss": make_loss}[kind]
    with pytest.raises(TypeError, match=rf"A {kind} is made by its name, got {shown}: an object is used as it is"):
        make(value)


@pytest.mark.parametrize("kind", ["method", "loss"])
def test_none_is_left_out(kind, tmp_path):
    with pytest.raises(
        ValueError, match=rf"LTSamConfig\({kind}=\.\.\.\) takes the name of a {kind}, got None\. Leave it out"
    ):
        config(tmp_path, **{kind: None, f"{kind}_args": None})
