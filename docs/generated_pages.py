"""Pages made from the classes: one for each method, the losses, the settings, the modules of the reference.

`python docs/generated_pages.py` writes the table of methods into README.md, and llms.txt from the table of index.md.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_ltsam import LOSSES, METHODS, LTSamConfig
from hf_ltsam.cli.methods import LEGEND, SCHEDULES, markdown_table, own_defaults, table_by_cost, table_cell
from hf_ltsam.methods import Method

README = Path(__file__).parents[1] / "README.md"
INDEX, LLMS = Path(__file__).parent / "index.md", Path(__file__).parent / "llms.txt"
TABLE_START, TABLE_END = (
    "<!-- methods: generated from the classes, see CONTRIBUTING.md -->\n",
    "<!-- end of methods -->\n",
)

# What is public, in the order of the reference; the methods have pages of another kind.
MODULES = (
    "hf_ltsam",
    "hf_ltsam.class_statistics",
    "hf_ltsam.losses",
    "hf_ltsam.losses.protocol",
    "hf_ltsam.losses.reweighting",
    "hf_ltsam.schedules",
    "hf_ltsam.methods.protocol",
    "hf_ltsam.methods.context",
    "hf_ltsam.landscape",
    "hf_ltsam.landscape.vector",
    "hf_ltsam.training.weight_averaging",
    "hf_ltsam.models",
    "hf_ltsam.models.spectral_norm",
    "hf_ltsam.data.preprocessing",
    "hf_ltsam.adapters",
    "hf_ltsam.data.transforms",
    "hf_ltsam.data.decoding",
    "hf_ltsam.metrics",
    "hf_ltsam.curvature",
    "hf_ltsam.curvature.bounds",
    "hf_ltsam.runs.folder",
    "hf_ltsam.runs.model",
    "dataset_builders",
    "dataset_builders.long_tail",
    "dataset_builders.folders",
    "dataset_builders.sets.cifar_lt",
    "dataset_builders.corruptions",
)


def generated_pages() -> dict[str, str]:
    """File name under `generated/` -> Markdown."""
    return {
        **{f"methods/{name}.md": method_page(name, method) for name, method in METHODS.items()},
        "methods/index.md": _methods_index(),
        "losses.md": _losses_page(),
        "settings.md": _settings_page(),
        "reference/index.md": _reference_index(),
    }


def method_page(name: str, method: type[Method]) -> str:
    """What the docstring says, and how a run asks for the method in Python and in a command."""
    defaults = own_defaults(method)
    split = "\n                   tail_threshold=20," * method.needs_split
    arguments = f",\n                   method_args={defaults!r}" * bool(defaults)
    command = f"--method {name}"
    command += f" \\\n    --method_args '{json.dumps(defaults)}'" * bool(defaults)
    command += " \\\n    --tail_threshold 20" * method.needs_split
    return f"""# {name}

{_documented(f"hf_ltsam.methods.{method.__name__}")}

Every method also takes `interval`, `start` and `stop` ([](index.md#every-method)), and every radius may be a schedule
([](index.md#schedules)). `ltsam recipes {name}` lists the rows of published tables that use it, if there are any.

## In a run
```python
from hf_ltsam import LTSamConfig

args = LTSamConfig(output_dir="run", num_train_epochs=20, learning_rate=1e-4,{split}
                   method="{name}"{arguments})
```

```bash
ltsam train --dataset path/to/folder --model microsoft/resnet-18 {command} \\
    --learning_rate 0.01 --num_train_epochs 20 --output_dir runs/{name}
```
"""


def _methods_index() -> str:
    return f"""# Methods

{LEGEND} Every method is an expression in G. F and B are forward and
backward passes. Your optimizer is given the method's g in place of the gradient.

{markdown_table("[`{name}`]({name}.md)")}

## Every method
{_documented("hf_ltsam.methods.Method", no_index=True)}

## Schedules
A radius may change during the training. In Python it is any function of the progress in [0, 1); a recipe writes under
`method_args` one of

```yaml
{SCHEDULES}```

```{{toctree}}
:hidden:

{_lines(METHODS)}
```
"""


def _losses_page() -> str:
    rows = [
        f"| {loss.title} | `{name}` | {table_cell(loss.equation)} | {', '.join(f'`{a}`' for a in _arguments(loss))} |"
        for name, loss in LOSSES.items()
    ]
    return f"""# Losses

A loss turns logits z (n, C) and labels y (n,) into one value l for each sample; the method weighs and sums them. pi is the
prior of the training set, n_c its number of images of class c. Choose one by `loss=` or `--loss`, its arguments by
`loss_args`; `reweighting` and `reweighting_start` put class weights on any of them.

| loss | name | per sample | arguments |
|---|---|---|---|
{_lines(rows)}

In full: [hf_ltsam.losses](reference/hf_ltsam.losses.rst). A loss of your own is a function (logits, labels, statistics) ->
losses (n,):

```python
import torch.nn.functional as F

from hf_ltsam import LTSamTrainer


def smoothed(logits, labels, statistics):
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)


trainer = LTSamTrainer(model, args, train_dataset=train, method="sam", loss=smoothed)
```
"""


def _settings_page() -> str:
    rows = [
        f"| `{field.name}` | `{_default(field)}` | {table_cell(field.metadata['help'])} |"
        for field in dataclasses.fields(LTSamConfig)
        if field.name in inspect.get_annotations(LTSamConfig) and "help" in field.metadata
    ]
    return f"""# Settings

`LTSamConfig` takes everything that `transformers.TrainingArguments` takes, and these. On the command line they are options
of the same name; `ltsam train --help all` also lists those of model and data.

| setting | default | meaning |
|---|---|---|
{_lines(rows)}
"""


def _reference_index() -> str:
    """Sphinx makes a page for each module."""
    names = "\n".join(f"   {name}" for name in MODULES)
    return f"# Reference\n\n```{{eval-rst}}\n.. autosummary::\n   :toctree:\n   :template: module.rst\n\n{names}\n```\n"


def with_methods(readme: str) -> str:
    """The text of README.md with the table of methods between its two comments as the classes give it.

    Raises:
        ValueError: the comments are not there.
    """
    before, start, rest = readme.partition(TABLE_START)
    _, end, after = rest.partition(TABLE_END)
    if not start or not end:
        raise ValueError(f"README.md needs the lines {TABLE_START.strip()} and {TABLE_END.strip()}.")
    return f"{before}{start}{table_by_cost()}\n{end}{after}"


def llms(index: str) -> str:
    """The written pages as llmstxt.org lists them: a title, what it is, a link for each with what a reader wants there."""
    summary = " ".join(index.split("\n\n")[1].split())
    rows = re.findall(r"^\| (.+) \| \[(.+)\]\((\w+\.md)\) \|$", index, re.MULTILINE)
    pages = _lines(f"- [{title}]({page}): to {wish}" for wish, title, page in rows)
    return f"""# hf_ltsam

> {summary}

`ltsam methods`, `ltsam methods NAME`, `ltsam train --help all` and `ltsam recipes` print what can be chosen.

## Pages
{pages}
"""


def _documented(name: str, no_index: bool = False) -> str:
    return f"```{{eval-rst}}\n.. autoclass:: {name}\n   :no-members:\n{'   :no-index:' * no_index}\n```"


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _arguments(loss: Any) -> list[str]:
    return [f"{field.name}={field.default}" for field in dataclasses.fields(loss) if field.init]


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default is not dataclasses.MISSING else "..."


if __name__ == "__main__":
    README.write_text(with_methods(README.read_text(encoding="utf-8")), encoding="utf-8")
    LLMS.write_text(llms(INDEX.read_text(encoding="utf-8")), encoding="utf-8")
