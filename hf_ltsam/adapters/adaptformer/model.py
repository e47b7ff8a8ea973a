"""AdaptFormer for a vision encoder."""

from __future__ import annotations

import math
from typing import cast

from torch import nn

from hf_ltsam.adapters.adaptformer.config import AdaptFormerConfig
from hf_ltsam.adapters.adaptformer.layer import AdaptFormerLayer, NormWithInput
from hf_ltsam.adapters.tuner import EncoderTuner
from hf_ltsam.models.classifier import num_outputs


def lift_bottleneck(num_classes: int, num_blocks: int) -> int:
    """2^max(0, int(log2(C / (2 L)))) for C classes and L blocks: a power of two that grows with the classifier.

    Source: LIFT (Shi et al. 2024).
    """
    return int(2 ** max(0, int(math.log2(num_classes / (2 * num_blocks)))))


class AdaptFormerModel(EncoderTuner):
    """AdaptFormer in every block of a vision encoder.

    In a block: h + mlp(ln2(h)) + adapter(h). Operations of the encoder on the MLP's output before it is added (the layer
    scale and stochastic depth of DINOv2, the dropout of ViT) apply to the sum of both.
    """

    prefix = "adaptformer_"
    display_name = "AdaptFormer"
    way_out = "For another encoder name its modules: AdaptFormerConfig(target_modules=[...], norm=..., bottleneck=...)."
    no_merging = "a ReLU stands between its two matrices, so no weight of the encoder can compute it"

    def targets(self, config: AdaptFormerConfig, model: nn.Module) -> list[str]:
        return self.encoder(model).mlps

    def _prepare_model(self, peft_config: AdaptFormerConfig, model: nn.Module) -> None:
        check_num_classes(peft_config, model)
        super()._prepare_model(peft_config, model)
        if peft_config.norm is None:
            peft_config.norm = self.encoder(model).anatomy.second_norm
        if peft_config.bottleneck is None and peft_config.num_classes is not None:
            peft_config.bottleneck = lift_bottleneck(peft_config.num_classes, len(self.encoder(model).blocks))

    def wrap(self, config: AdaptFormerConfig, target: nn.Module, parent: nn.Module, name: str) -> AdaptFormerLayer:
        neighbours = dict(parent.named_children())
        norm = neighbours.get(str(config.norm))
        if norm is None:
            raise ValueError(
                f"AdaptFormer reads the input of the layer norm before {name!r}, but {type(parent).__name__} has no "
                f"{config.norm!r}, only {', '.join(neighbours)}. Set AdaptFormerConfig(norm=...)."
            )
        norm = NormWithInput(norm)
        setattr(parent, str(config.norm), norm)
        return AdaptFormerLayer(target, norm)

    def add(
        self, config: AdaptFormerConfig, wrapper: AdaptFormerLayer, adapter: str, parent: nn.Module, name: str
    ) -> None:
        wrapper.add(adapter, int(config.bottleneck or 1))
        norm = cast("NormWithInput", parent.get_submodule(str(config.norm)))
        norm.adaptformer_readers[adapter] = None
        norm.set_adapter(self.active_adapters)


def check_num_classes(config: AdaptFormerConfig, model: nn.Module) -> None:
    """Refuse an adapter for another number of classes than that of the classifier trained with it.

    Raises:
        ValueError: naming both numbers.
    """
    for name, module in model.named_modules() if config.num_classes is not None else ():
        is_saved = any(name.endswith(saved) for saved in config.modules_to_save or ())
        outputs = num_outputs(module) if is_saved else None
        if outputs is not None and outputs != config.num_classes:
            raise ValueError(
                f"The adapter is made for num_classes={config.num_classes}, but {name!r} of {type(model).__name__} has "
                f"{outputs} outputs. Build the model with num_labels={config.num_classes}, or make an adapter with "
                f"num_classes={outputs}."
            )
