"""No file from elsewhere may run code: what our own sources say about loading."""

import ast
from pathlib import Path

import pytest
from syntax import tree_of

ROOT = Path(__file__).parents[3]
SOURCES = [f for package in ("hf_ltsam", "dataset_builders") for f in sorted((ROOT / package).rglob("*.py"))]


def calls(tree):
    return [
        (ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_nothing_is_unpickled_and_no_remote_code_is_trusted(file):
    for function, keywords in calls(tree_of(file.read_text())):
        assert function != "torch.load" or keywords.get("weights_only") == "True", (
            f"{file}: torch.load without weights_only=True"
        )
        assert "trust_remote_code" not in keywords, file
        assert function not in ("pickle.load", "pickle.loads", "joblib.load", "yaml.unsafe_load", "eval", "exec"), (
            f"{file}: {function}"
        )


def test_the_scan_sees_what_it_should():
    assert len(SOURCES) > 150
    assert calls(tree_of("torch.load(f, weights_only=True)")) == [("torch.load", {"weights_only": "True"})]
