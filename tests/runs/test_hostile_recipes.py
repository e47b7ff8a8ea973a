"""Recipes and tables that are no such thing: one line that names the file and the place, at once."""

import time

import pytest

from hf_ltsam.runs.files import DamagedFileError
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.recipe_files import MOST
from hf_ltsam.runs.recipe_tables import load_table
from hf_ltsam.runs.recipes import read_recipe

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 30)
)
MERGED = "m0: &m0 {x: 1}\n" + "".join(f"m{k}: &m{k} {{<<: [{', '.join([f'*m{k - 1}'] * 9)}]}}\n" for k in range(1, 30))
FILES = {
    "anchors that multiply": (LAUGHS, rf"line \d+: anchors multiply it to more than {MOST:,} values"),
    "merges that multiply": (MERGED, r"line \d+: anchors multiply"),
    "an anchor of itself": ("a: &a [*a]\n", "line 1: what an anchor stands for contains itself"),
    "deep lists": ("a: " + "[" * 100_000, "line 1: (nested more than 20 deep|exceeded maximum nesting depth)"),
    "deep mappings": ("a: " + "{a: " * 50_000, "line 1: nested more than 20 deep"),
    "deep lines": ("\n".join(" " * k + "a:" for k in range(500)), "line 21: nested more than 20 deep"),
    "large": ("a: " + "x" * 2_000_000, "has 2,000,003 characters"),
    "a key of numbers": ("seed: 1\n1: 2\n", "line 2: the key 1 is no name"),
    "a key of truth": ("on: 2\n", "line 1: the key on is no name"),
    "no key": ("~: 2\n", "line 1: the key ~ is no name"),
    "a list as a key": ("? [1, 2]\n: 3\n", "line 1: the key is no name"),
    "a key within": ("method_args: {rho: 1, 2: 3}\n", "line 1: the key 2 is no name"),
    "a key twice": ("seed: 1\nmethod: sam\nseed: 2\n", r"line 3: seed is set twice \(line 1\)"),
    "a key twice within": ("method_args:\n  rho: 1\n  rho: 2\n", r"line 3: rho is set twice \(line 2\)"),
    "no such anchor": ("a: *b\n", "not a YAML file: line 1: found undefined alias"),
    "an object of Python": (
        "a: !!python/object/apply:os.system [ls]\n",
        "not a YAML file: line 1: could not determine",
    ),
    "two documents": ("a: 1\n---\nb: 2\n", "not a YAML file: line 2: but found another document"),
    "no date": ("a: 2020-13-45\n", "not a YAML file: month must be in 1..12"),
    "a tab": ("a:\n\t- b\n", "not a YAML file: line 2"),
    "control characters": ("a: \x00\n", "not a YAML file"),
    "a list": ("- a\n", "must hold settings.*got a list"),
    "a word": ("owl\n", "must hold settings.*got a str"),
    "inherits numbers": ("inherits: [3]\n", r"sets inherits to \[3\]; it must name one recipe or a list of them"),
    "inherits a mapping": ("inherits: {a: b}\n", "sets inherits to {'a': 'b'}"),
    "inherits lists": ("inherits: [[a]]\n", r"sets inherits to \[\['a'\]\]"),
    "inherits nothing": ("inherits: ['']\n", "inherits from , which is no file"),
}


def at_once(act, *refused):
    started = time.monotonic()
    with pytest.raises(*refused) as raised:
        act()
    assert time.monotonic() - started < 5
    said = str(raised.value)
    assert len(said.splitlines()) == 1 and len(said) < 500
    return said


@pytest.mark.parametrize("text, said", FILES.values(), ids=FILES)
def test_recipes(text, said, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    import re

    assert (
        re.search(said, words := at_once(lambda: read_recipe(path), (ValueError, FileNotFoundError)))
        and str(path) in words
    )
    if "inherits" not in text:  # a run's own file is read by the same rules
        (tmp_path / "recipe.yaml").write_text(text)
        words = at_once(lambda: RunFolder(tmp_path).recipe, DamagedFileError)
        assert words.startswith(f"{tmp_path / 'recipe.yaml'} is damaged: ") and re.search(
            said.split("line")[0][:12], words
        )


def test_anchors_that_save_writing(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("loss_args: &a {tau: 1.0}\nmethod_args: {<<: *a, rho: 1e-3}\nadapter_args: *a\n")
    assert read_recipe(path)["method_args"] == {"tau": 1.0, "rho": 0.001}
    assert read_recipe(path)["adapter_args"] == read_recipe(path)["loss_args"] == {"tau": 1.0}


def test_what_is_inherited_many_times_is_read_once(tmp_path):
    for k in range(18):
        (tmp_path / f"r{k}.yaml").write_text(f"inherits: [{', '.join([f'r{k + 1}.yaml'] * 5)}]\nseed: {k}\ns{k}: 1\n")
    (tmp_path / "r18.yaml").write_text("seed: 18\nepochs: 3\n")
    started = time.monotonic()
    settings = read_recipe(tmp_path / "r0.yaml")
    assert time.monotonic() - started < 5 and len(settings) == 20
    assert (settings["seed"], settings["epochs"]) == (0, 3)


def test_a_long_chain(tmp_path):
    for k in range(2000):
        (tmp_path / f"r{k}.yaml").write_text(f"inherits: r{k + 1}.yaml\n")
    said = at_once(lambda: read_recipe(tmp_path / "r0.yaml"), ValueError)
    assert "is inherited through more than 20 recipes: r0.yaml <- ..." in said


ROW = "cifar100_lt_ir100_la_sam"
TABLES = [
    *(f"{key}: 3" for key in ("title", "source", "without", "measured", "settings", "unpublished", "assumed", "rows", "first_stages")),
    *("rows: owl", "rows: {a: b}", "rows: [3]", "rows: [[a]]", "rows: [{a: 1, b: 2}]", "rows: [{1: {}}]", "title: [a]", "measured: {note: 3}"),
    *(f"rows: [{{{ROW}: {{{key}: 3}}}}]" for key in ("label", "detail", "parts", "published", "unpublished", "compare", "assumed")),
    *(f"rows: [{{{ROW}: {{{key}}}}}]" for key in ("parts: [3]", "compare: [[a]]", "published: {overall: owl}", "published: {overall: 101}")),
]  # fmt: skip
BLOCKS = [
    *("blocks: 3", "blocks: [3]", "blocks: [{title: a}]", "blocks: [[a]]", "blocks: {a: b}", "blocks: [{rows: 3}]", "blocks: [{rows: owl}]"),
    *(f"blocks: [{{rows: [{ROW}], {key}: 3}}]" for key in ("title", "detail", "parts", "unpublished", "assumed")),
]  # fmt: skip


@pytest.mark.parametrize("line", [*TABLES, *BLOCKS])
def test_tables(line, tmp_path):
    lines = {"title": "title: mine", "source": "source: me", "rows": f"rows: [{ROW}]"}
    lines[line.partition(":")[0]] = line
    if line in BLOCKS:
        del lines["rows"]
    path = tmp_path / "table.yaml"
    path.write_text("\n".join(lines.values()) + "\n")
    assert str(path) in at_once(lambda: load_table(path), ValueError)


@pytest.mark.parametrize("key", ["without", "measured", "settings", "unpublished", "assumed", "first_stages"])
def test_an_empty_key_of_a_table_is_none(key, tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text(f"title: mine\nsource: me\nrows: [{ROW}]\n{key}:\n")
    assert [row.name for row in load_table(path).rows] == [ROW]
