"""An evaluation of many classes keeps a few numbers of every sample's logits, unless somebody asks for the logits."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import EvalPrediction
from transformers.modeling_outputs import ImageClassifierOutput

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.metrics.decisions import FEW_CLASSES
from hf_ltsam.metrics.long_tail import LongTailMetrics, long_tail_metrics
from hf_ltsam.training.evaluation import decisions_alone, decisions_of_batch

N, C = 37, FEW_CLASSES + 1
STATISTICS = ClassStatistics(counts=(300, 101, 100, 20, 19, *[2] * (C - 5)))


class Rows(torch.utils.data.Dataset):
    def __init__(self, labelled=True):
        numbers = torch.Generator().manual_seed(0)
        self.x, self.labels = torch.randn(N, 5, generator=numbers), torch.randint(0, C, (N,), generator=numbers)
        self.labelled = labelled

    def __len__(self):
        return N

    def __getitem__(self, i):
        return {"x": self.x[i], **({"labels": self.labels[i]} if self.labelled else {})}


class Model(nn.Module):
    """With further outputs behind the logits, or logits alone."""

    def __init__(self, more=False):
        super().__init__()
        torch.manual_seed(0)
        self.classifier, self.more = nn.Linear(5, C), more

    def forward(self, x):
        logits = 3 * self.classifier(x)
        return ImageClassifierOutput(logits=logits, hidden_states=(x, x)) if self.more else logits


def trainer(folder, more=False, kind=LTSamTrainer, args=None, **given):
    settings = {"per_device_eval_batch_size": 8, "use_cpu": True, "report_to": "none", "disable_tqdm": True}
    config = LTSamConfig(output_dir=str(folder), **settings, **(args or {}))
    return kind(Model(more), config, eval_dataset=Rows(), class_statistics=STATISTICS, **given)


@pytest.fixture
def seen(monkeypatch):
    """Shapes of the predictions that our metrics were given."""
    shapes, original = [], LongTailMetrics.__call__

    def spy(self, prediction, *args, **kwargs):
        outputs = prediction.predictions
        shapes.append([np.shape(o) for o in outputs] if isinstance(outputs, tuple) else np.shape(outputs))
        return original(self, prediction, *args, **kwargs)

    monkeypatch.setattr(LongTailMetrics, "__call__", spy)
    return shapes


def expected():
    rows = Rows()
    with torch.no_grad():
        logits = torch.cat([Model()(part) for part in rows.x.split(8)])
    metrics = long_tail_metrics(logits, rows.labels, STATISTICS)
    return logits, {**metrics, "loss": float(F.cross_entropy(logits.double(), rows.labels))}


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("args", [{}, {"eval_accumulation_steps": 2}])
def test_an_evaluation_gives_the_same_numbers_without_the_logits(tmp_path, seen, more, args):
    evaluated = trainer(tmp_path, more, args=args).evaluate()
    assert seen == [[(N,)] * 5]
    for name, value in expected()[1].items():
        assert evaluated[f"eval_{name}"] == value


def test_several_sets_and_their_names(tmp_path, seen):
    evaluated = trainer(tmp_path).evaluate({"a": Rows(), "b": Rows()})
    assert seen == [[(N,)] * 5] * 2
    assert evaluated["eval_a_balanced"] == evaluated["eval_b_balanced"] == expected()[1]["balanced"]


def test_batch_eval_metrics_count_batch_by_batch(tmp_path, seen):
    evaluated = trainer(tmp_path, args={"batch_eval_metrics": True}).evaluate()
    assert [shape[0][0] for shape in seen] == [8, 8, 8, 8, 5]
    assert evaluated["eval_balanced"] == expected()[1]["balanced"] and evaluated["eval_ece"] == expected()[1]["ece"]


def test_a_prediction_returns_the_logits(tmp_path, seen):
    output = trainer(tmp_path).predict(Rows())
    logits, metrics = expected()
    np.testing.assert_array_equal(output.predictions, logits.numpy())
    assert seen == [(N, C)] and output.metrics["test_ece"] == metrics["ece"]
    assert trainer(tmp_path).predict(Rows(labelled=False)).predictions.shape == (N, C)


def test_what_is_kept_instead_where_nobody_asks_for_logits(tmp_path):
    of = trainer(tmp_path)
    with decisions_alone(of):
        output = of.predict(Rows())
        assert of.predict(Rows(labelled=False)).predictions.shape == (N, C)  # without labels as ever
    assert [column.shape for column in output.predictions] == [(N,)] * 5
    assert output.metrics["test_loss"] == expected()[1]["loss"] and of.preprocess_logits_for_metrics is None


class OwnLoop(LTSamTrainer):
    def evaluation_loop(self, *args, **kwargs):
        self.output = super().evaluation_loop(*args, **kwargs)
        return self.output


def test_of_few_classes_the_logits_are_kept(tmp_path):
    for C in (FEW_CLASSES, FEW_CLASSES + 1):
        logits, labels = torch.randn(3, C), torch.tensor([0, 5, 2])
        assert (decisions_of_batch((logits, logits), labels) is logits) == (C == FEW_CLASSES)


def test_who_asks_for_logits_has_them(tmp_path, seen):
    own = trainer(tmp_path, kind=OwnLoop)
    own.evaluate()
    assert own.output.predictions.shape == (N, C) and seen == [(N, C)]

    given = []

    def metrics(prediction: EvalPrediction):
        given.append(np.shape(prediction.predictions))
        return {}

    trainer(tmp_path, compute_metrics=metrics).evaluate()
    reduced = trainer(tmp_path, compute_metrics=metrics, preprocess_logits_for_metrics=lambda z, y: z.argmax(1))
    reduced.evaluate()
    assert given == [(N, C), (N,)]
    classes = trainer(tmp_path, preprocess_logits_for_metrics=lambda z, y: z.argmax(1)).evaluate()
    assert classes["eval_balanced"] == expected()[1]["balanced"] and "eval_ece" not in classes


def test_the_hook_of_the_trainer_is_put_back_after_an_error(tmp_path):
    of = trainer(tmp_path)
    with pytest.raises(RuntimeError, match="stop"), decisions_alone(of):
        assert of.preprocess_logits_for_metrics is decisions_of_batch
        raise RuntimeError("stop")
    assert of.preprocess_logits_for_metrics is None


@pytest.mark.parametrize(
    "outputs, labels",
    [
        (torch.zeros(3, 200), None),
        (torch.zeros(3, 200), torch.zeros(3, 200)),
        (torch.zeros(3, 2, 2), torch.zeros(3, dtype=torch.long)),
        ((np.zeros(3),), torch.zeros(3, dtype=torch.long)),
    ],
)
def test_what_is_no_classification_stays_as_it_is(outputs, labels):
    assert decisions_of_batch(outputs, labels) is outputs
