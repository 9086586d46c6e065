"""Import Keras and its backend without the lines they print about themselves.

import_keras_quietly()      # before any module that imports Keras
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def import_keras_quietly() -> None:
    """Import Keras; TensorFlow's remarks about its build and missing GPUs do not show.

    Set TF_CPP_MIN_LOG_LEVEL=0 in the environment to see them.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        import keras

        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # A report asks several models about batches of several sizes; retracing is then expected.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # The first lines come before that setting is read, straight from C++.
    with _without_standard_error():
        import keras  # noqa: F401


@contextmanager
def _without_standard_error() -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
