"""Draw one conclusion from what a file says of itself and what the model sees in it.

>>> from real_vs_ai.verdict import Verdict
>>> found = conclude(Verdict("Fake", 0.98, 0.98, {"Fake": 0.98, "Real": 0.02}), findings=())
>>> found.code.value, found.title, found.sentence
('looks_ai', 'Looks AI-generated', 'To the model it looks AI-generated.')

The two lines of evidence stay apart: neither changes the other, and the conclusion names both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from real_vs_ai.config import POSITIVE_CLASS, UNCERTAIN
from real_vs_ai.provenance import Code, FileSays, Finding, Origin, describe_origin
from real_vs_ai.verdict import ReasonCode, Verdict

_MOST_NAMED = 5


class ModelSees(StrEnum):
    """What the model says of a picture, for programs."""

    AI = "ai"
    PHOTOGRAPH = "photograph"
    OTHER_CLASS = "other_class"
    NO_CLEAR_SIGN = "no_clear_sign"
    NOT_JUDGED = "not_judged"


class ConclusionCode(StrEnum):
    """What is concluded, for programs; in the order in which conclusions are listed."""

    LABELLED_AI_SIGNED = "labelled_ai_signed"
    LABELLED_AI = "labelled_ai"
    LABELLED_PART_AI = "labelled_part_ai"
    LOOKS_AI = "looks_ai"
    DISAGREE = "disagree"
    CANT_TELL = "cant_tell"
    CANT_JUDGE = "cant_judge"
    CAMERA_DATA = "camera_data"
    LOOKS_PHOTOGRAPH = "looks_photograph"
    OTHER_CLASS = "other_class"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Conclusion:
    """What is concluded of one file. Texts may hold words from the file: do not trust them.

    Attributes:
        code: For programs, which never look at the texts.
        title: A few words.
        from_file: What the file says, one to four sentences; "" where it says nothing.
        from_model: What the model sees, one or two sentences; why a file is unreadable.
        next_steps: What one can do next, one sentence each.
        generator: Who the file names as the picture's maker: "ComfyUI, flux1-dev", or "".
        history: The edit history of content credentials, oldest first: "created", "cropped", …
        ingredients: Files that they say were used: "parentOf photo.jpg".
    """

    code: ConclusionCode
    title: str
    file_says: FileSays
    model_sees: ModelSees
    from_file: str = ""
    from_model: str = ""
    next_steps: tuple[str, ...] = ()
    generator: str = ""
    history: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What the conclusion rests on."""
        return f"{self.from_file} {self.from_model}".strip()


_C = ConclusionCode
# What the model says decides where the file says nothing that could.
_BY_THE_MODEL = {
    ModelSees.AI: _C.LOOKS_AI,
    ModelSees.PHOTOGRAPH: _C.LOOKS_PHOTOGRAPH,
    ModelSees.OTHER_CLASS: _C.OTHER_CLASS,
    ModelSees.NO_CLEAR_SIGN: _C.CANT_TELL,
    ModelSees.NOT_JUDGED: _C.CANT_JUDGE,
}
_OF_CAMERA = {
    **_BY_THE_MODEL,
    ModelSees.AI: _C.DISAGREE,
    ModelSees.NO_CLEAR_SIGN: _C.CAMERA_DATA,
    ModelSees.NOT_JUDGED: _C.CAMERA_DATA,
}


def _labelled(code: ConclusionCode) -> dict[ModelSees, ConclusionCode]:
    return {**dict.fromkeys(ModelSees, code), ModelSees.PHOTOGRAPH: _C.DISAGREE}


# The conclusion for every pair; docs/provenance.md shows it, and a test compares them.
CONCLUSIONS: dict[FileSays, dict[ModelSees, ConclusionCode]] = {
    FileSays.AI_SIGNED: _labelled(_C.LABELLED_AI_SIGNED),
    FileSays.AI: _labelled(_C.LABELLED_AI),
    # Most of such a picture may be a photograph.
    FileSays.PART_AI: dict.fromkeys(ModelSees, _C.LABELLED_PART_AI),
    FileSays.POSSIBLY_AI: {**_BY_THE_MODEL, ModelSees.PHOTOGRAPH: _C.DISAGREE},
    FileSays.CONTRADICTION: dict.fromkeys(ModelSees, _C.DISAGREE),
    FileSays.CAPTURED: _OF_CAMERA,
    FileSays.CAMERA: _OF_CAMERA,
    FileSays.CAMERA_DOUBTFUL: _BY_THE_MODEL,
    FileSays.SCREENSHOT: _BY_THE_MODEL,
    FileSays.SEAL_CHANGED: _BY_THE_MODEL,
    FileSays.SEAL_UNREADABLE: _BY_THE_MODEL,
    FileSays.NOTHING: _BY_THE_MODEL,
}
# With other classes than Fake and Real, the class stands in the place of the last words.
TITLES = {
    _C.LABELLED_AI_SIGNED: "Labelled AI-generated, signed",
    _C.LABELLED_AI: "Labelled AI-generated",
    _C.LABELLED_PART_AI: "Labelled partly AI-generated",
    _C.LOOKS_AI: "Looks AI-generated",
    _C.DISAGREE: "The evidence disagrees",
    _C.CANT_TELL: "We can't tell",
    _C.CANT_JUDGE: "We can't judge this picture",
    _C.CAMERA_DATA: "Camera data, nothing against it",
    _C.LOOKS_PHOTOGRAPH: "Looks like a photograph",
    _C.OTHER_CLASS: "Looks like one of the model's classes",
    _C.UNREADABLE: "Unreadable",
}
_ORIGINAL = "Try the original file, not a screenshot or a copy that was sent on."
_PUBLICATION = "Find out where it first appeared, when, and who published it."
_CREDENTIALS = "Ask for a version with content credentials: they tell how a picture was made."
_SIGNED = "Read its content credentials: they tell who signed it, and how it was made."
_MAKER = "Ask who made it, and for the file as it came from the camera or the program."
_WEIGH = "Do not rely on one side alone: a file's data can be forged, and a model can be wrong."
NEXT_STEPS: dict[ConclusionCode, tuple[str, ...]] = {
    _C.LABELLED_AI_SIGNED: (_SIGNED, _PUBLICATION),
    _C.LABELLED_AI: (_PUBLICATION,),
    _C.LABELLED_PART_AI: (_MAKER, _PUBLICATION),
    _C.LOOKS_AI: (_PUBLICATION, _MAKER),
    _C.DISAGREE: (_WEIGH, _MAKER, _PUBLICATION),
    _C.CANT_TELL: (_ORIGINAL, _PUBLICATION, _CREDENTIALS),
    _C.CANT_JUDGE: (_ORIGINAL, _PUBLICATION, _CREDENTIALS),
    _C.CAMERA_DATA: (_MAKER, _PUBLICATION),
    _C.LOOKS_PHOTOGRAPH: (_PUBLICATION, _MAKER),
    _C.OTHER_CLASS: (),
    _C.UNREADABLE: ("Save it again as JPEG or PNG, or try another copy.",),
}


def conclude(verdict: Verdict | None, findings: Sequence[Finding], error: str = "") -> Conclusion:
    """Draw the conclusion on one file.

    Args:
        verdict: The model's; None for a file that cannot be judged.
        findings: What the file says of its origin; see `read_provenance`.
        error: Why there is no verdict, or "".
    """
    origin = describe_origin(findings)
    if verdict:
        sees, from_model = _read_verdict(verdict)
    else:
        sees, from_model = ModelSees.NOT_JUDGED, f"{error[:1].upper()}{error[1:]}."
    code = CONCLUSIONS[origin.says][sees] if verdict else ConclusionCode.UNREADABLE
    return Conclusion(
        code,
        f"Looks like {verdict.label}" if code is _C.OTHER_CLASS else TITLES[code],
        origin.says,
        sees,
        from_file=_read_file(findings, origin),
        from_model=from_model,
        next_steps=NEXT_STEPS[code],
        generator=origin.generator,
        history=origin.history,
        ingredients=origin.ingredients,
    )


def _read_verdict(verdict: Verdict) -> tuple[ModelSees, str]:
    """What the model sees, and the same as a sentence."""
    refused = verdict.out_of_distribution_reason
    if refused:
        return ModelSees.NOT_JUDGED, refused.sentence
    if verdict.label == UNCERTAIN:
        told = (one.sentence for one in verdict.reasons if one.code != ReasonCode.NOT_CALIBRATED)
        return ModelSees.NO_CLEAR_SIGN, next(told, "The model found no clear sign either way.")
    if verdict.label == POSITIVE_CLASS:
        return ModelSees.AI, "To the model it looks AI-generated."
    if verdict.probability_fake is not None:
        return ModelSees.PHOTOGRAPH, "To the model it looks like a photograph."
    return ModelSees.OTHER_CLASS, f"To the model it looks like {verdict.label}."


def _read_file(findings: Sequence[Finding], origin: Origin) -> str:
    """What the file says, who signed it, what is doubtful, and what it would take to forge it."""
    if not findings:
        return ""
    told = [origin.headline]
    told += [finding.text for finding in findings if finding.code is Code.CREDENTIALS]
    if len(origin.history) > 1:
        told.append(f"Its edit history: {', '.join(origin.history[:_MOST_NAMED])}.")
    if origin.ingredients:
        files = (one.partition(" ")[2] or one for one in origin.ingredients[:_MOST_NAMED])
        told.append(f"Made with: {', '.join(files)}.")
    told += [doubt for one in findings if one.camera for doubt in one.camera.doubts]
    if origin.says not in {FileSays.SEAL_CHANGED, FileSays.SEAL_UNREADABLE}:
        told.append(origin.forgery)
    return " ".join(dict.fromkeys(filter(None, told)))
