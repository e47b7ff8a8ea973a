"""Names show as they are in every format, and forge nothing."""

import io
import json
import warnings
from itertools import combinations
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from runs.hub.digits_run import EVALUATION, metrics, write
from runs.report.html_page import Page
from runs.report.made_runs import complete_run, history, shifted, write_run
from runs.report.made_runs import metrics as reported
from runs.report.made_runs import sharpness as curvature

from hf_ltsam.runs.card import Stated, card_files, model_card, read_facts
from hf_ltsam.runs.class_frequencies import curve_png
from hf_ltsam.runs.escaping import (
    figure_text,
    figure_texts,
    file_name,
    markdown_block,
    markdown_code,
    markdown_text,
    terminal,
    visible,
)
from hf_ltsam.runs.folder import RunFolder
from hf_ltsam.runs.predictions import Predictions
from hf_ltsam.runs.report.reading import read_run
from hf_ltsam.runs.report.report import write_report
from hf_ltsam.runs.sharpness.figures import save_figures
from hf_ltsam.runs.shift.report import write_report as write_shift

FORGED = "Forged"
HOSTILE = {
    "section": f"owl\n\n## {FORGED}\n\nAccuracy 99.9",
    "cell": f"owl | 99.9 |\n|---|\n| {FORGED}",
    "formula": r"$\undefined{$",
    "price": "$5 and $6",
    "one dollar": "US$",
    "backslash": "a\\$b\\",
    "html": f"<script>{FORGED}()</script><h2>{FORGED}</h2>",
    "image": f"![x](https://evil.example/{FORGED}.png) [y](javascript:{FORGED})",
    "reference": f"[{FORGED}]: https://evil.example",
    "code": f"```\n## {FORGED}\n```` `x` ``",
    "emphasis": "*a* _b_ __c__ ~~d~~ tiger_shark",
    "entity": "&lt;b&gt; &#60; AT&T",
    "heading": f"# {FORGED}",
    "list": f"- {FORGED}",
    "number": f"1. {FORGED}",
    "quotation": f"> {FORGED}",
    "rule": "---",
    "table": "| a | b |",
    "yaml": f"x: [1, 2\n---\n{FORGED}: true\n...",
    "anchor": "*x &y !!python/object:os.system {{ 7 * 7 }} {% raw %}",
    "controls": "a\x00b\x07c\x1b[2J\x1b]0;x\x07d\x7fe\x9bf\rg\x85h",
    "directions": "abc\u202etxt.exe\u2066x\u2069",
    "separators": "a\u2028## x\u2029b",
    "surrogate": "a\ud800b",
    "markup": "[bold red]x[/] [/] [link=file:///etc] \\[x] [@click=x]y[/]",
    "path": "../../etc/passwd\\..\\x:y*?\"<>|",
    "hidden": "_hidden",
    "quotes": "a\"b'c`d",
    "long": "x" * 5000,
    "empty": "",
    "spaces": "  a  ",
    "words": "小猫 éà 🦉",
}  # fmt: skip
NAMES = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def shown(text):
    """The text that a Markdown reader sees, where nothing in it is more than text."""
    tokens = MARKDOWN.parse(text)
    inline = [child for token in tokens for child in token.children or []]
    assert {token.type for token in inline} <= {"text", "text_special"}, text
    return "".join(token.content for token in inline), [token.type for token in tokens if token.type != "inline"]


@NAMES
def test_markdown(name):
    plain = visible(name).strip()
    for frame, kinds in (
        ("{}", ["paragraph_open", "paragraph_close"]),
        ("# {}", ["heading_open", "heading_close"]),
        ("is {}.", None),
    ):
        content, blocks = shown(frame.format(markdown_text(name.strip())))
        assert content.strip() == frame.removeprefix("# ").format(plain).strip()
        assert kinds is None or blocks in (kinds, []), blocks
    content, blocks = shown(f"| a | b |\n|---|---|\n| {markdown_text(name)} | 1 |")
    assert content == f"ab{plain}1" and blocks.count("td_open") == 2 and "html_block" not in blocks


@NAMES
def test_code_in_markdown(name):
    for text in (f"is {markdown_code(name)}.", f"| a |\n|---|\n| {markdown_code(name, cell=True)} |"):
        codes = [c for token in MARKDOWN.parse(text) for c in token.children or [] if c.type == "code_inline"]
        assert [c.content for c in codes] == ([visible(name)] if name else [])
    (block,) = MARKDOWN.parse(markdown_block(name, "python"))
    assert block.type == "fence" and block.content == visible(name, lines=True) + "\n"


@NAMES
def test_figures(name):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], label=figure_text(name))
    axes.set_title(figure_text(name))
    axes.set_xticks([0], [figure_text(name)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Glyph")
        warnings.filterwarnings("error", message=".*starts with '_'")
        entries = [text.get_text() for text in axes.legend().get_texts()]
        assert len(entries) == (1 if name else len(entries)) and len(figure_text(name)) < 100
        content = io.BytesIO()
        figure.savefig(content, format="svg")
    ET.fromstring(content.getvalue())


@NAMES
def test_terminals(name):
    screen = Console(file=io.StringIO(), force_terminal=True, width=10_000)
    screen.print(terminal(name), soft_wrap=True, highlight=False)
    table = Table("a")
    table.add_row(terminal(name))
    assert screen.file.getvalue() == visible(name) + "\n"
    screen.print(table)
    assert "\x1b]" not in screen.file.getvalue() and "\x1b[2J" not in screen.file.getvalue()


@NAMES
def test_files_and_yaml(name, tmp_path):
    part = file_name(name)
    assert len(part) <= 110 and (tmp_path / f"x_{part}.png").resolve().parent == tmp_path
    (tmp_path / f"x_{part}.png").write_text("")
    RunFolder(tmp_path).write_recipe({"seed": 3}, (f"ltsam train {name}",))
    assert RunFolder(tmp_path).recipe.settings == {"seed": 3}
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text()) == {"seed": 3}


def test_names_of_files_differ():
    names = [*HOSTILE.values(), "a/b:c", "a/b;c", "x" * 4999, "小", "猫", "images_c"]
    assert all(file_name(a) != file_name(b) for a, b in combinations(names, 2))
    assert file_name("images_c") == "images_c" and file_name("2d towards") == "2d_towards"


def forged(text):
    """Headings and the like that a name has made."""
    tokens = MARKDOWN.parse(text)
    headings = [tokens[k + 1].content for k, token in enumerate(tokens) if token.type == "heading_open"]
    kinds = {child.type for token in tokens for child in token.children or []} | {token.type for token in tokens}
    images = [c.attrs["src"] for token in tokens for c in token.children or [] if c.type == "image"]
    hrefs = [c.attrs["href"] for token in tokens for c in token.children or [] if c.type == "link_open"]
    return (
        [h for h in headings[1:] if FORGED in h]
        + [src for src in images if src != "class_counts.png"]
        + [h for h in hrefs if not h.startswith("https://huggingface.co/")]
        + ([] if "html_inline" not in kinds else ["html"])
    )


@NAMES
def test_a_card(name, tmp_path):
    values = metrics()
    values |= {"hardware": name, "command": f"ltsam train --model {name}", "versions": {"torch": name}}
    values["data"] = {
        "dataset": name,
        "imbalance_ratio": 10,
        "profile": name,
        "split_seed": 0,
        "training_labels_sha256": name,
    }
    values["model"] = {"model": name}
    values["method"] = {"name": name, "args": {"x": name}}
    values["loss"] = {"name": name, "args": {}}
    values["second_stage"] = {
        "name": name,
        "args": {name: 1},
        "title": name,
        "source": name,
        "first_stage": {"folder": name},
    }
    folder = write(tmp_path / "run", values)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(c): f"{name}{c}" for c in range(10)}
    (folder / "config.json").write_text(json.dumps(config))
    evaluation = json.loads(json.dumps(EVALUATION))
    sets = evaluation["sets"]
    sets[f"plain {name}"], sets[name] = sets.pop("usps"), sets.pop("digits_c")
    sets[name]["summary"]["errors"] = {f"{name} a": 0.5, name: 0.25}
    sets[name]["summary"]["relative_to"] = name
    stated = Stated(license=name or None, tags=(name,), datasets=(name,), base_model=name or None)
    card = model_card(read_facts(folder, evaluation), f"me/{name}", stated, name)
    text = str(card)
    header = text.split("\n---\n")[0].removeprefix("---\n")
    assert yaml.safe_load(header)["library_name"] == "hf_ltsam" and FORGED not in yaml.safe_load(header)
    assert (
        forged(
            text.split("\n---\n", 1)[1]
            .replace("<details><summary>", "")
            .replace("</summary>", "")
            .replace("</details>", "")
        )
        == []
    )
    assert text.count("\n## Results\n") == 1 and not set(text) & set("\x00\x07\x1b\x7f\x9b\r\x85\u2028\u202e\ud800")
    card_files(read_facts(folder), "me/x")


def test_a_report(tmp_path):
    """Each part of a run has another hostile name; one report, since figures take long to draw."""
    classes = [HOSTILE[k] for k in ("section", "formula", "controls", "html", "surrogate")]
    method, loss, plain, corrupted, part, key = (
        HOSTILE[k] for k in ("hidden", "one dollar", "cell", "price", "path", "formula")
    )
    labels, right = np.arange(50) % 5, np.arange(50) % 3 > 0
    results = shifted({HOSTILE["backslash"]: {1: 0.2, 3: 0.4}, HOSTILE["quotes"]: {1: 0.1, 3: 0.5}})
    results["sets"] = {plain: results["sets"]["sketch"], corrupted: results["sets"]["images_c"]}
    results["sets"][corrupted]["summary"] |= {"mce": 9.0, "relative_to": HOSTILE["html"]}
    values = {**curvature(), "class_names": classes, "loss": {"name": HOSTILE["formula"]}}
    values["surface"][part] = values["surface"].pop("2d")
    runs = []
    for seed, hardware in enumerate((HOSTILE["html"], HOSTILE["separators"])):
        folder = tmp_path / f"run{seed}[bold]$"
        complete_run(
            folder,
            seed,
            [0.9, 0.8, 0.7, 0.4, 0.2],
            right,
            labels,
            method=method,
            loss=loss,
            hardware=hardware,
            command=hardware,
        )
        record = json.loads((folder / "metrics.json").read_text()) | {
            "model": {"head": HOSTILE["formula"] + str(seed), key: classes[seed]}
        }
        predictions = json.loads((folder / "predictions.json").read_text()) | {"class_names": classes}
        state = history([0.2, 0.5], {f"sam_{key}": [1.0, 2.0]})
        write_run(folder, record, sharpness=values, ood_results=results, predictions=predictions, trainer_state=state)
        RunFolder(folder).write_recipe({"run_name": HOSTILE["html"], key: HOSTILE["yaml"]}, (hardware,))
        runs.append(read_run(folder))
        assert runs[-1].damaged == ()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Glyph")
        text = write_report(runs, tmp_path / "report").read_text()
        assert len(save_figures(folder / "sharpness" / "sharpness.json")) == 4
    page = Page(text)
    assert page.badly_nested == [] and not page.all("script") and not page.all("img")
    assert not [h for h in page.all("h1") + page.all("h2") if FORGED in h["text"]]
    assert not set(text) & set("\x00\x07\x1b\x7f\x9b\r\x85\u2028\u202e\ud800")
    for svg in (tmp_path / "report").glob("*.svg"):
        ET.fromstring(svg.read_text())


@pytest.mark.parametrize(
    "name", [HOSTILE[k] for k in ("section", "cell", "formula", "html", "controls", "surrogate", "path", "hidden")]
)
def test_a_page_of_an_evaluation(name, tmp_path):
    identity = {"identity": {"test_time": "none"}, "note": name, "balanced": 0.5}
    results = shifted({name: {1: 0.2, 3: 0.4}})
    results["checkpoint"] = {"name": name, "fingerprint": "0" * 64, "num_classes": 3}
    plain, corrupted = results["sets"].values()
    plain["result"] |= identity
    for row in corrupted["cells"].values():
        for cell in row.values():
            cell |= identity
    corrupted["summary"] |= {"ce": {name: 90.0}, "mce": 90.0, "relative_to": name}
    results["sets"] = {f"a{name}": plain, name: corrupted}
    page, *maps = write_shift(tmp_path, results) if len(name) < 100 else [tmp_path / "none"]
    if maps:
        text = page.read_text()
        titles = [t for t in text.splitlines() if t.startswith("#")]
        assert len(titles) == 2 and not [f for f in forged(text) if FORGED not in titles[1]]


@pytest.mark.parametrize("name", [n for n in HOSTILE.values() if "\ud800" not in n])
def test_predictions_and_records(name, tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_predictions(Predictions((name, "b"), np.zeros(3, int), np.zeros(3, int), np.ones(3)))
    assert folder.predictions.class_names == (name, "b")
    record = RunFolder(
        write_run(tmp_path / "x", reported([0.9, 0.8, 0.7, 0.4, 0.2], command=name, hardware=name))
    ).record
    assert (record.command, record.hardware) == (name, name)


@pytest.mark.parametrize("name", [HOSTILE[k] for k in ("formula", "controls", "long")])
def test_the_curve_of_classes(name):
    from hf_ltsam import ClassStatistics

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Glyph")
        assert curve_png(ClassStatistics((5, 2)), name).startswith(b"\x89PNG")


LONG = "VS + Focal-SAM, deferred, many above 1000, few below 200, "
TOGETHER = {
    "short": (["VS", "LA"], ["VS", "LA"]),
    "the same": ([LONG * 2] * 2, None),
    "in the middle": (
        [f"{LONG}of cifar{n}, of ratio 100 at lam 0.8 of the code" for n in (10, 100)],
        ["cifar10,", "cifar100,"],
    ),
    "at the cut": ([f"{LONG[:39]}{x}{LONG[:39]}" for x in "ab"], None),
    "in two places": ([f"{LONG}cifar{n}, {LONG}seed {s}, {LONG}" for n in (10, 100) for s in (1, 2)], None),
    "with $ and _": (
        [f"_$ {LONG}of $cifar{n}$, of ratio 100 at lam 0.8 of the code" for n in (10, 100)],
        [r"\$cifar10\$", r"\$cifar100\$"],
    ),
}


@pytest.mark.parametrize(("names", "pieces"), TOGETHER.values(), ids=TOGETHER)
def test_names_that_stand_together_are_told_apart(names, pieces):
    shown = figure_texts(names)
    assert len(set(shown)) == len(set(names)) and max(map(len, shown)) <= 70
    for text, piece in zip(shown, pieces or [""] * len(shown)):
        assert piece in text
    assert figure_texts([names[0], "CE"]) == [figure_text(names[0]), "CE"]  # cut as it always was
