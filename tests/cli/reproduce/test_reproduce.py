"""Tables of runs: what is run, that nothing is run twice or lost, and the numbers beside the published ones."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml
from forked import PYTHON, Script
from runs.report.made_runs import metrics, write_run
from safetensors.torch import load_file
from time_limits import PATIENCE
from training.test_folder_lock import held

from hf_ltsam.cli import main
from hf_ltsam.cli.reproduce import command as reproduce
from hf_ltsam.cli.reproduce import runs as table_runs
from hf_ltsam.cli.reproduce.results import ended_runs
from hf_ltsam.cli.reproduce.runs import RowRun, run_all
from hf_ltsam.cli.reproduce.tables import Row, read_table
from hf_ltsam.cli.train import train
from hf_ltsam.cli.train.arguments import decided_settings
from hf_ltsam.runs.folder import RECORD
from hf_ltsam.runs.recipe_tables import table_names
from hf_ltsam.runs.recipes import find_recipe, read_recipe
from hf_ltsam.runs.record import RunRecord

RECIPE = {
    "builder": "image_folder", "depth": 8, "learning_rate": 0.1, "optim": "sgd", "per_device_train_batch_size": 4,
    "num_train_epochs": 6, "many_above": 10, "few_below": 5, "use_cpu": True, "save_strategy": "epoch", "disable_tqdm": True,
}  # fmt: skip


@pytest.fixture
def table(images, tmp_path):
    """A table of two rows, in files of its own."""
    folder = tmp_path / "table"
    folder.mkdir()
    rows = []
    for name, method, overall, many in (("plain", "sgd", 41.5, 60.0), ("sharp", "msam", 44.25, 61.0)):
        recipe = {**RECIPE, "dataset": str(images), "method": method}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        rows.append({f"{name}.yaml": {"published": {"overall": overall, "many": many}}})
    values = {"title": "Two rows", "source": "Nobody et al. 2020 Table 1", "rows": rows}
    (folder / "table.yaml").write_text(yaml.safe_dump(values))
    return folder / "table.yaml"


def written(path, **values):
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))
    return path


def refused(capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        reproduce.main([str(word) for word in words])
    assert exit_.value.code == 2
    return capsys.readouterr().err


def arguments(run):
    return dict(zip(run.arguments()[::2], run.arguments()[1::2]))


# --- killed and started again ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_table_goes_on_and_ended_runs_are_left_alone(table, tmp_path, capsys, monkeypatch):
    """SIGTERM comes in the middle of the second row; the same command then does only what is missing."""
    monkeypatch.setattr(sys, "executable", PYTHON)
    root = tmp_path / "runs"
    length = ["--num_train_epochs", "60", "--save_strategy", "steps", "--save_steps", "30"]  # 360 steps
    command = [str(table), "--seeds", "1", "--output_dir", str(root), "--", *length]
    first = Script(main.__file__, "reproduce", *command)
    while not list((root / "sharp" / "seed0").glob("checkpoint-*")):
        assert first.is_alive, first.output
        time.sleep(0.01)
    sharp = RowRun(read_table(str(table)).rows[1], 0, root)
    assert sharp.holder.startswith(f"{root / 'sharp' / 'seed0'} is in use by another run (process ")
    first.process.terminate()
    code, message = first.wait()
    assert code == 130 and "The same command goes on" in message
    assert not sharp.holder, "its training has ended too"
    plain = (root / "plain" / "seed0" / "metrics.json").stat()
    assert not (root / "sharp" / "seed0" / "metrics.json").exists()
    assert [len(row["seeds"]) for row in json.loads((root / "table.json").read_text())["rows"]] == [1, 0]

    started = []
    start = RowRun.start
    monkeypatch.setattr(RowRun, "start", lambda run, threads: started.append(run.row.name) or start(run, threads))
    reproduce.main(command)
    assert started == ["sharp"]
    again = (root / "plain" / "seed0" / "metrics.json").stat()
    assert (again.st_ino, again.st_mtime_ns) == (plain.st_ino, plain.st_mtime_ns)
    assert json.loads((root / "sharp" / "seed0" / "trainer_state.json").read_text())["global_step"] == 360
    assert (
        "--resume_from_checkpoint true"
        in json.loads((root / "sharp" / "seed0" / "metrics.json").read_text())["command"]
    )

    whole = [
        "--config",
        str(table.parent / "sharp.yaml"),
        "--seed",
        "0",
        "--output_dir",
        str(tmp_path / "whole"),
        *length,
    ]
    train.main(whole)
    expected, ours = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", root / "sharp" / "seed0")
    )
    assert all(torch.equal(expected[name], ours[name]) for name in expected)

    page = (root / "table.md").read_text()
    assert re.search(r"\| `plain` \| [\d.]+ \(41.5\) \| [\d.]+ \(60\) \|.*\| 1 \| \d+ \|\n", page)
    assert re.search(r"\| `sharp` \| [\d.]+ \(44.25\) \| .*\| 1 \| \d+ \|\n", page)  # the time of all parts
    assert "Given to every training: `--num_train_epochs 60" in page
    assert (root / "report" / "report.html").is_file()
    figure = re.search(r"!\[.*\]\((.*)\)", page)
    assert (root / figure[1]).is_file()

    started.clear()
    reproduce.main(command)
    assert started == [] and "0 to go" in capsys.readouterr().out


def test_whose_process_is_killed_is_told_and_the_others_go_on(table, tmp_path, capsys, monkeypatch):
    def start(run, threads):
        run.folder.mkdir(parents=True)
        if run.row.name == "sharp":
            write_run(run.folder, metrics([1, 1, 1, 0, 0], run.seed))
        script = (
            "import os, signal; print('step 5'); os.kill(os.getpid(), signal.SIGKILL)"
            if run.row.name == "plain"
            else ""
        )
        return subprocess.Popen([sys.executable, "-u", "-S", "-c", script], stdout=run.log.open("wb"))

    monkeypatch.setattr(RowRun, "start", start)
    message = refused(capsys, table, "--seeds", "1", "--output_dir", tmp_path / "runs")
    assert "1 of 2 runs failed" in message and str(tmp_path / "runs" / "plain" / "seed0.log") in message
    rows = json.loads((tmp_path / "runs" / "table.json").read_text())["rows"]
    assert [(row["row"], row["seeds"]) for row in rows] == [("plain", []), ("sharp", [0])]


class Sleeping:
    """In the place of a run: a process that ends after a while."""

    result, holder = None, ""

    def __init__(self, name, seconds, log):
        self.name, self.seconds, self.log = name, seconds, log

    def start(self, threads):
        self.log.append((self.name, "starts"))
        self.process = subprocess.Popen([sys.executable, "-S", "-c", f"import time; time.sleep({self.seconds})"])
        return self.process


def test_so_many_at_a_time_and_the_next_when_one_ends(monkeypatch):
    monkeypatch.setattr(table_runs, "POLL", 0.01)
    log = []
    runs = [Sleeping("a", 1.0, log), Sleeping("b", 0.1, log), Sleeping("c", 0.1, log)]
    run_all(runs, 2, lambda run, status: log.append((run.name, status)))
    assert log == [("a", "starts"), ("b", "starts"), ("b", 0), ("c", "starts"), ("c", 0), ("a", 0)]


def test_what_another_process_has_run_meanwhile_is_not_run_again(monkeypatch):
    monkeypatch.setattr(table_runs, "POLL", 0.01)
    log = []
    runs = [Sleeping("a", 0.1, log), Sleeping("b", 0.1, log)]

    def ended(run, status):
        log.append((run.name, status))
        runs[1].result = "there"

    run_all(runs, 1, ended)
    assert log == [("a", "starts"), ("a", 0), ("b", 0)]


def test_whoever_stops_the_table_stops_its_runs(monkeypatch):
    monkeypatch.setattr(table_runs, "POLL", 0.01)
    runs = [Sleeping("short", 0.1, []), Sleeping("long", PATIENCE, [])]

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(runs, 2, stop)
    assert runs[1].process.returncode == -signal.SIGTERM


def test_a_folder_in_use_is_waited_for(monkeypatch, caplog):
    """Others go first; one that was taken while it started is started again."""
    monkeypatch.setattr(table_runs, "POLL", 0.01)
    log = []
    taken, fails, free = Sleeping("taken", 0.1, log), Sleeping("fails", 0.1, log), Sleeping("free", 0.1, log)
    taken.holder = "runs/taken is in use by process 7"
    failing = fails.start

    def start(threads):
        if ("fails", "starts") not in log:
            fails.holder = "runs/fails is in use by process 8"
            log.append(("fails", "starts"))
            fails.process = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(2)"])
            return fails.process
        return failing(threads)

    def ended(run, status):
        log.append((run.name, status))
        taken.holder = fails.holder = ""

    monkeypatch.setattr(fails, "start", start)
    with caplog.at_level("WARNING"):
        run_all([taken, fails, free], 1, ended)
    assert log == [
        *(("fails", "starts"), ("free", "starts"), ("free", 0)),
        *(("fails", "starts"), ("fails", 0), ("taken", "starts"), ("taken", 0)),
    ]
    assert [record.message for record in caplog.records] == [
        "Waiting: runs/taken is in use by process 7", "Waiting: runs/fails is in use by process 8",
    ]  # fmt: skip


def test_the_holder_of_a_folder_is_told(table, tmp_path):
    run = RowRun(read_table(str(table)).rows[0], 0, tmp_path / "runs")
    assert run.holder == ""
    with held(run.folder) as number:
        assert f"in use by another run (process {number} on " in run.holder
    assert run.holder == ""


def test_the_last_words_are_of_the_last_start(table, tmp_path):
    run = RowRun(read_table(str(table)).rows[0], 0, tmp_path / "runs")
    run.folder.mkdir(parents=True)
    run.log.write_text(f"{table_runs.STARTED} then\nof an orphan\n{table_runs.STARTED} now\n")
    assert run.last_words() == f"nothing in {run.log}"
    run.log.write_text(run.log.read_text() + "error: why\n(LTSAM_TRACEBACK=1 ...)\n")
    assert run.last_words() == "error: why"


PARENT_AND_CHILD = """
import os, subprocess, sys
from hf_ltsam.runs.processes import PARENT
child = "import time; from hf_ltsam.runs.processes import end_with_parent; end_with_parent(); print('ready', flush=True); "
started = subprocess.Popen([sys.executable, "-c", child + "time.sleep(300)"], env={**os.environ, PARENT: str(os.getpid())})
print(started.pid, flush=True)
started.wait()
"""


def test_children_end_with_a_parent_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT_AND_CHILD], stdout=subprocess.PIPE, text=True)
    lines = sorted(parent.stdout.readline().strip() for _ in range(2))
    assert lines[1] == "ready"
    child = psutil.Process(int(lines[0]))
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs([child], timeout=PATIENCE)
    assert gone and not alive


def test_a_command_takes_its_parent_from_the_environment(monkeypatch):
    from hf_ltsam.runs import processes

    parents = []
    monkeypatch.setattr(processes, "end_with", parents.append)
    monkeypatch.setenv(processes.PARENT, "7")
    main.main(["methods"])
    main.main(["methods"])
    assert parents == [7] and processes.PARENT not in os.environ  # its own children inherit no name


def test_threads_are_shared_out(table, tmp_path, monkeypatch):
    environments = []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, env, **__: environments.append(env))
    run = RowRun(read_table(str(table)).rows[0], 0, tmp_path / "runs")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run.start(3)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run.start(3)
    assert [own["OMP_NUM_THREADS"] for own in environments] == ["3", "1"]
    assert {own["LTSAM_PARENT"] for own in environments} == {str(os.getpid())}


# --- what is run -----------------------------------------------------------------------------------------------------


def test_every_row_with_every_seed(table, tmp_path):
    runs = reproduce._runs(read_table(str(table)), 2, [], tmp_path, ("--bf16", "true"))
    assert [(run.row.name, run.seed) for run in runs] == [("plain", 0), ("sharp", 0), ("plain", 1), ("sharp", 1)]
    assert len({run.folder for run in runs}) == 4
    assert arguments(runs[3]) == {
        "--config": str(table.parent / "sharp.yaml"), "--seed": "1", "--output_dir": str(tmp_path / "sharp" / "seed1"),
        "--bf16": "true",
    }  # fmt: skip


def test_rows_by_name_and_by_pattern(table):
    read = read_table(str(written(table, rows=["sharp.yaml", "plain.yaml"])))
    for names, chosen in (
        (["sharp"], ["sharp"]),
        (["plain", "sharp"], ["sharp", "plain"]),
        (["*a*"], ["sharp", "plain"]),
        (["p*"], ["plain"]),
    ):
        assert [row.name for row in read.only(names).rows] == chosen
    with pytest.raises(ValueError, match=r"--rows x\*: table has no such row"):
        read.only(["sharp", "x*"])


def test_settings_of_the_table_and_of_a_row_lie_over_the_recipe(table, tmp_path):
    rows = ["plain.yaml", {"sharp.yaml": {"depth": 14, "optim": None}}]
    written(table, settings={"num_train_epochs": 2, "depth": 20}, rows=rows)
    recipes = [
        read_recipe(find_recipe(arguments(RowRun(row, 0, tmp_path / "runs"))["--config"]))
        for row in read_table(str(table)).rows
    ]
    assert [(r["num_train_epochs"], r["depth"], r["optim"]) for r in recipes] == [(2, 20, "sgd"), (2, 14, None)]
    assert [r["method"] for r in recipes] == ["sgd", "msam"]


def test_a_second_stage_starts_from_the_first_of_its_seed(table, tmp_path):
    table.parent.joinpath("then.yaml").write_text(
        f"first_stage: {table.parent / 'sharp.yaml'}\nsecond_stage: crt\nnum_train_epochs: 1\n"
    )
    table = read_table(str(written(table, rows=["then.yaml", "plain.yaml"], settings={"depth": 14})))
    runs = reproduce._runs(table, 1, [], tmp_path, ("--bf16", "true"))
    assert [(run.row.name, run.program) for run in runs] == [
        ("sharp", "train"),
        ("then", "decouple"),
        ("plain", "train"),
    ]
    assert arguments(runs[1])["--first_stage"] == arguments(runs[0])["--output_dir"]
    assert "--bf16" in arguments(runs[0]) and "--bf16" not in arguments(runs[1])
    assert (runs[0].row.settings, runs[1].row.settings) == ({"depth": 14}, {})
    started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "run_all", lambda runs, *_: started.append([run.row.name for run in runs]))
        reproduce._run(table, runs, 1, tmp_path)
    assert started == [["sharp", "plain"], ["then"]]


def test_the_table_of_the_demo_has_data(tmp_path):
    """Those of `ltsam demo`, or any others."""
    read = read_table("demo")
    (run,) = reproduce._runs(read, 1, [], tmp_path, ())
    assert run.row.expanded["dataset"] == "runs/demo/digits" and "--dataset" not in arguments(run)
    (run,) = reproduce._runs(read, 1, [str(tmp_path)], tmp_path, ())
    assert arguments(run)["--dataset"] == str(tmp_path)


def test_a_first_stage_of_a_table_of_ones_own(table, tmp_path):
    """It stands in no table of the package, and its row is trained before the second stage."""
    parts = ["cifar100_lt_ir50", "cifar100_li2025", "200_epochs", "la", "sam_la_cifar100"]
    rows = [{"my_second": {"parts": ["second_stage"], "first_stage": "my_first", "second_stage": "crt"}}]
    first = [{"rows": [{"my_first": {"parts": parts, "depth": 20}}]}]
    read = read_table(str(written(table, rows=rows, first_stages=first, settings={"bf16": True})))
    (stage,) = read.first_stages()
    assert stage.expanded == {**read_recipe("cifar100_lt_ir50_la_sam"), "depth": 20, "bf16": True}
    runs = [RowRun(row, 0, tmp_path / "runs") for row in (stage, *read.rows)]
    for run in runs:
        run.check()
    assert arguments(runs[1])["--first_stage"] == arguments(runs[0])["--output_dir"]


def test_a_first_stage_that_is_a_row_keeps_its_own_settings(table):
    table.parent.joinpath("then.yaml").write_text(f"first_stage: {table.parent / 'sharp.yaml'}\nsecond_stage: crt\n")
    read = read_table(str(written(table, rows=[{"sharp.yaml": {"depth": 14}}, "then.yaml"])))
    assert [row.settings for row in read.only(["then"]).first_stages()] == [{"depth": 14}]
    assert read.first_stages() == ()


def test_images_of_ones_own_are_named_by_their_builder(tmp_path, images):
    read = read_table("rangwani2022_table3")
    datasets = [f"imagenet_lt={images}", f"inaturalist2018={tmp_path}"]
    runs = reproduce._runs(read, 1, datasets, tmp_path, ())
    runs = [run for run in runs if run.row.first_stage is None]  # a second stage has the data of its first
    assert {arguments(run)["--dataset"] for run in runs if run.row.name.startswith("imagenet")} == {str(images)}
    assert {arguments(run)["--dataset"] for run in runs if run.row.name.startswith("inat")} == {str(tmp_path)}


def test_data_sets_are_found_by_name(table, tmp_path, images):
    for name, data in (("plain", "a/one"), ("sharp", "b/two")):
        written(table.parent / f"{name}.yaml", dataset=data)
    read = read_table(str(table))

    def given(*folders):
        return [arguments(run).get("--dataset") for run in reproduce._runs(read, 1, folders, tmp_path, ())]

    assert given(f"b/two={images}") == [None, str(images)]
    with pytest.raises(ValueError, match="a/one, b/two; say which, NAME=FOLDER"):
        given(str(images))
    with pytest.raises(ValueError, match="no data set 'c/three', only a/one, b/two"):
        given(f"c/three={images}")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        given(f"a/one={tmp_path / 'nowhere'}")
    read = read.only(["sharp"])
    assert given(str(images)) == [str(images)]


def test_other_settings_do_not_get_into_the_same_folder(table, tmp_path):
    run = RowRun(read_table(str(table)).rows[0], 0, tmp_path / "runs")
    run.check()
    stated = read_recipe(find_recipe(str(table.parent / "plain.yaml")))
    train_settings = {**decided_settings(stated), **stated, "seed": 0, "output_dir": "elsewhere"}
    write_run(run.folder, metrics([1, 1, 1, 1, 1]), recipe=train_settings)
    run.check()
    changed = RowRun(run.row, 0, run.root, ("--num_train_epochs", "7"))
    with pytest.raises(
        ValueError, match=r"was trained with num_train_epochs 6.*, which is 7.* now: --output_dir OTHER"
    ):
        changed.check()
    with pytest.raises(ValueError, match="Unknown option --num_train_epoch"):
        RowRun(run.row, 0, run.root, ("--num_train_epoch", "7")).check()


@pytest.mark.parametrize("change, said", [
    ({"rows": []}, "has no 'rows'"),
    ({"title": None}, "has no 'title'"),
    ({"row": ["plain.yaml"]}, "sets 'row', which no table has.*'rows'"),
    ({"rows": ["plain.yaml", "plain.yaml"]}, "has the row plain twice"),
    ({"rows": [["plain.yaml"]]}, "a row is the name of a recipe"),
    ({"rows": [{"plain.yaml": 3}]}, "has settings 3"),
    ({"rows": ["cifar100_lt_ir100_la_sma"]}, "no such file or recipe.*cifar100_lt_ir100_la_sam"),
])  # fmt: skip
def test_what_is_no_table(table, change, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        read_table(str(written(table, **change)))


def test_what_the_command_refuses(table, capsys, tmp_path):
    assert "no table of that name" in refused(capsys, "li2025_tabel2")
    assert "--seeds must be at least 1, got 0" in refused(capsys, table, "--seeds", "0")
    assert "--jobs must be at least 1, got 0" in refused(capsys, table, "--jobs", "0")
    assert "--rows sharpe: table has no such row. Did you mean 'sharp'" in refused(capsys, table, "--rows", "sharpe")
    out = tmp_path / "runs"
    taken = ("--seed", "--output_dir=x", "--config", "--resume_from_checkpoint")
    for name in (*taken, "--output-dir", "--resume-from-checkpoint=x", "--first-stage"):
        said = f"{name.partition('=')[0].replace('-', '_').replace('__', '--', 1)} cannot be given to the trainings"
        assert said in refused(capsys, table, "--output_dir", out, "--", name, "7")
    for token in (["--hub_token", "hf_secret"], ["--hub-token", "hf_secret"], ["--hub-token=hf_secret"]):
        assert "set HF_TOKEN" in refused(capsys, table, "--output_dir", out, "--", *token)
    assert "Unknown option --dept." in refused(capsys, table, "--output_dir", out, "--", "--dept", "20")
    assert not list(out.glob("*/*"))


def test_a_table_with_a_secret_is_refused(table, capsys, tmp_path):
    secret = written(table, settings={"hub_token": "hf_" + "a1" * 16})
    said = refused(capsys, secret, "--output_dir", tmp_path / "out")
    assert "sets hub_token to a secret" in said and "a1a1" not in said and not list(tmp_path.glob("out/**/*.yaml"))


def test_from_python_with_values(table, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(reproduce, "run_all", lambda runs, jobs, _: started.extend((run.folder, jobs) for run in runs))
    reproduce.reproduce(str(table), ["sharp"], seeds=2, jobs=3, output_dir=tmp_path / "out", options=["--bf16", "true"])
    assert started == [(tmp_path / "out" / "sharp" / f"seed{seed}", 3) for seed in (0, 1)]
    assert json.loads((tmp_path / "out" / "table.json").read_text())["words"] == ["--bf16", "true"]


def test_the_tables_are_listed(capsys):
    reproduce.main([])
    *lines, empty, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == table_names()
    counted = {(int(number), unit) for _, number, unit, *_ in map(str.split, lines)}
    assert all(unit == ("row" if number == 1 else "rows") for number, unit in counted) and (1, "row") in counted
    assert not empty and "`ltsam reproduce TABLE` runs them" in last and "--rows ROW" in last


@pytest.mark.parametrize("name", table_names())
def test_the_settings_of_our_tables_exist(name, tmp_path):
    """Rows without settings are recipes, whose own test builds their objects."""
    table = read_table(name)
    assert table.title and table.source
    for row in [row for row in table.rows if row.settings]:
        RowRun(row, 0, tmp_path).check()


# --- the numbers -----------------------------------------------------------------------------------------------------


def test_mean_and_deviation_beside_what_was_published(table, tmp_path):
    """Five classes: many 0 and 1, medium 2, few 3 and 4."""
    read = read_table(str(table))
    runs = [RowRun(row, seed, tmp_path / "runs") for seed in range(3) for row in read.rows]
    for run, accuracies, seconds in (
        (runs[0], [0.9, 0.7, 0.5, 0.2, 0.0], 100.0), (runs[2], [0.8, 0.8, 0.6, 0.3, 0.1], 140.0), (runs[1], [1, 1, 1, 0, 0], 50.0)
    ):  # fmt: skip
        write_run(run.folder, metrics(accuracies, run.seed, seconds=seconds))
    resumed = metrics([0.7, 0.9, 0.7, 0.4, 0.2], 2, resumed=True, seconds=3.0)
    write_run(runs[4].folder, resumed)
    reproduce.write_table(tmp_path / "runs", read.only(["plain"]))  # all rows are shown, whichever were run last
    lines = (tmp_path / "runs" / "table.md").read_text().splitlines()
    # overall 46, 52, 58: mean 52, deviation 6; many 80, 80, 80; medium 50, 60, 70; few 10, 20, 30; the resumed run's 3 s are out
    assert (
        "| `plain` | 52.00 ± 6.00 (41.5) | 80.00 ± 0.00 (60) | 60.00 ± 10.00 | 20.00 ± 10.00 | 3 | 120 ± 28 |" in lines
    )
    assert "| `sharp` | 60.00 (44.25) | 100.00 (61) | 100.00 | 0.00 | 1 | 50 |" in lines
    assert "Hardware: 1 x cpu" in lines and "Versions: torch 2.15" in lines
    values = json.loads((tmp_path / "runs" / "table.json").read_text())
    assert values["rows"][0]["accuracies"]["overall"] == pytest.approx([46, 52, 58])
    assert values["rows"][0]["published"] == {"overall": 41.5, "many": 60.0, "medium": None, "few": None}
    assert values["rows"][0]["source"] == "Nobody et al. 2020 Table 1"
    changed = read_table(str(written(table, rows=["plain.yaml", {"sharp.yaml": {"depth": 14}}])))
    reproduce.write_table(tmp_path / "runs", changed)  # whose rows state no number
    assert "| `sharp` | 60.00 | 100.00 | 100.00 | 0.00 | 1 | 50 |" in (tmp_path / "runs" / "table.md").read_text()


def test_a_record_is_read_once_and_again_where_it_was_written_again(table, tmp_path, monkeypatch):
    """A long sweep writes its table after every run."""
    row, root, read, reads = read_table(str(table)).rows[0], tmp_path / "runs", RunRecord.from_json, []
    monkeypatch.setattr(RunRecord, "from_json", lambda content: reads.append(content["seed"]) or read(content))
    for seed in (0, 1, 2):
        write_run(RowRun(row, seed, root).folder, metrics([0.5] * 5, seed))
        assert [record.seed for record in ended_runs(root, row).values()] == list(range(seed + 1))
    assert reads == [0, 1, 2]
    file = RowRun(row, 1, root).folder / RECORD
    write_run(file.parent, metrics([1.0] * 5, 1))
    os.utime(file, ns=(0, 0))
    assert [record.results["test"]["overall"] for record in ended_runs(root, row).values()] == [0.5, 1.0, 0.5]


def test_a_published_row_with_other_settings_is_another_training(table):
    name = "cifar100_lt_ir100_la_sam"
    assert Row(name).target.overall == 50.0
    assert read_table(str(written(table, rows=[name]))).rows[0].target.overall == 50.0
    assert read_table(str(written(table, rows=[{name: {"depth": 14}}]))).rows[0].target is None
    assert read_table(str(written(table, rows=[name], settings={"depth": 14}))).rows[0].target is None


def test_a_row_of_parts_in_a_table_of_ones_own(table, tmp_path):
    parts = ["cifar100_lt_ir50", "cifar100_li2025", "200_epochs", "la", "sam_la_cifar100"]
    read = read_table(str(written(table, rows=[{"mine": {"parts": parts, "depth": 20}}])))
    run = RowRun(read.rows[0], 0, tmp_path / "runs")
    run.check()
    settings = read_recipe(find_recipe(arguments(run)["--config"]))
    assert settings == {**read_recipe("cifar100_lt_ir50_la_sam"), "depth": 20}


def test_what_a_failed_run_said_is_shown(table, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "OMP_NUM_THREADS": "1"})
    read = read_table(str(table)).only(["plain"])
    run = RowRun(read.rows[0], 0, tmp_path / "runs")

    def fails(runs, jobs, ended):
        for own in runs:
            own.log.parent.mkdir(parents=True, exist_ok=True)
            own.log.write_text("much\nerror: the disk is full\n(LTSAM_TRACEBACK=1 shows where it was raised.)\n")
            ended(own, 2)

    monkeypatch.setattr(reproduce, "run_all", fails)
    assert reproduce._run(read, [run], 1, run.root) == [run]
    assert "plain seed 0: failed with status 2: error: the disk is full (0 to go)" in capsys.readouterr().out


def test_a_row_knows_its_name():
    assert Row("second_stage/cifar10_lt_ir100_ce_sgd_then_crt").name == "cifar10_lt_ir100_ce_sgd_then_crt"
