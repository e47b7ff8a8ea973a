"""From runs to the page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from hf_ltsam.runs.files import check_output_folder, write_whole
from hf_ltsam.runs.report import (
    by_frequency,
    by_group,
    calibration,
    comparison,
    confusion,
    cost,
    curvature,
    log_curves,
    settings,
    shift,
    surfaces,
)
from hf_ltsam.runs.report.configurations import configurations
from hf_ltsam.runs.report.page import page
from hf_ltsam.runs.report.reading import ReportedRun

FILE_NAME = "report.html"
SECTIONS = (
    by_group.section, by_frequency.section, comparison.section, log_curves.accuracy_section, log_curves.telemetry_section,
    confusion.section, calibration.section, shift.section, curvature.spectra_section, curvature.evolution_section,
    surfaces.section, cost.section,
)  # fmt: skip


def write_report(runs: Sequence[ReportedRun], folder: Path) -> Path:
    """Write `report.html` and its figures into a folder.

    Returns:
        The page.
    """
    check_output_folder(str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    own = configurations(runs)
    sections = [make(own, folder) for make in SECTIONS]
    damaged = [sentence for run in runs for sentence in run.damaged]
    now = datetime.now(UTC)
    seeds = f"{len(runs)} runs of {len(own)} configurations" if len(runs) > 1 else f"{runs[0].folder}"
    written = f"Written {now:%Y-%m-%d %H:%M} UTC by hf_ltsam {version('hf_ltsam')} from the runs' saved files."
    text = page(f"Report: {seeds}", [*sections, settings.section(own)], damaged, written)
    return write_whole(folder / FILE_NAME, text)
