"""Keep compiled models in the user's cache folder, one entry for each network.

Entries appear whole or not at all, and processes that need the same one at the same time wait for
the first. An entry belongs to one graph with its weights and one set of versions: new thresholds in
the file need no new one. What a changed network or version leaves behind is removed when its
successor is made. `REAL_VS_AI_CACHE` names another folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs

from real_vs_ai.files import atomic_folder, hash_file, write_text
from real_vs_ai.serving.conversion import IR_NAME, ConversionError, convert, feature_layer
from real_vs_ai.serving.keras_graph import StoredModel

_ENTRY_NAME = "entry.json"
# Raised when what an entry holds changes its form.
_LAYOUT_VERSION = 4
_LOCK_TIMEOUT_SECONDS = 900
# Characters of the fingerprint in an entry's name.
_NAME_LENGTH = 32
# A file that was written longer ago is taken to be whole.
_SETTLED_SECONDS = 10
# What a killed conversion left; no conversion takes as long.
_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class CacheEntry:
    """One model's folder in the cache.

    Attributes:
        folder: Holds the IR and whatever is compiled from it.
        is_temporary: The cache folder could not be written: gone when the process ends.
    """

    folder: Path
    is_temporary: bool = False

    @property
    def ir(self) -> Path:
        return self.folder / IR_NAME


def cache_dir() -> Path:
    """`REAL_VS_AI_CACHE`, otherwise the cache folder that the system gives its user."""
    named = os.environ.get("REAL_VS_AI_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("real-vs-ai", appauthor=False)


def _known_fingerprint(stored: StoredModel, state: tuple[int, int, int], notes: Path) -> str:
    """`_network_fingerprint`, remembered for as long as the file is not touched."""
    key = hashlib.sha256(str(stored.path.resolve()).encode()).hexdigest()[:_NAME_LENGTH]
    note = notes / f"{key}.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["state"] == list(state):
            return str(known["network"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = _network_fingerprint(stored)
    # Not while it may still be written: a later change could leave time and size as they are.
    if time.time() - state[2] / 1e9 > _SETTLED_SECONDS:
        # A note that cannot be written is made again the next time.
        with contextlib.suppress(OSError):
            write_text(note, json.dumps({"state": state, "network": found}))
    return found


def _network_fingerprint(stored: StoredModel) -> str:
    """Fingerprint of the graph, its weights and its outputs, and of nothing else in the file."""
    try:
        digest = stored.digest()
        digest.update(repr(feature_layer(stored.path)).encode())
        return digest.hexdigest()[:_NAME_LENGTH]
    except (OSError, KeyError):
        # No Keras model. The conversion will say so.
        return hash_file(stored.path)[:_NAME_LENGTH]


def cached_ir(model_path: Path) -> CacheEntry:
    """The cache entry with the model's OpenVINO form, made now if there is none.

    Raises:
        ConversionError: The model cannot be converted.
    """
    versions, state = _versions(), _state(model_path)
    try:
        with StoredModel(model_path) as stored:
            return _find_or_make(stored, versions=versions, state=state)
    except (OSError, filelock.Timeout):
        # A read-only home or a full disk costs time at every start, never the verdict.
        folder = Path(tempfile.mkdtemp(prefix="real-vs-ai-"))
        convert(model_path, output_dir=folder)
        return CacheEntry(folder, is_temporary=True)


def _find_or_make(
    stored: StoredModel, *, versions: dict[str, str], state: tuple[int, int, int]
) -> CacheEntry:
    root = cache_dir() / "models"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = f"{_known_fingerprint(stored, state, root)}-{_digest(versions)}"
    folder = root / name
    if _is_whole(folder):
        return CacheEntry(folder)
    with filelock.FileLock(root / f"{name}.lock", timeout=_LOCK_TIMEOUT_SECONDS):
        if not _is_whole(folder):
            _make_entry(stored, folder=folder, versions=versions, state=state)
    return CacheEntry(folder)


def discard(entry: CacheEntry) -> None:
    """Remove an entry that turned out to be damaged, or that was temporary."""
    shutil.rmtree(entry.folder, ignore_errors=True)


def _state(model_path: Path) -> tuple[int, int, int]:
    """Differs after the file was replaced or written to."""
    found = model_path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _make_entry(
    stored: StoredModel, *, folder: Path, versions: dict[str, str], state: tuple[int, int, int]
) -> None:
    model_path = stored.path
    # What a killed or damaged attempt left under this name is worth nothing.
    with atomic_folder(folder) as staging:
        convert(model_path, output_dir=staging, stored=stored)
        if _state(model_path) != state:
            raise ConversionError(f"{model_path} changed while it was converted. Open it again.")
        description = {"source": str(model_path.resolve()), "versions": versions}
        (staging / _ENTRY_NAME).write_text(json.dumps(description), encoding="utf-8")
    _remove_superseded(folder, source=model_path.resolve(), versions=versions)


def _remove_superseded(folder: Path, *, source: Path, versions: dict[str, str]) -> None:
    """Remove entries of the same file's older networks, of other versions, and abandoned ones."""
    for other in folder.parent.iterdir():
        if other == folder or not other.is_dir():
            continue
        if other.name.startswith("."):
            if time.time() - other.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
            continue
        description = _description(other)
        if description.get("versions") != versions or description.get("source") == str(source):
            # Where it is still open (Windows), it stays until the next time.
            shutil.rmtree(other, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    return bool(_description(folder)) and (folder / IR_NAME).is_file()


def _description(folder: Path) -> dict:
    try:
        return json.loads((folder / _ENTRY_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _versions() -> dict[str, str]:
    return {"openvino": importlib.metadata.version("openvino"), "layout": str(_LAYOUT_VERSION)}


def _digest(values: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
