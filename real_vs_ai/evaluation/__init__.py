"""Measure a model: `evaluate(EvaluationOptions(…))` writes its report."""

from real_vs_ai.evaluation.options import EvaluationOptions
from real_vs_ai.evaluation.run import run_evaluation as evaluate

__all__ = ["EvaluationOptions", "evaluate"]
