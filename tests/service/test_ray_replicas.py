"""Replicas on a Ray cluster give the same answers, even if one is killed under load."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from real_vs_ai.service.access import Limits
from tests.ray_nodes import start_nodes
from tests.serving.trivial_model import encode, uniform_image

ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
pytest.importorskip("ray.serve", reason="Ray Serve is not installed (extra ray)")
pytestmark = [pytest.mark.slow, pytest.mark.optional]

FILES = 600
KILLED_AFTER = 100


@pytest.fixture
def cluster():
    """Ray on this machine's loopback, with two cores."""
    memory = 80 * 2**20
    start_nodes(
        lambda: ray.init(
            num_cpus=2, object_store_memory=memory, include_dashboard=False, log_to_driver=False
        )
    )
    yield
    ray.shutdown()


def replica_processes() -> list[int]:
    import psutil

    # Ray names a replica's process after its class.
    processes = psutil.process_iter(["cmdline", "status"])
    return [
        process.pid
        for process in processes
        if "ServeReplica:real-vs-ai" in " ".join(process.info["cmdline"] or [])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


async def ask_all(judge) -> tuple[list, int]:
    """The answers to many files, and the process that was killed in between."""
    killed = 0
    answered = 0
    turns = asyncio.Semaphore(24)

    async def ask(index: int):
        nonlocal killed, answered
        async with turns:
            answer = await judge.answer(str(index), encode(uniform_image(index % 256)))
        answered += 1
        if answered == KILLED_AFTER:
            killed = replica_processes()[0]
            os.kill(killed, signal.SIGKILL)
        return answer

    return list(await asyncio.gather(*(ask(index) for index in range(FILES)))), killed


def test_no_answer_is_lost_or_wrong_when_a_replica_is_killed(cluster, judge, model_path):
    from real_vs_ai.service.judging import RayJudge

    replicas = RayJudge(model_path, limits=Limits(), replicas=2)
    try:
        assert replicas.models == judge.models
        assert len(replica_processes()) == 2
        answers, killed = asyncio.run(ask_all(replicas))
    finally:
        replicas.close()
    assert killed
    assert [answer.name for answer in answers] == [str(index) for index in range(FILES)]

    async def ask_here():
        levels = range(256)
        files = (encode(uniform_image(level)) for level in levels)
        return [await judge.answer("", data) for data in files]

    here = asyncio.run(ask_here())
    for index, answer in enumerate(answers):
        expected = here[index % 256]
        assert answer.sha256 == expected.sha256
        assert answer.verdict.label == expected.verdict.label
        assert answer.verdict.probability_fake == pytest.approx(
            expected.verdict.probability_fake, abs=1e-4
        )
