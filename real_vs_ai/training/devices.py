"""Choose the device, the precision and what trains together: devices here, processes anywhere.

Several processes train on JAX. They are started by the variables that Keras documents
(KERAS_DISTRIBUTION_JOB_ADDRESSES, …_NUM_PROCESSES, …_PROCESS_ID) or by SLURM's. Only the first
process writes files; all of them read the run folder, so it must be on a shared file system.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

from real_vs_ai.core.errors import InputError, one_line
from real_vs_ai.core.reporting import plural

_PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# A half precision must be this much faster to be worth its rounding.
_LEAST_GAIN = 1.1
# Units, kernel and stride of the measured network's convolutions.
_MEASURED_LAYERS = (
    *((64, 7, 2), (64, 3, 2), (64, 3, 1), (256, 1, 1), (128, 1, 2), (128, 3, 1), (512, 1, 1)),
    *((256, 1, 2), (256, 3, 1), (1024, 1, 1), (512, 1, 2), (512, 3, 1), (2048, 1, 1)),
)
# The measurement's batch is cut to about this many pixels: it takes a second, not a minute.
_MEASURED_PIXELS = 300_000


@dataclass(frozen=True)
class Device:
    """Where and how the network learns.

    Attributes:
        strategy: TensorFlow's strategy for several GPUs, or None.
        gain: How many times as fast as float32 the precision is here, where that was measured.
    """

    description: str
    precision: str
    strategy: Any
    gain: float = 1.0

    def scope(self) -> AbstractContextManager:
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


def prepare_device(
    *, precision: str, deterministic: bool, image_size: int, batch_size: int, hosts: Hosts
) -> Device:
    """Find and set up GPU or CPU, and set the precision policy.

    Args:
        precision: A Keras policy, or "auto" to measure which one learns fastest here.
        image_size: Of the network, in pixels; the measurement uses it.
    """
    gpus = _gpus()
    _set_up_tensorflow(gpus, deterministic=deterministic)
    rates: dict[str, float] = {}
    if precision == "auto":
        for name in _PRECISIONS if gpus else _PRECISIONS[:2]:
            try:
                rates[name] = measure_learning(name, image_size=image_size, batch_size=batch_size)
            except Exception:
                # Not every kernel knows every precision; backends have no common error for it.
                if name == "float32":
                    raise
        # All processes must calculate alike, whatever each of them measured.
        precision = hosts.share(choose_precision(rates))
    keras.config.set_dtype_policy(precision)
    strategy = _mirrored_strategy(gpus)
    if keras.backend.backend() == "jax":
        _distribute_jax(batch_size, hosts)
    return Device(
        description=_describe(gpus, strategy, hosts, precision=precision, rates=rates),
        precision=precision,
        strategy=strategy,
        gain=rates[precision] / rates["float32"] if rates else 1.0,
    )


def choose_precision(rates: dict[str, float]) -> str:
    """The policy of most images a second; half precisions only where they gain clearly."""
    # bfloat16 before float16 when they are equally fast: it needs no loss scaling.
    ordered = sorted(rates, key=lambda name: (rates[name], name == "mixed_bfloat16"), reverse=True)
    fastest = ordered[0]
    return fastest if rates[fastest] >= _LEAST_GAIN * rates["float32"] else "float32"


def measure_learning(precision: str, *, image_size: int, batch_size: int) -> float:
    """Images a second when a short network learns from one batch.

    It has the layers of one block of each of ResNet101's four stages and runs without being
    traced: tracing the whole network would take half a minute for every policy.
    """
    batch_size = max(1, min(batch_size, _MEASURED_PIXELS // image_size**2))
    network = _short_network(image_size, precision)
    network.compile("sgd", "mse", jit_compile=False)
    generator = np.random.default_rng(0)
    images = generator.standard_normal((batch_size, image_size, image_size, 3), dtype=np.float32)
    targets = np.zeros((batch_size, 2048), np.float32)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        network.train_on_batch(images, targets)
        seconds.append(time.perf_counter() - started)
    return batch_size / min(seconds)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a backend's error means that the device's memory is full."""
    text = f"{type(error).__name__} {error}"
    signs = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "OOM when allocating")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


def _short_network(image_size: int, precision: str) -> keras.Model:
    layers = keras.layers
    x = inputs = keras.Input((image_size, image_size, 3))
    for units, kernel, strides in _MEASURED_LAYERS:
        x = layers.Conv2D(units, kernel, strides, padding="same", dtype=precision)(x)
        x = layers.ReLU(dtype=precision)(layers.BatchNormalization(dtype=precision)(x))
    return keras.Model(inputs, layers.GlobalAveragePooling2D(dtype="float32")(x))


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


def _describe(
    gpus: list[Any], strategy: Any, hosts: Hosts, *, precision: str, rates: dict[str, float]
) -> str:
    where = plural(len(gpus), "GPU") if gpus else "CPU (no GPU found)"
    if strategy and not gpus:
        where = f"{strategy.num_replicas_in_sync} logical CPUs"
    if hosts.count > 1:
        where += f" in {hosts.count} processes"
    text = f"Training on {where} in {precision}"
    if len(rates) > 1:
        gain = rates[precision] / rates["float32"]
        text += f" ({gain:.1f} times float32's speed)" if gain != 1 else " (the fastest here)"
    return f"{text}, {keras.backend.backend()} {version(keras.backend.backend())}."


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
