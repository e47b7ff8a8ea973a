"""Data parallel training: ranks stay identical, and the gradient is the mean of what each rank would have used."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from methods import references
from methods.references import Problem
from training.own_losses import sam_step
from training.two_processes import METHODS, OfTheHead, Recording, evaluated, logs_of_unusual, model, run
from training.two_ranks import results_of_two_ranks

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.methods.context import StepContext

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return results_of_two_ranks(SCRIPT, tmp_path_factory.mktemp("two"))


CASES = [(False, 1), (False, 2), (True, 1), (True, 2)]  # batch norm, micro-batches per step


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, "pgd", "averaged"])
def test_ranks_stay_identical(ranks, case):
    first, second = (r[case] for r in ranks)
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name]), name
    assert not torch.equal(first["batches"][0][0], second["batches"][0][0]), "both ranks saw the same batch"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_the_mean_over_ranks_and_micro_batches(ranks, case):
    batch_norm, accumulation = case
    for step in range(3):
        micro = range(step * accumulation, (step + 1) * accumulation)
        parts = [reference(rank[case], k, batch_norm) for rank in ranks for k in micro]
        for p, ours in enumerate(ranks[0][case]["gradients"][step]):
            torch.testing.assert_close(ours, sum(g[p] for g in parts) / len(parts), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_noise_is_drawn_once_for_all_ranks_and_micro_batches(ranks):
    """Or the mean over four of them would halve it."""
    for step in range(3):
        parts = [references.sgd(problem(rank["pgd"], k, False)) for rank in ranks for k in (2 * step, 2 * step + 1)]
        noise = torch.cat(
            [
                (ours - sum(g[p] for g in parts) / len(parts)).flatten()
                for p, ours in enumerate(ranks[0]["pgd"]["gradients"][step])
            ]
        )
        like = torch.empty((), dtype=torch.float64)
        context = StepContext(torch.zeros(1), ClassStatistics([1, 1]), 0.0, like, step=step, seed=42)  # Trainer's seed
        xi = [
            torch.randn(p.shape, generator=g, dtype=p.dtype)
            for g in [context.generator()]
            for p in model(False).parameters()
        ]
        torch.testing.assert_close(noise, 0.5 * torch.cat([t.flatten() for t in xi]), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_compiled_passes_are_those_of_the_bare_module(ranks):
    """Inside DDP, whose own reduction rests."""
    plain, compiled = ranks[0][True, 1], ranks[0]["compiled"]
    for name, value in plain["state"].items():
        torch.testing.assert_close(compiled["state"][name], value, rtol=0, atol=1e-12, msg=name)
    assert ranks[0]["compiled_frames"] > 0


# ---- one perturbation for all processes ----

JOINT = (
    [("step", m, a) for m in [*METHODS, "cosine"] for a in (1, 2)]
    + [("sharded", m, 1) for m in METHODS]
    + [("sharded", "focal_sam", 2)]
)


@pytest.mark.slow
@pytest.mark.parametrize("case", JOINT, ids=str)
def test_two_processes_equal_one_with_twice_the_batch(ranks, case, tmp_path):
    """ascent_scope="step" on copies of the weights, and weights in shards, which cannot do otherwise.

    "cosine" is CC-SAM of a cosine head, whose classes take turns.
    """
    _, name, accumulation = case
    cosine, method = name == "cosine", "cc_sam" if name == "cosine" else name
    settings = {"per_device_train_batch_size": 8 * accumulation, "cosine": cosine, **METHODS[method]}
    one = run(tmp_path, False, 1, method, **settings)
    start = model(False, cosine).state_dict()
    moved, difference = (
        torch.stack([(one["state"][k] - other[k]).norm() for k in start]).norm()
        for other in (start, ranks[0][case]["state"])
    )
    assert difference <= 1e-6 * moved
    assert all(torch.equal(v, ranks[1][case]["state"][k]) for k, v in ranks[0][case]["state"].items())


@pytest.mark.slow
def test_shards_in_mixed_precision_train_nearly_alike(ranks):
    """Weights and radius as wide as before, the passes in bfloat16."""
    full, half = (ranks[0][case]["state"] for case in (("sharded", "focal_sam", 1), "half"))
    start = model(False).state_dict()
    moved, difference = (torch.stack([(full[k] - other[k]).norm() for k in start]).norm() for other in (start, half))
    assert 0 < difference <= 1e-2 * moved
    assert all(v.dtype == torch.float64 for v in half.values())


@pytest.mark.slow
def test_groups_over_processes_take_their_part_from_each(ranks):
    """Of 2 x 2 micro-batches of 4, groups of 4 take 2 samples from each process."""
    first, second = (r["step", "groups", 2] for r in ranks)
    pieces = []
    for k in range(2):  # of the first step
        for rows in (slice(0, 2), slice(2, 4)):
            (x, y), (u, v) = first["batches"][k], second["batches"][k]
            pieces.append(
                Problem(model(False), torch.cat([x[rows], u[rows]]), torch.cat([y[rows], v[rows]]), [1] * 4, 0)
            )
    expected = [sum(g) / 4 for g in zip(*(references.sam(piece, rho=0.3) for piece in pieces))]
    for ours, theirs in zip(first["gradients"][0], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_sharded_micro_batches_have_perturbations_of_their_own(ranks, tmp_path):
    """Each with the gradient of all processes, that of the first micro-batch too, which is taken under `no_sync`."""
    one = run(tmp_path, False, 2, "focal_sam", per_device_train_batch_size=8, rho=0.3)
    for name, value in one["state"].items():
        torch.testing.assert_close(ranks[0]["sharded", "micro"]["state"][name], value, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case, dtype, kind", [("narrow", torch.bfloat16, Recording), ("head", torch.float32, OfTheHead)]
)
def test_sharded_weights_in_few_digits_and_those_that_no_optimizer_holds(case, dtype, kind, ranks, tmp_path):
    """The norm of what was added, over all shards, and no gradient of what is not trained: as one process has them."""
    one = logs_of_unusual(tmp_path, dtype, kind, 8)
    assert all(logs.keys() == ours.keys() for logs, ours in zip(one, ranks[0][case]))
    for logs, ours in zip(one, ranks[0][case], strict=True):
        assert ours == pytest.approx(logs, rel=1e-2 if case == "narrow" else 1e-5)
    assert ("sam_unmoved_share" in one[0]) == (case == "narrow")


@pytest.mark.slow
def test_training_resumes(ranks):
    """Of weights in shards, and CC-SAM over micro-batches and processes."""
    methods = ("cc_sam, step", "sam", "msam", "looksam", "friendly_sam")
    assert ranks[0]["resumed"] == dict.fromkeys(methods, True)


@pytest.mark.slow
def test_gradients_are_exchanged_once_per_step_whatever_the_method(ranks):
    """And not between the micro-batches of a step; CC-SAM of the whole step, the input of the classifier as well."""
    assert ranks[0]["communications"] == {"sgd": 3, "focal_sam": 3, "cc_sam": 3, "cc_sam, step": 6}


@pytest.mark.slow
def test_evaluation_on_two_processes_equals_one(ranks, tmp_path):
    """To rounding: the last batches differ in size, and matrix kernels may round by the size of a batch."""
    metrics, logits = evaluated(tmp_path)
    for found, of in (r["evaluated"] for r in ranks):
        assert found == pytest.approx(metrics, rel=1e-12)
        np.testing.assert_allclose(of, logits, rtol=1e-12, atol=1e-12)
    assert len(logits) == 30


@pytest.mark.slow
def test_the_default_perturbs_every_process_on_its_own(ranks):
    """Or the tests above could not tell the two apart."""
    own, joint = (ranks[0][case]["gradients"][0] for case in ((False, 1), ("step", "focal_sam", 1)))
    assert max((a - b).abs().max().item() for a, b in zip(own, joint)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["micro", "step"])
def test_a_models_own_loss_is_a_mean_over_the_labels_of_all_processes(ranks, scope):
    results = [r["own loss", scope] for r in ranks]
    assert all(torch.equal(v, results[1]["state"][k]) for k, v in results[0]["state"].items())
    for step in range(3):
        batches = [result["batches"][2 * step + k] for result in results for k in (0, 1)]
        net = copy.deepcopy(model(False))
        with torch.no_grad():
            for p, value in zip(net.parameters(), results[0]["weights"][2 * step]):
                p.copy_(value)
        count = sum(int((y != -100).sum()) for _, y in batches)

        def losses(m, of, count=count):
            return [torch.nn.functional.cross_entropy(m(x), y, reduction="sum") / count for x, y in of]

        groups = [batches] if scope == "step" else [[batch] for batch in batches]
        parts = [sam_step(net, lambda m, g=group: losses(m, g), 0.3) for group in groups]
        for ours, theirs in zip(results[0]["gradients"][step], zip(*parts), strict=True):
            torch.testing.assert_close(ours, sum(theirs), rtol=0, atol=1e-12)


def problem(result, k, batch_norm):
    net = copy.deepcopy(model(batch_norm))
    with torch.no_grad():
        for p, value in zip(net.parameters(), result["weights"][k]):
            p.copy_(value)
    x, y = result["batches"][k]
    return Problem(net, x, y, list(result["counts"]), 0)


def reference(result, k, batch_norm):
    return references.focal_sam(problem(result, k, batch_norm), rho=0.05, gamma=1.0, lam=1.0)
