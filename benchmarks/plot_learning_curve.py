"""Draw the learning curve over repositories: docs/images/learning-curve.svg.

    python -m benchmarks.plot_learning_curve

Heads on frozen EfficientNet-Lite0 features of 128-pixel crops, 1,200 steps of 256 crops, learned
from so many of the training repositories, drawn by the seed.
docs/training-log-photographs-tables.md says how they were made.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "learning-curve.svg"
# Repositories, then one pooled ROC AUC for each seed: validation, clean pictures.
AREAS = {
    18: (0.782, 0.807, 0.844),
    50: (0.828, 0.876, 0.829),
    100: (0.867, 0.891, 0.878),
    188: (0.902, 0.905, 0.908),
    272: (0.907, 0.901, 0.906),
}
# The 14 collections of the first release, 4,769 pictures.
FIRST_RELEASE = (14, 0.863)


def main() -> None:
    """Draw and save the figure."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    counts = list(AREAS)
    axes.plot(counts, [np.mean(areas) for areas in AREAS.values()], color="#1f6f8b")
    for count, areas in AREAS.items():
        axes.plot([count] * len(areas), areas, "o", color="#1f6f8b", alpha=0.6)
    axes.plot(*FIRST_RELEASE, "D", color="#c1666b")
    axes.annotate("the first 14 collections", FIRST_RELEASE, (8, 4), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("repositories to learn from")
    axes.set_ylabel("ROC AUC, unseen repositories")
    axes.grid(alpha=0.3)
    figure.savefig(OUTPUT, metadata={"Date": None})


if __name__ == "__main__":
    main()
