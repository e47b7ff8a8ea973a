"""loss="model": the number that a model returns, or `compute_loss` makes, by methods that ask for no classes."""

import copy
import logging
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from methods import references
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from training.own_losses import (
    BATCH_SIZE,
    LEARNING_RATE,
    OWN_LOSSES,
    made,
    steps_of,
    text_classifier,
    train_by_hand,
)
from training.two_processes import METHODS as HYPERPARAMETERS
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_ltsam import METHODS, ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.methods import SAM, FocalSAM

RHO = 0.5
ROUNDED = {"language model"}  # its own loss is made of float32 logits


@pytest.fixture(autouse=True)
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def settings(folder, **changes):
    in_order = {} if "sampling" in changes else {"train_sampling_strategy": "sequential"}
    return {
        **in_order,
        "output_dir": str(folder),
        "num_train_epochs": 1,
        "per_device_train_batch_size": BATCH_SIZE,
        "per_device_eval_batch_size": 4,
        "optim": "sgd",
        "optim_args": "momentum=0.0",
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "weight_decay": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **changes,
    }


def trainer(folder, model, data, name="language model", method=SAM(rho=RHO), kind=LTSamTrainer, extras=None, **changes):
    args = LTSamConfig(**settings(folder, **{"loss": "model", **changes}))
    collator = OWN_LOSSES[name].collator if name in OWN_LOSSES else None
    return kind(model, args, collator, data, data, method=method, **(extras or {}))


def stock_trainer(folder, model, data, name, extras=None, **changes):
    args = TrainingArguments(**settings(folder, remove_unused_columns=False, **changes))
    return Trainer(model, args, OWN_LOSSES[name].collator, data, data, **(extras or {}))


def assert_same_weights(a, b, atol=0.0):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def flat(predictions):
    if isinstance(predictions, dict):
        predictions = list(predictions.values())
    nested = isinstance(predictions, list | tuple)
    return [array for part in predictions for array in flat(part)] if nested else [predictions]


def assert_moved(model, start):
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), start.parameters()))


@pytest.mark.parametrize("name", OWN_LOSSES)
def test_without_a_perturbation_it_is_the_stock_trainer(name, tmp_path):
    """To the last bit, in weights and logs; so are the losses and predictions of an evaluation."""
    changes = {"gradient_accumulation_steps": 2}  # and a last step of one micro-batch
    model, data = made(name)
    stock = stock_trainer(tmp_path, copy.deepcopy(model), data, name, **changes)
    ours = trainer(tmp_path, copy.deepcopy(model), data, name, "sgd", **changes)
    stock.train(), ours.train()
    assert_same_weights(stock.model, ours.model)
    assert_moved(ours.model, model)
    for a, b in zip(stock.state.log_history[:-1], ours.state.log_history[:-1], strict=True):
        assert {k: b[k] for k in ("loss", "grad_norm", "epoch")} == {k: a[k] for k in ("loss", "grad_norm", "epoch")}
    assert ours.evaluate()["eval_loss"] == stock.evaluate()["eval_loss"]
    a, b = (flat(made.predict(data).predictions) for made in (stock, ours))
    assert len(a) == len(b) and all((x == y).all() for x, y in zip(a, b))


@pytest.mark.parametrize("accumulation, scope", [(2, "micro"), (3, "step")])  # the last step has fewer micro-batches
@pytest.mark.parametrize("name", OWN_LOSSES)
def test_sam_by_hand(name, accumulation, scope, tmp_path):
    model, data = made(name)
    expected = train_by_hand(model, steps_of(name, data, accumulation), OWN_LOSSES[name].loss, RHO, scope)
    ours = trainer(
        tmp_path, copy.deepcopy(model), data, name, gradient_accumulation_steps=accumulation, ascent_scope=scope
    )
    ours.train()
    for (of, p), q in zip(expected.named_parameters(), ours.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=2e-7 if name in ROUNDED else 1e-12, msg=f"{of} differs")
    assert_moved(ours.model, model)


def test_lora_by_hand_and_resumed(tmp_path):
    def run():
        model, data = made("language model")
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
        return trainer(tmp_path, adapted, data, save_strategy="steps", save_steps=2)

    whole, resumed = run(), run()
    start = copy.deepcopy(whole.model)
    whole.train()
    own = OWN_LOSSES["language model"]
    expected = train_by_hand(start, steps_of("language model", whole.train_dataset, 1), own.loss, RHO)
    assert_same_weights(expected, whole.model, atol=2e-7)
    assert_moved(whole.model, start)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same_weights(whole.model, resumed.model)


# ---- methods ----


class Problem(SimpleNamespace):
    """What references read of a problem, with one sample, which stands for a micro-batch."""

    prior = property(lambda self: pytest.fail("a reference asks for classes"))


class Gradients(TrainerCallback):
    """What the optimizer was given in each step, and the weights before it."""

    def __init__(self):
        self.found, self.models = [], []

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        self.found.append([p.grad.clone() for p in model.parameters()])
        self.models.append(copy.deepcopy(model))


def own_gradient(problem, weight_of, offset=None):
    """G of the references, of the loss of one micro-batch."""
    assert weight_of(0) == 1
    model = copy.deepcopy(problem.model)
    model.zero_grad()
    with torch.no_grad():
        for p, e in zip(model.parameters(), offset or ()):
            p.add_(e)
    (problem.loss(model) * 1.0).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


FREE = [name for name, kind in METHODS.items() if not kind.needs_classes]


@pytest.mark.parametrize("name", FREE)
def test_every_method_that_asks_for_no_classes_equals_its_reference(name, tmp_path, monkeypatch):
    model, data = made("regression")
    monkeypatch.setattr(references, "G", own_gradient)
    monkeypatch.setattr(references, "mean_loss", lambda problem, offset: float(loss_at(problem, offset)))
    gradients = Gradients()
    hyperparameters = HYPERPARAMETERS[name]
    ours = trainer(tmp_path, copy.deepcopy(model), data, "regression", name, method_args=hyperparameters, max_steps=3)
    ours.add_callback(gradients)
    ours.train()
    memory: dict = {}
    values = {f.name: getattr(ours.method, f.name) for f in fields(ours.method) if not f.kw_only}
    for step, ((batch,), found, at) in enumerate(
        zip(steps_of("regression", data, 1), gradients.found, gradients.models, strict=False)
    ):
        problem = Problem(
            model=at,
            loss=lambda m, batch=batch: OWN_LOSSES["regression"].loss(m.train(), batch, [batch]),
            x=torch.zeros(1),
            y=torch.zeros(1),
            counts=[1],
            progress=step / 3,
            step=step,
            memory=memory,
            generator=lambda step=step: generator_of(step),
        )
        problem.model.train()
        monkeypatch.setattr(references, "replace", lambda problem, **_: problem)
        expected = getattr(references, name)(problem, **values)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    assert len(gradients.found) == 3


def loss_at(problem, offset):
    model = copy.deepcopy(problem.model)
    with torch.no_grad():
        for p, e in zip(model.parameters(), offset):
            p.add_(e)
        return problem.loss(model)


def generator_of(step):
    from hf_ltsam.methods.context import StepContext

    like = torch.empty(())
    return StepContext(torch.zeros(1), ClassStatistics([1, 1]), 0.0, like, step=step, seed=42).generator()


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(FREE)))
def test_a_method_of_classes_is_refused_by_name(name, tmp_path):
    model, data = made("regression")
    with pytest.raises(ValueError, match=rf"{METHODS[name].__name__} .*one number.*\(.*sam.*\).*cross_entropy"):
        trainer(tmp_path, model, data, "regression", name)


def test_a_method_of_ones_own_that_asks_for_classes(tmp_path):
    class Mine(SAM):
        def gradient(self, loss, step):
            return loss.gradient(at=step.tail.sum() * loss.gradient())

    model, data = made("regression")
    with pytest.raises(ValueError, match=r"asks for the statistics.*knows no classes.*cross_entropy"):
        trainer(tmp_path, model, data, "regression", Mine()).train()


@pytest.mark.parametrize("name", ["detector", "segmentation"])
def test_the_output_layer_must_be_known_to_be_perturbed(name, tmp_path):
    model, data = made(name)
    with pytest.raises(ValueError, match=r"classifier of .* cannot be told"):
        trainer(tmp_path, model, data, name, "model_perturbation")


def test_the_output_layer_of_a_language_model(tmp_path):
    model, data = made("language model")
    ours = trainer(tmp_path, model, data, method="model_perturbation", method_args={"rho": 0.25}, max_steps=1)
    ours.train()
    assert ours.state.log_history[0]["sam_eps_norm"] == pytest.approx(0.25)


# ---- the loss of a Trainer of one's own ----


class Doubled(LTSamTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")  # from a copy, or the second pass would have none
        outputs = model(**inputs)
        loss = 2 * F.mse_loss(outputs.logits[:, 0], labels)
        return (loss, outputs) if return_outputs else loss


def doubled(outputs, labels, num_items_in_batch=None):
    return 2 * F.mse_loss(outputs.logits[:, 0], labels, reduction="sum") / num_items_in_batch


@pytest.mark.parametrize(
    "kind, extras", [(Doubled, {}), (LTSamTrainer, {"compute_loss_func": doubled})], ids=["method", "function"]
)
def test_a_loss_of_ones_own(kind, extras, tmp_path):
    """One that divides by the number of items counts as it does in the stock Trainer: so does one that takes a mean."""
    model, data = made("regression")

    def loss(m, batch, step):
        share = 1 if kind is Doubled else len(step)  # heads of classifiers: see `OwnLoss`
        return 2 * OWN_LOSSES["regression"].loss(m, batch, step) / share

    steps = steps_of("regression", data, 2)
    expected = train_by_hand(model, steps, loss, RHO)
    ours = trainer(tmp_path, model, data, "regression", kind=kind, extras=extras, gradient_accumulation_steps=2)
    ours.train()
    assert_same_weights(expected, ours.model, atol=1e-12)
    errors = [(ours.model(d["input_ids"][None]).logits[0, 0] - d["labels"]).square() for d in data]
    if kind is Doubled:
        assert ours.evaluate()["eval_loss"] == pytest.approx(2 * float(sum(errors).detach()) / len(data))


def test_whether_a_loss_is_divided_by_micro_batches_may_be_stated(tmp_path):
    class Means(LTSamTrainer):
        loss_is_scaled_for_ga = False

    model, data = made("regression")
    own = OWN_LOSSES["regression"].loss
    expected = train_by_hand(model, steps_of("regression", data, 2), lambda m, b, s: own(m, b, s) / len(s), RHO)
    ours = trainer(tmp_path, model, data, "regression", kind=Means, gradient_accumulation_steps=2)
    ours.train()
    assert_same_weights(expected, ours.model, atol=1e-12)


def test_a_loss_of_several_numbers_is_refused(tmp_path):
    class PerSample(LTSamTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return (model(inputs["input_ids"]).logits[:, 0] - inputs["labels"]).square()

    with pytest.raises(TypeError, match=r"one number for a micro-batch, got shape \(2,\): take its mean"):
        trainer(tmp_path, *made("regression"), "regression", kind=PerSample).train()


@pytest.mark.parametrize(
    "changes",
    [{"label_smoothing_factor": 0.2}, {"neftune_noise_alpha": 5.0}, {"bf16": True, "gradient_accumulation_steps": 2}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_belongs_to_the_models_own_loss_goes_on(changes, tmp_path):
    """As stock without a perturbation; with one of length zero too: the second pass draws the noise of the first."""
    torch.set_default_dtype(torch.float32)
    model, data = made("language model")
    stock = stock_trainer(tmp_path, copy.deepcopy(model), data, "language model", **changes)
    stock.train()
    for method in ("sgd", SAM(rho=0.0)):
        ours = trainer(tmp_path, copy.deepcopy(model), data, method=method, **changes)
        ours.train()
        assert_same_weights(stock.model, ours.model)


def test_autocast_belongs_to_each_pass(tmp_path):
    """Around both, the second pass would meet the weights that the first has cast before they were moved."""

    class Autocast(LTSamTrainer):
        def compute_loss_context_manager(self):
            return torch.autocast("cpu", torch.bfloat16)

    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    model = text_classifier("regression", 1)
    data = [{"input_ids": torch.randint(0, 11, (5,)), "labels": torch.randn(())} for _ in range(4)]

    def loss(m, batch, step):
        with torch.autocast("cpu", torch.bfloat16):
            return F.mse_loss(m(input_ids=batch["input_ids"]).logits.squeeze(), batch["labels"].squeeze())

    expected = train_by_hand(model, steps_of("regression", data, 1), loss, 5.0)
    ours = trainer(tmp_path, model, data, "regression", SAM(rho=5.0), Autocast)
    ours.train()
    assert_same_weights(expected, ours.model, atol=1e-6)


# ---- long runs ----


@pytest.mark.parametrize("method", ["sam", "msam", "looksam"])
def test_a_resumed_run_ends_like_an_uninterrupted_one(method, tmp_path):
    def run(**changes):
        torch.manual_seed(0)
        model = text_classifier("regression", 1)
        model.config.hidden_dropout_prob = 0.3
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.3
        data = made("regression")[1]
        changes = {"train_sampling_strategy": "random", "save_strategy": "steps", "save_steps": 2, **changes}
        return trainer(tmp_path, model, data, "regression", method, **changes)

    whole, resumed = run(), run()
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same_weights(whole.model, resumed.model)
    with pytest.raises(ValueError, match=r"cannot be resumed.*method"):
        trainer(tmp_path, *made("regression"), "regression", "asam").train(str(tmp_path / "checkpoint-2"))


def test_the_logs_tell_of_the_perturbation_and_not_of_classes(tmp_path):
    ours = trainer(tmp_path, *made("language model"), gradient_accumulation_steps=2)
    ours.train()
    logs = ours.state.log_history[0]
    assert logs["sam_eps_norm"] == pytest.approx(RHO) and logs["sam_step_share"] == 1 and logs["sam_sharpness_gap"] > 0
    assert not [name for name in logs if name.startswith(("loss_", "grad_norm_", "sam_sharpness_gap_"))]
    assert ours.class_statistics is None and ours.compute_metrics is None
    assert set(ours.evaluate()) >= {"eval_loss"} and "eval_overall" not in ours.evaluate()


def test_a_skipped_step_names_its_samples(tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    model, data = made("regression")
    data[2]["labels"] = torch.tensor(float("nan"))
    with caplog.at_level("WARNING"):
        trainer(tmp_path, model, data, "regression").train()
    assert "loss nan for samples 2, 3" in caplog.text
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_search_over_rho(tmp_path):
    pytest.importorskip("optuna")
    data = made("regression")[1]
    args = LTSamConfig(**settings(tmp_path, loss="model", max_steps=1))
    ours = LTSamTrainer(None, args, None, data, data, model_init=lambda: made("regression")[0])
    best = ours.hyperparameter_search(lambda trial: {"rho": trial.suggest_float("rho", 0.1, 0.2)}, n_trials=1)
    assert 0.1 <= best.hyperparameters["rho"] <= 0.2 and best.objective > 0


# ---- refusals ----


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"reweighting": "inverse"}, "reweighting='inverse'.*loss='cross_entropy'"),
        ({"sampling": "class_balanced"}, "sampling='class_balanced'.*loss='cross_entropy'"),
        ({"tail_threshold": 20}, "tail_threshold=20.*loss='cross_entropy'"),
        ({"mixup_alpha": 0.2}, "mixup_alpha=0.2.*loss='cross_entropy'"),
        ({"loss_start": 0.5}, "loss_start=0.5.*loss='cross_entropy'"),
        ({"ascent_size": 1}, "ascent_size=1.*per_device_train_batch_size"),
        ({"loss_args": {"tau": 1}}, "loss 'model' has no argument 'tau'"),
        ({"extras": {"class_statistics": ClassStatistics([4, 2])}}, "class_statistics do not go with loss='model'"),
        ({"method": FocalSAM()}, "FocalSAM weights samples by their classes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_of_classes_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, *made("regression"), "regression", **changes)


def test_the_loss_may_be_passed_by_its_name(tmp_path):
    model, data = made("regression")
    ours = LTSamTrainer(model, LTSamConfig(**settings(tmp_path)), train_dataset=data, loss="model", method="sam")
    ours.train()
    assert ours.training_objective.identity()["loss"] == {"name": "model", "args": {}}


# ---- losses that do more than return a number ----


class Cached(LTSamTrainer):
    """A loss as GradCache makes it: its gradient comes by a backward pass inside of the backward pass."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        with torch.no_grad():
            z = model(inputs["input_ids"]).logits[:, 0]
        leaf = z.requires_grad_()
        loss = F.mse_loss(leaf, inputs["labels"])
        (signal,) = torch.autograd.grad(loss, leaf)
        number = loss.detach().requires_grad_()
        number.register_hook(lambda g: self.second_forward(model, inputs, g * signal))
        return number

    @torch.enable_grad()
    def second_forward(self, model, inputs, signal):
        (model(inputs["input_ids"]).logits[:, 0] * signal).sum().backward()


class WithHead(LTSamTrainer):
    """A loss with weights of its own, which only the optimizer knows: the stock loop clears the gradients of the model."""

    scale = None

    def training_step(self, *args, **kwargs):
        self.optimizer.zero_grad()
        return super().training_step(*args, **kwargs)

    def create_optimizer(self, model=None):
        torch.manual_seed(3)
        self.scale = torch.nn.Parameter(torch.ones(1))
        parameters = [*self.model.parameters(), self.scale]
        self.optimizer = torch.optim.SGD(parameters, lr=LEARNING_RATE)
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return F.mse_loss(self.scale * model(inputs["input_ids"]).logits[:, 0], inputs["labels"])


def test_a_loss_with_backward_passes_of_its_own(tmp_path):
    model, data = made("regression")
    steps = steps_of("regression", data, 2)
    expected = train_by_hand(model, steps, OWN_LOSSES["regression"].loss, RHO)
    ours = trainer(tmp_path, model, data, "regression", kind=Cached, gradient_accumulation_steps=2)
    ours.train()
    assert_same_weights(expected, ours.model, atol=1e-12)


def test_a_loss_with_weights_outside_the_model(tmp_path, caplog):
    """They are perturbed and trained with those of the model."""
    logging.getLogger("transformers").propagate = True
    model, data = made("regression")
    whole = torch.nn.ModuleDict({"model": copy.deepcopy(model)})
    whole.scale = torch.nn.Parameter(torch.ones(1))

    def loss(m, batch, step):
        return F.mse_loss(m.scale * m["model"](batch["input_ids"]).logits[:, 0], batch["labels"])

    expected = train_by_hand(whole, steps_of("regression", data, 1), loss, RHO)
    ours = trainer(tmp_path, model, data, "regression", kind=WithHead)
    with caplog.at_level("WARNING"):
        ours.train()
    assert_same_weights(expected["model"], ours.model, atol=1e-12)
    torch.testing.assert_close(ours.scale, expected.scale, rtol=0, atol=1e-12)
    assert "not weights of" not in caplog.text


def test_gradients_of_weights_that_the_optimizer_does_not_hold_are_dropped(tmp_path):
    model, data = made("regression")
    held = list(model.classifier.parameters())
    optimizer = torch.optim.SGD(held, lr=LEARNING_RATE)
    ours = trainer(tmp_path, model, data, "regression", extras={"optimizers": (optimizer, None)})
    gradients = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **_):
            gradients.append([p for p in model.parameters() if p.grad is not None])

    ours.add_callback(Watch())
    ours.train()
    assert all(len(of_step) == len(held) for of_step in gradients)


def test_reentrant_checkpointing(tmp_path):
    model, data = made("language model")
    changes = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    plain = trainer(tmp_path, copy.deepcopy(model), data)
    ours = trainer(tmp_path, copy.deepcopy(model), data, **changes)
    plain.train(), ours.train()
    assert_same_weights(plain.model, ours.model, atol=1e-10)
