"""From runs to the report: one HTML file that needs nothing else, and its figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hf_ltsam.runs.escaping import visible, visible_value
from hf_ltsam.runs.files import check_output_folder, write_whole
from hf_ltsam.runs.report import (
    bounds,
    by_class,
    by_frequency,
    by_group,
    calibration,
    configurations,
    confusion,
    cost,
    curvature,
    log_curves,
    shift,
    surfaces,
)
from hf_ltsam.runs.report.comparison import conclusion, differences
from hf_ltsam.runs.report.content import Section
from hf_ltsam.runs.report.reading import ReportedRun
from hf_ltsam.runs.report.style import PALETTE

FILE_NAME = "report.html"
TEMPLATE = "page.html.jinja"
FOLDED = 12  # rows; longer tables can be unfolded
SECTIONS = (
    conclusion.section, by_group.section, by_frequency.section, by_class.section, differences.section,
    log_curves.accuracy_section,
    log_curves.telemetry_section, confusion.section, calibration.section, shift.section, curvature.spectra_section,
    curvature.evolution_section, bounds.section, surfaces.section, cost.section,
)  # fmt: skip


def write_report(runs: Sequence[ReportedRun], folder: Path) -> Path:
    """Write `report.html` and its figures into a folder.

    Returns:
        The page.
    """
    check_output_folder(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    groups = configurations.configurations(runs)
    sections = [make(groups, folder) for make in SECTIONS]
    damaged = [sentence for run in runs for sentence in run.damaged]
    now = datetime.now(UTC)
    seeds = f"{len(runs)} runs of {len(groups)} configurations" if len(runs) > 1 else f"{runs[0].folder}"
    written = f"Written {now:%Y-%m-%d %H:%M} UTC by hf_ltsam {version('hf_ltsam')} from the runs' saved files."
    text = page(f"Report: {seeds}", [*sections, configurations.section(groups)], damaged, written)
    return write_whole(folder / FILE_NAME, text)


def page(title: str, sections: Sequence[Section], damaged: Sequence[str], written: str) -> str:
    """The report as HTML.

    Args:
        damaged: one sentence for each file that could not be read.
        written: when and by what.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=visible_value,
    )  # fmt: skip
    environment.filters["lines"] = lambda text: Markup(escape(visible(text, lines=True)))
    return environment.get_template(TEMPLATE).render(
        title=title, sections=sections, damaged=damaged, written=written, colours=PALETTE, folded=FOLDED
    )
