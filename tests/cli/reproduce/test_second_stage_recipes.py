"""The recipes of second stages: they build, start from recipes that exist, and hold what their source holds."""

import pytest
import yaml

from hf_ltsam.cli import decouple
from hf_ltsam.cli.train.arguments import parse
from hf_ltsam.runs.recipes import expand, find_recipe, read_recipe, recipe_names
from hf_ltsam.training.second_stage import SECOND_STAGES, make_second_stage
from hf_ltsam.training.second_stage.stages import CRT, CCSAMStage

FIRSTS = ("sgd", "cc_sam")
ROWS = [
    (data, ratio, first, stage)
    for data in (10, 100)
    for ratio in (50, 100, 200)
    for first, stage in [
        *((first, stage) for first in FIRSTS for stage in ("crt", "cc_sam")),
        ("sgd", "lws"),
        ("sgd", "tau_norm"),
    ]
    if ratio == 100 or stage in ("crt", "cc_sam")
]


def name_of(data, ratio, first, stage):
    return f"second_stage/cifar{data}_lt_ir{ratio}_ce_{first}_then_{stage}"


MAX_NORM = [f"cifar100_lt_ir100_ce_{first}_then_maxnorm" for first in ("sgd", "sam", "late_sam", "focal_sam")]


# Zhong et al. 2021, config/ of the code: a line for each stage as its files have it. lr batch_size weight_decay num_epochs alpha, then
# lr batch_size weight_decay num_epochs smooth_head smooth_tail shift_bn lr_factor
OF_ZHONG = {
    "cifar10_lt_ir100": ("0.1 128 2e-4 200 1.0", "0.1 128 2e-4 10 0.3 0.0 False 0.5"),
    "cifar100_lt_ir100": ("0.1 128 2e-4 200 1.0", "0.1 128 2e-4 10 0.4 0.1 True 0.2"),
    "imagenet_lt": ("0.1 256 5e-4 180 0.2", "0.1 256 5e-4 10 0.3 0.0 True 0.05"),
    "inaturalist2018": ("0.1 256 1e-4 200 0.2", "0.1 256 1e-4 10 0.3 0.0 True 0.05"),
    "places_lt": (None, "0.1 256 5e-4 10 0.4 0.1 True 0.05"),  # the first stage is ours: theirs starts from ImageNet
}


@pytest.mark.parametrize("data", OF_ZHONG)
def test_both_stages_of_mislas(data):
    """Train modes of the code: cosine on large sets; on CIFAR 5 epochs of warm-up, a tenth after 160 and after 180."""
    first, second = OF_ZHONG[data]
    name = f"second_stage/{data}_ce_sgd_mixup"
    recipe, then = read_recipe(name), read_recipe(f"{name}_then_las")
    if first is not None:
        numbers = [float(word) for word in first.split()]
        names = ("learning_rate", "per_device_train_batch_size", "weight_decay", "num_train_epochs", "mixup_alpha")
        assert [recipe[setting] for setting in names] == numbers
        schedule = [
            recipe.get(setting) for setting in ("lr_scheduler_type", "warmup_steps", "lr_milestones", "lr_gamma")
        ]
        on_cifar = data.startswith("cifar")
        assert schedule == ([None, 5 / 200, [160 / 200, 180 / 200], 0.1] if on_cifar else ["cosine", None, None, None])
        assert (recipe["method"], recipe["loss"], recipe["optim_args"]) == ("sgd", "cross_entropy", "momentum=0.9")
    *words, shift, factor = second.split()
    names = ("learning_rate", "per_device_train_batch_size", "weight_decay", "num_train_epochs")
    assert [*(then[setting] for setting in names), then["loss_args"]["head"], then["loss_args"]["tail"]] == [
        float(word) for word in words
    ]
    assert (then["first_stage"], then["second_stage"], then["loss"]) == (name, "mislas", "label_aware_smoothing")
    assert then["second_stage_args"] == {"classifier_rate": float(factor), "shift_batch_norm": shift == "True"}
    assert (then["sampling"], then["lr_scheduler_type"], then["method"]) == ("class_aware", "cosine", "sgd")
    assert "mixup_alpha" not in then


def test_there_is_a_recipe_for_every_row_and_every_stage():
    firsts = {f"cifar{data}_lt_ir{ratio}_ce_sgd_zhou2023b" for data in (10, 100) for ratio in (50, 100, 200)}
    large = {
        f"{data}_ce_sgd_then_{stage}"
        for data in ("imagenet_lt", "inaturalist2018", "places_lt")
        for stage in ("crt", "lws", "tau_norm")
    }
    large |= {f"places_lt_ce_{method}_then_crt" for method in ("swa", "spectral_norm", "model_perturbation")}
    large |= {f"{data}_ce_sgd_mixup{then}" for data in OF_ZHONG for then in ("", "_then_las")}
    names = {name.removeprefix("second_stage/") for name in recipe_names() if name.startswith("second_stage/")}
    assert names == {name_of(*row).split("/")[1] for row in ROWS} | firsts | set(MAX_NORM) | large
    assert {stage for *_, stage in ROWS} | {"maxnorm", "mislas"} == set(SECOND_STAGES)


@pytest.mark.parametrize("name", MAX_NORM)
def test_a_row_of_weight_balancing(name):
    """Alshammari et al. 2022 Sec. 4.1 and its code, whose loss is a mean over the classes too."""
    recipe = read_recipe(f"second_stage/{name}")
    assert recipe["first_stage"] == name.replace("_then_maxnorm", "_decay")
    assert (recipe["second_stage"], recipe["second_stage_args"]) == ("maxnorm", {"share": 0.1})
    assert (recipe["learning_rate"], recipe["weight_decay"]) == (0.01 / 100, 0.1 * 100)
    assert (recipe["num_train_epochs"], recipe["per_device_train_batch_size"]) == (10, 64)
    assert (recipe["loss"], recipe["loss_args"], recipe["sampling"]) == ("class_balanced", {"beta": 0.9999}, "uniform")
    assert (recipe["method"], recipe["decay_all_parameters"], recipe["max_grad_norm"]) == ("sgd", True, 0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: name_of(*row).split("/")[1])
def test_a_row(row, tmp_path, monkeypatch):
    data, ratio, first, stage = row
    name = name_of(*row)
    recipe = read_recipe(find_recipe(name))
    origin = parse(["--config", recipe["first_stage"], "--use_cpu", "true"])  # the first stage's recipe
    assert (origin.data.dataset, origin.data.imbalance_ratio, origin.model.depth) == (f"uoft-cs/cifar{data}", ratio, 32)
    assert (origin.config.method, origin.config.loss) == (first, "cross_entropy")
    assert (origin.config.num_train_epochs, origin.config.learning_rate, origin.config.lr_milestones) == (
        200,
        0.1,
        [0.8, 0.9],
    )

    monkeypatch.chdir(tmp_path)  # where that recipe has been run with seed 1
    folder = tmp_path / origin.config.output_dir.replace("seed0", "seed1")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(origin.settings))
    run = decouple.parse_second_stage(["--config", name, "--seed", "1", "--use_cpu", "true"])
    config = run.config
    assert (
        run.stage.first_stage == str(folder.relative_to(tmp_path))
        and config.output_dir == f"runs/{name.split('/')[1]}/seed1"
    )
    assert (run.data.dataset, run.data.imbalance_ratio, run.model.depth, run.data.crop_padding) == (
        f"uoft-cs/cifar{data}",
        ratio,
        32,
        4,
    )
    assert (config.num_train_epochs, config.learning_rate, config.per_device_train_batch_size) == (30, 0.01, 64)
    assert (config.method, config.sampling, config.loss, config.lr_milestones) == (
        "sgd",
        "class_aware",
        "cross_entropy",
        None,
    )
    assert (config.weight_decay, config.warmup_steps, run.stage.cache_features) == (2e-4, 0, False)
    made = make_second_stage(run.stage.second_stage, **(run.stage.second_stage_args or {}))
    assert type(made) is SECOND_STAGES[stage]
    if stage == "cc_sam":
        assert made == CCSAMStage(
            cap=1.0 if data == 10 else 0.3, ramp_epochs=30, offset=0.01, factor=0.5, reinitialise=False
        )
    if stage == "crt":
        assert made == CRT(reinitialise=False)


def test_every_setting_of_the_defaults_has_its_source():
    defaults = expand("second_stage")
    numbers = {name for name, value in defaults.settings.items() if isinstance(value, int | float)}
    assert numbers and numbers <= set(defaults.origins)
