"""Spread scoring over a Ray cluster.

Every machine must see the images under the same paths; the model is sent to them. Ray runs the work
of a worker that died again on another one, and scores are taken in the order of their sources, so
that nothing is lost or doubled. `RAY_ADDRESS` names the cluster; without it Ray uses this machine.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from real_vs_ai.files import hash_file, write_bytes
from real_vs_ai.model_file import read_metadata
from real_vs_ai.parallel import join_cluster, worker_environment
from real_vs_ai.runs import model_name
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.image_sources import ImageSource
from real_vs_ai.serving.judge import Answer, judge_files
from real_vs_ai.serving.model_cache import cache_dir
from real_vs_ai.serving.score_table import describe_model

_CORES_PER_TASK = 2
# Large enough that a task costs little compared with its images, small enough to repeat.
_IMAGES_PER_TASK = 256
_RETRIES = 10


class RayScorer:
    """Scores on a Ray cluster; see `scoring_job.Scorer`."""

    def __init__(self, model_path: Path, *, precision: str | None) -> None:
        """Join the cluster; see `join_cluster` and `read_metadata` for what may be wrong."""
        self.metadata = read_metadata(model_path)
        cores = join_cluster()
        import ray

        self._fingerprint = hash_file(model_path)
        self._precision = precision
        computed_in = precision or "each machine's own precision"
        self.engine = f"ray ({computed_in})"
        self.identity = f"{self._fingerprint[:16]} {self.engine}"
        self._name = model_name(model_path)
        self.models = [describe_model(self._name, self._fingerprint, self.metadata)]
        self._ray = ray
        self._model = ray.put(model_path.read_bytes())
        # A task that asks for more than the smallest machine has would wait forever there.
        self._cores_per_task = min([_CORES_PER_TASK, *filter(None, cores)])
        self._tasks_ahead = 2 * max(1, sum(cores) // self._cores_per_task)

    def score(self, sources: Iterable[ImageSource]) -> Iterator[Answer]:
        task = self._ray.remote(
            num_cpus=self._cores_per_task,
            max_retries=_RETRIES,
            runtime_env={"env_vars": worker_environment(self._cores_per_task)},
        )(_score_chunk)
        sources = iter(sources)
        waiting: deque = deque()
        while chunk := list(itertools.islice(sources, _IMAGES_PER_TASK)):
            waiting.append(
                task.remote(
                    self._model,
                    self._fingerprint,
                    _absolute(chunk),
                    workers=self._cores_per_task,
                    precision=self._precision,
                )
            )
            if len(waiting) > self._tasks_ahead:
                yield from self._named(self._ray.get(waiting.popleft()))
        while waiting:
            yield from self._named(self._ray.get(waiting.popleft()))

    def _named(self, answers: list[Answer]) -> Iterator[Answer]:
        """The answers with the model's own name: workers know only the copy they were sent."""
        for answer in answers:
            if answer.verdict is not None:
                answer = replace(answer, verdict=replace(answer.verdict, model=self._name))
            yield answer


def _absolute(sources: list[ImageSource]) -> list[ImageSource]:
    # Workers are started in folders of their own; the names in the table stay as they are.
    return [replace(source, file=str(Path(source.file).resolve())) for source in sources]


def _score_chunk(
    model: bytes,
    model_fingerprint: str,
    sources: list[ImageSource],
    *,
    workers: int,
    precision: str | None,
) -> list[Answer]:
    """Runs on a worker, which keeps the opened model for its next chunk."""
    path = cache_dir() / "sent" / f"{model_fingerprint[:32]}.h5"
    if not path.is_file():
        try:
            write_bytes(path, model)
        except OSError as error:
            raise OSError(f"Expected room for the model in {path.parent}: {error}") from error
    detector = _opened(path, precision)
    return list(judge_files(sources, detector=detector, workers=workers))


@functools.lru_cache(maxsize=1)
def _opened(path: Path, precision: str | None) -> Detector:
    return Detector.open(path, precision=precision)
