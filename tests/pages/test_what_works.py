"""The page about what works with what says what the tests' parameters say."""

import pytest
from pages.what_works import COLUMNS, EQUATIONS, OF_MODES, PAGE, cases_of, methods_in, page
from training.modes import DRAWN, MODES

from hf_ltsam.methods import METHODS

OF_ALL = [column for column in COLUMNS if column not in ("resume", "killed", "start, stop")]


def test_the_page_is_that_of_the_tests():
    """Otherwise: PYTHONPATH=.:tests python tests/pages/what_works.py."""
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("column", OF_ALL)
def test_every_method_stands_in_every_test_of_all_methods(column):
    test, counts, _ = COLUMNS[column]
    assert methods_in(test, counts) == set(METHODS)


def test_a_case_that_is_not_there_has_no_mark():
    """Or a column could say yes to everything."""
    assert "sam" not in methods_in(COLUMNS["killed"][0], bool)
    assert methods_in(COLUMNS["two processes"][0], lambda case: case[0] == "nowhere") == set()


@pytest.mark.parametrize("column", OF_MODES)
def test_every_mode_stands_in_every_test_of_all_modes(column):
    assert set(EQUATIONS) == set(MODES)
    left_out = DRAWN if column == "accumulation" else set()
    assert set(cases_of(OF_MODES[column][0])) == set(MODES) - left_out
