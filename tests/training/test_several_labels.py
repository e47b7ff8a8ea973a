"""Samples with several labels: binary cross-entropy, its statistics and metrics, through the trainer."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer, make_loss
from hf_ltsam.data.soft_labels import as_shares
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.methods import METHODS, make_method
from hf_ltsam.methods.context import StepContext
from hf_ltsam.metrics.several_labels import several_label_metrics

torch.manual_seed(0)
X = torch.randn(40, 5)
Y = (torch.rand(40, 4) < torch.tensor([0.6, 0.3, 0.2, 0.1])).float()
Y[0], Y[1] = torch.tensor([0.0, 0, 0, 0]), torch.tensor([1.0, 1, 0, 1])
STATISTICS = ClassStatistics.from_labels(Y)
DATA = [{"input": x, "labels": y} for x, y in zip(X, Y)]


def trainer(
    folder,
    method="sgd",
    loss="binary_cross_entropy",
    data=DATA,
    statistics=None,
    evaluated=None,
    metrics=None,
    **settings,
):
    torch.manual_seed(1)
    given = {
        "max_steps": 2, "per_device_train_batch_size": 40, "learning_rate": 0.5, "optim": "sgd", "max_grad_norm": 0.0, "report_to": "none",
        "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "tail_threshold": 8, "lr_scheduler_type": "constant",
        **settings,
    }  # fmt: skip
    sets = [s and [{**d, "input": d["input"].double()} for d in s] for s in (data, evaluated or data)]
    return LTSamTrainer(
        nn.Linear(5, 4).double(), LTSamConfig(str(folder), **given), None, *sets, method=method, loss=loss,
        class_statistics=statistics, compute_metrics=metrics,
    )  # fmt: skip


def test_a_label_that_all_samples_have_counts_as_missing_in_half_a_sample():
    statistics, z = ClassStatistics((8, 2), samples=8), torch.zeros(1, 2, dtype=torch.float64)
    shifted = torch.tensor([math.log(8 / 0.5), math.log(2 / 6)], dtype=torch.float64)
    theirs = nn.functional.binary_cross_entropy_with_logits(shifted, torch.tensor([1.0, 0.0]).double())
    ours = make_loss("binary_cross_entropy", tau=1.0)(z, torch.tensor([[1.0, 0.0]]), statistics)
    torch.testing.assert_close(ours, theirs[None])


def test_probabilities_are_not_taken_for_logits(tmp_path):
    made = trainer(tmp_path)
    made.preprocess_logits_for_metrics = lambda logits, labels: logits.sigmoid()
    with pytest.raises(ValueError, match="gives numbers from 0 to 1 alone, probabilities it seems"):
        made.evaluate()
    made.preprocess_logits_for_metrics = lambda logits, labels: 2 * logits
    assert made.evaluate()["eval_map"] == trainer(tmp_path).evaluate()["eval_map"]


@pytest.mark.parametrize("settings", [{"eval_do_concat_batches": False}, {"batch_eval_metrics": True}], ids=str)
@pytest.mark.parametrize("others", [2, 39])
def test_logits_of_some_batches_may_all_lie_between_0_and_1(others, settings, tmp_path):
    made = trainer(tmp_path, per_device_eval_batch_size=1, **settings)
    made.model.weight.data.zero_()
    made.model.weight.data[0, 0], made.model.bias.data = torch.tensor(0.1).double(), torch.full((4,), 0.5).double()
    made.eval_dataset = [{**d, "input": d["input"].clamp(-1, 1)} for d in made.eval_dataset]
    made.eval_dataset[others]["input"] = torch.full((5,), 9.0).double()  # a logit of 1.4
    expected = made.evaluate()["eval_map"]
    made.preprocess_logits_for_metrics = lambda logits, labels: logits
    assert made.evaluate()["eval_map"] == expected
    made.eval_dataset = made.eval_dataset[:others]
    with pytest.raises(ValueError, match="gives numbers from 0 to 1 alone"):
        made.evaluate()


def test_logits_of_a_head_that_starts_at_zero_are_no_probabilities(tmp_path):
    made = trainer(tmp_path)
    made.preprocess_logits_for_metrics = lambda logits, labels: torch.zeros_like(logits)
    assert made.evaluate()["eval_exact"] >= 0


def test_a_logit_of_zero_takes_no_label():
    found = several_label_metrics(
        np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0, 1], [1, 0]]), ClassStatistics((9, 1))
    )
    assert (found["exact"], found["macro_f1"], found["micro_f1"]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("args", [{}, {"tau": 1.0}, {"tau": 0.5, "class_weighting": "inverse"}])
def test_the_loss_is_its_equation(args):
    z = torch.randn(6, 4, dtype=torch.float64)
    ours = make_loss("binary_cross_entropy", **args)(z, Y[:6], STATISTICS)
    counts, n = Y.sum(0).tolist(), len(Y)
    inverse = [1 / c for c in counts] if "class_weighting" in args else [1.0] * 4
    w = [4 * v / sum(inverse) for v in inverse]
    for i in range(6):
        total = 0.0
        for c in range(4):
            odds = (counts[c] / n) / (1 - counts[c] / n)
            p = 1 / (1 + math.exp(-(z[i, c].item() + args.get("tau", 0.0) * math.log(odds))))
            total -= w[c] * math.log(p if Y[i, c] == 1 else 1 - p) / 4
        assert ours[i].item() == pytest.approx(total, rel=1e-10)


def test_statistics_count_labels_and_samples():
    assert STATISTICS.counts == tuple(int(n) for n in Y.sum(0)) and STATISTICS.total == STATISTICS.samples == 40
    assert STATISTICS.prior[0] == pytest.approx(Y[:, 0].mean().item())
    assert ClassStatistics.from_dict(STATISTICS.to_dict()) == STATISTICS
    assert "samples" not in ClassStatistics((3, 2)).to_dict()
    assert as_shares(Y[:2], 2).tolist() == [[0, 0, 1, 0], [pytest.approx(1 / 3)] * 2 + [0, pytest.approx(1 / 3)]]


def test_training_is_the_naive_loop(tmp_path):
    made = trainer(tmp_path, "sam")
    model = nn.Linear(5, 4).double()
    model.load_state_dict(made.model.state_dict())
    made.train()
    for _ in range(2):

        def gradient(of):
            return torch.autograd.grad(
                F.binary_cross_entropy_with_logits(of(X.double()), Y.double()), list(of.parameters())
            )

        g = gradient(model)
        length = sum(v.square().sum() for v in g).sqrt()
        away = nn.Linear(5, 4).double()
        away.load_state_dict({k: p + 0.05 / length * v for (k, p), v in zip(model.state_dict().items(), g)})
        descent = gradient(away)
        with torch.no_grad():
            for p, v in zip(model.parameters(), descent):
                p.sub_(0.5 * v)
    torch.testing.assert_close(made.model.weight, model.weight, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step(method, tmp_path):
    made = trainer(tmp_path, method, logging_steps=1)
    before = made.model.weight.clone()
    made.train()
    assert made.model.weight.isfinite().all() and not torch.equal(made.model.weight, before)


def test_evaluation(tmp_path):
    made = trainer(tmp_path)
    metrics = made.evaluate()
    logits = made.model(X.double()).detach()
    assert metrics["eval_loss"] == pytest.approx(
        F.binary_cross_entropy_with_logits(logits, Y.double()).item(), rel=1e-9
    )
    ranked = logits.numpy()
    precisions = []
    for c in range(4):
        order = np.argsort(-ranked[:, c])
        hits = Y[:, c].numpy()[order]
        precisions.append(sum(hits[: k + 1].mean() for k in range(40) if hits[k]) / hits.sum())
    assert metrics["eval_map"] == pytest.approx(np.mean(precisions))
    assert metrics["eval_exact"] == pytest.approx(((ranked > 0) == (Y.numpy() > 0)).all(1).mean())
    assert {"eval_map_few", "eval_macro_f1", "eval_micro_f1"} <= set(metrics)
    with pytest.raises(ValueError, match=r"0 or 1"):
        several_label_metrics(ranked, Y.numpy() + 1, STATISTICS)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss_start": 0.5}, r"loss_start=0.5.*BinaryCrossEntropy"),
        ({"label_smoothing_factor": 0.1}, r"label_smoothing_factor=0.1.*BinaryCrossEntropy"),
        ({"reweighting": "inverse"}, r"reweighting='inverse'.*'class_weighting': 'inverse'"),
    ],
)
def test_settings_of_one_class_for_each_sample(settings, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        trainer(tmp_path, **settings)


def test_labels_of_the_other_kind(tmp_path):
    """Refused before any step: on an accelerator a step does not look at labels."""
    single = [{"input": x, "labels": i % 4} for i, x in enumerate(X)]
    for mixing in ({}, {"mixup_alpha": 1.0}):  # which would make shares of class indices
        with pytest.raises(ValueError, match=r"takes a 0 or 1 for every class.*cross_entropy"):
            trainer(tmp_path, data=single, **mixing)
    with pytest.raises(ValueError, match=r"must be shares of classes.*binary_cross_entropy"):
        trainer(tmp_path, loss="cross_entropy")
    with pytest.raises(ValueError, match=r"several labels.*binary_cross_entropy"):
        trainer(tmp_path, loss="cross_entropy", data=None, statistics=STATISTICS)


def test_a_run_is_not_saved_for_commands_that_know_one_class_of_a_sample(tmp_path):
    with pytest.raises(
        ValueError, match=r"one class of each test sample, and BinaryCrossEntropy takes several.*evaluate"
    ):
        trainer(tmp_path).save_run()


def test_smoothed_labels_beside_the_statistics_of_plain_ones(tmp_path):
    smooth = [{"input": x, "labels": 0.9 * y + 0.05} for x, y in zip(X, Y)]
    trainer(tmp_path, "focal_sam", data=smooth, statistics=STATISTICS, evaluated=DATA).train()


def test_metrics_of_the_user_s_stand_beside_those_of_labels(tmp_path):
    metrics = trainer(tmp_path, metrics=lambda prediction: {"mine": 1.0}).evaluate()
    assert metrics["eval_mine"] == 1.0 and metrics["eval_map"] == trainer(tmp_path).evaluate()["eval_map"]
    assert "eval_accuracy" not in metrics


def test_the_mean_of_the_focal_weights_is_one_over_labels():
    """f_bar of Focal-SAM(plain="reuse"): a mean lies between its values, although the shares of images add up to more than 1."""
    step = StepContext(Y, STATISTICS, 0.0, torch.zeros((), dtype=torch.float64))
    n, N = Y.sum(0).tolist(), len(Y)
    expected = sum(k * (1 - k / N) ** 2 for k in n) / sum(n)

    class Loss:
        def gradient(self, weighting=None, at=None):
            return WeightVector([torch.ones(1, dtype=torch.float64)])

        weights = WeightVector([torch.ones(1, dtype=torch.float64)])

    got = make_method("momentum_focal_sam", gamma=2.0, plain="reuse").gradient(Loss(), step)
    assert got.materialize()[0].item() == pytest.approx(1 / expected, rel=1e-12)
