"""What the runs of a table reached, beside what was published."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hf_ltsam.cli.reproduce.figures import figure_lines
from hf_ltsam.cli.reproduce.shifted import shifted_lines, shifted_row
from hf_ltsam.cli.reproduce.sweeps import FIGURE as SWEEP
from hf_ltsam.cli.reproduce.sweeps import Spreads, choice_lines
from hf_ltsam.cli.reproduce.tables import Row, TableOfRuns
from hf_ltsam.runs.card.tables import accuracies
from hf_ltsam.runs.escaping import markdown_code, markdown_text
from hf_ltsam.runs.files import write_json, write_whole
from hf_ltsam.runs.folder import RECORD, RunFolder, seed_folders
from hf_ltsam.runs.recipe_tables import GROUPS
from hf_ltsam.runs.record import RunRecord
from hf_ltsam.runs.report.configurations import spread
from hf_ltsam.runs.report.content import mean_and_deviation

REPORT = "report"  # folder of the report, beside the table
FIGURE = f"{REPORT}/cost.png"
_PACKAGES = ("hf_ltsam", "torch", "transformers")
COLUMNS = ("row", *GROUPS, "seeds", "seconds")


def write_table(
    root: Path, table: TableOfRuns, options: Sequence[str] = (), missing: Mapping[str, str] | None = None
) -> None:
    """`table.md` to read and `table.json` for programs, of everything that has ended, whole at any time.

    Args:
        root: folder of the table.
        table: of which all rows of its file are shown.
        options: of `ltsam train` that all trainings had.
        missing: other test sets that are out of reach, and why.
    """
    folders = [ended_runs(root, row) for row in table.whole]
    ended = [list(records.values()) for records in folders]
    rows = [_row(row, records, _published(table, row)) for row, records in zip(table.whole, ended)]
    shifted = [shifted_row(row, list(records), table.evaluate) for row, records in zip(table.whole, folders)]
    rows = [{**row, "shifted": of_row} for row, of_row in zip(rows, shifted)] if table.evaluate else rows
    facts = {"table": table.name, "title": table.title, "source": table.source, "words": list(options)}
    write_json(root / "table.json", {**facts, "rows": rows})
    figure = ["", f"![Accuracy against training time]({FIGURE})"] if (root / FIGURE).is_file() else []
    if (root / f"{SWEEP}.png").is_file():
        figure = ["", f"![Accuracy against the swept setting]({SWEEP}.png)", *figure]
    figure = [*figure_lines(table, root, REPORT), *figure]
    page = _markdown(table, rows, [record for records in ended for record in records], options)
    tested = shifted_lines(rows, missing or {}) if table.evaluate else []
    write_whole(root / "table.md", "\n".join([*page, *_paragraphs(choice_lines(root)), *tested, *figure]) + "\n")


def ended_runs(root: Path, row: Row) -> dict[Path, RunRecord]:
    """Of every seed that there is, by folder."""
    files = [folder / RECORD for folder in seed_folders(root / row.name)]
    read = {file.parent: _record(file.parent, file.stat().st_mtime_ns) for file in files if file.is_file()}
    ended = {folder: record for folder, record in read.items() if record is not None}
    return dict(sorted(ended.items(), key=lambda item: item[1].seed))


@cache
def _record(folder: Path, written: int) -> RunRecord | None:
    """Read once, however many runs end after this one; anew where it was `written` anew (ns)."""
    return RunFolder(folder).record


def shown(record: RunRecord) -> str:
    """One run in a few words."""
    reached = {name: _percent(record, name) for name in GROUPS}
    words = ", ".join(f"{name} {value:.2f}" for name, value in reached.items() if value is not None)
    return f"{words} %" + (f", {seconds:.0f} s" if (seconds := record.train_seconds) is not None else "")


def _published(table: TableOfRuns, row: Row) -> dict[str, float | None] | None:
    """By group: of the row, or of the point of its sweep."""
    if row.value is None:
        return None if row.target is None else row.target.accuracies
    points = table.curves.get(Path(row.recipe).stem, ())
    at = next((point for point in points if point.at == row.value[1]), None)
    return None if at is None else {name: at.accuracies.get(name) for name in GROUPS}


def swept_accuracies(root: Path, table: TableOfRuns) -> Spreads:
    """What the rows of each sweep have reached, by value, in percent."""

    def reached(row: Row) -> dict[str, list[float]]:
        records = ended_runs(root, row).values()
        return {group: [v for record in records if (v := _percent(record, group)) is not None] for group in GROUPS}

    return {
        name: [(row.value[1], reached(row)) for row in rows if row.value is not None]
        for name, rows in table.sweeps.items()
    }


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [line for text in lines for line in ("", markdown_text(text))]


def _row(row: Row, records: Sequence[RunRecord], published: Mapping[str, float | None] | None) -> dict[str, Any]:
    target = row.target
    return {
        "row": row.name,
        "published": published,
        "source": None if target is None else target.source,
        "settings": row.settings,
        **({} if row.value is None else {"value": dict([row.value])}),
        "seeds": [record.seed for record in records],
        "accuracies": {name: [_percent(record, name) for record in records] for name in GROUPS},
        "seconds": [record.train_seconds for record in records],
    }


def _percent(record: RunRecord, name: str) -> float | None:
    value = accuracies(record.results["test"]).get(name)
    return None if value is None else 100 * value


def _markdown(
    table: TableOfRuns, rows: Sequence[Mapping[str, Any]], records: Sequence[RunRecord], options: Sequence[str]
) -> list[str]:
    lines = [f"# {markdown_text(table.title)}", "", f"Published: {markdown_text(table.source)}", ""]
    lines += [
        "Accuracy in %, mean ± standard deviation over seeds, after the last epoch; in brackets what was published.",
        "Seconds: of one training.",
        "",
    ]
    lines += [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    facts = {
        "Given to every training": [markdown_code(shlex.join(options))] if options else [],
        "Hardware": sorted({markdown_text(record.hardware) for record in records}),
        "Versions": sorted({_versions(record) for record in records}),
    }
    return [*lines, "", *(f"{name}: {'; '.join(values)}" for name, values in facts.items() if values)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    published = row["published"] or {}
    reached = [_beside(_spread(row["accuracies"][name], 2), published.get(name)) for name in GROUPS]
    return [markdown_code(row["row"], cell=True), *reached, str(len(row["seeds"])), _spread(row["seconds"], 0)]


def _beside(ours: str, published: float | None) -> str:
    return ours if published is None else f"{ours} ({published:g})"


def _spread(values: Sequence[float | None], digits: int) -> str:
    numbers = [value for value in values if value is not None]
    return mean_and_deviation(*spread(numbers), digits=digits) if numbers else "-"


def _versions(record: RunRecord) -> str:
    return ", ".join(f"{name} {markdown_text(record.versions[name])}" for name in _PACKAGES if name in record.versions)
