"""LTSAM_PLUGINS: a method in a file of the user's own, on the command line and in the commands that this starts."""

import sys

import pytest

from hf_ltsam.cli.main import main
from hf_ltsam.cli.options.plugins import PLUGINS, load_plugins
from hf_ltsam.cli.user_errors import user_errors
from hf_ltsam.methods import METHODS

METHOD = '''
from dataclasses import dataclass
from typing import ClassVar

from hf_ltsam.methods import METHODS, Method


@dataclass(frozen=True)
class Half(Method):
    """Half of the gradient: g = G(1) / 2.

    Args:
        share: of the gradient.

    Cost: 1 forward, 1 backward.
    """

    title: ClassVar = "Half"
    share: float = 0.5

    def gradient(self, loss, step):
        return self.share * loss.gradient()


METHODS["half"] = Half
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    file = tmp_path / "my_half.py"
    file.write_text(METHOD)
    monkeypatch.setenv(PLUGINS, str(file))
    yield file
    METHODS.pop("half", None)
    sys.modules.pop("my_half", None)


def test_the_method_is_one_of_the_command_line(plugin, capsys):
    main(["methods", "half"])
    shown = capsys.readouterr().out
    assert shown.startswith("half = my_half.Half(share=0.5") and "g = G(1) / 2" in shown
    load_plugins()  # once more in the same process
    assert METHODS["half"] is sys.modules["my_half"].Half


def test_every_script_loads_them(plugin):
    with user_errors():
        assert "half" in METHODS


def test_modules_are_named_as_python_finds_them(plugin, monkeypatch):
    monkeypatch.syspath_prepend(str(plugin.parent))
    monkeypatch.setenv(PLUGINS, " my_half , ")
    load_plugins()
    assert "half" in METHODS


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [
        ("nowhere.py", None, "nowhere.py"),
        ("no_such_module", None, "No module named 'no_such_module'"),
        ("broken.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("json.py", "", "a module json is there already; give the file another name"),
        ("optuna.py", "", "a module optuna is there already; give the file another name"),  # not imported yet
    ],
)
def test_what_cannot_be_imported_is_named(place, text, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PLUGINS, place)
    if text is not None:
        (tmp_path / place).write_text(text)
    with pytest.raises(SystemExit):
        main(["methods"])
    shown = capsys.readouterr().err
    assert f"error: {PLUGINS} names '{place}', which cannot be imported: " in shown and said in shown
    assert "paths of .py files, parted by commas." in shown
    if "already" not in said:
        assert place.removesuffix(".py") not in sys.modules
