"""A second stage changes the classifier and nothing else, resumes, and helps rare classes."""

import json
import signal
from pathlib import Path

import pytest
import torch
from forked import Script
from torch import nn
from training.second_stage.problem import COUNTS, STATISTICS, images, network, second_stage
from transformers.trainer_utils import get_last_checkpoint

from hf_ltsam import CifarResNetForImageClassification, LTSamConfig, LTSamTrainer
from hf_ltsam.data.labels import label_fingerprint
from hf_ltsam.models.frozen_features import frozen_features
from hf_ltsam.runs.card import model_card, read_facts
from hf_ltsam.runs.experiment import experiment_of
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.model import load_run
from hf_ltsam.training.second_stage import SECOND_STAGES, CachedFeatures, SecondStageTrainer, make_second_stage

SCRIPT = Path(__file__).with_name("problem.py")


def differing(a, b):
    """The names of what is not the same to the last bit, buffers included."""
    a, b = a.state_dict(), b.state_dict()
    assert set(a) == set(b)
    return {name for name in a if a[name].dtype != b[name].dtype or not torch.equal(a[name], b[name])}


CASES = [
    ("crt", "linear"),
    ("crt", "cosine"),
    ("lws", "linear"),
    ("maxnorm", "linear"),
    ("cc_sam", "linear"),
    ("cc_sam", "cosine"),
]


@pytest.mark.parametrize(("stage", "head"), CASES)
def test_only_the_classifier_changes_and_the_folder_holds_the_whole_model(stage, head, tmp_path):
    first = network(head)
    trainer = second_stage(network(head), tmp_path, stage)
    trainer.train()
    trainer.save_model()
    saved = load_run(tmp_path)
    expected = {"classifier.weight", "classifier.bias"} if head == "linear" else {"classifier.weight"}
    assert differing(first, saved) == expected
    assert differing(trainer.put_into_model(), saved) == set()
    halfway = load_run(tmp_path / "checkpoint-5")
    assert differing(first, halfway) == expected and differing(halfway, saved) == expected
    logits = trainer.predict(trainer.eval_dataset).predictions
    pixels = torch.stack([row["pixel_values"] for row in trainer.eval_dataset])
    with torch.no_grad():
        # of other batches: kernels may round otherwise, and cosine logits reach 30
        torch.testing.assert_close(torch.tensor(logits), saved(pixels).logits, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("stage", "head"), [("crt", "linear"), ("lws", "linear"), ("maxnorm", "linear"), ("cc_sam", "cosine")]
)
def test_resumed_is_uninterrupted(stage, head, tmp_path):
    """Images are augmented and classes sampled; CC-SAM's share depends on the epoch."""
    settings = {"stage_args": {"ramp_epochs": 3}} if stage == "cc_sam" else {}
    whole = second_stage(network(head), tmp_path, stage, **settings)
    whole.train()
    resumed = second_stage(network(head), tmp_path, stage, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-15"))  # of 30, 10 an epoch
    assert differing(whole.put_into_model(), resumed.put_into_model()) == set()
    if stage == "crt":  # the test can fail: the order of the images matters
        other = second_stage(network(head), tmp_path / "other", stage, data_seed=9)
        other.train()
        assert differing(whole.put_into_model(), other.put_into_model()) != set()


@pytest.mark.slow
def test_killed_and_resumed_is_uninterrupted(tmp_path):
    network().save_pretrained(tmp_path / "first")
    code, output = Script(str(SCRIPT), str(tmp_path / "first"), str(tmp_path / "killed"), "cc_sam", "13").wait()
    assert code == -signal.SIGKILL, output
    assert Path(get_last_checkpoint(str(tmp_path / "killed"))).name == "checkpoint-10"
    first = CifarResNetForImageClassification.from_pretrained(tmp_path / "first")
    resumed = second_stage(first, tmp_path / "killed", "cc_sam")
    resumed.train(resume_from_checkpoint=True)
    whole = second_stage(network(), tmp_path / "whole", "cc_sam")
    whole.train()
    assert differing(whole.put_into_model(), resumed.put_into_model()) == set()


def test_batch_norm_is_in_evaluation_mode_and_the_model_as_it_was(tmp_path):
    model = network().train()
    seen = []
    model.bn1.register_forward_hook(lambda module, *_: seen.append(module.training))
    trainer = second_stage(model, tmp_path, save_strategy="no")
    trainer.train()
    assert len(seen) == 30 and not any(seen)
    assert differing(network(), model) == set()  # until it is asked for, the trained classifier is elsewhere


def test_cached_features_give_the_same_training(tmp_path):
    plain = images(augment=False)
    live = second_stage(network(), tmp_path / "live", train_dataset=plain, save_strategy="no")
    live.train()
    model = network()
    cached = second_stage(
        model,
        tmp_path / "cached",
        train_dataset=CachedFeatures(*frozen_features(model, plain, 4, progress=False)),
        save_strategy="no",
    )
    cached.train()
    for a, b in zip(live.model.parameters(), cached.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_a_method_of_ours_trains_the_classifier_too(tmp_path):
    sam, sgd = (second_stage(network(), tmp_path / m, save_strategy="no", method=m) for m in ("focal_sam", "sgd"))
    for trainer in (sam, sgd):
        trainer.train()
    assert not torch.equal(sam.model.classifier.weight, sgd.model.classifier.weight)


def test_crt_starts_anew_by_the_seed_and_cc_sam_where_the_first_stage_ended(tmp_path):
    def start(stage, **settings):
        return second_stage(network(), tmp_path, stage, **settings).model.classifier.weight

    first = network().classifier.weight
    assert torch.equal(start("cc_sam"), first) and torch.equal(start("crt", stage_args={"reinitialise": False}), first)
    assert not torch.equal(start("crt"), first) and torch.equal(start("crt"), start("crt"))
    assert not torch.equal(start("crt"), start("crt", seed=4))


class Untold(torch.utils.data.Dataset):
    """Images that state no labels."""

    def __init__(self):
        self.rows = images(augment=False)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def test_labels_that_were_counted_are_known_to_the_sampler_and_the_checkpoint(tmp_path):
    args = LTSamConfig(
        str(tmp_path), method="sgd", sampling="class_balanced", max_steps=2, report_to="none", use_cpu=True
    )
    trainer = SecondStageTrainer(network(), make_second_stage("crt"), args, Untold())
    trainer.train()
    assert trainer.class_statistics.counts == COUNTS
    assert trainer.identity()["training_labels_sha256"] == label_fingerprint(images().labels)


def test_a_damaged_best_head_is_not_loaded(tmp_path):
    trainer = second_stage(network(), tmp_path, save_strategy="steps", eval_strategy="steps", eval_steps=5)
    trainer.train()
    trainer.state.best_model_checkpoint = str(tmp_path / "checkpoint-5")
    (tmp_path / "checkpoint-5" / "optimizer.pt").unlink()
    trainer._load_best_model()
    head = tmp_path / "checkpoint-5" / "second_stage_head.safetensors"
    head.write_bytes(head.read_bytes()[:-4] + bytes(4))
    with pytest.raises(ValueError, match=r"best model cannot be loaded from .*second_stage_head.safetensors has other"):
        trainer._load_best_model()


def test_the_loss_of_cc_sam_is_told_the_epoch(tmp_path):
    trainer = second_stage(network(), tmp_path, "cc_sam", save_strategy="no")
    told, epoch = [], trainer.loss.epoch
    trainer.loss.epoch = lambda: told.append(epoch()) or told[-1]
    trainer.train()
    assert told == [0] * 10 + [1] * 10 + [2] * 10


def test_lws_trains_one_factor_for_each_class(tmp_path):
    trainer = second_stage(network(), tmp_path, "lws")
    trainer.train()
    trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert trained == ["scales"] and trainer.model.scales.shape == (4,)
    first, now = network().classifier, trainer.put_into_model().classifier
    s = trainer.model.scales.detach()
    assert not torch.equal(s, torch.ones(4))
    torch.testing.assert_close(now.weight, s[:, None] * first.weight)
    torch.testing.assert_close(now.bias, s * first.bias)


def test_a_checkpoint_says_what_it_is_and_another_stage_does_not_resume_it(tmp_path):
    second_stage(network(), tmp_path, "cc_sam", max_steps=5).train()
    saved = json.loads((tmp_path / "checkpoint-5" / "ltsam.json").read_text())
    assert saved["second_stage"]["name"] == "cc_sam" and saved["second_stage"]["args"]["ramp_epochs"] == 30
    assert saved["loss"]["name"] == "cross_entropy" and saved["sampling"] == "class_aware"
    for change in ({"stage": "crt"}, {"stage": "cc_sam", "stage_args": {"cap": 0.3}}):
        with pytest.raises(ValueError, match="second_stage:"):
            second_stage(network(), tmp_path, **change).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="second_stage:"):
        second_stage(network(seed=1), tmp_path, "cc_sam").train(resume_from_checkpoint=True)


def test_refusals(tmp_path):
    for stage in ("lws", "tau_norm"):
        with pytest.raises(ValueError, match=r"ends in a CosineClassifier.*crt and cc_sam"):
            second_stage(network("cosine"), tmp_path, stage)
    with pytest.raises(ValueError, match="CCSAMStage perturbs features and SAM weights: set method='sgd'"):
        second_stage(network(), tmp_path, "cc_sam", method="sam")
    with pytest.raises(ValueError, match="use loss='cross_entropy'"):
        second_stage(network(), tmp_path, "cc_sam", loss="influence_balanced")
    with pytest.raises(ValueError, match="the classifier of a second stage notes down its inputs"):
        second_stage(network(), tmp_path, cuda_graphs=True)
    with pytest.raises(
        ValueError, match="TauNorm trains nothing, so there is no training: choose_tau and tau_normalise"
    ):
        second_stage(network(), tmp_path / "tau", "tau_norm").train()
    assert not RunFolder(tmp_path / "tau").has("metrics.json")
    with pytest.raises(ValueError, match=r"Unknown second stage 'ctr'. Did you mean 'crt'"):
        make_second_stage("ctr")
    with pytest.raises(ValueError, match=r"has no argument 'rampepochs'. Did you mean 'ramp_epochs'"):
        make_second_stage("cc_sam", rampepochs=3)
    with pytest.raises(ValueError, match=r"cap=\.\.\."):
        make_second_stage("cc_sam", cap=2)
    two = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    with pytest.raises(ValueError, match="could each be it"):
        second_stage(two, tmp_path)


def test_a_checkpoint_of_something_else(tmp_path):
    trainer = second_stage(network(), tmp_path)
    with pytest.raises(ValueError, match="is no checkpoint of a second stage"):
        trainer._load_from_checkpoint(str(tmp_path))


def test_an_adapter_run(tmp_path):
    """Its classifier is what peft trains beside the adapter."""
    from peft import LoraConfig, get_peft_model

    def adapted():
        torch.manual_seed(2)
        model = get_peft_model(network(), LoraConfig(target_modules=["conv1"], r=2, modules_to_save=["classifier"]))
        nn.init.normal_(model.base_model.model.conv1.lora_B["default"].weight)
        return model

    first, trainer = adapted(), second_stage(adapted(), tmp_path, max_steps=5)
    trainer.train()
    names = differing(first, trainer.put_into_model())
    assert names == {f"base_model.model.classifier.modules_to_save.default.{p}" for p in ("weight", "bias")}
    trainer.save_model()
    assert (tmp_path / "adapter_model.safetensors").is_file() and not (tmp_path / "model.safetensors").is_file()


def few_shot(model, seed):
    test = images((40,) * 4, seed + 100, False)
    pixels = torch.stack([row["pixel_values"] for row in test])
    with torch.no_grad():
        right = model.eval()(pixels).logits.argmax(1) == test.labels
    return float(right[torch.isin(test.labels, torch.tensor([2, 3]))].float().mean())


def test_rare_classes_gain(tmp_path, seed=0):
    """A first stage in which frequent classes win; then every second stage, on the same features."""
    from hf_ltsam import LTSamConfig, LTSamTrainer

    settings = {
        "output_dir": str(tmp_path),
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
    }
    first = LTSamTrainer(
        network(seed=seed), LTSamConfig(method="sgd", num_train_epochs=6, lr_scheduler_type="cosine", optim="sgd", optim_args="momentum=0.9", max_grad_norm=0.0, learning_rate=0.05, seed=seed, per_device_train_batch_size=16, **settings),
        train_dataset=images(seed=seed), class_statistics=STATISTICS,
    )  # fmt: skip
    first.train()
    before = few_shot(first.model, seed)
    state = {name: value.clone() for name, value in first.model.state_dict().items()}
    for stage, gain in (("crt", 0.2), ("lws", 0.05), ("cc_sam", 0.1)):
        model = network(seed=seed)
        model.load_state_dict(state)
        args = {"ramp_epochs": 6} if stage == "cc_sam" else {}
        features = CachedFeatures(*frozen_features(model, images(seed=seed, augment=False), 4, progress=False))
        second = second_stage(
            model, tmp_path, stage, features, stage_args=args, num_train_epochs=6, save_strategy="no", seed=seed
        )
        second.train()
        assert few_shot(second.put_into_model(), seed) > before + gain, stage
    assert isinstance(second, SecondStageTrainer) and sum(COUNTS) == len(images())


def first_stage(folder):
    """A run that was made in Python, and its model loaded from there."""
    trainer = LTSamTrainer(
        network(),
        LTSamConfig(str(folder), use_cpu=True, max_steps=1, learning_rate=0.01, method="sam", disable_tqdm=True),
        train_dataset=images(),
        eval_dataset=images((5,) * 4, 1, False),
        class_statistics=STATISTICS,
    )
    trainer.train()
    return CifarResNetForImageClassification.from_pretrained(folder)


@pytest.mark.parametrize("stage", ["crt", "cc_sam"])
def test_a_stage_made_in_python_is_saved_as_one(stage, tmp_path):
    """At the end of train(): with the stage, its paper, and the run that it started from."""
    made = second_stage(first_stage(tmp_path / "first" / "seed0"), tmp_path / "stage" / "seed0", stage, max_steps=2)
    made.train()
    saved, first = RunFolder(tmp_path / "stage" / "seed0"), RunFolder(tmp_path / "first" / "seed0").finished_record()
    record = saved.finished_record()
    kind = SECOND_STAGES[stage]
    described = {name: record.second_stage[name] for name in ("name", "title", "source", "citations")}
    assert described == {"name": stage, "title": kind.title, "source": kind.source, "citations": list(kind.citations)}
    assert record.second_stage["first_stage"] == {
        "folder": str(tmp_path / "first" / "seed0"),
        "weights_sha256": made.first_stage_sha256,
        "method": first.method,
        "loss": first.loss,
    }
    assert record.model["model"] == str(tmp_path / "first" / "seed0") and record.loss["name"] == "cross_entropy"
    assert saved.recipe.settings["second_stage"] == stage and saved.recipe.settings["loss"] == "cross_entropy"
    assert f"the second stage {kind.title}" in model_card(read_facts(saved.path), "me/out").text
    assert experiment_of(record, saved.recipe)["first_stage"]["folder"] == str(tmp_path / "first" / "seed*")


def test_a_stage_on_other_weights_does_not_name_a_run(tmp_path):
    """Those that were changed in memory, or lie nowhere."""
    model = first_stage(tmp_path / "first")
    torch.nn.init.ones_(model.classifier.bias)
    made = second_stage(model, tmp_path / "stage", save_strategy="no", max_steps=1)
    made.train()
    assert not RunFolder(tmp_path / "stage").has("metrics.json")  # as of any training that leaves no checkpoint
    origin = {"folder": "CifarResNetForImageClassification in memory", "weights_sha256": made.first_stage_sha256}
    assert made.save_run().second_stage["first_stage"] == origin
    with pytest.raises(ValueError, match=r"save_run\(first_stage='.*first'\) has other weights than the model that"):
        made.save_run(first_stage=tmp_path / "first")
    with pytest.raises(ValueError, match=r"save_run\(first_stage='here'\) is for a SecondStageTrainer"):
        LTSamTrainer(network(), LTSamConfig(str(tmp_path)), train_dataset=images()).save_run(first_stage="here")


def test_a_stage_may_be_told_the_run_of_its_model(tmp_path):
    weights = first_stage(tmp_path / "first").state_dict()
    model = network()
    model.load_state_dict(weights)  # which does not say where it was loaded from
    made = second_stage(model, tmp_path / "stage", save_strategy="no", max_steps=1)
    record = made.save_run(first_stage=tmp_path / "first")
    assert record.second_stage["first_stage"]["folder"] == str(tmp_path / "first")
