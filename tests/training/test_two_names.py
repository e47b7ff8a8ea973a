"""A script changes two names and stays what it was: with plain SGD of the cross-entropy it trains the same weights."""

import numpy as np
import pytest
import torch
from datasets import Value
from training.example_scripts import (
    image_classification,
    lora_image_classification,
    sentences,
    text_classification,
    word_tokenizer,
)
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from hf_ltsam import LTSamConfig, LTSamTrainer

PLAIN = ("--method", "sgd", "--loss", "cross_entropy")
SHARP = ("--method", "sam", "--method_args", '{"rho": 0.5}')
COMMON = [
    "--num_train_epochs",
    "2",
    "--per_device_train_batch_size",
    "4",
    "--use_cpu",
    "--disable_tqdm",
    "true",
    "--logging_steps",
    "1",
]
SCRIPTS = {
    "images": (
        image_classification,
        "--do_train --do_eval --learning_rate 1e-3 --weight_decay 0.1 --remove_unused_columns False "
        # by the loss the last epoch is the best: the stock Trainer loads a ViT of an earlier one in part
        "--eval_strategy epoch --save_strategy epoch --load_best_model_at_end --metric_for_best_model loss",
    ),
    "label column": (
        image_classification,
        "--do_train --do_eval --label_column_name kind --remove_unused_columns False --learning_rate 1e-3 "
        "--max_train_samples 14 --save_strategy no",
    ),
    "text": (text_classification, "--learning_rate 1e-3 --warmup_steps 2 --save_strategy no --eval_strategy epoch"),
    "lora": (
        lora_image_classification,
        "--learning_rate 5e-3 --remove_unused_columns False --eval_strategy epoch --save_strategy epoch "
        "--load_best_model_at_end --metric_for_best_model accuracy --label_names labels",
    ),
}


def run(script, names, folder, words=()):
    make, own = SCRIPTS[script]
    return make(*names, ["--output_dir", str(folder), *COMMON, *own.split(), *words])


def assert_same(ours, stock):
    for (name, mine), theirs in zip(ours.state_dict().items(), stock.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_script_with_two_names_changed_trains_the_same_weights(script, tmp_path):
    stock, stock_metrics = run(script, (Trainer, TrainingArguments), tmp_path / "stock")
    ours, our_metrics = run(script, (LTSamTrainer, LTSamConfig), tmp_path / "ours", PLAIN)
    assert_same(ours.model, stock.model)
    assert type(ours.optimizer.optimizer) is type(stock.optimizer.optimizer)
    timeless = {name: value for name, value in stock_metrics.items() if "second" not in name and "time" not in name}
    assert timeless.keys() <= our_metrics.keys()
    for name, value in timeless.items():
        assert our_metrics[name] == pytest.approx(value, rel=1e-5), name
    for mine, theirs in zip(ours.state.log_history[:-1], stock.state.log_history[:-1], strict=True):
        for name in set(theirs) & {"loss", "grad_norm", "learning_rate", "epoch", "eval_accuracy"}:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name
    if ours.args.save_strategy != "no":
        assert ours.state.best_metric == pytest.approx(stock.state.best_metric)


@pytest.mark.parametrize("script", ["images", "text", "lora"])
def test_an_example_script_trains_with_sam(script, tmp_path):
    words = ("--random_flips", "true") if script == "images" else ()
    ours, metrics = run(script, (LTSamTrainer, LTSamConfig), tmp_path, (*SHARP, *words))
    losses = [entry for entry in ours.state.log_history if "loss" in entry]
    assert losses and all(entry["sam_eps_norm"] == pytest.approx(0.5, rel=1e-3) for entry in losses)
    assert {"eval_loss", "eval_accuracy", "eval_balanced", "epoch"} <= metrics.keys()


# ---- data in the forms that a stock script has them ----


def bert(num_labels=3):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=num_labels,
    )
    return BertForSequenceClassification(config)


def settings(folder, **changes):
    return {
        "output_dir": str(folder),
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        **changes,
    }


def both(folder, data, changes=None, make=bert, **arguments):
    stock = Trainer(
        make(), TrainingArguments(**settings(folder / "stock", **(changes or {}))), train_dataset=data, **arguments
    )
    stock.train()
    args = LTSamConfig(**settings(folder / "ours", method="sgd", **(changes or {})))
    ours = LTSamTrainer(make(), args, train_dataset=data, **arguments)
    ours.train()
    assert_same(ours.model, stock.model)
    return ours, stock


def tokenized(column="label", names=True):
    data = sentences((6, 4, 2), 0).map(lambda row: word_tokenizer()(row["sentence"]))
    if not names:
        data = data.cast_column("label", Value("int64"))
    return data.rename_column("label", column) if column != "label" else data


class Mapped(torch.utils.data.Dataset):
    """A data set of samples that states no labels."""

    def __init__(self, rows, labels=True):
        self.rows, self.labels_too = rows, labels

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return {
            "input_ids": torch.tensor(row["input_ids"][:2]),
            "label": torch.tensor(row["label"]),
            "sentence": "words",
        }


class Indexed:
    """Not even torch's: an object with a length and an index."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {"input_ids": self.rows[int(index)]["input_ids"][:2], "labels": self.rows[int(index)]["label"]}


def pairs_collated(samples):
    return {"input_ids": torch.tensor([x for x, _ in samples]), "labels": torch.tensor([y for _, y in samples])}


FORMS = {
    "label": lambda: (tokenized("label"), {"processing_class": word_tokenizer()}),
    "labels": lambda: (tokenized("labels"), {"processing_class": word_tokenizer()}),
    "label_ids": lambda: (tokenized("label_ids"), {"processing_class": word_tokenizer()}),
    "numbers": lambda: (tokenized(names=False), {"processing_class": word_tokenizer()}),
    "torch format": lambda: (tokenized().with_format("torch"), {"processing_class": word_tokenizer()}),
    "torch data set": lambda: (Mapped(tokenized().to_list()), {}),
    "torch data set of words too": lambda: (Mapped(tokenized().to_list()), {"processing_class": word_tokenizer()}),
    "any object": lambda: (Indexed(tokenized().to_list()), {}),
    "subset": lambda: (torch.utils.data.Subset(Mapped(tokenized().to_list()), range(1, 11)), {}),
    "list": lambda: ([{"input_ids": r["input_ids"][:2], "label": r["label"]} for r in tokenized().to_list()], {}),
    "pairs": lambda: (
        [(r["input_ids"][:2], r["label"]) for r in tokenized().to_list()],
        {"data_collator": pairs_collated},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_of_any_form(form, tmp_path):
    data, arguments = FORMS[form]()
    ours, _ = both(tmp_path, data, **arguments)
    assert sum(ours.class_statistics.counts) == len(data)


def test_columns_that_only_a_transform_reads_are_there_for_it(tmp_path):
    """The stock Trainer removes them before, and the transform fails unless remove_unused_columns is off."""
    tokenizer = word_tokenizer()
    data = sentences((6, 4, 2), 0)
    data.set_transform(lambda batch: {**tokenizer(batch["sentence"]), **batch})
    stock = Trainer(bert(), TrainingArguments(**settings(tmp_path)), train_dataset=data, processing_class=tokenizer)
    with pytest.raises(KeyError):
        stock.train()
    ours = LTSamTrainer(
        bert(), LTSamConfig(**settings(tmp_path)), train_dataset=data, eval_dataset=data, processing_class=tokenizer
    )
    ours.train()
    assert ours.state.global_step == 4 and "eval_balanced" in ours.evaluate()
    assert ours.predict(data).predictions.shape == (12, 3)


class LabelModel(torch.nn.Linear):
    """A module whose forward calls its labels `label`."""

    def forward(self, x, label=None):
        logits = super().forward(x)
        if label is None:
            return {"logits": logits}
        return {"loss": torch.nn.functional.cross_entropy(logits, label), "logits": logits}


def linear():
    torch.manual_seed(0)
    return LabelModel(3, 3)


def test_labels_by_the_name_that_forward_gives_them(tmp_path):
    data = [{"x": np.ones(3, dtype=np.float32) * i, "label": i % 3} for i in range(12)]

    def collate(samples):
        return {
            "x": torch.tensor(np.stack([s["x"] for s in samples])),
            "label": torch.tensor([s["label"] for s in samples]),
        }

    both(tmp_path, data, make=linear, data_collator=collate)


# ---- what a script hands to the trainer ----


class Watcher(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(state.global_step)

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.seen.append(sorted(name for name in metrics if "accuracy" in name))


def test_callbacks_metrics_and_several_evaluation_sets(tmp_path):
    data = tokenized()
    seen = {}
    for key, names in {"stock": (Trainer, TrainingArguments), "ours": (LTSamTrainer, LTSamConfig)}.items():
        extra = {"method": "sgd"} if key == "ours" else {}
        shapes = []

        def shortened(logits, labels, shapes=shapes):
            shapes.append((tuple(logits.shape), tuple(labels.shape)))
            return logits.argmax(-1)

        def metrics(prediction):
            return {"accuracy": float((prediction.predictions == prediction.label_ids).mean())}

        watcher = Watcher()
        trainer = names[0](
            bert(),
            names[1](**settings(tmp_path / key, eval_strategy="steps", eval_steps=2, **extra)),
            train_dataset=data,
            eval_dataset={"one": data.select(range(6)), "two": data.select(range(6, 12))},
            processing_class=word_tokenizer(),
            compute_metrics=metrics,
            preprocess_logits_for_metrics=shortened,
            callbacks=[watcher],
        )
        trainer.train()
        logged = [entry for entry in trainer.state.log_history if any("accuracy" in name for name in entry)]
        seen[key] = watcher.seen, shapes, [{n: v for n, v in e.items() if "accuracy" in n} for e in logged]
    assert seen["ours"] == seen["stock"]


def test_an_optimizer_and_schedule_of_the_script(tmp_path):
    data = tokenized()
    weights = []
    for names in ((Trainer, TrainingArguments), (LTSamTrainer, LTSamConfig)):
        model = bert()
        optimizer = torch.optim.Adagrad(model.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
        extra = {} if names[0] is Trainer else {"method": "sgd"}
        trainer = names[0](
            model,
            names[1](**settings(tmp_path, **extra)),
            train_dataset=data,
            processing_class=word_tokenizer(),
            optimizers=(optimizer, schedule),
        )
        trainer.train()
        weights.append(trainer.model)
    assert_same(*weights)


def test_settings_that_a_script_does_not_state_are_transformers(tmp_path):
    given = {"output_dir": str(tmp_path), "use_cpu": True}
    ours, stock = LTSamConfig(**given).to_dict(), TrainingArguments(**given).to_dict()
    assert {name: ours[name] for name in stock} == stock
