"""Every public method and argument of the stock Trainer: called or read as there, or refused by name.

Where a table is incomplete, transformers has a new name: look at what ours does with it before it is added here.
"""

import inspect
import re

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, default_collate
from training.test_refusals import DATA, SETTINGS
from training.test_refusals import trainer as small_trainer
from transformers import Trainer, TrainingArguments

from hf_ltsam import LTSamConfig, LTSamTrainer, SamTrainerMixin
from hf_ltsam.training.durable_trainer import DurableTrainer
from hf_ltsam.training.results.publishing import HubTrainer
from hf_ltsam.training.second_stage import SecondStageTrainer

# ---- methods ----

REFUSED = {"compute_loss", "create_optimizer_and_scheduler"}  # an override would not be called
# by training, evaluation, prediction and saving; an override is called
CALLED = {
    "add_callback", "autocast_smart_context_manager", "call_model_init", "compute_loss_context_manager",
    "create_accelerator_and_postprocess", "create_optimizer", "create_scheduler", "evaluate", "evaluation_loop",
    "floating_point_ops", "get_batch_samples", "get_cp_size", "get_decay_parameter_names", "get_eval_dataloader",
    "get_optimizer_cls_and_kwargs", "get_sp_size", "get_test_dataloader", "get_total_train_batch_size", "get_tp_size",
    "get_train_dataloader", "is_local_process_zero", "is_world_process_zero", "log", "num_examples", "predict",
    "prediction_step", "save_model", "set_initial_training_values", "store_flos", "train", "training_step",
}  # fmt: skip
HUB = {"init_hf_repo", "push_to_hub", "create_model_card"}  # tests/runs/hub/test_publishing_trainer.py
# called by scripts alone; the search makes trials, which are refused
FOR_SCRIPTS = {
    "end", "get_learning_rates", "get_num_trainable_parameters", "get_optimizer_group", "hyperparameter_search", "log_metrics",
    "metrics_format", "pop_callback", "remove_callback", "save_metrics", "save_state",
}  # fmt: skip


def public_methods(kind):
    return {name for name, value in inspect.getmembers(kind) if callable(value) and not name.startswith("_")}


def test_every_public_method_is_classified():
    assert public_methods(Trainer) - (REFUSED | CALLED | HUB | FOR_SCRIPTS) == set()


class WithLoss(nn.Module):
    """What the stock Trainer trains, and ours too."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, input, labels=None):
        logits = self.head(input)
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


def watched(kind, names):
    """A subclass that overrides all these methods, and the names of those that were called."""
    called = set()

    def override(name):
        static = isinstance(inspect.getattr_static(kind, name), staticmethod)

        def method(self, *args, **kwargs):
            called.add(name)
            return getattr(super(subclass, self), name)(*args, **kwargs)

        def function(*args, **kwargs):
            called.add(name)
            return getattr(kind, name)(*args, **kwargs)

        return staticmethod(function) if static else method

    subclass = type("Subclass", (kind,), {name: override(name) for name in names})
    return subclass, called


def called_in_a_run(kind, settings, folder):
    names = public_methods(Trainer) - REFUSED if issubclass(kind, LTSamTrainer) else public_methods(Trainer)
    subclass, called = watched(kind, names)
    args = settings(
        str(folder), max_steps=2, use_cpu=True, eval_strategy="steps", eval_steps=1, save_steps=1, logging_steps=1,
        report_to="none", disable_tqdm=True, optim="sgd", optim_args="momentum=0.9", max_grad_norm=0.0, learning_rate=0.1, per_device_train_batch_size=2, gradient_accumulation_steps=2,
    )  # fmt: skip
    run = subclass(model_init=WithLoss, args=args, train_dataset=DATA, eval_dataset=DATA, compute_metrics=lambda _: {})
    run.train()
    run.predict([{"input": sample["input"]} for sample in DATA])
    run.save_model()
    return called


def test_a_run_calls_the_hooks_that_the_stock_trainer_calls(tmp_path):
    stock = called_in_a_run(Trainer, TrainingArguments, tmp_path / "stock")
    ours = called_in_a_run(LTSamTrainer, LTSamConfig, tmp_path / "ours")
    assert ours & CALLED == {name for name in CALLED if hasattr(Trainer, name)}
    assert stock - REFUSED <= ours


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("where", ["subclass", "mixin", "object"])
def test_a_hook_that_would_be_passed_over_is_refused(name, where, tmp_path):
    def own(*_, **__):
        raise AssertionError("never called")

    kind, owner = LTSamTrainer, "The LTSamTrainer object"
    if where == "subclass":
        kind, owner = type("Weighted", (LTSamTrainer,), {name: own}), "Weighted"
    elif where == "mixin":
        kind, owner = type("Mine", (type("Mixin", (), {name: own}), LTSamTrainer), {}), "Mixin"
    args = LTSamConfig(
        str(tmp_path),
        use_cpu=True,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=0.1,
        report_to="none",
    )
    with pytest.raises(
        ValueError, match=rf"{owner} overrides {name}, which LTSamTrainer does not call.*(loss=|create_optimizer)"
    ):
        made = kind(WithLoss(), args, train_dataset=DATA)
        assert where == "object"
        setattr(made, name, own)
        made.train()


ATTRIBUTES = [
    ("compute_loss_func", print, "loss="),
    ("label_smoother", print, "label_smoothing_factor"),
    ("loss_is_scaled_for_ga", True, "mean"),
]


@pytest.mark.parametrize(("name", "value", "way_out"), ATTRIBUTES)
def test_an_attribute_that_would_not_be_read_is_refused(name, value, way_out, tmp_path):
    made = small_trainer(tmp_path)
    setattr(made, name, value)
    with pytest.raises(ValueError, match=f"{name} is refused.*{way_out}"):
        made.train()


def test_a_training_step_of_ones_own_is_refused_where_the_method_never_runs(tmp_path):
    class Plain(LTSamTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            loss = nn.functional.cross_entropy(model(inputs["input"])["logits"], inputs["labels"])
            self.accelerator.backward(loss)
            return loss.detach()

    class Skipping(LTSamTrainer):  # which leaves out whole steps, and calls ours in the others
        def training_step(self, model, inputs, num_items_in_batch=None):
            if self.state.global_step == 0:
                return torch.zeros(())
            return super().training_step(model, inputs, num_items_in_batch)

    args = LTSamConfig(
        str(tmp_path),
        use_cpu=True,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=0.1,
        report_to="none",
        max_steps=2,
        save_strategy="no",
    )
    made = Plain(WithLoss(), args, train_dataset=DATA)
    before = made.model.head.weight.clone()
    with pytest.raises(ValueError, match=r"Plain overrides training_step without calling super"):
        made.train()
    assert torch.equal(made.model.head.weight, before)
    Skipping(WithLoss(), args, train_dataset=DATA).train()


@pytest.mark.parametrize("setting", [{"sampling": "class_balanced"}, {"on_bad_image": "skip"}], ids=str)
def test_settings_of_loaders_that_are_not_used(setting, tmp_path):
    class Mine(LTSamTrainer):
        calls_super = False

        def get_train_dataloader(self):
            return (
                super().get_train_dataloader() if self.calls_super else DataLoader(DATA, 2, collate_fn=default_collate)
            )

    args = {
        "use_cpu": True,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.1,
        "report_to": "none",
        "max_steps": 1,
        "save_strategy": "no",
    }
    with pytest.raises(ValueError, match=rf"Mine overrides get_train_dataloader.*{next(iter(setting))}=.*no effect"):
        Mine(nn.Linear(4, 3), LTSamConfig(str(tmp_path), **args, **setting), train_dataset=DATA).train()
    made = Mine(nn.Linear(4, 3), LTSamConfig(str(tmp_path), **args, **setting), train_dataset=DATA)
    made.calls_super = True
    made.train()
    Mine(nn.Linear(4, 3), LTSamConfig(str(tmp_path), **args), train_dataset=DATA).train()


def test_a_context_that_is_replaced_on_the_object_holds(tmp_path):
    made, entered = small_trainer(tmp_path), []
    stock = made.compute_loss_context_manager
    made.compute_loss_context_manager = lambda: entered.append(1) or stock()
    made.train()
    assert entered


def test_settings_that_change_after_the_trainer_is_made_are_looked_at(tmp_path):
    made = small_trainer(tmp_path)
    made.args.auto_find_batch_size = True
    with pytest.raises(ValueError, match="auto_find_batch_size"):
        made.train()


# ---- arguments ----

# field of TrainingArguments that is refused where it is set -> as in SETTINGS of test_refusals, or the test that has it
REFUSED_FIELDS = {
    "use_liger_kernel", "auto_find_batch_size",  # without ascent_size
    "deepspeed",  # test_deepspeed_is_refused_from_the_settings_alone
    "parallelism_config",  # test_what_only_the_launcher_says
}  # fmt: skip
NO_EFFECT = {
    "average_tokens_across_devices": "the loss is a mean over samples, over all processes",
    "liger_kernel_config": "of use_liger_kernel, which is refused",
    "ddp_find_unused_parameters": "passes run on the bare module, whose gradients are averaged once: DDP's reducer rests",
    "ddp_bucket_cap_mb": "the same",
    "ddp_static_graph": "the same",
    "ddp_broadcast_buffers": "the same: buffers are those of the first process after every step",
    "local_rank": "of the launcher",
    "do_train": "of scripts", "do_eval": "of scripts", "do_predict": "of scripts", "resume_from_checkpoint": "of scripts",
}  # fmt: skip
OF_THE_TRAINER = {
    "model", "args", "data_collator", "train_dataset", "eval_dataset", "processing_class", "model_init", "compute_metrics",
    "callbacks", "optimizers", "optimizer_cls_and_kwargs", "preprocess_logits_for_metrics",
    "compute_loss_func",  # refused
}  # fmt: skip


def test_every_argument_is_classified():  # those of TrainingArguments: test_stock_settings
    given = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert given - OF_THE_TRAINER == set()
    assert given <= set(inspect.signature(LTSamTrainer.__init__).parameters)
    in_the_table = {name for settings, _ in SETTINGS for name in settings}
    assert REFUSED_FIELDS - {"deepspeed", "parallelism_config"} <= in_the_table


# stock method that ours replace without calling it -> what it reads, and where ours reads it or why not
READ_IN_REPLACED = {
    "compute_loss": {
        "average_tokens_across_devices": "NO_EFFECT",
        "n_gpu": "above 1 refused",
        "accelerator": "of Deepspeed's sequence parallelism, and label smoothing: refused",
        "compute_loss_func": "refused",
        "get_tp_size": "parallelism_config, refused",
        "label_smoother": "refused",
        "model": "Deepspeed's",
        "model_accepts_loss_kwargs": "the model never makes the loss",
    },
}


@pytest.mark.parametrize("name", READ_IN_REPLACED)
def test_what_a_replaced_method_reads_is_read_by_ours_or_refused(name):
    source = inspect.getsource(getattr(Trainer, name))
    read = set(re.findall(r"self\.args\.(\w+)", source)) | set(re.findall(r"self\.(\w+)", source)) - {"args"}
    assert read - set(READ_IN_REPLACED[name]) == set()


def test_the_replaced_methods_of_a_step_are_these():
    ours = [cls for cls in SecondStageTrainer.__mro__ if cls.__module__.startswith("hf_ltsam")]
    names = {n for cls in ours for n in vars(cls) if callable(getattr(Trainer, n, None)) and not n.startswith("__")}
    without_super = {
        name
        for name in names
        if not any(f"super().{name}(" in inspect.getsource(vars(cls)[name]) for cls in ours if name in vars(cls))
    }
    # ... `compute_loss`, which is stock's with loss="model"; and saving and publishing, which are tested by what they write
    replaced = without_super | {"compute_loss"}
    assert replaced == {*READ_IN_REPLACED, *HUB, "_save_checkpoint", "_push_from_checkpoint"}


def test_the_cache_is_emptied_as_often_as_asked(tmp_path, monkeypatch):
    import transformers.trainer

    emptied = []
    monkeypatch.setattr(transformers.trainer, "clear_device_cache", lambda: emptied.append(1))
    made = small_trainer(tmp_path, max_steps=4, torch_empty_cache_steps=2)
    made.train()
    assert len(emptied) == 2
    small_trainer(tmp_path, max_steps=4).train()
    assert len(emptied) == 2


def test_settings_of_a_schedule_that_is_not_used(tmp_path):
    with pytest.raises(ValueError, match=r"lr_scheduler_kwargs.*lr_milestones"):
        LTSamConfig(str(tmp_path), lr_milestones=[0.5], lr_scheduler_kwargs={"num_cycles": 0.3})


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "comet_ml", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named_at_once(name, tmp_path, monkeypatch):
    import hf_ltsam.training.config as config

    monkeypatch.setattr(config, "get_available_reporting_integrations", lambda: ["trackio"])
    package = name.replace("_", "-")
    with pytest.raises(ValueError, match=rf"report_to='{name}'.*pip install {package}`.*trackio or none"):
        LTSamConfig(str(tmp_path), report_to=["trackio", name])
    with pytest.raises(ValueError, match=r"report_to='tensorbord'\) does not exist.*tensorboard"):
        LTSamConfig(str(tmp_path), report_to="tensorbord")
    assert LTSamConfig(str(tmp_path), report_to=["trackio"]).report_to == ["trackio"]


# ---- signatures ----


@pytest.mark.parametrize("kind", [DurableTrainer, HubTrainer, LTSamTrainer])
@pytest.mark.parametrize("name", sorted({*public_methods(Trainer), "__init__"}))
def test_no_signature_is_narrower_than_stock(kind, name):
    stock, ours = (list(inspect.signature(getattr(k, name)).parameters.values()) for k in (Trainer, kind))
    expected = [p for p in stock if p.kind is not p.VAR_KEYWORD]
    if getattr(kind, name) is getattr(Trainer, name):
        return
    if name == "push_to_hub":  # whose others are those of create_model_card
        card = list(inspect.signature(Trainer.create_model_card).parameters.values())[1:]
        assert {p.name for p in card} <= {p.name for p in ours}
    positional = [p.name for p in ours if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert positional[: len(expected)] == [p.name for p in expected]
    defaults = {p.name: p.default for p in ours}
    assert all(defaults[p.name] == p.default for p in expected)
    assert all(
        p.default is not p.empty for p in ours if p.name not in {p.name for p in expected} and p.kind < p.VAR_KEYWORD
    )


# ---- optimizers ----


class Sam(torch.optim.Optimizer):
    """The usual interface of SAM packages."""

    def __init__(self, params, base=torch.optim.SGD, rho=0.05, lr=0.1):
        super().__init__(params, {"rho": rho, "lr": lr})
        self.base_optimizer = base(self.param_groups, lr=lr)

    def first_step(self, zero_grad=False): ...
    def second_step(self, zero_grad=False): ...
    def step(self, closure=None):
        return closure()


class Asserts(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "a closure, please"


class Raises(torch.optim.SGD):
    def step(self, closure=None):
        if closure is None:
            raise RuntimeError("a closure, please")


class Asks(torch.optim.SGD):
    def step(self, closure): ...


class Lookahead(torch.optim.Optimizer):
    """A wrapper that steps another optimizer."""

    def __init__(self, params, lr=1.0):
        self.optimizer = torch.optim.LBFGS(params, lr=lr)
        super().__init__(self.optimizer.param_groups, {})

    def step(self, closure=None):
        self.optimizer.step(closure)


class Lomo(torch.optim.SGD):
    def fused_backward(self, loss, lr): ...


UNFIT = [
    (Sam, "closure.*method='sam'"),
    (Asserts, "closure"),
    (Raises, "closure"),
    (Asks, "closure"),
    (torch.optim.LBFGS, "closure"),
    (Lomo, "inside the backward pass"),
]


WAYS = [
    *((*case, "object") for case in UNFIT),
    *((*case, way) for case in UNFIT[:1] for way in ("class", "override", "afterwards")),
    (torch.optim.LBFGS, "closure", "override"),
]


@pytest.mark.parametrize(("kind", "reason", "way"), WAYS, ids=[f"{kind.__name__}-{way}" for kind, _, way in WAYS])
def test_an_optimizer_that_a_trainer_cannot_step(kind, reason, way, tmp_path):
    class Overriding(LTSamTrainer):
        def create_optimizer(self, model=None):
            self.optimizer = kind(self.model.parameters())
            return self.optimizer

    model, cls, given = WithLoss(), LTSamTrainer, {}
    if way == "object":
        given = {"optimizers": (kind(model.parameters()), None)}
    elif way == "class":
        given = {"optimizer_cls_and_kwargs": (kind, {"lr": 0.1})}
    elif way == "override":
        cls = Overriding
    args = LTSamConfig(
        str(tmp_path),
        use_cpu=True,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=0.1,
        report_to="none",
        max_steps=1,
        save_strategy="no",
    )
    before = model.head.weight.clone()
    with pytest.raises(ValueError, match=f"{kind.__name__} does not go with LTSamTrainer.*{reason}"):
        made = cls(model, args, train_dataset=DATA, **given)
        assert way in ("override", "afterwards")
        if way == "afterwards":
            made.optimizer = kind(model.parameters())
        made.train()
    assert torch.equal(model.head.weight, before)


def test_a_wrapper_is_as_good_as_what_it_steps(tmp_path):
    model = WithLoss()
    args = LTSamConfig(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match="LBFGS does not go with LTSamTrainer"):
        LTSamTrainer(model, args, train_dataset=DATA, optimizers=(Lookahead(list(model.parameters())), None))


def test_the_optimizers_of_torch_are_in_order():
    from hf_ltsam.training.refusals.hooks import check_optimizer

    kinds = [k for k in vars(torch.optim).values() if isinstance(k, type) and issubclass(k, torch.optim.Optimizer)]
    assert len(kinds) > 10
    for kind in kinds:
        if kind is not torch.optim.LBFGS:
            check_optimizer(kind)
    check_optimizer(None)


# ---- evaluation ----


def test_the_loss_of_a_prediction_step_of_ones_own_stays(tmp_path):
    class Weighted(LTSamTrainer):
        def prediction_step(self, *args, **kwargs):
            _, logits, labels = super().prediction_step(*args, **kwargs)
            return torch.tensor(7.0), logits, labels

    args = LTSamConfig(
        str(tmp_path),
        use_cpu=True,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=0.1,
        report_to="none",
    )
    assert Weighted(WithLoss(), args, train_dataset=DATA).evaluate(DATA)["eval_loss"] == 7.0


class Tasks:
    """Sets what a pass reads for each micro-batch."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.task = len(inputs["labels"])
        return super().training_step(model, inputs, num_items_in_batch)


class OfTasks(Tasks, LTSamTrainer):
    pass


class StockOfTasks(Tasks, Trainer):
    pass


class MixedIn(SamTrainerMixin, StockOfTasks):
    pass


class Plain(SamTrainerMixin, Trainer):
    pass


def step_of_the_object(made):
    made.training_step = made.training_step
    return made


@pytest.mark.parametrize(
    ("kind", "scope", "accumulation", "owner"),
    [
        (OfTasks, "step", 2, "Tasks"),
        (MixedIn, "step", 2, "Tasks"),
        ("object", "step", 2, "The LTSamTrainer object"),
        (OfTasks, "micro", 2, None),
        (OfTasks, "step", 1, None),
        (LTSamTrainer, "step", 2, None),
        (Plain, "step", 2, None),
    ],
)
def test_state_of_a_micro_batch_where_the_passes_of_a_step_are_made_at_its_end(
    kind, scope, accumulation, owner, tmp_path, caplog
):
    settings = {"use_cpu": True, "max_steps": 1, "report_to": "none", "gradient_accumulation_steps": accumulation}
    kind, of_object = (LTSamTrainer, True) if kind == "object" else (kind, False)
    if issubclass(kind, LTSamTrainer):
        made = kind(WithLoss(), LTSamConfig(str(tmp_path), ascent_scope=scope, **settings), train_dataset=DATA)
    else:
        args = TrainingArguments(str(tmp_path), **settings)
        made = kind(WithLoss(), args, train_dataset=DATA, ascent_scope=scope)
    (step_of_the_object(made) if of_object else made).train()
    found = [record.getMessage() for record in caplog.records if "overrides training_step" in record.getMessage()]
    assert [message.startswith(f"{owner} overrides") and "'micro'" in message for message in found] == [True] * bool(
        owner
    )
