"""The loss inside a model's own forward, which no loss of samples reads: refused or told of, never passed over in silence."""

import random
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from training.own_losses import text_classifier
from training.test_refusals import trainer

from hf_ltsam import ClassStatistics
from hf_ltsam.training.refusals.forward_loss import ForwardLoss, without_trace

TOKENS = torch.randint(0, 11, (12, 5), generator=torch.Generator().manual_seed(0))
CLASSES = [c % 3 for c in range(12)]
INDICES = [{"input_ids": x, "labels": c} for x, c in zip(TOKENS, CLASSES)]
ONE_HOT = [{"input_ids": x, "labels": torch.eye(3)[c]} for x, c in zip(TOKENS, CLASSES)]
SINGLE, SEVERAL, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


def per_sample_bce(logits, labels, statistics):
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)


# ---- problem_type ----

# stated by the model, loss, data -> what the message must contain; None: it is trained
PROBLEM_TYPES = [
    (SEVERAL, "cross_entropy", ONE_HOT, ["loss='cross_entropy'", "'binary_cross_entropy'", "loss='model'", SINGLE]),
    (SEVERAL, "cross_entropy", INDICES, ["loss='cross_entropy'", "'binary_cross_entropy'", "loss='model'", SINGLE]),
    (SEVERAL, "focal", INDICES, ["loss='focal'", "'binary_cross_entropy'", "loss='model'", SINGLE]),
    (REGRESSION, "cross_entropy", ONE_HOT, ["loss='cross_entropy'", "loss='model'", SINGLE]),
    (REGRESSION, "binary_cross_entropy", ONE_HOT, ["loss='binary_cross_entropy'", "loss='model'", SEVERAL]),
    (SINGLE, "binary_cross_entropy", ONE_HOT, ["loss='binary_cross_entropy'", "'cross_entropy'", SEVERAL]),
    (SEVERAL, "binary_cross_entropy", ONE_HOT, None),
    (SINGLE, "cross_entropy", INDICES, None),
    (SINGLE, "cross_entropy", ONE_HOT, None),  # distillation
    (None, "cross_entropy", ONE_HOT, None),
    (None, "binary_cross_entropy", ONE_HOT, None),
    (SEVERAL, "model", ONE_HOT, None),
    (SEVERAL, per_sample_bce, ONE_HOT, None),  # a function of one's own says what it is
]


@pytest.mark.parametrize(("stated", "loss", "data", "parts"), PROBLEM_TYPES)
def test_a_problem_type_that_the_loss_is_not_of(stated, loss, data, parts, tmp_path):
    model = text_classifier(stated, 3)
    if parts is None:
        trainer(tmp_path, model, data, loss=loss, method="sam").train()
        assert model.config.problem_type in (stated, SEVERAL)  # stock's forward states one with loss='model'
        return
    with pytest.raises(ValueError, match=re.escape(f"problem_type='{stated}'")) as error:
        trainer(tmp_path, model, data, loss=loss)
    for part in parts:
        assert part in str(error.value)
    assert ("'binary_cross_entropy'" in str(error.value)) is ("'binary_cross_entropy'" in "".join(parts))


@pytest.mark.parametrize("adapted", [False, True])
def test_the_way_out_of_a_problem_type(adapted, tmp_path):
    model = text_classifier(SEVERAL, 3)
    if adapted:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(target_modules=["query"], modules_to_save=["classifier"]))
    with pytest.raises(ValueError, match="problem_type"):
        trainer(tmp_path, model, INDICES)
    model.config.problem_type = SINGLE
    trainer(tmp_path, model, INDICES).train()


def test_a_configuration_of_other_words_says_nothing(tmp_path):
    """Of a module that is none of transformers'."""
    model = nn.Linear(4, 3)
    model.config = type("Config", (), {"problem_type": "rare classes"})()
    data = [{"input": torch.randn(4), "labels": c} for c in CLASSES]
    trainer(tmp_path, model, data, statistics=ClassStatistics([4, 4, 4])).train()


# ---- the loss that forward makes of the labels ----

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
POINTS = [{"input": x, "labels": c} for x, c in zip(X, CLASSES)]
WEIGHTED = [{**sample, "sample_weight": 1.0 + sample["labels"]} for sample in POINTS]
NAMED = "loss of its own"


class Classifier(nn.Module):
    """A linear classifier, whose `loss` the subclasses change."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(4, 3)
        self.modes = []  # of the passes with labels

    def forward(self, input, labels=None):
        logits = self.head(input)
        if labels is None:
            return {"logits": logits}
        self.modes.append((self.training, torch.is_grad_enabled()))
        return {"loss": self.loss(logits, labels), "logits": logits}

    def loss(self, logits, labels):
        return F.cross_entropy(logits, labels)


class ClassWeights(Classifier):
    def loss(self, logits, labels):
        return F.cross_entropy(logits, labels, weight=torch.tensor([1.0, 2.0, 5.0]))


class Auxiliary(Classifier):
    def loss(self, logits, labels):
        return super().loss(logits, labels) + 0.1 * self.head.weight.square().sum()


class Near(Classifier):
    def loss(self, logits, labels):
        return 1.003 * super().loss(logits, labels)


class SampleWeights(Classifier):
    def forward(self, input, sample_weight, labels=None):
        outputs = super().forward(input)
        if labels is not None:
            outputs["loss"] = (sample_weight * F.cross_entropy(outputs["logits"], labels, reduction="none")).mean()
        return outputs


class Tuples(ClassWeights):
    def forward(self, input, labels=None):
        outputs = super().forward(input, labels)
        return tuple(outputs.values())


class AnyColumns(ClassWeights):
    def forward(self, **columns):
        return super().forward(**columns)


class ManyLosses(Classifier):
    def loss(self, logits, labels):
        return 2 * F.cross_entropy(logits, labels, reduction="none")


class Infinite(Classifier):
    def loss(self, logits, labels):
        return super().loss(logits, labels) / 0


class Broken(Classifier):
    def loss(self, logits, labels):
        raise KeyError("no such column")


class WithoutLogits(ClassWeights):
    def forward(self, input, labels=None):
        outputs = super().forward(input, labels)
        return outputs if labels is None else {"loss": outputs["loss"]}


class WithoutLoss(Classifier):
    def forward(self, input, labels=None):
        return self.head(input)


def remarks(caplog):
    return [record.getMessage() for record in caplog.records if NAMED in record.getMessage()]


def trained(folder, model, data=POINTS, **settings):
    made = trainer(
        folder, model, data, **{"optim": "sgd", "max_steps": 3, "per_device_train_batch_size": 6, **settings}
    )
    made.train()
    return made


def vit():
    from training.test_equals_stock_trainer import CLASSES as NUMBER
    from training.test_equals_stock_trainer import images
    from training.test_equals_stock_trainer import vit as model

    assert NUMBER == 5
    return model(), images(10)


def adapted():
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(task_type="SEQ_CLS", target_modules=["query"], lora_dropout=0.1)
    return get_peft_model(text_classifier(None, 3), settings), INDICES


WARNED = {
    "class weights": lambda: (ClassWeights(), POINTS),
    "auxiliary term": lambda: (Auxiliary(), POINTS),
    "sample weights": lambda: (SampleWeights(), WEIGHTED),
    "tuples": lambda: (Tuples(), POINTS),
    "any columns": lambda: (AnyColumns(), POINTS),
    "near": lambda: (Near(), POINTS),
}
SILENT = {
    "cross-entropy": lambda: (Classifier(), POINTS),
    "text": lambda: (text_classifier(None, 3), INDICES),
    "text of one label": lambda: (text_classifier(SINGLE, 3), INDICES),
    "text of shares": lambda: (text_classifier(None, 3), ONE_HOT),
    "text in bfloat16": lambda: (text_classifier(None, 3).to(torch.bfloat16), INDICES),
    "adapter": adapted,
    "images": vit,
    "near in bfloat16": lambda: (Near().to(torch.bfloat16), [{**d, "input": d["input"].bfloat16()} for d in POINTS]),
    "many losses": lambda: (ManyLosses(), POINTS),
    "infinite": lambda: (Infinite(), POINTS),
    "fails": lambda: (Broken(), POINTS),
    "without logits": lambda: (WithoutLogits(), POINTS),
    "without loss": lambda: (WithoutLoss(), POINTS),
    "no labels": lambda: (nn.Linear(4, 3), POINTS),
}


@pytest.mark.parametrize("name", WARNED)
@pytest.mark.parametrize("method", ["sgd", "focal_sam"])
def test_a_loss_inside_forward_is_told_of_once(name, method, tmp_path, caplog):
    model, data = WARNED[name]()
    made = trained(tmp_path, model, data, method=method, remove_unused_columns=name != "any columns")
    (remark,) = remarks(caplog)
    for part in (type(model).__name__, "loss='cross_entropy'", "loss='model'", "reweighting="):
        assert part in remark
    made.train()  # again
    assert len(remarks(caplog)) == 1


@pytest.mark.parametrize("name", SILENT)
def test_nothing_is_told_of_plain_cross_entropy_or_what_cannot_be_compared(name, tmp_path, caplog):
    model, data = SILENT[name]()
    trained(tmp_path, model, data, method="sam")
    assert not remarks(caplog)


SETTINGS = {
    "another loss": {"loss": "logit_adjustment"},
    "the model's": {"loss": "model", "method": "sam"},
    "smoothing": {"label_smoothing_factor": 0.1},  # with it the stock Trainer, too, makes the loss of logits
    "compiled": {"torch_compile": True, "torch_compile_backend": "eager"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_with_which_nothing_is_compared(name, tmp_path, caplog):
    model = ClassWeights()
    trained(tmp_path, model, **SETTINGS[name])
    assert not remarks(caplog)
    assert all(mode == (True, True) for mode in model.modes)


@pytest.mark.parametrize("where", ["model", "part", "wrapped"])
def test_a_compiled_model_is_not_compared(where, tmp_path, caplog):
    model = ClassWeights()
    if where == "model":
        model.compile(backend="eager")
    elif where == "part":
        model.head.compile(backend="eager")
    else:
        model.head = torch.compile(model.head, backend="eager")
    trained(tmp_path, model)
    assert not remarks(caplog) and not model.modes


@pytest.mark.parametrize("changes", [{}, {"bf16": True}], ids=str)
def test_both_numbers_are_those_of_one_pass(changes, tmp_path, caplog):
    """In evaluation mode, without a gradient, one pass: of the batch and the weights after the first step's passes."""
    model = ClassWeights()
    made = trainer(tmp_path, model, per_device_train_batch_size=12, data=POINTS, optim="sgd", **changes)
    start = nn.Linear(4, 3)
    start.load_state_dict(model.head.state_dict())
    made.train()
    assert model.modes == [(False, False)]
    z, y = start(X), torch.tensor(CLASSES)
    ours, theirs = F.cross_entropy(z, y).item(), ClassWeights.loss(model, z, y).item()
    numbers = [float(n) for n in re.findall(r"\d+\.\d+", remarks(caplog)[0])]
    assert numbers == [
        pytest.approx(theirs, rel=2e-2 if changes else 2e-4),
        pytest.approx(ours, rel=2e-2 if changes else 2e-4),
    ]


def test_a_batch_of_one_class_says_nothing_of_class_weights(tmp_path, caplog):
    """They divide out in its mean, and in data with a long tail it is often the first."""
    data = [{"input": x, "labels": c} for x, c in zip(X, [0, 0, 0, 0, 0, 0, 1, 2, 0, 1, 2, 0])]

    class InOrder(type(trainer(tmp_path, Classifier(), POINTS))):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model = ClassWeights()
    args = trainer(tmp_path, Classifier(), POINTS, per_device_train_batch_size=3, max_steps=4, optim="sgd").args
    made = InOrder(model, args, train_dataset=data)
    made.train()
    assert len(remarks(caplog)) == 1 and len(model.modes) == 1


class Merging(nn.Linear):
    """Whose `train` changes its weights, as LoRA layers that merge do."""

    def train(self, mode=True):
        self.weight.data.mul_(1.0 if mode else 0.5)
        return super().train(mode)


class Noisy(ClassWeights):
    """Random numbers of three generators, running statistics, a part in evaluation mode, buffers that count passes."""

    def __init__(self):
        super().__init__()
        self.frozen, self.moving, self.merging = nn.BatchNorm1d(4), nn.BatchNorm1d(4), Merging(4, 4)
        self.generator = torch.Generator().manual_seed(1)
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("written", torch.zeros(()))

    def train(self, mode=True):
        super().train(mode)
        self.frozen.train(False)
        return self

    def forward(self, input, labels=None):
        own = torch.rand(4, generator=self.generator)
        noise = 0.1 * (torch.rand(4) + own + float(np.random.rand()) + random.random())
        self.replaced = self.replaced + 1
        self.written += 1
        return super().forward(self.merging(self.frozen(self.moving(F.dropout(input, 0.1)))) + noise, labels)


@pytest.mark.parametrize("settings", [{}, {"ascent_scope": "step", "gradient_accumulation_steps": 2}], ids=str)
@pytest.mark.parametrize("method", ["sgd", "momentum_focal_sam"])
def test_the_comparison_leaves_no_trace(method, settings, tmp_path, caplog, monkeypatch):
    def run():
        model = Noisy()
        made = trained(tmp_path, model, method=method, per_device_train_batch_size=4, **settings)
        drawn = (torch.rand(3), np.random.rand(3), random.random(), model.generator.get_state())
        modes = [module.training for module in model.modules()]
        return made.model.state_dict(), drawn, modes, list(made.state.log_history[-1]), model.modes

    compared = run()
    assert remarks(caplog) and compared[-1] == [(False, False)]
    monkeypatch.setattr(ForwardLoss, "compare", lambda *_: None)
    alone = run()
    assert alone[-1] == []
    for name, value in alone[0].items():
        assert torch.equal(value, compared[0][name]), name
    assert torch.equal(alone[1][0], compared[1][0]) and (alone[1][1] == compared[1][1]).all()
    assert alone[1][2] == compared[1][2] and torch.equal(alone[1][3], compared[1][3])
    assert alone[2:4] == compared[2:4]


def test_a_configuration_keeps_its_problem_type(tmp_path):
    """The forward of transformers' models would state one."""
    model = text_classifier(None, 3)
    trained(tmp_path, model, INDICES)
    assert model.config.problem_type is None


def test_modes_come_back_one_by_one():
    model = Noisy().train()
    model.moving.training = False  # of which a `train` of the model would know nothing
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), without_trace(model, torch.device("cpu")):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == before and len(set(before)) == 2
