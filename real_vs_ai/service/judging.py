"""Judge the files of all clients, with shared models on this machine or with replicas of them.

Replicas run on a Ray cluster, by Ray Serve. Every machine must see the model under the same path. A
file whose replica dies is given to another one: judging changes nothing, so that it may be done
twice. Serve starts a new replica meanwhile. `RAY_ADDRESS` names the cluster; without it Ray uses
this machine.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from real_vs_ai.core.errors import InputError, one_line
from real_vs_ai.core.ray_cluster import join_cluster, worker_environment
from real_vs_ai.service.access import Limits
from real_vs_ai.serving.judge import Answer, Judge
from real_vs_ai.serving.micro_batcher import ModelUnavailableError
from real_vs_ai.serving.served_model import served_models

_CORES_PER_REPLICA = 2
# Twice a batch, so that the next batch waits ready.
_FILES_AT_A_TIME = 64
_ATTEMPTS = 20
_LONGEST_PAUSE_SECONDS = 2.0


class LocalJudge(Judge):
    """Judges on this machine, each file by the model of its size."""

    def __init__(self, model_path: Path, *, limits: Limits) -> None:
        """Begin to open the model, or all of a folder; see `Judge`."""
        super().__init__(
            model_path, max_bytes=limits.max_image_bytes, max_pixels=limits.max_image_pixels
        )
        # Here, since it takes a while: the event loop only reads the result.
        for model in self.models:
            _ = model.sha256
        # They wait for verdicts; the judge bounds how many decode.
        self._threads = ThreadPoolExecutor(_FILES_AT_A_TIME, thread_name_prefix="file")

    def unready_because(self) -> str:
        """Why no file can be judged now, or ""."""
        if self.is_opening:
            return "The model is being opened."
        try:
            self.detector()
        except ModelUnavailableError as error:
            return f"The model cannot be used: {one_line(error)}"
        return ""

    async def answer(self, name: str, data: bytes) -> Answer:
        """Judge one file; one that cannot be read becomes an answer with its error.

        Raises:
            ModelUnavailableError: The model cannot answer.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.judge, name, data)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Replica:
    """One process of the cluster with the model in it."""

    def __init__(self, model_path: str, limits: Limits) -> None:
        """Open the model; Serve sends no files before."""
        self._judge = LocalJudge(Path(model_path), limits=limits)
        self._judge.detector()

    async def answer(self, name: str, data: bytes) -> Answer:
        return await self._judge.answer(name, data)


class RayJudge:
    """Judges on a Ray cluster, as `LocalJudge` does here."""

    def __init__(self, model_path: Path, *, limits: Limits, replicas: int) -> None:
        """Join the cluster, or start Ray on this machine, and wait for the replicas.

        Raises:
            FileNotFoundError: There is no such model.
            InputError: Ray is not installed, or the replicas cannot be started.
        """
        model_path = model_path.resolve()
        self.models = served_models(model_path)
        # Here, since it takes a while: the event loop only reads the results.
        identities = [model.sha256 for model in self.models]
        cores = join_cluster()
        from ray import serve

        # Several services may share a cluster, each with replicas of its own.
        self._name = f"real-vs-ai-{identities[0][:12]}-{os.getpid()}"
        # A replica that asks for more cores than there are would wait forever.
        share = sum(cores) / replicas
        cores_of_one = min(_CORES_PER_REPLICA, max(1, int(share)), share)
        deployment = serve.deployment(
            name="Replica",
            num_replicas=replicas,
            max_ongoing_requests=_FILES_AT_A_TIME,
            health_check_period_s=2,
            ray_actor_options={
                "num_cpus": cores_of_one,
                "runtime_env": {"env_vars": worker_environment(cores_of_one)},
            },
        )(Replica)
        # Requests come in through this process, not through Serve's own HTTP proxies.
        serve.start(proxy_location="Disabled")
        try:
            self._handle = serve.run(
                deployment.bind(str(model_path), limits), name=self._name, route_prefix=None
            )
        except RuntimeError as error:
            raise InputError(f"The replicas cannot be started: {one_line(error)}") from error
        self._serve = serve

    def unready_because(self) -> str:
        # While replicas are replaced, files wait.
        return ""

    async def answer(self, name: str, data: bytes) -> Answer:
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

        lost = (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError)
        for attempt in range(_ATTEMPTS):
            try:
                return await self._handle.answer.remote(name, data)
            except lost:
                await asyncio.sleep(min(0.1 * 2**attempt, _LONGEST_PAUSE_SECONDS))
        raise ModelUnavailableError("no replica answers; ask the one who runs the cluster")

    def close(self) -> None:
        self._serve.delete(self._name)
