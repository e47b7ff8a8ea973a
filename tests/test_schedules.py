"""Schedules of progress against the values the recipes ask for."""

import dataclasses
import json

import pytest
import yaml

from hf_ltsam.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Linear,
    Piecewise,
    as_schedule,
    lowest_value,
    schedule_from_config,
    schedule_to_config,
    value_at,
)


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (Constant(0.3), {0.0: 0.3, 0.5: 0.3, 0.999: 0.3}),
        # Rangwani et al. 2022: rho 0.05 for 5 epochs, 0.1 until 60, then 0.5, of 90
        (
            Piecewise((0.05, 0.1, 0.5), (5 / 90, 60 / 90)),
            {0: 0.05, 4 / 90: 0.05, 5 / 90: 0.1, 59 / 90: 0.1, 60 / 90: 0.5, 0.99: 0.5},
        ),
        (Piecewise((1.0,), ()), {0.0: 1.0, 0.9: 1.0}),
        (Linear(1.0, 0.0), {0.0: 1.0, 0.25: 0.75, 0.5: 0.5}),
        (Linear(0.1, 0.3), {0.0: 0.1, 0.5: 0.2}),
        (Cosine(1.0, 0.0), {0.0: 1.0, 0.5: 0.5, 1 / 3: 0.75, 2 / 3: 0.25}),
        (Cosine(0.1, 0.3), {0.0: 0.1, 0.5: 0.2}),
        (Linear(0.0, 1.0, (0.25, 0.75)), {0.0: 0.0, 0.25: 0.0, 0.375: 0.25, 0.5: 0.5, 0.75: 1.0, 0.9: 1.0}),
        (
            Cosine(1.0, 0.0, (0.25, 0.75)),
            {0.0: 1.0, 0.25: 1.0, 0.5: 0.5, 0.625: (1 - 0.5**0.5) / 2, 0.75: 0.0, 0.9: 0.0},
        ),
    ],
)
def test_values(schedule, expected):
    for progress, value in expected.items():
        assert schedule(progress) == value_at(schedule, progress) == pytest.approx(value, abs=1e-15)


def test_a_boundary_belongs_to_what_follows():
    """Epoch 160 of 200, counted from 0, is the first of the larger radius, whatever the steps per epoch."""
    schedule = Piecewise((0.1, 0.2), (160 / 200,))
    for steps in (1, 7, 391):
        assert [schedule(k / (200 * steps)) for k in (160 * steps - 1, 160 * steps)] == [0.1, 0.2]


def test_numbers_and_functions_are_schedules_too():
    assert value_at(0.05, 0.7) == 0.05 and value_at(lambda progress: 2 * progress, 0.25) == 0.5
    assert as_schedule(0.05) == Constant(0.05) and as_schedule(2)(0.5) == 2
    linear = Linear(0.0, 1.0)
    assert as_schedule(linear) is linear


@pytest.mark.parametrize(
    "value, lowest",
    [
        (-0.5, -0.5),
        (Constant(3), 3),
        (Piecewise((1, -2, 3), (0.501, 0.502)), -2),
        (Linear(0, -1), -1),
        (Linear(2, 5), 2),
        (Cosine(-3, 1), -3),
        (Linear(2, -1, (0.999, 1)), -1),
        (lambda progress: progress - 0.25, -0.25),
    ],
)
def test_lowest_value(value, lowest):
    """What a method checks that takes a non-negative radius."""
    assert lowest_value(value) == lowest


@pytest.mark.parametrize(
    "text, expected",
    [
        ("0.05", 0.05),
        ("1", 1.0),
        ("1e-3", 0.001),  # a string to YAML 1.1
        ("constant: {value: 0.1}", Constant(0.1)),
        ("linear: {start: 0.1, end: 0.2}", Linear(0.1, 0.2)),
        ("cosine: {start: 0.1, end: 0.2}", Cosine(0.1, 0.2)),
        ("linear: {start: 0.1, end: 0.2, boundaries: [0.1, 0.5]}", Linear(0.1, 0.2, (0.1, 0.5))),
        ("{piecewise: {values: [0.1, 0.2], boundaries: [0.8]}}", Piecewise((0.1, 0.2), (0.8,))),
    ],
)
def test_from_yaml(text, expected):
    got = schedule_from_config(yaml.safe_load(text))
    assert got == expected and type(got) is type(expected)


def test_an_object_passes_through():
    assert schedule_from_config(Linear(0.1, 0.2)) == Linear(0.1, 0.2)


@pytest.mark.parametrize(
    "value",
    [
        0.05,
        Constant(0.1),
        Linear(0.1, 0.2),
        Cosine(0.1, 0.2),
        Piecewise((1, 2), (0.5,)),
        Cosine(0.1, 0.2, (0.2, 0.5)),
    ],
)
def test_config_round_trip_through_json(value):
    config = schedule_to_config(value)
    assert schedule_from_config(json.loads(json.dumps(config))) == value


def test_boundaries_at_the_ends_of_training_are_not_written_down():
    """Checkpoints that were made before there were any say the same."""
    assert schedule_to_config(Linear(0.1, 0.2)) == {"linear": {"start": 0.1, "end": 0.2}}


def test_equal_ends_of_another_kind_are_told_apart():
    assert schedule_to_config(Linear(0.1, 0.2)) != schedule_to_config(Cosine(0.1, 0.2))


def test_frozen_and_hashable():
    for schedule in (Constant(1), Linear(0, 1), Cosine(0, 1), Piecewise([1, 2], [0.5])):
        assert hash(schedule) == hash(dataclasses.replace(schedule))
    assert set(SCHEDULES) == {"constant", "linear", "cosine", "piecewise"}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Piecewise((1, 2), ()), r"Piecewise\(values=.*one more .* than boundaries.*2.*0"),
        (lambda: Piecewise((), ()), r"Piecewise\(values="),
        (lambda: Piecewise((1, 2, 3), (0.6, 0.4)), r"Piecewise\(boundaries=.*increas.*\(0\.6, 0\.4\)"),
        (lambda: Piecewise((1, 2), (1.0,)), r"Piecewise\(boundaries=.*between 0 and 1.*1\.0"),
        (lambda: Piecewise((1, 2), (160,)), r"Piecewise\(boundaries=.*share of training.*160"),
        (lambda: Piecewise((1, 2), (0.0,)), r"Piecewise\(boundaries="),
        (lambda: Piecewise((1, "2"), (0.5,)), r"Piecewise\(values=.*'2'"),
        (lambda: Linear(0, 1, (0.5,)), r"Linear\(boundaries=.*two increasing shares.*\(0\.5,\)"),
        (lambda: Cosine(0, 1, (0.5, 0.5)), r"Cosine\(boundaries=.*two increasing shares"),
        (lambda: Linear(0, 1, (10, 160)), r"Linear\(boundaries=.*share of training.*10"),
        (
            lambda: schedule_from_config({"linear": {"start": 0, "end": 1, "epochs": [1, 2]}}),
            r"epochs=\[1, 2\].*`boundaries`",
        ),
        (lambda: Constant("0.1"), r"Constant\(value=.*'0.1'"),
        (lambda: Linear(0, float("nan")), r"Linear\(end=.*nan"),
        (lambda: Cosine(float("inf"), 0), r"Cosine\(start=.*inf"),
        (lambda: schedule_from_config({"linaer": {"start": 0, "end": 1}}), r"Unknown schedule 'linaer'.*'linear'"),
        (
            lambda: schedule_from_config({"linear": {"strat": 0, "end": 1}}),
            r"'linear' has no argument 'strat'.*'start'",
        ),
        (lambda: schedule_from_config({"linear": {"start": 0}}), r"'linear'.*end"),
        (lambda: schedule_from_config({"linear": 0.5}), r"linear.*0\.5"),
        (lambda: schedule_from_config({"linear": {}, "cosine": {}}), r"one"),
        (lambda: schedule_from_config("lots"), r"'lots'"),
        (lambda: schedule_from_config(True), r"True"),
        (lambda: schedule_from_config(None), r"None"),
        (lambda: schedule_from_config([0.1, 0.2]), r"\[0\.1, 0\.2\]"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_that_is_no_number_and_no_function():
    with pytest.raises(TypeError, match=r"number or a function"):
        as_schedule("0.1")
