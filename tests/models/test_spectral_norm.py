"""Spectral normalisation: the quotient, its values in later passes, and the saved files."""

import copy

import pytest
import torch
from methods.problems import gradient_of, problem
from torch import nn
from torch.nn import functional as F
from training.noisy_run import Model, Noisy
from training.test_resume import assert_same
from transformers import AutoModelForImageClassification

from hf_ltsam import CifarResNetConfig, CifarResNetForImageClassification, LTSamConfig, LTSamTrainer
from hf_ltsam.methods import METHODS, make_method
from hf_ltsam.models.spectral_norm import fold, folded_state, normalise_spectrally, normalised_layers


def resnet(num_labels=3):
    torch.manual_seed(0)
    return CifarResNetForImageClassification(CifarResNetConfig(depth=8, width=4, num_labels=num_labels))


def test_the_weights_have_norm_one():
    """Of the matrix with one row per output, by a singular value decomposition."""
    model = resnet()
    names = normalise_spectrally(model, ["classifier", "stages.1.*"], iterations=200)
    assert names == ["stages.1.0.conv1", "stages.1.0.conv2", "classifier"]
    model(torch.zeros(2, 3, 8, 8))
    for name in names:
        weight = model.get_submodule(name).weight.detach()
        assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=1e-4)
    assert torch.linalg.svdvals(model.stages[0][0].conv1.weight.flatten(1))[0].item() != pytest.approx(1, abs=1e-2)


def test_a_second_call_normalises_no_layer_twice():
    model = resnet()
    assert normalise_spectrally(model, ["classifier"]) == ["classifier"]
    assert normalise_spectrally(model, ["classifier", "conv1"]) == ["conv1"]
    assert set(normalised_layers(model)) == {"classifier", "conv1"}


@pytest.mark.parametrize(
    ("patterns", "iterations", "message"),
    [
        (["clasifier"], 5, r"'clasifier' matches no linear or convolutional layer of CifarResNet.*'classifier'"),
        (["classifier", "bn1"], 5, r"'bn1' matches no linear"),
        (["classifier"], 0, r"normalise_spectrally\(iterations=.*at least 1, got 0"),
    ],
)
def test_refusals(patterns, iterations, message):
    with pytest.raises(ValueError, match=message):
        normalise_spectrally(resnet(), patterns, iterations)


def normalised_problem():
    given = problem("plain")
    normalise_spectrally(given.model, ["0"], iterations=1)
    return given


def vectors(model):
    return [b.clone() for b in model.buffers()]


@pytest.mark.parametrize("name", METHODS)
def test_the_power_iteration_moves_in_the_first_pass_only(name):
    """As in one ordinary forward pass in training mode, for any number of passes."""
    if name == "lpf_sgd":
        pytest.skip("each of its shards is a separate batch with a first pass")
    if name == "gnm":
        pytest.skip("its first and only pass is at moved weights")
    given = normalised_problem()
    start, ordinary = vectors(given.model), copy.deepcopy(given.model)
    ordinary(given.x)
    gradient_of(make_method(name), given)
    for ours, theirs, before in zip(vectors(given.model), vectors(ordinary), start, strict=True):
        assert torch.equal(ours, theirs) and not torch.equal(ours, before)
    assert all(m.training for m in given.model.modules())


def test_the_second_pass_sees_the_vectors_of_the_first():
    """SAM by hand: sigma = u^T (W + eps) v with u and v from the first pass."""
    given = normalised_problem()
    model = copy.deepcopy(given.model)
    norm = normalised_layers(model)["0"]

    def gradient():
        return torch.autograd.grad(F.cross_entropy(model(given.x), given.y), list(model.parameters()))

    g = gradient()
    length = torch.sqrt(sum((t**2).sum() for t in g))
    with torch.no_grad():
        for p, t in zip(model.parameters(), g):
            p.add_(0.7 * t / length)
    norm.training = False
    expected = gradient()
    for ours, theirs in zip(gradient_of(make_method("sam", rho=0.7), given), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    norm.training = True  # were it to move, the gradient would be another: the test can fail
    assert not torch.allclose(gradient()[1], expected[1])


def test_an_exception_leaves_the_power_iteration_on():
    given = normalised_problem()
    inner = given.model
    calls = []

    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("out of memory")
            return self.inner(x)

    given.model = Failing()
    with pytest.raises(RuntimeError, match="out of memory"):
        gradient_of(make_method("sam"), given)
    assert normalised_layers(inner)["0"].training


def test_the_folded_state_is_that_of_an_ordinary_model():
    model = resnet()
    normalise_spectrally(model, ["classifier", "stages.*"])
    x = torch.randn(4, 3, 8, 8)
    model(x)
    before = vectors(model)
    plain = resnet()
    plain.load_state_dict(folded_state(model))  # strict: not one name more or less
    assert torch.equal(plain.eval()(x).logits, model.eval()(x).logits)
    model.train()
    assert all(map(torch.equal, before, vectors(model))), "saving moves nothing"
    fold(model)
    assert not normalised_layers(model) and model.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(model.eval()(x).logits, plain(x).logits)


def trainer_of(folder, model, **settings):
    args = {
        "output_dir": str(folder),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 5,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "max_grad_norm": 0.0,
        "learning_rate": 0.05,
        "save_strategy": "steps",
        "save_steps": 3,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
        "method": "sam",
        "logging_steps": 3,
        **settings,
    }
    return LTSamTrainer(model, LTSamConfig(**args), train_dataset=Noisy(), eval_dataset=Noisy())


def normalised(iterations=2):
    model = Model()
    normalise_spectrally(model, ["body.*"], iterations)
    return model


@pytest.mark.parametrize("step", [3, 6])
def test_resumes_bit_for_bit(step, tmp_path):
    whole, resumed = trainer_of(tmp_path, normalised()), trainer_of(tmp_path, normalised())
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert_same(resumed.model, whole.model)


def test_without_the_originals_a_resumed_run_goes_elsewhere(tmp_path):
    """Guards the test above."""
    whole, resumed = trainer_of(tmp_path, normalised()), trainer_of(tmp_path, normalised())
    whole.train()
    for name in ("spectral_norm.pt", "manifest.json"):  # with the manifest, the missing file would be named
        (tmp_path / "checkpoint-3" / name).unlink()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert not torch.equal(resumed.model.body[0].weight, whole.model.body[0].weight)


def test_a_checkpoint_knows_its_layers(tmp_path):
    trainer_of(tmp_path, normalised(), max_steps=3).train()
    for other in (Model(), normalised(iterations=3)):
        with pytest.raises(ValueError, match=r"spectral_norm: .*body\.0.* in the checkpoint"):
            trainer_of(tmp_path, other).train(resume_from_checkpoint=True)


def test_the_best_model_is_loaded_as_it_was(tmp_path):
    trainer = trainer_of(
        tmp_path,
        normalised(),
        load_best_model_at_end=True,
        eval_strategy="steps",
        eval_steps=3,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=1.0,
        metric_for_best_model="loss",
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    saved = torch.load(f"{best}/spectral_norm.pt", weights_only=True)
    state = trainer.model.state_dict()
    assert len(saved) == 6 and all(torch.equal(state[name], value) for name, value in saved.items())


def test_from_pretrained_loads_an_ordinary_model(tmp_path):
    model = resnet()
    normalise_spectrally(model, ["classifier", "stages.*"])
    data = [{"pixel_values": torch.randn(3, 8, 8), "labels": i % 3} for i in range(6)]
    args = LTSamConfig(
        output_dir=str(tmp_path),
        max_steps=2,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=0.1,
        use_cpu=True,
        report_to="none",
        method="sam",
    )
    trainer = LTSamTrainer(model, args, train_dataset=data)
    trainer.train()
    trainer.save_model()
    loaded, info = AutoModelForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(loaded.eval()(x).logits, trainer.model.eval()(x).logits)
    assert torch.linalg.svdvals(loaded.classifier.weight)[0].item() == pytest.approx(1, abs=0.05)


def test_an_ordinary_model_leaves_no_file(tmp_path):
    trainer_of(tmp_path, Model(), max_steps=3).train()
    assert not list(tmp_path.rglob("spectral_norm.pt"))


def test_activation_checkpointing_is_refused(tmp_path):
    model = resnet()
    normalise_spectrally(model, ["classifier"])
    with pytest.raises(ValueError, match=r"activation_checkpointing=True does not go with spectral normalisation"):
        trainer_of(tmp_path, model, activation_checkpointing=True)
