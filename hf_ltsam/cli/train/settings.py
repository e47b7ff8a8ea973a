"""The settings of a training run: its model, its data, a second stage, and transformers' own.

Every field is an option of `ltsam train` under the same name; its help text is the metadata.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_ltsam import LTSamConfig
from hf_ltsam.data.in_memory.randaugment import RandAugment
from hf_ltsam.data.pixel_values import PixelValues
from hf_ltsam.data.preprocessing import TEST_TIME
from hf_ltsam.hyperparameters import require_finite
from hf_ltsam.runs.processes import in_processes
from hf_ltsam.training.second_stage import SECOND_STAGES


@dataclass(frozen=True)
class ModelArguments:
    """The model that is trained."""

    _argument_group_name = "model"

    model: str = field(
        default="cifar_resnet",
        metadata={
            "help": "cifar_resnet; a transformers or timm image classifier, a CLIP or a SigLIP, an encoder or decoder of "
            "texts: a name on the Hub or a folder; or a CLIP of open_clip: open_clip:ViT-B-16/laion2b_s34b_b88k, "
            "open_clip:ViT-B-16/FILE, hf-hub:OWNER/NAME, local-dir:FOLDER."
        },
    )
    pretrained: bool = field(
        default=True,
        metadata={"help": "Start from the weights of `model` (cifar_resnet has none: it starts at random)."},
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
            "help": "Where the classifier starts: random, class_mean (of the frozen features), and of a cosine head text "
            "(CLIP) or linear_probe. auto: class_mean for a linear layer that `model` has no weights for. None: text for "
            "CLIP, random otherwise; auto for fine-tuning whose learning rate is not set either."
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
        metadata={"help": "For init class_mean and linear_probe: how many samples of every class are used. None: all."},
    )
    adapter: str | None = field(
        default=None,
        metadata={
            "help": "What is trained: adaptformer, vpt_deep, ssf, lora or another PEFT method, with the classifier; none "
            "for encoder blocks and classifier. None: all weights."
        },
    )
    adapter_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Its hyper-parameters as JSON, for example '{\"r\": 8}'."}
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "Texts: 4-bit weights below an adapter (QLoRA with --adapter lora); needs bitsandbytes."},
    )
    train_only: list[str] | None = field(
        default=None,
        metadata={
            "help": "Weights that are trained, by name, * for any text, the rest frozen: classifier.* "
            "'bert.encoder.layer.[45].*'. None: all that `adapter` leaves."
        },
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

    def __post_init__(self) -> None:
        require_finite(self, vars(self))


@dataclass(frozen=True)
class DataArguments:
    """The data that it is trained and tested on."""

    _argument_group_name = "data"

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "A name on the Hub; a folder of Parquet files, of images in train/CLASS/ and test/CLASS/, or of tables "
            "(CSV, TSV, JSON, JSON lines) of texts or of paths of images; or one table."
        },
    )
    dataset_config_name: str | None = field(
        default=None,
        metadata={"help": "One of the configurations of such a data set, such as r100. None: its default one."},
    )
    dataset_revision: str | None = field(
        default=None,
        metadata={
            "help": "The version of a data set on the Hub: a branch, a tag or a commit. None: its main branch as it is now."
        },
    )
    task: str = field(
        default="auto",
        metadata={"help": "image or text. auto: image where there is a column of images, text otherwise."},
    )
    text_column: list[str] | None = field(
        default=None,
        metadata={"help": "Column of the texts, or the two columns of pairs of texts. None: text, or the only one."},
    )
    max_length: int | None = field(
        default=None,
        metadata={"help": "Tokens of a text, which is cut there. None: as many as the model takes, up to 512."},
    )
    builder: str = field(
        default="auto",
        metadata={
            "help": "auto, image_folder, table, hub (also folders of Parquet files), or a long-tailed set of `ltsam data "
            "list`, such as cifar10_lt or imagenet_lt, over your own copy of the images (--dataset FOLDER)."
        },
    )
    lists: str | None = field(
        default=None,
        metadata={"help": "Folder with the split lists of imagenet_lt, ... None: beside the images, or fetched once."},
    )
    own_lists: bool = field(default=False, metadata={"help": "Take lists that are not the published ones."})
    image_column: str | None = field(
        default=None, metadata={"help": "Images, or in a table their paths. None: the only such column."}
    )
    label_column: str | None = field(
        default=None,
        metadata={
            "help": "Classes: names, or whole numbers, which are their names then. None: the only ClassLabel column, or "
            "label, labels, class, target, category, species."
        },
    )
    train_split: str = field(default="train", metadata={"help": "The split to train on."})
    test_split: str | None = field(
        default=None, metadata={"help": "The split to test on, after the last epoch. None: test, or else validation."}
    )
    held_out_per_class: int | None = field(
        default=None,
        metadata={
            "help": "Data without a test split: how many of every class, at most half of them, are set aside for the "
            "test."
        },
    )
    only_known_classes: bool = field(
        default=False,
        metadata={"help": "Leave out test samples of classes without a training sample, which are refused otherwise."},
    )
    imbalance_ratio: float | None = field(
        default=None, metadata={"help": "Draw a long tail of this ratio from the training split. None: take all of it."}
    )
    profile: str = field(default="exponential", metadata={"help": "Shape of that tail: exponential or step."})
    largest_class: int | None = field(
        default=None,
        metadata={
            "help": "Images of that tail's largest class, for a smaller set of the same shape. None: all it has."
        },
    )
    split_seed: int = field(
        default=0,
        metadata={"help": "Seed of that draw (0 is the published one), of held_out_per_class and of reserve."},
    )
    many_above: int | None = field(
        default=None,
        metadata={"help": "Classes with more training samples are reported as many. None: 100, or see few_below."},
    )
    few_below: int | None = field(
        default=None,
        metadata={
            "help": "Classes with fewer training samples are reported as few. None: 20; where no class is many by 100 or "
            "none few by 20, both are round numbers that make groups of about a third of the classes each."
        },
    )
    group_sizes: list[int] | None = field(
        default=None,
        metadata={
            "help": "Numbers of classes that are reported as many, medium and few, in order of frequency, in the place of "
            "both bounds: 36 35 29. They sum to the number of classes."
        },
    )
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
            "help": "Share of every class's training samples, in (0, 1), that is left out of the training for choices made "
            "afterwards: calibrated probabilities of `ltsam predict`, tau of `ltsam decouple --second_stage tau_norm`. The "
            "accuracies are those of the test all the same; `ltsam tune` chooses settings by a reserve."
        },
    )
    num_channels: int = field(
        default=3, metadata={"help": "3 for colour, 1 for grey images (small ones, with cifar_resnet)."}
    )
    rgb_channels: list[int] | None = field(
        default=None,
        metadata={
            "help": "Channels of the files, from 0, that are red, green and blue: bands, or pages of a TIFF; one: grey. "
            "None: as the files say."
        },
    )
    pixel_range: list[float] | None = field(
        default=None,
        metadata={"help": "The values of black and white. None: 0 and 255, of 16-bit images 0 and 65535."},
    )
    normalisation: str = field(
        default="auto",
        metadata={
            "help": "auto (the model's own, or the mean and deviation of the training images), cifar10 or cifar100."
        },
    )
    crop_padding: int | None = field(
        default=None,
        metadata={
            "help": "Small images: padding before the random crop, in pixels. Not set: an eighth of the shorter side."
        },
    )
    flip: bool = field(default=True, metadata={"help": "Mirror half of the training images. Wrong for digits or text."})
    color_jitter: float = field(
        default=0.0,
        metadata={
            "help": "Change brightness, contrast and saturation of each training image by a factor from [1 - c, 1 + c], c "
            "in [0, 1]. 0: off."
        },
    )
    cutout: int = field(
        default=0,
        metadata={
            "help": "Hide a square of this side around a random pixel of each training image (DeVries and "
            "Taylor 2017: 16 for CIFAR-10, 8 for CIFAR-100). 0: none."
        },
    )
    randaugment: int = field(
        default=0,
        metadata={
            "help": "The number of random operations applied in a row to each training image, for example 2 "
            "(RandAugment, Cubuk et al. 2020). 0: none."
        },
    )
    randaugment_magnitude: int = field(default=9, metadata={"help": "The strength of these operations, 0 to 30."})
    random_erasing: float = field(
        default=0.0,
        metadata={
            "help": "Probability in [0, 1] that a rectangle of 2 to 33 percent of a training image is hidden (Zhong et al. "
            "2020: 0.5; 0.25 in many recipes). 0: off."
        },
    )
    check_images: bool = field(
        default=True, metadata={"help": "Large images: look for corrupt ones first. Small ones are all decoded anyway."}
    )

    def __post_init__(self) -> None:
        require_finite(self, vars(self))

    @property
    def pixel_values(self) -> PixelValues:
        """How images of more bits or channels are read, by `rgb_channels` and `pixel_range`.

        Raises:
            ValueError: other than one or three channels, or an empty range.
        """
        return PixelValues.from_dict(vars(self))

    @property
    def operations(self) -> RandAugment | None:
        """RandAugment as `randaugment` and `randaugment_magnitude` state it; None where it is off.

        Raises:
            ValueError: there is no such number of operations, or no such magnitude.
        """
        return RandAugment(self.randaugment, self.randaugment_magnitude) if self.randaugment else None


# How training images are changed at random: options of `DataArguments`.
AUGMENTATION = (
    "crop_padding",
    "flip",
    "color_jitter",
    "cutout",
    "randaugment",
    "randaugment_magnitude",
    "random_erasing",
)


@dataclass(frozen=True)
class SecondStageArguments:
    """A second stage: the classifier of a finished run, trained or rescaled again."""

    _argument_group_name = "second stage"

    second_stage: str | None = field(
        default=None,
        metadata={
            "help": f"`ltsam decouple`: how the classifier of a run is trained again: {', '.join(SECOND_STAGES)}."
        },
    )
    second_stage_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Its hyper-parameters as JSON, for example '{\"cap\": 0.3}' for cc_sam."}
    )
    first_stage: str | None = field(
        default=None,
        metadata={
            "help": "The run that it starts from: a folder, a checkpoint in it, or a recipe, which stands for the run "
            "runs/RECIPE/seedN with the same seed."
        },
    )
    cache_features: bool = field(
        default=False,
        metadata={
            "help": "Second stages: compute the features below the classifier once, from images without augmentation. Far "
            "faster; the sources augment."
        },
    )

    def __post_init__(self) -> None:
        require_finite(self, vars(self))


@dataclass(frozen=True)
class Run:
    """A training run, with every setting decided.

    Args:
        settings: those that a recipe, the command line or a caller stated, by name; the others have their defaults.
        words: the options after `ltsam PROGRAM` that repeat the run.
        program: the command that they belong to: train or decouple.
        hub: what the names of data and model mean on the Hub, as `RunRecord` keeps it.
    """

    model: ModelArguments
    data: DataArguments
    stage: SecondStageArguments
    config: LTSamConfig
    settings: Mapping[str, Any]
    words: tuple[str, ...]
    program: str = "train"
    hub: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The run as one line to paste, however it was started."""
        return shlex.join(in_processes(["ltsam", self.program, *self.words], self.config.world_size))
