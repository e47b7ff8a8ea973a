"""Any classifier of images or texts of transformers or timm with a cosine classifier instead of its linear one."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

from hf_ltsam.hyperparameters import POSITIVE, require
from hf_ltsam.models.classifier import classifier_name
from hf_ltsam.models.cosine_classifier import CosineClassifier, init_unloaded


class CosineHeadConfig(PreTrainedConfig):
    """Configuration of `CosineHeadForImageClassification`.

    Args:
        base_config: of the classifier whose last layer is replaced, or its mapping; None: ViT's, of texts BERT's.
        cosine_scale: factor from cosine to logit, > 0.
        learnable_scale: train the scale with the rest.
        kwargs: the settings of every transformers configuration: num_labels, id2label, label2id, dtype, ...

    Raises:
        ValueError: a scale that is not positive.
    """

    model_type = "hf_ltsam_cosine_head"
    sub_configs: ClassVar[dict[str, Any]] = {"base_config": AutoConfig}
    default_base: ClassVar[str] = "vit"

    base_config: Any = None
    cosine_scale: float = 25.0
    learnable_scale: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        base = {"model_type": self.default_base} if self.base_config is None else self.base_config
        self.base_config = CONFIG_MAPPING[base["model_type"]].from_dict(base) if isinstance(base, dict) else base
        super().__post_init__(**kwargs)
        require(POSITIVE, self, cosine_scale=self.cosine_scale)


class CosineHeadForTextsConfig(CosineHeadConfig):
    """Configuration of `CosineHeadForSequenceClassification`; arguments and errors are those of `CosineHeadConfig`."""

    model_type = "hf_ltsam_cosine_head_texts"
    default_base: ClassVar[str] = "bert"


class CosineHead(PreTrainedModel):
    """logits = scale * cos(feature, weight_c), where the feature is the input of the replaced linear layer.

    The replaced layer is the one `nn.Linear` with C outputs. `of` makes such a model from a pretrained classifier; its
    subclasses are those of images and of texts.
    """

    config_class = CosineHeadConfig
    auto_class: ClassVar[Any]  # of transformers, which builds the classifier from `base_config`
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: CosineHeadConfig) -> None:
        super().__init__(config)
        self.model = self.auto_class.from_config(config.base_config)
        _replace_last_layer(self.model, config)
        self.post_init()

    @classmethod
    def of(cls, model: PreTrainedModel, cosine_scale: float = 25.0, learnable_scale: bool = False) -> Any:
        """The features of `model` with a new, random cosine classifier, in the type of its weights.

        Raises:
            ValueError: no linear layer, or several, could be the classifier.
        """
        config = cls.config_class(
            name_or_path=model.name_or_path,
            base_config=model.config.to_dict(),
            cosine_scale=cosine_scale,
            learnable_scale=learnable_scale,
            id2label=model.config.id2label,
            label2id=model.config.label2id,
        )
        wrapped = cls(config)
        last, _ = _last_layer(model, config.num_labels)
        trunk = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(f"{last}.")}
        wrapped.model.load_state_dict(trunk, strict=False)  # all but the classifier, which is new
        return wrapped.to(model.dtype)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, CosineClassifier):
            init_unloaded(module, self.config.cosine_scale)
        else:
            self.model._init_weights(module)


# No **kwargs in forward: transformers' Trainer takes them as a promise to scale the loss itself (transformers#47688).
class CosineHeadForImageClassification(CosineHead):
    """A `CosineHead` of images."""

    auto_class = AutoModelForImageClassification
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Logits (n, C); with labels (n,), the loss is their mean cross-entropy."""
        logits = self.model(pixel_values=pixel_values).logits
        return ImageClassifierOutput(loss=_loss(logits, labels), logits=logits)


class CosineHeadForSequenceClassification(CosineHead):
    """A `CosineHead` of texts, on an encoder or decoder."""

    config_class = CosineHeadForTextsConfig
    auto_class = AutoModelForSequenceClassification
    main_input_name = "input_ids"
    input_modalities = ("text",)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Logits (n, C) of tokens (n, L); with labels (n,), the loss is their mean cross-entropy."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "inputs_embeds": inputs_embeds,
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        of_model = self.model(**{name: value for name, value in inputs.items() if value is not None})
        outputs = SequenceClassifierOutput(
            loss=_loss(of_model.logits, labels),
            logits=of_model.logits,
            hidden_states=of_model.get("hidden_states"),
            attentions=of_model.get("attentions"),
        )
        return outputs.to_tuple() if return_dict is False else outputs


def _loss(logits: Tensor, labels: Tensor | None) -> Tensor | None:
    return None if labels is None else F.cross_entropy(logits, labels)


def _replace_last_layer(model: nn.Module, config: CosineHeadConfig) -> None:
    name, linear = _last_layer(model, config.num_labels)
    parent, _, child = name.rpartition(".")
    head = CosineClassifier(linear.in_features, config.num_labels, config.cosine_scale, config.learnable_scale)
    setattr(model.get_submodule(parent), child, head)


def _last_layer(model: nn.Module, num_classes: int) -> tuple[str, nn.Linear]:
    name = classifier_name(model, num_classes)
    layer = model.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"The classifier of {type(model).__name__} is no linear layer, but a {type(layer).__name__}.")
    return name, layer
