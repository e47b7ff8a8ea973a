"""Metrics of test samples with shares of classes: means over the classes of a sample; of whole ones, the usual metrics."""

import numpy as np
import pytest
import torch

from hf_ltsam.class_statistics import ClassStatistics
from hf_ltsam.metrics.long_tail import LongTailCounts, long_tail_metrics

STATISTICS = ClassStatistics((500, 120, 60, 30, 15, 8, 7, 6, 5, 4, 3, 2))
C, N = 12, 200


def samples(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = 2 * torch.randn(N, C, generator=generator), torch.randint(C, (N,), generator=generator)
    shares = torch.rand(N, C, generator=generator) ** 4
    shares[:, 3] = 0
    return logits, labels, shares / shares.sum(1, keepdim=True)


@pytest.mark.parametrize("with_confusion", [False, True])
def test_whole_samples_have_the_usual_metrics(with_confusion):
    logits, labels, _ = samples()
    hard, soft = (LongTailCounts(C, with_confusion) for _ in range(2))
    hard.add(logits.numpy(), labels.numpy())
    for rows in torch.arange(N).split(64):
        soft.add(logits[rows].numpy(), torch.nn.functional.one_hot(labels[rows], C).float().numpy())
    a, b = hard.metrics(STATISTICS), soft.metrics(STATISTICS)
    assert a == pytest.approx(b, rel=1e-12) and {"top5", "macro_auprc", "ece", "many", "few"} <= set(a)
    if with_confusion:
        assert np.array_equal(hard.confusion, soft.confusion)


def test_other_samples_count_in_each_class_by_their_share():
    logits, _, shares = samples()
    metrics = long_tail_metrics(logits, shares, STATISTICS)
    predicted = logits.argmax(1).tolist()
    q = shares.double().tolist()
    right = [sum(q[i][c] for i in range(N) if predicted[i] == c) for c in range(C)]
    members = [sum(row[c] for row in q) for c in range(C)]
    recall = [r / m for r, m in zip(right, members) if m]
    assert metrics["overall"] == pytest.approx(sum(q[i][p] for i, p in enumerate(predicted)) / N)
    assert metrics["balanced"] == pytest.approx(sum(recall) / len(recall)) and len(recall) == C - 1
    assert metrics["worst"] == pytest.approx(min(recall))
    first = logits.topk(5).indices.tolist()
    assert metrics["top5"] == pytest.approx(sum(q[i][c] for i in range(N) for c in first[i]) / N)
    precision = [right[c] / max(predicted.count(c), 1) for c in range(C) if members[c]]
    assert metrics["macro_precision"] == pytest.approx(sum(precision) / len(precision))


def test_shares_of_another_number_of_classes():
    logits, _, shares = samples()
    with pytest.raises(ValueError, match=r"\(200, 12\), got \(200, 11\)"):
        LongTailCounts(C).add(logits.numpy(), shares[:, :11].numpy())
