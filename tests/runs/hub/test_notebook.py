"""docs/own_folder.ipynb, from a folder to a pushed model: its cells, in this process, on tiny data."""

import json
import re

import pytest
from pages.checks import ROOT
from pages.surroundings import draw_all

NOTEBOOK = ROOT / "docs/own_folder.ipynb"
OURS = {"EPOCHS = 20": "EPOCHS = 1", "OWNER/NAME": "me/owls", "image_transform(224": "image_transform(24"}


def cells():
    """Source of the code cells, without those that install."""
    code = ["".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    return [source for source in code if not source.startswith("%pip")]


@pytest.mark.slow  # two trainings, a report, a push
def test_from_a_folder_to_a_pushed_model(hub, tmp_path, monkeypatch, capsys):
    draw_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    names = {"__name__": "__main__"}
    for number, source in enumerate(cells()):
        for theirs, mine in OURS.items():
            source = source.replace(theirs, mine)
        exec(compile(source, f"cell {number}", "exec"), names)
    out = capsys.readouterr().out
    assert re.search(r"^\w+ +12 training images$", out, re.MULTILINE) and f"{hub.endpoint}/me/owls/commit/" in out
    assert hub.repo("me/owls").private
    assert {"README.md", "model.safetensors", "metrics.json", "recipe.yaml"} <= set(hub.files("me/owls"))
    assert (tmp_path / "runs/compared").is_dir() and "la_sam {'accuracy'" in out


def test_the_notebook_is_kept_without_results():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["language"]) == (4, "python")
    for cell in notebook["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None and set(cell) >= {"id", "metadata"}
    assert all(source in "\n".join(cells()) for source in OURS), "the test shortens what is no more there"
