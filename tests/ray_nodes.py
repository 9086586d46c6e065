"""Start Ray's nodes in tests, or say that this machine is too slow for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def start_nodes(start: Callable[[], Any]) -> Any:
    """What `start` returns; skips the test where a node misses Ray's own limit of 30 seconds.

    Args:
        start: Starts nodes, or connects to them.
    """
    try:
        return start()
    # Ray raises a bare Exception here.
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray's node did not start within the 30 seconds that Ray allows")
