"""docs/what_works.md, made from the parameters of the tests themselves: a mark stands for a test that runs.

`PYTHONPATH=.:tests python tests/pages/what_works.py` writes the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from adapters import test_sam_on_adapters
from methods import test_equations, test_one_hot, test_when_applied
from training import (
    test_killed,
    test_method_state,
    test_mixed_batches,
    test_model_loss,
    test_modes,
    test_precision,
    test_sets_with_soft_labels,
    test_settings_of_passes,
    test_several_labels,
    test_stock_settings,
    test_two_processes,
)
from training.modes import METHOD, MODES
from training.test_hooks import NO_EFFECT, REFUSED_FIELDS

from hf_ltsam.losses import LOSSES
from hf_ltsam.methods import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "what_works.md"
Case = Callable[[Any], bool]

# column -> the test whose parameters name the methods, which of its cases count, and what the test shows
AS_ONE = test_two_processes.test_two_processes_equal_one_with_twice_the_batch
COLUMNS: dict[str, tuple[Any, Case, str]] = {
    "equation": (
        test_equations.test_on_every_model,
        bool,
        "equal to a naive loop in float64, with batch norm, frozen and tied weights",
    ),
    "losses, soft labels": (
        test_one_hot.test_every_method_with_every_loss,
        bool,
        f"with each of the {len(LOSSES)} losses; at soft labels of one class as at class indices",
    ),
    "accumulation": (test_equations.test_micro_batches_are_one_batch, bool, "several micro-batches as one batch"),
    "start, stop": (
        test_when_applied.test_from_start_to_stop,
        bool,
        "for a part of the training; the other steps are plain SGD",
    ),
    "fp16": (test_precision.test_the_scale_cancels, bool, "under a gradient scaler as without"),
    "two processes": (AS_ONE, lambda case: case[0] == "step", "as one with twice the batch"),
    "FSDP2": (AS_ONE, lambda case: case[0] == "sharded", "the same with weights in shards"),
    "adapters": (test_sam_on_adapters.test_every_method_on_adaptformer, bool, "on AdaptFormer, by the equation"),
    "resume": (
        test_method_state.test_resumes_bit_for_bit,
        bool,
        "bit for bit, of methods that remember or draw; without a mark there is nothing of the method's own to resume",
    ),
    "killed": (
        test_killed.test_killed_in_passes_and_in_writing,
        bool,
        "killed in passes and in writing, then resumed, of some that remember",
    ),
}

# mode -> the tests that compare it with a naive loop, or with the stock Trainer
EQUATIONS = {
    'loss="model"': [
        test_model_loss.test_sam_by_hand,
        test_model_loss.test_without_a_perturbation_it_is_the_stock_trainer,
    ],
    "soft labels": [
        test_one_hot.test_every_method_with_every_loss,
        test_sets_with_soft_labels.test_distillation_is_torch_s_cross_entropy,
    ],
    "mixup": [test_mixed_batches.test_sam_with_mixup_is_the_naive_loop],
    "several labels": [
        test_several_labels.test_training_is_the_naive_loop,
        test_several_labels.test_every_method_takes_a_step,
    ],
    "label smoothing": [
        test_settings_of_passes.test_label_smoothing_is_that_of_the_stock_trainer,
        test_settings_of_passes.test_label_smoothing_under_sam,
    ],
    "NEFTune": [
        test_settings_of_passes.test_neftune_is_that_of_the_stock_trainer,
        test_settings_of_passes.test_neftune_under_sam,
    ],
    "torch_compile": [test_two_processes.test_compiled_passes_are_those_of_the_bare_module],
    "auto_find_batch_size": [test_settings_of_passes.test_a_found_batch_size_trains_as_the_same_one_that_was_set],
}
OF_MODES: dict[str, tuple[Any, str]] = {
    "accumulation": (
        test_modes.test_micro_batches_of_a_step_are_one_batch,
        "several micro-batches as one batch; not where each draws numbers of its own",
    ),
    "bf16": (test_modes.test_half_precision_is_near, "near float32"),
    "two processes": (
        test_modes.test_on_two_processes,
        "alike on both, and as one with twice the batch where it can be",
    ),
    "resume": (test_modes.test_resumes_bit_for_bit, "bit for bit, over two micro-batches a step"),
}


def modes() -> str:
    tested = {column: set(cases_of(test)) for column, (test, _) in OF_MODES.items()}
    rows = [
        f"| {mode} | {', '.join(f'`{test.__name__}`' for test in tests)} | "
        f"{' | '.join('yes' if mode in cases else '' for cases in tested.values())} |"
        for mode, tests in EQUATIONS.items()
    ]
    legend = [f"- **{column}**: {shown} (`{test.__name__}`)." for column, (test, shown) in OF_MODES.items()]
    others = {mode: settings["method"] for mode, (*_, settings) in MODES.items() if "method" in settings}
    with_methods = ", ".join([f"`{METHOD}`", *(f"`{method}` for {mode}" for mode, method in others.items())])
    return f"""## Modes
| mode | equal to a naive loop or the stock Trainer | {" | ".join(OF_MODES)} |
|{"---|" * (len(OF_MODES) + 2)}
{chr(10).join(rows)}

The last {len(OF_MODES)} columns with a method that remembers: {with_methods}. `torch_compile` in
all tests of it has the backend `eager`, which captures graphs and runs them uncompiled.

{chr(10).join(legend)}"""


def words_in(value: Any) -> Iterator[str]:
    """All text inside the parameters of a test."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from words_in([*value, *value.values()])
    elif isinstance(value, Iterable):
        for part in value:
            yield from words_in(part)


def cases_of(test: Any) -> Iterator[Any]:
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            yield from mark.args[1]


def methods_in(test: Any, counts: Case) -> set[str]:
    """The methods that the cases of a test name, or what a case stands for in the `CASES` of its module."""
    named = test_killed.CASES if test is test_killed.test_killed_in_passes_and_in_writing else {}
    cases = [named.get(case, case) if isinstance(case, str) else case for case in cases_of(test)]
    return {word for case in cases if counts(case) for word in words_in(case)} & set(METHODS)


def page() -> str:
    tested = {column: methods_in(test, counts) for column, (test, counts, _) in COLUMNS.items()}
    marks = {name: ["yes" if name in methods else "" for methods in tested.values()] for name in METHODS}
    rows = [f"| `{name}` | {' | '.join(of_method)} |" for name, of_method in marks.items()]
    legend = [f"- **{column}**: {shown} (`{test.__name__}`)." for column, (test, _, shown) in COLUMNS.items()]
    settings = sorted({*test_stock_settings.TAKEN, *test_stock_settings.TOGETHER, *test_stock_settings.ELSEWHERE})
    return f"""# What works with what

Made from the parameters of the tests: a `yes` stands for a test that runs with this method
(`PYTHONPATH=.:tests python tests/pages/what_works.py`; a test compares the page with them).

| method | {" | ".join(COLUMNS)} |
|{"---|" * (len(COLUMNS) + 1)}
{chr(10).join(rows)}

{chr(10).join(legend)}

{modes()}

## Settings of the stock Trainer
Each field of `TrainingArguments` is in one of three lists, or a test fails.

**As in the stock Trainer**: {_listed(settings)}.

**Without effect here**: {_listed(sorted(NO_EFFECT))}.

**Refused, with the way out** ([Scope](scope.md)): {_listed(sorted(REFUSED_FIELDS))}; `auto_find_batch_size` goes
with `ascent_size`.

## Optimizers
Any with an ordinary `step()`, by name or as an object. Muon and schedule-free optimizers (SAM's ascent starts where they take
gradients; the model is their mean in evaluations and after the training) are tested beside a naive loop. Refused: those that need
a closure, and those that step inside a backward pass.
"""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
