"""A detector of AI-generated images: prepare data, train, evaluate, serve."""

import sys
from typing import Any

from real_vs_ai.kernels import prefer_fast_kernels

__version__ = "0.1.0"
__all__ = ["Detector", "__version__"]

# TensorFlow reads the setting once, when it is imported. Every module of the package, whatever
# it imports first, passes here before that.
prefer_fast_kernels()

# Importing OpenVINO would report the import to a web service, from a forked process. This project
# sends nothing. OpenVINO and NNCF do without the package where it cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)


def __getattr__(name: str) -> Any:
    # Resolved on first use, so that `import real_vs_ai` stays instant for the data scripts.
    if name == "Detector":
        from real_vs_ai.serving.detector import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
