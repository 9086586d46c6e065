"""Convert a Keras model file through TensorFlow, in a process of its own.

    convert_through_tensorflow(Path("model.h5"), output_dir=Path("converted"), reason="…")

This is for models with layers that `openvino_layers` does not know. Keras runs on TensorFlow for
it: OpenVINO folds the normalisation of TensorFlow's graph into the convolutions and leaves no
change of layout between them. Keras' OpenVINO backend exports both (measured on ResNet101: 1.5
times as long an image in bf16, and 8-bit models that are computed in floating point). Run as a
module it does the work that the function waits for.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from real_vs_ai.errors import RealVsAIError

IR_NAME = "model.xml"
# A cold start of Keras on a slow disk takes most of it; ResNet101 itself takes about 10.
_TIME_LIMIT_SECONDS = 600


class ConversionError(RealVsAIError, RuntimeError):
    """The model has no OpenVINO form; the message is one line that says why."""


def convert_through_tensorflow(model_path: Path, *, output_dir: Path, reason: str) -> Path:
    """Write the model as OpenVINO IR; see `conversion.convert`.

    Args:
        model_path: A Keras model file (`.h5`).
        output_dir: An existing folder.
        reason: Why the file needs TensorFlow.

    Raises:
        ConversionError: TensorFlow is not installed, cannot do it, or takes too long.
    """
    if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("keras") is None:
        raise ConversionError(
            f"conversion to OpenVINO failed: {model_path} needs TensorFlow for it, as {reason}. "
            "Run: pip install -r requirements.txt"
        )
    try:
        done = subprocess.run(
            # -P: do not import from the folder where the user stands.
            [sys.executable, "-P", "-m", __name__, str(model_path.resolve()), str(output_dir)],
            env=_environment(),
            capture_output=True,
            timeout=_TIME_LIMIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConversionError(f"conversion to OpenVINO failed: {error}") from error
    ir_path = output_dir / IR_NAME
    if done.returncode != 0 or not ir_path.is_file():
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1][:300] if lines else f"exit code {done.returncode}"
        raise ConversionError(f"conversion to OpenVINO failed: {reason}")
    return ir_path


def _environment() -> dict[str, str]:
    package_parent = str(Path(__file__).resolve().parents[2])
    search_path = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": os.pathsep.join(search_path),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _export(model_path: str, output_dir: str) -> None:
    from real_vs_ai.keras_models import load_for_inference

    model = load_for_inference(Path(model_path))
    model.export(str(Path(output_dir) / IR_NAME), format="openvino", verbose=False)


if __name__ == "__main__":
    _export(*sys.argv[1:])
