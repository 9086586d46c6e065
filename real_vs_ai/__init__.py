"""A detector of AI-generated images: prepare data, train, evaluate, serve."""

import importlib
import os
import sys
from typing import Any

__version__ = "0.1.0"

# What the package offers, and where it is. Resolved on first use, so that `import real_vs_ai`
# stays instant for the data scripts.
_OFFERED = {
    "Detector": "real_vs_ai.serving.detector",
    "EvaluationOptions": "real_vs_ai.evaluation",
    "TrainingOptions": "real_vs_ai.training",
    "evaluate": "real_vs_ai.evaluation",
    "train": "real_vs_ai.training",
}
__all__ = ["__version__", *_OFFERED]

# By itself TensorFlow takes oneDNN's kernels only where the CPU has AVX-512 VNNI, bfloat16 or AMX.
# With AVX2 alone its other kernels (Eigen's) train a ResNet 2 to 3 times more slowly. TensorFlow
# reads the setting once, when it is imported; every module of the package passes here before that.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Importing OpenVINO would report the import to a web service, from a forked process. This project
# sends nothing. OpenVINO works without the package where it cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)


def __getattr__(name: str) -> Any:
    if name in _OFFERED:
        return getattr(importlib.import_module(_OFFERED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
