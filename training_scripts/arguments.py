"""All settings of a training run: recipe, command line, and the objects they become."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

from hf_ltsam import LTSamConfig
from hf_ltsam.data.randaugment import RandAugment
from hf_ltsam.data.test_time import TEST_TIME
from hf_ltsam.registry import nearest
from training_scripts.recipe_file import find_recipe, read_recipe
from training_scripts.second_stage_arguments import SecondStageArguments

HELP = "`ltsam train --help` lists all options."
_UNSET = object()


@dataclass
class ModelArguments:
    """Which model is trained."""

    _argument_group_name = "model"

    model: str = field(
        default="cifar_resnet",
        metadata={
            "help": "cifar_resnet; a transformers or timm image classifier, a CLIP or a SigLIP: a name on the Hub or a "
            "folder; or a CLIP of open_clip: open_clip:ViT-B-16/laion2b_s34b_b88k, open_clip:ViT-B-16/FILE, "
            "hf-hub:OWNER/NAME, local-dir:FOLDER."
        },
    )
    pretrained: bool = field(
        default=True, metadata={"help": "Start from the weights of `model` (cifar_resnet has none: it starts at random)."}
    )
    depth: int = field(default=32, metadata={"help": "Layers of cifar_resnet: 8, 20, 32, 44, 56, ..."})
    head: str = field(default="linear", metadata={"help": "linear, or cosine (LDAM needs it). That of CLIP is cosine."})
    cosine_scale: float | None = field(
        default=None,
        metadata={"help": "Scale of the cosine head; equal to LDAM's s. None: 30 for cifar_resnet, 25 otherwise."},
    )
    learnable_scale: bool = field(default=False, metadata={"help": "Train that scale too (not with cifar_resnet)."})
    init: str | None = field(
        default=None,
        metadata={
            "help": "Where a cosine head starts: text (CLIP), class_mean, linear_probe or random. None: text for CLIP, "
            "random otherwise."
        },
    )
    templates: str = field(
        default="one",
        metadata={"help": "Prompts for init text: one ('a photo of a {}.'), clip80, or a file with one on each line."},
    )
    prompt_names: str | None = field(
        default=None,
        metadata={"help": "A file of class names for the prompts, one on each line. None: those of the data set."},
    )
    max_per_class: int | None = field(
        default=None,
        metadata={"help": "For init class_mean and linear_probe: use the first so many images of every class. None: all."},
    )
    adapter: str | None = field(
        default=None,
        metadata={
            "help": "What is trained: adaptformer, vpt, ssf, lora or another PEFT method, with the classifier; none for "
            "encoder blocks and classifier. None: all weights."
        },
    )
    adapter_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Its hyper-parameters as JSON, for example '{\"r\": 8}'."}
    )
    spectral_norm: list[str] | None = field(
        default=None,
        metadata={
            "help": "Linear and convolutional layers whose weights are divided by their largest singular value, by name, * "
            "for any text: classifier, 'resnet.*'. None: no layer."
        },
    )
    spectral_norm_iterations: int = field(
        default=5, metadata={"help": "Power iterations for that in every training step (Zhou et al. 2023b: 5)."}
    )


@dataclass
class DataArguments:
    """What it is trained on."""

    _argument_group_name = "data"

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "A name on the Hub, a folder of Parquet files, or a folder of images in train/CLASS/ and test/CLASS/."
        },
    )
    builder: str = field(
        default="auto",
        metadata={
            "help": "auto, image_folder, hub (also folders of Parquet files), cifar_lt (the CIFAR images), or imagenet_lt, "
            "inaturalist2018, places_lt over your own copy of the images (--dataset FOLDER)."
        },
    )
    lists: str | None = field(
        default=None,
        metadata={"help": "Folder with the split lists of imagenet_lt, ... None: beside the images, or fetched once."},
    )
    own_lists: bool = field(default=False, metadata={"help": "Take lists that are not the published ones."})
    image_column: str | None = field(default=None, metadata={"help": "None: the only column of images."})
    label_column: str | None = field(default=None, metadata={"help": "None: the only ClassLabel column."})
    train_split: str = field(default="train", metadata={"help": "The split to train on."})
    test_split: str | None = field(
        default=None, metadata={"help": "The split to test on, after the last epoch. None: test, or else validation."}
    )
    held_out_per_class: int | None = field(
        default=None, metadata={"help": "Folders without test images: set so many of every class aside for the test."}
    )
    imbalance_ratio: float | None = field(
        default=None, metadata={"help": "Draw a long tail of this ratio from the training split. None: take all of it."}
    )
    profile: str = field(default="exponential", metadata={"help": "Shape of that tail: exponential or step."})
    largest_class: int | None = field(
        default=None,
        metadata={"help": "Images of that tail's largest class, for a smaller set of the same shape. None: all it has."},
    )
    split_seed: int = field(default=0, metadata={"help": "Seed of that draw; 0 is the published one."})
    many_above: int = field(default=100, metadata={"help": "Classes with more training images are reported as many."})
    few_below: int = field(default=20, metadata={"help": "Classes with fewer training images are reported as few."})
    image_size: int | None = field(
        default=None,
        metadata={"help": "Side in pixels. None: what the model asks for; cifar_resnet takes images as they are."},
    )
    test_short_side: int | None = field(
        default=None,
        metadata={
            "help": "Images above 64 pixels: the short side that test images are scaled to before the centre of image_size "
            "is kept. None: image_size * 256 / 224."
        },
    )
    test_time: str = field(
        default="none",
        metadata={
            "help": f"Views of each test image whose logits are averaged after the last epoch: {', '.join(TEST_TIME)}."
        },
    )
    reserve: float | None = field(
        default=None,
        metadata={
            "help": "Leave such a share of every class's training images out of the training, in (0, 1), for what is chosen "
            "afterwards: tau of `ltsam decouple --second_stage tau_norm`."
        },
    )
    num_channels: int = field(
        default=3, metadata={"help": "3 for colour, 1 for grey images (small ones, with cifar_resnet)."}
    )
    normalisation: str = field(
        default="auto",
        metadata={"help": "auto (the model's own, or the mean and deviation of the training images), cifar10 or cifar100."},
    )
    crop_padding: int = field(default=4, metadata={"help": "Small images: padding before the random crop, in pixels."})
    flip: bool = field(default=True, metadata={"help": "Mirror half of the training images. Wrong for digits or text."})
    color_jitter: float = field(
        default=0.0,
        metadata={
            "help": "Images above 64 pixels: change brightness, contrast and saturation of each training image by a factor "
            "from [1 - c, 1 + c], c in [0, 1]. 0: off."
        },
    )
    cutout: int = field(
        default=0,
        metadata={
            "help": "Small images: hide a square of this side around a random pixel of each training image (DeVries and "
            "Taylor 2017: 16 for CIFAR-10, 8 for CIFAR-100). 0: none."
        },
    )
    randaugment: int = field(
        default=0,
        metadata={
            "help": "Small images: apply so many random operations in a row to each training image, 2 say (RandAugment of "
            "Cubuk et al. 2020). 0: none."
        },
    )
    randaugment_magnitude: int = field(default=9, metadata={"help": "Their strength, 0 to 30."})
    check_images: bool = field(
        default=True, metadata={"help": "Large images: look for corrupt ones first. Small ones are all decoded anyway."}
    )

    @property
    def operations(self) -> RandAugment | None:
        """What `randaugment` and `randaugment_magnitude` ask for.

        Raises:
            ValueError: there is no such number of operations, or no such magnitude.
        """
        return RandAugment(self.randaugment, self.randaugment_magnitude) if self.randaugment else None


@dataclass(frozen=True)
class Run:
    """A training run, as asked for.

    Args:
        settings: what recipe and command line set, by name; everything else is at its default.
        words: the command line.
        program: the command of `ltsam` that they belong to.
    """

    model: ModelArguments
    data: DataArguments
    stage: SecondStageArguments
    config: LTSamConfig
    settings: dict[str, Any]
    words: tuple[str, ...]
    program: str = "train"


def parse(words: Sequence[str]) -> Run:
    """Settings of the recipe (`--config`), overridden by those of the command line.

    Raises:
        ValueError: an unknown setting, with the nearest valid ones, or a value that cannot be read.
        FileNotFoundError: there is no such recipe.
    """
    settings, recipe = read_settings(words)
    # a folder for each seed, so that the runs of one recipe do not overwrite each other
    settings.setdefault("output_dir", f"runs/{recipe or 'train'}/seed{settings.get('seed', LTSamConfig.seed)}")
    return run_of(settings, words)


def read_settings(words: Sequence[str], program: str = "train") -> tuple[dict[str, Any], str | None]:
    """What recipe and command line set, and the recipe's name where there is one.

    Raises:
        ValueError, FileNotFoundError: as `parse`.
    """
    parser = _parser(program)
    given = _given(parser, words)
    recipe = given.pop("config", None)
    settings: dict[str, Any] = {}
    if recipe is not None:
        path = find_recipe(recipe)
        settings = _given(parser, _as_words(read_recipe(path), _options(parser), path))
    for kind in ("method", "loss", "adapter", "second_stage"):        # a recipe's arguments are not those of another one
        if kind in given and given[kind] != settings.get(kind):
            settings.pop(f"{kind}_args", None)
    settings |= given
    return {name: _without_json(name, value) for name, value in settings.items()}, recipe and Path(recipe).stem


def run_of(settings: dict[str, Any], words: Sequence[str], program: str = "train") -> Run:
    """The objects that settings become; a token for the Hub is from here on nowhere but in the configuration."""
    model, data, stage, config = _parser(program).parse_dict({"hub_token": None, **settings})
    shown = {name: value for name, value in settings.items() if name != "hub_token"}
    return Run(model, data, stage, config, shown, _without_token(words), program)


@cache        # 150 options take longer to declare than to read
def _parser(program: str) -> _Parser:
    of_stages = " A second stage's defaults are those of recipes/base/second_stage.yaml, whatever is shown here."
    parser = _Parser(
        [ModelArguments, DataArguments, SecondStageArguments, LTSamConfig],
        prog=f"ltsam {program}",
        usage=f"%(prog)s{' RUN' if program == 'decouple' else ''} [--config RECIPE] [--option value ...]",
        epilog="The options of model and data stand last; the others are those of LTSamConfig and transformers' Trainer."
        + (of_stages if program == "decouple" else ""),
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="A recipe: a YAML file of these options, or the name of one of ours.")
    return parser


def _without_token(words: Sequence[str]) -> tuple[str, ...]:
    """The command line as it may be shown to anybody: whoever repeats it uses a token of their own."""
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word.partition("=")[0] != "--hub_token":
            kept.append(word)
        skip = word == "--hub_token"
    return tuple(kept)


class _Parser(HfArgumentParser):
    """Raises where argparse prints its whole usage, which has some 150 options, and exits."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message[0].upper()}{message[1:]}. {HELP}")


def _given(parser: argparse.ArgumentParser, words: Sequence[str]) -> dict[str, Any]:
    """The values that the words set, without defaults."""
    options = _options(parser)
    namespace, unknown = parser.parse_known_args(list(words), argparse.Namespace(**dict.fromkeys(options, _UNSET)))
    if unknown:
        _refuse(unknown[0], options)
    return {name: value for name, value in vars(namespace).items() if value is not _UNSET}


def _options(parser: argparse.ArgumentParser) -> list[str]:
    defaults = vars(parser.parse_known_args([])[0])
    return list(defaults)


def _refuse(word: str, options: Iterable[str]) -> NoReturn:
    if not word.startswith("--"):
        raise ValueError(f"{word!r} is not an option: every value follows an option's name. {HELP}")
    name = word.removeprefix("--").partition("=")[0]
    raise ValueError(f"Unknown option --{name}.{_closest(name, options)} {HELP}")


def _as_words(settings: dict[str, Any], options: Sequence[str], path: Path) -> list[str]:
    """Settings of a recipe as the command line that says the same, so that both are read by the same rules."""
    words: list[str] = []
    for name, value in settings.items():
        if name not in options:
            raise ValueError(f"{path} sets {name!r}, which does not exist.{_closest(name, options)} {HELP}")
        if name in {"method_args", "loss_args", "adapter_args", "second_stage_args"} and not isinstance(value, dict | None):
            raise ValueError(f"{path} sets {name} to {value!r}; it must hold `name: value` on lines of its own.")
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return words


def _closest(name: str, options: Iterable[str]) -> str:
    """The suggestion alone; all 150 names would hide it."""
    return nearest(name, options).partition(" Valid:")[0]


def _without_json(name: str, value: Any) -> Any:
    """A setting whose value is JSON text as the mapping that it stands for."""
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"--{name} {value} is not JSON ({error}). It should look like '{{\"rho\": 0.1}}'.") from error
