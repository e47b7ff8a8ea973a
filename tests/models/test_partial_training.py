"""Training of chosen weights: which those are, and that the rest stays as it is, also what is no weight."""

import copy

import pytest
import torch
from cli.picture_folders import draw_images
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer
from hf_ltsam.cli.train.arguments import make_run
from hf_ltsam.cli.train.saved_run import open_run
from hf_ltsam.cli.train.train import run_training
from hf_ltsam.models.partial_training import train_only
from hf_ltsam.training.weight_averaging import refresh_batch_norm


def resnet():
    torch.manual_seed(0)
    return CifarResNetForImageClassification(CifarResNetConfig(depth=8, width=4, num_labels=3))


def bert():
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8, num_labels=3
        )
    )


@pytest.mark.parametrize(
    ("model", "patterns", "trained"),
    [
        (resnet, ["classifier.*"], ["classifier.weight", "classifier.bias"]),
        (resnet, ["stages.2.0.conv2.*", "*bias"], None),
        (bert, ["bert.encoder.layer.[12].*", "bert.pooler.*", "classifier.*"], None),
        (bert, ["*"], None),
    ],
)
def test_what_is_chosen_is_trained(model, patterns, trained):
    from fnmatch import fnmatchcase

    model = model()
    names = train_only(model, patterns)
    if trained is not None:
        assert names == trained
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name in names) == any(fnmatchcase(name, p) for p in patterns)


@pytest.mark.parametrize(("pattern", "nearest"), [("clasifier.weight", "'classifier.weight'"), ("", "")])
def test_a_pattern_of_nothing_is_refused_before_anything_is_frozen(pattern, nearest):
    model = resnet()
    with pytest.raises(ValueError, match=f"train_only='{pattern}' matches no weight of CifarResNet.*{nearest}"):
        train_only(model, ["classifier.*", pattern])
    assert all(p.requires_grad for p in model.parameters())


def test_the_trained_part_sees_the_outputs_of_a_frozen_model_in_evaluation_mode():
    """Lower blocks give the same hidden states in training and evaluation; the upper ones still drop out."""
    model = bert()
    untouched = copy.deepcopy(model).eval()
    train_only(model, ["bert.encoder.layer.2.*", "classifier.*"])
    model.train()
    ids = torch.arange(12).view(2, 6)
    hidden = model.train()(input_ids=ids, output_hidden_states=True).hidden_states
    expected = untouched(input_ids=ids, output_hidden_states=True).hidden_states
    assert all(torch.equal(hidden[i], expected[i]) for i in range(3))  # embeddings and two frozen blocks
    assert not torch.equal(hidden[3], expected[3])
    assert model.bert.encoder.layer[2].training and model.classifier.training


def test_frozen_batch_norm_keeps_its_statistics_and_copies_keep_it_frozen():
    model = resnet()
    train_only(model, ["stages.2.*", "classifier.*"])
    model = copy.deepcopy(model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    model(torch.randn(8, 3, 8, 8))
    changed = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert changed and all(name.startswith("stages.2.") for name in changed)


def test_frozen_batch_norm_keeps_its_statistics_when_weights_are_averaged():
    """torch's `update_bn` clears those of all layers, and a frozen one sees no batch in training mode."""
    model = resnet()
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 8, 8) + 2)
    train_only(model, ["stages.2.*", "classifier.*"])
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    refresh_batch_norm(model, [{"pixel_values": torch.randn(8, 3, 8, 8)}], [])
    changed = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert changed and all(name.startswith("stages.2.") for name in changed)


def test_curvature_is_that_of_the_trained_weights(tmp_path):
    """A run that is opened again trains the same weights as before."""
    draw_images(tmp_path / "images" / "train", (4, 3, 2), 12)
    draw_images(tmp_path / "images" / "test", (2, 2, 2), 12, seed=1)
    settings = {"dataset": str(tmp_path / "images"), "depth": 8, "max_steps": 1, "learning_rate": 0.1, "use_cpu": True,
                "save_strategy": "no", "train_only": ["classifier.*"], "output_dir": str(tmp_path / "run")}  # fmt: skip
    run_training(make_run({**settings, "disable_tqdm": True}))
    model = open_run(tmp_path / "run").model()
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["classifier.weight", "classifier.bias"]


def test_other_weights_do_not_resume_the_training(tmp_path):
    """As many of the same shapes: the moments of one block would silently become those of another."""
    rows = Rows([{"input_ids": torch.tensor([i, i + 1, 2]), "labels": i % 3} for i in range(6)])
    args = {"max_steps": 2, "save_steps": 1, "save_strategy": "steps", "report_to": "none", "use_cpu": True}

    def trainer(block):
        model = bert()
        train_only(model, [f"bert.encoder.layer.{block}.*", "classifier.*"])
        return LTSamTrainer(model, LTSamConfig(str(tmp_path), disable_tqdm=True, **args), train_dataset=rows)

    trainer(1).train()
    checkpoint = str(tmp_path / "checkpoint-1")
    with pytest.raises(ValueError, match=r"cannot be resumed .* trained_weights: .18 of 57, names"):
        trainer(2).train(resume_from_checkpoint=checkpoint)
    trainer(1).train(resume_from_checkpoint=checkpoint)


@pytest.mark.parametrize("method", ["sgd", "sam"])
def test_a_training_moves_the_chosen_weights_alone(tmp_path, method):
    """By the update that a plain loop over the chosen weights gives."""
    rho, rate = 0.1, 0.5
    model = bert().double()
    rows = [{"input_ids": torch.tensor([i, i + 1, 2]), "labels": i % 3} for i in range(6)]
    data = Rows(rows)
    chosen = ["classifier.*"]
    train_only(model, chosen)
    naive = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    batch = torch.stack([row["input_ids"] for row in rows])
    labels = torch.tensor([row["labels"] for row in rows])
    weights = [naive.classifier.weight, naive.classifier.bias]

    def gradient():
        return torch.autograd.grad(F.cross_entropy(naive(input_ids=batch).logits, labels), weights)

    g = gradient()
    if method == "sam":
        norm = sum((part**2).sum() for part in g).sqrt()
        with torch.no_grad():
            for w, part in zip(weights, g):
                w += rho * part / norm
        at_rest = [before["classifier.weight"], before["classifier.bias"]]
        g = gradient()
    else:
        at_rest = [w.detach() for w in weights]
    expected = [w - rate * part for w, part in zip(at_rest, g)]

    args = LTSamConfig(
        str(tmp_path), method=method, method_args={"rho": rho} if method == "sam" else None, loss="cross_entropy",
        max_steps=1, per_device_train_batch_size=6, max_grad_norm=0.0, lr_scheduler_type="constant", report_to="none",
        use_cpu=True, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    LTSamTrainer(model, args, train_dataset=data, optimizers=(optimizer, None)).train()
    for name, parameter in model.named_parameters():
        if not name.startswith("classifier"):
            assert torch.equal(parameter, before[name])
    torch.testing.assert_close(model.classifier.weight.detach(), expected[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(model.classifier.bias.detach(), expected[1], rtol=1e-9, atol=1e-12)


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]
