"""Configuration of AdaptFormer."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from hf_ltsam.adapters.registration import LTSamPeftType
from hf_ltsam.hyperparameters import COUNT, require


@dataclass
class AdaptFormerConfig(PeftConfig):
    """A bottleneck adapter parallel to the MLP: x + mlp(ln2(x)) + s up(relu(down(ln(x)))), the identity at the start.

    Args:
        num_classes: C, which sets the width of the bottleneck by LIFT's rule: 2^max(0, int(log2(C / (2 L)))) for L blocks.
            A head in `modules_to_save` must have C outputs.
        bottleneck: width of the bottleneck; None: by LIFT's rule.
        target_modules: names of the MLPs, or one regular expression; None: those of a CLIP, SigLIP, ViT, DINO or DINOv2
            encoder of transformers.
        norm: name of the layer norm before the MLP, within a block; None: that of the same encoders.
        exclude_modules: MLPs without an adapter.
        modules_to_save: modules to train whole and to save with the adapter: the classifier.

    Raises:
        ValueError: neither `num_classes` nor `bottleneck`, or one of them is no whole number of at least 1.
    """

    num_classes: int | None = field(default=None, metadata={"help": "C, which sets the width by LIFT's rule."})
    bottleneck: int | None = field(default=None, metadata={"help": "Width of the bottleneck; None: LIFT's rule."})
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "The MLPs; None: those of a known encoder."}
    )
    norm: str | None = field(
        default=None, metadata={"help": "Layer norm before the MLP, in a block; None: of a known encoder."}
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "MLPs without an adapter."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules to train whole and save."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = LTSamPeftType.HF_LTSAM_ADAPTFORMER
        if self.num_classes is None and self.bottleneck is None:
            raise ValueError(
                "AdaptFormerConfig needs num_classes=<C>, which sets the width by LIFT's rule, or bottleneck=<width>."
            )
        numbers = {"num_classes": self.num_classes, "bottleneck": self.bottleneck}
        require(COUNT, self, **{name: value for name, value in numbers.items() if value is not None})
