"""Draw one conclusion from what a file says of itself and what the model sees in it.

>>> from real_vs_ai.verdicts.verdict import Verdict
>>> found = conclude(Verdict("Fake", 0.98, 0.98, {"Fake": 0.98, "Real": 0.02}), findings=())
>>> found.code.value, found.title, found.sentence
('looks_ai', 'Looks AI-generated', 'To the model it looks AI-generated.')

The two lines of evidence stay apart: neither changes the other, and the conclusion names both. How
often the model is right stands beside what it sees, where its report tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from real_vs_ai.core.config import POSITIVE_CLASS, UNCERTAIN
from real_vs_ai.core.messages import ENGLISH, Message, read_table
from real_vs_ai.provenance import Code, FileSays, Finding, Origin, describe_origin
from real_vs_ai.verdicts.verdict import ReasonCode, Verdict

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
        file_sentences: What the file says; the first names the tool. () where it says nothing.
        model_sentences: What the model sees, and how often it is right; why a file is unreadable.
        next_steps: What one can do next, one sentence each.
        generator: Who the file names as the picture's maker: "ComfyUI, flux1-dev", or "".
        history: The edit history of content credentials, oldest first: "created", "cropped", …
        ingredients: Files that they say were used: "parentOf photo.jpg".
    """

    code: ConclusionCode
    title: str
    file_says: FileSays
    model_sees: ModelSees
    file_sentences: tuple[str, ...] = ()
    model_sentences: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    generator: str = ""
    history: tuple[str, ...] = ()
    ingredients: tuple[str, ...] = ()

    @property
    def from_file(self) -> str:
        """What the file says, as one text; "" where it says nothing."""
        return " ".join(self.file_sentences)

    @property
    def from_model(self) -> str:
        """What the model sees, as one text."""
        return " ".join(self.model_sentences)

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
# The conclusion for every pair; docs/provenance.md shows it, and a test compares them.
CONCLUSIONS: dict[FileSays, dict[ModelSees, ConclusionCode]] = {
    # That a model finds no sign is weak evidence against a signature.
    FileSays.AI_SIGNED: dict.fromkeys(ModelSees, _C.LABELLED_AI_SIGNED),
    # Weighed against the model's record: see `_weigh`.
    FileSays.AI: {**dict.fromkeys(ModelSees, _C.LABELLED_AI), ModelSees.PHOTOGRAPH: _C.DISAGREE},
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
TITLES = {code: Message(f"conclusion.{code}") for code in ConclusionCode}
_ORIGINAL, _PUBLICATION = Message("next.original"), Message("next.publication")
_CREDENTIALS, _MAKER = Message("next.credentials"), Message("next.maker")
NEXT_STEPS: dict[ConclusionCode, tuple[str, ...]] = {
    _C.LABELLED_AI_SIGNED: (Message("next.signed"), _PUBLICATION),
    _C.LABELLED_AI: (_PUBLICATION,),
    _C.LABELLED_PART_AI: (_MAKER, _PUBLICATION),
    _C.LOOKS_AI: (_PUBLICATION, _MAKER),
    _C.DISAGREE: (_MAKER, _PUBLICATION, Message("next.weigh")),
    _C.CANT_TELL: (_ORIGINAL, _PUBLICATION, _CREDENTIALS),
    _C.CANT_JUDGE: (_ORIGINAL, _PUBLICATION, _CREDENTIALS),
    _C.CAMERA_DATA: (_MAKER, _PUBLICATION),
    _C.LOOKS_PHOTOGRAPH: (_PUBLICATION, _MAKER),
    _C.OTHER_CLASS: (),
    _C.UNREADABLE: (Message("next.another_copy"),),
}
# What most likely is no photograph has no original of a camera, and no credentials.
_NEXT_OF_PLAIN = (Message("next.plain"),)
# The reasons with which another copy helps; others say themselves what to do.
_OF_A_BAD_COPY = {"error.damaged", "error.header", "error.no_image", "error.zip_entry"}


def conclude(verdict: Verdict | None, findings: Sequence[Finding], error: str = "") -> Conclusion:
    """Draw the conclusion on one file.

    Args:
        verdict: The model's; None for a file that cannot be judged.
        findings: What the file says of its origin; see `read_provenance`.
        error: Why there is no verdict, or "".
    """
    origin = describe_origin(findings)
    from_model: tuple[str, ...]
    if verdict is None:
        sees, from_model = ModelSees.NOT_JUDGED, (Message("error.sentence", error=error),)
        code = ConclusionCode.UNREADABLE
    else:
        sees, from_model = _read_verdict(verdict)
        code = _weigh(verdict, origin, sees)
    title = TITLES[code]
    if verdict and code is _C.OTHER_CLASS:
        title = Message("conclusion.looks_like", name=verdict.label)
    refused = verdict and verdict.out_of_distribution_reason
    next_steps = NEXT_STEPS[code]
    if code is _C.CANT_JUDGE and refused and refused.code is ReasonCode.PLAIN:
        next_steps = _NEXT_OF_PLAIN
    elif code is _C.UNREADABLE and getattr(error, "key", "") not in _OF_A_BAD_COPY:
        next_steps = ()
    return Conclusion(
        code,
        title,
        origin.says,
        sees,
        file_sentences=_read_file(findings, origin),
        model_sentences=from_model,
        next_steps=next_steps,
        generator=origin.generator,
        history=origin.history,
        ingredients=origin.ingredients,
    )


def _weigh(verdict: Verdict, origin: Origin, sees: ModelSees) -> ConclusionCode:
    """The conclusion of the table; a label that names its tool outweighs a model that misses it."""
    code = CONCLUSIONS[origin.says][sees]
    if code is not _C.DISAGREE or origin.says is not FileSays.AI or not origin.generator:
        return code
    return _C.LABELLED_AI if verdict.record.misses_most_of(origin.generator) else code


def _read_verdict(verdict: Verdict) -> tuple[ModelSees, tuple[str, ...]]:
    """What the model sees, and the same in sentences, with how often it is right."""
    refused = verdict.out_of_distribution_reason
    if refused:
        return ModelSees.NOT_JUDGED, (refused.sentence,)
    if verdict.label == UNCERTAIN:
        sentences = (
            one.sentence for one in verdict.reasons if one.code != ReasonCode.NOT_CALIBRATED
        )
        return ModelSees.NO_CLEAR_SIGN, (next(sentences, Message("reason.between_thresholds")),)
    if verdict.label == POSITIVE_CLASS:
        sees, seen, rate = ModelSees.AI, "sees.ai", verdict.record.of_accusation
    elif verdict.probability_fake is not None:
        sees, seen, rate = ModelSees.PHOTOGRAPH, "sees.no_sign", verdict.record.of_no_sign
    else:
        return ModelSees.OTHER_CLASS, (Message("sees.class", name=verdict.label),)
    return sees, (Message(seen), *([rate] if rate else []))


def _read_file(findings: Sequence[Finding], origin: Origin) -> tuple[str, ...]:
    """What the file says, who signed it, what is doubtful, and what it would take to forge it."""
    if not findings:
        return ()
    sentences = [*_name_tool(origin), origin.headline]
    made_from = (Code.FROM_PICTURE, Code.INPAINTED)
    sentences += [one.text for one in findings if one.code in made_from][:1]
    sentences += [finding.text for finding in findings if finding.code is Code.CREDENTIALS]
    if len(origin.history) > 1:
        steps = tuple(map(_name_step, origin.history[:_MOST_NAMED]))
        sentences.append(Message("file.history", steps=steps))
    if origin.ingredients:
        files = (one.partition(" ")[2] or one for one in origin.ingredients[:_MOST_NAMED])
        sentences.append(Message("file.ingredients", files=tuple(files)))
    sentences += [doubt for one in findings if one.camera for doubt in one.camera.doubts]
    if origin.says not in {FileSays.SEAL_CHANGED, FileSays.SEAL_UNREADABLE}:
        sentences.append(origin.forgery)
    return tuple(dict.fromkeys(filter(None, sentences)))


def _name_step(action: str) -> str:
    """A step of an edit history in words; one that the table does not know, as the file has it."""
    key = f"action.{action}"
    return Message(key) if key in read_table(ENGLISH) else action


def _name_tool(origin: Origin) -> list[str]:
    """The first sentence, where the headline does not name the tool."""
    tool = origin.generator
    if not tool or tool.partition(",")[0].lower() in origin.headline.lower():
        return []
    return [Message("file.made_with", tool=tool)]
