"""The rules that keep the packages navigable: what lies where, and who may import whom."""

import ast
import re
import subprocess
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from syntax import tree_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hf_ltsam", "dataset_builders")

# Each folder may import those before it; folders on one line know nothing of each other.
ORDER = (
    ("hyperparameters",),
    ("schedules",),
    ("class_statistics",),
    ("metrics", "data"),
    ("models",),
    ("adapters",),
    ("losses",),
    ("landscape",),
    ("methods",),
    ("curvature",),
    ("runs",),
    ("training", "dataset_builders"),
    ("cli",),
)
RANK = {folder: rank for rank, row in enumerate(ORDER) for folder in row}

# One file per item, however short: what is listed here finds its items by name.
REGISTRIES = ("hf_ltsam.cli.main", "dataset_builders.corruptions.apply")  # tables of what lies beside them

RUN_FILES = (
    "class_statistics.json",
    "ltsam.json",
    "metrics.json",
    "ood_results.json",
    "predictions.json",
    "recipe.yaml",
    "report.html",
    "sharpness.json",
    "trainer_state.json",
    "training_args.bin",
)

FORBIDDEN_WORDS = {
    *("utils", "util", "utilities", "helpers", "helper", "misc", "common", "shared", "stuff", "things", "tools"),
    *("not", "never", "which", "what", "how", "when", "words"),
    *("enduring", "untaken", "looked", "perturbed", "moved", "own", "found", "told", "known", "kept"),
}


def source(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package is named like its folder."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@cache
def tree(name: str) -> ast.Module:
    return tree_of(source(modules()[name]))


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


@cache
def top_names() -> dict[str, str]:
    """Where the names that `hf_ltsam` offers come from: who imports one of them imports its home."""
    nodes = [node for node in ast.walk(tree("hf_ltsam")) if isinstance(node, ast.ImportFrom)]
    return {f"hf_ltsam.{alias.name}": str(node.module) for node in nodes for alias in node.names}


def module_of(name: str) -> str | None:
    name = top_names().get(name, name)
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or None


@cache
def imports() -> dict[str, set[str]]:
    """Our modules that each module imports: inside functions and for type checkers too."""
    targets = {name: {module_of(n) for node in ast.walk(tree(name)) for n in imported(node)} for name in modules()}
    return {name: found - {None, name} for name, found in targets.items()}


def folder(name: str) -> str:
    """Where a module stands in the order: a folder or module at the top of `hf_ltsam`, or the other package."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "hf_ltsam" else package


def faults(rule: str, found: list[str]) -> None:
    if found:
        more = [f"... and {len(found) - 20} more"] if len(found) > 20 else []
        pytest.fail("\n    ".join([rule, *found[:20], *more]), pytrace=False)


def entries(path: Path) -> list[Path]:
    """Modules and packages of code in a folder, without `__init__`."""
    return [p for p in sorted(path.iterdir()) if (p.suffix == ".py" and p.stem != "__init__") or any(p.glob("*.py"))]


def test_the_top_of_the_package_is_read_at_a_glance():
    top = [p.name for p in entries(ROOT / "hf_ltsam")]
    assert len(top) <= 14, f"hf_ltsam has {len(top)} entries: put the new one into the folder of its idea. {top}"


def test_a_folder_has_at_most_twenty_modules():
    crowded = [f"{p}: {n}" for p in {f.parent for f in modules().values()} if (n := len(entries(p))) > 20]
    faults("These folders have more than 20 modules: gather those of one idea into a folder.", crowded)


def test_the_order_names_every_folder():
    unnamed = {folder(name) for name in modules()} - {*RANK, ""}
    assert not unnamed, f"Give these a place in ORDER, here and in CONTRIBUTING: {sorted(unnamed)}"


def test_folders_import_only_those_before_them():
    against = [
        f"{name} imports {target}"
        for name, targets in imports().items()
        for target in sorted(targets)
        if folder(name) and folder(target) != folder(name) and RANK.get(folder(target), 99) >= RANK[folder(name)]
    ]
    faults("Against the order of the folders: move the code down, or hand the value in as an argument.", against)


def test_imports_are_absolute():
    relative = [name for name in modules() for n in ast.walk(tree(name)) if isinstance(n, ast.ImportFrom) and n.level]
    faults("Write these imports with the full name of the module.", relative)


def test_no_module_imports_itself_by_a_detour():
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        faults("Modules import each other: move what both need into a module below both.", error.args[1])


def test_a_short_module_with_one_reader_is_part_of_it():
    readers = defaultdict(set)
    for name, targets in imports().items():
        for target in targets:
            readers[target].add(name)
    short = []
    for name, file in modules().items():
        if len(lines := source(file).splitlines()) < 60 and file.stem != "__init__" and len(readers[name]) == 1:
            reader = modules()[only := min(readers[name])]
            if reader.parent == file.parent and reader.stem != "__init__" and only not in REGISTRIES:
                short.append(f"{name} ({len(lines)} lines) into {only}")
    faults("Modules under 60 lines with a single reader beside them: make each a part of it.", short)


def test_a_module_is_at_most_four_hundred_lines_long():
    long = [f"{name}: {n}" for name, file in modules().items() if (n := len(source(file).splitlines())) > 400]
    faults("Longer than 400 lines: split by idea.", long)


def test_one_module_names_the_files_of_a_run():
    namers = defaultdict(set)
    for name in modules():
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Constant) and node.value in RUN_FILES:
                namers[node.value].add(name)
    twice = [f'"{file}": {", ".join(sorted(names))}' for file, names in sorted(namers.items()) if len(names) > 1]
    faults("Files of a run that several modules name: import the constant of the one that owns the name.", twice)


def test_only_the_command_line_parses_arguments():
    parsers = [
        f"{name} imports {target}"
        for name in modules()
        if folder(name) != "cli"
        for node in ast.walk(tree(name))
        for target in imported(node)
        if target.split(".")[0] == "argparse" or target.endswith((".HfArgumentParser", ".hf_argparser"))
    ]
    faults("`argparse` belongs to hf_ltsam/cli: take values here, and parse them there.", parsers)


def test_recipes_keep_numbers_as_data():
    """A comment may name a paper and a year: no decimal number, no percentage, no `name: number`."""
    numbers = [
        f"{file.name}:{number}: {line.strip()}"
        for file in sorted((ROOT / "hf_ltsam" / "recipes").rglob("*.yaml"))
        for number, line in enumerate(source(file).splitlines(), start=1)
        if re.search(r"(^|\s)#.*(\d\.\d|\d ?%|\w ?[:=] ?\d)", line)
    ]
    faults("Numbers in comments of recipes: make them values that the commands can show.", numbers)


def test_modules_are_named_by_nouns_of_the_field():
    parts = {*(p for file in modules().values() for p in file.relative_to(ROOT).with_suffix("").parts)}
    odd = sorted(part for part in parts if FORBIDDEN_WORDS & set(part.split("_")))
    faults("Name these by what is in them, with a noun of the field:", odd)


def test_tests_lie_like_the_package():
    rooms = {p.name for p in entries(ROOT / "hf_ltsam")} | set(PACKAGES) | {"pages"}
    strange = [p.name for p in entries(ROOT / "tests") if p.is_dir() and p.name not in rooms]
    faults("Folders of tests without a folder of the package:", strange)


def test_the_root_holds_what_is_meant_and_no_outputs_of_runs():
    """Among the files that are committed; a checkpoint of a test once was."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    folders = {
        ".ci",
        ".github",
        *PACKAGES,
        *["training_scripts", "model_cards", "tests", "benchmarks", "docs", "skills"],
    }
    files = {".gitignore", "pyproject.toml", "Makefile", "LICENSE", "CITATION.cff", "known_good_versions.txt"}
    pages = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RESULTS.md"}
    assert {line.partition("/")[0] for line in listed.stdout.splitlines()} <= folders | files | pages
