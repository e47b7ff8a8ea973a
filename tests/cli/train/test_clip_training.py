"""CLIP, ViTs with a cosine head and adapters through the training script; what it saves, loads and exports."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cli.picture_folders import CLASSES, draw_images
from forked import PYTHON
from models.clips import architecture, open_clip_checkpoint, transformers_clip
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.functional import resize, to_tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    pipeline,
)

from hf_ltsam.cli import main as cli
from hf_ltsam.cli.evaluate import command as evaluate_ood
from hf_ltsam.cli.sharpness import command as analyze_sharpness
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.data import prepare
from hf_ltsam.cli.train.model import ImageFormat
from hf_ltsam.cli.train.saved_run import open_run
from hf_ltsam.cli.train.splits import load_splits
from hf_ltsam.models import ClipForLongTail, CosineHeadForImageClassification
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.model import load_run
from hf_ltsam.runs.shift.checkpoint import load_checkpoint
from hf_ltsam.runs.shift.results import read_results

QUICK = [
    "--use_cpu",
    "true",
    "--learning_rate",
    "0.01",
    "--per_device_train_batch_size",
    "4",
    "--max_steps",
    "2",
    "--save_strategy",
    "no",
]


@pytest.fixture
def open_clip_name(tmp_path):
    """16 pixels, so that the pictures of 12 are scaled; the numbers of the tower and of the classifier differ."""
    return open_clip_checkpoint(tmp_path, "tiny-script", architecture())[1]


@pytest.fixture
def vit(tmp_path):
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 12,
        "patch_size": 4,
    }
    ViTForImageClassification(ViTConfig(num_labels=7, **sizes)).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 12, "width": 12}).save_pretrained(tmp_path / "vit")
    return str(tmp_path / "vit")


def words(images, out, model, *more):
    return ["--dataset", str(images), "--output_dir", str(out), "--model", model, *QUICK, *more]


def logits(model):
    with torch.no_grad():
        return model(pixel_values=torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)).logits


def refused(capsys, command, *arguments):
    with pytest.raises(SystemExit) as exit_:
        command([str(a) for a in arguments])
    assert exit_.value.code == 2
    return capsys.readouterr().err


# --- CLIP -------------------------------------------------------------------------------------------------------------


def test_full_fine_tuning_of_clip(images, open_clip_name, tmp_path):
    out = tmp_path / "run"
    train.main(
        words(images, out, open_clip_name, "--adapter", "none", "--method", "focal_sam", "--loss", "logit_adjustment")
    )
    model = AutoModelForImageClassification.from_pretrained(out)
    start = ClipForLongTail.from_clip(open_clip_name, CLASSES, progress=False)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, dict(start.named_parameters())[name])}
    assert any("layers.0" in name for name in moved) and "classifier.weight" in moved
    assert not any(part in name for name in moved for part in ("embeddings", "pre_layrnorm", "post_layernorm"))
    assert model.config.id2label == dict(enumerate(CLASSES)) and model.classifier.scale == 25.0
    processor = AutoImageProcessor.from_pretrained(out)
    assert (
        processor.image_mean == pytest.approx([0.48145466, 0.4578275, 0.40821073])
        and processor.crop_size["height"] == 16
    )
    best = pipeline("image-classification", model=str(out), device="cpu")(str(next((images / "test").rglob("*.png"))))[
        0
    ]
    assert best["label"] in CLASSES
    torch.testing.assert_close(logits(load_run(out)), logits(model), rtol=0, atol=0)


def test_an_adapter_run_is_small_and_loads_in_a_fresh_process(images, open_clip_name, tmp_path):
    out = tmp_path / "run"
    train.main(
        words(
            images,
            out,
            open_clip_name,
            "--adapter",
            "lora",
            "--adapter_args",
            '{"r": 2}',
            "--learnable_scale",
            "true",
            "--cosine_scale",
            "20",
        )
    )
    assert not (out / "model.safetensors").exists()
    assert (out / "adapter_model.safetensors").stat().st_size < 30_000
    assert RunFolder(out).finished_record().model["adapter_args"] == {"r": 2}
    model = load_run(out)
    assert isinstance(model, PeftModel) and not model.training
    start = ClipForLongTail.from_clip(open_clip_name, CLASSES, cosine_scale=20.0, progress=False)
    assert not torch.equal(logits(model), logits(start))
    with model.disable_adapter():  # peft takes trained heads away with the adapter: the text's are not kept
        assert model.get_base_model().config.id2label == dict(enumerate(CLASSES))
    scale = next(p for name, p in model.named_parameters() if "modules_to_save" in name and name.endswith("scale"))
    assert scale.item() != 20.0
    # a fresh process must first know the made-up architecture, which people's models do not need
    code = f"""
import open_clip, torch
open_clip.add_model_config({str(tmp_path / "tiny-script.json")!r})
from hf_ltsam.runs.model import load_run
model = load_run({str(out)!r})
x = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
torch.save(model(pixel_values=x).logits.detach(), {str(tmp_path / "y.pt")!r})
"""
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "y.pt"), logits(model))


@pytest.mark.parametrize("init", ["class_mean", "linear_probe", "random"])
def test_other_starts(images, open_clip_name, tmp_path, init):
    out = tmp_path / init
    train.main(
        words(
            images,
            out,
            open_clip_name,
            "--init",
            init,
            "--max_per_class",
            "2",
            "--learning_rate",
            "1e-9",
            "--method",
            "sgd",
        )
    )
    weight = AutoModelForImageClassification.from_pretrained(out).classifier.weight.detach()
    text = ClipForLongTail.from_clip(open_clip_name, CLASSES, progress=False).classifier.weight.detach()
    assert not torch.allclose(weight, text, atol=1e-2)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(3))
    overall = RunFolder(out).finished_record().results["test"]["overall"]
    assert overall > 0.8 or init == "random"  # the colour tells the class


def test_templates_and_names_for_the_prompts(images, tmp_path, capsys):
    transformers_clip(tmp_path / "clip")
    (tmp_path / "names.txt").write_text("tabby\nhound\nbarn owl\n")
    (tmp_path / "templates.txt").write_text("a sketch of a {}.\n{}\n")
    more = [
        "--templates",
        str(tmp_path / "templates.txt"),
        "--prompt_names",
        str(tmp_path / "names.txt"),
        "--learning_rate",
        "1e-9",
    ]
    train.main(words(images, tmp_path / "run", str(tmp_path / "clip"), *more))
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    start = ClipForLongTail.from_clip(
        str(tmp_path / "clip"), ["tabby", "hound", "barn owl"], ("a sketch of a {}.", "{}"), progress=False
    )
    torch.testing.assert_close(model.classifier.weight, start.classifier.weight)
    assert model.config.id2label == dict(enumerate(CLASSES))  # the data set's own names stay
    (tmp_path / "names.txt").write_text("tabby\n")
    message = refused(capsys, train.main, *words(images, tmp_path / "no", str(tmp_path / "clip"), *more))
    assert "1 names" in message and "3 classes" in message


# --- what comes after the training ------------------------------------------------------------------------------------


def test_an_adapter_run_and_its_checkpoints_are_evaluated_and_analysed(images, tmp_path):
    transformers_clip(tmp_path / "clip")
    out = tmp_path / "run"
    train.main(
        words(
            images,
            out,
            str(tmp_path / "clip"),
            "--adapter",
            "adaptformer",
            "--save_strategy",
            "steps",
            "--save_steps",
            "1",
        )
    )
    trained = load_run(out, trainable=True)
    for folder in (out, out / "checkpoint-1"):
        assert (
            load_checkpoint(str(folder)).fingerprint == load_checkpoint(str(folder)).fingerprint
        )  # restarts find their results
    evaluate_ood.main(["--model", str(out), "--sets", str(images / "test"), "--use_cpu"])
    result = read_results(out / "evaluation" / "ood_results.json")["sets"][str(images / "test")]["result"]
    assert result["overall"] == pytest.approx(RunFolder(out).finished_record().results["test"]["overall"])
    analyze_sharpness.main([str(out), "--classes", "2", "--checkpoints", "--lanczos_steps", "3"])
    results = json.loads((out / "sharpness" / "sharpness.json").read_text())
    assert results["trainable_parameters"] == sum(p.numel() for p in trained.parameters() if p.requires_grad)
    assert {point["step"] for point in results["evolution"].values()} == {1, 2}
    seen = open_run(out).training_data(trained, progress=False).plain_train[0]["pixel_values"]
    assert seen.shape == (3, 16, 16)  # the tower's size, not the pictures' 12


def test_the_curvature_of_full_fine_tuning_is_that_of_what_was_trained(images, open_clip_name, tmp_path):
    out = tmp_path / "run"
    train.main(words(images, out, open_clip_name, "--adapter", "none"))
    frozen = {name for name, p in open_run(out).model().named_parameters() if not p.requires_grad}
    assert any("embeddings" in name for name in frozen) and not any("layers." in name for name in frozen)


# --- other models -----------------------------------------------------------------------------------------------------


def test_a_vit_with_a_cosine_head_a_start_from_images_and_an_adapter(images, vit, tmp_path):
    out = tmp_path / "run"
    more = [
        "--head",
        "cosine",
        "--init",
        "class_mean",
        "--adapter",
        "adaptformer",
        "--adapter_args",
        '{"bottleneck": 2}',
    ]
    train.main(words(images, out, vit, *more, "--loss", "ldam", "--loss_args", '{"s": 25}'))
    model = load_run(out)
    assert isinstance(model.get_base_model(), CosineHeadForImageClassification)
    x = torch.randn(2, 3, 12, 12)
    assert model(pixel_values=x).logits.shape == (2, 3) and model(pixel_values=x).logits.abs().max() <= 25
    weight = torch.nn.functional.normalize(next(p for n, p in model.named_parameters() if "modules_to_save" in n))
    assert (weight @ weight.T).min() > 0.5  # means of features are alike, random directions are not


def test_a_vit_with_its_linear_head_and_an_adapter(images, vit, tmp_path):
    train.main(words(images, tmp_path / "run", vit, "--adapter", "lora"))
    assert load_run(tmp_path / "run")(pixel_values=torch.randn(1, 3, 12, 12)).logits.shape == (1, 3)


def test_a_stored_half_precision_is_trained_saved_and_analysed_in_float32(images, vit, tmp_path):
    """Also where tests run in half precision, which leaves the model so; a run that was saved in it can be analysed."""
    half, out = tmp_path / "half", tmp_path / "run"
    shutil.copytree(vit, half)
    AutoModelForImageClassification.from_pretrained(vit).bfloat16().save_pretrained(half)
    train.main(words(images, out, str(half), "--method", "sam", "--bf16_full_eval", "true"))
    before, after = (load_file(folder / "model.safetensors") for folder in (half, out))
    assert {t.dtype for t in before.values()} == {torch.bfloat16} and {t.dtype for t in after.values()} == {
        torch.float32
    }
    assert all((before[name].float() != t).any() for name, t in after.items() if name.endswith("query.weight"))
    AutoModelForImageClassification.from_pretrained(out).bfloat16().save_pretrained(out)
    analyze_sharpness.main([str(out), "--groups", "all", "--lanczos_steps", "2", "--trace_probes", "1"])
    assert (out / "sharpness" / "sharpness.json").is_file()


# --- export -----------------------------------------------------------------------------------------------------------


def test_export_merges_what_can_be_merged(images, open_clip_name, tmp_path):
    run, out = tmp_path / "run", tmp_path / "plain"
    train.main(
        words(images, run, open_clip_name, "--adapter", "lora", "--adapter_args", '{"r": 2}', "--learning_rate", "1")
    )
    cli.main(["export", str(run), str(out)])
    plain = AutoModelForImageClassification.from_pretrained(out)
    assert type(plain) is ClipForLongTail
    torch.testing.assert_close(logits(plain), logits(load_run(run)), rtol=1e-4, atol=1e-4)
    assert not (out / "adapter_config.json").exists()
    merged, trained = (
        RunFolder(out).finished_record(),
        RunFolder(run).finished_record(),
    )  # the same results, now of the merged weights
    assert (
        replace(merged, weights_sha256="") == replace(trained, weights_sha256="")
        and trained.weights_sha256 == RunFolder(run).weights_sha256
    )
    assert merged.weights_sha256 == RunFolder(out).weights_sha256 != trained.weights_sha256
    assert AutoImageProcessor.from_pretrained(out).to_dict() == AutoImageProcessor.from_pretrained(run).to_dict()
    cli.main(["export", str(out), str(tmp_path / "again")])  # a whole model is copied
    assert torch.equal(logits(load_run(tmp_path / "again")), logits(plain))


def test_export_refuses(images, open_clip_name, tmp_path, capsys):
    run = tmp_path / "run"
    train.main(words(images, run, open_clip_name, "--adapter", "adaptformer", "--adapter_args", '{"bottleneck": 2}'))
    message = refused(capsys, cli.main, "export", run, tmp_path / "plain")
    assert "cannot become part of the weights" in message and "load_run" in message and str(run) in message
    assert not (tmp_path / "plain").exists()
    assert "not empty" in refused(capsys, cli.main, "export", run, run)
    assert "no finished run" in refused(capsys, cli.main, "export", tmp_path, tmp_path / "plain")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, more, said",
    [
        ("cifar_resnet", ["--init", "text"], ["--init", "cifar_resnet"]),
        ("cifar_resnet", ["--adapter", "lora"], ["--adapter", "cifar_resnet"]),
        ("open_clip:ViT-B-16/openai", ["--init", "texts"], ["--init texts", "'text'"]),
        ("open_clip:ViT-B-16/openai", ["--templates", "clip81"], ["clip81", "clip80"]),
        ("open_clip:ViT-B-16/openai", ["--head", "cosin"], ["--head cosin", "'cosine'"]),
        ("open_clip:ViT-B-16/openai", ["--adapter", "adaptfomer"], ["--adapter adaptfomer", "'adaptformer'"]),
        ("open_clip:ViT-B-16/openai", ["--adapter_args", '{"r": 1}'], ["--adapter_args", "--adapter"]),
        ("open_clip:ViT-B-16/openai", ["--max_per_class", "0"], ["--max_per_class must be positive"]),
        ("open_clip:ViT-B-16/openai", ["--prompt_names", "/no/file"], ["--prompt_names /no/file"]),
    ],
)
def test_settings_are_refused_before_data_are_loaded(model, more, said, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "load_splits", lambda *_: pytest.fail("time was spent"))
    message = refused(capsys, train.main, *words(images, tmp_path / "run", model, *more))
    assert all(part in message for part in said), message


def test_what_does_not_go_together(images, open_clip_name, vit, tmp_path, capsys):
    for model, more, said in (
        (open_clip_name, ["--pretrained", "false"], "--pretrained false"),
        (open_clip_name, ["--image_size", "12"], "takes images of 16 pixels"),
        (open_clip_name + "x", [], "neither a tag"),
        (vit, ["--init", "text"], "no CLIP"),
        (vit, ["--init", "linear_probe"], "--head cosine"),
    ):
        assert said in refused(capsys, train.main, *words(images, tmp_path / "run", model, *more))
    assert not list(Path(tmp_path / "run").glob("*.safetensors"))


def test_the_short_side_of_test_images(tmp_path, capsys):
    draw_images(tmp_path / "large" / "train", (2, 2, 2), 100)
    draw_images(tmp_path / "large" / "test", (1, 1, 1), 100, seed=1)
    run = parse(
        ["--dataset", str(tmp_path / "large"), "--image_size", "72", "--test_short_side", "72", "--use_cpu", "true"]
    )
    splits = load_splits(run.data)
    data = prepare(splits, run.data, ImageFormat(72, ((0.0,) * 3, (1.0,) * 3)), seed=0, progress=False)
    file = sorted((tmp_path / "large" / "test").rglob("*.png"))[0]
    expected = resize(Image.open(file), [72])  # and nothing is cut away
    torch.testing.assert_close(data.test[0]["pixel_values"], to_tensor(expected), rtol=0, atol=1.01 / 255)
    assert data.preprocessing.short_side == 72 and data.plain_train[0]["pixel_values"].shape == (3, 72, 72)
    assert torch.equal(data.plain_train[0]["pixel_values"], data.plain_train[0]["pixel_values"])  # not augmented
    message = refused(
        capsys,
        train.main,
        *words(tmp_path / "large", tmp_path / "run", "cifar_resnet", "--image_size", "72", "--test_short_side", "64"),
    )
    assert "--test_short_side 64" in message and "72" in message
