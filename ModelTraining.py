"""Train a detector: images in data/{train,validation,test} → models/<run>/model.h5 and its report.

Run DataMerger.py first. A frozen stage trains the head alone, then fine-tuning trains the whole
network at a lower rate. --resume continues an interrupted run.

Example:
    python ModelTraining.py --image-size 64 --epochs 10
"""

from __future__ import annotations

import sys

from real_vs_ai.core.cli import command
from real_vs_ai.core.reporting import keep_informed
from real_vs_ai.training import TrainingOptions, train
from real_vs_ai.training.command_line import parse_training_options


def parse_args(argv=None) -> TrainingOptions:
    """The options on the command line."""
    return parse_training_options(argv, description=__doc__)


@command
def main(argv=None) -> None:
    """Train, and print the metrics."""
    options = parse_args(argv)
    with keep_informed("ModelTraining.py"):
        print(train(options))


if __name__ == "__main__":
    sys.exit(main())
