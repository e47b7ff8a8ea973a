"""With the method `sgd` the trainer is the stock Trainer, bit for bit."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    ViTConfig,
    ViTForImageClassification,
)

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer

CLASSES = 5


def vit():
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=16,
            patch_size=8,
            num_labels=CLASSES,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
        )
    )


def resnet():
    return ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=CLASSES)
    )


def cifar_resnet():
    return CifarResNetForImageClassification(CifarResNetConfig(depth=8, num_labels=CLASSES))


MODELS = {"vit": vit, "resnet": resnet, "cifar resnet": cifar_resnet}


def images(n=26):
    torch.manual_seed(1)
    return [{"pixel_values": torch.randn(3, 16, 16), "labels": i % CLASSES} for i in range(n)]


class StockTrainer(Trainer):
    """Without transformers#47688: classification heads swallow `num_items_in_batch`, and the stock Trainer then leaves
    out the division by the number of accumulated micro-batches."""

    loss_is_scaled_for_ga = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # the same on versions before `loss_is_scaled_for_ga`


def settings(folder, **changes):
    return {
        "output_dir": str(folder),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.05,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "weight_decay": 0.01,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 7,
        **changes,
    }


def train_both(make, folder, **changes):
    from transformers import TrainingArguments

    torch.manual_seed(0)
    stock_model = make()
    our_model = copy.deepcopy(stock_model)
    stock = StockTrainer(stock_model, TrainingArguments(**settings(folder, **changes)), train_dataset=images())
    stock.train()
    ours = LTSamTrainer(our_model, LTSamConfig(**settings(folder, **changes)), train_dataset=images(), method="sgd")
    ours.train()
    return stock, ours


def assert_same_weights(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_accumulation_steps": 3},
        {"gradient_accumulation_steps": 2, "bf16": True},
        {"optim": "adamw_torch", "optim_args": None, "learning_rate": 1e-3, "max_grad_norm": 0.0},
    ],
    ids=["plain", "accumulation", "bf16 accumulation", "adamw"],
)
@pytest.mark.parametrize("model", MODELS)
def test_same_weights_to_the_last_bit(model, changes, tmp_path):
    stock, ours = train_both(MODELS[model], tmp_path, **changes)
    assert_same_weights(stock.model, ours.model)
    before = MODELS[model]()
    assert not torch.equal(next(iter(before.state_dict().values())), next(iter(ours.model.state_dict().values())))


def test_same_logs(tmp_path):
    stock, ours = train_both(vit, tmp_path)
    for a, b in zip(stock.state.log_history[:-1], ours.state.log_history[:-1], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-6)
        assert (b["grad_norm"], b["learning_rate"], b["epoch"]) == (a["grad_norm"], a["learning_rate"], a["epoch"])


def test_unused_parameters_keep_no_gradient(tmp_path):
    """A gradient of zeros would let weight decay and momentum move what the stock Trainer leaves alone."""

    class WithUnused(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = torch.nn.Linear(4, CLASSES), torch.nn.Linear(4, CLASSES)

        def forward(self, x):
            return self.used(x)

    model = WithUnused()
    before = model.unused.weight.detach().clone()
    data = [{"x": torch.randn(4), "labels": i % CLASSES} for i in range(8)]
    for method in ("sgd", "sam"):
        LTSamTrainer(
            model, LTSamConfig(**settings(tmp_path, weight_decay=0.5)), train_dataset=data, method=method
        ).train()
        assert torch.equal(model.unused.weight, before)


def test_evaluation_and_prediction_are_stock(tmp_path):
    torch.manual_seed(0)
    model, data = vit(), images(9)
    from transformers import TrainingArguments

    stock = StockTrainer(model, TrainingArguments(**settings(tmp_path)), eval_dataset=data)
    ours = LTSamTrainer(
        model, LTSamConfig(**settings(tmp_path)), train_dataset=images(), eval_dataset=data, loss="logit_adjustment"
    )
    assert ours.evaluate()["eval_loss"] == pytest.approx(stock.evaluate()["eval_loss"], rel=1e-6)
    a, b = stock.predict(data), ours.predict(data)
    assert (a.predictions == b.predictions).all() and (a.label_ids == b.label_ids).all()
    unlabelled = [{"pixel_values": d["pixel_values"]} for d in data]
    assert (stock.predict(unlabelled).predictions == ours.predict(unlabelled).predictions).all()


@pytest.mark.parametrize("output", ["tensor", "dict", "tuple"])
def test_any_module_that_returns_logits(output, tmp_path):
    class Classifier(torch.nn.Linear):
        def forward(self, x):
            logits = super().forward(x)
            return {"tensor": logits, "dict": {"logits": logits}, "tuple": (logits,)}[output]

    data = [{"x": torch.randn(4), "labels": i % CLASSES} for i in range(9)]  # 9 = 2 batches of 4 and one of 1
    trainer = LTSamTrainer(
        Classifier(4, CLASSES),
        LTSamConfig(**settings(tmp_path, per_device_eval_batch_size=4)),
        train_dataset=data,
        eval_dataset=data,
        method="sam",
    )
    trainer.train()
    logits = torch.stack([torch.nn.functional.linear(d["x"], trainer.model.weight, trainer.model.bias) for d in data])
    labels = torch.tensor([d["labels"] for d in data])
    expected = torch.stack([F.cross_entropy(a, b) for a, b in zip(logits.split(4), labels.split(4))])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(
        float((expected * torch.tensor([4.0, 4.0, 1.0])).sum().detach() / 9), rel=1e-5
    )
    assert torch.allclose(torch.tensor(trainer.predict(data).predictions), logits.detach(), atol=1e-6)
    unlabelled = trainer.predict([{"x": d["x"]} for d in data])
    assert torch.allclose(torch.tensor(unlabelled.predictions), logits.detach(), atol=1e-6)


def test_text_models_train_too(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            num_labels=3,
        )
    )
    data = [
        {"input_ids": torch.randint(0, 50, (7,)), "attention_mask": torch.ones(7, dtype=torch.long), "labels": i % 3}
        for i in range(12)
    ]
    trainer = LTSamTrainer(
        model, LTSamConfig(**settings(tmp_path)), train_dataset=data, eval_dataset=data, method="focal_sam"
    )
    trainer.train()
    assert trainer.state.log_history[0]["sam_eps_norm"] == pytest.approx(0.05, rel=1e-3)


def test_optimizer_named_explicitly_is_stock(tmp_path):
    from transformers import TrainingArguments

    for optim, optim_args in [
        ("adamw_torch", None),
        ("sgd", None),
        ("sgd", "momentum=0.5,nesterov=true"),
        ("rmsprop", None),
    ]:
        same = settings(tmp_path, optim=optim, optim_args=optim_args)
        stock = Trainer(vit(), TrainingArguments(**same), train_dataset=images())
        ours = LTSamTrainer(vit(), LTSamConfig(**same), train_dataset=images())
        a, b = stock.create_optimizer(), ours.create_optimizer()
        assert type(a) is type(b) and a.defaults == b.defaults
        assert [[p.shape for p in g["params"]] for g in a.param_groups] == [
            [p.shape for p in g["params"]] for g in b.param_groups
        ]
        assert [g["weight_decay"] for g in a.param_groups] == [g["weight_decay"] for g in b.param_groups]


class Shared(torch.nn.Module):
    """Autograd hands out one tensor as the gradient of both weights."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, CLASSES), torch.nn.Linear(4, CLASSES)

    def forward(self, x):
        return F.linear(x, self.first.weight + self.second.weight, self.first.bias + self.second.bias)


class SharedWithLoss(Shared):
    def forward(self, x, labels=None):
        logits = super().forward(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize("changes", [{"gradient_accumulation_steps": 2}, {"max_grad_norm": 0.1}])
def test_two_weights_with_one_gradient_tensor(changes, tmp_path):
    from transformers import TrainingArguments

    torch.manual_seed(0)
    stock_model, model = SharedWithLoss(), Shared()
    model.load_state_dict(stock_model.state_dict())
    data = [{"x": torch.randn(4), "labels": i % CLASSES} for i in range(16)]
    StockTrainer(stock_model, TrainingArguments(**settings(tmp_path, **changes)), train_dataset=data).train()
    LTSamTrainer(model, LTSamConfig(**settings(tmp_path, **changes)), train_dataset=data, method="sgd").train()
    assert_same_weights(stock_model, model)


def test_the_logged_loss_under_accumulation_is_the_mean(tmp_path):
    stock, ours = train_both(vit, tmp_path, gradient_accumulation_steps=3)
    for a, b in zip(stock.state.log_history[:-1], ours.state.log_history[:-1], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-6)


def test_logits_need_not_come_first(tmp_path):
    class Features(torch.nn.Linear):
        def forward(self, x):
            return {"features": x, "logits": super().forward(x)}

    data = [{"x": torch.randn(7), "labels": i % CLASSES} for i in range(8)]
    trainer = LTSamTrainer(
        Features(7, CLASSES), LTSamConfig(**settings(tmp_path)), train_dataset=data, eval_dataset=data
    )
    assert 0 <= trainer.evaluate()["eval_overall"] <= 1
    assert [p.shape[1] for p in trainer.predict(data).predictions] == [CLASSES, 7]


def test_lora_trains_saves_and_resumes(tmp_path):
    from peft import LoraConfig, get_peft_model

    def run(**changes):
        torch.manual_seed(0)
        model = get_peft_model(
            vit(), LoraConfig(r=2, target_modules=["q_proj", "query"], modules_to_save=["classifier"])
        )
        return LTSamTrainer(
            model,
            LTSamConfig(**settings(tmp_path, save_strategy="steps", save_steps=5, **changes)),
            train_dataset=images(),
            method="focal_sam",
        )

    whole, resumed = run(), run()
    frozen = whole.model.get_base_model().vit.embeddings.cls_token.detach().clone()
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert_same_weights(whole.model, resumed.model)
    assert torch.equal(whole.model.get_base_model().vit.embeddings.cls_token, frozen)


def test_best_model_dict_of_evaluation_sets_model_init_and_two_trainings(tmp_path):
    def fresh():
        torch.manual_seed(0)
        return vit()

    trainer = LTSamTrainer(
        args=LTSamConfig(
            **settings(
                tmp_path,
                eval_strategy="epoch",
                save_strategy="epoch",
                load_best_model_at_end=True,
                metric_for_best_model="eval_first_balanced",
                greater_is_better=True,
            )
        ),
        model_init=fresh,
        train_dataset=images(),
        eval_dataset={"first": images(9), "second": images(10)},
        method="sam",
    )
    trainer.train()
    first = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.train()
    assert all(torch.equal(v, first[k]) for k, v in trainer.model.state_dict().items())
    assert any("eval_second_few" in log or "eval_second_overall" in log for log in trainer.state.log_history)
