"""What an AdaptFormer adapter is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from hf_ltsam.adapters.registration import OwnPeftType
from hf_ltsam.hyperparameters import COUNT, require


@dataclass
class AdaptFormerConfig(PeftConfig):
    """A bottleneck adapter parallel to the MLP: x + mlp(ln2(x)) + s up(relu(down(ln(x)))), the identity at the start.

    Args:
        num_classes: C, from which LIFT's rule makes the bottleneck: 2^max(0, int(log2(C / (2 L)))) for L blocks. A head in
            `modules_to_save` must have as many outputs.
        bottleneck: its width outright; filled in from `num_classes` otherwise.
        target_modules: the MLPs, as names or one regular expression; found in CLIP, SigLIP, ViT, DINO and DINOv2 encoders
            of transformers.
        norm: the name, inside a block, of the layer norm before the MLP; found in the same encoders.
        exclude_modules: of the MLPs found, those to leave alone.
        modules_to_save: modules that are trained whole and saved with the adapter: the classifier.

    Raises:
        ValueError: neither `num_classes` nor `bottleneck`, or one of them is no whole number of at least 1.
    """

    num_classes: int | None = field(default=None, metadata={"help": "C; LIFT's rule makes the bottleneck of it."})
    bottleneck: int | None = field(default=None, metadata={"help": "Width of the bottleneck outright."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "The MLPs; found where None."})
    norm: str | None = field(
        default=None, metadata={"help": "Layer norm before the MLP, in a block; found where None."}
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "MLPs to leave alone."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Trained whole and saved too."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = OwnPeftType.HF_LTSAM_ADAPTFORMER
        if self.num_classes is None and self.bottleneck is None:
            raise ValueError(
                "AdaptFormerConfig needs num_classes=<C> for LIFT's width, or bottleneck=<width> outright."
            )
        given = {"num_classes": self.num_classes, "bottleneck": self.bottleneck}
        require(COUNT, self, **{name: value for name, value in given.items() if value is not None})
