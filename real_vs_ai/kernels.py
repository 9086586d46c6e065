"""Choose the fastest CPU kernels that TensorFlow has, and say which ones are in use.

This module imports TensorFlow in `kernels_in_use` only.
"""

from __future__ import annotations

import os

_SWITCH = "TF_ENABLE_ONEDNN_OPTS"


def prefer_fast_kernels() -> None:
    """Ask TensorFlow for oneDNN's kernels, unless the user has set TF_ENABLE_ONEDNN_OPTS.

    By itself TensorFlow takes them only where the CPU has AVX-512 VNNI, bfloat16 or AMX. With
    AVX2 alone its other kernels (Eigen's) train a ResNet 2 to 3 times more slowly.
    """
    os.environ.setdefault(_SWITCH, "1")


def kernels_in_use() -> str:
    """The library that computes convolutions on this CPU: "oneDNN" or "Eigen"; needs TensorFlow."""
    try:
        from tensorflow.python.util import _pywrap_util_port
    except ImportError:
        # A TensorFlow that does not answer the question does what its switch says.
        return "Eigen" if os.environ.get(_SWITCH) == "0" else "oneDNN"
    return "oneDNN" if _pywrap_util_port.IsMklEnabled() else "Eigen"
