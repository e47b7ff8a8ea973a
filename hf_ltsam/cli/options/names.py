"""The names of options on the command line, which may be spelled with - or with _."""

from __future__ import annotations

from collections.abc import Sequence


def underscored(word: str) -> str:
    """--hub-token=hf_x as --hub_token=hf_x, which is the same option; values, `--` and other words as they are.

    Whatever looks for an option among words looks for this spelling.
    """
    name, equals, value = word.partition("=")
    return f"--{name.removeprefix('--').replace('-', '_')}{equals}{value}" if word.startswith("--") else word


def split_at_dashes(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before the first `--`, and after it, which is for another command."""
    place = words.index("--") if "--" in words else len(words)
    return list(words[:place]), list(words[place + 1 :])
