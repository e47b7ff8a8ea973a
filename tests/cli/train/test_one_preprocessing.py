"""One description of the preprocessing: the test of a training, `ltsam evaluate`, `load_run`, pipelines, and a copy from the Hub."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from models.clips import transformers_clip
from peft import PeftModel
from PIL import Image, ImageOps
from transformers import (
    AutoImageProcessor,
    CLIPImageProcessor,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    pipeline,
)

from hf_ltsam import LTSamConfig, LTSamTrainer
from hf_ltsam.cli.evaluate.command import evaluate_model
from hf_ltsam.cli.evaluate.images import TestImages
from hf_ltsam.cli.export import export
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.cli.train.splits import load_splits
from hf_ltsam.data.decoding import encoded_images
from hf_ltsam.data.preprocessing import Preprocessing, saved_image_processor
from hf_ltsam.models.timm_config import state_image_processor
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.hub import run_files
from hf_ltsam.runs.model import load_run
from hf_ltsam.runs.shift.checkpoint import load_checkpoint

CLASSES = ("cat", "dog", "owl")
# Every kind of image file: odd sizes both ways, grey, with transparency, with a palette, turned by its EXIF.
SHAPES = [(131, 97), (97, 131), (65, 65), (33, 30), (201, 64), (99, 102), (70, 141)]
MODES = ["RGB", "L", "RGBA", "P", "LA", "RGB", "CMYK"]


def draw(folder, seed):
    """Smooth and noisy, so that a pixel's shift, another filter and another treatment of colours all show."""
    numbers = np.random.default_rng(seed)
    for k, ((width, height), mode) in enumerate(zip(SHAPES, MODES)):
        x, y = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
        pixels = np.stack([x, y, 200 - x, np.full_like(x, 90)], axis=-1) + numbers.integers(0, 55, (height, width, 4))
        image = Image.fromarray(pixels.astype(np.uint8), "RGBA")
        image = image if mode == "RGBA" else image.convert("RGB").convert(mode)
        path = folder / CLASSES[k % 3] / f"{k}.{'jpg' if mode == 'CMYK' else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if k == 5:
            exif[0x0112] = 6  # a quarter turn
        image.save(path, exif=exif)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw(folder / "train", 0)
    draw(folder / "test", 1)
    return folder


def spread(model):
    """Random weights whose logits differ from image to image."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(0.2 * torch.randn_like(weight) if weight.ndim > 1 or "bias" in name else 0)
    return model


def timm_model(folder, name="test_resnet", **form):
    size = form.pop("size", 96)
    stated = timm.create_model(name).pretrained_cfg  # bicubic, its own crop: not what the test does
    stated = {**stated, "input_size": [3, size, size], "crop_pct": 0.95, **form}
    arguments = {"img_size": size} if "vit" in name else None
    config = TimmWrapperConfig(architecture=name, num_labels=5, pretrained_cfg=stated, model_args=arguments)
    spread(TimmWrapperForImageClassification(config)).save_pretrained(folder)


def vit(folder, size=96):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    spread(ViTForImageClassification(ViTConfig(image_size=size, patch_size=size // 3, **sizes))).save_pretrained(folder)
    ViTImageProcessor(size={"height": size, "width": size}).save_pretrained(folder)  # by itself it squashes


def convnext(folder):
    config = ConvNextConfig(hidden_sizes=[4, 8, 8, 8], depths=[1, 1, 1, 1])
    spread(ConvNextForImageClassification(config)).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 96}).save_pretrained(folder)


def resnet(folder):
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic")
    spread(ResNetForImageClassification(config)).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(folder)


def swin(folder):
    config = SwinConfig(image_size=96, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4)
    spread(SwinForImageClassification(config)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 110}, crop_size={"height": 96, "width": 96}).save_pretrained(folder)


def clip(folder):
    transformers_clip(folder, "clip")


def siglip(folder):
    transformers_clip(folder, "siglip")


FAMILIES = {
    "timm": (timm_model, 65),
    "timm_small": (timm_model, 33),
    "timm_at_its_own_size": (timm_model, None),
    "timm_vit": (lambda folder: timm_model(folder, "test_vit", size=80), None),
    "timm_cosine": (timm_model, 97, "--head", "cosine"),
    "timm_lora": (timm_model, 65, "--adapter", "lora", "--adapter_args", '{"r": 2, "target_modules": ["conv2"]}'),
    "vit": (vit, None),
    "vit_lora": (vit, None, "--adapter", "lora", "--adapter_args", '{"r": 2}'),
    "vit_33": (lambda folder: vit(folder, 33), None),
    "convnext": (convnext, 97),
    "resnet": (resnet, 65),
    "resnet_30": (resnet, 30),
    "short_side": (resnet, 67, "--test_short_side", "72"),
    "swin": (swin, None),
    "clip": (clip, None, "--init", "random"),
    "siglip": (siglip, None, "--init", "random"),
    "ours_30": (None, 30, "--depth", "8"),
    "ours_33": (None, 33, "--depth", "8"),
    "ours_97": (None, 97, "--depth", "8"),
}


def words(pictures, tmp_path, family):
    build, size, *more = FAMILIES[family]
    if build is not None:
        build(tmp_path / "model")
        more += ["--model", str(tmp_path / "model")]
    if size is not None:
        more += ["--image_size", str(size)]
    quick = ["--use_cpu", "true", "--report_to", "none", "--disable_tqdm", "true", "--learning_rate", "0.01"]
    quick += ["--per_device_train_batch_size", "7", "--max_steps", "1", "--save_strategy", "no"]
    return ["--dataset", str(pictures), "--output_dir", str(tmp_path / "run"), *quick, *more]


def saved(pictures, tmp_path, family):
    """An untrained run in its folder; its test images as the trainer sees them (N, 3, H, W), and its logits (N, C)."""
    run = parse(words(pictures, tmp_path, family))
    splits = load_splits(run.data)
    trainer = train.build_trainer(run, splits)
    trainer.save_model()
    rows = trainer.eval_dataset
    pixels = torch.stack([rows[i]["pixel_values"] for i in range(len(rows))])
    return splits, pixels, trainer.predict(rows).predictions, trainer.processing_class


def levels(pixels, processor):
    """Normalised pixels as the 8-bit numbers that they were."""
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (processor.image_mean, processor.image_std))
    numbers = (pixels * std + mean) * 255
    assert (numbers - numbers.round()).abs().max() < 1e-2
    return numbers.round().to(torch.uint8)


def push(run, cache, name="owner/name"):
    """The files that an upload takes, where the client of the Hub keeps its downloads."""
    home = cache / f"models--{name.replace('/', '--')}"
    snapshot = home / "snapshots" / ("0" * 40)
    for path, file in run_files(run).items():
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, snapshot / path)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    return name


def check_readers(name, files, encoded, pixels, logits, processor):
    """Of a folder or a name on the Hub: everyone sees the pixels of the trainer, and computes its logits."""
    checkpoint = load_checkpoint(name)  # of `ltsam evaluate`
    images = TestImages(encoded, range(len(encoded)), checkpoint.preprocessing)
    assert torch.equal(torch.stack([images[i][0] for i in range(len(images))]), pixels)
    with torch.no_grad():
        np.testing.assert_allclose(checkpoint.model(pixel_values=pixels).logits, logits, rtol=1e-3, atol=1e-4)

    model, beside = load_run(name), AutoImageProcessor.from_pretrained(name)
    for read in (beside, saved_image_processor(name)):
        upright = [ImageOps.exif_transpose(Image.open(file)).convert("RGB") for file in files]
        assert torch.equal(
            levels(read(upright, return_tensors="pt")["pixel_values"], processor), levels(pixels, processor)
        )

    parts = {"model": model, "image_processor": beside} if isinstance(model, PeftModel) else {"model": name}
    classify = pipeline("image-classification", **parts)
    seen = torch.cat([classify.preprocess(str(file))["pixel_values"] for file in files])
    assert torch.equal(levels(seen, processor), levels(pixels, processor))
    assert (seen - pixels).abs().max() < 1e-5  # pipelines divide by 255 std, the training by 255 and by std
    for file, expected in zip(files, logits):
        answers = {a["label"]: a["score"] for a in classify(str(file), function_to_apply="none", top_k=len(CLASSES))}
        np.testing.assert_allclose([answers[c] for c in CLASSES], expected, rtol=1e-3, atol=1e-4)
        assert max(answers, key=answers.get) == CLASSES[expected.argmax()]


def places(splits):
    """Class and file name of every test image."""
    paths = [row["image"]["path"] for row in encoded_images(splits.test)]
    return [(int(c), path.rsplit("/", 1)[-1]) for c, path in zip(splits.test_labels, paths)]


@pytest.mark.parametrize("family", FAMILIES)
def test_everyone_sees_the_same_pixels(pictures, tmp_path, family, monkeypatch):
    splits, pixels, logits, processor = saved(pictures, tmp_path, family)
    encoded = encoded_images(splits.test)
    files = [pictures / "test" / CLASSES[c] / name for c, name in places(splits)]
    assert len(np.unique(logits, axis=0)) == len(files)  # otherwise nothing would be compared
    check_readers(str(tmp_path / "run"), files, encoded, pixels, logits, processor)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    pushed = push(tmp_path / "run", tmp_path / "cache")
    check_readers(pushed, files, encoded, pixels, logits, processor)


def test_accuracies_of_a_timm_run_are_equal(pictures, tmp_path):
    """Trained, evaluated, classified by a pipeline, exported."""
    run = tmp_path / "run"
    train.main([*words(pictures, tmp_path, "timm"), "--max_steps", "4"])
    reached = RunFolder(run).finished_record().results["test"]
    for folder in (run, tmp_path / "exported"):
        if folder != run:
            export(run, folder)
        results = evaluate_model(str(folder), [str(pictures / "test")], use_cpu=True)
        (evaluated,) = (of_set["result"] for of_set in results.sets.values())
        assert (evaluated["overall"], evaluated["groups"]) == (reached["overall"], reached["groups"])
        classify = pipeline("image-classification", model=str(folder))
        files = list((pictures / "test").rglob("*.*g"))
        right = [classify(str(path))[0]["label"] == path.parent.name for path in files]
        assert len(files) == reached["samples"] and np.mean(right) == reached["overall"]


def test_timm_reads_the_same_numbers(pictures, tmp_path):
    """timm looks at `pretrained_cfg` alone."""
    *_, processor = saved(pictures, tmp_path, "timm")
    stated = json.loads((tmp_path / "run" / "config.json").read_text())["pretrained_cfg"]
    read = Preprocessing.from_image_processor(TimmWrapperImageProcessor(stated))
    assert replace(read, by_pil=False) == Preprocessing.from_image_processor(processor)


def test_timms_rounding_of_the_short_side():
    config = TimmWrapperConfig()
    for short_side in range(32, 600):
        for side in {32, short_side - 1, short_side, round(short_side * 0.875)} - {31}:
            preprocessing = Preprocessing(side, side, short_side, (0.5,) * 3, (0.5,) * 3)
            state_image_processor(config, preprocessing.image_processor())
            assert math.floor(side / config.pretrained_cfg["crop_pct"]) == short_side


def test_a_timm_run_of_an_earlier_release_is_read_as_it_was_trained(pictures, tmp_path):
    """Its config.json did not name the image processor; of our own commands none reads past it."""
    *_, processor = saved(pictures, tmp_path, "timm")
    file = tmp_path / "run" / "config.json"
    values = json.loads(file.read_text())
    values["pretrained_cfg"] |= {"crop_pct": 0.95, "interpolation": "bicubic"}
    del values["image_processor_type"]
    file.write_text(json.dumps(values))
    assert load_checkpoint(str(tmp_path / "run")).preprocessing == Preprocessing.from_image_processor(processor)


def test_a_processor_of_ones_own_is_read_too(tmp_path):
    """In a script with timm's model and another image processor; timm's own is what config.json says anyway."""
    timm_model(tmp_path / "model")
    model = TimmWrapperForImageClassification.from_pretrained(tmp_path / "model")
    own = ViTImageProcessor(size={"height": 64, "width": 64}, resample=3)
    args = LTSamConfig(output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none")
    LTSamTrainer(model, args, processing_class=own).save_model()
    assert AutoImageProcessor.from_pretrained(tmp_path / "run").to_dict()["size"] == {"height": 64, "width": 64}
    stated = AutoImageProcessor.from_pretrained(tmp_path / "model")
    model = TimmWrapperForImageClassification.from_pretrained(tmp_path / "model")
    args = LTSamConfig(output_dir=str(tmp_path / "other"), use_cpu=True, report_to="none")
    LTSamTrainer(model, args, processing_class=stated).save_model()
    assert AutoImageProcessor.from_pretrained(tmp_path / "other").data_config == stated.data_config


@pytest.mark.parametrize(
    "mode, share, is_taken",
    [("center", 0.9, True), ("squash", 1.0, True), ("squash", 0.9, False), ("border", 1.0, False)],
)
def test_timms_ways_of_cropping(mode, share, is_taken):
    form = {"input_size": (3, 48, 48), "crop_mode": mode, "crop_pct": share, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    processor = TimmWrapperImageProcessor(form)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 65, 3), dtype=np.uint8))
    if is_taken:
        seen = Preprocessing.from_image_processor(processor)(image)
        torch.testing.assert_close(seen, processor(image)["pixel_values"][0], rtol=0, atol=1e-6)
    else:
        with pytest.raises(ValueError, match=f"crop_mode '{mode}'.*'center'"):
            Preprocessing.from_image_processor(processor)
