"""Run a function over many chunks on all cores or a Ray cluster, results in the given order.

The functions are module-level and pure but for the files they name, so that any worker may run
any chunk, and a chunk may run twice.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from real_vs_ai.core.ray_cluster import map_on_ray
from real_vs_ai.core.reporting import progress

_blas_lock = threading.RLock()
T = TypeVar("T")
CLUSTERS = ("ray",)


@dataclass(frozen=True)
class Pool:
    """Where chunks run.

    Attributes:
        workers: Processes on this machine; a Ray cluster uses what it has.
        cluster: "ray", or None for this machine.
    """

    workers: int
    cluster: str | None = None


def available_workers() -> int:
    """Processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


@functools.cache
def _blas_libraries() -> Any:
    # Looking for them takes a millisecond.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let NumPy's matrix products use one thread, in the whole process; others wait for their turn.

    OpenBLAS' further threads keep their cores busy for some time after a product. A network that
    another library runs next then has fewer: on 2 cores it took twice as long. Only the thread that
    set the limit can lift it, so that no two may overlap.
    """
    with _blas_lock, _blas_libraries().limit(limits=1, user_api="blas"):
        yield


def chunked(items: Sequence[T], *, size: int) -> list[Sequence[T]]:
    """The items in runs of at most `size`, in order."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def run_chunks(
    function: Callable[..., Sequence[Any]],
    chunks: Sequence[Sequence[Any]],
    *arguments: Any,
    pool: Pool,
    description: str,
    unit: str,
    fewest: int = 1000,
) -> Iterator[Any]:
    """Yield the results of `function(chunk, *arguments)`, one for each item, in order.

    Args:
        function: Module-level; takes a chunk and returns one result for each of its items.
        unit: Of what the items are: "image", "file".
        fewest: Items worth starting processes for, which takes as long as a thousand small files.

    Raises:
        MemoryError: The system ended a worker.
        InputError: Ray is asked for and not installed.
    """
    n_items = sum(map(len, chunks))
    if pool.cluster is None and (pool.workers <= 1 or n_items < fewest):
        done: Iterator[Sequence[Any]] = (function(chunk, *arguments) for chunk in chunks)
    elif pool.cluster:
        done = map_on_ray(function, chunks, *arguments)
    else:
        done = _run_on_cores(function, chunks, arguments, pool.workers)
    with progress(description=description, unit=unit, total=n_items) as bar:
        for results in done:
            yield from results
            bar.update(len(results))


def run_each(
    function: Callable[..., T], items: Sequence[Any], *arguments: Any, size: int, **options: Any
) -> Iterator[T]:
    """Yield `function(item, *arguments)` for each item, in order.

    Args:
        size: Items of a chunk, which one worker takes at a time.
        **options: `pool`, `description`, `unit` and `fewest` of `run_chunks`.
    """
    return run_chunks(_each, chunked(items, size=size), function, *arguments, **options)


def _each(chunk: Sequence[Any], function: Callable[..., T], *arguments: Any) -> list[T]:
    return [function(item, *arguments) for item in chunk]


def _run_on_cores(
    function: Callable[..., Sequence[Any]],
    chunks: Iterable[Sequence[Any]],
    arguments: tuple[Any, ...],
    workers: int,
) -> Iterator[Sequence[Any]]:
    # Imported here, since scripts name their options before they check the packages.
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
        parallel = Parallel(return_as="generator")
        try:
            yield from parallel(delayed(function)(chunk, *arguments) for chunk in chunks)
        except TerminatedWorkerError as error:
            raise MemoryError(
                "The system ended a worker process, probably because memory ran out; "
                f"{workers} were running. Use fewer --workers."
            ) from error
