"""Run a function over many chunks on a Ray cluster; the service's replicas join it here too.

Every machine of the cluster must see the files under the same paths.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from real_vs_ai.core.errors import InputError

_RETRIES = 10


def join_cluster() -> list[int]:
    """Join the Ray cluster that RAY_ADDRESS names, or start Ray on this machine.

    Returns:
        The cores of each machine.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            'Expected Ray for --cluster ray, found none. Run: pip install -e ".[ray]"'
        ) from error
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def worker_environment(cores: float) -> dict[str, str]:
    """Each worker's own cores, and where it finds this package: where it is here."""
    package_parent = str(Path(__file__).resolve().parents[2])
    return {"REAL_VS_AI_THREADS": str(max(1, int(cores))), "PYTHONPATH": package_parent}


def map_on_ray(
    function: Callable[..., Sequence[Any]],
    chunks: Iterable[Sequence[Any]],
    *arguments: Any,
    cores: int = 1,
) -> Iterator[Sequence[Any]]:
    """Yield `function(chunk, *arguments)` of each chunk, in order.

    Ray runs the work of a worker that died again on another one; nothing is lost or doubled.

    Args:
        function: Module-level.
        chunks: Taken as workers become free.
        cores: What a task may use where its machine has as many; REAL_VS_AI_THREADS tells it.
    """
    machines = join_cluster()
    import ray

    # A task that asks for more than the smallest machine has would wait forever there.
    share = min([cores, *filter(None, machines)])
    environment = {"env_vars": worker_environment(share)}
    task = ray.remote(num_cpus=share, max_retries=_RETRIES, runtime_env=environment)(function)
    waiting: deque[Any] = deque()
    for chunk in chunks:
        waiting.append(task.remote(chunk, *arguments))
        if len(waiting) > 2 * max(1, sum(machines) // share):
            yield ray.get(waiting.popleft())
    while waiting:
        yield ray.get(waiting.popleft())
