"""A written report as a static Space of the Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from hf_ltsam.runs.folder import CARD
from hf_ltsam.runs.report.report import FILE_NAME


def space_files(
    folder: Path, title: str, license: str | None = None, tags: Sequence[str] = ()
) -> dict[str, Path | bytes]:
    """path in the Space -> file, or its content: the page as `index.html`, the figures that it links to, and the card.

    Args:
        folder: holds `report.html`.
        title: of the Space.
        license: an identifier of the Hub's; None: none is stated.
        tags: further ones.
    """
    page = folder / FILE_NAME
    links = set(re.findall(r'href="([\w-]+\.(?:png|svg))"', page.read_text(encoding="utf-8")))
    header = {
        "title": title,
        "emoji": "\N{BAR CHART}",
        "colorFrom": "blue",
        "colorTo": "green",
        "sdk": "static",
        "app_file": "index.html",
        "pinned": False,
        "tags": ["hf_ltsam", "long-tailed", *tags],
        **({} if license is None else {"license": license}),
    }
    card = f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\nA report by `ltsam report`.\n"
    return {CARD: card.encode(), "index.html": page, **{name: folder / name for name in sorted(links)}}
