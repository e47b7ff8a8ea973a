"""The options of a training run that say what it is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_ltsam.data.in_memory.randaugment import RandAugment
from hf_ltsam.models.views import TEST_TIME


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
        metadata={
            "help": "Images of that tail's largest class, for a smaller set of the same shape. None: all it has."
        },
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
        metadata={
            "help": "auto (the model's own, or the mean and deviation of the training images), cifar10 or cifar100."
        },
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
