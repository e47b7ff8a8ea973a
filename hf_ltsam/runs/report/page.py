"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hf_ltsam.runs.report.content import Section
from hf_ltsam.runs.report.style import PALETTE

TEMPLATE = "page.html.jinja"
FOLDED = 12  # rows; longer tables can be unfolded


def page(title: str, sections: Sequence[Section], damaged: Sequence[str], written: str) -> str:
    """Args:
    damaged: one sentence for each file that could not be read.
    written: when and by what.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        title=title, sections=sections, damaged=damaged, written=written, colours=PALETTE, folded=FOLDED
    )
