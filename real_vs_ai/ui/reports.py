"""Write checked images as CSV and as JSON, and one of them as a text for its maintainers.

The CSV has the columns of `ImageScoring.py`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from real_vs_ai import __version__
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.serving.score_table import describe_model, score_columns, score_document, score_row
from real_vs_ai.ui.checking import Card
from real_vs_ai.ui.wording import visible
from real_vs_ai.verdict import thresholds_of


@dataclass(frozen=True)
class ReportModel:
    """A model that a report speaks of."""

    name: str
    metadata: ModelMetadata
    sha256: str


def csv_report(results: Sequence[Card], *, metadata: ModelMetadata) -> bytes:
    """A table for spreadsheets, UTF-8 with the byte order mark that Excel looks for."""
    columns = [*score_columns(metadata), "same_as", "remarks"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=columns)
    writer.writeheader()
    for result in results:
        remarks = " ".join([*result.answer.notes, *_reason_sentences(result)])
        row = {**score_row(result.answer, metadata), "same_as": result.same_as, "remarks": remarks}
        writer.writerow({column: _harmless_cell(row[column]) for column in columns})
    return buffer.getvalue().encode("utf-8-sig")


def json_report(results: Sequence[Card], *, models: Sequence[ReportModel], created: str) -> bytes:
    """The same for programs, with what is known of the models that answer."""
    document = {
        "created": created,
        "models": [describe_model(m.name, m.sha256, m.metadata) for m in models],
        "images": [
            {
                **score_document(result.answer, metadata_of(result, models)),
                "same_as": result.same_as,
            }
            for result in results
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "replace")


def metadata_of(result: Card, models: Sequence[ReportModel]) -> ModelMetadata:
    """The metadata of the model that judged an image; the first model's where none did."""
    name = result.verdict.model if result.verdict else ""
    return next((m.metadata for m in models if m.name == name), models[0].metadata)


def mistake_report(result: Card, *, model: ReportModel) -> str:
    """All that a maintainer needs to reproduce a wrong verdict; the file's name is left out."""
    answer, verdict, metadata = result.answer, result.verdict, model.metadata
    thresholds = ", ".join(f"{name} {value:.4f}" for name, value in thresholds_of(metadata).items())
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in verdict.probabilities.items())
    versions = ", ".join(f"{name} {version}" for name, version in metadata.versions.items())
    lines = {
        "Picture": f"SHA-256 {answer.sha256}",
        "Format": f"{answer.width} × {answer.height} pixels, {answer.format}",
        "Conclusion": result.conclusion.title,
        "Verdict": verdict.label,
        "Probabilities" if metadata.calibrated else "Scores": numbers or "none",
        "Reasons": " ".join(_reason_sentences(result)) or "none",
        "Model": f"{visible(model.name)}, SHA-256 {model.sha256}",
        "Made": f"{metadata.created or 'date not recorded'}; {versions or 'versions not recorded'}",
        "Thresholds": thresholds,
        "App": f"real_vs_ai {__version__}",
        "What it should be": "(please fill in)",
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def _reason_sentences(result: Card) -> list[str]:
    return [reason.sentence for reason in result.verdict.reasons] if result.verdict else []


def _harmless_cell(value: Any) -> Any:
    """A cell that is spelled as in the scores table and that a spreadsheet cannot run.

    Spreadsheets run a text that begins like a formula; an apostrophe makes it text again.
    """
    if isinstance(value, bool):
        return str(value).lower()
    risky = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if risky else value
