"""The facts of methods and losses: written once, read as attributes of the class."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from hf_ltsam.hyperparameters import Documented, title_of
from hf_ltsam.losses import LOSSES
from hf_ltsam.methods import METHODS, SAM
from hf_ltsam.runs.identity import describe
from hf_ltsam.training.second_stage.stages import SECOND_STAGES


class Spelled(Documented):
    """Long name of it: g = G(1) and
    more: of it.

    Args:
        rho: of the Cost: no.

    Cost: 2 forwards,
        3 backwards: in all.
    Source: Li et al. 2025 Eq. 5,
        Alg. 1.
    Differs from the published code: nothing.
    """

    title: ClassVar = "LN"
    citations: ClassVar = ("li2025",)


def test_facts_are_read_from_the_docstring_when_the_class_is_made():
    assert Spelled.title == "LN" and Spelled.citations == ("li2025",)
    assert Spelled.summary == "Long name of it: g = G(1) and more: of it."
    assert Spelled.equation == "g = G(1) and more: of it"
    assert Spelled.cost == "2 forwards, 3 backwards: in all"
    assert Spelled.source == "Li et al. 2025 Eq. 5, Alg. 1"


def test_nothing_is_inherited():
    class Bare(Spelled):
        pass

    assert (Bare.title, Bare.equation, Bare.cost, Bare.source, Bare.citations) == ("Bare", "", "", "", ())


def test_a_dataclass_without_a_docstring_has_no_equation():
    @dataclass(frozen=True)
    class Mine(SAM):
        strength: float = 0.25

    assert (Mine.title, Mine.equation, Mine.citations) == ("Mine", "", ())


@pytest.mark.parametrize(
    ("docstring", "title", "equation"),
    [
        ("Focal-SAM: g = G(1).", "Focal-SAM", "g = G(1)"),
        ("A sentence without a heading.", "Made", ""),
        ("", "Made", ""),
        (None, "Made", ""),
    ],
)
def test_the_heading_is_the_title(docstring, title, equation):
    made = type("Made", (Documented,), {"__doc__": docstring})
    assert (made.title, made.equation) == (title, equation)


def test_one_key_is_written_as_a_tuple_too():
    with pytest.raises(TypeError, match=r"Wrong\.citations must be a tuple of keys, got 'li2025'"):
        type("Wrong", (Documented,), {"citations": "li2025"})


def test_every_registered_class_states_its_equation_and_a_title_of_its_own():
    for registry in (METHODS, LOSSES):
        assert all(documented.equation for documented in registry.values())
        assert len({documented.title for documented in registry.values()}) == len(registry)
    assert all(method.cost for method in METHODS.values())
    assert all(stage.title and stage.source for stage in SECOND_STAGES.values())


def test_titles_are_those_of_the_papers():
    names = ("sam", "asam", "imbsam", "sse_sam", "sam_ext", "focal_sam", "cc_sam", "looksam", "lpf_sgd")
    assert [METHODS[name].title for name in names] == [
        "SAM", "ASAM", "ImbSAM", "SSE-SAM", "SAM (ext)", "Focal-SAM", "CC-SAM", "LookSAM", "LPF-SGD"
    ]  # fmt: skip
    names = (
        "cross_entropy",
        "focal",
        "class_balanced",
        "ldam",
        "logit_adjustment",
        "balanced_softmax",
        "vector_scaling",
    )
    assert [LOSSES[name].title for name in names] == ["CE", "Focal", "CB", "LDAM", "LA", "BS", "VS"]
    assert [LOSSES[name].title for name in ("label_aware_smoothing", "influence_balanced", "gaussian_clouded")] == [
        "LAS",
        "IB",
        "GCL",
    ]


def smoothed(logits, labels, statistics):
    return logits.logsumexp(1)


class Plain:
    """Of the user's own, and nothing of ours."""

    def __call__(self, logits, labels, statistics):
        return logits.logsumexp(1)


def test_titles_of_what_is_not_registered():
    """As the record of a run names it: a function by module and name, an object by its class."""
    assert title_of(LOSSES, describe(LOSSES, smoothed)["name"]) == "smoothed"
    assert title_of(LOSSES, describe(LOSSES, Plain())["name"]) == "Plain"
    assert title_of({"plain": Plain}, "plain") == "Plain"


@pytest.mark.parametrize("name", ["cost", "source", "title", "summary", "equation", "citations"])
def test_a_hyperparameter_with_the_name_of_a_fact_is_refused(name):
    """Cards and reports would show its value as the fact."""
    with pytest.raises(TypeError, match=rf"Mine\.{name} is a hyper-parameter.*another name.*ClassVar"):
        type("Mine", (Documented,), {"__annotations__": {name: "float"}, name: 1.0})
    stated = type("Mine", (Documented,), {"__annotations__": {name: "ClassVar[tuple[str, ...]]"}, name: ("stated",)})
    assert getattr(stated, name) == ("stated",)
