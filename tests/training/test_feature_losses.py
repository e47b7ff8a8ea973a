"""Losses that read the classifier's input, in every pass of a method."""

import copy

import pytest
import torch
from torch import nn
from training.noisy_run import noisy_trainer
from training.toy import STATISTICS, Toy, ToyBatches, toy_trainer
from transformers import ViTConfig, ViTForImageClassification

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.losses import FeatureLoss, InfluenceBalanced
from hf_ltsam.models import CifarResNetConfig, CifarResNetForImageClassification

COUNTS = torch.tensor(STATISTICS.counts, dtype=torch.float64)


def naive_losses(model, x, y, through=False):
    """Park et al. 2021, with the forward pass of `Toy` written out."""
    h = torch.tanh(model.fc1(x))
    z = model.classifier(h)
    p = z.softmax(1)
    divisor = (p - nn.functional.one_hot(y, 4)).abs().sum(1) * h.abs().sum(1) + 1e-3
    lam = 10.0 * (1 / COUNTS) / (1 / COUNTS).mean()
    return lam[y] * -z.log_softmax(1)[range(len(y)), y] / (divisor if through else divisor.detach())


def naive_sam(model, x, y, rho, through):
    def gradient(at):
        return torch.autograd.grad(naive_losses(at, x, y, through).mean(), list(at.parameters()))

    g = gradient(model)
    norm = torch.sqrt(sum((t**2).sum() for t in g))
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for p, t in zip(moved.parameters(), g):
            p.add_(rho * t / norm)
    return gradient(moved)


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_sam_with_the_influence_balanced_loss(rho, through, tmp_path):
    """The step that the trainer takes: the weight is that of the perturbed weights, and nothing flows through it."""
    rows = list(ToyBatches())[:8]
    x, y = torch.stack([r["x"] for r in rows]), torch.tensor([r["labels"] for r in rows])
    expected = naive_sam(Toy(), x, y, rho, through)
    trainer = toy_trainer(
        tmp_path,
        "sam",
        max_steps=1,
        weight_decay=0.0,
        loss="influence_balanced",
        method_args={"rho": rho},
        loss_args={"alpha": 10.0, "through_weight": through},
    )
    trainer.train()
    for before, after, g in zip(Toy().parameters(), trainer.model.parameters(), expected, strict=True):
        torch.testing.assert_close((before - after).detach() / 0.1, g, rtol=0, atol=1e-10)


class Counting(FeatureLoss):
    """Notes the features of every pass."""

    def __init__(self):
        self.seen = []

    def __call__(self, logits, labels, statistics, features):
        self.seen.append(features.detach().clone())
        return nn.functional.cross_entropy(logits, labels, reduction="none") + 0 * features.sum(1)


@pytest.mark.parametrize(
    ("method", "passes"), [("sgd", 1), ("sam", 2), ("imbsam", 2), ("focal_sam", 2), ("sse_sam", 3)]
)
def test_every_pass_has_features_of_its_own(method, passes, tmp_path):
    loss = Counting()
    trainer = toy_trainer(tmp_path, method, max_steps=1, exact_rows=False)
    trainer.loss = loss
    trainer.train()
    assert [f.shape for f in loss.seen] == [(8, 5)] * passes
    assert len({tuple(f.flatten().tolist()) for f in loss.seen}) == passes, "perturbed passes have other features"
    assert not any(m._forward_pre_hooks for m in trainer.model.modules()), "no hook is left"


def test_the_loss_starts_late(tmp_path):
    """Cross-entropy before `loss_start`, bit for bit, and the loss from the first step behind it."""

    def states(**settings):
        seen = []
        trainer = noisy_trainer(tmp_path, save_strategy="no", num_train_epochs=2, reweighting="none", **settings)
        step = trainer.training_step

        def recording(*args):
            loss = step(*args)
            seen.append((trainer.state.global_step, loss.item()))
            return loss

        trainer.training_step = recording
        trainer.train()
        return seen

    plain = states(loss="cross_entropy")
    late = states(loss="influence_balanced", loss_start=0.5)
    assert [step for step, _ in plain] == list(range(12))
    assert late[:6] == plain[:6] and late[6][1] != plain[6][1]


def test_resumed_before_and_after_it_starts(tmp_path):
    settings = {"loss": "influence_balanced", "loss_start": 0.5, "loss_args": {"alpha": 1.0}}
    whole = noisy_trainer(tmp_path, **settings)
    whole.train()
    for step in (8, 16):
        resumed = noisy_trainer(tmp_path, **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        for a, b in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    other = noisy_trainer(tmp_path, **{**settings, "loss_start": 0.6})
    with pytest.raises(ValueError, match=r"loss_start: 0\.5 in the checkpoint, 0\.6 now"):
        other.train(resume_from_checkpoint=True)


def images(n=4, side=8):
    generator = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.randn(3, side, side, generator=generator), "labels": i % 2} for i in range(n)]


def trained(model, folder, **settings):
    args = LTSamConfig(
        **{
            "output_dir": str(folder),
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "optim": "sgd",
            "optim_args": "momentum=0.9",
            "max_grad_norm": 0.0,
            "learning_rate": 0.01,
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "loss": "influence_balanced",
            "method": "sam",
            "logging_steps": 1,
            **settings,
        }
    )
    trainer = LTSamTrainer(model, args, train_dataset=images())
    trainer.train()
    return trainer


def vit():
    torch.manual_seed(0)
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            image_size=8,
            patch_size=4,
            num_labels=2,
        )
    )


@pytest.mark.parametrize(
    "settings", [{"bf16": True}, {"activation_checkpointing": True}, {"gradient_accumulation_steps": 2}], ids=str
)
def test_a_transformer_under_autocast_and_checkpointing(settings, tmp_path):
    trainer = trained(vit(), tmp_path, **settings)
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert len(losses) == 2 and all(0 < loss < 1e6 for loss in losses)


def test_autocast_is_near_full_precision(tmp_path):
    exact, half = (trained(vit(), tmp_path, bf16=bf16).state.log_history[0]["loss"] for bf16 in (False, True))
    assert half == pytest.approx(exact, rel=0.03)


class TwoHeads(Toy):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(5, 4, dtype=torch.float64)


class CalledTwice(Toy):
    def forward(self, x):
        h = torch.tanh(self.fc1(x))
        return self.classifier(h) + self.classifier(2 * h)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (TwoHeads, {}, r"'classifier' and 'other' could each be it.*another loss than InfluenceBalanced"),
        (
            lambda: CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=4, head="cosine")),
            {},
            r"InfluenceBalanced reads the input of a linear last layer.*CosineClassifier.*head=\"linear\"",
        ),
        (Toy, {"torch_compile": True}, r"torch_compile=False"),
    ],
)
def test_refused_before_the_first_step(make, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        toy_trainer(tmp_path, "sam", model=make(), loss="influence_balanced", **settings)


@pytest.mark.parametrize("loss_start", [0.0, 0.5])
def test_a_classifier_that_is_called_twice_is_found_in_the_first_pass(loss_start, tmp_path):
    trainer = toy_trainer(tmp_path, "sam", model=CalledTwice(), loss="influence_balanced", loss_start=loss_start)
    with pytest.raises(ValueError, match=r"given, once for each of the 8 samples; it was given \(8, 5\), \(8, 5\)"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_an_object_of_a_users_own_class(tmp_path):
    trainer = LTSamTrainer(
        Toy(),
        LTSamConfig(
            output_dir=str(tmp_path),
            max_steps=1,
            use_cpu=True,
            report_to="none",
            optim="sgd",
            optim_args="momentum=0.9",
            max_grad_norm=0.0,
            learning_rate=0.1,
        ),
        train_dataset=ToyBatches(),
        class_statistics=STATISTICS,
        loss=InfluenceBalanced(alpha=1.0),
        method="sam",
    )
    assert trainer.train().global_step == 1
