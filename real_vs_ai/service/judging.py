"""Judge the files of all clients, with shared models on this machine or with replicas of them."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from real_vs_ai.errors import one_line
from real_vs_ai.files import hash_file
from real_vs_ai.images import ImageTooLargeError, decode_image
from real_vs_ai.model_file import ModelMetadata, read_metadata
from real_vs_ai.options import available_workers
from real_vs_ai.provenance import Finding, read_provenance
from real_vs_ai.runs import find_models, model_name
from real_vs_ai.service.limits import Limits
from real_vs_ai.serving.judging_queue import ModelUnavailableError
from real_vs_ai.serving.score_table import describe_model
from real_vs_ai.serving.scoring import ImageScore
from real_vs_ai.serving.shared_model import SharedModel
from real_vs_ai.verdict import Verdict


@dataclass(frozen=True)
class Answer:
    """What is known of one file.

    Attributes:
        score: As in the scores table.
        findings: What the file says of its origin.
        notes: What was done to it in decoding, one sentence each.
        exceeds_limit: Whether it was refused for its size.
    """

    score: ImageScore
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    exceeds_limit: bool = False


class Judge(Protocol):
    """What judges files, here or elsewhere.

    Attributes:
        metadata: Of the first model; all have its classes.
        models: The models that answer together, as `score_table.describe_model` tells them.
    """

    metadata: ModelMetadata
    models: list[dict[str, Any]]

    def unready_because(self) -> str:
        """Why no file can be judged now, or ""."""

    async def judge(self, name: str, data: bytes) -> Answer:
        """Judge one file; one that cannot be read becomes an answer with its error.

        Raises:
            ModelUnavailableError: The model cannot answer.
        """

    def close(self) -> None:
        """Give back what the judge holds."""


class LocalJudge:
    """Judges on this machine; see `Judge`."""

    def __init__(self, model_path: Path, *, limits: Limits) -> None:
        """Begin to open the model, or all of a folder: each file is judged by the one of its size.

        Raises:
            FileNotFoundError: There is no such model.
            ModelFileError: It is not one of our model files.
        """
        self._model = SharedModel(model_path)
        self.metadata = self._model.metadata
        self.models = describe_models(model_path)
        self._limits = limits
        # A 12-megapixel image takes 36 MB: only as many are decoded at once as there are cores.
        self._decoders = ThreadPoolExecutor(available_workers(), thread_name_prefix="decode")

    def unready_because(self) -> str:
        if self._model.is_opening:
            return "The model is being opened."
        try:
            self._model.detector()
        except ModelUnavailableError as error:
            return f"The model cannot be used: {one_line(error)}"
        return ""

    def wait_until_open(self) -> None:
        """Wait for the model; raises ModelUnavailableError when it cannot be opened."""
        self._model.detector()

    async def judge(self, name: str, data: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        answer, asked = await loop.run_in_executor(self._decoders, self._begin, name, data)
        if asked is None:
            return answer
        try:
            verdict = await asyncio.wrap_future(asked)
        except Exception as error:  # An error of one image belongs to that image.
            return _refuse(name, answer.score.sha256, f"could not be judged: {one_line(error)}")
        return dataclasses.replace(answer, score=dataclasses.replace(answer.score, verdict=verdict))

    def close(self) -> None:
        self._model.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _begin(self, name: str, data: bytes) -> tuple[Answer, Future[Verdict] | None]:
        """Everything but the verdict, which the model computes meanwhile."""
        digest = hashlib.sha256(data).hexdigest()
        limits = self._limits
        try:
            image = decode_image(
                data, max_pixels=limits.max_image_pixels, max_bytes=limits.max_image_bytes
            )
            asked = self._model.submit(image)
            findings = read_provenance(data, image.image)
        except ModelUnavailableError:
            raise
        # No error of one file may spoil the rest of the request.
        except Exception as error:
            too_large = isinstance(error, ImageTooLargeError)
            return _refuse(name, digest, one_line(error), exceeds_limit=too_large), None
        score = ImageScore(
            name,
            width=image.width,
            height=image.height,
            format=image.format,
            provenance=" ".join(finding.text for finding in findings),
            sha256=digest,
        )
        return Answer(score, findings, image.notes), asked


def _refuse(name: str, digest: str, error: str, *, exceeds_limit: bool = False) -> Answer:
    return Answer(ImageScore(name, error=error, sha256=digest), exceeds_limit=exceeds_limit)


def describe_models(path: Path) -> list[dict[str, Any]]:
    """The models of an `.h5` file, or of a folder of several that answer together, for JSON."""
    return [
        describe_model(model_name(one), hash_file(one), read_metadata(one))
        for one in find_models(path)
    ]
