"""`hyperparameter_search`: every trial is the training that its settings alone would have been."""

import dataclasses

import pytest
import torch
from torch import nn

from hf_ltsam import METHODS, ClassStatistics, LTSamConfig, LTSamTrainer
from hf_ltsam.losses import Focal, LogitAdjustment
from hf_ltsam.methods import MSAM, SAM
from hf_ltsam.training.trials import place_of, with_values

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)
LABELS = [0, 0, 0, 0, 1, 1, 2, 0]
ROWS = [
    {"input": torch.randn(4, generator=torch.Generator().manual_seed(k)), "labels": c} for k, c in enumerate(LABELS)
]


def model_init():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def trainer(out, kind=LTSamTrainer, eval_dataset=ROWS, passed=None, **settings):
    args = {"output_dir": str(out), "use_cpu": True, "report_to": "none", "disable_tqdm": True, "learning_rate": 0.5,
            "per_device_train_batch_size": 4, "num_train_epochs": 2, "save_strategy": "no", "logging_strategy": "no", **settings}  # fmt: skip
    statistics = ClassStatistics.from_labels(torch.tensor(LABELS), 3)
    return kind(
        model_init=model_init, args=LTSamConfig(**args), train_dataset=ROWS, eval_dataset=eval_dataset,
        **{"class_statistics": statistics, **(passed or {})},
    )  # fmt: skip


class Watching(LTSamTrainer):
    """Keeps what each training was made with, and its weights."""

    trained = ()

    def _finalize_training(self, *args, **kwargs):
        output = super()._finalize_training(*args, **kwargs)
        now = (self.method, self.loss, self.args.learning_rate, self.model.weight.detach().clone())
        self.trained = (*self.trained, now)
        return output


def fixed(values):
    """A search over what is listed, in this order."""
    return {"sampler": optuna.samplers.GridSampler({"k": list(range(len(values)))}, seed=0), "n_trials": len(values)}


def search(made, values, **kwargs):
    order = []

    def space(trial):
        order.append(trial.suggest_categorical("k", list(range(len(values)))))
        return values[order[-1]]

    best = made.hyperparameter_search(space, direction="maximize", **{**fixed(values), **kwargs})
    return best, order


TRIALS = [
    {"rho": 0.3},
    {"method_args": {"rho": 0.3}},
    {"method_args.rho": 0.7, "learning_rate": 0.1},
    {"method": "sgd"},
    {"method": "msam", "rho": 0.4},
    {"tau": 2.0},
    {"loss": "cross_entropy"},
    {"per_device_train_batch_size": 8, "swa_start": 0.5},
    {"method": "focal_sam", "rho": 0.2, "loss": "focal", "loss_args.gamma": 1.0},
    {"loss": "LA-DRW", "tau": 2.0},
    {"method": "SAM", "rho": 0.3},
    {"method": "Focal-SAM", "method_args.gamma": 1.0, "loss": "ce"},
    {"optim": "adamw_torch", "adam_beta2": 0.9, "learning_rate": 0.01},
    {"optim": "rmsprop", "learning_rate": 0.01},
    {},
]
ALONE = [  # the same as settings of a trainer of its own
    {"method_args": {"rho": 0.3}},
    {"method_args": {"rho": 0.3}},
    {"method_args": {"rho": 0.7}, "learning_rate": 0.1},
    {"method": "sgd", "method_args": None},
    {"method": "msam", "method_args": {"rho": 0.4}},
    {"loss_args": {"tau": 2.0}},
    {"loss": "cross_entropy", "loss_args": None},
    {"per_device_train_batch_size": 8, "swa_start": 0.5},
    {"method": "focal_sam", "method_args": {"rho": 0.2}, "loss": "focal", "loss_args": {"gamma": 1.0}},
    {"loss": "LA-DRW", "loss_args": {"tau": 2.0}},
    {"method_args": {"rho": 0.3}},
    {"method": "focal_sam", "method_args": {"gamma": 1.0}, "loss": "ce", "loss_args": None},
    {"optim": "adamw_torch", "adam_beta2": 0.9, "learning_rate": 0.01},
    {"optim": "rmsprop", "learning_rate": 0.01},
    {},
]
BASE = {"method": "sam", "method_args": {"rho": 0.05}, "loss": "logit_adjustment", "loss_args": {"tau": 0.5}}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    made = trainer(tmp_path_factory.mktemp("search"), Watching, **BASE)
    best, order = search(made, TRIALS)
    return made, best, dict(zip(order, made.trained, strict=True))


@pytest.mark.parametrize("k", range(len(TRIALS)), ids=[str(trial) for trial in TRIALS])
def test_a_trial_is_the_training_of_its_settings_alone(searched, k, tmp_path):
    """Whatever came before it: fresh weights, memory, method, loss and accelerator."""
    alone = trainer(tmp_path, Watching, **{**BASE, **ALONE[k]})
    alone.train()
    (method, loss, rate, weight), (own_method, own_loss, own_rate, own_weight) = searched[2][k], alone.trained[0]
    assert (method, loss, rate) == (own_method, own_loss, own_rate)
    assert torch.equal(weight, own_weight)


def test_the_trainer_is_afterwards_as_it_was(searched, tmp_path):
    made, _, trained = searched
    assert made.args.method == "sam" and made.args.method_args == {"rho": 0.05} and made.args.learning_rate == 0.5
    assert made.method == SAM(rho=0.05) and made.loss == LogitAdjustment(tau=0.5) and made.args.swa_start is None
    assert made.args.reweighting == "none" and made.args.optim.startswith("adamw") and made.args.optim_args is None
    made.train()
    unchanged = TRIALS.index({})
    assert torch.equal(made.model.weight, trained[unchanged][3]) and made.averaging is None


@pytest.mark.parametrize(
    ("given", "stated", "values", "expected"),
    [
        (None, None, [{"tail_threshold": 2, "method": "imbsam"}, {"rho": 0.3}], [2, None]),
        (1, None, [{"tail_threshold": 2}, {"method": "imbsam", "rho": 0.3}], [2, 1]),
        (None, 1, [{"tail_threshold": 2}, {"max_skipped_steps": 3}, {"tail_threshold": 4}], [2, 1, 4]),
    ],
)
def test_a_tail_threshold_is_that_of_its_trial_alone(given, stated, values, expected, tmp_path):
    class Thresholds(LTSamTrainer):
        seen = ()

        def _finalize_training(self, *args, **kwargs):
            assert self.skipped_steps._stop_after == self.args.max_skipped_steps
            self.seen = (*self.seen, self.class_statistics.tail_threshold)
            return super()._finalize_training(*args, **kwargs)

    settings = BASE if stated is None else {**BASE, "tail_threshold": stated}
    statistics = ClassStatistics.from_labels(torch.tensor(LABELS), 3, tail_threshold=given)
    made = trainer(tmp_path, Thresholds, passed={"class_statistics": statistics}, **settings)
    _, order = search(made, values)
    assert dict(zip(order, made.seen)) == dict(enumerate(expected))
    assert made.class_statistics.tail_threshold == (given or stated)


def test_a_trial_without_a_tail_threshold_has_none(tmp_path):
    made = trainer(tmp_path, Watching, **BASE)
    with pytest.raises(ValueError, match="tail_threshold"):
        search(made, [{"method": "imbsam"}, {"method": "imbsam", "tail_threshold": 2}])  # the second one comes first
    assert len(made.trained) == 1


def test_method_and_loss_by_name_or_as_objects(tmp_path):
    made = trainer(tmp_path, Watching, passed={"method": SAM(rho=0.05, start=0.5), "loss": "focal"})
    _, order = search(made, [{"rho": 0.3}, {"loss_args.gamma": 1.0}])
    by_trial = {k: row[:2] for k, row in zip(order, made.trained)}
    assert by_trial == {0: (SAM(rho=0.3, start=0.5), Focal()), 1: (SAM(rho=0.05, start=0.5), Focal(gamma=1.0))}
    assert (
        made.method == SAM(rho=0.05, start=0.5) and made.args.method_args is None and made.args.loss == "cross_entropy"
    )


def test_the_default_objective_is_balanced_accuracy_or_the_plain_loss(tmp_path):
    for direction, name in (("maximize", "eval_balanced"), ("minimize", "eval_loss")):
        made = trainer(tmp_path / direction, **BASE)
        seen = []
        made.evaluate = lambda *a, kind=made, seen=seen, **k: (
            seen.append(LTSamTrainer.evaluate(kind, *a, **k)) or seen[-1]
        )
        best = made.hyperparameter_search(
            lambda trial: {"rho": trial.suggest_float("rho", 0.01, 0.5)}, n_trials=1, direction=direction
        )
        assert best.objective == seen[0][name] and set(best.hyperparameters) == {"rho"}


def test_pruned_trials_leave_no_trace(tmp_path):
    made = trainer(tmp_path, Watching, eval_strategy="epoch", save_strategy="epoch", **{**BASE, "method": "msam"})

    class Second(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1

    best = made.hyperparameter_search(
        lambda trial: {"rho": trial.suggest_float("rho", 0.3, 0.3)}, n_trials=3, direction="maximize", pruner=Second()
    )
    assert best.run_id in ("0", "2") and len(made.trained) == 2  # the second was not finished
    assert torch.equal(made.trained[0][3], made.trained[1][3]) and isinstance(made.trained[0][0], MSAM)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["run-0", "run-2"]  # it had saved nothing


def own_loss(logits, labels, statistics):
    return nn.functional.cross_entropy(logits, labels, reduction="none")


@pytest.mark.parametrize(
    ("values", "given", "message"),
    [
        ({"roh": 0.1}, {}, r"no setting 'roh' to search.*Did you mean 'rho'"),
        ({"learning_rat": 0.1}, {}, r"Did you mean 'learning_rate'"),
        ({"method_args.tau": 0.1}, {}, r"no setting 'method_args.tau'"),
        ({"rho": 0.1, "method": "sgd"}, {}, r"no setting 'rho'.*method 'sgd': interval"),
        ({"rho": -1.0}, {}, r"SAM\(rho=\.\.\.\) must be non-negative"),
        ({"method": "smm"}, {}, r"Unknown method 'smm'"),
        ({"gamma": 1.0}, {"method": "focal_sam", "loss": "focal", "method_args": None, "loss_args": None}, r"both.*write method_args.gamma or loss_args.gamma"),
        ({"loss": "focal"}, {"loss": "cross_entropy", "loss_args": None, "passed": {"loss": own_loss}}, "hp_space sets the loss.*class without a name"),
        ({"ascent_size": 0}, {}, "ascent_size"),
        ({"loss_start": 2.0}, {}, "loss_start"),
        ({"auto_find_batch_size": True}, {}, "auto_find_batch_size=True does not go with"),
    ],
)  # fmt: skip
def test_a_trial_that_cannot_be_is_refused_before_a_step(values, given, message, tmp_path):
    made = trainer(tmp_path, Watching, **{**BASE, **given})
    with pytest.raises(ValueError, match=message):
        search(made, [values])
    assert made.trained == () and made.args.method == {**BASE, **given}["method"]


@pytest.mark.parametrize(
    ("given", "words", "message"),
    [
        ({}, {"backend": "ray"}, "searches by optuna"),
        ({}, {"n_jobs": 2}, "ltsam tune"),
        ({"eval_dataset": None}, {}, "pass eval_dataset"),
    ],
)
def test_a_search_that_cannot_be(given, words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **BASE, **given).hyperparameter_search(**words)


def test_places_of_every_argument_of_every_method():
    for method, kind in METHODS.items():
        for argument in [field.name for field in dataclasses.fields(kind) if field.init]:
            chosen = {"method": method, "loss": "cross_entropy"}
            assert place_of(f"method_args.{argument}", chosen, ["seed"]) == ("method_args", argument)
    as_in_papers = {"method": "Focal-SAM", "loss": "LA-DRW"}
    assert place_of("rho", as_in_papers, []) == ("method_args", "rho")
    assert place_of("tau", as_in_papers, []) == ("loss_args", "tau")
    base = {"method": "sam", "method_args": {"rho": 0.1, "start": 0.8}, "loss": "focal", "loss_args": None}
    assert with_values(base, {"rho": 0.2}, []) == {"method_args": {"rho": 0.2, "start": 0.8}}
    assert with_values(base, {"method": "asam", "rho": 0.2}, ["method"]) == {
        "method": "asam",
        "method_args": {"rho": 0.2},
    }
