"""The classifier of a model: its one trainable layer with C outputs."""

from __future__ import annotations

from torch import nn

from hf_ltsam.models.cosine_classifier import CosineClassifier

_TRAINED_WHOLE = ".modules_to_save."  # in the names of modules that peft trains beside an adapter
_ALL = "a method that perturbs all weights"
_ALL_WEIGHTS = "a method that perturbs all weights (cc_sam with parameters='all')"


def classifier_of(model: nn.Module, num_classes: int, way_out: str = _ALL_WEIGHTS) -> nn.Module:
    """The one linear or cosine layer with C outputs and trainable parameters.

    In a `PeftModel` a head under `modules_to_save` takes precedence: layers of an adapter may have C outputs by chance.

    Args:
        num_classes: C.
        way_out: for the error message, the alternative to the setting that needs the classifier.

    Raises:
        ValueError: there is none, or several; these are named.
    """
    return model.get_submodule(classifier_name(model, num_classes, way_out))


def classifier_name(model: nn.Module, num_classes: int, way_out: str = _ALL_WEIGHTS) -> str:
    """The name of `classifier_of` in the model; empty if the model itself is that layer.

    Raises:
        ValueError: there is none, or several; these are named.
    """
    candidates = [name for name, m in model.named_modules() if num_outputs(m) == num_classes and _is_trained(m)]
    candidates = [name for name in candidates if _TRAINED_WHOLE in name] or candidates
    if len(candidates) == 1:
        return candidates[0]
    reason = (
        f"{' and '.join(map(repr, candidates))} could each be it"
        if candidates
        else f"no trainable nn.Linear or CosineClassifier has {num_classes} outputs"
    )
    raise ValueError(
        f"The classifier of {type(model).__name__} cannot be told from its other layers: {reason}. Give the model one last "
        f"layer of these types with {num_classes} outputs, thaw it if it is frozen, or use {way_out}."
    )


def output_layer(model: nn.Module) -> nn.Module:
    """What gives the outputs of a model with a loss of its own: a language model's head, or the one layer of `num_labels`.

    Raises:
        ValueError: it cannot be told.
    """
    embeddings = getattr(model, "get_output_embeddings", lambda: None)()
    if isinstance(embeddings, nn.Module):
        return embeddings
    num_labels = getattr(getattr(model, "config", None), "num_labels", None)
    if num_labels is None:
        raise ValueError(
            f"Nothing says what the output layer of {type(model).__name__} is (get_output_embeddings(), config.num_labels): "
            f"use {_ALL}."
        )
    return classifier_of(model, num_labels, way_out=_ALL)


def frozen_head(model: nn.Module, num_classes: int) -> str | None:
    """The name of the classifier that an adapter of peft leaves frozen; None where anything with C outputs is trained."""
    if not hasattr(model, "peft_config"):
        return None
    layers = {name: module for name, module in model.named_modules() if num_outputs(module) == num_classes}
    if not layers or any(map(_is_trained, layers.values())):
        return None
    return list(layers)[-1].removeprefix("base_model.model.")


def num_outputs(module: nn.Module) -> int | None:
    """C for a layer that can be a classifier, None for any other."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.num_classes if isinstance(module, CosineClassifier) else None


def _is_trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())
