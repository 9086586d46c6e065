"""Train one model with several processes, on one host or many (JAX backend).

    hosts = join_hosts()                # alone, unless the environment names others
    with hosts.together(run_hint):      # a process that fails ends all of them
        name = hosts.share(name)        # everybody gets the first one's

Started by the variables that Keras documents (KERAS_DISTRIBUTION_JOB_ADDRESSES, …_NUM_PROCESSES,
…_PROCESS_ID) or by SLURM's. Only the first process writes files; all of them read the run folder,
so it must be on a file system that they share.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np

from real_vs_ai.errors import InputError, one_line

_COUNT = "KERAS_DISTRIBUTION_NUM_PROCESSES"
# What collective operations say when the other side of a connection has gone.
_LOST = ("Gloo", "NCCL", "Connection reset", "Connection closed", "heartbeat", "UNAVAILABLE")
_TEXT_BYTES = 512


@dataclass(frozen=True)
class Hosts:
    """This process among those that train together.

    Attributes:
        index: 0 for the first, which writes the files.
        count: How many there are.
    """

    index: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.index == 0

    def share(self, text: str) -> str:
        """The first process's text, in all of them; waits until all have come here."""
        if self.count == 1:
            return text
        from jax.experimental import multihost_utils

        data = np.zeros(_TEXT_BYTES, np.uint8)
        encoded = text.encode()[:_TEXT_BYTES]
        data[: len(encoded)] = np.frombuffer(encoded, np.uint8)
        shared = np.asarray(multihost_utils.broadcast_one_to_all(data), np.uint8)
        return shared.tobytes().rstrip(b"\0").decode()

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.share("")

    def leave(self) -> None:
        """End the common work; what follows is this process's own."""
        keras.distribution.set_distribution(None)
        if self.count > 1:
            import jax

            jax.distributed.shutdown()

    @contextmanager
    def together(self) -> Iterator[None]:
        """End this process at once when its part fails, so that the others notice.

        Leaving through the interpreter's exit would wait minutes for processes that wait for
        this one.
        """
        try:
            yield
        except BaseException as error:
            if self.count == 1:
                raise
            text = one_line(error, longest=300)
            if any(sign in text for sign in _LOST):
                text = (
                    f"Another of the {self.count} processes has ended ({text[:120]}). When all "
                    "can run again, start each of them with --resume."
                )
            print(f"error: process {self.index}: {text}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(1)


def join_hosts() -> Hosts:
    """Meet the other processes that the environment names, if it names any.

    Raises:
        ValueError: Others are named, but the backend cannot train with them.
    """
    slurm_tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or "1"
    count = int(os.environ.get(_COUNT) or slurm_tasks)
    if count < 2:
        return Hosts(0, 1)
    if keras.backend.backend() != "jax":
        raise InputError(
            f"{count} processes are to train together, which needs Keras on JAX: install "
            "requirements-jax.txt and set KERAS_BACKEND=jax. One process alone uses all GPUs of "
            "its host."
        )
    import jax

    keras.distribution.initialize()
    return Hosts(jax.process_index(), jax.process_count())
