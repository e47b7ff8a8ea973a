"""Where the numbers of a recipe come from, and what it rests on that no source states."""

import pytest

from hf_ltsam.runs.recipes import assumptions, expand, find_recipe, read_recipe, recipe_names, row_of


@pytest.fixture
def mine(tmp_path):
    def write(text):
        (tmp_path / "mine.yaml").write_text(text)
        return tmp_path / "mine.yaml"

    return write


def test_a_number_and_its_source(mine):
    path = mine(
        "learning_rate: {value: 0.1, source: A et al. 2020}\nmethod_args: {rho: {value: [1, 2], ours: a guess}}\n"
    )
    expanded = expand(path)
    assert expanded.settings == {"learning_rate": 0.1, "method_args": {"rho": [1, 2]}}
    assert {name: (o.kind, o.words) for name, o in expanded.origins.items()} == {
        "learning_rate": ("source", "A et al. 2020"),
        "method_args.rho": ("ours", "a guess"),
    }


def test_a_recipe_of_ones_own_inherits_rows_and_parts(mine):
    path = mine("inherits: [cifar100_lt_ir100_la_sam, focal_sam_cifar100]\ndepth: 20\n")
    expected = {**read_recipe("cifar100_lt_ir100_la_focal_sam"), "depth": 20}
    assert read_recipe(path) == expected
    assert "depth" not in expand(path).origins and expand(path).origins["method_args.gamma"].words.startswith(
        "Li et al."
    )


def test_files_beside_the_recipe_come_before_names_of_ours(mine, tmp_path):
    (tmp_path / "la").write_text("loss: focal\n")
    assert read_recipe(mine("inherits: la\n")) == {"loss": "focal"}


def test_what_is_inherited_and_is_nowhere(mine):
    with pytest.raises(
        FileNotFoundError, match=r"mine\.yaml inherits from cifar100_lt_ir100_la_sma,.*'cifar100_lt_ir100_la_sam'"
    ):
        read_recipe(mine("inherits: cifar100_lt_ir100_la_sma\n"))


def test_what_replaces_an_argument_takes_its_source_away(mine):
    expanded = expand(mine("inherits: cifar100_lt_ir100_ce_focal_sam\nmethod_args: {rho: 0.1}\n"))
    assert not [name for name in expanded.origins if name.startswith("method_args")]
    assert expanded.assumptions == {}


def test_settings_are_ones_own():
    read_recipe("cifar100_lt_ir100_ib_sam")["lr_milestones"].append(1.0)
    assert read_recipe("cifar100_lt_ir100_ib_sam")["lr_milestones"] == [0.5, 0.8, 0.9]


@pytest.mark.parametrize(
    "name, assumed",
    [
        ("cifar100_lt_ir100_la_focal_sam", set()),
        ("cifar100_lt_ir200_la_focal_sam", {"method_args.rho", "method_args.gamma", "method_args.lam"}),
        ("cifar100_lt_ir100_ce_focal_sam", {"method_args.rho", "method_args.gamma", "method_args.lam"}),
        ("cifar100_lt_ir100_clip_fft_la_focal_sam", set()),
        ("imagenet_lt_la_focal_sam", set()),
        ("places_lt_la_focal_sam", {"training", "method_args.rho", "method_args.gamma", "method_args.lam"}),
        ("cifar100_lt_ir100_la_imbsam", {"method_args.rho", "tail_threshold"}),
        ("cifar100_lt_ir100_la_imbsam_lyu2025", set()),
        ("cifar100_lt_ir100_la_cc_sam", {"method_args.scale", "method_args.class_weighting"}),
        ("cifar100_lt_ir100_ce_cc_sam", set()),
        ("cifar100_lt_ir100_ce_sam", {"method_args.rho"}),
        ("cifar100_lt_ir100_ce_sam_rangwani2022", set()),
        ("cifar10_lt_ir50_ce_drw_sam", {"method_args.rho"}),
        ("cifar10_lt_ir100_ce_drw_sam", set()),
        ("imagenet_lt_la_sgd", set()),
        ("inaturalist2018_la_sgd", {"normalisation"}),
        ("imagenet_lt_ce_sgd_lyu2025", {"training"}),
        ("cifar10_lt_ir50_ldam_sam_zhou2023b", {"method_args.rho"}),
        ("cifar100_lt_ir100_ce_swa", {"swa_learning_rate"}),
        ("cifar100_lt_ir100_la_gsam", {"method_args.rho", "method_args.alpha"}),
    ],
)
def test_assumptions(name, assumed):
    assert set(assumptions(name)) == assumed
    assert set(assumptions(find_recipe(name))) == assumed
    run = {**read_recipe(name), "seed": 2, "dataset": "/data/here", "output_dir": "runs/x"}
    assert set(assumptions(run)) == assumed


def test_assumptions_of_a_run_that_differs_from_the_row():
    run = read_recipe("cifar100_lt_ir200_la_focal_sam")
    run["method_args"] = {**run["method_args"], "rho": 0.1}
    assert set(assumptions(run)) == {"method_args.gamma", "method_args.lam"}
    assert assumptions({**run, "loss": "focal"}) == {}
    assert assumptions({}) == {}


def test_every_row_is_found_by_its_settings():
    contained = "second_stage/cifar100_lt_ir100_ce_sgd_zhou2023b"  # in the row with spectral normalisation
    for name in [*recipe_names()[::7], contained]:
        assert row_of(read_recipe(name)).name == name


def test_a_setting_of_some_methods(mine):
    text = "tail_threshold: {value: 9, assumed: a guess, used_by: [imbsam, sse_sam]}\n"
    assert expand(mine(f"{text}method: imbsam\n")).assumptions == {"tail_threshold": "a guess"}
    assert expand(mine(f"{text}method: sam\n")).assumptions == expand(mine(text)).assumptions == {}


def test_a_setting_of_one_method(mine):
    text = "depth: {value: 9, assumed: a guess, used_by: sam}\n"
    assert expand(mine(f"{text}method: sam\n")).assumptions and not expand(mine(f"{text}method: sgd\n")).assumptions
