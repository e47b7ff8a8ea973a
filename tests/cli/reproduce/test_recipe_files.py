"""Rows and parts as data: that no number stands twice or without its origin, and that every name in them exists."""

import re
from dataclasses import replace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from cli.reproduce.recipe_rows import ROWS
from transformers import ConvNextImageProcessor, ResNetConfig

from hf_ltsam import make_loss
from hf_ltsam.cli.train.model import build_model, wanted_format
from hf_ltsam.methods import METHODS
from hf_ltsam.runs.recipe_tables import RECIPES, TABLES, parts, published_rows, published_tables
from hf_ltsam.runs.recipes import expand, read_recipe, recipe_names
from hf_ltsam.training.refusals.problem import check_head

NAMES = recipe_names()
PARTS = parts()


def made_of(*names):
    """Parts, and the parts that they inherit."""
    for name in names:
        yield name
        yield from made_of(*PARTS[name].get("inherits", ()))


def own_settings(name):
    return [setting for setting in PARTS[name] if setting != "inherits"]


def test_no_setting_is_written_twice_along_the_inheritance():
    for name, row in published_rows().items():
        settings = [setting for part in made_of(*row.parts) for setting in own_settings(part)] + list(row.settings)
        assert len(settings) == len(set(settings)), name
        assert set(settings) == set(read_recipe(row)), name


def test_rows_hold_no_number_of_their_own():
    for name, row in published_rows().items():
        assert set(row.settings) <= {"first_stage"}, name


def test_no_two_recipes_are_the_same():
    settings = {name: repr(sorted(read_recipe(name).items())) for name in NAMES}
    assert len(set(settings.values())) == len(settings)


def test_every_part_is_used_and_has_a_name_that_no_recipe_has():
    used = {part for row in published_rows().values() for part in made_of(*row.parts)}
    assert used == set(PARTS)
    assert not used & set(NAMES)
    files = [
        name for file in (RECIPES / "parts").glob("*.yaml") for name in re.findall(r"^(\w+):", file.read_text(), re.M)
    ]
    assert len(files) == len(PARTS)


def has_number(value):
    if isinstance(value, list | dict):
        return any(map(has_number, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) or any(character.isdigit() for character in str(value))


NAMES_OF_THINGS = {"dataset", "builder", "first_stage"}  # with digits that are no numbers


@pytest.mark.parametrize("part", PARTS)
def test_every_number_has_its_origin(part):
    expanded = expand(part)
    for name, value in expanded.settings.items():
        if isinstance(value, dict):
            assert {f"{name}.{argument}" for argument in value} <= set(expanded.origins), name
        elif has_number(value) and name not in NAMES_OF_THINGS:
            assert name in expanded.origins, name
    for name, origin in expanded.origins.items():
        assert origin.words.strip() and not origin.words.startswith(("the same", "see ")), name
        if origin.kind == "source":
            assert re.search(r"et al\. 20\d\d|LIFT|torch", origin.words), name


SPLIT = {name for name, method in METHODS.items() if method.needs_split}


def test_parts_rows_and_methods_that_are_named_exist():
    for part in PARTS:
        for name, origin in expand(part).origins.items():
            assert set(origin.stated_with) <= set(PARTS), (part, name)
            assert set(origin.used_by) in (set(), SPLIT if name == "tail_threshold" else set()), (part, name)
    for row in published_rows().values():
        assert all(published_rows()[name].published for name in row.compare), row.name


def test_every_row_has_a_title_a_label_and_a_number_or_the_reason_why_not():
    for row in published_rows().values():
        assert row.title and row.label, row.name
        assert (row.published is None) == bool(row.unpublished), row.name


def test_every_published_table_says_what_was_measured():
    for table in published_tables():
        if any(row.published for row in table.rows):
            assert set(table.measured) >= {"data", "metric"}, table.name
            assert all(row.title.startswith(tuple(table.measured["data"])) for row in table.rows if row.parts), (
                table.name
            )


def test_no_number_stands_in_a_comment_of_a_table():
    for file in TABLES.glob("*.yaml"):
        assert not re.search(r"#.*\d\.\d", file.read_text()), file.name


SETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet_lt": "ImageNet-LT",
    "inaturalist2018": "iNaturalist 2018",
    "places_lt": "Places-LT",
}


def test_the_title_says_what_it_is():
    for row in ROWS:
        ours = published_rows()[row.name]
        kind = {"lt": "-LT, imbalance ratio {}", "step": ", step imbalance of ratio {}", None: ""}[row.kind].format(
            row.ratio
        )
        assert ours.title.startswith(f"{SETS[row.data]}{kind}, "), row.name
        assert (f"{row.epochs} epochs" if row.epochs else "") in (ours.published.source if row.epochs else ""), row.name
        assert {"fft": "CLIP ViT-B/16, full fine-tuning", "lift": "CLIP ViT-B/16, LIFT", None: "ResNet-"}[
            row.clip
        ] in ours.title, row.name


# Counted by hand. Focal-SAM: the code has LA and CLIP at ratio 100, and the large sets. CC-SAM: Zhou et al. 2023b state it
# for their six rows with LDAM and GCL alone.
@pytest.mark.parametrize(
    "method, rows, assumed",
    [
        ("focal_sam", 54, 42),
        ("cc_sam", 58, 52),
    ],
)
def test_how_many_published_rows_rest_on_an_assumed_radius(method, rows, assumed):
    radius = {"focal_sam": "method_args.rho", "cc_sam": "method_args.scale"}[method]
    published = [row for row in published_rows().values() if row.published and read_recipe(row)["method"] == method]
    assert len(published) == rows
    assert sum(radius in expand(row).assumptions for row in published) == assumed


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
        is_resnet50 = arguments.model == "microsoft/resnet-50"
        arguments = replace(arguments, model=resnet50) if is_resnet50 else arguments
        with torch.device("meta"):
            model = build_model(arguments, [str(c) for c in range(CLASSES[row.data])])
        check_head(make_loss(config.loss, **(config.loss_args or {})), model)
        if is_resnet50:
            assert wanted_format(arguments).size == row.run.data.image_size
            without_head = 23_508_032  # torchvision's ResNet-50
            head = 2048 * CLASSES[row.data] + (0 if arguments.head == "cosine" else CLASSES[row.data])
            assert sum(p.numel() for p in model.parameters()) == without_head + head
    assert len(built) > 10


@pytest.mark.parametrize("name, processes", [("cpu", 1), ("one_gpu", 1), ("multi_gpu", 2)])
def test_accelerate_reads_its_configurations(name, processes):
    config = load_config_from_file(str(RECIPES.parents[1] / "training_scripts" / "accelerate_configs" / f"{name}.yaml"))
    assert config.num_processes == processes
    assert config.mixed_precision == "no"
