"""BibTeX of the papers that methods and losses name by their keys. A new paper needs only its entry in `sources.bib`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from hf_ltsam.hyperparameters import nearest


def bibtex(citations: Iterable[str]) -> str:
    """The entries of these papers, each once.

    Args:
        citations: keys of `sources.bib`, or whole entries: "@inproceedings{...}".

    Raises:
        ValueError: a key that `sources.bib` does not have, with the nearest ones.
    """
    return "\n\n".join(_entry(citation) for citation in dict.fromkeys(citations))


def _entry(citation: str) -> str:
    if citation.startswith("@"):
        return citation.strip()
    if citation not in entries():
        raise ValueError(f"sources.bib has no paper {citation!r}.{nearest(citation, entries())}")
    return entries()[citation]


@cache
def entries() -> dict[str, str]:
    """key -> entry, of all in `sources.bib`.

    Raises:
        ValueError: two entries under one key.
    """
    return parsed(files(__package__).joinpath("sources.bib").read_text(encoding="utf-8"))


def parsed(text: str) -> dict[str, str]:
    """key -> entry, of a BibTeX text whose entries are parted by empty lines."""
    keyed: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split("\n\n"))):
        key = entry.partition("{")[2].partition(",")[0]
        if key in keyed:
            raise ValueError(f"sources.bib has two papers {key!r}: give one of them another key.")
        keyed[key] = entry
    return keyed
