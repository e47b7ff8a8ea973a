"""Killed anywhere, as often as it likes, a training ends as if nothing had happened."""

import json
import re
import signal

import pytest
import torch
from time_limits import PATIENCE
from training.killed_runs import FORWARD, PASSES, left, log, run, start
from training.noisy_run import noisy_trainer
from transformers.trainer_utils import get_last_checkpoint

RHO = {"rho": {"piecewise": {"values": [0.05, 0.2], "boundaries": [0.6]}}}
# 24 steps (12 with two micro-batches a step or two ranks) with deferred re-weighting, checkpoints every 4
CASES = {
    "looksam": {"method": "looksam"},
    "msam": {"method": "msam"},
    "momentum_focal_sam": {"method": "momentum_focal_sam"},
    "friendly_sam, schedule of rho, two micro-batches": {
        "method": "friendly_sam",
        "method_args": RHO,
        "gradient_accumulation_steps": 2,
        "save_steps": 2,
    },
    "sse_sam, switching stages": {"method": "sse_sam"},
    "xsam": {"method": "xsam", "method_args": {"every": 3}},
}


def assert_same(a, b):
    assert str(a.keys()) == str(b.keys())
    for x, y in zip(tensors(a), tensors(b), strict=True):
        assert torch.equal(x, y)


def tensors(tree):
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors(branch)


def complete(folder):
    """What transformers itself would resume from is whole."""
    last = get_last_checkpoint(str(folder))
    if last is not None:
        names = {"model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "ltsam.json"}
        assert names <= {path.name for path in (folder / last).iterdir()}
        assert json.loads((folder / last / "trainer_state.json").read_text())["global_step"] == int(last.split("-")[-1])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_in_passes_and_in_writing(case, tmp_path):
    settings = CASES[case]
    assert run(tmp_path / "whole", None, **settings) == [0], log(tmp_path / "whole")
    passes = PASSES[settings["method"]]
    deaths = [
        (FORWARD, 3 * passes),  # in the last, perturbed pass of a step, before any checkpoint
        (FORWARD, 7 * passes + 1, signal.SIGTERM),  # in the first pass of a step
        ("torch.save", 2),  # in the midst of a checkpoint
        ("hf_ltsam.landscape.vector.WeightVector.norm", 4),  # between two passes, or where a method thinks
        ("pathlib.Path.rename", 1),  # all is written, but has no name yet
        (
            "hf_ltsam.training.checkpoint_folders.tidy",
            2,
            signal.SIGTERM,
        ),  # it has its name (the first call is at the start)
        ("torch.optim.sgd.sgd", 3),  # in the optimizer
        ("hf_ltsam.landscape.weights.TrainableWeights.restore", 3),  # while weights are perturbed
    ]
    for number, death in enumerate(deaths):
        assert run(tmp_path / "killed", death, **settings) == [-(death[2:] or [signal.SIGKILL])[0]], (
            number,
            log(tmp_path / "killed"),
        )
        complete(tmp_path / "killed")
    assert run(tmp_path / "killed", None, **settings) == [0], log(tmp_path / "killed")
    assert_same(left(tmp_path / "killed"), left(tmp_path / "whole"))


@pytest.mark.slow
def test_two_ranks_of_which_one_is_killed(tmp_path):
    settings = {"method": "looksam", "save_steps": 2, "ddp_timeout": PATIENCE}
    assert run(tmp_path / "whole", None, None, **settings) == [0, 0], log(tmp_path / "whole")
    killed = tmp_path / "killed"
    for deaths in [
        ((FORWARD, 11), None),
        (None, (FORWARD, 5)),
        (None, ("torch.save", 2)),
        (("pathlib.Path.rename", 1), None),
    ]:
        codes = run(killed, *deaths, **settings)
        assert [code == -signal.SIGKILL for code in codes] == [death is not None for death in deaths], log(killed)
        assert 0 not in codes, "the other one must end with an error"
        complete(killed)
    assert run(killed, None, None, **settings) == [0, 0], log(killed)
    for rank in (0, 1):
        assert_same(left(killed, rank), left(tmp_path / "whole", rank))


@pytest.mark.slow
def test_sigterm_with_a_checkpoint(tmp_path):
    """`enable_jit_checkpoint`: the step is finished, saved, and the status is that of SIGTERM; also with two ranks."""
    settings = {"method": "friendly_sam", "save_strategy": "no", "enable_jit_checkpoint": True}
    assert run(tmp_path / "whole", None, **settings) == [0], log(tmp_path / "whole")
    ended = run(tmp_path / "one", (FORWARD, 14, signal.SIGTERM), **settings)  # in the perturbed pass of the 7th step
    assert ended == [143] and get_last_checkpoint(str(tmp_path / "one")).endswith("checkpoint-7"), log(tmp_path / "one")
    assert "SIGTERM: saving a checkpoint of step 7, then ending." in log(tmp_path / "one")
    complete(tmp_path / "one")
    assert run(tmp_path / "one", None, **settings) == [0]
    assert_same(left(tmp_path / "one"), left(tmp_path / "whole"))

    assert run(tmp_path / "two", None, (FORWARD, 9, signal.SIGTERM), **settings) == [143, 143], log(tmp_path / "two")
    assert get_last_checkpoint(str(tmp_path / "two")).endswith("checkpoint-6")  # both know one step later
    assert {"rng_state_0.pth", "rng_state_1.pth", "method_memory_1.pt"} <= {
        path.name for path in (tmp_path / "two" / "checkpoint-6").iterdir()
    }


def test_sigterm_without_the_flag_is_what_it_always_was(tmp_path):
    assert run(tmp_path / "plain", (FORWARD, 14, signal.SIGTERM), method="msam", save_strategy="no") == [
        -signal.SIGTERM
    ]


def test_transformers_own_way_to_save_on_sigterm_is_replaced(tmp_path):
    """It would save in the middle of a step, into the folder's final name, and takes the signal before the training."""
    before = signal.getsignal(signal.SIGTERM)
    trainer = noisy_trainer(tmp_path, enable_jit_checkpoint=True, max_steps=1)
    kinds = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
    assert "JITCheckpointCallback" not in kinds and kinds.count("SigtermCheckpoint") == 1
    assert signal.getsignal(signal.SIGTERM) is before
    trainer.train()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_after_the_last_step_comes_when_the_training_is_over(tmp_path):
    death = ("hf_ltsam.training.durable_trainer.DurableTrainer._finalize_training", 1, signal.SIGTERM)
    assert run(tmp_path / "late", death, enable_jit_checkpoint=True, max_steps=4) == [-signal.SIGTERM]
    assert get_last_checkpoint(str(tmp_path / "late")).endswith("checkpoint-4")


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGSTOP])
def test_one_rank_dies_or_hangs_and_the_other_ends_within_the_time_out(with_signal, tmp_path):
    alive, dead = start(tmp_path / "run", None, (FORWARD, 9, with_signal), ddp_timeout=3)
    try:
        assert alive.wait(PATIENCE) == 1, "an error, not a hang"
    finally:
        for process in (alive, dead):
            process.kill()
            process.wait()
    # On a slow machine they may lose each other before the first step: the same error by another name
    assert re.search(r"RuntimeError|Dist\w*Error", log(tmp_path / "run"))
    complete(tmp_path / "run")
