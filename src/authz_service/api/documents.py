"""What the OpenAPI document says beyond what FastAPI finds: bodies read as bytes, problems, request ids."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from authz_service.api.surfaces import is_limited

PROBLEM_TYPE: Final = "application/problem+json"
_COMPONENTS: Final = "#/components/schemas/{model}"


class ProblemFault(BaseModel):
    """One thing wrong with the request."""

    where: str = Field(description="a JSON pointer into the body, a parameter's name, or `line 7` of an import")
    code: str = Field(description="stable; for programs")
    message: str = Field(description="for people; it may change")


class Problem(BaseModel):
    """What went wrong, by RFC 9457."""

    type: str = Field(description="`urn:authz:problem:` and the code")
    title: str = Field(description="what the code means")
    status: int = Field(description="the HTTP status, once more")
    detail: str | None = Field(None, description="what happened this time, and what to do next")
    code: str = Field(description="stable; for programs")
    faults: list[ProblemFault] = Field(default_factory=list, description="every fault of the input, not the first one")


_DOCUMENTED: Final[dict[str, type[BaseModel]]] = {"Problem": Problem}
_WHEN: Final[Mapping[int, str]] = {
    400: "The request has faults; all of them are listed",
    401: "No valid token was shown",
    403: "This token may not do that",
    404: "There is no such thing, or this token may not see it",
    409: "The state of the thing, or an idempotency key that came with another body, does not allow this",
    412: "The thing has changed since",
    413: "The body is larger than this route reads",
    428: "The edit has to say by `If-Match` which version it was made from",
    429: "There were too many tries; wait a minute",
    500: "Something went wrong here",
    503: "Nothing can be decided or stored now; treat it as a deny, and try again shortly",
}


def body_of(
    model: type[BaseModel],
    *,
    media_type: str = "application/json",
    examples: Mapping[str, object] | None = None,
    required: bool = True,
) -> dict[str, Any]:
    """For a route's `openapi_extra`: its request body, which the route reads and checks by itself."""
    _DOCUMENTED[model.__name__] = model
    content: dict[str, Any] = {"schema": {"$ref": _COMPONENTS.format(model=model.__name__)}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": required, "content": {media_type: content}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: these statuses, each with a problem document."""
    schema = {"$ref": _COMPONENTS.format(model="Problem")}
    return {
        status: {"description": _WHEN[status], "content": {PROBLEM_TYPE: {"schema": schema}}} for status in statuses
    }


def authenticated(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`problems` of every route that asks who calls: 400 for a secret in the URL, 401, 403, 503, and these."""
    return problems(*sorted({400, 401, 403, 500, 503, *statuses}))


def complete_documents(app: FastAPI) -> None:
    """Wrap the application's `openapi()`: adds the models named by `body_of`, drops FastAPI's own 422."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(plain())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _, ours = models_json_schema([(model, "validation") for model in _DOCUMENTED.values()], ref_template=_COMPONENTS)
    for name, schema in ours.get("$defs", {}).items():
        schemas.setdefault(name, schema)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["headers"] = {
        "X-Request-ID": {
            "description": "the request's own id, or a new one",
            "schema": {"type": "string", "maxLength": 128},
        }
    }
    for path, operations in document.get("paths", {}).items():
        for operation in operations.values():
            responses = operation["responses"]
            if is_limited(path):
                responses |= {str(status): said for status, said in problems(429).items() if "429" not in responses}
            responses.pop(str(HTTPStatus.UNPROCESSABLE_ENTITY.value), None)
            for response in responses.values():
                headers = response.setdefault("headers", {})
                headers["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document
