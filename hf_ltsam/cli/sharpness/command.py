"""`ltsam sharpness`: curvature and sharpness of a trained model, class by class.

ltsam sharpness runs/mine --classes 0 9 --max_samples 300
ltsam sharpness runs/mine --groups many few --surface 2d
ltsam sharpness runs/mine --suggest_rho
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hf_ltsam.cli.sharpness.analysis import analyse
from hf_ltsam.cli.sharpness.options import parse_options
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.runs.escaping import terminal
from hf_ltsam.runs.files import mapping, read_json
from hf_ltsam.runs.record import samples_of
from hf_ltsam.runs.sharpness.figures import save_figures, subset_label
from hf_ltsam.runs.sharpness.records import summary


def main(argv: Sequence[str] | None = None) -> None:
    """One analysis: `sharpness.json`, its figures, and a table on the screen."""
    words = sys.argv[1:] if argv is None else argv
    with user_errors():
        request = parse_options(words)
        try:
            path = analyse(request, shlex.join(["ltsam", "sharpness", *words]))
            show(path, save_figures(path))
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("The same command goes on from what is finished.") from interrupt


def show(path: Path, figures: Sequence[Path]) -> None:
    """The extremes of every spectrum, the suggested radii, and where the files are."""
    results, console = read_json(path, mapping) or {}, Console()
    if results.get("spectra"):
        table = Table("", samples_of(results.get("task")), "loss", "lam_max", "lam_min", "min/max", "max/min", "trace")
        for name, record in results["spectra"].items():
            table.add_row(terminal(subset_label(name, results)), *summary(record))
        console.print(table)
        console.print("min/max: |lam_min / lam_max| (Rangwani et al. 2022); max/min: its inverse (Lyu et al. 2025).")
    for record in results.get("sharpness", {}).values():
        console.print(f"rho to try: {_radii(record['suggested']['low'], record['suggested']['high'])}")
    console.print(f"Results: {terminal(str(path))}", soft_wrap=True)
    for figure in figures:
        console.print(f"Figure:  {terminal(str(figure))}", soft_wrap=True)


def _radii(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{low:.2g} to {high:.2g}"
    if low is None and high is None:
        return "none of the radii measured"
    end = f"from {low:.2g} on" if high is None else f"up to {high:.2g}"
    return f"{end}; the other end is not among the radii measured"
