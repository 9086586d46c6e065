"""Make OpenVINO's form of a Keras model file, without Keras, and keep it in a cache folder.

An entry of the cache belongs to one content of the file and one set of versions. It appears whole
or not at all, and processes that need the same one at the same time wait for the first. What a
changed file or version leaves behind is removed when its successor is made. `REAL_VS_AI_CACHE`
names another folder.

Stock Keras can read and export the models too, but it keeps hundreds of transposes (a third more
time for each image) and fixes the number of images.
"""

from __future__ import annotations

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
import openvino as ov
import platformdirs

from real_vs_ai.errors import RealVsAIError, one_line
from real_vs_ai.files import atomic_folder, hash_file
from real_vs_ai.out_of_distribution.check import read_check
from real_vs_ai.serving.keras_graph import UnsupportedGraphError, fold_normalisation, read_graph
from real_vs_ai.serving.openvino_layers import build_network

IR_NAME = "model.xml"
_ENTRY_NAME = "entry.json"
# Raised when what an entry holds changes its form.
_LAYOUT_VERSION = 6
_LOCK_TIMEOUT_SECONDS = 900
# Characters of the file's hash in an entry's name.
_NAME_LENGTH = 32
# What a killed conversion left; no conversion takes as long.
_ABANDONED_SECONDS = 24 * 3600


class ConversionError(RealVsAIError, RuntimeError):
    """The model has no OpenVINO form; the message is one line that says why."""


@dataclass(frozen=True)
class CacheEntry:
    """One model's folder in the cache.

    Attributes:
        folder: Holds the IR.
        is_temporary: The cache folder could not be written: gone when the process ends.
    """

    folder: Path
    is_temporary: bool = False

    @property
    def ir(self) -> Path:
        return self.folder / IR_NAME


def build_model(model_path: Path, *, layer: str | None = None) -> ov.Model:
    """The model for any number of images, weights in float32.

    Its first output is the softmax. A layer's features, one row for each image, are the second.

    Args:
        model_path: A Keras model file (`.h5`).
        layer: Name of that layer; None for the one whose statistics the file holds, if any.

    Raises:
        UnsupportedGraphError: The file holds something that only Keras can run.
        ConversionError: It cannot be read, or OpenVINO refuses it.
    """
    try:
        graph = fold_normalisation(read_graph(model_path))
        network = build_network(graph, batch_size=None)
        outputs = [network.outputs[graph.output]]
        check = None if layer else read_check(model_path)
        features = network.outputs.get(check.layer if check else layer or "")
        if features is not None and features.get_partial_shape().rank.get_length() == 2:
            outputs.append(features)
        return ov.Model(outputs, [network.parameter], "model")
    except (OSError, RuntimeError) as error:
        raise ConversionError(f"conversion to OpenVINO failed: {one_line(error)}") from error


def convert(model_path: Path, *, output_dir: Path) -> Path:
    """Write the model of `build_model` as OpenVINO IR into an existing folder.

    Returns:
        The path of the `.xml`; its `.bin` lies in the same folder.

    Raises:
        ConversionError: The file cannot be read, or holds layers that only Keras can run.
    """
    try:
        model = build_model(model_path)
    except UnsupportedGraphError as error:
        raise ConversionError(f"conversion to OpenVINO failed: {error}") from error
    ov.save_model(model, output_dir / IR_NAME, compress_to_fp16=False)
    return output_dir / IR_NAME


def cache_dir() -> Path:
    """`REAL_VS_AI_CACHE`, otherwise the cache folder that the system gives its user."""
    named = os.environ.get("REAL_VS_AI_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("real-vs-ai", appauthor=False)


def cached_ir(model_path: Path) -> CacheEntry:
    """The cache entry with the model's OpenVINO form, made now if there is none.

    Raises:
        ConversionError: The model cannot be converted.
    """
    content, versions = hash_file(model_path), _versions()
    digest = hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()
    folder = cache_dir() / "models" / f"{content[:_NAME_LENGTH]}-{digest[:8]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_whole(folder):
            with filelock.FileLock(f"{folder}.lock", timeout=_LOCK_TIMEOUT_SECONDS):
                if not _is_whole(folder):
                    _make_entry(model_path, folder=folder, versions=versions, content=content)
        return CacheEntry(folder)
    except (OSError, filelock.Timeout):
        # A read-only home or a full disk costs time at every start, never the verdict.
        folder = Path(tempfile.mkdtemp(prefix="real-vs-ai-"))
        convert(model_path, output_dir=folder)
        return CacheEntry(folder, is_temporary=True)


def discard(entry: CacheEntry) -> None:
    """Remove an entry that was temporary."""
    shutil.rmtree(entry.folder, ignore_errors=True)


def _make_entry(model_path: Path, *, folder: Path, versions: dict[str, str], content: str) -> None:
    # What a killed or damaged attempt left under this name is worth nothing.
    with atomic_folder(folder) as staging:
        convert(model_path, output_dir=staging)
        if hash_file(model_path) != content:
            raise ConversionError(f"{model_path} changed while it was converted. Open it again.")
        description = {"source": str(model_path.resolve()), "versions": versions}
        (staging / _ENTRY_NAME).write_text(json.dumps(description), encoding="utf-8")
    _remove_superseded(folder, source=model_path.resolve(), versions=versions)


def _remove_superseded(folder: Path, *, source: Path, versions: dict[str, str]) -> None:
    """Remove entries of the same file's older contents, of other versions, and abandoned ones."""
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
