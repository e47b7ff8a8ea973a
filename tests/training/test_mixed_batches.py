"""Mixup, CutMix and soft labels through the trainer: the naive loop, resume, accumulation, processes, evaluation."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from training.noisy_run import Noisy, noisy_trainer
from training.test_resume import assert_same
from training.toy import LABELS, Toy, ToyBatches, toy_trainer

from hf_ltsam import ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.data.mixing import Mixture
from hf_ltsam.landscape.batches import MicroBatch
from hf_ltsam.training.steps.step import TrainingStep

MIXUP = {"mixup_alpha": 1.0}


def numbers_drawn(monkeypatch):
    """The numbers of the batches that are mixed from now on."""
    numbers, drawn = [], Mixture.drawn.__func__

    def noted(cls, settings, seed, batch, size):
        numbers.append(batch)
        return drawn(cls, settings, seed, batch, size)

    monkeypatch.setattr(Mixture, "drawn", classmethod(noted))
    return numbers


@pytest.mark.parametrize("accumulation", [1, 2])
def test_sam_with_mixup_is_the_naive_loop(accumulation, tmp_path):
    """x and one-hot y mixed by hand in float64, two passes of SAM, plain SGD; the same draw in both passes."""
    size = 8 // accumulation
    settings = {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": accumulation,
        "optim_args": "momentum=0",
    }
    trainer = toy_trainer(tmp_path, "sam", weight_decay=0.0, **MIXUP, **settings)
    trainer.train()
    rows, model = list(ToyBatches()), Toy()
    for step in range(2):
        total = [torch.zeros_like(p) for p in model.parameters()]
        for k in range(accumulation):
            batch = rows[step * 8 + k * size :][:size]
            x = torch.stack([r["x"] for r in batch])
            y = F.one_hot(torch.tensor([r["labels"] for r in batch]), 4).double()
            draw = Mixture.drawn(SimpleNamespace(mixup_alpha=1.0, cutmix_alpha=0.0), 42, step * accumulation + k, size)
            lam, pairs = draw.share, draw.partners.tolist()
            x = torch.stack([lam * x[i] + (1 - lam) * x[j] for i, j in enumerate(pairs)])
            y = torch.stack([lam * y[i] + (1 - lam) * y[j] for i, j in enumerate(pairs)])

            def gradient(of, x=x, y=y):
                loss = -(y * of(x).log_softmax(1)).sum(1).mean()
                return torch.autograd.grad(loss, list(of.parameters()))

            ascent, away = gradient(model), copy.deepcopy(model)
            length = sum(g.square().sum() for g in ascent).sqrt()
            with torch.no_grad():
                for p, g in zip(away.parameters(), ascent):
                    p.add_(0.05 / length * g)
            total = [t + g / accumulation for t, g in zip(total, gradient(away))]
        with torch.no_grad():
            for p, g in zip(model.parameters(), total):
                p.sub_(0.1 * g)
    torch.testing.assert_close(trainer.model.flat(), model.flat(), rtol=0, atol=1e-7)  # shares are float32


@pytest.mark.parametrize(("method", "accumulation"), [("focal_sam", 1), ("cc_sam", 2)])
def test_resumed_it_ends_the_same_to_the_last_bit(method, accumulation, tmp_path):
    settings = {"gradient_accumulation_steps": accumulation, "dataloader_num_workers": 0, **MIXUP}
    settings["max_steps"] = 8
    whole = noisy_trainer(tmp_path, method=method, **settings)
    whole.train()
    resumed = noisy_trainer(tmp_path, method=method, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert_same(resumed.model, whole.model)
    unmixed = noisy_trainer(tmp_path, method=method, **{**settings, "mixup_alpha": 0.0, "save_strategy": "no"})
    unmixed.train()
    assert not torch.equal(unmixed.model.body[0].weight, whole.model.body[0].weight)


def test_workers_do_not_change_the_draw(tmp_path):
    models = []
    for workers in (0, 1):
        trainer = noisy_trainer(tmp_path / str(workers), workers, max_steps=5, save_strategy="no", **MIXUP)
        trainer.train()
        models.append(trainer.model)
    assert_same(*models)


def test_processes_and_accumulation_number_batches_alike(tmp_path, monkeypatch):
    """Loaders deal batches out in turn: 1 process x 4 micro-batches, 2 x 2 and 4 x 1 see the same ones in a step."""

    def of_step(step, processes, accumulation):
        numbers = []
        for rank in range(processes):
            args = SimpleNamespace(mixing=MIXUP, mixup_alpha=1.0, cutmix_alpha=0.0, seed=0)
            args.gradient_accumulation_steps = accumulation
            part = SimpleNamespace(
                _args=args, _mixing=args, _accelerator=SimpleNamespace(num_processes=processes, process_index=rank)
            )
            for part._position in range(accumulation):
                batch = MicroBatch({"x": torch.zeros(2, 3)}, torch.tensor([0, 1]))
                drawn.clear()
                TrainingStep._mixed(part, batch, ClassStatistics([3, 2]), step)
                numbers += [(part._position * processes + rank, drawn[0])]
        return [number for _, number in sorted(numbers)]

    drawn = numbers_drawn(monkeypatch)
    assert of_step(3, 1, 4) == of_step(3, 2, 2) == of_step(3, 4, 1) == [12, 13, 14, 15]
    drawn.clear()
    noisy_trainer(tmp_path, gradient_accumulation_steps=2, max_steps=4, save_strategy="no", **MIXUP).train()
    assert drawn == [0, 1, 2, 3, 4, 5, 6, 7]


def test_an_evaluation_is_not_mixed(tmp_path, monkeypatch):
    drawn = numbers_drawn(monkeypatch)
    data = [Noisy()[i] for i in range(22)]
    plain, mixed = (noisy_trainer(tmp_path, eval_dataset=data, **more) for more in ({}, MIXUP))
    a, b = plain.evaluate(), mixed.evaluate()
    assert all(a[name] == b[name] for name in ("eval_loss", "eval_overall", "eval_balanced", "eval_ece"))
    mixed.predict(data)
    assert drawn == []


def test_a_checkpoint_says_how_it_was_mixed(tmp_path):
    noisy_trainer(tmp_path, max_steps=4, **MIXUP).train()
    other = noisy_trainer(tmp_path, max_steps=8, mixup_alpha=0.2)
    with pytest.raises(
        ValueError, match=r'mixing: \{"mixup_alpha": 1.0\} in the checkpoint, \{"mixup_alpha": 0.2\} now'
    ):
        other.train(resume_from_checkpoint=True)


def test_images_by_cutmix(tmp_path):
    data = [{"pixel_values": torch.randn(3, 8, 8), "labels": c} for c in [0, 0, 0, 0, 1, 1]]
    seen = []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = nn.Linear(3 * 64, 2)

        def forward(self, pixel_values):
            seen.append(pixel_values)
            return self.classifier(pixel_values.flatten(1))

    args = LTSamConfig(
        str(tmp_path), max_steps=2, per_device_train_batch_size=6, cutmix_alpha=1.0, learning_rate=0.1, report_to="none",
        use_cpu=True, disable_tqdm=True, save_strategy="no", method="sam",
    )  # fmt: skip
    LTSamTrainer(Model(), args, train_dataset=data).train()
    originals = {tuple(d["pixel_values"][:, y, x].tolist()) for d in data for y in range(8) for x in range(8)}
    assert all(tuple(image[:, y, x].tolist()) in originals for image in seen[0] for y in range(8) for x in range(8))
    assert torch.equal(seen[0], seen[1]), "both passes of a step see the same images"


def test_a_batch_without_a_finite_gradient_is_named_although_it_is_mixed(tmp_path, caplog):
    import logging

    logging.getLogger("transformers").propagate = True
    data = [{"x": torch.full((5,), float("nan") if i == 3 else 1.0), "labels": i % 3} for i in range(8)]

    class Given(Noisy):
        def __init__(self):
            self.labels = [d["labels"] for d in data]

        def __getitem__(self, index):
            return data[index]

    trainer = noisy_trainer(tmp_path, max_steps=1, per_device_train_batch_size=8, save_strategy="no", **MIXUP)
    trainer.train_dataset = Given()
    with caplog.at_level("WARNING"):
        trainer.train()
    assert "samples" in caplog.text and "3" in caplog.text


def test_labels_of_the_first_epoch_still_fit_the_statistics(tmp_path, caplog):
    import logging

    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        noisy_trainer(tmp_path, save_strategy="no", **MIXUP).train()
    assert "by the class statistics" not in caplog.text
    assert len(LABELS) == 2


@pytest.mark.parametrize("soft", [False, True])
def test_labels_of_one_perturbation_over_processes(soft, monkeypatch):
    """Micro-batches of unlike sizes, class indices or shares, are put together in their order."""
    from hf_ltsam.landscape import reduction

    monkeypatch.setattr(reduction, "_gathered", lambda values: values.unsqueeze(0))
    monkeypatch.setattr(reduction.dist, "get_rank", lambda: 0)
    labels = torch.tensor([0, 2, 1, 1, 0])
    labels = F.one_hot(labels, 4).float() * 0.9 + 0.1 / 3 if soft else labels
    joint, everything = reduction.joint_batch(list(labels.split([3, 2])))
    assert torch.equal(everything, labels) and joint.size == 5


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, labels, statistics: torch.ones(4)[labels] * F.cross_entropy(logits, labels, reduction="none"),
        lambda logits, labels, statistics: -logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1),
        lambda logits, labels, statistics: F.nll_loss(logits.log_softmax(1), labels, reduction="none"),
        lambda logits, labels, statistics: (logits * F.one_hot(labels, 4)).sum(1),
    ],
    ids=["weights[labels]", "gather", "nll_loss", "one_hot"],
)
def test_a_loss_of_class_indices_is_told_that_labels_are_soft(loss, tmp_path):
    with pytest.raises((IndexError, RuntimeError, TypeError)) as raised:
        trainer = toy_trainer(tmp_path, "sam", **MIXUP)
        trainer.loss = loss
        trainer.train()
    (note,) = [note for note in raised.value.__notes__ if "soft" in note]
    assert "shares of the classes, of shape (8, 4)" in note and "mixup_alpha" in note and "labels.argmax(1)" in note


def test_an_error_of_a_loss_with_class_indices_has_no_such_note(tmp_path):
    def wrong(logits, labels, statistics):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as raised:
        trainer = toy_trainer(tmp_path, "sam")
        trainer.loss = wrong
        trainer.train()
    assert not any("soft" in note for note in getattr(raised.value, "__notes__", []))
