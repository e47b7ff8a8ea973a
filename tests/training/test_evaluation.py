"""What an evaluation returns: the user's metrics and ours beside them, all outputs of the model, the best checkpoint."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.utils import logging

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.metrics.long_tail import LOWER_IS_BETTER


def samples(labels, seed):
    g = torch.Generator().manual_seed(seed)
    return [{"input": torch.randn(4, generator=g) + label, "labels": label} for label in labels]


DATA = samples([0] * 6 + [1] * 3 + [2], seed=1)
EVAL = samples([i % 3 for i in range(11)], seed=2)
UNLABELLED = [{"input": sample["input"]} for sample in EVAL]
SETTINGS = {
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "max_grad_norm": 0.0,
    "learning_rate": 0.1,
    "save_strategy": "no",
    "per_device_eval_batch_size": 4,
}


def trainer(
    folder,
    model=None,
    kind=LTSamTrainer,
    eval_dataset=None,
    compute_metrics=None,
    preprocess=None,
    callbacks=None,
    **settings,
):
    torch.manual_seed(0)
    return kind(
        nn.Linear(4, 3) if model is None else model,
        LTSamConfig(str(folder), **{**SETTINGS, **settings}),
        train_dataset=DATA,
        eval_dataset=eval_dataset,
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=preprocess,
        callbacks=callbacks,
    )


# ---- metrics ----

OF_CLASSES = {"accuracy", "overall", "balanced", "worst", "many", "medium", "few", "macro_precision", "macro_f1"}
OURS = OF_CLASSES | {"macro_auprc", "ece"}  # the groups fit the counts of DATA


def metrics_of(made, prefix="eval_", data=EVAL):
    others = ("runtime", "per_second", "preparation_time", "epoch")
    return {k.removeprefix(prefix): v for k, v in made.evaluate(data).items() if not k.endswith(others)}


def own(prediction):
    return {"rarest": 0.25}


@pytest.mark.parametrize("settings", [{}, {"eval_do_concat_batches": False}, {"batch_eval_metrics": True}], ids=str)
def test_metrics_of_ones_own_and_the_groups(settings, tmp_path):
    def by_batch(prediction, compute_result):
        return own(prediction) if compute_result else {}

    alone = metrics_of(trainer(tmp_path))
    assert set(alone) == OURS | {"loss"} and alone["accuracy"] == alone["overall"]
    given = by_batch if "batch_eval_metrics" in settings else own
    both = metrics_of(trainer(tmp_path, compute_metrics=given, **settings))
    by_default = metrics_of(trainer(tmp_path, **settings))
    for metrics in (
        both,
        by_default,
    ):  # stock counts the smaller last batch as a full one where it keeps no predictions
        assert metrics.pop("loss") == pytest.approx(alone["loss"], abs=0.2)
    assert both == {**by_default, "rarest": 0.25}
    assert by_default == pytest.approx({k: v for k, v in alone.items() if k != "loss"})


@pytest.mark.parametrize("name", ["accuracy", "eval_accuracy"])
def test_a_name_that_both_have(name, tmp_path, caplog):
    logging.enable_propagation()
    made = trainer(tmp_path, compute_metrics=lambda _: {name: 0.125, "balanced": -1.0})
    with caplog.at_level("WARNING"):
        for _ in range(2):
            metrics = metrics_of(made)
            assert metrics["accuracy"] == 0.125 and metrics["balanced"] == -1.0 and metrics["overall"] >= 0
    logging.disable_propagation()
    assert caplog.text.count("compute_metrics has accuracy, balanced of its own") <= 1  # once in a process


def test_the_same_value_under_the_same_name_is_no_clash(tmp_path, caplog):
    logging.enable_propagation()

    def accuracy(prediction):
        return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean()}

    with caplog.at_level("WARNING"):
        assert set(metrics_of(trainer(tmp_path, compute_metrics=accuracy))) == OURS | {"loss"}
    logging.disable_propagation()
    assert "of its own" not in caplog.text


def test_classes_as_predictions(tmp_path):
    """What `preprocess_logits_for_metrics` is mostly used for."""
    made = trainer(tmp_path, compute_metrics=own, preprocess=lambda logits, labels: logits.argmax(-1))
    assert set(metrics_of(made)) == OF_CLASSES | {"rarest", "loss"}


@pytest.mark.parametrize("settings", [{}, {"eval_do_concat_batches": False}, {"batch_eval_metrics": True}], ids=str)
@pytest.mark.parametrize("own_metrics", [None, lambda prediction, compute_result=True: {"rarest": 0.25}])
def test_probabilities_as_predictions(own_metrics, settings, tmp_path):
    """They are not taken for logits, whose softmax would be other probabilities."""

    def measured(preprocess):
        of = trainer(tmp_path, compute_metrics=own_metrics, preprocess=preprocess, **settings)
        return {name: value for name, value in metrics_of(of).items() if name != "loss"}

    expected = measured(None)
    assert expected["ece"] > 0.01 and measured(lambda logits, labels: logits) == expected
    for softmax in (lambda logits, labels: logits.softmax(-1), lambda logits, labels: (logits.softmax(-1), logits)):
        assert measured(softmax) == pytest.approx(expected, abs=1e-6)


def test_numbers_that_are_no_probabilities_stay_logits(tmp_path):
    """A softmax does not change where all of a row are moved."""

    def measured(preprocess):
        made = trainer(tmp_path, compute_metrics=None, preprocess=preprocess)
        return {name: value for name, value in metrics_of(made).items() if name != "loss"}

    one_of_both = measured(lambda logits, labels: logits.sigmoid() + 1)
    assert measured(lambda logits, labels: logits.sigmoid()) == pytest.approx(one_of_both, abs=1e-6)  # add up to others

    def adding_up_to_1(logits):
        apart = logits - logits.mean(1, keepdim=True)
        return 0.6 * apart / apart.abs().max() + 1 / logits.shape[1]  # from below 0 to 1

    moved = measured(lambda logits, labels: adding_up_to_1(logits) + 5)
    assert measured(lambda logits, labels: adding_up_to_1(logits)) == pytest.approx(moved, abs=1e-6)


def test_predictions_that_have_no_groups_leave_the_others_alone(tmp_path, caplog):
    logging.enable_propagation()
    made = trainer(tmp_path, compute_metrics=own, preprocess=lambda logits, labels: logits[:, :, None].sum(1))
    with caplog.at_level("WARNING"):
        assert set(metrics_of(made)) == {"rarest", "loss"}
    logging.disable_propagation()
    assert "no accuracies by group beside those of compute_metrics" in caplog.text


def test_one_that_is_set_or_taken_away_later(tmp_path):
    made = trainer(tmp_path)
    made.compute_metrics = own
    assert set(metrics_of(made)) == OURS | {"rarest", "loss"} and made.compute_metrics is own
    made.compute_metrics = None
    assert set(metrics_of(made)) == {"loss"}


# ---- the best checkpoint ----


def best(folder, metric, sets=None, **settings):
    made = trainer(
        folder,
        eval_dataset=EVAL if sets is None else dict.fromkeys(sets, EVAL),
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        **settings,
    )
    made.train()
    name = metric if metric.startswith("eval_") else f"eval_{metric}"
    return made, [entry[name] for entry in made.state.log_history if name in entry]


@pytest.mark.parametrize(
    ("metric", "sets"), [("ece", None), ("eval_ece", None), ("eval_owls_ece", ["owls", "cats"]), ("balanced", None)]
)
def test_the_best_checkpoint_by_a_metric_of_ours(metric, sets, tmp_path):
    made, seen = best(tmp_path, metric, sets, per_device_train_batch_size=2, method="sgd")
    assert len(set(seen)) > 1
    assert made.state.best_metric == (min(seen) if metric.endswith("ece") else max(seen))


@pytest.mark.parametrize("name", LOWER_IS_BETTER)
@pytest.mark.parametrize("given", [None, True])
def test_what_the_settings_say(name, given, tmp_path):
    config = LTSamConfig(str(tmp_path), metric_for_best_model=f"eval_{name}", greater_is_better=given)
    assert config.greater_is_better is bool(given)
    stock = TrainingArguments(str(tmp_path), metric_for_best_model=f"eval_{name}", greater_is_better=given)
    assert stock.greater_is_better is (name != "loss" or bool(given))


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_that_waits_for_a_better_metric_knows_which_is_better(schedule, tmp_path):
    settings = {"lr_scheduler_type": schedule, "eval_dataset": EVAL, "eval_strategy": "epoch"}
    for metric, mode in (("balanced", "max"), ("ece", "min"), ("loss", "min")):
        made = trainer(tmp_path, metric_for_best_model=metric, max_steps=1, **settings)
        made.create_optimizer_and_scheduler(1)
        assert made.lr_scheduler.mode == mode
    stated = trainer(tmp_path, metric_for_best_model="balanced", lr_scheduler_kwargs={"mode": "min"}, **settings)
    assert stated.args.lr_scheduler_kwargs["mode"] == "min"


@pytest.mark.parametrize(
    ("metric", "sets", "nearest"),
    [
        ("eval_ec", None, "ece"),
        ("man", None, "many"),
        ("ece", ["owls"], "owls_ece"),
        ("eval_cats_ece", ["owls"], "owls_ece"),
    ],
)
def test_a_metric_that_no_evaluation_gives_is_refused_before_the_training(metric, sets, nearest, tmp_path):
    with pytest.raises(ValueError, match=rf"metric_for_best_model='{metric}'\) is no metric.*{nearest}"):
        best(tmp_path, metric, sets)


def test_metrics_that_are_not_ours_may_be_the_best(tmp_path):
    class More(LTSamTrainer):
        def evaluate(self, *args, **kwargs):
            return {**super().evaluate(*args, **kwargs), "eval_mine": 1.0}

    class Adds(EarlyStoppingCallback):
        def on_evaluate(self, args, state, control, metrics, **_):
            metrics["eval_mine"] = 1.0

    for given in ({"kind": More}, {"callbacks": [Adds()]}, {"compute_metrics": lambda _: {"mine": 1.0}}):
        made, _ = best(tmp_path / next(iter(given)), "mine", **given)
        assert made.state.best_metric == 1.0


# ---- predictions ----


class Outputs(nn.Module):
    """A model whose outputs are made by a function of its logits and its input."""

    def __init__(self, outputs):
        super().__init__()
        self.head, self.outputs = nn.Linear(4, 3), outputs

    def forward(self, input):
        return self.outputs(self.head(input), input)


FORMS = {
    "tensor": lambda logits, x: logits,
    "tuple": lambda logits, x: (logits, x, (x + 1, x + 2)),
    "tuple of one": lambda logits, x: (logits,),
    "mapping": lambda logits, x: {"logits": logits, "hidden_states": (x, x + 1), "more": x + 2},
    "logits last": lambda logits, x: {"hidden_states": (x, x + 1), "logits": logits},
    "with a loss": lambda logits, x: {"loss": logits.sum(), "logits": logits, "more": x},
}
FEATURES = np.stack([sample["input"].numpy() for sample in EVAL])


def leaves(value):
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple) else [value]


@pytest.mark.parametrize(
    "data", [EVAL, UNLABELLED, EVAL[:1], UNLABELLED[:1]], ids=["labels", "none", "one", "one, none"]
)
@pytest.mark.parametrize("form", FORMS)
def test_predict_keeps_all_outputs_the_logits_first(form, data, tmp_path):
    model = Outputs(FORMS[form])
    predicted = trainer(tmp_path, model).predict(data)
    x = torch.from_numpy(FEATURES[: len(data)])
    outputs = FORMS[form](model.head(x), x)
    expected = outputs if isinstance(outputs, tuple) else (outputs,)
    if isinstance(outputs, dict):
        labelled = "labels" in data[0]
        others = [v for k, v in outputs.items() if k != "logits" and not (k == "loss" and labelled)]
        expected = (outputs["logits"], *others)
    if form == "with a loss" and "labels" not in data[0]:
        return  # as stock: a number where samples are expected
    made, wanted = leaves(predicted.predictions), leaves(expected)
    assert len(made) == len(wanted)
    for one, other in zip(made, wanted):
        np.testing.assert_allclose(one, other.detach(), atol=1e-6)
    assert (predicted.label_ids is None) == ("labels" not in data[0])
    assert ("test_balanced" in predicted.metrics) == ("labels" in data[0])


def test_outputs_that_are_to_be_left_out(tmp_path):
    for data in (EVAL, UNLABELLED):
        made = trainer(tmp_path, Outputs(FORMS["mapping"]))
        logits, more = made.predict(data, ignore_keys=["hidden_states"]).predictions
        assert logits.shape == (11, 3) and more.shape == (11, 4)


@pytest.mark.parametrize("data", [EVAL, UNLABELLED], ids=["labels", "none"])
def test_the_outputs_are_those_of_the_stock_trainer(data, tmp_path):
    """Of a model of transformers with hidden states, a loss of its own and keys that it leaves out."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, image_size=4,
                       patch_size=2, num_labels=3, output_hidden_states=True)  # fmt: skip
    model = ViTForImageClassification(config)
    samples = [
        {**{k: v for k, v in s.items() if k != "input"}, "pixel_values": s["input"].repeat(12).view(3, 4, 4)}
        for s in data
    ]
    args = {**SETTINGS, "remove_unused_columns": False}
    ours = LTSamTrainer(
        model, LTSamConfig(str(tmp_path), **args), train_dataset=[{**s, "labels": i % 3} for i, s in enumerate(samples)]
    )
    stock = Trainer(model, TrainingArguments(str(tmp_path), **args))
    made, wanted = (leaves(run.predict(samples).predictions) for run in (ours, stock))
    assert len(made) == len(wanted) == 4
    for one, other in zip(made, wanted):
        np.testing.assert_array_equal(one, other)
