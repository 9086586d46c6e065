"""Write checked images as a PDF, as CSV and as JSON.

The CSV has the columns of `ImageScoring.py`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    Flowable,
    HRFlowable,
    Image,
    KeepTogether,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

from real_vs_ai.core.config import UNCERTAIN
from real_vs_ai.core.messages import Message, in_language
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.serving.judge import Judge
from real_vs_ai.serving.score_table import score_columns, score_document, score_row
from real_vs_ai.serving.served_model import ServedModel
from real_vs_ai.ui.checking import Card, describe_file
from real_vs_ai.ui.places import deciding_parts
from real_vs_ai.ui.wording import CREDENTIALS_PAGE, SEARCH_PAGES, rank, reliance, visible

# Both come with ReportLab. The first is embedded and has Latin letters. The second is not: readers
# have a font of their own for Chinese, Japanese, Greek and Russian.
_FONT, _BOLD_FONT, _OTHER_FONT = "Vera", "VeraBd", "STSong-Light"
_SIDE, _PICTURE_SIDE = 18 * mm, 50 * mm
_LONGEST = 1_000
LINKS = {**SEARCH_PAGES, "Content Credentials": CREDENTIALS_PAGE}


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


def json_report(results: Sequence[Card], *, judge: Judge, created: str) -> bytes:
    """The same for programs, with what is known of the models that answer."""
    document = {
        "created": created,
        "models": [model.describe() for model in judge.models],
        "images": [
            {**score_document(one.answer, judge.metadata), "same_as": one.same_as}
            for one in results
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "replace")


def pdf_report(results: Sequence[Card], *, judge: Judge, created: str, language: str) -> bytes:
    """A PDF of A4 pages: a summary, then each picture with its conclusion and evidence.

    Args:
        created: When, for people.
        language: In which the texts are, as `messages.languages` names it.
    """
    for name in (_FONT, _BOLD_FONT):
        pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
    pdfmetrics.registerFont(UnicodeCIDFont(_OTHER_FONT))
    say = partial(in_language, language=language)
    ranked = sorted((result.conclusion for result in results), key=lambda found: rank(found.code))
    counts = Counter(say(found.title) for found in ranked)
    told = say(Message("report.files", count=len(results), created=created))
    title = say(Message("report.title"))
    story: list[Flowable] = [
        _paragraph(title, size=18, bold=True),
        _paragraph(f"{told} {', '.join(f'{n} {name}' for name, n in counts.items())}."),
        *(_entry(result, judge.model_of(result.verdict), say) for result in results),
        _paragraph(say(Message("report.search"))),
        *(_link(name, address) for name, address in LINKS.items()),
    ]
    buffer = io.BytesIO()
    margins = dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), _SIDE)
    document = SimpleDocTemplate(
        buffer, pagesize=A4, title=title, author="", creator="real_vs_ai", **margins
    )
    document.build(story, onFirstPage=_number_page, onLaterPages=_number_page)
    return buffer.getvalue()


def _entry(result: Card, model: ServedModel, say: Callable[[str], str]) -> Flowable:
    """One picture beside its conclusion; it moves to the next page as a whole."""
    found = result.conclusion
    texts = [_paragraph(say(found.title), size=13, bold=True)]
    texts.append(_paragraph(visible(result.answer.name), bold=True))
    seen = " ".join(map(say, found.model_sentences))
    if result.verdict is None:
        texts.append(_paragraph(seen))
    else:
        said = " ".join(map(say, found.file_sentences)) or say(Message("file.nothing"))
        texts.append(_paragraph(f"{say(Message('question.file_says'))}: {said}"))
        texts.append(_paragraph(f"{say(Message('question.model_sees'))}: {seen}"))
        texts.append(_paragraph(f"{say(Message('question.rely'))} {say(reliance(found))}"))
    if found.next_steps:
        steps = " ".join(map(say, found.next_steps))
        texts.append(_paragraph(f"{say(Message('question.now'))} {steps}"))
    texts.append(_paragraph(_details(result, model, say), size=7))
    first = _PICTURE_SIDE + 4 * mm
    columns = [first, A4[0] - 2 * _SIDE - first]
    table = Table([[_pictures(result, model, say), texts]], colWidths=columns)
    table.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (0, 0), 0)])
    return KeepTogether([HRFlowable(width="100%", color="#8890a0"), table, Spacer(1, 2 * mm)])


def _details(result: Card, model: ServedModel, say: Callable[[str], str]) -> str:
    """Size, remarks, and what identifies the file and the model that judged it; no number."""
    told = [say(text) for text in describe_file(result)]
    if result.verdict:
        name, digest = visible(model.name), model.sha256
        told.append(say(Message("report.model", name=name, digest=digest)))
    return " ".join([*told, f"SHA-256 {result.answer.sha256}."])


def _pictures(result: Card, model: ServedModel, say: Callable[[str], str]) -> list[Flowable]:
    """The picture, and below it where the model looked, for an answer that rests on crops."""
    verdict = result.verdict
    pictures = [_picture(result.preview)] if result.preview else []
    if pictures and verdict and verdict.crops and verdict.label != UNCERTAIN:
        image, told = deciding_parts(result, metadata=model.metadata)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=85)
        pictures += [Spacer(1, 2 * mm), _picture(buffer.getvalue()), _paragraph(say(told), size=7)]
    return pictures


def _picture(jpeg: bytes) -> Flowable:
    return Image(io.BytesIO(jpeg), _PICTURE_SIDE, _PICTURE_SIDE, kind="proportional")


def _link(name: str, address: str) -> Paragraph:
    """A page of our own list; nothing from a file becomes a link."""
    return Paragraph(f'<a href="{address}" color="#1f5fbf">{name}: {address}</a>', _style(9))


def _paragraph(text: str, *, size: float = 9, bold: bool = False) -> Paragraph:
    """A text that may come from a file; its markup is shown, not obeyed."""
    font = _BOLD_FONT if bold else _FONT
    shown = _in_fonts_that_have_it(visible(text, longest=_LONGEST), font)
    return Paragraph(shown, _style(size, font=font))


def _style(size: float, *, font: str = _FONT) -> ParagraphStyle:
    return ParagraphStyle(
        "text", fontName=font, fontSize=size, leading=1.35 * size, spaceAfter=3, splitLongWords=1
    )


def _in_fonts_that_have_it(text: str, font: str) -> str:
    """ReportLab's markup of a text; what no font has is written as its number, "\\u05d0"."""
    letters = pdfmetrics.getFont(font).face.charToGlyph
    parts = []
    for character in text:
        if ord(character) in letters:
            parts.append(escape(character))
        elif character.encode("gb2312", "ignore"):
            parts.append(f'<font name="{_OTHER_FONT}">{character}</font>')
        else:
            parts.append(character.encode("ascii", "backslashreplace").decode("ascii"))
    return "".join(parts)


def _number_page(canvas: Any, document: Any) -> None:
    canvas.setFont(_FONT, 7)
    canvas.drawRightString(A4[0] - _SIDE, 10 * mm, str(document.page))


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
