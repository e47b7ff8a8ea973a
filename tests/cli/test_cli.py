"""The command `ltsam`."""

import inspect
import subprocess
import sys
import types

import pytest
import yaml

from hf_ltsam import METHODS, LTSamConfig, make_method
from hf_ltsam.cli import main as cli
from hf_ltsam.cli.demo import command as demo
from hf_ltsam.cli.train import train


def run(capsys, *words):
    """Exit status, standard output and standard error."""
    try:
        cli.main(words)
        status = 0
    except SystemExit as exit_:
        status = exit_.code or 0
    return status, *capsys.readouterr()


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_help_names_the_commands(capsys, words):
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert all(name in out for name in ("demo", "train", "methods"))


def test_the_command_line_itself_imports_nothing_heavy():
    code = (
        "import sys; from hf_ltsam.cli import main; main._parser();"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy', 'rich'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_tells_its_options(capsys, name):
    status, out, _ = run(capsys, name, "--help")
    assert status == 0 and out.startswith(f"usage: ltsam {name} ")


def test_a_command_is_a_line_of_the_table(capsys, monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, "hf_ltsam.cli.hello", types.SimpleNamespace(main=seen.append))
    monkeypatch.setitem(cli.COMMANDS, "hello", cli.Command("hello", "Say hello."))
    assert run(capsys, "hello", "--to", "you")[0] == 0 and seen == [["--to", "you"]]
    assert "  hello       Say hello." in run(capsys, "--help")[1]


def test_options_of_every_command_are_spelled_either_way(monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, "hf_ltsam.cli.hello", types.SimpleNamespace(main=seen.append))
    monkeypatch.setitem(cli.COMMANDS, "hello", cli.Command("hello", "Say hello."))
    cli.main(["hello", "a-b", "--hub-token=hf-x", "-v", "--to-whom", "a-b=c-d", "--", "--in-turn"])
    assert seen == [["a-b", "--hub_token=hf-x", "-v", "--to_whom", "a-b=c-d", "--", "--in_turn"]]


def test_settings_are_named_as_options(capsys, monkeypatch):
    monkeypatch.delenv("LTSAM_TRACEBACK", raising=False)
    status, _, err = run(capsys, "train", "--dataset", "x", "--max_skipped_steps", "0")
    assert status == 2 and err.startswith("error: --max_skipped_steps must be a whole number of at least 1, got 0.")
    status, _, err = run(capsys, "train", "--dataset", "x", "--ascent_scope", "stap")
    assert status == 2 and err.startswith("error: --ascent_scope stap does not exist. Did you mean 'step'")


def test_a_typo_in_the_command(capsys):
    status, _, err = run(capsys, "trian")
    assert status == 2 and "'trian'" in err and "Did you mean 'train'" in err and "Traceback" not in err


def test_methods_lists_all(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = run(capsys, "methods")
    assert status == 0 and all(name in out for name in METHODS)
    row = next(line for line in out.splitlines() if " focal_sam " in line)
    assert "g = G(1 - lam f)" in row and "2 forwards, 3 backwards" in row and "Li et al. 2025 Eq. 5 to 8" in row
    for default in ("rho 0.05", "gamma 1.0", "plain exact", "every 5", "shards 8", "class_weighting none"):
        assert default in out
    assert "interval 1" not in out, "what all methods share would stand in every row"


@pytest.mark.parametrize("columns", [80, 90, 100, 120, None])
def test_methods_are_whole_at_any_width(capsys, monkeypatch, columns):
    """Also in a pipe, which has no width."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    out = run(capsys, "methods")[1]
    assert max(map(len, out.splitlines())) <= (columns or 80) and "…" not in out
    words = set(out.replace("│", " ").split())
    for name, method in METHODS.items():
        missing = {name, *f"{method.summary} {method.cost} {method.source}".split()} - words
        assert not missing, f"{name} at {columns} columns"


def test_the_symbols_are_explained(capsys):
    for words in (["methods"], ["methods", "cc_sam"]):
        text = " ".join(run(capsys, *words)[1].split())
        assert "at the weights w + eps" in text and "G(1) has eps = 0" in text and "unit(g) = g / ||g||" in text
        assert "pi_c is the share of class c" in text


@pytest.mark.parametrize(
    "name, radius",
    [("sgd", None), ("cc_sam", "scale"), ("sse_sam", "rho_head"), ("pgd", "sigma"), ("lpf_sgd", "gamma")],
)
def test_the_schedules_shown_are_those_of_the_methods_radius(capsys, name, radius):
    out = run(capsys, "methods", name)[1]
    lines = [line.split("#")[0].strip() for line in out.splitlines() if line.startswith("    ") and ": {" in line]
    assert len(lines) == (0 if radius is None else 3) and ("A schedule" in out) == (radius is not None)
    for line in lines:
        assert list(yaml.safe_load(line)) == [radius]
        config = LTSamConfig("x", use_cpu=True, num_train_epochs=200, method_args=yaml.safe_load(line))
        make_method(name, **config.method_hyperparameters)


def test_one_method_in_full(capsys):
    status, out, _ = run(capsys, "methods", "focal_sam")
    assert status == 0 and inspect.getdoc(METHODS["focal_sam"]) in out
    written = [line.split("  ")[0].strip() for line in out.splitlines() if line.startswith("    rho: {")]
    assert len(written) == 3
    for line in written:  # what is shown works
        config = LTSamConfig("x", use_cpu=True, num_train_epochs=200, method_args=yaml.safe_load(line))
        make_method("sam", **config.method_hyperparameters)


def test_a_report_on_a_missing_folder_is_refused_at_once():
    code = (
        "import sys; from hf_ltsam.cli import main\n"
        "try: main.main(['report', '/nowhere/at/all'])\n"
        "except SystemExit: print(sorted({'torch', 'transformers', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and "/nowhere/at/all: there is no such folder" in done.stderr


@pytest.mark.parametrize("more", [["--dataset", "nowhere"], ["--config", "nosuch"], ["--dataset", "EMPTY"]])
def test_a_refused_training_leaves_no_folder(capsys, monkeypatch, tmp_path, more):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY" / "train").mkdir(parents=True)
    for words in (more, [*more, "--output_dir", "zz/run"]):
        assert run(capsys, "train", *words, "--use_cpu", "true")[0] == 2
    assert [path.name for path in tmp_path.iterdir() if path.name != "hf_cache"] == ["EMPTY"]


def test_an_unknown_method(capsys):
    status, _, err = run(capsys, "methods", "focal_sm")
    assert status == 2 and err.startswith("error: Unknown method 'focal_sm'. Did you mean 'focal_sam'")


def test_options_are_passed_on(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "main", lambda words: seen.append(("train", *words)))
    monkeypatch.setattr(demo, "main", lambda words: seen.append(("demo", *words)))
    cli.main(["train", "--config", "x", "--help", "--seed=1"])
    cli.main(["demo", "--seeds", "2"])
    assert seen == [("train", "--config", "x", "--help", "--seed=1"), ("demo", "--seeds", "2")]


def raising(error):
    def main(words):
        raise error

    return main


def test_an_interrupt_is_one_line_and_status_130(capsys, monkeypatch):
    monkeypatch.setattr(train, "main", raising(KeyboardInterrupt("Resume it so.")))
    status, _, err = run(capsys, "train")
    assert status == 130 and err.strip() == "Interrupted. Resume it so."


@pytest.mark.parametrize(
    "error", [ValueError("bad value 3"), FileNotFoundError("bad value 3"), NotImplementedError("bad value 3")]
)
def test_an_error_of_the_user_is_one_message(capsys, monkeypatch, error):
    monkeypatch.delenv("LTSAM_TRACEBACK", raising=False)
    monkeypatch.setattr(train, "main", raising(error))
    status, _, err = run(capsys, "train")
    assert status == 2 and err.startswith("error: bad value 3") and "Traceback" not in err


def test_the_traceback_can_be_had(monkeypatch):
    monkeypatch.setenv("LTSAM_TRACEBACK", "1")
    monkeypatch.setattr(train, "main", raising(ValueError("bad value 3")))
    with pytest.raises(ValueError, match="bad value 3"):
        cli.main(["train"])


def test_a_programming_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(train, "main", raising(KeyError("a bug")))
    with pytest.raises(KeyError):
        cli.main(["train"])
