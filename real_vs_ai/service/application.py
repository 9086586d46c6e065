"""Build the service's web application: images in requests, verdicts in answers.

It is an ASGI application: uvicorn runs it, tests call it. The classes of documents describe the
answers on the OpenAPI pages.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Security
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from real_vs_ai import __version__
from real_vs_ai.provenance import FileSays
from real_vs_ai.service.access import Admission, Keys, Limits, RequestError, stopping
from real_vs_ai.service.judging import LocalJudge, RayJudge
from real_vs_ai.service.requests import (
    CONTENT_TYPE,
    FIELD,
    Counters,
    RequestWatch,
    Upload,
    client_of,
    declared_size,
    read_uploads,
)
from real_vs_ai.serving.judge import Answer
from real_vs_ai.serving.micro_batcher import ModelUnavailableError
from real_vs_ai.serving.score_table import score_document
from real_vs_ai.verdicts.conclusion import ConclusionCode

# More images of one request at a time would only hold up the other requests.
_IMAGES_AT_A_TIME = 32
_RETRY_WHEN_UNREADY = {"Retry-After": "5"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REQUEST = {
    "parameters": [
        {
            "name": "name",
            "in": "query",
            "description": "The file's name, where the image is the whole body.",
            "schema": {"type": "string", "default": ""},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {"type": "array", "minItems": 1, "items": _BINARY["schema"]}
                    },
                }
            },
            "application/octet-stream": _BINARY,
            "image/*": _BINARY,
        },
    },
}
_RETRY_HEADER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_KEY_HEADER = {"WWW-Authenticate": {"schema": {"type": "string"}}}
_BEARER = HTTPBearer(auto_error=False, description="A key of the service.")
_KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key.")


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
    thresholds: dict[str, float | None] = Field(
        description="null: no threshold, so that no image gets the class."
    )


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


def _refusal(text: str, model: Any = ErrorDocument, **more: Any) -> dict[str, Any]:
    return {"description": text, "model": model, **more}


_UNREADY = {
    503: _refusal("The model is not ready, or the service is stopping.", headers=_RETRY_HEADER)
}
_REFUSALS = {
    400: _refusal("No images, or a damaged form."),
    408: _refusal("The request came too slowly."),
    413: _refusal(
        "Too many images, or too large ones. When all files are too large, the entries say so.",
        ErrorDocument | ImagesDocument,
    ),
    415: _refusal("Not images."),
    422: _refusal("No file could be read: the entries say why.", ImagesDocument),
    429: _refusal("Too busy.", headers=_RETRY_HEADER),
    500: _refusal("A fault of the service; its log says more."),
    **_UNREADY,
}


def create_application(
    judge: LocalJudge | RayJudge, *, limits: Limits, keys: Keys | None, origins: Sequence[str] = ()
) -> FastAPI:
    """The service with this judge.

    Args:
        keys: With keys, only the health addresses and the documentation are open to all.
        origins: Web pages of these origins may ask (CORS).
    """
    # Its pages of documentation load nothing from elsewhere.
    application = FastAPIOffline(
        title="Real or AI?",
        version=__version__,
        description="Whether images look AI-generated. Docs: docs/service.md.",
        static_url="/docs/files",
        redoc_url=None,
    )
    service = _Service(judge, limits)
    application.state.admission = service.admission
    _add_error_answers(application)
    application.add_middleware(RequestWatch, counters=service.counters, admission=service.admission)
    if origins:
        application.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    _add_addresses(application, service, keys)
    return application


def _add_addresses(application: FastAPI, service: _Service, keys: Keys | None) -> None:
    guard: dict[str, Any] = {"responses": {}}
    if keys:
        unknown = _refusal("No key, or a wrong one.", headers=_KEY_HEADER)
        guard = {"dependencies": [Depends(_key_check(keys))], "responses": {401: unknown}}
    application.post(
        "/v1/images",
        summary="Judge one or many images",
        response_model=ImagesDocument,
        openapi_extra=_REQUEST,
        **guard | {"responses": guard["responses"] | _REFUSALS},
    )(service.judge_images)
    application.get(
        "/v1/models", summary="The models that answer", response_model=ModelsDocument, **guard
    )(service.list_models)
    application.get(
        "/metrics", summary="For Prometheus", response_class=PlainTextResponse, **guard
    )(service.show_metrics)
    for ask in (application.get, application.head):
        health = functools.partial(ask, response_model=StatusDocument)
        health("/healthz", summary="Whether the process answers")(service.is_alive)
        health("/readyz", summary="Whether images can be judged", responses=_UNREADY)(
            service.is_ready
        )
    application.get("/", include_in_schema=False)(lambda: RedirectResponse("docs"))


class _Service:
    """What stands behind the addresses."""

    def __init__(self, judge: LocalJudge | RayJudge, limits: Limits) -> None:
        self._judge, self._limits = judge, limits
        self.admission = Admission(limits)
        self.counters = Counters(self.admission)

    async def judge_images(self, request: Request) -> Response:
        """Judge the files of the field `files`, or the one image that is the whole body."""
        self._check_ready()
        size = declared_size(request, self._limits)
        async with self.admission.request(size=size, client=client_of(request)):
            uploads = await read_uploads(request, self._limits)
            answers = await self._judge_all(uploads)
        self.counters.count_images(answers)
        served = self._judge.models
        images = [score_document(answer, served[0].metadata) for answer in answers]
        models = {model.name: model.sha256 for model in served}
        document = {"version": __version__, "models": models, "images": images}
        if any(answer.verdict for answer in answers):
            return JSONResponse(document)
        too_large = all(answer.exceeds_limit for answer in answers)
        return JSONResponse(document, status_code=413 if too_large else 422)

    async def list_models(self) -> Response:
        """The models that answer, with their SHA-256 and thresholds."""
        return JSONResponse({"models": [model.describe() for model in self._judge.models]})

    async def is_alive(self) -> Response:
        """Status 200 as long as the process answers."""
        return JSONResponse({"status": "ok"})

    async def is_ready(self) -> Response:
        """Status 200 once the model is open, 503 before."""
        self._check_ready()
        return JSONResponse({"status": "ready"})

    async def show_metrics(self) -> Response:
        """Counters in Prometheus' text format."""
        return Response(self.counters.text(), media_type=CONTENT_TYPE)

    async def _judge_all(self, uploads: list[Upload]) -> list[Answer]:
        turns = asyncio.Semaphore(_IMAGES_AT_A_TIME)

        async def judge(upload: Upload) -> Answer:
            async with turns:
                return await self._judge.answer(*upload)

        return await asyncio.gather(*(judge(upload) for upload in uploads))

    def _check_ready(self) -> None:
        if self.admission.is_stopping:
            raise stopping()
        reason = self._judge.unready_because()
        if reason:
            raise RequestError(503, "not_ready", reason, **_RETRY_WHEN_UNREADY)


def _key_check(keys: Keys) -> Callable[..., Awaitable[None]]:
    async def check_key(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        key: Annotated[str | None, Security(_KEY)],
    ) -> None:
        request.state.key_name = keys.name_of(bearer.credentials if bearer else key or "")
        if not request.state.key_name:
            message = "Expected a valid key in the header: Authorization: Bearer KEY."
            raise RequestError(401, "unauthorized", message, **{"WWW-Authenticate": "Bearer"})

    return check_key


def _error(status: int, code: str, message: str, headers: Any = None) -> Response:
    document = {"error": {"code": code, "message": message}}
    return JSONResponse(document, status_code=status, headers=headers)


def _add_error_answers(application: FastAPI) -> None:
    """Every refusal is JSON of the same form."""

    @application.exception_handler(RequestError)
    async def refuse(request: Request, error: RequestError) -> Response:
        return _error(error.status, error.code, str(error), error.headers)

    @application.exception_handler(ModelUnavailableError)
    async def unavailable(request: Request, error: ModelUnavailableError) -> Response:
        message = f"The model could not answer: {error}"
        return _error(503, "not_ready", message, _RETRY_WHEN_UNREADY)

    @application.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if "Allow" in headers:
            # Starlette names the methods of one route only.
            path = request.url.path
            routes = [route for route in application.routes if getattr(route, "path", "") == path]
            headers["Allow"] = ", ".join(sorted({m for route in routes for m in route.methods}))
        detail = str(error.detail)
        return _error(error.status_code, detail.lower().replace(" ", "_"), detail, headers)

    @application.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        # Starlette raises the error again, so that its traceback reaches the log.
        return _error(500, "internal_error", "The service has a fault; see its log.")
