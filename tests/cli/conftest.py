"""What the tests of the scripts share."""

import datasets
import pytest
from cli.picture_folders import draw_images
from transformers.utils import logging


@pytest.fixture(autouse=True, scope="module")
def the_screen_as_it_was():
    """The demo silences libraries for its whole process; later tests shall hear them again."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    yield
    logging.set_verbosity(verbosity)
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
    datasets.enable_progress_bars()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """`datasets` keeps nothing of the tests."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf_cache"))


@pytest.fixture
def images(tmp_path):
    """A folder of small images with a tail: 12, 6 and 3 to train on, 4 of each class to test on."""
    draw_images(tmp_path / "images" / "train", (12, 6, 3), 12)
    draw_images(tmp_path / "images" / "test", (4, 4, 4), 12, seed=1)
    return tmp_path / "images"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Those of `images`, drawn once for all tests of a module."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_images(folder / "train", (12, 6, 3), 12)
    draw_images(folder / "test", (4, 4, 4), 12, seed=1)
    return folder
