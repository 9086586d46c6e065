"""Say which model answers: its name, its file, and what the file says of it.

A model is told from another by the SHA-256 of its file, and by nothing else. The file is hashed
once, and only as long as it is the file that was opened.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import FileStamp, file_stamp, read_json
from real_vs_ai.models.model_file import ModelFileError, ModelMetadata, read_metadata
from real_vs_ai.models.runs import RunFolder, find_models, model_name
from real_vs_ai.verdicts.track_record import TrackRecord, read_track_record
from real_vs_ai.verdicts.verdict import thresholds_of


@dataclass(frozen=True)
class ServedModel:
    """A model that answers, as tables, pages and reports speak of it.

    Attributes:
        name: What people call it.
        path: The `.h5` file.
        metadata: What the file said of the model when it was read.
        stamp: Of the file before it was read; None where there is none (a fake engine).
    """

    name: str
    path: Path
    metadata: ModelMetadata
    stamp: FileStamp | None = None

    @classmethod
    def read(cls, path: Path, metadata: ModelMetadata | None = None) -> ServedModel:
        """The model of a file, perhaps with other metadata than the file's.

        Raises:
            FileNotFoundError: There is no such file.
            ModelFileError: It has no metadata, or damaged ones.
        """
        stamp = file_stamp(path)
        return cls(model_name(path), path, metadata or read_metadata(path), stamp)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the file that was read, hexadecimal; "" where there is none. It takes 0.2 s once.

        Raises:
            ModelFileError: The file was replaced before it could be hashed.
        """
        if self.stamp is None:
            return ""
        self.require_unchanged()
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.require_unchanged()
        return digest

    def require_unchanged(self) -> None:
        """Raise a ModelFileError where another file stands under the path by now."""
        if self.stamp is not None and file_stamp(self.path) != self.stamp:
            raise ModelFileError(f"{self.path} was replaced while it was opened; open it again.")

    @functools.cached_property
    def record(self) -> TrackRecord:
        """How often it answers and is wrong.

        The report beside the file says it, by kinds of pictures too; without one, the file does.
        """
        own = self.metadata.metrics
        try:
            reported = read_json(RunFolder(self.path.parent).metrics)["test"]
            # The file holds most of its own report. Where they differ, it is another model's.
            is_own = bool(own) and all(reported[name] == value for name, value in own.items())
            return read_track_record(reported if is_own else own)
        except (OSError, InputError, KeyError, TypeError):
            return read_track_record(own)

    def describe(self) -> dict[str, Any]:
        """The same for JSON."""
        metadata = self.metadata
        return {
            "name": self.name,
            "sha256": self.sha256,
            "class_names": list(metadata.class_names),
            "image_size": metadata.image_size,
            "calibrated": metadata.calibrated,
            "thresholds": thresholds_of(metadata),
            "created": metadata.created,
            "versions": metadata.versions,
        }


def served_models(path: str | Path | None) -> tuple[ServedModel, ...]:
    """The models that `Detector.open` would open.

    Raises:
        FileNotFoundError: There is no such model.
        ModelFileError: A file has no metadata, or damaged ones.
    """
    return tuple(map(ServedModel.read, find_models(path)))
