"""Choose the device, the precision and what trains together: devices here, processes anywhere.

Several processes train on JAX. They are started by the variables that Keras documents
(KERAS_DISTRIBUTION_JOB_ADDRESSES, …_NUM_PROCESSES, …_PROCESS_ID) or by SLURM's. Only the first
process writes files; all of them read the run folder, so it must be on a shared file system.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

from real_vs_ai.core.errors import InputError, one_line
from real_vs_ai.core.reporting import plural
from real_vs_ai.models.openvino_form import computes_in_bf16


@dataclass(frozen=True)
class Device:
    """Where and how the network learns.

    Attributes:
        strategy: TensorFlow's strategy for several GPUs, or None.
    """

    description: str
    precision: str
    strategy: Any

    def scope(self) -> AbstractContextManager[None]:
        """The context to build and train the model in."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    @property
    def jit_compile(self) -> bool | str:
        """What to compile a model with: XLA makes ResNets several times slower on CPUs."""
        on_cpu = keras.backend.backend() == "tensorflow" and not _gpus()
        return False if on_cpu else "auto"

    @property
    def fused_operations(self) -> bool:
        """Whether TensorFlow's fused operations can be used: on one device of its own backend."""
        return keras.backend.backend() == "tensorflow" and self.strategy is None


def prepare_device(*, precision: str, deterministic: bool, batch_size: int, hosts: Hosts) -> Device:
    """Find and set up GPU or CPU, and set the precision policy.

    Args:
        precision: A Keras policy, or "auto" for that of `best_precision`.
    """
    gpus = _gpus()
    _set_up_tensorflow(gpus, deterministic=deterministic)
    if precision == "auto":
        # All processes must calculate alike, whatever each of them has.
        precision = hosts.share(best_precision(gpus))
    keras.config.set_dtype_policy(precision)
    strategy = _mirrored_strategy(gpus)
    if keras.backend.backend() == "jax":
        _distribute_jax(batch_size, hosts)
    where = plural(len(gpus), "GPU") if gpus else "CPU (no GPU found)"
    if strategy and not gpus:
        where = f"{strategy.num_replicas_in_sync} logical CPUs"
    if hosts.count > 1:
        where += f" in {hosts.count} processes"
    backend = keras.backend.backend()
    description = f"Training on {where} in {precision}, {backend} {version(backend)}."
    return Device(description, precision, strategy)


def best_precision(gpus: list[Any]) -> str:
    """The half precision that the hardware computes in, bfloat16 first; float32 where it has none.

    bfloat16 needs no loss scaling. NVIDIA's GPUs have it from compute capability 8 on, tensor cores
    for float16 from 7.
    """
    if not gpus:
        return "mixed_bfloat16" if computes_in_bf16() else "float32"
    capability = _compute_capability(gpus[0])
    if capability >= 8:
        return "mixed_bfloat16"
    return "mixed_float16" if capability >= 7 else "float32"


def _compute_capability(gpu: Any) -> float:
    """Of an NVIDIA GPU, 8.6 for example; 0 of another one, and infinite of a TPU."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(gpu)
        major, minor = details.get("compute_capability", (0, 0))
        return major + minor / 10
    import jax

    device = jax.devices()[0]
    is_tpu = device.platform == "tpu"
    return math.inf if is_tpu else float(getattr(device, "compute_capability", 0))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a backend's error means that the device's memory is full."""
    text = f"{type(error).__name__} {error}"
    signs = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "OOM when allocating")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


def _gpus() -> list[Any]:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.config.list_physical_devices("GPU")
    return [name for name in keras.distribution.list_devices() if not name.startswith("cpu")]


def _set_up_tensorflow(gpus: list[Any], *, deterministic: bool) -> None:
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        # It only prepares batches then, and must not take the GPUs' memory.
        tf.config.set_visible_devices([], "GPU")
        return
    for gpu in gpus:
        # A RuntimeError means that TensorFlow already runs in this process.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def _mirrored_strategy(gpus: list[Any]) -> Any:
    """A strategy over all GPUs of this machine when there are several, otherwise None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    # Several logical CPUs stand in for GPUs where there are none.
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        return None
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _distribute_jax(batch_size: int, hosts: Hosts) -> None:
    """Share each batch out over the devices of all processes."""
    count = len(keras.distribution.list_devices())
    if count < 2:
        return
    if batch_size % count:
        raise InputError(
            f"Expected a --batch-size that {count} devices can share, got {batch_size}: "
            f"use {max(1, batch_size // count) * count}."
        )
    # Each process makes its own part of every batch.
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


_COUNT = "KERAS_DISTRIBUTION_NUM_PROCESSES"
# What collective operations say when the other side of a connection has gone.
_LOST = ("Gloo", "NCCL", "Connection reset", "Connection closed", "heartbeat", "UNAVAILABLE")
_TEXT_BYTES = 512


@dataclass(frozen=True)
class Hosts:
    """One of the processes that train together.

    Attributes:
        index: 0 for the first, which writes the files.
    """

    index: int
    count: int

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def rows(self, batch_size: int) -> slice:
        """This process's part of a batch of all: in a row, as one process alone would have it."""
        part = batch_size // self.count
        return slice(self.index * part, (self.index + 1) * part)

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


ALONE = Hosts(0, 1)


def join_hosts() -> Hosts:
    """Meet the processes that the environment names; InputError if the backend cannot join them."""
    slurm_tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or "1"
    count = int(os.environ.get(_COUNT) or slurm_tasks)
    if count < 2:
        return ALONE
    if keras.backend.backend() != "jax":
        raise InputError(
            f"{count} processes are to train together, which needs Keras on JAX. Run: "
            'pip install -e ".[jax]", and set KERAS_BACKEND=jax. One process alone uses all GPUs '
            "of its host."
        )
    import jax

    keras.distribution.initialize()
    return Hosts(jax.process_index(), jax.process_count())
