"""Recipes as files: what they inherit, that no number stands twice, and what their first lines say."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from cli.reproduce.recipe_rows import ROWS
from hf_ltsam.cli.reproduce.recipes import RECIPES, find_recipe, read_recipe
from transformers import ConvNextImageProcessor, ResNetConfig

from hf_ltsam import make_loss
from hf_ltsam.cli.train.model import build_model, wanted_format
from hf_ltsam.training.refusals import check_head

FILES = sorted(RECIPES.rglob("*.yaml"))
NAMES = [str(path.relative_to(RECIPES).with_suffix("")) for path in FILES if path.parent.name not in ("base", "demo")]
# their numbers are ours or their source's alone, and stand in the row
OWN_NUMBERS = {
    *(
        f"cifar100_lt_ir100_la_{method}"
        for method in ("asam", "gradient_norm", "gsam", "looksam", "msam", "friendly_sam", "focal_sam_reuse")
    ),
    *(
        f"cifar100_lt_ir100_ce_{method}"
        for method in ("model_perturbation", "swa", "spectral_norm", "focal_sam_reuse", "looksam", "msam")
    ),
}


@cache
def settings_of(name):
    return read_recipe(find_recipe(name))


@cache
def own_settings(path):
    """A file's own settings, and the files that it inherits."""
    values = yaml.safe_load(path.read_text())
    parents = values.pop("inherits", [])
    return values, tuple(
        (path.parent / parent).resolve() for parent in ([parents] if isinstance(parents, str) else parents)
    )


def inherited(path):
    for parent in own_settings(path)[1]:
        yield parent
        yield from inherited(parent)


def header(name):
    return find_recipe(name).read_text().partition("\ninherits")[0]


def test_no_setting_is_written_twice_along_the_inheritance():
    for name in NAMES:
        path = find_recipe(name)
        settings = [setting for file in (path, *inherited(path)) for setting in own_settings(file)[0]]
        assert len(settings) == len(set(settings)), name
        assert set(settings) == set(settings_of(name)), name


def test_rows_hold_no_number_of_their_own():
    for name in set(NAMES) - OWN_NUMBERS:
        assert set(own_settings(find_recipe(name))[0]) <= {"method", "first_stage", "second_stage"}, name
        assert own_settings(find_recipe(name))[0].get("method", "sgd") == "sgd", name


def test_no_two_recipes_are_the_same():
    settings = {name: repr(sorted(settings_of(name).items())) for name in NAMES}
    assert len(set(settings.values())) == len(settings)


def test_every_base_file_is_used():
    used = {parent for path in FILES for parent in own_settings(path)[1]}
    assert set((RECIPES / "base").resolve().iterdir()) == used


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent.name == "base" or path.stem in OWN_NUMBERS],
    ids=lambda path: path.stem,
)
def test_every_number_has_its_source_beside_it(path):
    for line in path.read_text().splitlines():
        if re.match(r"\s*\w+:.*\d", line.partition("#")[0]) and not re.match(
            r"inherits:|method:|model: cifar|dataset:|builder:|first_stage:", line
        ):
            assert re.search(
                r"# .*(et al\. 20\d\d|the same|LIFT|LDAM-DRW|ours|[Cc]ode of|torch|no source|see |your copy)", line
            ), f"{path.name}: {line!r}"


def test_the_header_states_target_command_and_result():
    for name in NAMES:
        script = "decouple" if "_then_" in name else "train"
        folder = "" if Path(name).name.startswith("cifar") else " --dataset FOLDER"
        assert (
            f"accelerate launch training_scripts/{script}.py --config training_scripts/recipes/{name}.yaml{folder} --seed 0"
            in header(name)
        )
        assert "\n# Target   " in header(name), name
        assert f"runs/{Path(name).name}/seedN" in header(name) and "\n# Result " in header(name), name


SETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet_lt": "ImageNet-LT",
    "inaturalist2018": "iNaturalist 2018",
    "places_lt": "Places-LT",
}


def test_the_first_line_says_what_it_is():
    for row in ROWS:
        first = header(row.name).splitlines()[0]
        kind = {"lt": "-LT, imbalance ratio {}", "step": ", step imbalance of ratio {}", None: ""}[row.kind].format(
            row.ratio
        )
        assert first.startswith(f"# {SETS[row.data]}{kind}, "), row.name
        assert first.endswith(f"{row.epochs} epochs." if row.epochs else "."), row.name
        assert {"fft": "CLIP ViT-B/16, full fine-tuning:", "lift": "CLIP ViT-B/16, LIFT:", None: "ResNet-"}[
            row.clip
        ] in first, row.name


# ---- models ----

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet_lt": 1000, "inaturalist2018": 8142, "places_lt": 365}


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory):
    """microsoft/resnet-50 without weights: configuration and image processor as on the Hub."""
    folder = tmp_path_factory.mktemp("resnet-50")
    ResNetConfig(
        depths=[3, 4, 6, 3], hidden_sizes=[256, 512, 1024, 2048], architectures=["ResNetForImageClassification"]
    ).save_pretrained(folder)
    ConvNextImageProcessor(
        size={"shortest_edge": 224}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    ).save_pretrained(folder)
    return str(folder)


def test_models_from_scratch_build_and_suit_their_loss(resnet50):
    """Once for every different one, without memory for their weights."""
    built = set()
    for row in (row for row in ROWS if not row.clip):
        arguments, config = row.run.model, row.run.config
        kind = (arguments.model, row.data, arguments.depth, arguments.head, arguments.cosine_scale, config.loss)
        if kind in built:
            continue
        built.add(kind)
        given = arguments.model
        arguments.model = resnet50 if given == "microsoft/resnet-50" else given
        try:
            with torch.device("meta"):
                model = build_model(arguments, [str(c) for c in range(CLASSES[row.data])])
            check_head(make_loss(config.loss, **(config.loss_args or {})), model)
            if given == "microsoft/resnet-50":
                assert wanted_format(arguments).size == row.run.data.image_size
                without_head = 23_508_032  # torchvision's ResNet-50
                head = 2048 * CLASSES[row.data] + (0 if arguments.head == "cosine" else CLASSES[row.data])
                assert sum(p.numel() for p in model.parameters()) == without_head + head
        finally:
            arguments.model = given
    assert len(built) > 10


@pytest.mark.parametrize("name, processes", [("cpu", 1), ("one_gpu", 1), ("multi_gpu", 2)])
def test_accelerate_reads_its_configurations(name, processes):
    config = load_config_from_file(str(RECIPES.parents[1] / "training_scripts" / "accelerate_configs" / f"{name}.yaml"))
    assert config.num_processes == processes
    assert config.mixed_precision == "no"
