"""Each mode resumes, accumulates, trains in half precision and on two processes; equations stand in the tests of the mode."""

from pathlib import Path

import pytest
import torch
from training.modes import DRAWN, FIXED, MODES, InOrder, trainer_of, weights_of
from training.two_ranks import results_of_two_ranks

WHOLE = [mode for mode in MODES if mode not in DRAWN]


def assert_equal(a, b, tolerance=0.0):
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("mode", MODES)
def test_resumes_bit_for_bit(mode, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": 2}
    whole, resumed = (trainer_of(mode, tmp_path, **settings) for _ in range(2))
    start = weights_of(whole)
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert_equal(weights_of(whole), weights_of(resumed))
    assert whole.method_memory.values, "something to remember"
    assert all(not torch.equal(p, start[name]) for name, p in weights_of(whole).items())


@pytest.mark.parametrize("mode", WHOLE)
def test_micro_batches_of_a_step_are_one_batch(mode, tmp_path):
    one, several = (
        trainer_of(mode, tmp_path, kind=InOrder, ascent_scope="step", batch=8 // k, gradient_accumulation_steps=k)
        for k in (1, 4)
    )
    one.train(), several.train()
    assert_equal(weights_of(one), weights_of(several), 1e-6 if mode == "label smoothing" else 1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_is_near(mode, tmp_path):
    """Weights in float32 and passes in bfloat16: close to float32, and something else."""
    wide, narrow = (
        trainer_of(mode, tmp_path, torch.float32, bf16=bf16, learning_rate=0.1, max_steps=3) for bf16 in (False, True)
    )
    start = weights_of(wide)
    torch.manual_seed(0), wide.train(), torch.manual_seed(0), narrow.train()
    moved, difference = (
        torch.cat([(p - other[name]).flatten() for name, p in weights_of(wide).items()]).norm()
        for other in (start, weights_of(narrow))
    )
    assert 0 < difference <= 0.05 * moved


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return results_of_two_ranks(Path(__file__).with_name("modes.py"), tmp_path_factory.mktemp("modes"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_on_two_processes(mode, ranks, tmp_path):
    """Alike on both, and one process with twice the batch where nothing is drawn for a micro-batch."""
    first, second = (rank[mode] for rank in ranks)
    assert_equal(first, second)
    if mode in DRAWN | FIXED:
        return
    one = trainer_of(mode, tmp_path, kind=InOrder, batch=8, max_steps=3, ascent_scope="step")
    one.train()
    assert_equal(weights_of(one), first, 1e-6 if mode == "label smoothing" else 1e-12)
