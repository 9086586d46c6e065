"""Declare the options of ModelEvaluation.py, and read its command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.core.config import DATA_DIR
from real_vs_ai.core.options import Options, number, option, shared

EXPORT_FORMATS = ("compact", "keras", "savedmodel", "openvino", "onnx", "litert", "pth")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(Options):
    """What an evaluation is asked to do; each option says what it means."""

    model: Path | None = option(
        "run folder or .h5 file (default: the run trained last, else the released model)",
        metavar="PATH",
        type=Path,
    )
    data: Path = option(
        "class folders, or a folder with validation/ and test/ that have them", DATA_DIR, "DIR"
    )
    output: Path | None = option(
        "folder of the report (default: the run's folder for its own data, evaluations/<data> in "
        "it for other data)",
        metavar="DIR",
        type=Path,
    )
    overwrite: bool = option("replace a report that is there", False)
    redraw: bool = option(
        "draw the figures of a report again, from its predictions.csv; needs no model", False
    )
    openvino: bool = option(
        "write into the model's file the graph that OpenVINO runs, and do nothing else: for a file "
        "made elsewhere or by an earlier version; needs no data",
        False,
    )
    target_error: float | None = option(
        "fit the Uncertain band on validation so that at most this share of certain verdicts "
        "is wrong (default: 0.05)",
        metavar="RATE",
        type=number(0, 0.5, ends=False),
    )
    robustness: bool = option(
        "also judge the images after recompression, resizing, blur and other changes", False
    )
    out_of_distribution: tuple[Path, ...] = option(
        "also judge labelled images of another kind: how many the model recognises as "
        "out-of-distribution, and how many get a certain but wrong verdict",
        (),
        "DIR",
        nargs="+",
        type=Path,
    )
    export: tuple[str, ...] = option(
        f"also write the model as {', '.join(EXPORT_FORMATS)}, each checked against the HDF5 file",
        (),
        "FORMAT",
        nargs="+",
        choices=EXPORT_FORMATS,
    )
    compare: Path | None = option(
        "test whether this model and another one err differently on the same images",
        metavar="MODEL",
        type=Path,
    )
    class_names: tuple[str, ...] | None = option(
        "classes of a model made elsewhere, in the order of its outputs", metavar="NAME", nargs="+"
    )
    workers: int = shared("--workers")


def parse_evaluation_options(
    argv: Sequence[str] | None, *, description: str | None
) -> EvaluationOptions:
    """Read the command line of ModelEvaluation.py.

    Raises:
        SystemExit: Wrong usage (code 2), or --help.
    """
    # For scripts alone: it sets how errors show.
    from real_vs_ai.core.cli import add_fields, make_parser

    parser = make_parser(description)
    add_fields(parser, EvaluationOptions)
    values = vars(parser.parse_args(argv))
    if values["class_names"] and len(set(values["class_names"])) < 2:
        parser.error("--class-names needs two names or more, each different")
    for name in ("export", "out_of_distribution"):
        values[name] = tuple(dict.fromkeys(values[name]))
    return EvaluationOptions(**values)
