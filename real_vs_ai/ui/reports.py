"""Write checked images as CSV, as JSON and as one HTML page with the pictures in it.

The CSV has the columns of `ImageScoring.py`.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from real_vs_ai import __version__
from real_vs_ai.config import UNCERTAIN
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.serving.judge import Answer
from real_vs_ai.serving.score_table import describe_model, score_columns, score_document, score_row
from real_vs_ai.ui.checking import Card
from real_vs_ai.ui.wording import conclusion_style, percent, track_record, verdict_style, visible
from real_vs_ai.verdict import Verdict, thresholds_of, uncertain_range

_TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class ReportModel:
    """A model that a report speaks of; its metadata has the thresholds that were chosen."""

    name: str
    metadata: ModelMetadata
    sha256: str
    own_thresholds: bool = True


def csv_report(results: Sequence[Card], *, metadata: ModelMetadata) -> bytes:
    """A table for spreadsheets, UTF-8 with the byte order mark that Excel looks for."""
    columns = [*score_columns(metadata), "same_as", "remarks"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=columns)
    writer.writeheader()
    for result in results:
        remarks = " ".join(_remarks(result))
        row = score_row(_answer(result), metadata)
        row |= {"same_as": result.same_as, "remarks": remarks}
        writer.writerow({column: _harmless_cell(row[column]) for column in columns})
    return buffer.getvalue().encode("utf-8-sig")


def json_report(results: Sequence[Card], *, models: Sequence[ReportModel], created: str) -> bytes:
    """The same for programs, with what is known of the models that answer."""
    document = {
        "created": created,
        "models": [describe_model(m.name, m.sha256, m.metadata) for m in models],
        "images": [_row(result, _metadata_of(result, models)) for result in results],
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "replace")


def html_report(results: Sequence[Card], *, models: Sequence[ReportModel], created: str) -> bytes:
    """A page that stands alone: pictures inside, no scripts, nothing loaded from elsewhere."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    page = template.render(
        created=created,
        models=[
            {
                "name": visible(model.name),
                "sha256": model.sha256,
                "created": model.metadata.created[:10] if model.metadata.created else "",
            }
            for model in models
        ],
        notes=_model_notes(results, models),
        images=[_view(result, _metadata_of(result, models)) for result in results],
    )
    return page.encode("utf-8", "replace")


def _model_notes(results: Sequence[Card], models: Sequence[ReportModel]) -> list[str]:
    """Thresholds of each model that judged an image, and track record of each that is sure of one.

    They hold for no image that a model refuses.
    """
    verdicts = [r.verdict for r in results if r.verdict and not r.verdict.out_of_distribution]
    answered = {verdict.model for verdict in verdicts}
    sure = {verdict.model for verdict in verdicts if verdict.label != UNCERTAIN}
    used = [m for m in models if answered and (len(models) == 1 or m.name in answered)]
    notes = []
    for model in used:
        said = [_thresholds_sentence(model.metadata)]
        if sure and (len(models) == 1 or model.name in sure):
            said.insert(0, track_record(model.metadata, own_thresholds=model.own_thresholds))
        if not model.metadata.calibrated:
            said.append("The model is not calibrated: its scores are not probabilities.")
        name = f"{visible(model.name)}: " if len(models) > 1 else ""
        notes.append(name + " ".join(filter(None, said)))
    return notes


def _metadata_of(result: Card, models: Sequence[ReportModel]) -> ModelMetadata:
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
        "Conclusion": _answer(result).conclusion.title,
        "Verdict": verdict.label,
        "Probabilities" if metadata.calibrated else "Scores": numbers or "none",
        "Reasons": " ".join(reason_sentences(verdict)) or "none",
        "Model": f"{visible(model.name)}, SHA-256 {model.sha256}",
        "Made": f"{metadata.created or 'date not recorded'}; {versions or 'versions not recorded'}",
        "Thresholds": thresholds,
        "App": f"real_vs_ai {__version__}",
        "What it should be": "(please fill in)",
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def reason_sentences(verdict: Verdict | None) -> list[str]:
    """The sentences of a verdict's reasons; none for an image that cannot be read."""
    return [reason.sentence for reason in verdict.reasons] if verdict else []


def _thresholds_sentence(metadata: ModelMetadata) -> str:
    low, high = uncertain_range(thresholds_of(metadata))
    if metadata.positive_index is None:
        return f"A class less likely than {percent(high)} is Uncertain."
    return f"A probability of AI-generated between {percent(low)} and {percent(high)} is Uncertain."


def _row(result: Card, metadata: ModelMetadata) -> dict[str, Any]:
    """All that is known of a picture; see `score_document`."""
    return {**score_document(_answer(result), metadata), "same_as": result.same_as}


def _answer(result: Card) -> Answer:
    """The answer, with the verdict at the thresholds that the user chose."""
    return replace(result.answer, verdict=result.verdict)


def _view(result: Card, metadata: ModelMetadata) -> dict[str, Any]:
    """What the template shows of one image, as texts."""
    row, jpeg = _row(result, metadata), result.preview
    style = conclusion_style(_answer(result).conclusion)
    return {
        **row,
        "path": visible(row["path"]),
        "same_as": visible(result.same_as),
        "remarks": [*result.answer.notes, *(finding.text for finding in result.answer.findings)],
        "words": style.plain,
        "colour": style.colour,
        "probabilities": {
            verdict_style(name, metadata).words: percent(value, digits=1)
            for name, value in row["probabilities"].items()
        },
        "picture": base64.b64encode(jpeg).decode("ascii") if jpeg else "",
    }


def _remarks(result: Card) -> list[str]:
    return [*result.answer.notes, *reason_sentences(result.verdict)]


def _harmless_cell(value: Any) -> Any:
    """A cell that is spelled as in the scores table and that a spreadsheet cannot run.

    Spreadsheets run a text that begins like a formula; an apostrophe makes it text again.
    """
    if isinstance(value, bool):
        return str(value).lower()
    risky = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if risky else value
