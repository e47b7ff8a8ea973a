"""Papers: every method, loss and second stage names its own by key, and CITATION.cff names the same ones."""

import re
from pathlib import Path

import pytest
import yaml

from hf_ltsam.losses import LOSSES
from hf_ltsam.methods import METHODS
from hf_ltsam.runs.card.citations import bibtex, entries, parsed
from hf_ltsam.training.second_stage.stages import SECOND_STAGES

ROOT = Path(__file__).parents[3]
CLASSES = {f"{kind.__name__}": kind for kind in (*METHODS.values(), *LOSSES.values(), *SECOND_STAGES.values())}


@pytest.mark.parametrize("name", CLASSES)
def test_who_names_a_source_names_its_papers(name):
    """`bibtex` names a key that is missing; who proposed it comes first, in the text and in the keys."""
    documented = CLASSES[name]
    assert bool(documented.source) == bool(documented.citations)
    if documented.citations:
        bibtex(documented.citations)
        author = re.search(r"[A-Z][a-z]+(?= et al\. \d{4})", documented.source)[0]
        assert author in re.search(r"author *= *\{(.*)\}", entries()[documented.citations[0]])[1]


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match=r"sources\.bib has no paper 'liu2023'\. Did you mean 'liu2022'"):
        bibtex(["foret2021", "liu2023"])


def test_each_paper_once_and_entries_as_they_are():
    own = "@misc{mine,\n  title = {Mine},\n}"
    assert bibtex(["foret2021", own, "foret2021"]).count("@") == 2 and own in bibtex([own])


def test_the_entries_are_whole():
    for key, text in entries().items():
        assert text.startswith("@") and text.count("{") == text.count("}") and f"{{{key}," in text


def test_two_papers_do_not_share_a_key():
    with pytest.raises(ValueError, match="two papers 'liu2022'"):
        parsed("@article{liu2022,\n  year = {2022},\n}\n\n@article{liu2022,\n  year = {2022},\n}")


def test_citation_cff_agrees():
    """Title, year and place of every paper that CITATION.cff states."""
    papers = {_field(text, "title"): text for text in entries().values()}
    for reference in yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]:
        text = papers[reference["title"]]
        assert str(reference["year"]) == _field(text, "year")
        assert reference["conference"]["name"] == _field(text, "booktitle")
        assert _field(text, "author").startswith(reference["authors"][0]["name"].removesuffix(" et al."))


def _field(entry, name):
    return re.search(rf"^ *{name} *= *\{{(.*)\}},$", entry, re.M)[1].replace("{", "").replace("}", "")
