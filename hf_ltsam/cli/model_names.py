"""What may name a model, looked up before anything is loaded: by one request, where transformers tries six times."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.errors import RepositoryNotFoundError as NotOnHub
from transformers import AutoConfig, TimmWrapperConfig

from hf_ltsam.models.clip_source import OPEN_CLIP
from hf_ltsam.runs.folder import CONFIG, RunFolder

OURS = "cifar_resnet"
SECONDS = 10  # that the Hub may take to answer
TIMM = "timm/"  # the owner of timm's models on the Hub


def check_model(name: str, pretrained: bool = True, finished: bool = False, option: str = "--model") -> None:
    """Refuse a model that is not there, without loading anything.

    Args:
        pretrained: whether its weights are wanted; timm's models can be built without.
        finished: whether it is to be used as it is, so that neither a new one nor an image tower alone will do.
        option: of the command, that states the name.

    Raises:
        FileNotFoundError: no such folder, or no such model on the Hub, with the nearest names.
        OSError: the Hub cannot be asked, and the model is not on this machine.
    """
    if name.startswith(OPEN_CLIP) and not finished:
        return  # a name of open_clip's, and its file, are judged where they are read
    if Path(name).exists():
        _check_folder(Path(name), option)
    elif name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"{option} {name}: there is no such folder, and names on the Hub have the form OWNER/NAME."
        )
    elif finished or not (name == OURS or (not pretrained and timm_architecture(name))):
        _ask_hub(name, finished, option)


def timm_architecture(name: str) -> str | None:
    """The name of one of timm's models inside timm, from that or from its name on the Hub; None if timm has none."""
    if importlib.util.find_spec("timm") is None:
        return None
    import timm

    architecture = name.removeprefix(TIMM)
    is_name = "/" not in architecture and not Path(name).exists()
    return architecture if is_name and timm.is_model(architecture) else None


def timm_config(architecture: str, **labels: Any) -> TimmWrapperConfig:
    """The configuration that lies beside the weights of one of timm's models, made without the Hub."""
    stated = {"architecture": architecture.partition(".")[0], "pretrained_cfg": timm_preprocessing(architecture)}
    return TimmWrapperConfig.from_dict(stated, **labels)


def timm_preprocessing(architecture: str) -> dict[str, Any]:
    """What timm states of the images that the published weights were trained on: input_size, mean, std, ..."""
    import timm

    stated = timm.get_pretrained_cfg(architecture)
    return {} if stated is None else dict(stated.to_dict())


def _check_folder(path: Path, option: str) -> None:
    if path.is_file():
        raise FileNotFoundError(f"{option} {path} is a file: name the folder that it lies in.")
    if not RunFolder(path).has(CONFIG):
        inner = sorted(file.parent.name for file in path.glob(f"*/{CONFIG}"))
        hint = f" There are models in it: {', '.join(inner)}." if inner else ""
        raise FileNotFoundError(f"{option} {path} holds no model: there is no {CONFIG} in it.{hint}")
    try:
        AutoConfig.from_pretrained(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{option} {path}: its {CONFIG} describes no model ({' '.join(str(error).split())[:200]})."
        ) from error


def _ask_hub(name: str, finished: bool, option: str) -> None:
    absent = f"{option} {name} is not on this machine, and "
    try:
        if not isinstance(try_to_load_from_cache(name, CONFIG), str):
            HfApi().model_info(name, timeout=SECONDS)
    except OfflineModeIsEnabled as error:
        way_out = "unset it, or name a folder that holds config.json and weights"
        raise FileNotFoundError(
            f"{absent}HF_HUB_OFFLINE=1 forbids the network: {way_out}.{_close(name, finished)}"
        ) from error
    except GatedRepoError as error:
        page = f"{constants.ENDPOINT}/{name}"
        raise OSError(f"{option} {name} is gated: accept its terms at {page}, and set HF_TOKEN or log in.") from error
    except (NotOnHub, HFValidationError) as error:
        raise FileNotFoundError(
            f"{option} {name} is neither a folder here nor a model on the Hub that you may read.{_close(name, finished)}"
        ) from error
    except (HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise OSError(f"{absent}the Hub cannot be reached ({reason}).{_close(name, finished)}") from error


def _close(name: str, finished: bool) -> str:
    """The nearest of the names that are known here: ours, those of models on this machine, and timm's."""
    beside = [str(file.parent) for file in Path(name).parent.glob(f"*/{CONFIG}")]
    names = [*([] if finished else [OURS]), *_on_this_machine(), *beside]
    architecture = timm_architecture(name)
    if importlib.util.find_spec("timm") is not None:
        import timm

        names += [TIMM + model for model in timm.list_models(pretrained=True)]
    variants = [
        known for known in names if architecture and known.startswith(f"{TIMM}{architecture.partition('.')[0]}.")
    ]
    close = [] if name in variants else variants[:3] or difflib.get_close_matches(name, names, 3, 0.8)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    without = " --pretrained false builds it without the Hub, from random weights."
    return hint + (without if architecture and not finished else "")


def _on_this_machine() -> list[str]:
    folders = Path(constants.HF_HUB_CACHE).glob("models--*")
    return [folder.name.removeprefix("models--").replace("--", "/") for folder in folders]
