"""How many prompts there are, and where."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from hf_ltsam.adapters.registration import OwnPeftType
from hf_ltsam.hyperparameters import COUNT, require


@dataclass
class VPTConfig(PeftConfig):
    """Visual prompts: learned tokens after the class token, which the last block's output no longer has.

    Args:
        num_tokens: prompts per block that has some; 10 in LIFT (Jia et al. 2022 choose 1 to 200 per task).
        deep: new prompts before every block, which replace what the last block made of its own; otherwise prompts before
            the first block alone, which run through all blocks.
        target_modules: the blocks, as names or one regular expression; by default all of them. The first and the last of
            a shallow adapter are the first and last block that are named.
        exclude_modules: of the blocks found, those to leave alone.
        modules_to_save: modules that are trained whole and saved with the adapter: the classifier.

    Prompts start uniform in +-sqrt(6 / (3 p^2 + D)) for patches of p x p pixels and width D (Jia et al. 2022, the Xavier
    rule for the patch embedding). Hidden states that blocks hand out (`output_hidden_states`) contain them.
    """

    num_tokens: int = field(default=10, metadata={"help": "Prompts per block that has some."})
    deep: bool = field(
        default=True, metadata={"help": "New prompts before every block; False: before the first alone."}
    )
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "The blocks; all where None."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Blocks to leave alone."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Trained whole and saved too."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = OwnPeftType.HF_LTSAM_VPT
        require(COUNT, self, num_tokens=self.num_tokens)
