"""Which part of a model is its classifier."""

from __future__ import annotations

from torch import nn

from hf_ltsam.models.cosine_classifier import CosineClassifier

_TRAINED_WHOLE = ".modules_to_save."  # in the names of what peft trains beside an adapter
# for the methods that perturb it
_ALL_WEIGHTS = "a method that perturbs all weights (cc_sam with parameters='all')"


def classifier_of(model: nn.Module, num_classes: int, way_out: str = _ALL_WEIGHTS) -> nn.Module:
    """The one linear or cosine layer with C outputs and something to train.

    In a `PeftModel` a head under `modules_to_save` is it, whatever layers of an adapter have C outputs by chance.

    Args:
        way_out: what to use instead of whatever needs the classifier, for the error message.

    Raises:
        ValueError: there is none, or there are several, by their names.
    """
    return model.get_submodule(classifier_name(model, num_classes, way_out))


def classifier_name(model: nn.Module, num_classes: int, way_out: str = _ALL_WEIGHTS) -> str:
    """The name of `classifier_of` in the model; empty where the model is nothing else.

    Raises:
        ValueError: there is none, or there are several, by their names.
    """
    found = [name for name, m in model.named_modules() if num_outputs(m) == num_classes and _is_trained(m)]
    found = [name for name in found if _TRAINED_WHOLE in name] or found
    if len(found) == 1:
        return found[0]
    reason = (
        f"{' and '.join(map(repr, found))} could each be it"
        if found
        else f"no trainable nn.Linear or CosineClassifier has {num_classes} outputs"
    )
    raise ValueError(
        f"The classifier of {type(model).__name__} cannot be told from its other layers: {reason}. Give the model one last "
        f"layer of these types with {num_classes} outputs, thaw it if it is frozen, or use {way_out}."
    )


def num_outputs(module: nn.Module) -> int | None:
    """C of a layer that can be a classifier, None of any other."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.num_classes if isinstance(module, CosineClassifier) else None


def _is_trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())
