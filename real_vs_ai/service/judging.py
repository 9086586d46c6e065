"""Judge the files of all clients, with shared models on this machine or with replicas of them."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from real_vs_ai.errors import one_line
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.options import available_workers
from real_vs_ai.service.limits import Limits
from real_vs_ai.serving.judge import Answer, Judge
from real_vs_ai.serving.judging_queue import ModelUnavailableError
from real_vs_ai.serving.score_table import describe_models


class ServiceJudge(Protocol):
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
    """Judges on this machine; see `ServiceJudge`."""

    def __init__(self, model_path: Path, *, limits: Limits) -> None:
        """Begin to open the model, or all of a folder: each file is judged by the one of its size.

        Raises:
            FileNotFoundError: There is no such model.
            ModelFileError: It is not one of our model files.
        """
        self._judge = Judge(
            model_path, max_bytes=limits.max_image_bytes, max_pixels=limits.max_image_pixels
        )
        self.metadata = self._judge.metadata
        self.models = describe_models(model_path)
        self._decoders = ThreadPoolExecutor(available_workers(), thread_name_prefix="decode")

    def unready_because(self) -> str:
        if self._judge.is_opening:
            return "The model is being opened."
        try:
            self._judge.detector()
        except ModelUnavailableError as error:
            return f"The model cannot be used: {one_line(error)}"
        return ""

    def wait_until_open(self) -> None:
        """Wait for the model; raises ModelUnavailableError when it cannot be opened."""
        self._judge.detector()

    async def judge(self, name: str, data: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        pending = await loop.run_in_executor(self._decoders, self._judge.begin, name, data)
        if pending.verdict is not None:
            # What goes wrong stands in the answer.
            with contextlib.suppress(Exception):
                await asyncio.wrap_future(pending.verdict)
        return pending.finish()

    def close(self) -> None:
        self._judge.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)
