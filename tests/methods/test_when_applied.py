"""`interval`, `start` and `stop`: on the other steps every method is plain SGD."""

from dataclasses import replace

import pytest
import torch
from methods.problems import assert_equal, gradient_at, problem, step_of

from hf_ltsam.methods import METHODS, make_method

STRONG = {
    "asam": {"rho": 2.0},
    "pgd": {"sigma": 0.1},
    "lpf_sgd": {"gamma": 0.3, "shards": 2},
    "cc_sam": {"scale": 0.3},
    "model_perturbation": {"rho": 0.3},
    "looksam": {"rho": 0.3, "every": 2},
    "gnm": {"sigma": 0.1},
    "gsa": {"scale": 0.3},
}


def flat(gradient):
    return torch.cat([g.flatten() for g in gradient])


def differs_from_sgd(method, step, progress=0.0, memory=None):
    given = problem(progress=progress)
    given.step = step
    ours = flat(gradient_at(method, given, step_of(given, memory=memory)))
    sgd = flat(gradient_at(make_method("sgd"), given, step_of(given)))
    return not torch.equal(ours, sgd)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"sgd"}))
def test_every_third_step(name):
    method = make_method(name, **STRONG.get(name, {}), interval=3)
    memory = {}
    differs_from_sgd(method, 0, memory=memory)  # Momentum-SAM has no momentum before its first step
    assert [differs_from_sgd(method, step, memory=memory) for step in range(3, 10)] == [True, False, False] * 2 + [True]


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"sgd"}))
def test_from_start_to_stop(name):
    method = make_method(name, **STRONG.get(name, {}), start=0.25, stop=0.75)
    memory = {}
    differs_from_sgd(method, 0, 0.3, memory)
    progress = [0.0, 0.24, 0.25, 0.5, 0.74, 0.75, 0.99]
    found = [differs_from_sgd(method, step, p, memory) for step, p in enumerate(progress, start=1)]
    assert found == [False, False, True, True, True, False, False]


def test_a_step_left_to_sgd_leaves_the_memory_alone():
    for name in ("msam", "friendly_sam", "looksam", "momentum_focal_sam"):
        method, memory = make_method(name, interval=2), {}
        differs_from_sgd(method, 0, memory=memory)
        kept = {k: [t.clone() for t in v] if isinstance(v, list) else v for k, v in memory.items()}
        differs_from_sgd(method, 1, memory=memory)
        for key, value in kept.items():
            assert all(map(torch.equal, value, memory[key])) if isinstance(value, list) else value == memory[key], name


def test_looksam_looks_again_when_its_direction_is_too_old_whatever_the_interval():
    method, memory, seen = make_method("looksam", every=5, interval=2), {}, []
    for step in range(16):
        differs_from_sgd(method, step, memory=memory)
        seen.append(memory["looksam.step"])
    assert sorted(set(seen)) == [0, 6, 12]


def test_looksam_starts_late_with_a_sam_step():
    given = problem(progress=0.5)
    given.step = 7
    late, sam = make_method("looksam", rho=0.3, start=0.5), make_method("sam", rho=0.3)
    assert_equal(gradient_at(late, given, step_of(given)), gradient_at(sam, given, step_of(given)), 0)


@pytest.mark.parametrize("name", ["looksam", "xsam"])
def test_each_micro_batch_of_a_step_looks_for_itself(name):
    """What the first of them found serves later steps, and not the second one."""
    method, memory = make_method(name), {}
    for order in ([0, 1], [1, 0]):
        given = problem()
        given.step, given.x = 4, given.x.flip(order[0]) * (1 + order[1])
        alone = gradient_at(method, given, step_of(given))
        assert_equal(gradient_at(method, given, step_of(given, memory=memory)), alone, 0)


def test_a_direction_of_other_parameters_is_forgotten():
    """Frozen or thawed in between: what was kept no longer fits."""
    memory = {}
    for name in ("msam", "friendly_sam", "looksam", "momentum_focal_sam"):
        for step, model in enumerate(["plain", "frozen", "frozen"]):
            given = problem(model)
            given.step = step
            gradient = gradient_at(make_method(name), given, step_of(given, memory=memory))
            assert all(g is None or g.isfinite().all() for g in gradient)


@pytest.mark.parametrize("name", ["msam", "friendly_sam", "looksam", "momentum_focal_sam"])
def test_a_direction_of_other_parameters_of_the_same_shape_is_forgotten(name):
    """Layers that take turns, as in gradual thawing, are often equal in shape."""

    def second_step(places):
        memory, method = {}, make_method(name, **STRONG.get(name, {}))
        for step in range(2):
            given = problem()
            given.step = step
            context = replace(step_of(given, memory=memory), places=(0, 1, 2, 3) if step == 0 else places)
            gradient = gradient_at(method, given, context)
        return flat(gradient)

    fresh = problem()
    fresh.step = 1
    anew = flat(gradient_at(make_method(name, **STRONG.get(name, {})), fresh, step_of(fresh)))
    assert torch.equal(second_step((0, 1, 6, 7)), anew)
    assert not torch.equal(second_step((0, 1, 2, 3)), anew)


def test_what_is_remembered_is_not_what_is_returned():
    """The host writes into the returned tensors: they become `p.grad`."""
    for name in ("msam", "friendly_sam", "looksam", "momentum_focal_sam"):
        given, memory = problem(), {}
        for g in gradient_at(make_method(name), given, step_of(given, memory=memory)):
            g.zero_()
        assert any(t.abs().sum() > 0 for value in memory.values() if isinstance(value, list) for t in value), name


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"interval": 0}, r"interval=\.\.\.\) must be a whole number of at least 1, got 0"),
        ({"interval": 2.5}, r"interval=\.\.\.\) must be a whole number of at least 1, got 2\.5"),
        ({"start": -0.1}, r"start=\.\.\.\) must be a share of training"),
        ({"stop": 1.1}, r"stop=\.\.\.\) must be a share of training"),
        ({"start": 0.5, "stop": 0.5}, r"start=\.\.\.\) must be below stop, got start=0\.5 and stop=0\.5"),
        ({"intervall": 2}, "no argument 'intervall'. Did you mean 'interval'"),
    ],
)
def test_refused_by_every_method(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, **wrong)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("gradient_norm", {"alpha": -1}),
        ("gradient_norm", {"rho": -1}),
        ("gsam", {"alpha": -1}),
        ("gsam", {"rho": -1}),
        ("looksam", {"every": 0}),
        ("looksam", {"every": 1.5}),
        ("looksam", {"alpha": -1}),
        ("looksam", {"rho": -1}),
        ("msam", {"rho": -1}),
        ("msam", {"momentum": 1.0}),
        ("friendly_sam", {"beta": 1.0}),
        ("friendly_sam", {"sigma": -1}),
        ("friendly_sam", {"rho": -1}),
        ("le_sam", {"sigma": -1}),
        ("le_sam", {"rho_max": -1}),
        ("xsam", {"rho": -1}),
        ("xsam", {"rho_max": -1}),
        ("xsam", {"every": 0}),
        ("gnm", {"sigma": -1}),
        ("wsam", {"rho": -1}),
        ("wsam", {"gamma": 1.0}),
        ("momentum_focal_sam", {"rho": -1}),
        ("momentum_focal_sam", {"gamma": -1}),
        ("momentum_focal_sam", {"momentum": 1.0}),
        ("momentum_focal_sam", {"plain": "reused"}),
        ("gsa", {"scale": -1}),
        ("gsa", {"groups": 0}),
        ("gsa", {"perturbation": "means"}),
        ("pgd", {"sigma": -1}),
        ("lpf_sgd", {"gamma": -1}),
        ("lpf_sgd", {"shards": 0}),
        ("model_perturbation", {"rho": -1}),
        ("cc_sam", {"scale": -1}),
        ("cc_sam", {"mix": 1.1}),
        ("cc_sam", {"norm": "globall"}),
        ("cc_sam", {"class_weighting": "inverse"}),
        ("cc_sam", {"parameters": "head"}),
        ("focal_sam", {"plain": "reused"}),
    ],
)
def test_values_out_of_their_domain(name, wrong):
    ((argument, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{METHODS[name].__name__}\({argument}=.*{value}"):
        make_method(name, **wrong)
