"""`sharpness.json`, put together from parts that are each written when they are finished, so that a killed run resumes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FILE_NAME = "sharpness.json"
SCHEMA_VERSION = 1


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
        saved = read_json(self._parts / "subject.json")
        if saved is None:
            write_json(self._parts / "subject.json", self.subject)
        elif saved != self.subject:
            now = self.subject
            differing = [key for key in {**saved, **now} if saved.get(key) != now.get(key)]
            shown = "; ".join(f"{key}: {_shown(saved.get(key))} there, {_shown(now.get(key))} now" for key in differing)
            raise ValueError(f"{folder} holds results of something else ({shown}). Choose another --output.")

    def is_done(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether this part is there, made with these settings."""
        saved = read_json(self._file(name))
        return saved is not None and saved["settings"] == plain(settings)

    def make(self, name: str, settings: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The part as it was saved with the same settings, or computed and saved now.

        Args:
            name: kind of quantity, a slash, and what distinguishes parts of that kind.
        """
        if not self.is_done(name, settings):
            write_json(self._file(name), {"name": name, "settings": settings, "values": compute()})
        saved = read_json(self._file(name))
        if saved is None:
            raise OSError(f"{self._file(name)} vanished while it was read.")
        return saved["values"]

    def assemble(self, facts: Mapping[str, Any]) -> Path:
        """Write `sharpness.json`: the facts, and every part under its kind and name."""
        joined: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **facts}
        for file in sorted(self._parts.glob("*.*.json")):
            part = read_json(file)
            if part is not None:
                kind, _, name = part["name"].partition("/")
                joined.setdefault(kind, {})[name] = {**part["values"], "settings": part["settings"]}
        return write_json(self.folder / FILE_NAME, joined)

    def _file(self, name: str) -> Path:
        kind, _, rest = name.partition("/")
        return self._parts / f"{kind}.{rest.replace(' ', '_').replace('/', '_')}.json"


def read_json(path: Path) -> Any:
    """None where there is no such file.

    Raises:
        ValueError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Remove it: this part is then computed again.") from error


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """All of it or nothing: a crash leaves the file that was there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(plain(values), file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        return temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """Containers and numbers as JSON knows them; a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:100] + "..."
