"""`ltsam recipes`: listed, searched, and one in full."""

import json
import subprocess
import sys

import pytest
from rich import console

from hf_ltsam.cli import recipes
from hf_ltsam.cli.main import COMMANDS
from hf_ltsam.runs.recipe_tables import published_tables, table_names
from hf_ltsam.runs.recipes import read_recipe, recipe_names


@pytest.fixture
def said(capsys, monkeypatch):
    """What the command prints for these words, in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(console, "WINDOWS", False)

    def run(*words):
        COMMANDS["recipes"](words)
        return capsys.readouterr().out

    return run


def names_in(text):
    """Of the rows: two spaces, then the name."""
    return [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] != " "]


def test_all_tables_and_rows_fit_a_terminal(said):
    text = said()
    assert names_in(text) == [row.name for table in published_tables() for row in (*table.rows, *table.first_stages)]
    assert set(names_in(text)) == set(recipe_names())
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("Accuracy in %; -: nothing published.") == 1 and text.startswith("Accuracy in %")
    row = next(line for line in text.splitlines() if line.split()[:1] == ["cifar100_lt_ir100_la_focal_sam"])
    assert row.split()[1:] == ["50.7", "63.9", "53.0", "32.5"]


def test_rows_that_have_all_words(said):
    names = set(names_in(said("focal_sam", "ir10", "li2025_table5")))
    assert names == {
        f"cifar10_lt_ir10_{loss}_focal_sam" for loss in ("ce", "ldam_drw", "la", "vs", "clip_fft_la", "clip_lift_la")
    }
    assert "cifar100_lt_ir100_la_focal_sam" in names_in(said("Focal-SAM"))
    assert "cifar100_lt_ir100_la_asam" not in names_in(said("sam")) and "cifar100_lt_ir100_la_sam" in names_in(
        said("sam")
    )


def test_the_name_of_a_part_is_a_word_to_search_for(said):
    names = names_in(said("imbsam"))
    assert "cifar100_lt_ir100_la_imbsam" in names and len(names) > 5
    assert "Lyu et al. 2025" in said("parts/imbsam") and not names_in(said("parts/imbsam"))
    assert json.loads(said("parts/imbsam", "--json")) == read_recipe("imbsam")


def test_a_table_by_its_name(said):
    assert names_in(said("li2025_table10")) == ["inaturalist2018_la_sam_300_epochs", "inaturalist2018_la_focal_sam"]


def test_a_table_with_settings_of_its_own_shows_no_published_numbers(said):
    rows = [line.split() for line in said("small_cifar100_lt").splitlines() if line.startswith("  cifar100")]
    assert len(rows) == 18 and all(" ".join(rest) == "(with the table's own settings)" for _, *rest in rows)
    text = " ".join(said("cifar100_lt_ir100_ce_sgd").split())
    assert "tables li2025_table2, small_cifar100_lt (with the table's own settings) command" in text


def test_a_column_has_the_same_decimals(said):
    for name in table_names():
        numbers = [line.split()[1:] for line in said(name).splitlines() if names_in(line) and "(" not in line]
        for column in zip(*numbers, strict=True):
            assert len({len(cell.partition(".")[2]) for cell in column if cell != "-"}) <= 1, name
    row = next(line for line in said("zhou2023b_table2").splitlines() if "cifar100_lt_ir100_ce_sgd_then_cc_sam" in line)
    assert row.split()[1:] == ["48.20", "-", "-", "-"]


def test_first_stages_are_listed(said):
    named = names_in(said("ce_sgd_zhou2023b", "ir100"))  # one of them is a row of a figure, too
    assert sorted(set(named)) == [
        "second_stage/cifar100_lt_ir100_ce_sgd_zhou2023b", "second_stage/cifar10_lt_ir100_ce_sgd_zhou2023b"
    ]  # fmt: skip


def test_one_recipe_in_full(said):
    text = " ".join(said("cifar100_lt_ir200_la_focal_sam").split())
    assert "CIFAR-100-LT, imbalance ratio 200, ResNet-32: LA+Focal-SAM" in text
    assert (
        'published 46.0 % overall source Li et al. 2025 Table 2, "LA+Focal-SAM", IR200; best epoch on the test set'
        in text
    )
    assert "tables li2025_table2, li2025_table8" in text
    assert "ltsam train --config cifar100_lt_ir200_la_focal_sam --seed 0" in text
    assert "assumed method_args.rho: stated for other recipes only: Li et al. 2025, code for LA at ratio 100" in text
    assert "learning_rate 0.1 Li et al. 2025 App. C.4" in text
    assert "logging_steps 50 ours: no influence on the result" in text
    settings = read_recipe("cifar100_lt_ir200_la_focal_sam")
    shown = {
        line.split()[0].partition(".")[0]
        for line in said("cifar100_lt_ir200_la_focal_sam").splitlines()
        if line.strip()
    }
    assert set(settings) <= shown


def test_one_recipe_waits_for_no_torch():
    code = (
        "import sys; from hf_ltsam.cli import main; main.main(['recipes', 'cifar100_lt_ir100_la_focal_sam']);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_one_without_a_published_number(said):
    text = " ".join(said("cifar100_lt_ir100_ce_cc_sam").split())
    assert "published none (for this stage alone)" in text
    assert (
        "compare second_stage/cifar100_lt_ir100_ce_cc_sam_then_crt, 47.74 % overall (Zhou et al. 2023b Table 2" in text
    )
    text = " ".join(said("second_stage/cifar100_lt_ir100_ce_sgd_then_lws").split())
    assert "ltsam decouple --config second_stage/cifar100_lt_ir100_ce_sgd_then_lws --seed 0" in text


def test_the_command_asks_for_images_that_cannot_be_downloaded(said):
    text = " ".join(said("imagenet_lt_la_sgd").split())
    assert "command ltsam train --config imagenet_lt_la_sgd --dataset FOLDER --seed 0" in text
    assert "--config demo/digits --seed 0" in " ".join(said("demo/digits").split())


@pytest.mark.parametrize(
    "name", ["cifar100_lt_ir100_la_focal_sam", "second_stage/cifar10_lt_ir50_ce_sgd_then_crt", "demo/digits"]
)
def test_settings_alone_as_json(said, name):
    assert json.loads(said(name, "--json")) == read_recipe(name)


def test_a_recipe_of_ones_own(said, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("inherits: cifar100_lt_ir100_la_sam\ndepth: 20\n")
    assert json.loads(said(str(path), "--json"))["depth"] == 20
    assert "Li et al. 2025, code for SAM with LA" in " ".join(said(str(path)).split())


@pytest.mark.parametrize(
    "words, message",
    [
        (["cifar100_lt_ir100_la_focal_sma"], "Did you mean 'cifar100_lt_ir100_la_focal_sam'"),
        (["li2025_tabel2"], "'li2025_table2'"),
        (["focal_sam", "--json"], "--json prints the settings of one recipe"),
        (["--json"], "--json prints the settings of one recipe"),
        (["focal_sam", "nothing"], "No recipe has 'focal_sam' and 'nothing'"),
        (["parts/imbsma"], "'parts/imbsam'"),
        (["training_lyu2025"], "'parts/training_lyu2025'"),
        (["nosuchthing"], "`ltsam recipes` lists all"),
    ],
)
def test_what_is_not_there(capsys, words, message):
    with pytest.raises(SystemExit) as exit_:
        recipes.main(words)
    captured = capsys.readouterr()
    assert exit_.value.code == 2 and message in captured.err and captured.out == ""


def test_every_row_can_be_shown(said):
    for name in recipe_names()[::25]:
        assert name in said(name)
