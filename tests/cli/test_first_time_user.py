"""What a first-time user stumbles over: found early, or done as expected."""

import json

import pytest
from transformers import CLIPImageProcessor, EfficientNetImageProcessor, MobileViTImageProcessor, ViTImageProcessor

from hf_ltsam import METHODS
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import parse, with_recipe
from hf_ltsam.cli.train.model import build_model, wanted_format
from hf_ltsam.cli.train.settings import ModelArguments
from hf_ltsam.runs.folder import RunFolder


def test_the_side_is_that_of_the_crop(tmp_path):
    CLIPImageProcessor(size={"shortest_edge": 110}, crop_size={"height": 96, "width": 96}).save_pretrained(tmp_path)
    assert wanted_format(ModelArguments(model=str(tmp_path))).size == 96
    CLIPImageProcessor(size={"shortest_edge": 110}, do_center_crop=False).save_pretrained(tmp_path)
    assert wanted_format(ModelArguments(model=str(tmp_path))).size == 110


STATED = {"size": {"height": 64, "width": 64}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2]}


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        (EfficientNetImageProcessor(**STATED), (0.5, 0.4, 0.3), (0.25, 0.0625, 0.2 * 0.2)),
        (EfficientNetImageProcessor(**STATED, include_top=False), (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)),
        (ViTImageProcessor(**STATED), (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)),
        (ViTImageProcessor(**STATED, do_normalize=False), (0.0,) * 3, (1.0,) * 3),
        (MobileViTImageProcessor(do_flip_channel_order=False), (0.0,) * 3, (1.0,) * 3),
    ],
)
def test_a_pretrained_model_gets_the_values_that_it_was_trained_on(processor, mean, std, tmp_path):
    processor.save_pretrained(tmp_path)
    assert wanted_format(ModelArguments(model=str(tmp_path))).normalisation == (mean, std)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (MobileViTImageProcessor(), "blue, green and red"),
        (ViTImageProcessor(**STATED, rescale_factor=1 / 127.5), "does not scale pixels by 1/255"),
    ],
)
def test_a_pretrained_model_whose_values_cannot_be_made(processor, message, tmp_path):
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        wanted_format(ModelArguments(model=str(tmp_path)))


def test_a_linear_head_has_no_scale():
    arguments = ModelArguments(model="timm/test_vit.r160_in1k", pretrained=False, learnable_scale=True)
    with pytest.raises(ValueError, match="--learnable_scale true is of a cosine head, and --head linear has none"):
        build_model(arguments, ["cat", "dog"])


def test_the_scale_of_a_recipes_cosine_head_is_none_of_a_linear_one(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("head: cosine\ncosine_scale: 20\n")
    assert (
        with_recipe({}, recipe) == with_recipe({"head": "cosine"}, recipe) == {"head": "cosine", "cosine_scale": 20.0}
    )
    assert with_recipe({"head": "linear"}, recipe) == {"head": "linear"} and with_recipe({"head": None}, recipe) == {}
    stated = {"head": "linear", "cosine_scale": 30.0}
    assert with_recipe(stated, recipe) == stated  # which is refused


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        train.main([str(w) for w in words])
    assert exit_.value.code == 2
    return capsys.readouterr().err


SETTINGS = [
    (["--num_train_epochs", "-1"], "--num_train_epochs must be positive, got -1"),
    (["--per_device_train_batch_size", "0"], "--per_device_train_batch_size must be positive, got 0"),
    (["--image_size", "0"], "--image_size must be positive, got 0"),
    (["--model", "/no/such/folder"], "--model /no/such/folder: there is no such folder"),
    (
        ["--adapter", "lora"],
        "--adapter is for pretrained models: cifar_resnet starts at random",
    ),  # not --init, which it brings
    (["--resume_from_checkpoint", "true"], "holds no checkpoint"),
    (
        ["--resume_from_checkpoint", "ture"],
        "--resume_from_checkpoint ture is not a folder, nor true, auto or false. Did you mean 'true'?",
    ),
]


@pytest.mark.parametrize(("extra", "message"), SETTINGS)
def test_refused_before_anything_is_loaded(extra, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "load_splits", lambda _: pytest.fail("the data was loaded first"))
    (tmp_path / "data").mkdir()
    assert message in refusal(capsys, "--dataset", tmp_path / "data", "--output_dir", tmp_path / "out", *extra)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--method", "imbsam"], "tail_threshold"),
        (["--loss", "ldam"], "cosine head"),
        (
            ["--cosine_scale", "20"],
            "--cosine_scale 20 is of a cosine head, and --head linear has none: add --head cosine, or leave it out.",
        ),
    ],
)
def test_refused_before_images_are_decoded(extra, message, capsys, images, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "prepare", lambda *_: pytest.fail("images were decoded first"))
    assert message in refusal(
        capsys, "--dataset", images, "--output_dir", tmp_path / "out", "--use_cpu", "true", *extra
    )


def test_another_method_on_the_command_line_takes_its_own_defaults():
    run = parse(["--config", "cifar100_lt_ir100_la_focal_sam", "--method", "sam", "--use_cpu", "true"])
    assert run.config.method_args is None and run.config.loss_args == {"tau": 1.0}
    same = parse(["--config", "cifar100_lt_ir100_la_focal_sam", "--method", "focal_sam", "--use_cpu", "true"])
    assert same.config.method_args == {"rho": 0.3, "gamma": 3.2, "lam": 0.8}
    assert set(METHODS) >= {"sam", "focal_sam"}


def test_inherits_must_name_files(tmp_path):
    (tmp_path / "r.yaml").write_text("inherits: 5\n")
    with pytest.raises(ValueError, match="sets inherits to 5"):
        parse(["--config", str(tmp_path / "r.yaml")])


def test_a_resumed_run_leaves_a_recipe_that_can_be_replayed(images, tmp_path):
    quick = [
        "--dataset",
        str(images),
        "--depth",
        "8",
        "--use_cpu",
        "true",
        "--learning_rate",
        "0.1",
        "--disable_tqdm",
        "true",
        "--save_strategy",
        "steps",
        "--save_steps",
        "2",
        "--logging_strategy",
        "no",
    ]
    train.main([*quick, "--max_steps", "2", "--output_dir", str(tmp_path / "a")])
    train.main([*quick, "--max_steps", "4", "--output_dir", str(tmp_path / "a"), "--resume_from_checkpoint", "true"])
    record = RunFolder(tmp_path / "a").finished_record()
    of_this_part = record.timing["train_seconds"] - record.timing["seconds_before"]
    assert record.timing["seconds_per_step"] == pytest.approx(of_this_part / 2, rel=0.05)
    train.main(["--config", str(tmp_path / "a" / "recipe.yaml"), "--output_dir", str(tmp_path / "b")])
    state = json.loads((tmp_path / "b" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
