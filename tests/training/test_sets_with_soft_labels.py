"""Training sets whose samples have shares of classes, as the probabilities of a teacher: counted, trained on, evaluated."""

import datasets
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer

torch.manual_seed(0)
X = torch.randn(30, 4)
Q = torch.rand(30, 3) ** 2 * torch.tensor([4.0, 2.0, 1.0])
Q = Q / Q.sum(1, keepdim=True)
HARD = torch.tensor([0] * 18 + [1] * 8 + [2] * 4)


def rows(labels):
    return [{"input": x, "labels": y} for x, y in zip(X, labels)]


def collate(samples):
    return {"input": torch.stack([x for x, _ in samples]), "labels": torch.stack([y for _, y in samples])}


class Stating(torch.utils.data.Dataset):
    labels = Q

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return {"input": X[index], "labels": Q[index]}


class Silent(Stating):
    labels = None


SETS = {
    "list": lambda: rows(Q),
    "subset": lambda: Subset(rows(Q), range(30)),
    "attribute": Stating,
    "read once": Silent,
    "arrow": lambda: datasets.Dataset.from_dict({"input": X.tolist(), "labels": Q.tolist()}).with_format("torch"),
    "tensors": lambda: TensorDataset(X, Q),
}


def trainer(folder, data, method="focal_sam", eval_dataset=None, loss="logit_adjustment", **settings):
    torch.manual_seed(0)
    args = LTSamConfig(
        str(folder), max_steps=3, per_device_train_batch_size=10, learning_rate=0.1, report_to="none", use_cpu=True,
        disable_tqdm=True, save_strategy="no", method=method, loss=loss, tail_threshold=9, **settings,
    )  # fmt: skip
    collator = collate if isinstance(data, TensorDataset) else None
    return LTSamTrainer(nn.Linear(4, 3), args, collator, data, eval_dataset)


@pytest.mark.parametrize("data", SETS)
def test_they_are_counted_and_trained_on(data, tmp_path):
    made = trainer(tmp_path, SETS[data]())
    assert made.class_statistics.counts == tuple(round(n) for n in Q.sum(0).tolist())
    made.train()
    reference = trainer(tmp_path, rows(Q))
    reference.train()
    assert torch.equal(made.model.weight, reference.model.weight)


def test_a_transform_that_changes_them_is_read(tmp_path, caplog):
    smooth = 0.7 * Q + 0.1
    data = datasets.Dataset.from_dict({"input": X.tolist(), "labels": Q.tolist()})
    data.set_transform(
        lambda batch: {"input": torch.tensor(batch["input"]), "labels": 0.7 * torch.tensor(batch["labels"]) + 0.1}
    )
    made = trainer(tmp_path, data)
    assert made.class_statistics.counts == tuple(round(n) for n in smooth.sum(0).tolist())
    assert "has another label than the data set states" in caplog.text


@pytest.mark.parametrize("method", ["sgd", "imbsam", "sse_sam", "focal_sam", "cc_sam"])
def test_whole_samples_train_as_with_class_indices(method, tmp_path):
    settings = {"reweighting": "effective_number", "logging_steps": 1}
    hard, soft = (trainer(tmp_path, rows(y), method, rows(y), **settings) for y in (HARD, F.one_hot(HARD, 3).float()))
    assert hard.class_statistics == soft.class_statistics
    for made in (hard, soft):
        made.train()
    torch.testing.assert_close(hard.model.weight, soft.model.weight, rtol=0, atol=1e-6)
    for a, b in zip(hard.state.log_history[:-1], soft.state.log_history[:-1], strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-6)  # telemetry by class too
    a, b = hard.evaluate(), soft.evaluate()
    assert {k: v for k, v in a.items() if "_per_second" not in k and "time" not in k} == pytest.approx(
        {k: v for k, v in b.items() if "_per_second" not in k and "time" not in k}, rel=1e-4
    )


def test_distillation_is_torch_s_cross_entropy(tmp_path):
    made = trainer(tmp_path, rows(Q), "sgd", rows(Q), loss="cross_entropy")
    model = nn.Linear(4, 3)
    model.load_state_dict(made.model.state_dict())
    expected = F.cross_entropy(model(X), Q)
    assert made.evaluate()["eval_loss"] == pytest.approx(expected.item(), rel=1e-6)
    predictions = made.predict(rows(Q))
    assert predictions.metrics["test_accuracy"] == pytest.approx(Q[torch.arange(30), model(X).argmax(1)].mean().item())


def test_what_needs_one_class_of_each_sample(tmp_path):
    with pytest.raises(ValueError, match=r"sampling='class_balanced'.*soft labels"):
        trainer(tmp_path, rows(Q), sampling="class_balanced").train()


def test_lists_of_whole_numbers_are_refused_with_the_way_out(tmp_path):
    whole = F.one_hot(HARD, 3).tolist()
    data = datasets.Dataset.from_dict({"input": X.tolist(), "labels": whole})
    with pytest.raises(TypeError, match=r"holds list<.*int64>.*lists of floats.*cast_column\('labels'") as error:
        trainer(tmp_path, data.with_format("torch"))
    assert "class_encode_column" not in str(error.value)
    cast = data.cast_column("labels", datasets.Sequence(datasets.Value("float32")))
    assert trainer(tmp_path, cast.with_format("torch")).class_statistics.counts == (18, 8, 4)


def test_a_run_is_saved_with_class_indices_of_its_test_set(tmp_path):
    """`ltsam report` counts confusions of classes; what it cannot read is not written."""
    made = trainer(tmp_path, rows(Q), eval_dataset=rows(Q))
    with pytest.raises(
        ValueError, match=r"one class of each test sample.*shares of classes: pass one with class indices"
    ):
        made.save_run()
    assert made.save_run(rows(HARD)).class_statistics["counts"] == list(made.class_statistics.counts)


def test_statistics_of_shares():
    assert ClassStatistics.from_labels(F.one_hot(HARD, 3).float()) == ClassStatistics.from_labels(HARD)
    with pytest.raises(ValueError, match="class 1 has no training sample"):
        ClassStatistics.from_labels(torch.tensor([[0.9, 0.1], [0.8, 0.2]]))


def test_a_loss_of_the_user_s_is_given_them(tmp_path):
    seen = []

    def loss(logits, labels, statistics):
        seen.append(labels.shape)
        return F.cross_entropy(logits, labels, reduction="none")

    trainer(tmp_path, rows(Q), "sam", loss="cross_entropy").train()
    made = LTSamTrainer(
        nn.Linear(4, 3),
        LTSamConfig(
            str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=10,
            learning_rate=0.1,
            report_to="none",
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=rows(Q),
        loss=loss,
        method="sam",
    )
    made.train()
    assert set(seen) == {(10, 3)}
