"""LTSamTrainer trains adapted models: checkpoints are adapters, and a killed run resumes bit for bit."""

import json

import pytest
import torch
from adapters.adapter_training import COUNTS, Pictures, trainer_of
from adapters.tiny import NUM_CLASSES, TOWER, shaken
from peft import PeftModel
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification

from hf_ltsam import ClassStatistics
from hf_ltsam.adapters import make_adapter

SETTINGS = {
    "max_steps": 8,
    "save_strategy": "steps",
    "save_steps": 4,
    "method_args": {"rho": 0.1},
    "loss": "logit_adjustment",
}


def encoder(num_classes=NUM_CLASSES):
    """With dropout, whose random numbers must resume too."""
    torch.manual_seed(0)
    config = ViTConfig(**TOWER, num_labels=num_classes, hidden_dropout_prob=0.1, initializer_range=0.3)
    return ViTForImageClassification(config)


def run(folder, adapter, seed=1, eval_dataset=None, **settings):
    model = make_adapter(encoder(), adapter, num_classes=NUM_CLASSES)
    model = model if seed is None else shaken(model, seed, trainable_only=True)
    return trainer_of(model, folder, Pictures(), "focal_sam", eval_dataset, **{**SETTINGS, **settings})


def images():
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("adapter", ["adaptformer", "vpt_shallow", "lora", "none"])
def test_a_resumed_run_equals_an_uninterrupted_one(adapter, tmp_path):
    whole = run(tmp_path, adapter)
    whole.train()
    resumed = run(tmp_path, adapter, seed=9)  # its initial weights do not matter
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed.state.global_step == 8
    state = resumed.model.state_dict()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert not torch.equal(
        whole.model(images())[0], shaken(make_adapter(encoder(), adapter, num_classes=NUM_CLASSES), 1)(images())[0]
    )


@pytest.mark.parametrize("adapter", ["adaptformer", "bias_tuning"])
def test_a_checkpoint_holds_the_adapter_statistics_and_method(adapter, tmp_path):
    trainer = run(tmp_path, adapter)
    trainer.train()
    trainer.save_model()
    for folder in (tmp_path / "checkpoint-8", tmp_path):
        assert not (folder / "model.safetensors").exists()
        saved = load_file(folder / "adapter_model.safetensors")
        assert sum(t.numel() for t in saved.values()) == sum(
            p.numel() for p in trainer.model.parameters() if p.requires_grad
        )
        assert ClassStatistics.load(folder).counts == tuple(n // 2 for n in COUNTS)
        assert json.loads((folder / "ltsam.json").read_text())["method"]["name"] == "focal_sam"
        loaded = PeftModel.from_pretrained(encoder(), folder).eval()
        torch.testing.assert_close(loaded(images())[0], trainer.model.eval()(images())[0], rtol=0, atol=0)


@pytest.mark.parametrize("adapter", ["adaptformer", "none"])
def test_the_best_model_comes_back(adapter, tmp_path):
    trainer = run(
        tmp_path,
        adapter,
        eval_dataset=Pictures(),
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,
        optim="sgd",
        optim_args="momentum=0.9",
        max_grad_norm=0.0,
        learning_rate=0.02,
    )
    trainer.train()  # "greater is better", so that the best model is not the last one
    folder = trainer.state.best_model_checkpoint
    assert not folder.endswith("checkpoint-8")
    best = (
        ViTForImageClassification.from_pretrained(folder)
        if adapter == "none"
        else PeftModel.from_pretrained(encoder(), folder)
    )
    assert torch.equal(best.eval()(images())[0], trainer.model.eval()(images())[0])


def test_adapters_learn(tmp_path):
    """The loss falls, and the encoder is unchanged."""
    settings = {"max_steps": 24, "save_strategy": "no", "logging_strategy": "steps", "loss": "cross_entropy"}
    trainer = run(tmp_path, "adaptformer", seed=None, eval_dataset=Pictures(), **settings)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.8 * before
    assert all("sam_eps_norm" in log for log in trainer.state.log_history if "loss" in log)
    plain = encoder().state_dict()
    state = trainer.model.unload().state_dict()
    assert all(torch.equal(state[key], value) for key, value in plain.items() if not key.startswith("classifier"))


def test_activation_checkpointing_and_bf16_through_the_trainer(tmp_path):
    """The same update except for rounding."""

    def updated(**settings):
        trainer = run(tmp_path, "adaptformer", max_steps=2, save_strategy="no", **settings)
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
        trainer.train()
        after = dict(trainer.model.named_parameters())
        return torch.cat([(after[n] - p).flatten() for n, p in before.items()])

    plain = updated()
    checkpointed = updated(gradient_checkpointing=True)  # activation_checkpointing, by the name that 5.10 knows too
    torch.testing.assert_close(checkpointed, plain, rtol=0, atol=1e-6)
    assert torch.cosine_similarity(updated(bf16=True), plain, 0) > 0.99


def test_another_number_of_classes_is_refused_before_training(tmp_path):
    trainer = run(tmp_path, "adaptformer", max_steps=4)
    trainer.train()
    with pytest.raises(
        ValueError, match="made for num_classes=5, but 'classifier' of ViTForImageClassification has 7 outputs"
    ):
        PeftModel.from_pretrained(encoder(7), tmp_path / "checkpoint-4")
