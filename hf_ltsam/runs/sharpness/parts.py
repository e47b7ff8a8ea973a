"""The results of `ltsam sharpness`, put together from parts that are written as they are finished: a killed run resumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hf_ltsam.runs.files import plain, read_json, write_json
from hf_ltsam.runs.folder import SHARPNESS_RESULTS

SCHEMA_VERSION = 1
_ADVICE = "Remove it: this part is then computed again."


class Parts:
    """The results of one model in one folder.

    Args:
        folder: made where it is not there.
        subject: what all parts have in common, such as model, loss and images.

    Raises:
        ValueError: the folder holds results of another subject.
    """

    def __init__(self, folder: Path, subject: Mapping[str, Any]) -> None:
        self.folder = folder
        self._parts = folder / "parts"
        self._parts.mkdir(parents=True, exist_ok=True)
        self.subject: dict[str, Any] = plain(subject)
        saved = _read(self._parts / "subject.json")
        if saved is None:
            write_json(self._parts / "subject.json", self.subject)
        elif saved != self.subject:
            now = self.subject
            differing = [key for key in {**saved, **now} if saved.get(key) != now.get(key)]
            shown = "; ".join(f"{key}: {_shown(saved.get(key))} there, {_shown(now.get(key))} now" for key in differing)
            raise ValueError(f"{folder} holds results of something else ({shown}). Choose another --output.")

    def is_done(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether this part is there, made with these settings."""
        saved = _read(self._file(name))
        return saved is not None and saved["settings"] == plain(settings)

    def make(self, name: str, settings: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The part as it was saved with the same settings, or computed and saved now.

        Args:
            name: kind of quantity, a slash, and what distinguishes parts of that kind.
        """
        if not self.is_done(name, settings):
            write_json(self._file(name), {"name": name, "settings": settings, "values": compute()})
        saved = _read(self._file(name))
        if saved is None:
            raise OSError(f"{self._file(name)} vanished while it was read.")
        return saved["values"]

    def assemble(self, facts: Mapping[str, Any]) -> Path:
        """Write everything into one file: the facts, and every part under its kind and name."""
        joined: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **facts}
        for file in sorted(self._parts.glob("*.*.json")):
            part = _read(file)
            if part is not None:
                kind, _, name = part["name"].partition("/")
                joined.setdefault(kind, {})[name] = {**part["values"], "settings": part["settings"]}
        return write_json(self.folder / SHARPNESS_RESULTS, joined)

    def _file(self, name: str) -> Path:
        kind, _, rest = name.partition("/")
        return self._parts / f"{kind}.{rest.replace(' ', '_').replace('/', '_')}.json"


def _read(path: Path) -> Any:
    return read_json(path, advice=_ADVICE)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:100] + "..."
