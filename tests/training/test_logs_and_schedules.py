"""Telemetry, learning-rate milestones, weight decay groups, callbacks."""

import logging

import pytest
import torch
from torch import nn
from training.toy import STATISTICS, Toy, ToyBatches, toy_trainer
from transformers import TrainerCallback

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.methods import METHODS, make_method
from hf_ltsam.training.learning_rate import milestone_schedule
from hf_ltsam.training.telemetry import Telemetry


def first_batch():
    rows = list(ToyBatches())[:8]
    return torch.stack([r["x"] for r in rows]), torch.tensor([r["labels"] for r in rows])


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients])


def test_telemetry_of_sam_is_what_it_says(tmp_path):
    trainer = toy_trainer(tmp_path, "sam", max_steps=1, logging_strategy="steps", logging_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]

    model, (x, y) = Toy(), first_batch()
    plain = nn.functional.cross_entropy(model(x), y)
    ascent = flat(torch.autograd.grad(plain, list(model.parameters())))
    eps = 0.05 * ascent / ascent.norm()
    with torch.no_grad():
        for p, e in zip(model.parameters(), eps.split([p.numel() for p in model.parameters()])):
            p.add_(e.view_as(p))
    perturbed = nn.functional.cross_entropy(model(x), y)
    descent = flat(torch.autograd.grad(perturbed, list(model.parameters())))

    assert logged["sam_step_share"] == 1
    assert logged["sam_eps_norm"] == pytest.approx(0.05, rel=1e-6)
    assert logged["sam_sharpness_gap"] == pytest.approx((perturbed - plain).item(), rel=1e-6)
    assert logged["sam_gradient_cosine"] == pytest.approx(
        (ascent @ descent / ascent.norm() / descent.norm()).item(), rel=1e-6
    )
    assert logged["loss"] == pytest.approx(plain.item(), rel=1e-6)


def test_telemetry_by_group_is_what_it_says(tmp_path, monkeypatch):
    """The classes of the toy are 0 (many), 1 (many), 2 (medium) and 3 (few); the last two are the tail."""
    monkeypatch.setattr("hf_ltsam.training.steps.step.GRADIENTS_EVERY", 1)
    trainer = toy_trainer(tmp_path, "sam", max_steps=1, logging_strategy="steps", logging_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]

    model, (x, y) = Toy(), first_batch()
    parameters = list(model.parameters())
    plain = nn.functional.cross_entropy(model(x), y, reduction="none")
    assert logged["loss_many"] == pytest.approx(plain[y <= 1].mean().item(), rel=1e-6)
    assert logged["loss_medium"] == pytest.approx(plain[y == 2].mean().item(), rel=1e-6)
    assert logged["loss_few"] == pytest.approx(plain[y == 3].mean().item(), rel=1e-6)
    for name, chosen in (("head", y <= 1), ("tail", y >= 2)):
        g = flat(torch.autograd.grad((plain * chosen).sum() / len(y), parameters, retain_graph=True))
        assert logged[f"grad_norm_{name}"] == pytest.approx(g.norm().item(), rel=1e-6)
    g = flat(torch.autograd.grad(plain.mean(), parameters))
    with torch.no_grad():
        for p, e in zip(parameters, (0.05 * g / g.norm()).split([p.numel() for p in parameters])):
            p.add_(e.view_as(p))
    gaps = (nn.functional.cross_entropy(model(x), y, reduction="none") - plain).detach()
    assert logged["sam_sharpness_gap_head"] == pytest.approx(gaps[y <= 1].mean().item(), rel=1e-5)
    assert logged["sam_sharpness_gap_tail"] == pytest.approx(gaps[y >= 2].mean().item(), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_looking_at_gradients_changes_nothing(method, tmp_path, monkeypatch):
    def weights(**settings):
        trainer = toy_trainer(tmp_path, method, logging_strategy="steps", logging_steps=1, **settings)
        trainer.train()
        return trainer.model.flat(), trainer.state.log_history[0]

    monkeypatch.setattr("hf_ltsam.training.steps.step.GRADIENTS_EVERY", 1)
    (seen, logs), (unseen, nothing) = weights(), weights(telemetry=False)
    assert torch.equal(seen, unseen)
    assert ("grad_norm_tail" in logs) == (method != "lpf_sgd"), (
        "its passes are over shards, and one over the whole is another"
    )
    assert not [key for key in nothing if key.startswith(("sam_", "loss_", "grad_norm_"))]


@pytest.mark.parametrize("exact_rows", [True, False])
@pytest.mark.parametrize(
    ("method", "args"), [("cc_sam", {"scale": 0.3}), ("sse_sam", {"gamma": 1.0}), ("lpf_sgd", {"gamma": 0.1})]
)
def test_gaps_of_head_and_tail_add_up_to_the_whole(method, args, exact_rows, tmp_path):
    """Whatever the passes: n_head gap_head + n_tail gap_tail = n gap."""
    trainer = toy_trainer(
        tmp_path,
        make_method(method, **args),
        max_steps=1,
        logging_strategy="steps",
        logging_steps=1,
        exact_rows=exact_rows,
    )
    trainer.train()
    logged, (_, y) = trainer.state.log_history[0], first_batch()
    if method == "lpf_sgd":
        assert "sam_sharpness_gap" not in logged, "its only pass is perturbed, so no gap is known"
        return
    parts = (y <= 1).sum() * logged["sam_sharpness_gap_head"] + (y >= 2).sum() * logged["sam_sharpness_gap_tail"]
    assert parts / len(y) == pytest.approx(logged["sam_sharpness_gap"], rel=1e-5)


def test_half_precision_and_skipped_steps_do_not_spoil_the_means():
    telemetry = Telemetry(lambda: ClassStatistics([500, 50, 5]))
    for step in range(1000):
        telemetry.perturbed_pass(torch.tensor(2.0), None, torch.tensor(0.1, dtype=torch.bfloat16))
        telemetry.losses(torch.tensor([torch.nan if step == 7 else 1.0, 3.0]), torch.tensor([0, 2]))
        telemetry.end_step()
    logs = telemetry.pop()
    assert logs["sam_sharpness_gap"] == pytest.approx(0.1, rel=1e-2)
    assert (logs["loss_many"], logs["loss_few"]) == (1.0, 3.0)


def test_groups_without_a_sample_are_not_logged():
    telemetry = Telemetry(lambda: ClassStatistics([500, 50, 5]))
    telemetry.losses(torch.tensor([1.0, 3.0]), torch.tensor([0, 2]))
    telemetry.end_step()
    telemetry.losses(torch.tensor([2.0, 8.0]), torch.tensor([0, 0]))
    telemetry.end_step()
    assert telemetry.pop() == {"sam_step_share": 0.0, "loss_many": pytest.approx(11 / 3), "loss_few": 3.0}


@pytest.mark.parametrize(
    ("method", "settings", "warns"),
    [
        ("sam", {"rho": 0.0}, True),
        ("sam", {"rho": 0.05, "start": 0.9}, True),
        ("sam", {"rho": 0.05}, False),
        ("sam", {"rho": {"piecewise": {"values": [0.0, 0.1], "boundaries": [0.5]}}}, False),
        ("lpf_sgd", {"gamma": 0.0}, True),
        ("sgd", {}, False),
        ("pgd", {}, False),
    ],
)
def test_a_perturbation_that_never_was_is_said_so(method, settings, warns, tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        toy_trainer(tmp_path, make_method(method, **settings)).train()
    said = [r.getMessage() for r in caplog.records if "perturbed nothing in all 2 steps" in r.getMessage()]
    assert len(said) == warns
    if warns:
        assert said[0].startswith(f"{method}(")


def test_telemetry_of_a_method_without_perturbation(tmp_path):
    trainer = toy_trainer(tmp_path, "sgd", logging_strategy="steps", logging_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["sam_step_share"] == 0
    assert "sam_eps_norm" not in trainer.state.log_history[0]


def test_telemetry_starts_anew_after_each_log(tmp_path):
    trainer = toy_trainer(tmp_path, "sam", logging_strategy="steps", logging_steps=1)
    trainer.train()
    gaps = [log["sam_sharpness_gap"] for log in trainer.state.log_history[:2]]
    assert gaps[0] != gaps[1]


def rates(schedule, optimizer, steps):
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_milestones_with_warm_up():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = milestone_schedule(optimizer, total_steps=200, warmup_steps=5, milestones=[0.8, 0.9], gamma=0.01)
    seen = rates(schedule, optimizer, 200)
    assert seen[:6] == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1])
    assert seen[159] == pytest.approx(0.1) and seen[160] == pytest.approx(1e-3)
    assert seen[179] == pytest.approx(1e-3) and seen[180] == pytest.approx(1e-5)


def test_a_milestone_falls_on_the_nearest_step():
    """0.29 of 100 steps are 28.999999999999996 to a computer."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = milestone_schedule(optimizer, total_steps=100, warmup_steps=0, milestones=[0.29], gamma=0.01)
    (factor,) = schedule.lr_lambdas
    assert [factor(step) for step in (28, 29)] == [1.0, 0.01]


def test_milestones_through_the_trainer_resume(tmp_path):
    def run(**changes):
        trainer = toy_trainer(tmp_path, "sam", lr_milestones=[0.5], save_strategy="steps", save_steps=1, **changes)
        trainer.train(resume_from_checkpoint=changes.get("resume_from_checkpoint"))
        return trainer.lr_scheduler.get_last_lr()[0]

    assert run() == pytest.approx(0.01)
    assert run(resume_from_checkpoint=str(tmp_path / "checkpoint-1")) == pytest.approx(0.01)


def test_decay_of_all_parameters(tmp_path):
    def decayed(**changes):
        optimizer = toy_trainer(tmp_path, "sam", **changes).create_optimizer()
        return sum(p.numel() for g in optimizer.param_groups if g["weight_decay"] > 0 for p in g["params"])

    assert decayed(decay_all_parameters=True) == 44
    assert decayed(decay_all_parameters=False) == 35  # without the biases of 5 and 4


def test_losses_of_samples_with_several_labels():
    """Each counts once: by a third in three classes, and without a label in the most frequent one."""
    telemetry = Telemetry(lambda: ClassStatistics([200, 50, 10], samples=200))
    labels = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    telemetry.losses(torch.tensor([1.0, 4.0, 100.0]), labels)
    telemetry.end_step()
    logs = telemetry.pop()
    assert logs["loss_many"] == pytest.approx((1 + 4 / 3 + 100) / (1 + 1 / 3 + 1), rel=1e-6)
    assert logs["loss_few"] == pytest.approx(4.0, rel=1e-6)


class FreezeAfterOneStep(TrainerCallback):
    def on_step_end(self, args, state, control, model, **_):
        model.fc1.requires_grad_(False)


def test_freezing_in_the_middle_of_training(tmp_path):
    trainer = toy_trainer(tmp_path, "sam", callbacks=[FreezeAfterOneStep()], weight_decay=0.0)
    trainer.train()
    once = toy_trainer(tmp_path, "sam", max_steps=1, weight_decay=0.0)
    once.train()
    assert torch.equal(trainer.model.fc1.weight, once.model.fc1.weight)
    assert not torch.equal(trainer.model.classifier.weight, once.model.classifier.weight)


class ThreeLayers(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 4).requires_grad_(False))
        self.double()

    def forward(self, x):
        return super().forward(x)


class TakeTurns(TrainerCallback):
    def on_step_begin(self, args, state, control, model, **_):
        for k in (0, 1):
            model[k].requires_grad_(k == state.global_step // 2)


@pytest.mark.parametrize("resumed_at", [None, 2, 3])
def test_a_momentum_is_not_that_of_another_layer_of_the_same_shape(tmp_path, resumed_at):
    """Momentum-SAM has none in the first step of a layer, and perturbs nothing."""

    def ascents(**resume):
        logs = {"logging_strategy": "steps", "logging_steps": 1, "save_strategy": "steps", "save_steps": 1}
        trainer = toy_trainer(tmp_path, "msam", ThreeLayers(), [TakeTurns()], max_steps=4, **logs)
        trainer.train(**resume)
        return ["sam_eps_norm" in log for log in trainer.state.log_history if "loss" in log]

    assert ascents() == [False, True, False, True]
    if resumed_at is not None:
        assert ascents(resume_from_checkpoint=str(tmp_path / f"checkpoint-{resumed_at}")) == [False, True, False, True]


def test_clipping_acts_on_the_final_gradient_only(tmp_path):
    """The perturbation keeps its radius whatever max_grad_norm is."""
    trainer = toy_trainer(
        tmp_path, "sam", max_steps=1, max_grad_norm=1e-4, weight_decay=0.0, logging_strategy="steps", logging_steps=1
    )
    trainer.train()
    assert trainer.state.log_history[0]["sam_eps_norm"] == pytest.approx(0.05, rel=1e-6)
    assert (trainer.model.flat() - Toy().flat()).norm().item() == pytest.approx(0.1 * 1e-4, rel=1e-3)


def test_a_loss_may_be_any_function(tmp_path):
    def squared(logits, labels, statistics):
        return (logits - nn.functional.one_hot(labels, statistics.num_classes)).square().sum(1)

    args = LTSamConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        max_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        per_device_train_batch_size=8,
        logging_steps=1,
    )
    trainer = LTSamTrainer(Toy(), args, train_dataset=ToyBatches(), class_statistics=STATISTICS, loss=squared)
    trainer.train()
    x, y = first_batch()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(
        squared(Toy()(x), y, STATISTICS).mean().item(), rel=1e-6
    )


def test_deferred_reweighting_starts_when_it_says(tmp_path):
    """Two steps: none of the first, all of the second is weighted."""

    def run(**changes):
        trainer = toy_trainer(
            tmp_path, "sgd", logging_strategy="steps", logging_steps=1, learning_rate=1e-12, **changes
        )
        trainer.train()
        return [log["loss"] for log in trainer.state.log_history[:2]]

    plain, deferred, whole = run(), run(reweighting="inverse", reweighting_start=0.5), run(reweighting="inverse")
    assert deferred[0] == plain[0] and deferred[1] == whole[1]
    assert deferred[1] != plain[1] and whole[0] != plain[0]


def test_telemetry_adds_up_passes_and_averages_perturbed_steps():
    telemetry, t = Telemetry(), torch.tensor
    telemetry.perturbed_pass(t(5.0), t(1.0), t(0.1))  # two passes in one step ...
    telemetry.perturbed_pass(t(10.0), t(-1.0), t(0.2))
    telemetry.end_step()
    telemetry.end_step()  # ... a step without any ...
    telemetry.perturbed_pass(t(5.0), t(1.0), t(0.5))  # ... and one with one
    telemetry.end_step()
    assert telemetry.pop() == pytest.approx(
        {
            "sam_step_share": 2 / 3,
            "sam_eps_norm": (7.5 + 5) / 2,
            "sam_gradient_cosine": (0 + 1) / 2,
            "sam_sharpness_gap": (0.3 + 0.5) / 2,
        }
    )
    assert telemetry.pop() == {}


def test_a_step_that_tells_no_cosine_does_not_lower_the_mean():
    telemetry, t = Telemetry(), torch.tensor
    for cosine in (t(0.5), None):
        telemetry.perturbed_pass(t(2.0), cosine, None)
        telemetry.end_step()
    assert telemetry.pop() == {"sam_step_share": 1.0, "sam_eps_norm": 2.0, "sam_gradient_cosine": 0.5}
