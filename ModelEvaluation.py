"""Evaluate a model: metrics with 95 % intervals, figures and a model card, on labelled images.

Takes the run trained last and data/test (with data/validation for calibration), or any saved
Keras model and any folder that holds one folder for each class. A report holds metrics.json,
predictions.csv, figures/, classification_report.txt, MODEL_CARD.md and collections.csv.

Examples:
    python ModelEvaluation.py
    python ModelEvaluation.py --model models/released --data photos --robustness
    python ModelEvaluation.py --model models/first-try --redraw
"""

import sys

from real_vs_ai.core.cli import command
from real_vs_ai.core.reporting import keep_informed
from real_vs_ai.evaluation.options import EvaluationOptions, parse_evaluation_options
from real_vs_ai.evaluation.run import run_evaluation


def parse_args(argv=None) -> EvaluationOptions:
    """The options on the command line."""
    return parse_evaluation_options(argv, description=__doc__)


@command
def main(argv=None) -> int:
    """Evaluate, and print the metrics."""
    options = parse_args(argv)
    with keep_informed("ModelEvaluation.py"):
        text, complete = run_evaluation(options)
    print(text)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
