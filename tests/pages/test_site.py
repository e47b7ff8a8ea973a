"""The site is built without a warning, and docstrings are shown as they are written."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from forked import PYTHON
from pages.checks import ROOT
from time_limits import PATIENCE

from hf_ltsam import METHODS

sys.path.append(str(ROOT / "docs"))
from docstring_markup import as_restructured_text

NEEDED = ("sphinx", "myst_parser", "furo")

DOCSTRING = """A thing: T = |w| + eta, rho_c* and x_.

It takes `plain="reuse"`:

    call(*arguments)
        deeper_

Args:
    first,
        second: both.
    rho: of `rho*`, >= 0.

Cost: 2 forwards,
    3 backwards.
Source: Li et al. 2025 Eq. 5."""

MARKED = r"""A thing: T = \|w\| + eta, rho_c\* and x\_.

It takes ``plain="reuse"``:

::

    call(*arguments)
        deeper_

Args:
    first, second: both.
    rho: of ``rho*``, >= 0.

:Cost: 2 forwards,
    3 backwards.
:Source: Li et al. 2025 Eq. 5."""


def test_docstrings_are_plain_text_with_code():
    assert "\n".join(as_restructured_text(DOCSTRING.splitlines())) == MARKED


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site: LTSAM_SITE, where `.ci/run` has just built it with the same options, or built here."""
    if os.environ.get("LTSAM_SITE"):
        return Path(os.environ["LTSAM_SITE"])
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--keep-going", "--quiet"]
    words = [PYTHON, "-m", "sphinx", *options, ROOT / "docs", folder]
    built = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(site):
    for name, method in METHODS.items():
        page = (site / "generated" / "methods" / f"{name}.html").read_text()
        assert f'id="hf_ltsam.methods.{method.__name__}"' in page and f'--method<span class="w"> </span>{name}' in page
    reference = site / "generated" / "reference"
    assert 'id="hf_ltsam.LTSamTrainer"' in (reference / "hf_ltsam.html").read_text()
    assert 'id="hf_ltsam.losses.LDAM"' in (reference / "hf_ltsam.losses.html").read_text()
    settings = (site / "generated" / "settings.html").read_text()
    assert "ascent_scope" in settings
