from __future__ import annotations

from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from authz_service.app import create_app
from authz_service.config import Environment, Settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(path, one) for path, methods in document["paths"].items() for one in methods.values()]


def test_every_operation_has_a_name_of_its_own_and_a_summary(document):
    names = [one["operationId"] for _, one in operations(document)]
    assert sorted(set(names)) == sorted(names)
    assert not [path for path, one in operations(document) if not one.get("summary")]


def test_every_reference_leads_somewhere(document):
    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    for reference in references(document):
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_what_an_answer_leaves_out_is_not_required(routes):
    """Where nulls are left out, a field that may be null has to have a default: else the document promises it."""
    left_out = [route for route in routes if route.response_model_exclude_none]
    assert left_out
    for route in left_out:
        for model in models(route.response_model):
            for name, field in model.model_fields.items():
                nullable = NoneType in get_args(field.annotation)
                assert not (nullable and field.is_required()), (route.path, model.__name__, name)


def models(annotation: Any) -> set[type[BaseModel]]:
    """All that an answer of this type is made of."""
    found: set[type[BaseModel]] = set()
    waiting = [annotation]
    while waiting:
        one = waiting.pop()
        waiting.extend(get_args(one))
        if isinstance(one, type) and issubclass(one, BaseModel) and one not in found:
            found.add(one)
            waiting.extend(field.annotation for field in one.model_fields.values())
    return found


@pytest.fixture(scope="module")
def routes() -> list[APIRoute]:
    def inside(router: Any) -> Iterator[APIRoute]:
        for one in router.routes:
            if isinstance(one, APIRoute):
                yield one
            elif (included := getattr(one, "original_router", None)) is not None:
                yield from inside(included)

    return list(inside(create_app(Settings())))


def test_what_needs_a_token_says_so(document):
    free = {"/livez", "/readyz", "/metrics", "/.well-known/authzen-configuration", "/v1/leaks", "/v1/leaks/report"}
    free.add("/v1/token-exchange")  # a job shows its own issuer's token
    assert {path for path, one in operations(document) if not one.get("security")} == free


def test_the_pages_for_people_are_for_development_alone():
    def paths(environment: Environment) -> set[str]:
        return {str(getattr(route, "path", "")) for route in create_app(Settings(environment=environment)).routes}

    assert "/docs" in paths(Environment.DEV)
    assert "/docs" not in paths(Environment.PRODUCTION)
    assert "/openapi.json" in paths(Environment.PRODUCTION)
