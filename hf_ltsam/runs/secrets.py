"""Secrets, which stand in no file, log or message: one function takes them out of all that is written or read again.

A secret is what a name says is one (`hub_token`, `--api-key`, `"password": ...`), the value of an environment variable of
such a name (HF_TOKEN, WANDB_API_KEY), a token by its look (hf_...), `user:password@` and the signed part of an address.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

MASK = "(secret)"  # plain text in YAML, JSON, Markdown and HTML
SHORTEST = 8  # characters of a secret in the environment: shorter ones stand in half of all words

_NAME = (
    # tokens of texts and of transformers
    r"(?!(?:\w*special|audio|bos|class|cls|dist|eos|image|mask|pad|pool|sep|unk|video)_?token\b)"
    r"[\w-]*(?:token|secret|passw(?:or)?d|passphrase|(?:access|account|api|private|secret|shared)[_-]?key)"
)
_IS_NAME = re.compile(_NAME, re.IGNORECASE)
_OPTION = re.compile(rf"--{_NAME}", re.IGNORECASE)
_QUOTE = r"""\\*["']"""  # escaped too, as it stands in JSON
_NO_SECRET = (  # words and numbers of settings, placeholders, special tokens
    r"(?!(?:true|false|none|null)\b|\(secret\)|\.\.\.|<[^<>\s]*>|\[\w+\]|-?\d{1,3}(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.+-]))"
)
_MAY_BE_SECRET = re.compile(_NO_SECRET, re.IGNORECASE)
_LETTER = rf"(?:(?!{_QUOTE})\S)"  # no part of an escaped quote: what is left must still be JSON
_PAIRS = [
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        # "name": "value"
        rf"""(?P<before>(?P<name>{_QUOTE}){_NAME}(?P=name)\s*[:=]\s*(?P<quote>{_QUOTE})){_NO_SECRET}"""
        r"""(?P<value>(?:(?!(?P=quote))(?:\\.|[^\\\n]))+)""",
        # --name=value, and --name value, where the next word is none of a sentence
        rf"""(?P<before>(?<![\w-])--{_NAME}=(?:{_QUOTE})?){_NO_SECRET}(?P<value>{_LETTER}+)""",
        rf"""(?P<before>(?<![\w-])--{_NAME}\s+(?:{_QUOTE})?){_NO_SECRET}(?!-)"""
        rf"""(?P<value>(?={_LETTER}*\d|{_LETTER}{{12}}){_LETTER}+)""",
        # name=value
        rf"""(?P<before>(?<![\w-]){_NAME}=(?:{_QUOTE})?){_NO_SECRET}(?P<value>(?:(?![&,;)\]}}]){_LETTER})+)""",
        # name: value, a line of YAML
        rf"""(?P<before>^\s*(?:- )?{_NAME}:[ \t]+["']?){_NO_SECRET}(?P<value>(?!\#){_LETTER}(?:(?!{_QUOTE}).)*)""",
    )
]
_TOKEN = re.compile(  # those of the Hub have 34 characters behind the underscore
    r"(?<![A-Za-z0-9])(?:hf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|wandb_v\d_\w{16,})"
)
_USER = re.compile(r"(?<=://)(?!git@)[^/\s@'\"]+@")
_QUERY = re.compile(  # signed addresses are keys for whoever holds them
    r"(https?://[^\s'\"?]+)"
    rf"\?(?={_LETTER}*?(?<=[?&])(?:sig|[\w.-]*(?:auth|credential|expires|key|passwd|password|policy|secret|signature|token))=)"
    rf"{_LETTER}*",
    re.IGNORECASE,
)
_HINT = re.compile(r"token|secret|passw|passphrase|key|://|hf_|gh[pousr]_|github_pat_|wandb_v", re.IGNORECASE)

T = TypeVar("T")


def without_secrets(value: T, token: str | None = None) -> T:
    """A text, or lists and mappings of texts, with every secret masked; anything else as it is.

    Args:
        token: a further secret.
    """
    exact = sorted({*_in_environment(), *([token] if token else [])}, key=len, reverse=True)
    return _cleaned(value, re.compile("|".join(map(re.escape, exact))) if exact else None)


def _in_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        is_secret = len(value) >= SHORTEST and _is_name(name)
        if is_secret and not Path(value).exists():  # a file that holds one may be named
            yield value


@lru_cache(maxsize=2048)
def _is_name(name: str) -> bool:
    """Remembered: a history of logs has few names and each a thousand times."""
    return _IS_NAME.fullmatch(name) is not None


def _cleaned(value: Any, exact: re.Pattern[str] | None) -> Any:
    if isinstance(value, str):
        return _text(value, exact)
    if isinstance(value, int | float | None):
        return value
    if isinstance(value, Mapping):
        return {_cleaned(key, exact): _of_name(key, item, exact) for key, item in value.items()}
    if type(value) in (list, tuple):
        words = [_word(value[k - 1] if k else None, item, exact) for k, item in enumerate(value)]
        return words if isinstance(value, list) else tuple(words)
    return value


def _of_name(name: Any, value: Any, exact: re.Pattern[str] | None) -> Any:
    """The value of a key: masked where the key says so."""
    is_secret = isinstance(name, str) and _is_name(name)
    if is_secret and value and isinstance(value, str) and _MAY_BE_SECRET.match(value):
        return MASK
    return _cleaned(value, exact)


def _word(before: Any, word: Any, exact: re.Pattern[str] | None) -> Any:
    """A word of a command line: masked behind an option that says so."""
    is_value = isinstance(word, str) and isinstance(before, str) and _OPTION.fullmatch(before) is not None
    return MASK if is_value and not word.startswith("--") else _cleaned(word, exact)


def _text(text: str, exact: re.Pattern[str] | None) -> str:
    if exact is not None:
        text = exact.sub(MASK, text)
    if not _HINT.search(text):  # most names and numbers
        return text
    for pattern in _PAIRS:
        text = pattern.sub(lambda found: f"{found['before']}{MASK}", text)
    return _QUERY.sub(r"\1", _USER.sub(f"{MASK}@", _TOKEN.sub(MASK, text)))
