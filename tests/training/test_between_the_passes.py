"""What a step costs besides its passes: nothing is computed twice."""

from types import SimpleNamespace

import pytest
import torch
from training.test_batches_on_device import assert_same, trained
from training.toy import toy_trainer
from training.two_processes_in_memory import numbered

from hf_ltsam.training.steps.skipped_steps import SkippedSteps
from hf_ltsam.training.telemetry import Telemetry


@pytest.mark.parametrize("clipped", [0.0, 0.05])
def test_the_norm_of_the_gradient_is_computed_once(clipped, tmp_path, monkeypatch):
    trainer = toy_trainer(tmp_path, "sam", logging_strategy="steps", logging_steps=1, max_grad_norm=clipped)
    norms, clip, calls = [], trainer.accelerator.clip_grad_norm_, []
    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", lambda p, most: calls.append(most) or clip(p, most))
    step = trainer.training_step

    def recorded(*given):
        loss = step(*given)
        norms.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm().item())
        return loss

    trainer.training_step = recorded
    trainer.train()
    logged = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert logged == pytest.approx(norms, rel=1e-12)
    assert calls == ([clipped] * 2 if clipped else [])


@pytest.mark.parametrize(
    ("scaler", "gradient", "known"), [(None, 3.0, 6.0), (None, torch.inf, None), (object(), 3.0, None)]
)
def test_a_norm_that_is_scaled_or_not_finite_is_not_used_again(scaler, gradient, known):
    skipped = SkippedSteps(SimpleNamespace(scaler=scaler), {}, stop_after=5)
    parameter = torch.zeros(4)
    parameter.grad = torch.tensor([gradient, 3.0, 3.0, 3.0])
    skipped.judge([parameter], 0, lambda *_: "")
    assert skipped.norm == known


@pytest.mark.slow
def test_compiled_models_take_these_batches(tmp_path):
    """With one graph for several passes: `aot_eager`, since not every machine has a compiler."""
    settings = {"method": "focal_sam", "channels_last": True, "steps": 4}
    plain, compiled = (
        trained(tmp_path, numbered(cutout=2), **settings, **more)
        for more in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"})
    )
    assert all(torch.equal(a, b) for a, b in zip(plain.seen, compiled.seen, strict=True))
    for (name, a), b in zip(plain.model.state_dict().items(), compiled.model.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
    torch._dynamo.reset()


def test_a_step_in_half_precision_takes_these_batches(tmp_path):
    a, b = (trained(tmp_path, numbered(), bf16=True, channels_last=c, method="sam", steps=3) for c in (True, False))
    for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-2, atol=1e-3)
    with pytest.raises(AssertionError):
        assert_same(a.model, trained(tmp_path, numbered(), method="sam", steps=3).model)  # bf16 was on


def test_telemetry_of_steps_that_tell_more_and_less():
    telemetry, t = Telemetry(), torch.tensor
    for norm, gap in ((1.0, 0.5), (3.0, None), (5.0, 1.5)):
        telemetry.perturbed_pass(t(norm), None, None if gap is None else t(gap))
        telemetry.end_step()
    assert telemetry.pop() == {"sam_step_share": 1.0, "sam_eps_norm": 3.0, "sam_sharpness_gap": 1.0}
