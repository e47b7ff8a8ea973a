"""Pages that are made from the code: one for each method, the losses, the settings, the reference.

Everything is read from registries, docstrings and fields: a new method or loss has its page without a line here.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import dataset_builders
import hf_ltsam
from hf_ltsam import LOSSES, METHODS, LTSamConfig
from hf_ltsam.cli.reproduce.tables import read_table
from hf_ltsam.hyperparameters import entry
from hf_ltsam.methods import Method
from hf_ltsam.runs.identity import describe
from hf_ltsam.runs.recipe_tables import table_names

# Modules that are read one by one; packages with an `__all__` are found.
MODULES = (
    "hf_ltsam.losses",
    "hf_ltsam.losses.reweighting",
    "hf_ltsam.schedules",
    "hf_ltsam.methods.context",
    "hf_ltsam.landscape.landscape",
    "hf_ltsam.landscape.vector",
    "hf_ltsam.methods.protocol",
    "hf_ltsam.losses.protocol",
    "hf_ltsam.runs.folder",
    "hf_ltsam.training.weight_averaging",
    "hf_ltsam.models.spectral_norm",
    "hf_ltsam.data.transforms",
    "hf_ltsam.data.decoding",
    "hf_ltsam.models.views",
    "dataset_builders.long_tail",
    "dataset_builders.sets.cifar_lt",
    "dataset_builders.folders",
)
_OTHERWISE = {"hf_ltsam.methods"}  # has pages of another kind
_SHOWN_ELSEWHERE = {"METHODS", "LOSSES", "CifarResNetConfig", "CifarResNetForImageClassification"}  # of `hf_ltsam`


def generated_pages() -> dict[str, str]:
    """File name under `generated/` -> Markdown."""
    methods = {f"methods/{name}.md": method_page(name, method) for name, method in METHODS.items()}
    modules = reference_modules()
    return {
        **methods,
        **{f"reference/{name}.md": _reference_page(name) for name in modules},
        "methods/index.md": _methods_index(),
        "losses.md": _losses_page(),
        "settings.md": _settings_page(),
        "reference/index.md": _reference_index(modules),
    }


# ---- methods ----


def method_page(name: str, method: type[Method]) -> str:
    """What the docstring says, and how a run asks for it in Python, in a command and in a recipe."""
    own = own_defaults(method)
    return _page(
        f"# {name}",
        _documented(f"hf_ltsam.methods.{method.__name__}"),
        "Arguments that every method has: `interval`, `start` and `stop`, see [](index.md#every-method). Every radius may "
        "be a schedule, see [](index.md#schedules).",
        "## In a run",
        _fence("python", _python_example(name, method, own)),
        _fence("bash", _command(name, method, own)),
        _recipes(name),
    )


def own_defaults(method: type[Method]) -> dict[str, Any]:
    """Its hyper-parameters without those that all methods share, as a recipe writes them."""
    shared = {field.name for field in dataclasses.fields(Method)}
    arguments: Mapping[str, Any] = describe(METHODS, method())["args"]
    return {name: value for name, value in arguments.items() if name not in shared}


def _python_example(name: str, method: type[Method], own: Mapping[str, Any]) -> str:
    split = "\n                   tail_threshold=20," if method.needs_split else ""
    arguments = f"\n                   method_args={dict(own)!r}," if own else ""
    return f"""from hf_ltsam import LTSamConfig

args = LTSamConfig(output_dir="run", num_train_epochs=20, learning_rate=0.01,{split}
                   method="{name}",{arguments}
                   )""".replace(",\n                   )", ")")


def _command(name: str, method: type[Method], own: Mapping[str, Any]) -> str:
    words = ["ltsam train --dataset path/to/folder --model microsoft/resnet-18", f"--method {name}"]
    words += [f"--method_args '{json.dumps(dict(own))}'"] if own else []
    words += ["--tail_threshold 20"] if method.needs_split else []
    return " \\\n    ".join([*words, f"--learning_rate 0.01 --num_train_epochs 20 --output_dir runs/{name}"])


def _recipes(name: str) -> str:
    """The tables that have rows of a method, and the first of these rows."""
    rows = {
        table: [recipe for recipe, method in recipes.items() if method == name] for table, recipes in _tables().items()
    }
    found = {table: recipes for table, recipes in rows.items() if recipes}
    if not found:
        return ""
    lines = "\n".join(f"| `{table}` | {len(recipes)} | `{recipes[0]}` |" for table, recipes in found.items())
    return (
        f"## Recipes\n\n| table | its rows with `{name}` | the first |\n|---|---|---|\n{lines}\n\n"
        "`ltsam reproduce TABLE` runs a table, `ltsam train --config RECIPE` one row: [](../../reproduce.md)."
    )


@cache
def _tables() -> dict[str, dict[str, Any]]:
    """Table -> recipe of a row -> its method."""
    return {
        name: {
            row.recipe: row.expanded.get("method")
            for row in read_table(name).rows
            if row.first_stage is None  # a second stage goes with any method
        }
        for name in table_names()
    }


def _methods_index() -> str:
    rows = [
        f"| [`{name}`]({name}.md) | {_cell(_first_paragraph(method))} | {_cell(entry(method, 'Cost'))} |"
        for name, method in METHODS.items()
    ]
    return _page(
        "# Methods",
        "G(a, eps) is the gradient of (1/n) sum_i a_i l_i at the weights w + eps, where l_i is the loss of sample i of n. "
        "Every method is an expression in G; unit(g) is g / ||g||, h and t select the samples of head and tail classes, pi "
        "is the prior of the training set. Your optimizer is given the method's g in place of the gradient.",
        "\n".join(["| name | what it is | cost |", "|---|---|---|", *rows]),
        "## Every method",
        _fence("{eval-rst}", ".. autoclass:: hf_ltsam.methods.Method\n   :no-members:\n   :no-index:"),
        "## Schedules",
        "A radius may change during the training. In Python it is any function of the progress in [0, 1); a recipe writes",
        _fence("yaml", _SCHEDULES),
        _toctree(METHODS),
    )


_SCHEDULES = """method_args:
  rho: {piecewise: {values: [0.1, 0.2], epochs: [160]}}       # from epoch 160 on 0.2
  # or linear, cosine; without epochs, over the whole training
  # rho: {linear: {start: 0.05, end: 0.2, epochs: [10, 160]}}
  # boundaries: [0.8] in place of epochs: shares of the training"""


# ---- losses, settings, reference ----


def _losses_page() -> str:
    rows = [
        f"| `{name}` | {_cell(_first_paragraph(loss))} | {', '.join(f'`{a}`' for a in _arguments(loss))} |"
        for name, loss in LOSSES.items()
    ]
    return _page(
        "# Losses",
        "A loss turns logits z (n, C) and labels y (n,) into one value for each sample; the method weighs and sums them. "
        "pi is the prior of the training set, n_c its number of images of class c. Choose one by `loss=` or `--loss`, its "
        "arguments by `loss_args`; `reweighting` and `reweighting_start` put class weights on any of them.",
        "\n".join(["| name | per sample | arguments |", "|---|---|---|", *rows]),
        "In full: [hf_ltsam.losses](reference/hf_ltsam.losses.md). A loss of your own is a function (logits, labels, "
        "statistics) -> losses (n,):",
        _fence("python", _OWN_LOSS),
    )


_OWN_LOSS = """import torch.nn.functional as F

from hf_ltsam import LTSamTrainer


def smoothed(logits, labels, statistics):
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)


trainer = LTSamTrainer(model, args, train_dataset=train, method="sam", loss=smoothed)"""


def _settings_page() -> str:
    own = LTSamConfig.__annotations__
    fields = [field for field in dataclasses.fields(LTSamConfig) if field.name in own and "help" in field.metadata]
    rows = [f"| `{f.name}` | `{_default(f)}` | {_cell(f.metadata['help'])} |" for f in fields]
    return _page(
        "# Settings",
        "`LTSamConfig` takes everything that `transformers.TrainingArguments` takes, and these. On the command line they "
        "are options of the same name; `ltsam train --help` also lists those of model and data.",
        "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows]),
    )


def reference_modules() -> list[str]:
    """The modules above, and every package of ours that says what is public."""
    found = [
        module.name
        for package in (hf_ltsam, dataset_builders)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        if module.ispkg and module.name not in _OTHERWISE and hasattr(importlib.import_module(module.name), "__all__")
    ]
    return ["hf_ltsam", "dataset_builders", *sorted([*MODULES, *found])]


def _reference_page(name: str) -> str:
    directives = _of_the_package() if name == "hf_ltsam" else f".. automodule:: {name}\n   :members:"
    return _page(f"# {name}", _fence("{eval-rst}", directives))


def _of_the_package() -> str:
    """The trainer first; an `automodule` would sort."""
    names = ["LTSamTrainer", *sorted(set(hf_ltsam.__all__) - _SHOWN_ELSEWHERE - {"LTSamTrainer"})]
    kinds = {name: "class" if inspect.isclass(getattr(hf_ltsam, name)) else "function" for name in names}
    documented = [
        f".. auto{kind}:: hf_ltsam.{name}" + "\n   :members:" * (kind == "class") for name, kind in kinds.items()
    ]
    return "\n\n".join([".. automodule:: hf_ltsam", *documented])


def _reference_index(modules: Sequence[str]) -> str:
    told = {name: _cell(_first_paragraph(importlib.import_module(name))) for name in modules}
    links = "\n".join(f"- [`{name}`]({name}.md): {what}" for name, what in told.items())
    return _page("# Reference", links, _toctree(modules))


# ---- text ----


def _page(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _fence(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def _documented(name: str) -> str:
    return _fence("{eval-rst}", f".. autoclass:: {name}\n   :no-members:")


def _toctree(names: Iterable[str]) -> str:
    return _fence("{toctree}", "\n".join([":hidden:", "", *names]))


def _first_paragraph(documented: Any) -> str:
    return " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())


def _cell(text: str) -> str:
    """Inside a table, where | separates cells and * and _ would emphasise."""
    parts = text.split("`")
    escaped = [p if k % 2 else p.replace("*", "\\*").replace("_", "\\_") for k, p in enumerate(parts)]
    return "`".join(escaped).replace("|", "\\|")


def _arguments(loss: Any) -> list[str]:
    return [f"{field.name}={field.default}" for field in dataclasses.fields(loss) if field.init]


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default is not dataclasses.MISSING else "..."
