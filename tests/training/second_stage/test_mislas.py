"""MiSLAS (Zhong et al. 2021): classifier and one factor a class are trained while batch norm of the frozen trunk goes on counting."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from training.second_stage.problem import images, network, second_stage

from hf_ltsam import ClassStatistics, LTSamConfig
from hf_ltsam.models.frozen_features import frozen_features
from hf_ltsam.runs.model import load_run
from hf_ltsam.training.second_stage import CachedFeatures, SecondStageTrainer, make_second_stage

COUNTS = (9, 6, 4, 3)


class Small(nn.Module):
    """Linear, batch norm, classifier: what a loop can follow."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.norm, self.classifier = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)
        self.dropout = nn.Dropout(0.5)
        with torch.no_grad():
            for tensor in (*self.parameters(), self.norm.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            self.norm.running_var.copy_(torch.rand(5, generator=generator) + 0.5)

    def forward(self, x, labels=None):
        return {"logits": self.classifier(self.dropout(self.norm(self.first(x))))}


class Points(torch.utils.data.Dataset):
    def __init__(self, seed=0):
        self.labels = torch.arange(4).repeat_interleave(torch.tensor(COUNTS))
        self.x = torch.randn(len(self.labels), 6, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, k):
        return {"x": self.x[k], "labels": int(self.labels[k])}


def trainer(out, model, stage_args, data=None, **settings):
    args = LTSamConfig(**{
        "output_dir": str(out), "num_train_epochs": 2, "per_device_train_batch_size": 8, "optim": "sgd", "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant", "learning_rate": 0.5, "method": "sgd", "report_to": "none", "disable_tqdm": True,
        "use_cpu": True, "save_strategy": "no", "seed": 3, **settings,
    })  # fmt: skip
    stage = make_second_stage("mislas", **stage_args)
    return SecondStageTrainer(model, stage, args, data or Points(), Points(1), ClassStatistics(COUNTS))


def by_hand(model, batches, labels_of, rate, factor, shifts):
    """The stage in numpy, float64: after Zhong et al. 2021 Sec. 3.2 and 3.3, sample by sample where it matters."""
    state = {name: value.double().numpy().copy() for name, value in model.state_dict().items()}
    A, a, gamma, beta = (state[n] for n in ("first.weight", "first.bias", "norm.weight", "norm.bias"))
    mean, var, W, b = (
        state[n] for n in ("norm.running_mean", "norm.running_var", "classifier.weight", "classifier.bias")
    )
    s = np.ones(4)
    for x in batches:
        h, n = x @ A.T + a, len(x)
        if shifts:
            mu = sum(h) / n
            square = sum((row - mu) ** 2 for row in h)
            mean, var = 0.9 * mean + 0.1 * mu, 0.9 * var + 0.1 * square / (n - 1)
            h = gamma * (h - mu) / np.sqrt(square / n + 1e-5) + beta
        else:
            h = gamma * (h - mean) / np.sqrt(var + 1e-5) + beta
        ds, dW, db = np.zeros(4), np.zeros((4, 5)), np.zeros(4)
        for row, y in zip(h, labels_of(x)):
            u = W @ row + b
            z = s * u
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            g = (p - np.eye(4)[y]) / n
            ds += g * u
            dW += np.outer(g * s, row)
            db += g * s
        s, W, b = s - rate * ds, W - factor * rate * dW, b - factor * rate * db
    return {
        "norm.running_mean": mean,
        "norm.running_var": var,
        "classifier.weight": s[:, None] * W,
        "classifier.bias": s * b,
    }


@pytest.mark.parametrize("shifts", [True, False])
def test_the_stage_is_the_one_of_the_paper(tmp_path, shifts):
    model, first, batches, data = Small(), Small(), [], Points()
    model.register_forward_pre_hook(lambda module, args, kwargs: batches.append(kwargs["x"]), with_kwargs=True)
    stage = trainer(tmp_path, model, {"classifier_rate": 0.2, "shift_batch_norm": shifts}, data)
    stage.train()

    def labels_of(x):
        return [int(data.labels[(data.x == torch.tensor(row).float()).all(1)].item()) for row in x]

    expected = by_hand(first, [x.double().numpy() for x in batches], labels_of, 0.5, 0.2, shifts)
    now = stage.put_into_model().state_dict()
    assert len(batches) == 6 and not (now["classifier.weight"] == first.classifier.weight).any()
    for name, value in first.state_dict().items():
        if name != "norm.num_batches_tracked":
            reference = torch.tensor(expected[name]).float() if name in expected else value
            torch.testing.assert_close(now[name], reference, rtol=1e-5, atol=1e-5, msg=name)
    assert int(now["norm.num_batches_tracked"]) == (6 if shifts else 0)


def test_what_is_not_trained_on_is_not_counted(tmp_path):
    """Evaluations are in evaluation mode, with what has been counted so far."""
    stage = trainer(tmp_path, Small(), {})
    stage.train()
    state = {name: value.clone() for name, value in stage.put_into_model().state_dict().items()}
    logits = torch.tensor(stage.predict(Points(1)).predictions)
    after = stage.put_into_model()
    assert all(torch.equal(value, state[name]) for name, value in after.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(logits, after.eval()(Points(1).x)["logits"])


def test_a_step_of_two_passes_counts_its_batch_once(tmp_path):
    """A method that looks at the loss twice has the features once."""
    plain, sharp = (trainer(tmp_path, Small(), {}, method=method) for method in ("sgd", "sam"))
    for stage in (plain, sharp):
        stage.train()
    a, b = (stage.put_into_model().norm for stage in (plain, sharp))
    assert torch.equal(a.running_mean, b.running_mean) and torch.equal(a.running_var, b.running_var)


def test_resumed_is_uninterrupted_and_the_folder_holds_what_was_counted(tmp_path):
    whole = second_stage(network(), tmp_path, "mislas")
    whole.train()
    whole.save_model()
    resumed = second_stage(network(), tmp_path, "mislas")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-15"))
    saved = load_run(tmp_path)
    for name, value in whole.put_into_model().state_dict().items():
        assert torch.equal(value, resumed.put_into_model().state_dict()[name]), name
        assert torch.equal(value, saved.state_dict()[name]), name
    assert not torch.equal(saved.bn1.running_mean, network().bn1.running_mean)
    assert torch.equal(saved.bn1.weight, network().bn1.weight)


def test_the_best_checkpoint_has_its_own_statistics(tmp_path):
    stage = second_stage(network(), tmp_path, "mislas", eval_strategy="steps", eval_steps=5)
    stage.train()
    stage.state.best_model_checkpoint = str(tmp_path / "checkpoint-5")
    stage._load_best_model()
    then = load_run(tmp_path / "checkpoint-5").state_dict()
    assert all(torch.equal(value, then[name]) for name, value in stage.put_into_model().state_dict().items())


def test_the_rates_follow_the_schedule_and_the_logs_have_that_of_the_setting(tmp_path):
    stage = trainer(tmp_path, Small(), {"classifier_rate": 0.05}, lr_scheduler_type="linear", logging_steps=1)
    stage.train()
    logged = [entry["learning_rate"] for entry in stage.state.log_history if "learning_rate" in entry]
    assert math.isclose(logged[0], 0.5) and math.isclose(logged[-1], 0.5 / 6)
    names = {id(p): name for name, p in stage.model.named_parameters()}
    rates = {names[id(p)]: group["initial_lr"] for group in stage.optimizer.param_groups for p in group["params"]}
    assert rates == {"scales": 0.5, "classifier.weight": 0.025, "classifier.bias": 0.025}


def test_refusals(tmp_path):
    features = CachedFeatures(*frozen_features(network(), images(augment=False), 4, progress=False))
    with pytest.raises(
        ValueError, match=r"MiSLAS\(shift_batch_norm=True\) needs images.*CachedFeatures.*shift_batch_norm=False"
    ):
        second_stage(network(), tmp_path, "mislas", features)
    second_stage(network(), tmp_path, "mislas", features, stage_args={"shift_batch_norm": False})
    plain = Small()
    plain.norm = nn.Identity()
    with pytest.raises(ValueError, match=r"Small has no batch norm.*shift_batch_norm=False"):
        trainer(tmp_path, plain, {})
    trainer(tmp_path, plain, {"shift_batch_norm": False})
    with pytest.raises(ValueError, match="ends in a CosineClassifier"):
        second_stage(network("cosine"), tmp_path, "mislas")
    with pytest.raises(ValueError, match="classifier_rate"):
        make_second_stage("mislas", classifier_rate=-1)
    with pytest.raises(ValueError, match="shift_batch_norm"):
        make_second_stage("mislas", shift_batch_norm="yes")
