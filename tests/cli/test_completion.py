"""`ltsam completion`, by the shell itself, and the name by which `hf` finds the command."""

import shutil
import subprocess
import tomllib

import pytest
from pages.checks import ROOT

from hf_ltsam.cli import main as cli
from hf_ltsam.cli.options.completion import SHELLS, script


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    file = tmp_path_factory.mktemp("completion") / "ltsam.bash"
    file.write_text(script("bash"))

    def completed(*words):
        line = " ".join(f"'{word}'" for word in ("ltsam", *words))
        code = (
            f"source {file}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _ltsam; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()

    return completed


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    "words, expected",
    [
        (("",), set(cli.COMMANDS)),
        (("pre",), {"predict"}),
        (("train", "--learning_r"), {"--learning_rate"}),
        (("train", "--held"), {"--held_out_per_class"}),
        (("train", "--method", "imb"), {"imbsam"}),
        (("train", "--loss", "logit"), {"logit_adjustment"}),
        (("train", "--config", "demo/digits_f"), None),
        (("methods", "imb"), {"imbsam"}),
        (("completion", ""), set(SHELLS)),
        (("push", "--priv"), {"--private"}),
        (("train", "--dataset", "my_fol"), set()),  # bash goes on with names of files
    ],
)
def test_bash_completes(bash, words, expected):
    completed = bash(*words)
    if expected is None:
        assert all(name.startswith(words[-1]) for name in completed)
    else:
        assert set(completed) == expected


def test_every_command_has_its_options():
    text = script("zsh")
    assert text.startswith("autoload") and all(f" {name}) words=" in text for name in cli.COMMANDS if name != "methods")


def test_hf_ltsam_is_this_command():
    """The convention of `hf extensions install OWNER/hf-ltsam`: a package with a script called as the repository is."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["hf-ltsam"] == scripts["ltsam"]
