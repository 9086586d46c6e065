"""Declare every option of ModelEvaluation.py with its default, without Keras, for a fast --help.

options = parse_evaluation_options(["--data", "photos"], description=__doc__)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.cli import make_parser
from real_vs_ai.config import DATA_DIR
from real_vs_ai.options import add_memory, add_workers, number, whole_number

EXPORT_FORMATS = ("compact", "keras", "savedmodel", "onnx", "openvino", "litert", "torch")


@dataclass(frozen=True)
class EvaluationOptions:
    """What an evaluation is asked to do; `parse_evaluation_options` says what each one means."""

    model: Path | None
    data: Path
    output: Path | None
    overwrite: bool
    redraw: bool
    target_error: float | None
    robustness: bool
    robustness_images: int
    out_of_distribution: tuple[Path, ...]
    fit_out_of_distribution: tuple[Path, ...]
    export: tuple[str, ...]
    compare: Path | None
    class_names: tuple[str, ...] | None
    image_size: int | None
    workers: int
    memory: float


def parse_evaluation_options(
    argv: Sequence[str] | None, *, description: str | None
) -> EvaluationOptions:
    """Read the command line of ModelEvaluation.py.

    Raises:
        SystemExit: Wrong usage (code 2), or --help.
    """
    parser = make_parser(description)
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        metavar="PATH",
        help="run folder or .h5 file (default: the newest finished run, else the released model)",
    )
    add(
        "--data",
        type=Path,
        default=DATA_DIR,
        metavar="DIR",
        help="holds a folder for each class, or validation/ and test/ with such folders",
    )
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the report goes (default: the run's folder for the data it was trained with, "
        "evaluations/<data> in it for other data)",
    )
    add("--overwrite", action="store_true", help="replace a report on other images")
    add(
        "--redraw",
        action="store_true",
        help="draw the figures of a report again, from its predictions.csv; needs no model",
    )
    add(
        "--target-error",
        type=number(0, 0.5, ends=False),
        metavar="RATE",
        help="fit the Uncertain band on validation so that at most this share of certain verdicts "
        "is wrong (default: 0.05)",
    )
    add(
        "--robustness",
        action="store_true",
        help="also judge the images after recompression, resizing, blur and the like",
    )
    add(
        "--robustness-images",
        type=whole_number(1),
        default=2000,
        metavar="N",
        help="at most so many of them, drawn evenly over the classes",
    )
    add(
        "--fit-out-of-distribution",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="first teach the model file to recognise thumbnails of these pictures as "
        "out-of-distribution; needs the model's own validation images in --data",
    )
    add(
        "--out-of-distribution",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="also judge labelled images of another kind: how many the model recognises as "
        "out-of-distribution, and how many get a certain but wrong verdict",
    )
    add(
        "--export",
        nargs="+",
        choices=EXPORT_FORMATS,
        metavar="FORMAT",
        help=f"also write the model as {', '.join(EXPORT_FORMATS)}, each checked against the HDF5 "
        "file",
    )
    add(
        "--compare",
        type=Path,
        metavar="MODEL",
        help="another model: test whether the two err differently on the same images",
    )
    add(
        "--class-names",
        nargs="+",
        metavar="NAME",
        help="classes of a model made elsewhere, in the order of its outputs",
    )
    add(
        "--image-size",
        type=whole_number(1),
        metavar="PIXELS",
        help="input of a model made elsewhere (default: what the model says)",
    )
    add_workers(parser)
    add_memory(parser)
    values = vars(parser.parse_args(argv))
    if values["class_names"] and len(set(values["class_names"])) < 2:
        parser.error("--class-names needs two names or more, each different")
    values["class_names"] = tuple(values["class_names"]) if values["class_names"] else None
    for name in ("export", "out_of_distribution", "fit_out_of_distribution"):
        values[name] = tuple(dict.fromkeys(values[name] or ()))
    return EvaluationOptions(**values)
