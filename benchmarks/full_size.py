"""Li et al. 2025 Tables 2 and 5 for ResNet-32 at full size, three seeds a row: what they take, and then all of them.

    python benchmarks/full_size.py --dataset uoft-cs/cifar100=FOLDER uoft-cs/cifar10=FOLDER --estimate 200 --price 2.5
    python benchmarks/full_size.py --dataset uoft-cs/cifar100=FOLDER uoft-cs/cifar10=FOLDER --jobs 4 --price 2.5
    python benchmarks/full_size.py ... -- --cuda_graphs true --channels_last true

--estimate N times every method with every loss for N and for 2 N steps, one after another, and prints the hours and the
price of all rows with all seeds; nothing is trained to its end. Without it `ltsam reproduce` runs the rows: after a kill
the same command goes on. What follows `--` is given to every training; `--cuda_graphs true` replays each pass as a CUDA
graph. Where there is `nvidia-smi`, the share of time with a kernel running is noted every ten seconds in
OUTPUT/utilisation.csv, and the hours and their price are printed at the end. Nothing here is asserted.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dataset_builders.catalogue import long_tail_statistics
from hf_ltsam.cli.options.names import split_at_dashes
from hf_ltsam.cli.reproduce.command import reproduce
from hf_ltsam.cli.reproduce.tables import Row, TableOfRuns, read_table
from hf_ltsam.runs.folder import RunFolder

TABLES = ("li2025_table2", "li2025_table5")
SAMPLE = 10  # seconds between two looks at the device


def resnet_rows(table: TableOfRuns, names: Sequence[str]) -> list[Row]:
    rows = [row for row in table.rows if row.expanded["model"] == "cifar_resnet"]
    return [row for row in rows if not names or any(row.is_named(name) for name in names)]


def steps(row: Row) -> int:
    """Of a whole training."""
    settings = row.expanded
    data = settings["dataset"].rpartition("/")[2] + "_lt"
    images = sum(long_tail_statistics(data, imbalance_ratio=settings["imbalance_ratio"]).counts)
    return math.ceil(images / settings["per_device_train_batch_size"]) * settings["num_train_epochs"]


def kind(row: Row) -> tuple[str, str, str]:
    """What the time of a step depends on; the ratio changes their number alone."""
    settings = row.expanded
    return settings["dataset"], settings["method"], settings["loss"]


def seconds_per_step(row: Row, options: Sequence[str], number: int) -> float:
    """From the difference of two lengths, so that the start of a training is in neither.

    Raises:
        RuntimeError: the training failed, with its last words.
    """
    seconds = []
    for length in (number, 2 * number):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "hf_ltsam.cli.main", "train", "--config", row.recipe, *options]
            command += ["--max_steps", str(length), "--save_strategy", "no", "--output_dir", folder]
            run = subprocess.run(command, capture_output=True, text=True)
            record = RunFolder(Path(folder)).record
            if run.returncode or record is None or record.train_seconds is None:
                raise RuntimeError(f"{row.name}: {(run.stderr or run.stdout).strip()[-1000:]}")
            seconds.append(record.train_seconds)
    return (seconds[1] - seconds[0]) / number


def estimate(rows: Sequence[Row], seeds: int, number: int, datasets: dict[str, str], options: Sequence[str]) -> float:
    """Hours of all rows with all seeds, one after another; a line for each that is timed."""
    timed: dict[tuple[str, str, str], float] = {}
    for row in rows:
        if kind(row) in timed:
            continue
        name = row.expanded["dataset"]
        folder = ["--dataset", datasets[name]] if name in datasets else []
        timed[kind(row)] = seconds_per_step(row, [*folder, *options], number)
        whole = timed[kind(row)] * steps(row)
        print(f"{row.name:44} {1000 * timed[kind(row)]:8.2f} ms a step {whole:9.0f} s a training", flush=True)
    return seeds * sum(timed[kind(row)] * steps(row) for row in rows) / 3600


@contextmanager
def utilisation(file: Path) -> Iterator[None]:
    """Notes the device's work until the block ends, and prints its mean."""
    if shutil.which("nvidia-smi") is None:
        print("no nvidia-smi: utilisation is not noted")
        yield
        return
    query = "--query-gpu=timestamp,utilization.gpu,memory.used,power.draw"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as out:
        watch = subprocess.Popen(["nvidia-smi", query, "--format=csv,noheader,nounits", "-l", str(SAMPLE)], stdout=out)
        try:
            yield
        finally:
            watch.terminate()
            watch.wait()
    shares = [float(line.split(",")[1]) for line in file.read_text().splitlines() if line.count(",") == 3]
    if shares:
        print(f"a kernel ran {statistics.mean(shares):.0f} % of the time ({len(shares)} looks)")


def cost(hours: float, price: float | None) -> str:
    return f"{hours:.2f} hours" + (f", {hours * price:.2f} at {price:g} an hour" if price is not None else "")


def main() -> None:
    words, options = split_at_dashes(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs="+", default=[], metavar="NAME=FOLDER", help="in place of the Hub's")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="these alone; * stands for any text")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, which share the device")
    parser.add_argument("--estimate", type=int, metavar="STEPS", help="time so many steps, train nothing to its end")
    parser.add_argument("--price", type=float, help="of an hour of the device")
    parser.add_argument("--output_dir", type=Path, default=Path("runs"))
    arguments = parser.parse_args(words)
    datasets = dict(word.rpartition("=")[::2] for word in arguments.dataset)
    chosen = {name: rows for name in arguments.tables if (rows := resnet_rows(read_table(name), arguments.rows))}
    if not chosen:
        parser.error(
            f"--rows {' '.join(arguments.rows)}: {' and '.join(arguments.tables)} have no such row of ResNet-32."
        )
    if arguments.estimate is not None:
        rows = [row for rows in chosen.values() for row in rows]
        hours = estimate(rows, arguments.seeds, arguments.estimate, datasets, options)
        print(f"{len(rows)} rows, {arguments.seeds} seeds, one training at a time: {cost(hours, arguments.price)}")
        return
    started = time.monotonic()
    with utilisation(arguments.output_dir / "utilisation.csv"):
        for name, rows in chosen.items():
            used = {row.expanded["dataset"] for row in rows}
            reproduce(
                name,
                [row.name for row in rows],
                seeds=arguments.seeds,
                datasets=[f"{data}={folder}" for data, folder in datasets.items() if data in used],
                jobs=arguments.jobs,
                output_dir=arguments.output_dir / name,
                options=options,
            )
    print(f"this time: {cost((time.monotonic() - started) / 3600, arguments.price)}")


if __name__ == "__main__":
    main()
