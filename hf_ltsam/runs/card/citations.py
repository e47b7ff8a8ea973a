"""BibTeX of the papers that a docstring names as its source. A new method needs only its entry in `sources.bib`."""

from __future__ import annotations

import re
from importlib.resources import files

_CITED = re.compile(r"([A-Z][a-z]+) et al\. (\d{4}[a-z]?)")


def keys(source: str) -> list[str]:
    """The papers of a text such as "Li et al. 2025 Eq. 5 to 8, Alg. 1", in its order: ["li2025"]."""
    return list(dict.fromkeys(author.lower() + year for author, year in _CITED.findall(source)))


def bibtex(wanted: list[str]) -> str:
    """Their entries; a paper that `sources.bib` does not have is left out."""
    known = entries()
    return "\n\n".join(known[key] for key in dict.fromkeys(wanted) if key in known)


def entries() -> dict[str, str]:
    """key -> entry, of all in `sources.bib`."""
    text = files(__package__).joinpath("sources.bib").read_text(encoding="utf-8")
    parts = [part.strip() for part in text.split("\n\n")]
    return {part.partition("{")[2].partition(",")[0]: part for part in parts}
