"""The published tables: their rows are recipes, which state the papers' numbers; every recipe is in one of them."""

import pytest
from cli.reproduce.published_tables import FIGURES, SWEEPS, TABLES, corruption_errors, shifted_accuracies

from hf_ltsam.cli.reproduce.tables import read_table
from hf_ltsam.runs.recipe_tables import table_names
from hf_ltsam.runs.recipes import find_recipe, read_recipe, recipe_names

OURS = {
    "large_second_stages",
    "cifar100_lt_other_methods",
    "cifar_lt_other_second_stages",
    "places_lt",
    "demo",
    "weight_balancing",
    "news",
    "plankton",
}
SHIFTED = ("li2025_table4", "li2025_table7")
AUTHORS = {
    "alshammari2022": "Alshammari et al. 2022",
    "li2025": "Li et al. 2025",
    "lyu2025": "Lyu et al. 2025",
    "rangwani2022": "Rangwani et al. 2022",
    "zhong2021": "Zhong et al. 2021",
    "zhou2023b": "Zhou et al. 2023b",
}
CODE = {"zhong2021_code": "Zhong et al. 2021, README of the code"}  # of which no paper here has the numbers


def rows_of(name):
    return [row.recipe for row in read_table(name).rows]


def target(recipe):
    return find_recipe(recipe).published


def test_there_is_a_file_for_every_table():
    known = {*TABLES, *OURS, *SWEEPS, *SHIFTED, *FIGURES}
    others = set(table_names()) - known
    assert known <= set(table_names()) and all(name.startswith("small_") for name in others)


@pytest.mark.parametrize("name", [*TABLES, *sorted(OURS)])
def test_a_table_has_a_source_and_recipes_of_ours_as_they_are(name):
    table = read_table(name)
    assert table.settings == {} and all(row.settings == {} for row in table.rows)
    for row in table.rows:
        assert row.parts == () and find_recipe(row.recipe).name == row.recipe
    if name in CODE:
        assert table.source == CODE[name]
    elif name in TABLES:
        paper, _, number = name.rpartition("_table")
        assert table.source.startswith(f"{AUTHORS[paper]} Table {number}")


@pytest.mark.parametrize("name", TABLES)
def test_rows_and_numbers_are_those_of_the_paper(name):
    stated = []
    for recipe in rows_of(name):
        found = target(recipe)
        assert found is not None and found.source.startswith(AUTHORS[name.partition("_")[0]]), recipe
        stated.append((recipe, found.overall, found.many, found.medium, found.few))
    assert stated == TABLES[name]


@pytest.mark.parametrize("name", sorted(OURS))
def test_no_source_has_the_rows_of_our_own_tables(name):
    assert [row for row in rows_of(name) if target(row) is not None] == []


def test_every_recipe_is_in_a_table_or_is_a_first_stage_of_one_that_is():
    in_a_table = {row for name in (*TABLES, *OURS) for row in rows_of(name)}
    first_stages = {
        read_recipe(find_recipe(row)).get("first_stage") for row in in_a_table if row.startswith("second_stage/")
    }
    assert set(recipe_names()) == in_a_table | first_stages - {None}


# A second, independent transcription of a few numbers
@pytest.mark.parametrize(
    "recipe, overall",
    [
        ("cifar100_lt_ir100_ldam_drw_focal_sam", 50.3),
        ("cifar100_lt_ir100_vs_imbsam", 47.2),
        ("cifar10_lt_ir100_vs_cc_sam", 82.3),
        ("cifar10_lt_ir100_ldam_drw_sam_rangwani2022", 81.9),
        ("cifar100_lt_ir100_vs_sam_rangwani2022", 46.6),
        ("cifar100_step_ir100_ce_drw_sgd", 45.8),
        ("cifar10_step_ir100_vs_sam", 82.0),
        ("cifar100_lt_ir100_vs_sse_sam", 53.5),
        ("imagenet_lt_la_imbsam", 52.6),
        ("inaturalist2018_la_sam", 71.0),
        ("cifar100_lt_ir100_ce_sam_300_epochs", 43.0),
        ("second_stage/cifar100_lt_ir100_ce_sgd_then_cc_sam", 48.20),
    ],
)
def test_a_few_targets(recipe, overall):
    assert target(recipe).overall == overall


# --- groups by rank --------------------------------------------------------------------------------------------------

SIZES = {  # Rangwani et al. 2022 App. C
    "cifar10": (3, 4, 3),
    "cifar100": (36, 35, 29),
    "imagenet_lt": (390, 445, 165),
    "inaturalist2018": (842, 3701, 3599),
}
OF_RANGWANI = sorted({row for name in TABLES if name.startswith("rangwani2022") for row in rows_of(name)})


def ranked_sizes(recipe):
    return read_recipe(find_recipe(recipe)).get("group_sizes")


def test_the_groups_of_rangwani2022_are_by_rank():
    ranked = {row for row in recipe_names() if ranked_sizes(row)}
    with_mixup = {"second_stage/imagenet_lt_ce_sgd_mixup", "second_stage/inaturalist2018_ce_sgd_mixup"}
    of_tables = {row for row in OF_RANGWANI if "_step_" not in row and not row.startswith("second_stage/")}
    assert ranked == of_tables | with_mixup and len(of_tables) == 58
    for row in ranked:
        data = next(data for data in sorted(SIZES, key=len, reverse=True) if row.rpartition("/")[2].startswith(data))
        assert tuple(ranked_sizes(row)) == SIZES[data], row


def test_overall_is_the_mean_of_the_groups_by_their_sizes():
    """So that a number in the wrong column, or sizes that are not the source's, would be seen. Test sets are balanced."""
    checked = 0
    for row in OF_RANGWANI:
        published, sizes = target(row), ranked_sizes(row)
        groups = (published.many, published.medium, published.few)
        if sizes and None not in groups:
            mean = sum(size * group for size, group in zip(sizes, groups)) / sum(sizes)
            assert abs(mean - published.overall) < 0.15, (row, mean)
            checked += 1
    assert checked == 54


# --- sweeps and other test sets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SWEEPS)
def test_the_points_of_a_figure_are_those_of_the_paper(name):
    """And the values that the points are at are swept; at the value of the recipe stands the row of a table."""
    table = read_table(name)
    paper, _, number = name.rpartition("_")
    place = f"Figure {number.removeprefix('fig')}" if number.startswith("fig") else "Table 2"
    assert table.source == f"{AUTHORS[paper]} {place}"
    assert {row.recipe for row in table.rows} == set(SWEEPS[name])
    for recipe, points in SWEEPS[name].items():
        stated = {point.at: point.accuracies for point in table.curves[recipe.rpartition("/")[2]]}
        expected = {
            at: {
                group: value for group, value in zip(("overall", "many", "medium", "few"), numbers) if value is not None
            }
            for at, numbers in points.items()
        }
        assert stated == expected
        values = [row.value[1] for row in table.rows if row.recipe == recipe]
        assert set(points) <= set(values) and values == sorted(values, reverse=name == "zhou2023b_fig1")


def test_a_swept_value_is_that_of_the_recipe_where_the_point_is_a_row_of_a_table():
    for name, point in (
        ("lyu2025_fig6", 0.1),
        ("lyu2025_fig7", 0.7),
        ("rangwani2022_fig4", 0.5),
        ("li2025_fig8", None),
    ):
        for row in read_table(name).rows:
            plain = read_recipe(find_recipe(row.recipe))
            at = point if point is not None else {"cifar10": 0.2, "cifar100": 0.3}[row.recipe.partition("_")[0]]
            assert (row.expanded == plain) == (row.value[1] == at), row.name


def test_published_numbers_on_other_test_sets():
    rows = read_table("li2025_table4").rows
    assert [
        (row.recipe, {name: of.accuracies for name, of in row.shifted.items()}) for row in rows
    ] == shifted_accuracies()
    errors = read_table("li2025_table7").rows
    assert [
        (row.recipe, row.shifted["imagenet_c"].mce, row.shifted["imagenet_c"].ce) for row in errors
    ] == corruption_errors()


def test_mce_is_the_mean_of_the_corruption_errors():
    """So that an error in the wrong row would be seen."""
    for recipe, mce, ce in corruption_errors():
        assert abs(sum(ce.values()) / 15 - mce) < 0.1, recipe
