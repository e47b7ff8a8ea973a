"""What `ltsam train` says at its end of a training that has failed."""

import json

import pytest

from hf_ltsam.cli.train.results import print_results
from hf_ltsam.runs.record import RunRecord


def record(per_class, samples=1000, **more):
    mean = sum(per_class) / len(per_class)
    test = {
        "overall": mean,
        "balanced": mean,
        "groups": {"many": mean},
        "per_class": list(per_class),
        "ece": None,
        "samples": samples,
    }
    described = {"name": "sam", "args": {}}
    statistics = {"counts": [9] * len(per_class), "tail_threshold": None, "many_above": 5, "few_below": 2}
    return RunRecord(0, described, {"name": "cross_entropy", "args": {}}, statistics, {"test": test}, **more)


GOOD, ONE_CLASS, GUESSES = (0.9, 0.8, 0.5, 0.6), (0.0, 1.0, 0.0, 0.0), (0.2, 0.3, 0.24, 0.27)


@pytest.mark.parametrize("per_class, losses, more, said", [
    (GOOD, [1.4, 0.3], {}, []),
    (ONE_CLASS, [1.4, 1.4], {}, ["at chance (25.00 %", "every test image was taken for one class"]),
    (GUESSES, [1.4, 1.4], {}, ["at chance (25.00 %", "no better than guesses"]),
    ((0.0,) * 4, [1.4, float("nan")], {}, ["at chance", "The training has diverged: its loss went from 1.4 to nan"]),
    (GOOD, [1.0, 2.0], {}, ["The training has diverged: its loss went from 1 to 2"]),
    (GOOD, [0.3, 0.75], {}, ["The training has diverged"]),  # more than half of what guesses have, which is log 4
    (GOOD, [0.3, 0.65], {}, []),
    (GOOD, [0.07, 0.15], {}, []),  # a second stage with a strong decay, still far better than guesses
    (GOOD, [1.0, 2.0], {"reweighting": {"scheme": "inverse", "start": 0.8}}, []),
    (GOOD, [], {}, []),
])  # fmt: skip
def test_chance_and_divergence(per_class, losses, more, said, tmp_path, capsys):
    log = [{"loss": loss, "step": k} for k, loss in enumerate(losses)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    print_results(record(per_class, **more), tmp_path)
    shown = capsys.readouterr().out
    assert "Chance level: 25.00" in shown and all(words in shown for words in said)
    assert shown.count("Warning:") == (1 if said else 0) + ("diverged" in shown and "at chance" in shown)


def test_the_metric_that_chose_the_weights_is_no_markup(tmp_path, capsys):
    print_results(record(GOOD, best_checkpoint={"step": 7, "metric": "f1_[red]"}), tmp_path)
    assert "of step 7, chosen by f1_[red] in" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("before", "samples", "warned"),
    [((0.9, 0.8, 0.5, 0.6), 100, False), ((1.0, 0.9, 0.8, 0.9), 100, True), ((0.8, 0.8, 0.7, 0.74), 100, False),
     ((1.0, 0.9, 0.8, 0.9), 99, None)],
)  # fmt: skip
def test_a_second_stage_beside_the_first(before, samples, warned, tmp_path, capsys):
    print_results(record(GOOD, 100), tmp_path, record(before, samples))
    shown = capsys.readouterr().out
    mean = 25 * sum(before)
    assert (f"First stage: overall {mean:.2f}, many {mean:.2f}" in shown) == (warned is not None)
    assert (f"fell from {mean:.2f} to 70.00 %" in shown) == bool(warned)


@pytest.mark.parametrize(
    ("folder", "said"), [("runs/mine", "ltsam report runs/mine"), ("my run", "ltsam report 'my run'")]
)
def test_the_next_step_is_a_command(folder, said, capsys):
    print_results(record(GOOD), folder)
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: {said}"


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ([0.5, 0.75, 0.7], "Best epoch: 2 of 3, mean over classes 75.00 (the last one: 70.00;"),
        ([0.5, 0.75], "Best epoch: 2 of 2, mean over classes 75.00 (the last one: 75.00;"),
        ([0.5], None),
        ([], None),
    ],
)
def test_best_epoch(seen, said, tmp_path, capsys):
    log = [{"eval_balanced": value, "epoch": float(k + 1), "step": k} for k, value in enumerate(seen)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    print_results(record(GOOD), tmp_path)
    shown = " ".join(capsys.readouterr().out.split())
    assert (said in shown) if said else "Best epoch" not in shown
