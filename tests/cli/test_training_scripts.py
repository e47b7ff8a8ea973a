"""The scripts for `accelerate launch` and `hf jobs uv run`: their headers are true, and each is a command of `ltsam`."""

import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import SpaceHardware

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "train": "train",
    "decouple": "decouple",
    "evaluate_ood": "evaluate",
    "analyze_sharpness": "sharpness",
    "reproduce": "reproduce",
    "demo": "demo",
}
SCRIPTS = sorted((ROOT / "training_scripts").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def header(script):
    """The TOML between `# /// script` and `# ///` (PEP 723)."""
    lines = re.search(r"^# /// script\n((?:#(?: .*)?\n)+)# ///$", script.read_text(), re.MULTILINE)[1]
    return tomllib.loads("".join(line[2:] or "\n" for line in lines.splitlines(keepends=True)))


def test_all_scripts_are_known():
    assert {script.stem for script in SCRIPTS} == set(COMMANDS)
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["hf_ltsam", "dataset_builders"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_header_asks_for_what_the_package_asks_for(script):
    values = header(script)
    assert values["requires-python"] == PROJECT["project"]["requires-python"]
    assert values["dependencies"] == [PROJECT["project"]["name"]]
    assert len(script.read_text().splitlines()) < 30, "a script holds nothing but the call"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_table_of_a_job_is_one_that_the_hub_takes(script):
    job = header(script)["tool"]["hf-jobs"]
    assert set(job) <= {"image", "flavor", "python", "timeout", "env", "secrets"}
    assert job["flavor"] in {hardware.value for hardware in SpaceHardware} and re.fullmatch(r"\d+[mhd]", job["timeout"])
    assert job["secrets"] == ["HF_TOKEN"] and f"Python :: {job['python'][0]}" in str(PROJECT["project"]["classifiers"])
    read = pytest.importorskip("huggingface_hub.cli._uv_script_header", reason="an older huggingface_hub")
    parsed = read.parse_uv_script_header(script.read_text())
    assert (parsed.flavor, parsed.timeout, parsed.secrets) == (job["flavor"], job["timeout"], ["HF_TOKEN"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_each_script_is_a_command(script, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.startswith(f"usage: ltsam {COMMANDS[script.stem]}")
