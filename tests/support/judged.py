"""A document's parts decided as the service decides them, over a world that has all facts."""

from __future__ import annotations

from collections.abc import Sequence

from authz_service.catalog.graphql_reach import Part
from authz_service.engine.documents import DecidedPart
from authz_service.engine.model import Decision, Request, World
from authz_service.pdp.documents import CallJudge
from authz_service.tokens.model import Token


def judge_parts(
    token: Token, world: World, request: Request, parts: Sequence[Part], target: str | None
) -> tuple[Decision, tuple[DecidedPart, ...]]:
    """The whole decision, and of what it is made: of nothing where the token or the catalog already decides."""
    judged = CallJudge(token, world, request, None).judge([(0, part) for part in parts], target, {})
    assert judged is not None, "the world lacks a fact"
    whole, answer = judged
    return whole, tuple(decided for _, decided in answer.parts)
