"""Configuration of VPT."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from hf_ltsam.adapters.registration import LTSamPeftType
from hf_ltsam.hyperparameters import COUNT, require


@dataclass
class VPTConfig(PeftConfig):
    """Visual prompts: learned tokens after the class token, removed from the output of the last block.

    Prompts start uniform in +-sqrt(6 / (3 p^2 + D)) for patches of p x p pixels and width D (Jia et al. 2022, the Xavier
    rule for the patch embedding). The outputs of the blocks (`output_hidden_states`) contain them.

    Args:
        num_tokens: prompts before a block, >= 1; 10 in LIFT (Jia et al. 2022 choose 1 to 200 per task).
        deep: new prompts before every block, which replace those of the block before; False: prompts before the first
            block alone, which run through all blocks.
        target_modules: names of the blocks, or one regular expression; None: all. The prompts of a shallow adapter enter
            before the first named block and leave after the last.
        exclude_modules: blocks without an adapter.
        modules_to_save: modules to train whole and to save with the adapter: the classifier.

    Raises:
        ValueError: `num_tokens` is no whole number of at least 1.
    """

    num_tokens: int = field(default=10, metadata={"help": "Prompts before a block."})
    deep: bool = field(
        default=True, metadata={"help": "New prompts before every block; False: before the first alone."}
    )
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "The blocks; None: all."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Blocks without an adapter."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules to train whole and save."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = LTSamPeftType.HF_LTSAM_VPT
        require(COUNT, self, num_tokens=self.num_tokens)
