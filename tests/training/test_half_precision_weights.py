"""Weights are trained in float32 however they come; what half precision makes of a perturbation is in the logs."""

import logging
import shutil

import pytest
import torch
from adapters.tiny import DINOV2, IMAGES, NUM_CLASSES, with_head
from models.clips import transformers_clip
from peft import LoraConfig, get_peft_model
from torch import nn
from training.toy import STATISTICS, ToyBatches
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    ViTImageProcessor,
)

from hf_ltsam import LTSamConfig, LTSamTrainer, load_run
from hf_ltsam.adapters import make_adapter
from hf_ltsam.adapters.factory import ADAPTERS
from hf_ltsam.cli.train.model import build_model
from hf_ltsam.cli.train.settings import ModelArguments
from hf_ltsam.landscape.vector import WeightVector
from hf_ltsam.landscape.weights import StoredOffset, TrainableWeights
from hf_ltsam.models import ClipForLongTail, CosineHeadForImageClassification
from hf_ltsam.models.trained_weights import check_types_of, is_half
from hf_ltsam.training.telemetry import Telemetry

CLASSES = [f"class{c}" for c in range(NUM_CLASSES)]


def types(model, trained=None):
    return {p.dtype for p in model.parameters() if trained is None or p.requires_grad == trained}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Folders of models in half precision, by the kind of the model and the type."""
    folder = tmp_path_factory.mktemp("stored")
    with_head("vit").bfloat16().save_pretrained(folder / "vit")
    with_head("vit").half().save_pretrained(folder / "vit16")
    Dinov2ForImageClassification(Dinov2Config(**DINOV2, num_labels=NUM_CLASSES)).bfloat16().save_pretrained(
        folder / "dinov2"
    )
    for name in ("vit", "vit16", "dinov2"):
        ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder / name)
    CosineHeadForImageClassification.of(with_head("vit").bfloat16()).save_pretrained(folder / "cosine")
    transformers_clip(folder / "clip")
    AutoModel.from_pretrained(folder / "clip").bfloat16().save_pretrained(folder / "half_clip")
    ClipForLongTail.from_clip(str(folder / "clip"), CLASSES, dtype=torch.bfloat16).save_pretrained(folder / "clip_run")
    clip = ClipForLongTail.from_clip(str(folder / "clip"), CLASSES, dtype=torch.bfloat16)
    make_adapter(clip, "lora", {"r": 2}, NUM_CLASSES).save_pretrained(folder / "clip_adapter_run")
    clip.save_pretrained(folder / "clip_of_adapter")  # which writes the type into the configuration
    shutil.copy(folder / "clip_of_adapter" / "config.json", folder / "clip_adapter_run")
    base = AutoModelForImageClassification.from_pretrained(folder / "vit", dtype=torch.bfloat16)
    adapted = make_adapter(base, "lora", {"r": 2}, NUM_CLASSES)
    adapted.save_pretrained(folder / "adapter_run")
    base.config.save_pretrained(folder / "adapter_run")
    return folder


def built(folder, **settings):
    return build_model(ModelArguments(model=str(folder), **settings), CLASSES, progress=False)


WAYS = {
    "ltsam train": lambda stored: built(stored / "vit"),
    "ltsam train, float16": lambda stored: built(stored / "vit16"),
    "ltsam train, a cosine head": lambda stored: built(stored / "dinov2", head="cosine"),
    "ltsam train, from a run with a cosine head": lambda stored: built(stored / "cosine"),
    "ltsam train, from a run of a CLIP": lambda stored: built(stored / "clip_run", init="random"),
    "ltsam train, at random": lambda stored: built(stored / "vit", pretrained=False),
    "load_run": lambda stored: load_run(stored / "vit"),
    "load_run, a cosine head": lambda stored: load_run(stored / "cosine"),
    "load_run, a CLIP": lambda stored: load_run(stored / "clip_run"),
    "load_run, an adapter": lambda stored: load_run(stored / "adapter_run", trainable=True),
    "load_run, an adapter on a CLIP": lambda stored: load_run(stored / "clip_adapter_run"),
    "a CLIP": lambda stored: ClipForLongTail.from_clip(str(stored / "half_clip"), CLASSES, init="random"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_loading_gives_float32(way, stored):
    assert types(WAYS[way](stored)) == {torch.float32}


@pytest.mark.parametrize("kind", ["vit", "half_clip"])
def test_ltsam_train_says_so_once(kind, stored, caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        built(stored / kind, **({} if kind == "vit" else {"init": "random"}))
    assert len([r for r in caplog.records if "bfloat16" in r.getMessage() and "--bf16 true" in r.getMessage()]) == 1


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("adapter", [*ADAPTERS, "linear_probe", "none"])
def test_under_an_adapter_frozen_weights_stay_half(adapter, autocast):
    half, single = (with_head("vit") for _ in range(2))
    model = make_adapter(half.bfloat16(), adapter, num_classes=NUM_CLASSES)
    assert types(model, trained=True) == {torch.float32} and types(model, trained=False) == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model.eval()(pixel_values=IMAGES).logits
        logits.float().sum().backward()
        torch.manual_seed(0)
        expected = make_adapter(single, adapter, num_classes=NUM_CLASSES).eval()(pixel_values=IMAGES).logits
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    if adapter not in ("vpt_deep", "vpt_shallow"):  # whose start is random
        torch.testing.assert_close(logits.float(), expected.float(), rtol=0.1, atol=0.15)


# What the trainer makes of a model that comes in half precision.


class Wide(nn.Module):
    """x (n, 3) -> logits (n, 4), with weights of about 1, beside which a perturbation is small."""

    def __init__(self, dtype, factors=False):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.classifier = nn.Linear(3, 64), nn.Linear(64, 4)
        if factors:  # as LoRA's: B starts at zero, so that A has no gradient yet
            self.a, self.b = nn.Linear(3, 2, bias=False), nn.Linear(2, 4, bias=False)
            nn.init.zeros_(self.b.weight)
            for p in (*self.fc1.parameters(), *self.classifier.parameters()):
                p.requires_grad = False
        self.factors = factors
        self.to(dtype)

    def forward(self, x):
        x = x.to(self.fc1.weight.dtype)
        logits = self.classifier(torch.tanh(self.fc1(x)))
        return logits + self.b(self.a(x)) if self.factors else logits


def trained(folder, model, method="sam", rho=0.05, **settings):
    args = {"max_steps": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-4, "logging_steps": 1}
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    config = LTSamConfig(str(folder), method=method, method_args={"rho": rho}, **{**args, **quiet, **settings})
    trainer = LTSamTrainer(model, config, train_dataset=ToyBatches(), class_statistics=STATISTICS)
    seen = []
    forward = model.forward

    def spying(x):
        seen.append([p.detach().clone() for p in model.parameters() if p.requires_grad])
        return forward(x)

    model.forward = spying
    trainer.train()
    logs = [log for log in trainer.state.log_history if "sam_eps_norm" in log]
    return logs, seen


def offset_of(first, second):
    """Norm of the difference of two passes' weights, and which of them did not move."""
    differences = torch.cat([(b.double() - a.double()).flatten() for a, b in zip(first, second)])
    return float(differences.norm()), float((differences == 0).double().mean())


@pytest.mark.parametrize(
    "method, dtype",
    [*((m, torch.bfloat16) for m in ("sam", "focal_sam", "looksam", "lpf_sgd", "cc_sam")), ("sam", torch.float16)],
)
def test_the_norm_in_the_logs_is_the_one_that_was_added(method, dtype, tmp_path, monkeypatch):
    """All methods move the weights through one door: what it makes of an offset is what the logs state."""
    made = []
    restore = TrainableWeights.restore

    def restoring(self):
        if self._unmoved:
            made.append(offset_of(self._unmoved, [p.detach() for p in self.parameters])[0])
        restore(self)

    monkeypatch.setattr(TrainableWeights, "restore", restoring)
    args = {"cc_sam": {"scale": 0.05, "parameters": "all"}, "lpf_sgd": {"gamma": 1e-3}}.get(method, {"rho": 0.02})
    settings = {"method_args": args, "exact_rows": False, "logging_steps": 2}
    config = LTSamConfig(
        str(tmp_path), method=method, max_steps=2, per_device_train_batch_size=8, learning_rate=1e-4, save_strategy="no",
        report_to="none", disable_tqdm=True, use_cpu=True, tail_threshold=20, **settings,
    )  # fmt: skip
    trainer = LTSamTrainer(Wide(dtype), config, train_dataset=ToyBatches(), class_statistics=STATISTICS)
    trainer.train()
    (log,) = (log for log in trainer.state.log_history if "sam_eps_norm" in log)
    assert made and log["sam_eps_norm"] == pytest.approx(sum(made) / len(made), rel=2e-3)


def test_weights_that_do_not_move_are_counted_and_warned_of_once(tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        logs, seen = trained(tmp_path, Wide(torch.bfloat16), rho=0.001)
    for log, k in zip(logs, (0, 2)):
        norm, still = offset_of(seen[k], seen[k + 1])
        assert log["sam_eps_norm"] == pytest.approx(norm, rel=1e-3) and log["sam_eps_norm"] != pytest.approx(
            0.001, rel=1e-2
        )
        assert log["sam_unmoved_share"] == pytest.approx(still, abs=0.02) and still > 0.5
    warned = [r.getMessage() for r in caplog.records]
    assert sum("of the trained weights are bfloat16" in text and "dtype=torch.float32" in text for text in warned) == 1
    assert sum("did not move" in text and "sam(" in text for text in warned) == 1


@pytest.mark.parametrize("half", [{"fp16": True}, {"bf16": True}])
def test_half_precision_without_effect_is_warned_of(half, tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        trained(tmp_path, Wide(torch.float32), rho=0.01, **half)
    warned = [r.getMessage() for r in caplog.records if "has no effect on this device" in r.getMessage()]
    assert len(warned) == ("fp16" in half)


@pytest.mark.parametrize("rho, lost", [(1e-3, False), (1e-7, True), (1e-9, True)], ids=["small", "tiny", "nothing"])
def test_radii_below_the_resolution_of_float32(rho, lost, tmp_path, caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        logs, seen = trained(tmp_path, Wide(torch.float32), rho=rho)
    warned = [r.getMessage() for r in caplog.records if "did not move" in r.getMessage()]
    assert len(warned) == lost and all("sam_unmoved_share" in log for log in logs) == lost
    for log, k in zip(logs, (0, 2)):
        expected = offset_of(seen[k], seen[k + 1])[0] if lost else rho
        assert log["sam_eps_norm"] == pytest.approx(expected, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize(
    "norm, unmoved, lost", [(0.05, 0.9, False), (0.04, 0.9, True), (0.04, 0.2, True), (0.04, 0.0, False)]
)
def test_weights_with_next_to_nothing_of_the_offset_are_no_loss(norm, unmoved, lost):
    """Below many layers whose gradients vanish most weights stay, and the offset is whole all the same."""
    telemetry = Telemetry()
    telemetry.stored_offset(StoredOffset(*map(torch.tensor, (0.05, norm, unmoved))))
    telemetry.perturbed_pass(torch.tensor(0.05), None, None)
    telemetry.end_step()
    assert telemetry.pop()["sam_eps_norm"] == pytest.approx(norm)
    assert (telemetry.lost is not None) == lost


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("passes, share", [("0", None), ("0 0", None), ("0 0.5", None), ("0 1e-9", 1.0)])
def test_passes_that_want_no_offset_say_nothing_about_digits(dtype, passes, share):
    """ImbSAM on a batch without a tail sample; the radii of the passes of one log."""
    weights, telemetry = TrainableWeights(Wide(dtype)), Telemetry()
    direction = WeightVector([torch.ones_like(p) for p in weights.parameters])
    for radius in map(float, passes.split()):
        nothing = WeightVector([torch.zeros_like(p) for p in weights.parameters])
        for offset in [radius * direction.unit()] if radius else [nothing.unit() * 0.05, 0.0 * direction]:
            with weights.moved(offset, measured=True) as stored:
                telemetry.stored_offset(stored)
            telemetry.perturbed_pass(offset.norm(), None, None)
            telemetry.end_step()
    logs = telemetry.pop()
    assert logs.get("sam_unmoved_share") == (None if share is None else pytest.approx(share, abs=0.1))
    assert (telemetry.lost is not None) == (share is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_factors_that_start_at_zero_move_and_their_partners_do_not_count(dtype, tmp_path):
    """B = 0 takes any offset; A has no gradient, so it is not among the weights that should have moved."""
    logs, _ = trained(tmp_path, Wide(dtype, factors=True), learning_rate=0.0)
    assert logs[0]["sam_eps_norm"] == pytest.approx(0.05, rel=1e-2) and "sam_unmoved_share" not in logs[0]


def test_float32_weights_are_measured_now_and_then_only(tmp_path, monkeypatch):
    measured = []
    moved = TrainableWeights.moved

    def watching(self, offset, measured_now=False):
        measured.extend([] if offset is None else [measured_now])
        return moved(self, offset, measured_now)

    monkeypatch.setattr(TrainableWeights, "moved", watching)
    trained(tmp_path, Wide(torch.float32), exact_rows=False)
    assert measured == [True, False]


def test_measuring_changes_nothing(tmp_path):
    """The same training with telemetry and without it, to the last bit."""
    states = []
    for telemetry in (True, False):
        model = Wide(torch.bfloat16)
        trained(tmp_path, model, "looksam", telemetry=telemetry, learning_rate=0.1)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_a_gradient_scaler_beside_float16_weights_is_refused():
    weights = [nn.Parameter(torch.zeros(3, dtype=torch.float16))]
    with pytest.raises(ValueError, match=r"fp16=True.*model\.float\(\)"):
        check_types_of(weights, scaled=True)
    assert "float16" in check_types_of(weights, scaled=False)
    assert check_types_of([nn.Parameter(torch.zeros(3))], scaled=True) is None


def test_adapters_of_peft_on_a_half_model_train_a_half_head():
    """Somebody's own: the head that peft copies is half precision, and the share says how much that is."""
    model = get_peft_model(
        with_head("vit").bfloat16(), LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"])
    )
    half = [p for p in model.parameters() if p.requires_grad and is_half(p)]
    assert half and "bfloat16" in check_types_of([p for p in model.parameters() if p.requires_grad], scaled=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_measured_offset_is_afterwards_what_it_would_be(dtype):
    """Its norm too, which a method may read after the pass."""
    from hf_ltsam.landscape.vector import WeightVector

    norms = []
    for measured in (True, False):
        weights = TrainableWeights(Wide(dtype))
        generator = torch.Generator().manual_seed(1)
        drawn = [torch.randn(p.shape, generator=generator).to(dtype) for p in weights.parameters]
        offset = WeightVector(drawn, 1e-3, fresh=True)
        with weights.moved(offset, measured) as stored:
            assert (stored is not None) == measured
        norms.append(offset.norm())
    assert torch.equal(*norms)
