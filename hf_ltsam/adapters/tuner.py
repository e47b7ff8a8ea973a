"""Base classes of our tuners: a wrapper around a module, and a tuner that finds its targets in the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from hf_ltsam.adapters.encoders import pattern_of, require_encoder

_NO_TABLE: dict[str, list[str]] = {}  # peft looks targets up by model_type; here the model itself is searched


class Wrapper(nn.Module, BaseTunerLayer):
    """A module of the encoder and the adapters of one method beside it, each with separate keys in the state dict.

    Args:
        base_layer: the module.
        in_features, out_features: number of channels that enter and leave it.
    """

    def __init__(self, base_layer: nn.Module, in_features: int, out_features: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = in_features, out_features
        self.merged_adapters: list[str] = []

    def working_adapters(self) -> list[str]:
        """The active adapters of this module; none while they are disabled or merged."""
        if self.disable_adapters or self.merged:
            return []
        available = self._get_available_adapters()
        return [name for name in self.active_adapters if name in available]

    def working_adapter(self) -> str | None:
        """The one adapter at work, for methods that cannot combine adapters; None if there is none.

        Raises:
            ValueError: several are active.
        """
        names = self.working_adapters()
        if len(names) > 1:
            raise ValueError(
                f"{' and '.join(map(repr, names))} are active at once, but {type(self).__name__} works with one adapter "
                f"at a time: set_adapter({names[0]!r})."
            )
        return names[0] if names else None

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """peft's, for modules without a `weight`; peft then turns half precision into float32."""
        like = next(self.base_layer.parameters())
        for layer_name in self.adapter_layer_names:
            adapters = cast("nn.ModuleDict", self.get_submodule(layer_name))
            if adapter_name in adapters and not _is_meta(adapters[adapter_name]):
                adapters[adapter_name] = adapters[adapter_name].to(device or like.device, like.dtype)


def _is_meta(entry: nn.Module | Tensor) -> bool:
    tensors: Iterator[Tensor] = entry.parameters() if isinstance(entry, nn.Module) else iter([entry])
    return any(t.is_meta for t in tensors)


class EncoderTuner(BaseTuner):
    """A tuner of vision encoders that finds its targets in the model itself.

    Subclasses set `prefix` and, if they cannot be merged, the reason; they implement `targets`, `wrap` and `add`. What peft
    has for some of its own methods alone is refused by name.
    """

    tuner_layer_cls = Wrapper
    target_module_mapping = _NO_TABLE
    display_name: str
    way_out: str  # for unknown encoders
    no_merging: str | None = None  # the reason

    def targets(self, config: Any, model: nn.Module) -> list[str]:
        """The names of the modules to adapt if `config.target_modules` is None."""
        raise NotImplementedError

    def wrap(self, config: Any, target: nn.Module, parent: nn.Module, name: str) -> Wrapper:
        """The wrapper around a module; may change the neighbours of the module in its parent."""
        raise NotImplementedError

    def add(self, config: Any, wrapper: Any, adapter: str, parent: nn.Module, name: str) -> None:
        """Give a wrapper the parameters of an adapter."""
        raise NotImplementedError

    def encoder(self, model: nn.Module) -> Any:
        return require_encoder(model, self.display_name, self.way_out)

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        return peft_config  # `_prepare_model` does it, with the model at hand

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        if peft_config.target_modules is None:
            peft_config.target_modules = pattern_of(self.targets(peft_config, model))

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if not isinstance(target, self.tuner_layer_cls):
            target = self.wrap(peft_config, target, parent, current_key)
            setattr(parent, target_name, target)
        self.add(peft_config, target, adapter_name, parent, current_key)
        target._move_adapter_to_device_of_base_layer(adapter_name)
        target.set_adapter(self.active_adapters, inference_mode=peft_config.inference_mode)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        setattr(parent, child_name, new_module)  # peft's expects a `weight`, which blocks and MLPs lack

    def _check_merge_allowed(self) -> None:
        if self.no_merging is not None:
            raise NotImplementedError(
                f"{self.display_name} cannot be merged into the encoder: {self.no_merging}. Keep the adapter beside the "
                "model (save_pretrained, PeftModel.from_pretrained), or remove it with unload()."
            )

    def add_weighted_adapter(self, adapters: list[str], weights: list[float], adapter_name: str, **_: Any) -> None:
        """Refused: the adapters of peft that can be added up are linear in their weights."""
        raise NotImplementedError(
            f"{self.display_name} has no weighted sum of adapters ({', '.join(adapters)}). Activate one of them with "
            "set_adapter, or average the logits of each."
        )

    @contextmanager
    def _enable_peft_forward_hooks(self, *_: Any, **arguments: Any) -> Iterator[None]:
        """Arguments of `forward` that are peft's and not the model's; peft would drop them without a word."""
        for name in ("adapter_names", "alora_offsets"):
            if arguments.get(name) is not None:
                raise NotImplementedError(
                    f"{self.display_name} uses the active adapter for a whole batch, got {name}={arguments[name]!r}: leave "
                    "it out, and make a forward pass for each adapter (set_adapter)."
                )
        yield

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """peft's, with an explanation if a shape does not fit."""
        remapped: dict[str, Tensor] = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        present = model.state_dict()
        for name, saved in remapped.items():
            if name in present and present[name].shape != saved.shape:
                raise ValueError(
                    f"The saved adapter does not fit this model: {name} has shape {tuple(saved.shape)} in the file and "
                    f"{tuple(present[name].shape)} in the model. Build the model with the encoder and the number of classes "
                    "that the adapter was trained with."
                )
        return remapped
