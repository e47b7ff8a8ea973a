"""What is searched: the syntax, the names, the scales, and what is refused before anything is trained."""

import pytest

from hf_ltsam.cli.tune.space import laid_over, parameters_of, read_search

SETTINGS = {
    "method": "sam",
    "method_args": {"rho": 0.05, "start": 0.5},
    "loss": "logit_adjustment",
    "use_cpu": True,
    "output_dir": "x",
}
FOCAL = {**SETTINGS, "method": "focal_sam", "method_args": None, "loss": "focal"}


def words(text, settings=SETTINGS):
    (parameter,) = parameters_of(read_search([text]), settings)
    return parameter


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rho: [0.01, 0.5]", "rho: 0.01 to 0.5, log scale"),
        ("rho: [1e-2, .5]", "rho: 0.01 to 0.5, log scale"),
        ("rho: [0, 0.5]", "rho: 0 to 0.5, linear scale"),
        ("rho: [0.01, 0.5, linear]", "rho: 0.01 to 0.5, linear scale"),
        ("rho: [0.01, 0.1, 0.5]", "rho: 0.01, 0.1, 0.5"),
        ("rho: {choices: [0.01, 0.5]}", "rho: 0.01, 0.5"),
        ("method_args.rho: [0.01, 0.5]", "method_args.rho: 0.01 to 0.5, log scale"),
        ("start: [0.1, 0.9]", "start: 0.1 to 0.9, linear scale"),
        ("tau: [0.5, 2]", "tau: 0.5 to 2, log scale"),
        ("weight_decay: [1e-4, 1e-2]", "weight_decay: 0.0001 to 0.01, log scale"),
        ("per_device_train_batch_size: [16, 64]", "per_device_train_batch_size: 16 to 64, linear scale"),
        ("per_device_train_batch_size: [16, 64, log]", "per_device_train_batch_size: 16 to 64, log scale"),
        ("lr_scheduler_type: [cosine, linear]", "lr_scheduler_type: cosine, linear"),
        ("flip: [true, false]", "flip: True, False"),
        ("reweighting: [none, inverse]", "reweighting: none, inverse"),
    ],
)
def test_ranges_and_choices(text, said):
    assert str(words(text)) == said


def test_several_entries_in_one_text_or_in_several():
    assert read_search(["rho: [0.1, 0.2]\ntau: [1, 2]"]) == read_search(["rho: [0.1, 0.2]", "tau: [1, 2]"])


def test_values_go_where_their_names_say():
    rho, rate = parameters_of({"rho": [0.1, 0.2], "learning_rate": [0.1, 0.2]}, SETTINGS)
    laid = laid_over(SETTINGS, {rho: 0.15, rate: 0.3})
    assert laid == {**SETTINGS, "method_args": {"rho": 0.15, "start": 0.5}, "learning_rate": 0.3}
    assert (rho.present(SETTINGS), rate.present(SETTINGS), rho.holds(0.15), rho.holds(0.05)) == (
        0.05,
        None,
        True,
        False,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("roh: [0.1, 0.2]", r"--search roh: There is no setting 'roh'.*Did you mean 'rho'"),
        ("learning_rat: [0.1, 0.2]", "Did you mean 'learning_rate'"),
        ("loss_args.rho: [0.1, 0.2]", "no setting 'loss_args.rho'"),
        ("gamma: [0.1, 0.2]", "no setting 'gamma'.*method 'sam'"),
        ("rho: [nan, 0.5]", "both ends must be finite numbers, got nan"),
        ("rho: [.nan, 0.5]", "both ends must be finite numbers, got nan"),
        ("rho: [0.1, .inf]", "both ends must be finite numbers, got inf"),
        ("rho: [0.5, 0.1]", "the range is empty"),
        ("rho: [0.5, 0.5]", "the range is empty"),
        ("rho: []", "nothing to choose from"),
        ("rho: [0.1]", "nothing to choose from"),
        ("rho: [0.1, 0.1, 0.1]", "nothing to choose from"),
        ("rho: [0.1, 0.2, 0.1]", "a value is there twice"),
        ("rho: [0.1, nan, 0.3]", "every choice must be a finite number, got nan"),
        ("rho: 0.1", r"must be a range such as \[0.01, 0.5\]"),
        ("rho: [-0.1, 0.5]", r"-0.1 cannot be. SAM\(rho=\.\.\.\) must be non-negative"),
        ("rho: [0, 0.5, log]", "a log scale begins above 0"),
        ("start: [0.5, 1.5]", "1.5 cannot be"),
        ("per_device_train_batch_size: [1.5, 8]", "takes whole numbers"),
        ("reweighting: [none, inverted]", "'inverted' cannot be.*Did you mean 'inverse'"),
        ("method: [sam, asam]", "Give a recipe for each"),
        ("loss: [focal, cross_entropy]", "Give a recipe for each"),
        ("seed: [0, 9]", "changes no trained weight, or none that could be called better"),
        ("output_dir: [a, b]", "changes no trained weight"),
        ("dataset: [a, b]", "decides what the data or the test are"),
        ("reserve: [0.1, 0.2]", "decides what the data or the test are"),
        ("many_above: [10, 20]", "decides what the data or the test are"),
        ("lr_milestones: [[0.5], [0.8], [0.9]]", "is no single value"),
        ("", "Nothing to search"),
        ("rho", "must hold settings.*It should look like --search 'rho: "),
        ("rho: [0.1, 0.2", "is not a YAML file.*It should look like"),
        ("rho: [0.1, 0.2]\nmethod_args.rho: [0.1, 0.2]", "under two names"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched(text, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        words(text)


def test_a_name_that_method_and_loss_have_is_written_out():
    with pytest.raises(ValueError, match=r"write method_args\.gamma or loss_args\.gamma"):
        words("gamma: [0.5, 2]", FOCAL)
    assert (words("loss_args.gamma: [0.5, 2]", FOCAL).setting, words("method_args.gamma: [0.5, 2]", FOCAL).setting) == (
        "loss_args",
        "method_args",
    )


def test_a_name_twice():
    with pytest.raises(ValueError, match="has rho twice"):
        read_search(["rho: [0.1, 0.2]", "rho: [0.1, 0.3]"])
