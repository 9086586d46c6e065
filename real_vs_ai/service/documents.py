"""Write the service's answers as JSON: the columns of the scores table and more details.

The classes describe the answers on the OpenAPI pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from real_vs_ai import __version__
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.provenance import FileSays
from real_vs_ai.serving.conclusion import ConclusionCode
from real_vs_ai.serving.judge import Answer
from real_vs_ai.serving.score_table import score_document


class ReasonDocument(BaseModel):
    """Why a verdict is Uncertain, or must be read with care."""

    code: str = Field(examples=["between_thresholds"])
    sentence: str


class FindingDocument(BaseModel):
    """One thing that the file says of its origin."""

    code: str = Field(examples=["generated"])
    kind: str = Field(examples=["C2PA"])
    sentence: str
    speaks_for: str | None
    forgery: str = Field(description="What it would take to forge it.")
    generator: str = Field(description='The program or service named as the maker, or "".')
    seal: str | None = Field(description="State of the signature that vouches for it.")


class ImageDocument(BaseModel):
    """One file of the request; the names are those of the scores table."""

    # Models of other classes have one more number for each class.
    model_config = ConfigDict(extra="allow")

    path: str = Field(description="The file's name, as the client sent it.")
    label: str = Field(examples=["Fake", "Real", "Uncertain"], description='"" with an error.')
    probability_fake: float | None
    confidence: float | None
    width: int | None
    height: int | None
    format: str
    error: str = Field(description='Why there is no verdict, or "".')
    out_of_distribution: bool | None
    reason: str = Field(description="Code of the first reason.")
    note: str = Field(description="Sentence of the first reason.")
    model: str = Field(description='The model that judged the image, "" with an error.')
    reasons: list[ReasonDocument]
    probabilities: dict[str, float]
    conclusion: ConclusionCode = Field(
        description="From what the file says and what the model sees."
    )
    title: str = Field(description="The conclusion in a few words.")
    from_file: str = Field(description='What the file says of its origin, or "".')
    from_model: str = Field(description="What the model sees.")
    next_steps: list[str] = Field(description="What one can do next.")
    file_says: FileSays
    generator: str = Field(description='Who the file names as the picture\'s maker, or "".')
    history: list[str] = Field(description="The edit history of content credentials.")
    ingredients: list[str] = Field(description="The files that they say were used.")
    provenance: list[FindingDocument]
    remarks: list[str] = Field(description="What was done to the image in decoding.")
    sha256: str


class ModelDocument(BaseModel):
    """A model, so that the very file can be found again."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    sha256: str
    created: str = Field(description="When its training ended.")
    versions: dict[str, str] = Field(description="Of what it was trained with.")
    class_names: list[str]
    image_size: int
    calibrated: bool
    thresholds: dict[str, float]


class ImagesDocument(BaseModel):
    """The answer to `POST /v1/images`: one entry for each file, in their order."""

    version: str = Field(description="Of the program that answers.")
    models: dict[str, str] = Field(
        description="SHA-256 of each model by its name; `GET /v1/models` describes them.",
        examples=[{"released": "7a39…"}],
    )
    images: list[ImageDocument]


class ModelsDocument(BaseModel):
    """The answer to `GET /v1/models`."""

    models: list[ModelDocument]


class StatusDocument(BaseModel):
    """The answer of the health addresses."""

    status: str = Field(examples=["ok", "ready"])


class ErrorContent(BaseModel):
    """Why a request is not answered."""

    code: str = Field(examples=["too_many_images"])
    message: str


class ErrorDocument(BaseModel):
    """The answer to a request that is refused."""

    error: ErrorContent


def images_document(
    answers: Sequence[Answer], *, metadata: ModelMetadata, models: list[dict[str, Any]]
) -> dict[str, Any]:
    """The answer for the files of one request."""
    images = [score_document(answer, metadata) for answer in answers]
    digests = {model["name"]: model["sha256"] for model in models}
    return {"version": __version__, "models": digests, "images": images}


def images_status(answers: Sequence[Answer]) -> int:
    """200 when at least one file has a verdict; 413 when all are too large; 422 otherwise."""
    if any(answer.verdict for answer in answers):
        return 200
    return 413 if all(answer.exceeds_limit for answer in answers) else 422


def error_document(code: str, message: str) -> dict[str, Any]:
    """The answer to a request that is refused."""
    return {"error": {"code": code, "message": message}}
