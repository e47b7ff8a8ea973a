"""Configuration and command of each run."""

from __future__ import annotations

from collections.abc import Sequence

from hf_ltsam.runs.report.configurations import Configuration, differing, setting
from hf_ltsam.runs.report.content import Listing, Missing, Section, Table
from hf_ltsam.runs.report.reading import ReportedRun

TITLE = "Configurations and commands"


def section(configurations: Sequence[Configuration]) -> Section:
    runs = [run for c in configurations for run in c.runs]
    names = differing(configurations)
    tables = [_differences(configurations, names)] if names else []
    missing = [
        Missing(f"The recipe of {run.folder} (recipe.yaml)", "ltsam train ...") for run in runs if run.recipe is None
    ]
    listings = [
        Listing(f"{c.title}: commands", "\n".join(_command(run) for run in c.runs)) for c in configurations
    ] + [
        Listing(f"{c.title}: all settings (recipe.yaml of {run.folder})", run.recipe.text)
        for c in configurations if (run := c.first(lambda run: run.recipe is not None)) and run.recipe
    ]  # fmt: skip
    return Section(TITLE, tables=[*tables, _runs(configurations)], listings=listings, missing=missing)


def _differences(configurations: Sequence[Configuration], names: Sequence[str]) -> Table:
    rows = [[name, *(setting(c, name) for c in configurations)] for name in names]
    return Table("Settings in which configurations differ", ["setting", *(c.title for c in configurations)], rows)


def _runs(configurations: Sequence[Configuration]) -> Table:
    rows = [[str(run.folder), c.title, run.seed, _versions(run)] for c in configurations for run in c.runs]
    return Table("Runs", ["folder", "configuration", "seed", "versions"], rows)


def _versions(run: ReportedRun) -> str:
    if run.metrics is None:
        return "-"
    return ", ".join(f"{name} {version}" for name, version in run.metrics.record.versions.items())


def _command(run: ReportedRun) -> str:
    """As metrics.json or the first line of recipe.yaml tells it."""
    if run.metrics is not None and run.metrics.record.command:
        return run.metrics.record.command
    first = run.recipe.text.partition("\n")[0] if run.recipe is not None else ""
    return first.removeprefix("# ") if first.startswith("# ") else f"(not known: {run.folder})"
