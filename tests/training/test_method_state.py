"""What methods are told by the host and what it keeps for them: steps, random numbers, memory."""

import pytest
import torch
from torch import nn
from training.noisy_run import noisy_trainer
from training.test_golden_steps import updates
from training.test_resume import assert_same
from training.toy import Toy, toy_trainer

from hf_ltsam.methods import make_method

STATEFUL = ["looksam", "msam", "friendly_sam", "momentum_focal_sam"]
RANDOM = {
    "pgd": {"sigma": 0.05},
    "lpf_sgd": {"gamma": 0.05, "shards": 2},
    "model_perturbation": {"rho": 0.3},
    "gnm": {"sigma": 0.1},
}


@pytest.mark.parametrize("step", [4, 12])  # in the middle of LookSAM's five, and of an epoch
@pytest.mark.parametrize("method", [*STATEFUL, *RANDOM, "xsam", "cc_sam"])
def test_resumes_bit_for_bit(method, step, tmp_path):
    def run():  # full batches only: batch norm cannot normalise LPF-SGD's shard of one sample
        return noisy_trainer(
            tmp_path,
            method=method,
            method_args=RANDOM.get(method),
            per_device_train_batch_size=5,
            dataloader_drop_last=True,
        )

    whole, resumed = run(), run()
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert_same(resumed.model, whole.model)
    assert sorted(resumed.method_memory.values) == sorted(whole.method_memory.values)
    assert bool(whole.method_memory.values) == (method in (*STATEFUL, "xsam"))


def test_cc_sam_over_a_whole_step_resumes_bit_for_bit(tmp_path):
    """A resumed run tries anew how the trunk may be passed."""

    def run():
        extras = {"gradient_accumulation_steps": 3, "ascent_scope": "step", "dataloader_drop_last": True}
        return noisy_trainer(tmp_path, method="cc_sam", **extras)

    whole, resumed = run(), run()
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert_same(resumed.model, whole.model)


@pytest.mark.parametrize("method", STATEFUL)
def test_without_its_memory_a_resumed_run_goes_elsewhere(method, tmp_path, monkeypatch):
    """Guards the test above; such a checkpoint is refused otherwise."""
    whole, resumed = noisy_trainer(tmp_path, method=method), noisy_trainer(tmp_path, method=method)
    whole.train()
    (tmp_path / "checkpoint-12" / "method_memory.pt").unlink()
    with pytest.raises(ValueError, match=r"method_memory\.pt is missing"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
    monkeypatch.setattr("hf_ltsam.training.durable_trainer.check_complete", lambda *_, **__: None)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
    assert not torch.equal(resumed.model.body[0].weight, whole.model.body[0].weight)


def test_every_process_keeps_its_own_memory(tmp_path, monkeypatch):
    made = noisy_trainer(tmp_path, method="msam")
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()

    def become(process):
        monkeypatch.setattr(type(made.args), "process_index", property(lambda _: process))

    for process in (0, 1):
        become(process)
        made.method_memory.values["msam.m"] = [torch.full((2,), float(process))]
        made.method_memory.save_state(checkpoint, made.args)
    for process, kept in ((0, 0.0), (1, 1.0), (2, 0.0)):  # there was no third: it starts from the first one's
        become(process)
        made.method_memory.load_state(checkpoint, made.args, made.model)
        assert made.method_memory.values["msam.m"][0].tolist() == [kept, kept]


@pytest.mark.parametrize(("name", "args"), [("pgd", {"sigma": 0.5}), ("model_perturbation", {"rho": 0.5})])
def test_noise_does_not_shrink_with_gradient_accumulation(name, args, tmp_path):
    """All micro-batches of a step draw the same, so two halves are the whole."""
    whole = updates(tmp_path, make_method(name, **args))
    halves = updates(tmp_path, make_method(name, **args), gradient_accumulation_steps=2, per_device_train_batch_size=4)
    for a, b in zip(whole, halves, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("name", "args"), RANDOM.items())
def test_noise_depends_on_seed_and_step(name, args, tmp_path):
    first, again, other = (updates(tmp_path, make_method(name, **args), seed=seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


def test_pgd_draws_anew_on_every_step(tmp_path):
    """At a learning rate that moves nothing, the updates differ from SGD's by noise and the optimizer's momentum of it."""
    noisy, plain = (
        updates(tmp_path, m, learning_rate=1e-9) for m in (make_method("pgd", sigma=100.0), make_method("sgd"))
    )
    first, second = noisy[0] - plain[0], noisy[1] - plain[1] - 0.9 * (noisy[0] - plain[0])
    cosine = torch.dot(first, second) / (first.norm() * second.norm())
    assert abs(cosine) < 0.5 and first.std().item() == pytest.approx(100e-9, rel=0.35)


def test_noise_leaves_the_global_generators_alone(tmp_path):
    def after(name):
        torch.manual_seed(0)
        toy_trainer(tmp_path, make_method(name)).train()
        return torch.get_rng_state()

    assert all(torch.equal(after(name), after("sgd")) for name in RANDOM)


def test_applied_on_every_second_step(tmp_path):
    """Step 0 is SAM, step 1 is SGD: from the weights that SAM has reached."""
    mixed = updates(tmp_path, make_method("sam", rho=0.5, interval=2))
    sam, sgd = updates(tmp_path, make_method("sam", rho=0.5)), updates(tmp_path, make_method("sgd"))
    assert torch.equal(mixed[0], sam[0])
    assert not torch.equal(mixed[1], sam[1]) and not torch.equal(mixed[1], sgd[1])


def test_the_logs_say_on_which_share_of_the_steps(tmp_path):
    made = noisy_trainer(tmp_path, method="sam", method_args={"rho": 0.1, "interval": 3}, max_steps=6, logging_steps=6)
    made.train()
    assert made.state.log_history[0]["sam_step_share"] == pytest.approx(2 / 6)


def test_a_classifier_that_cannot_be_told_is_refused_before_the_first_step(tmp_path):
    class Two(Toy):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(5, 4, dtype=torch.float64)

    for method in (make_method("cc_sam"), make_method("model_perturbation")):
        with pytest.raises(ValueError, match="'classifier' and 'other' could each be it"):
            toy_trainer(tmp_path, method, model=Two())
    toy_trainer(tmp_path, make_method("cc_sam", parameters="all"), model=Two()).train()
