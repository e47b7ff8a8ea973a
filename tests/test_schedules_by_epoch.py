"""Schedules by epoch: from the recipe to the radius of every single step."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from hf_ltsam import LTSamConfig, LTSamTrainer, make_method
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.methods import SAM
from hf_ltsam.schedules import Cosine, Linear, Piecewise, epochs_to_shares, value_at


@dataclass(frozen=True)
class Recording(SAM):
    """Notes the radius of every step."""

    radii: tuple = ()

    def gradient(self, loss, step):
        object.__setattr__(self, "radii", (*self.radii, value_at(self.rho, step.progress)))
        return loss.gradient()


def radii(folder, schedule, samples, epochs, accumulation=1):
    args = LTSamConfig(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=0.1,
        method="sam",
        method_args={"rho": schedule},
        gradient_accumulation_steps=accumulation,
    )
    data = [{"input": torch.ones(2), "labels": i % 2} for i in range(samples)]
    trainer = LTSamTrainer(nn.Linear(2, 2), args, train_dataset=data)
    trainer.method = Recording(rho=trainer.method.rho)
    trainer.train()
    return trainer.method.radii


# 7 steps an epoch, and numbers of epochs whose quotients are no binary fractions
@pytest.mark.parametrize(("epochs", "boundary"), [(10, 7), (6, 1), (3, 2)])
def test_a_piecewise_boundary_falls_on_the_first_step_of_its_epoch(epochs, boundary, tmp_path):
    got = radii(tmp_path, {"piecewise": {"values": [0.1, 0.2], "epochs": [boundary]}}, samples=7, epochs=epochs)
    assert list(got) == [0.1] * (7 * boundary) + [0.2] * (7 * (epochs - boundary))


def test_with_gradient_accumulation_an_epoch_has_fewer_steps(tmp_path):
    """7 micro-batches, three to a step: 3 steps an epoch, each with as many calls as it has micro-batches."""
    got = radii(tmp_path, {"piecewise": {"values": [0.1, 0.2], "epochs": [1]}}, samples=7, epochs=2, accumulation=3)
    assert list(got) == [0.1] * 7 + [0.2] * 7


@pytest.mark.parametrize("epochs_in_all", [90, 200, 300])
def test_no_epoch_is_missed_by_rounding(epochs_in_all):
    for epoch in range(1, epochs_in_all):
        by_epoch = {"rho": {"piecewise": {"values": [0, 1], "epochs": [epoch]}}}
        rho = make_method("sam", **epochs_to_shares(by_epoch, epochs_in_all, max_steps=-1)).rho
        for steps in (1, 49, 170, 391):
            at = epoch * steps
            assert [rho(k / (epochs_in_all * steps)) for k in (at - 1, at)] == [0, 1]


def test_a_line_runs_from_epoch_to_epoch(tmp_path):
    got = radii(tmp_path, {"linear": {"start": 0.0, "end": 1.0, "epochs": [1, 3]}}, samples=5, epochs=4)
    expected = [min(max((k / 5 - 1) / 2, 0.0), 1.0) for k in range(20)]
    assert got == pytest.approx(expected, abs=1e-15)
    assert got[5] == 0.0 and got[6] > 0.0 and got[14] < 1.0 and got[15] == 1.0


# Rangwani et al. 2022 App. C: rho 0.05 for 5 epochs, 0.1 until 60, then 0.5, of 90
RECIPE = "num_train_epochs: 90\nmethod: sam\nmethod_args:\n  rho:\n    {}\n"


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("piecewise: {values: [0.05, 0.1, 0.5], epochs: [5, 60]}", Piecewise((0.05, 0.1, 0.5), (5 / 90, 60 / 90))),
        ("cosine: {start: 0.05, end: 0.5, epochs: [5, 60]}", Cosine(0.05, 0.5, (5 / 90, 60 / 90))),
        ("linear: {start: 0.05, end: 0.5, epochs: [0, 90]}", Linear(0.05, 0.5)),
        ("linear: {start: 0.05, end: 0.5, boundaries: [0.1, 0.5]}", Linear(0.05, 0.5, (0.1, 0.5))),
    ],
)
def test_from_the_recipe_to_the_method(text, schedule, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(text))
    words = ["--config", str(recipe), "--use_cpu", "true", "--output_dir", str(tmp_path)]
    assert make_method("sam", **parse(words).config.method_hyperparameters).rho == schedule


def test_another_number_of_epochs_on_the_command_line_moves_the_shares(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format("piecewise: {values: [0.05, 0.5], epochs: [60]}"))
    run = parse(
        ["--config", str(recipe), "--num_train_epochs", "120", "--use_cpu", "true", "--output_dir", str(tmp_path)]
    )
    assert run.config.method_hyperparameters == {"rho": {"piecewise": {"values": [0.05, 0.5], "boundaries": [0.5]}}}


PIECEWISE = {"values": [0.1, 0.2], "epochs": [2]}


@pytest.mark.parametrize(
    ("schedule", "settings", "message"),
    [
        (
            {"piecewise": PIECEWISE},
            {"max_steps": 100},
            r"'rho' counts in epochs=\[2\].*max_steps=100.*num_train_epochs.*`boundaries`",
        ),
        ({"piecewise": PIECEWISE}, {"num_train_epochs": 2.5}, r"whole number of epochs, got num_train_epochs=2\.5"),
        (
            {"piecewise": PIECEWISE},
            {"num_train_epochs": 1},
            r"'rho' names epoch 2, which is no epoch of a training of 1",
        ),
        ({"piecewise": {**PIECEWISE, "epochs": [0, 2]}}, {}, r"names epoch 0.*one fewer than values"),
        ({"piecewise": {**PIECEWISE, "epochs": ["2"]}}, {}, r"names epoch '2'"),
        ({"piecewise": {**PIECEWISE, "epochs": 2}}, {}, r"epochs as a list such as \[160\], got 2"),
        ({"piecewise": {**PIECEWISE, "boundaries": [0.5]}}, {}, r"both epochs=\[2\] and boundaries=\[0\.5\]"),
        ({"linear": {"start": 0, "end": 1, "epochs": [2, 1]}}, {}, r"Linear\(boundaries=.*two increasing"),
    ],
)
def test_refusals(schedule, settings, message, tmp_path):
    args = LTSamConfig(
        **{
            "output_dir": str(tmp_path),
            "num_train_epochs": 4,
            "use_cpu": True,
            "report_to": "none",
            "method": "sam",
            "method_args": {"rho": schedule},
            "optim": "sgd",
            "optim_args": "momentum=0.9",
            "max_grad_norm": 0.0,
            "learning_rate": 0.1,
            **settings,
        }
    )
    with pytest.raises(ValueError, match=message):
        LTSamTrainer(nn.Linear(2, 2), args, train_dataset=[{"input": torch.ones(2), "labels": c} for c in (0, 1)])
