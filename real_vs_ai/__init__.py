"""A detector of AI-generated images: prepare data, train, evaluate, serve.

>>> from real_vs_ai import Judge
>>> from real_vs_ai.serving.fake_engine import fake_detector
>>> judge = Judge(fake_detector())  # Judge("models/released") for answers that mean something
>>> judge.judge_file("missing.jpg").error
'No such file or directory'
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from real_vs_ai.evaluation import EvaluationOptions, evaluate
    from real_vs_ai.serving.detector import Detector
    from real_vs_ai.serving.judge import Answer, Judge
    from real_vs_ai.training import TrainingOptions, train
    from real_vs_ai.verdicts.conclusion import Conclusion
    from real_vs_ai.verdicts.verdict import Verdict

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "Conclusion",
    "Detector",
    "EvaluationOptions",
    "Judge",
    "TrainingOptions",
    "Verdict",
    "__version__",
    "evaluate",
    "train",
]

# Where each name is, so that `import real_vs_ai` stays instant for the data scripts.
_MODULES = {
    "Answer": "real_vs_ai.serving.judge",
    "Conclusion": "real_vs_ai.verdicts.conclusion",
    "Detector": "real_vs_ai.serving.detector",
    "EvaluationOptions": "real_vs_ai.evaluation",
    "Judge": "real_vs_ai.serving.judge",
    "TrainingOptions": "real_vs_ai.training",
    "Verdict": "real_vs_ai.verdicts.verdict",
    "evaluate": "real_vs_ai.evaluation",
    "train": "real_vs_ai.training",
}

# By itself TensorFlow takes oneDNN's kernels only where the CPU has AVX-512 VNNI, bfloat16 or AMX.
# With AVX2 alone its other kernels (Eigen's) train a ResNet 2 to 3 times more slowly. TensorFlow
# reads the setting once, when it is imported; every module of the package passes here before that.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Importing OpenVINO would report the import to a web service, from a forked process. This project
# sends nothing. OpenVINO works without the package where it cannot be imported.
# None in place of a module forbids its import; the type of sys.modules does not say so.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
