"""Configuration of SSF."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from hf_ltsam.adapters.registration import LTSamPeftType


@dataclass
class SSFConfig(PeftConfig):
    """Scale and shift of features, y = gamma x + beta per channel; the identity at the start. It can be merged.

    Args:
        learn_scale: False keeps gamma at 1: the shift then changes the bias of the layer only, which is bias tuning
            (BitFit, Zaken et al. 2022).
        target_modules: names of the layers, or one regular expression; None: every linear and norm layer of the blocks,
            the norms around them and the patch embedding, if they have a bias (CLIP's patch embedding has none, so that
            the shift could not be merged into it).
        exclude_modules: layers without an adapter.
        modules_to_save: modules to train whole and to save with the adapter: the classifier.

    Source: Lian et al. 2022.

    Differs from the published code: it starts from gamma ~ N(1, 0.02^2) and beta ~ N(0, 0.02^2), which the paper does not
        mention; the identity preserves a pretrained encoder's features, and a classifier made for them.
    """

    learn_scale: bool = field(default=True, metadata={"help": "False: gamma stays 1, which is bias tuning."})
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "The layers; None: those of a known encoder."}
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers without an adapter."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules to train whole and save."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = LTSamPeftType.HF_LTSAM_SSF
