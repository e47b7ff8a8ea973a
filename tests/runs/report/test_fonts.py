"""Names of classes in other scripts: drawn by an installed font that has their letters, or warned of."""

import warnings
from types import SimpleNamespace

import matplotlib
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from hf_ltsam.runs.report import style
from hf_ltsam.runs.report.style import fonts_of_all_scripts

NOWHERE = "\U00013000\U00013001"  # hieroglyphs, which no font of matplotlib's has
IN_STIX = "\u29f5"  # a letter of STIXGeneral that DejaVu Sans lacks


@pytest.fixture(autouse=True)
def nothing_told_yet():
    style._warn_once.cache_clear()


def written(text, path):
    """The PNG of a text, and what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with fonts_of_all_scripts():
            figure = Figure(figsize=(1, 1))
            figure.text(0.5, 0.5, text)
            figure.savefig(path)
    return path.read_bytes(), [str(w.message) for w in caught]


def test_letters_that_no_font_has_are_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "_FONTS", ())
    said = written(NOWHERE, tmp_path / "a.png")[1]
    assert len(said) == 1 and said[0].startswith(f"No installed font has the letters {NOWHERE}: boxes stand for them")
    assert written(NOWHERE, tmp_path / "b.png")[1] == []
    assert written("owl", tmp_path / "c.png")[1] == []


def test_many_letters_are_shortened(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "_FONTS", ())
    hieroglyphs = "".join(chr(0x13000 + k) for k in range(9))
    assert f"the letters {hieroglyphs[:5]}...: boxes" in written(hieroglyphs, tmp_path / "a.png")[1][0]


def test_other_names_are_drawn_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "_FONTS", ())
    before = written("owl", tmp_path / "a.png")[0]
    monkeypatch.setattr(style, "_FONTS", ("STIXGeneral",))
    assert written("owl", tmp_path / "b.png")[0] == before


def test_another_installed_font_draws_them(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "_FONTS", ())
    boxes, said = written(IN_STIX, tmp_path / "a.png")
    assert len(said) == 1
    monkeypatch.setattr(style, "_FONTS", ("Not Installed", "STIXGeneral"))
    letters, said = written(IN_STIX, tmp_path / "b.png")
    assert said == [] and letters != boxes


def test_fonts_follow_matplotlibs_own_as_far_as_they_are_installed(monkeypatch):
    before = list(matplotlib.rcParams["font.family"])
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [SimpleNamespace(name="Noto Sans CJK SC")])
    with fonts_of_all_scripts():
        assert matplotlib.rcParams["font.family"] == [*before, "Noto Sans CJK SC"]
    assert matplotlib.rcParams["font.family"] == before


def test_other_warnings_are_passed_on():
    with pytest.warns(UserWarning, match="something else"), fonts_of_all_scripts():
        warnings.warn("something else", stacklevel=1)
