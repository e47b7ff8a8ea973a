"""Every code block of the pages and of README.md: run in a folder of tiny data, or, where it says why not, checked.

Commands run in this process. Two things differ from what a reader types: `num_train_epochs` is 1, and data and models are
tiny ones, under the names that the pages use.
"""

import importlib
import pkgutil
import re
import shutil
import sys
from dataclasses import dataclass

import datasets
import pytest
import yaml
from pages.blocks import blocks_of, commands_of, starts_with
from pages.checks import ROOT, check_command, check_python
from pages.surroundings import draw_all, given_names, train_runs
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

import dataset_builders
import hf_ltsam
from hf_ltsam import METHODS, load_run
from hf_ltsam.cli import main as cli
from hf_ltsam.cli.train.defaults import STARTS
from hf_ltsam.methods import SAM

sys.path.append(str(ROOT / "docs"))
from generated_pages import INDEX, LLMS, MODULES, README, TABLE_END, TABLE_START, generated_pages, llms, with_methods

SKILLS = sorted((ROOT / "skills").glob("*/SKILL.md"))
WRITTEN = {path.name: path.read_text() for path in (*sorted((ROOT / "docs").glob("*.md")), *SKILLS)}
MADE = generated_pages()
GENERATED = {
    name: text for name, text in MADE.items() if any(block.is_python or block.is_commands for block in blocks_of(text))
}
SLOW = (
    "SKILL.md",
    "class_weights.md",
    "clip.md",
    "curvature.md",
    "many_gpus.md",
    "own_images.md",
    "report.md",
    "second_stages.md",
)
README_TEXT = README.read_text()


@pytest.fixture(scope="session")
def surroundings(tmp_path_factory):
    root = tmp_path_factory.mktemp("surroundings")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(root / "hf_cache"))
        draw_all(root)
        train_runs(root)
    return root


@pytest.fixture
def here(surroundings, tmp_path, monkeypatch):
    """The folder a page's reader is in; `runs` only has what the page says it starts with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf_cache"))
    for start in STARTS.values():
        monkeypatch.setitem(start, "num_train_epochs", 1)
    for name in ("path", "microsoft", "openai", "distilbert"):
        shutil.copytree(surroundings / name, tmp_path / name)
    return tmp_path


def shortened(code):
    return re.sub(r"(num_train_epochs[ =])\d+", r"\g<1>1", code)


def run_page(name, text, monkeypatch, names):
    """All blocks in order; those of Python share their names."""
    for block in blocks_of(text):
        try:
            if block.reason or not (block.is_python or block.is_commands):
                check_block(block, monkeypatch)
            elif block.is_python:
                padding = "\n" * (block.line - 1)  # so that a traceback has the page's line
                exec(compile(padding + shortened(block.code), name, "exec"), names)
            else:
                for words in commands_of(shortened(block.code)):
                    assert words[0] == "ltsam", f"{words[0]} is not run here: say so above the block"
                    cli.main(words[1:])
        except (Exception, SystemExit) as error:
            pytest.fail(f"{name}, line {block.line}: {type(error).__name__}: {error}")


def check_block(block, monkeypatch):
    if block.is_python:
        check_python(block.code)
    elif block.is_commands:
        for words in commands_of(block.code):
            check_command(words, monkeypatch)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in WRITTEN])
def test_a_written_page(name, here, surroundings, monkeypatch):
    if starts_with(WRITTEN[name]):
        shutil.copytree(surroundings / "runs", here / "runs")
    run_page(name, WRITTEN[name], monkeypatch, {})


def test_the_script_of_the_quick_start_takes_a_model_of_timm(here):
    """Whose image processor has its mean and deviation elsewhere."""
    place = here / "microsoft/resnet-18"
    shutil.rmtree(place)
    form = {"input_size": [3, 24, 24], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.4, 0.3], "num_classes": 5}
    config = TimmWrapperConfig(architecture="resnet10t", num_labels=5, pretrained_cfg=form, label_names=[*"abcde"])
    TimmWrapperForImageClassification(config).save_pretrained(place)
    (block,) = (block for block in blocks_of(WRITTEN["quick_start.md"]) if block.is_python)
    names = {}
    exec(shortened(block.code), names)
    assert tuple(names["seen"].mean) == (0.1, 0.2, 0.3) and names["trainer"].state.global_step > 0
    assert load_run("run").config.id2label == {0: "cat", 1: "dog", 2: "owl"}, "not the classes of before"


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page(name, here, monkeypatch):
    run_page(name, GENERATED[name], monkeypatch, given_names() if name == "losses.md" else {})


def test_every_method_has_a_page_with_its_name_and_settings():
    for name, method in METHODS.items():
        text = MADE[f"methods/{name}.md"]
        assert text.startswith(f"# {name}\n") and method.__name__ in text
        for word in ("tail_threshold=20", "--tail_threshold 20"):
            assert (word in text) == method.needs_split
        assert f"({name}.md)" in MADE["methods/index.md"]


def test_a_new_method_needs_no_page_by_hand(monkeypatch):
    @dataclass(frozen=True)
    class Mine(SAM):
        """My SAM: g = G(1, strength unit(G(1))).

        Cost: 2 forwards, 2 backwards.
        Source: Foret et al. 2021, Eq. 3.
        """

        strength: float = 0.25

    monkeypatch.setitem(METHODS, "mine", Mine)
    pages = generated_pages()
    assert re.search(r"^\| 2F 2B \| `sam`, .*`mine` \|$", with_methods(README_TEXT), re.MULTILINE)
    assert "hf_ltsam.methods.Mine" in pages["methods/mine.md"] and '"strength": 0.25' in pages["methods/mine.md"]
    assert (
        "| My SAM | [`mine`](mine.md) | G(1, strength unit(G(1))) | 2F 2B | Foret et al. 2021 |"
        in pages["methods/index.md"]
    )


def test_the_methods_of_the_readme_are_those_of_the_classes():
    """Otherwise: python docs/generated_pages.py."""
    assert with_methods(README_TEXT) == README_TEXT
    table = README_TEXT.partition(TABLE_START)[2].partition(TABLE_END)[0]
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(METHODS)
    assert re.search(r"^\| 1F 1B \| `sgd`, .*`msam`", table, re.MULTILINE)
    assert re.search(r"^\| 2F 3B \| `imbsam`, `focal_sam` \|$", table, re.MULTILINE)


def test_llms_txt_has_every_page_of_the_index():
    """Otherwise: python docs/generated_pages.py."""
    text = LLMS.read_text()
    assert text == llms(INDEX.read_text())
    pages = re.findall(r"^- \[.+\]\((.+)\): to \w+", text, re.MULTILINE)
    assert len(pages) > 15 and all((ROOT / "docs" / page).is_file() for page in pages)
    assert set(re.findall(r"^(\w+)$", INDEX.read_text(), re.MULTILINE)) - {"what_works", "decisions"} <= {
        p.removesuffix(".md") for p in pages
    }


@pytest.mark.parametrize("path", SKILLS, ids=lambda path: path.parent.name)
def test_a_skill_has_the_head_that_agents_read(path):
    """The limits of agentskills.io."""
    head = yaml.safe_load(path.read_text().split("---\n")[1])
    assert set(head) == {"name", "description"} and head["name"] == path.parent.name
    assert re.fullmatch(r"[a-z0-9-]{1,64}", head["name"]) and len(head["description"]) <= 1024


def test_a_readme_without_a_place_for_the_table_is_refused():
    with pytest.raises(ValueError, match=r"README\.md needs the lines"):
        with_methods("# hf_ltsam\n")


def test_the_reference_has_every_package_with_public_names():
    """Those of methods have pages of their own."""
    packages = [
        module.name
        for package in (hf_ltsam, dataset_builders)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        if module.ispkg and hasattr(importlib.import_module(module.name), "__all__")
    ]
    assert len(packages) > 5 and set(packages) - {"hf_ltsam.methods"} <= set(MODULES)
    for name in MODULES:
        importlib.import_module(name)
        assert f"   {name}\n" in MADE["reference/index.md"]


def test_python_of_the_readme(here, surroundings, monkeypatch):
    shutil.copytree(surroundings / "runs/mine", here / "runs/lift")
    names = given_names()
    for block in blocks_of(README_TEXT):
        if block.is_python and not block.reason:
            exec(compile("\n" * (block.line - 1) + shortened(block.code), "README.md", "exec"), names)


@pytest.mark.parametrize("block", blocks_of(README_TEXT), ids=lambda block: f"line{block.line}")
def test_what_the_readme_names_is_there(block, monkeypatch):
    """Commands of README.md are those of the pages, where they are run."""
    check_block(block, monkeypatch)


PAGE = """Text
<!-- starts with: runs/mine, runs/other -->

```python
a = 1
```

<!-- not run: takes
hours -->
```bash
ltsam train --x \\
    'a b'        # a remark

ltsam data list
```
"""


def test_blocks_are_found_and_read():
    python, shell = blocks_of(PAGE)
    assert (python.line, python.is_python, python.is_commands, python.reason) == (5, True, False, None)
    assert (shell.is_commands, shell.reason) == (True, "takes hours")
    assert commands_of(shell.code) == [["ltsam", "train", "--x", "a b"], ["ltsam", "data", "list"]]
    assert starts_with(PAGE) == ["runs/mine", "runs/other"]
