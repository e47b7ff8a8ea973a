"""Where features are scaled and shifted."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from hf_ltsam.adapters.registration import OwnPeftType


@dataclass
class SSFConfig(PeftConfig):
    """Scale and shift of features, y = gamma x + beta per channel; the identity at the start. It can be merged.

    Args:
        learn_scale: False keeps gamma at 1: the shift is then a change of the layer's bias, which is bias tuning
            (BitFit, Zaken et al. 2022).
        target_modules: the layers, as names or one regular expression; by default every linear and norm layer of the
            blocks, the norms around them and the patch embedding, where they have a bias (CLIP's patch embedding has none,
            and could not take the shift up when merged).
        exclude_modules: of the layers found, those to leave alone.
        modules_to_save: modules that are trained whole and saved with the adapter: the classifier.

    Differs from the published code: it starts from gamma ~ N(1, 0.02^2) and beta ~ N(0, 0.02^2), about which the paper
        says nothing; the identity leaves a pretrained encoder's features, and a classifier made for them, as they are.
    """

    learn_scale: bool = field(default=True, metadata={"help": "False: gamma stays 1, which is bias tuning."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "The layers; found where None."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to leave alone."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Trained whole and saved too."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = OwnPeftType.HF_LTSAM_SSF
