"""`ltsam methods`: the methods in a table, or all about one."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from hf_ltsam.hyperparameters import entry, first_line, nearest
from hf_ltsam.methods import METHODS, Method
from hf_ltsam.runs.identity import describe

SCHEDULES = """
A schedule, as a recipe writes it under method_args:
    rho: {piecewise: {values: [0.1, 0.2], epochs: [160]}}      from epoch 160 on 0.2
    rho: {linear: {start: 0.05, end: 0.2, epochs: [10, 160]}}  or cosine; without epochs, over the whole training
    boundaries: [0.8] in place of epochs: shares of the training"""


def main(words: Sequence[str]) -> None:
    """`ltsam methods [NAME]`."""
    parser = argparse.ArgumentParser(prog="ltsam methods", description=__doc__, allow_abbrev=False)
    parser.add_argument("name", nargs="?", help="a method; without it, all are listed")
    name = parser.parse_args(words).name
    if name is None:
        print_methods()
    else:
        print(method_page(name))


def print_methods() -> None:
    """Name, defaults, equation, cost and source of every method, as a table."""
    rows = {name: [name, *_hyperparameters(method)] for name, method in METHODS.items()}
    table = Table("method, defaults", "what it is", "cost", "source", show_lines=True)
    table.columns[0].min_width = max(len(line) for lines in rows.values() for line in lines)
    for name, method in METHODS.items():
        table.add_row("\n".join(rows[name]), first_line(method), entry(method, "Cost"), entry(method, "Source"))
    console = Console()
    console.print(table)
    console.print(
        "G(a, eps): the gradient at w + eps of the batch's losses, weighted by a. In full: ltsam methods NAME"
    )


def method_page(name: str) -> str:
    """How a method is made, its documentation, and the hyper-parameters that all methods share.

    Raises:
        ValueError: an unknown method, with the nearest ones.
    """
    if name not in METHODS:
        raise ValueError(f"Unknown method {name!r}.{nearest(name, METHODS)}")
    method = METHODS[name]
    defaults = ", ".join(f"{k}={v!r}" for k, v in describe(METHODS, method())["args"].items())
    _, _, shared = (inspect.getdoc(Method) or "").partition("Args:\n")
    heading = f"{name} = hf_ltsam.methods.{method.__name__}({defaults})"
    return f"{heading}\n\n{inspect.getdoc(method)}\n\nEvery method:\n{shared}\n{SCHEDULES}"


def _hyperparameters(method: type[Method]) -> list[str]:
    """Those of this method with their defaults, without those that all methods share."""
    shared = {field.name for field in dataclasses.fields(Method)}
    return [f" {k} {v}" for k, v in describe(METHODS, method())["args"].items() if k not in shared]
