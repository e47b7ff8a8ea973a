"""What the runs of a table reached, beside what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_ltsam.metrics.json_file import write_json
from hf_ltsam.metrics.run_record import RunRecord
from training_scripts.recipe_file import find_recipe
from training_scripts.recipe_header import published_target
from training_scripts.report.configurations import spread
from training_scripts.report.content import mean_and_deviation
from training_scripts.table_file import Row, TableOfRuns
from training_scripts.table_runs import RowRun

GROUPS = ("overall", "many", "medium", "few")
_PACKAGES = ("hf_ltsam", "torch", "transformers")
COLUMNS = ("row", *GROUPS, "seeds", "seconds")


def write_table(root: Path, table: TableOfRuns, runs: Sequence[RowRun]) -> None:
    """`table.md` to read and `table.json` for programs, whole at any time."""
    rows = [_row(row, [run for run in runs if run.row.name == row.name]) for row in table.rows]
    records = [record for run in runs if (record := run.result) is not None]
    write_json(root / "table.json", {"table": table.name, "title": table.title, "source": table.source, "rows": rows})
    (root / "table.md").write_text(_markdown(table, rows, records))


def shown(record: RunRecord) -> str:
    """One run in a few words."""
    accuracies = {name: _percent(record, name) for name in GROUPS}
    words = ", ".join(f"{name} {value:.2f}" for name, value in accuracies.items() if value is not None)
    return f"{words} %, {record.timing.get('train_seconds', float('nan')):.0f} s"


def _row(row: Row, runs: Sequence[RowRun]) -> dict[str, Any]:
    ended = {run.seed: record for run in runs if (record := run.result) is not None}
    target = published_target(find_recipe(row.recipe))
    return {
        "row": row.name,
        "published": None if target is None else {name: getattr(target, name) for name in GROUPS},
        "source": None if target is None else target.source,
        "settings": row.settings,
        "seeds": list(ended),
        "accuracies": {name: [_percent(record, name) for record in ended.values()] for name in GROUPS},
        "seconds": [_seconds(record) for record in ended.values()],
    }


def _accuracies(record: RunRecord) -> Mapping[str, float | None]:
    result = record.results["test"]
    return {"overall": result["overall"], **result["groups"]}


def _percent(record: RunRecord, name: str) -> float | None:
    value = _accuracies(record).get(name)
    return None if value is None else 100 * value


def _seconds(record: RunRecord) -> float | None:
    """Of the training; of a run that was resumed only the time since is known, which is not told."""
    return None if "--resume_from_checkpoint" in record.command else record.timing.get("train_seconds")


def _markdown(table: TableOfRuns, rows: Sequence[Mapping[str, Any]], records: Sequence[RunRecord]) -> str:
    lines = [f"# {table.title}", "", f"Published: {table.source}", ""]
    lines += [
        "Accuracy in %, mean ± standard deviation over seeds, after the last epoch; in brackets what was published.",
        "Seconds: of one training.",
        "",
    ]
    lines += [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    facts = {
        "Hardware": sorted({record.hardware for record in records}),
        "Versions": sorted({_versions(record) for record in records}),
    }
    lines += ["", *(f"{name}: {'; '.join(values)}" for name, values in facts.items() if values)]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    published = row["published"] or {}
    accuracies = [_beside(_spread(row["accuracies"][name], 2), published.get(name)) for name in GROUPS]
    return [f"`{row['row']}`", *accuracies, str(len(row["seeds"])), _spread(row["seconds"], 0)]


def _beside(ours: str, published: float | None) -> str:
    return ours if published is None else f"{ours} ({published:g})"


def _spread(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return mean_and_deviation(*spread(known), digits=digits) if known else "-"


def _versions(record: RunRecord) -> str:
    return ", ".join(f"{name} {record.versions[name]}" for name in _PACKAGES if name in record.versions)
