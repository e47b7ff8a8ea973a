"""The published number of a recipe, and headers that state none in a readable way."""

import pytest
from hf_ltsam.cli.reproduce.recipes import Target, find_recipe, published_target

HEADER = """# CIFAR-10-LT: something.
# Target   {target}
#          (Somebody et al. 2020 Table 1, "row";
#          best epoch)
# Command  ltsam train
loss: focal
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "row.yaml"
        path.write_text(text)
        return path

    return write


SOURCE = 'Somebody et al. 2020 Table 1, "row"; best epoch'


@pytest.mark.parametrize(
    "target, expected",
    [
        ("50.7 % overall", Target(50.7, None, None, None, SOURCE)),
        ("50.7 % overall, 63.9 many, 53.0 medium, 0.0 few", Target(50.7, 63.9, 53.0, 0.0, SOURCE)),
        ("81 % overall, 90.5 many, 71.5 few", Target(81.0, 90.5, None, 71.5, SOURCE)),
        ("none published", None),
        ("none published: no source combines the two", None),
        ("none published for this stage alone", None),
    ],
)
def test_targets(written, target, expected):
    assert published_target(written(HEADER.format(target=target))) == expected


def test_a_recipe_of_your_own_needs_no_target(written):
    assert published_target(written("# mine\nloss: focal\n")) is None


def test_a_recipe_of_ours():
    path = find_recipe("second_stage/cifar100_lt_ir100_ce_sgd_then_crt")
    assert published_target(path) == Target(43.39, None, None, None, 'Zhou et al. 2023b Table 2, "cRT"')


@pytest.mark.parametrize(
    "target",
    [
        "50.7",
        "50.7 %",
        "50,7 % overall",
        "50.7 % overall.",
        "about 50.7 % overall",
        "50.7 % few",
        "50.7 % overall, 32.5 few, 53.0 medium",
        "50.7 % overall, 63.9",
        "-3 % overall",
        "none publishable",
        "none publishedly",
        "507 % overall",
        "50.7 % overall, 639 many",
        "",
    ],
)
def test_a_target_that_cannot_be_read_is_refused_with_the_file(written, target):
    with pytest.raises(ValueError, match=r"row\.yaml"):
        published_target(written(HEADER.format(target=target)))


@pytest.mark.parametrize(
    "text",
    [
        "# Target   50.7 % overall\nloss: focal\n",
        "# Target   50.7 % overall\n#          Somebody et al. 2020\nloss: focal\n",
        "# Target   50.7 % overall\n#          ()\nloss: focal\n",
        "# Target   50.7 % overall\n# Command  ltsam train\n#          (Somebody et al. 2020)\nloss: focal\n",
        HEADER.format(target="50.7 % overall") + HEADER.format(target="51.7 % overall"),
    ],
    ids=["no source", "no brackets", "empty source", "source below another line", "two"],
)
def test_a_header_without_target_or_source_is_refused_with_the_file(written, text):
    with pytest.raises(ValueError, match=r"row\.yaml"):
        published_target(written(text))
