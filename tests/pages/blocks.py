"""The code blocks of Markdown pages, and what is said about them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_FENCE = re.compile(r"^```(?P<language>[^\n]*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
_NOT_RUN = re.compile(r"<!-- not run: ([^>]+) -->\n$")
_STARTS_WITH = re.compile(r"^<!-- starts with: (.+) -->$", re.MULTILINE)
PROGRAMS = ("ltsam", "accelerate", "make", "python", "pip")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        line: of its first line of code, from 1.
        language: python, bash, yaml, ... or nothing.
        reason: why it is not run, from the comment `<!-- not run: REASON -->` on the line above; None: it is run.
    """

    line: int
    language: str
    code: str
    reason: str | None = None

    @property
    def is_python(self):
        return self.language == "python"

    @property
    def is_commands(self):
        """Marked as shell, or a block without a language, as READMEs have, that begins with a program we know."""
        return self.language in ("bash", "console", "sh") or (not self.language and self.code.split()[0] in PROGRAMS)


def blocks_of(text):
    """All fenced blocks, in order."""
    found = []
    for match in _FENCE.finditer(text):
        reason = _NOT_RUN.search(text, 0, match.start())
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(line, match["language"].strip(), match["code"], reason and " ".join(reason[1].split())))
    return found


def starts_with(text):
    """What a page takes as being there, from `<!-- starts with: runs/mine -->`."""
    return [name for match in _STARTS_WITH.finditer(text) for name in match[1].split(", ")]


def commands_of(code):
    """The words of each command; lines that end in a backslash go on, and `#` begins a comment."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line.removeprefix("$ "), comments=True))]
