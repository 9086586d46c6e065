"""Train a detector: images in data/{train,validation,test} → models/<run>/model.h5 and its report.

Run DataMerger.py first. A frozen stage teaches the head, then the whole network is fine-tuned at
a lower rate. An interrupted run goes on with --resume.

Example:
    python ModelTraining.py --image-size 64 --epochs 10
"""

from __future__ import annotations

import os
import sys

from real_vs_ai.cli import command
from real_vs_ai.training.options import parse_training_options


@command
def main(argv=None):
    options = parse_training_options(argv, description=__doc__)
    # TensorFlow takes seconds to import and is talkative; --help needs neither.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from real_vs_ai.training.trainer import train

    print(train(options, say=lambda line: print(line, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
