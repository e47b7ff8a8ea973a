"""`ltsam methods`: the methods in a table, or everything about one of them."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.hyperparameters import canonical, nearest
from hf_ltsam.methods import METHODS, Method
from hf_ltsam.runs import escaping
from hf_ltsam.runs.identity import describe

LEGEND = (
    "G(a, eps) is the gradient of (1/n) sum_i a_i l_i at the weights w + eps, where l_i is the loss of sample i of n; G(1) "
    "has eps = 0. unit(g) = g / ||g||, pi_c is the share of class c in the training set, h and t select the samples of head "
    "and tail classes."
)
SCHEDULES = """\
rho: {piecewise: {values: [0.1, 0.2], epochs: [160]}}      # from epoch 160 on 0.2
rho: {linear: {start: 0.05, end: 0.2, epochs: [10, 160]}}  # or cosine; without epochs, over the whole training
rho: {cosine: {start: 0.2, end: 0.05, boundaries: [0, 0.8]}}  # shares of the training in place of epochs
"""
COLUMNS = ("method", "name", "update gradient", "cost", "source")
WIDE = 100  # columns of a terminal in which all facts about a method stand side by side


def main(words: Sequence[str]) -> None:
    """`ltsam methods [NAME]`."""
    parser = OptionParser(prog="ltsam methods", description=__doc__)
    parser.add_argument("name", nargs="?", help="a method; without it, all are listed")
    name = parser.parse_args(words).name
    if name is None:
        print_methods()
    else:
        print(method_page(name))


def own_defaults(method: type[Method]) -> dict[str, Any]:
    """Its hyper-parameters without those that all methods share, as a recipe writes them."""
    shared = {field.name for field in dataclasses.fields(Method)}
    return {name: value for name, value in describe(METHODS, method())["args"].items() if name not in shared}


def markdown_table(link: str) -> str:
    """All methods; F and B are forward and backward passes. `link` stands for a name, such as "[`{name}`]({name}.md)"."""
    facts = [
        (method.title, link.format(name=name), table_cell(method.equation.removeprefix("g = ")),
         _passes(method.cost), _paper(method.source))
        for name, method in METHODS.items()
    ]  # fmt: skip
    return escaping.markdown_table(COLUMNS, facts)


def table_by_cost() -> str:
    """The names of the methods, those of the same passes in one row."""
    names: dict[str, list[str]] = {}
    for name, method in METHODS.items():
        names.setdefault(_passes(method.cost), []).append(f"`{name}`")
    return escaping.markdown_table(["a step", "methods"], [[cost, ", ".join(those)] for cost, those in names.items()])


def table_cell(text: str) -> str:
    """Inside a table of Markdown, where | separates cells, and * and _ may emphasise; code stays as it is."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"\*|(?<!\w)_", r"\\\g<0>", part) for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


def print_methods() -> None:
    """Name, defaults, equation, cost and source of every method, as a table; in a narrow terminal one below the other."""
    console = Console()
    wide = console.width >= WIDE
    names = {name: "\n".join([name, *(f" {k} {v}" for k, v in own_defaults(m).items())]) for name, m in METHODS.items()}
    heads = ["what it is", "cost", "source"] if wide else ["what it is, cost, source"]
    table = Table("method, defaults", *heads, show_lines=True)
    table.columns[0].min_width = max(len(line) for name in names.values() for line in name.splitlines())
    for name, method in METHODS.items():
        facts = [method.summary, method.cost, method.source]
        table.add_row(names[name], *map(escape, facts if wide else ["\n".join(filter(None, facts))]))
    console.print(table)
    console.print(f"{LEGEND} In full: ltsam methods NAME", highlight=False, markup=False)


def method_page(name: str) -> str:
    """How a method is made, its documentation, and the hyper-parameters that all methods share.

    Raises:
        ValueError: an unknown method, with the nearest ones.
    """
    name = canonical(METHODS, name)
    if name not in METHODS:
        raise ValueError(f"Unknown method {name!r}.{nearest(name, METHODS)}")
    method = METHODS[name]
    defaults = ", ".join(f"{k}={v!r}" for k, v in describe(METHODS, method())["args"].items())
    _, _, shared = (inspect.getdoc(Method) or "").partition("Args:\n")
    place = "hf_ltsam.methods" if method.__module__.startswith("hf_ltsam.") else method.__module__
    heading = f"{name} = {place}.{method.__name__}({defaults})"
    parts = [heading, inspect.getdoc(method) or "", textwrap.fill(LEGEND, 100), f"Every method:\n{shared}".rstrip()]
    return "\n\n".join([*parts, *_schedules(method)])


def _schedules(method: type[Method]) -> list[str]:
    """Of its radius, however the method calls it; nothing where it has none."""
    radius = [field.name for field in dataclasses.fields(method) if "Schedule" in str(field.type)]
    if not radius:
        return []
    lines = SCHEDULES.replace("rho: ", f"{radius[0]}: ")
    return ["A schedule, as a recipe writes it under method_args:\n" + textwrap.indent(lines, "    ").rstrip()]


def _passes(cost: str) -> str:
    """2F 3B for "2 forwards, 3 backwards; ..."."""
    return re.sub(r"(\d) forwards?, (\d) backwards?.*", r"\1F \2B", cost.partition(";")[0])


def _paper(source: str) -> str:
    """The first paper of a source, without the place in it."""
    paper = re.match(r".*? \d{4}[a-z]?", source)
    return paper[0] if paper else ""
