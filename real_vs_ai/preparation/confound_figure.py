"""The confound report as one picture: how far each trait gives the class away, and where from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from real_vs_ai.preparation.confounds import (
    ConfoundReport,
    FileTraits,
    measure_confounds,
    read_traits,
    sample_rows,
    write_confounds,
)
from real_vs_ai.preparation.manifest import ManifestRow

CONFOUNDS_FIGURE_PATH = Path("figures") / "confounds.png"
# Told apart by people who cannot tell red from green.
_COLOURS = ("#d95f02", "#1b6ca8", "#7a5195", "#4d9221", "#8c6d31", "#636363")


def report_confounds(
    rows: Sequence[ManifestRow],
    *,
    folder: Path,
    title: str,
    seed: int,
    workers: int,
    cluster: str | None,
) -> ConfoundReport | None:
    """Measure, write `confounds.json` and draw `figures/confounds.png`.

    Args:
        rows: Images below `folder`, where the report goes too.
        folder: Where the rows' paths start.
        title: What the data is called.
        seed: Chooses the images looked at, and divides them for cross-validation.
        workers: Processes to use.
        cluster: "ray", or None for this machine.

    Returns:
        The report, or None where a class has too few images to tell anything.
    """
    traits = read_traits(
        sample_rows(rows, seed=seed), root=folder, workers=workers, cluster=cluster
    )
    report = measure_confounds(traits, seed=seed)
    if report is not None:
        write_confounds(report, folder)
        draw_confounds(report, traits, title=title, folder=folder)
    return report


def draw_confounds(
    report: ConfoundReport, samples: Sequence[FileTraits], *, title: str, folder: Path
) -> None:
    """Write `figures/confounds.png`: accuracies by trait, sizes in pixels, sizes of files."""
    # Without pyplot: nothing global, no window.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    figure.suptitle(f"{title}: can files alone tell the class? ({report.images:,} images)")
    _draw_accuracies(left, report)
    for index, label in enumerate(report.counts):
        colour = _COLOURS[index % len(_COLOURS)]
        members = [sample for sample in samples if sample.label == label]
        name = f"{label} ({len(members):,})"
        # Spread a little, so that many images of one size show as a cloud.
        spread = np.random.default_rng(index).normal(0, 0.01, (len(members), 2))
        widths = np.array([sample.width for sample in members]) * np.exp(spread[:, 0])
        heights = np.array([sample.height for sample in members]) * np.exp(spread[:, 1])
        middle.scatter(widths, heights, s=12, alpha=0.4, color=colour, label=name, linewidths=0)
        kilobytes = np.array([max(sample.file_size, 1) for sample in members]) / 1024
        right.hist(np.log10(kilobytes), bins=30, alpha=0.55, color=colour, label=name)
    middle.set(
        xscale="log",
        yscale="log",
        xlabel="width (pixels)",
        ylabel="height (pixels)",
        title="Size in pixels",
    )
    right.set(xlabel="file size (KiB, powers of ten)", ylabel="images", title="File size")
    for axes in (middle, right):
        axes.legend()
    (folder / CONFOUNDS_FIGURE_PATH).parent.mkdir(exist_ok=True)
    figure.savefig(folder / CONFOUNDS_FIGURE_PATH, dpi=110)


def _draw_accuracies(axes, report: ConfoundReport) -> None:
    names = [*report.by_trait, "all of them"]
    values = [*report.by_trait.values(), report.accuracy]
    bars = axes.barh(names, values, color=["#9ecae1"] * len(report.by_trait) + ["#08519c"])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(
        report.chance, color="black", linestyle="--", label=f"chance ({report.chance:.2f})"
    )
    axes.set(xlim=(0, 1.15), xlabel="balanced accuracy (cross-validated)", title="Guessed from")
    # Room below the bars for the legend.
    axes.set_ylim(len(names) + 0.6, -0.7)
    axes.legend(loc="lower right")
