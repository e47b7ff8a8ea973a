"""Tables as data: published numbers and where they stand, and files that hold none that can be read."""

import pytest
import yaml

from hf_ltsam.runs import recipe_tables
from hf_ltsam.runs.recipe_tables import Published, load_table
from hf_ltsam.runs.recipes import find_recipe

TABLE = {
    "title": "Rows",
    "source": "Somebody et al. 2020 Table 1",
    "measured": {"data": ["a"], "metric": "accuracy in %", "evaluation": "best epoch", "note": "on a flip"},
    "blocks": [
        {
            "title": "Data, model",
            "detail": "IR100",
            "parts": ["ce"],
            "rows": [
                {"one": {"label": "CE+SAM", "detail": "radius 1", "parts": ["sgd"], "published": {"overall": 50.7}}}
            ],
        }
    ],
}


@pytest.fixture
def written(tmp_path):
    def write(values):
        path = tmp_path / "table.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def with_row(**values):
    block = {**TABLE["blocks"][0], "rows": [{"one": {**TABLE["blocks"][0]["rows"][0]["one"], **values}}]}
    return {**TABLE, "blocks": [block]}


@pytest.mark.parametrize(
    "numbers, expected",
    [
        ({"overall": 50.7}, (50.7, None, None, None)),
        ({"overall": 50.7, "many": 63.9, "medium": 53.0, "few": 0.0}, (50.7, 63.9, 53.0, 0.0)),
        ({"overall": 81, "many": 90.5, "few": 71.5}, (81, 90.5, None, 71.5)),
    ],
)
def test_published_numbers(written, numbers, expected):
    row = load_table(written(with_row(published=numbers))).rows[0]
    assert tuple(row.published.accuracies.values()) == expected


def test_the_source_names_paper_row_place_and_measurement(written):
    row = load_table(written(TABLE)).rows[0]
    assert row.published.source == 'Somebody et al. 2020 Table 1, "CE+SAM", radius 1, IR100; best epoch; on a flip'
    assert (row.title, row.label, row.parts, row.table) == ("Data, model", "CE+SAM", ("ce", "sgd"), "table")


def test_what_a_block_and_a_table_say_holds_for_their_rows(written):
    rows = [{"one": {"parts": ["a"]}}, {"two": {"parts": ["b"], "unpublished": "at all", "assumed": {"depth": "ours"}}}]
    values = {**TABLE, "unpublished": "here", "assumed": {"training": "theirs"}, "blocks": [{"rows": rows}]}
    one, two = load_table(written(values)).rows
    assert (one.unpublished, one.assumed) == ("here", {"training": "theirs"})
    assert (two.unpublished, two.assumed) == ("at all", {"training": "theirs", "depth": "ours"})


@pytest.mark.parametrize("name", ["mine", "mine.yaml"])
def test_a_row_is_a_recipe_beside_the_table_with_and_without_its_ending(written, name):
    file = written({"title": "Mine", "source": "none", "rows": [name]})
    (file.parent / "mine.yaml").write_text("method: sam\n")
    (row,) = load_table(file).rows
    assert find_recipe(row.name) == file.parent / "mine.yaml"


def test_a_recipe_of_ours():
    row = find_recipe("second_stage/cifar100_lt_ir100_ce_sgd_then_crt")
    assert row.published == Published(43.39, source='Zhou et al. 2023b Table 2, "cRT"')


@pytest.mark.parametrize(
    "published, said",
    [
        (50.7, "should look like"),
        ("50.7 %", "should look like"),
        ({}, "should look like"),
        ({"few": 50.7}, "should look like"),
        ({"overall": 50.7, "tail": 3.0}, "should look like"),
        ({"overall": "50,7"}, "overall must be a number in percent, got '50,7'"),
        ({"overall": True}, "must be a number"),
        ({"overall": -3}, "-3 %, and an accuracy has 0 to 100"),
        ({"overall": 507}, "507 %"),
        ({"overall": 50.7, "many": 639}, "many is 639 %"),
    ],
)
def test_numbers_that_cannot_be_read_are_refused_with_file_and_row(written, published, said):
    with pytest.raises(ValueError, match=rf"table\.yaml.*row one.*{said}"):
        load_table(written(with_row(published=published)))


def test_a_block_with_a_key_that_none_has(written):
    with pytest.raises(ValueError, match=r"sets 'part', which no block has.*'parts'"):
        load_table(written({**TABLE, "blocks": [{"part": ["a"], "rows": ["one"]}]}))


def test_rows_beside_blocks_would_be_lost(written):
    with pytest.raises(ValueError, match=r"table\.yaml sets both 'rows' and 'blocks'"):
        load_table(written({**TABLE, "rows": ["cifar100_lt_ir100_la_sam"]}))


def test_a_name_that_is_defined_twice(tmp_path, monkeypatch):
    """Of two tables or two files of parts; the later one would silently take the place of the earlier one."""
    for folder, values in (("tables", TABLE), ("parts", {"one": {"depth": 8}})):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            (tmp_path / folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(recipe_tables, "RECIPES", tmp_path)
    monkeypatch.setattr(recipe_tables, "TABLES", tmp_path / "tables")
    monkeypatch.setattr(recipe_tables, "published_tables", recipe_tables.published_tables.__wrapped__)
    with pytest.raises(ValueError, match="the table a and the table b both define one"):
        recipe_tables.published_rows.__wrapped__()
    with pytest.raises(ValueError, match=r"a\.yaml and b\.yaml both define one"):
        recipe_tables.parts.__wrapped__()
