"""Cases as data: `tests/cases/*.yaml` read into worlds, questions and expected answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from authz_service.directory.model import NodeKind
from authz_service.engine.model import Missing, Reason

FOLDER = Path(__file__).parent.parent / "cases"
SHOWN = "shown"
"""The label of a token that a case writes down in place."""
CASE_KEYS = (
    *("name", "rules", "world", "then", "token", "user", "secret", "catalog", "ask", "attributes", "client_address"),
    *("allow", "deny", "missing", "hide", "absent", "failed", "where"),
)
_MISSING = re.compile(r"(\S+)@(\S+) on (\S+)")


@dataclass(frozen=True)
class CaseWorld:
    """The world of one case, with names in place of ids: what a loader of a real service needs.

    `users`, `nodes`, `members` and `tokens` are as the case writes them; nodes are in an order in which each comes
    after what it lies in. `then` are the events that follow once all of it is there, each a few words.
    """

    catalogs: tuple[str, ...]
    users: Mapping[str, Mapping[str, Any]]
    nodes: Mapping[str, Mapping[str, Any]]
    members: Mapping[str, Mapping[str, str]]
    tokens: Mapping[str, Mapping[str, Any]]
    then: tuple[str, ...] = ()
    schemas: Mapping[str, str] = field(default_factory=dict)
    """By the name of a catalog: the GraphQL schema of the version that is written down."""
    policies: tuple[Mapping[str, Any], ...] = ()
    """Each at a place, `at`, for the first catalog unless it names one, with settings as `/v1/policies` has them."""


@dataclass(frozen=True)
class Question:
    """What is asked. One of `permission`, `operation`, `http` and `graphql` is given."""

    token: str
    """A label; where `secret` is given it is of no token, and empty where a `user` as such is asked about."""
    catalog: str
    version: int | None = None
    user: str | None = None
    """A username: no token is shown (A13)."""
    secret: str | None = None
    """`unknown`: well made, and nobody's. `malformed`: not made by us."""
    permission: str | None = None
    operation: str | None = None
    http: str | None = None
    graphql: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    operation_name: str | None = None
    target: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    mutates: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)
    client_address: str | None = None


@dataclass(frozen=True)
class Expected:
    """The answer. `failed` is the label of the token that failed, where it is not the one that was shown."""

    reason: Reason
    missing: tuple[Missing, ...] = ()
    hide: bool = False
    absent: tuple[str, ...] = ()
    failed: str | None = None

    @property
    def allowed(self) -> bool:
        return self.reason.value.startswith("granted")


@dataclass(frozen=True)
class Case:
    """`where` says who can be asked: `everywhere`; `rows`, a state that no store would hold; or `service`, what is
    decided before the engine is asked."""

    file: str
    name: str
    rules: tuple[str, ...]
    world: CaseWorld
    question: Question
    expected: Expected
    where: str = "everywhere"

    @property
    def id(self) -> str:
        return f"{Path(self.file).stem}: {self.name}"


def load_cases(folder: Path = FOLDER) -> list[Case]:
    return [case for path in sorted(folder.glob("*.yaml")) for case in _load_file(path)]


def _load_file(path: Path) -> Iterator[Case]:
    document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    only_keys(path.name, document, "about", "world", "cases")
    for written in document["cases"]:
        where = f"{path.name}: {written.get('name')}"
        try:
            yield _case(path.name, document.get("world") or {}, written)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{where}: {error!r}") from error


def _case(file: str, common: Mapping[str, Any], written: Mapping[str, Any]) -> Case:
    only_keys(str(written["name"]), written, *CASE_KEYS)
    merged = _merge(common, written.get("world") or {})
    only_keys("world", merged, "catalogs", "users", "nodes", "members", "tokens", "policies", "schemas")
    tokens = dict(merged.get("tokens") or {})
    token = "" if "user" in written else written.get("token") or SHOWN
    if isinstance(token, Mapping):
        tokens[SHOWN] = token
        token = SHOWN
    rotated = {f"{event.split()[1]}_new" for event in written.get("then") or () if event.startswith("rotate ")}
    if token not in {*tokens, *rotated} and "secret" not in written and "user" not in written:
        raise ValueError(f"there is no token `{token}`")
    world = CaseWorld(
        catalogs=tuple(merged["catalogs"].values()),
        users={name: value or {} for name, value in (merged.get("users") or {}).items()},
        nodes={name: _node(value) for name, value in (merged.get("nodes") or {}).items()},
        members=merged.get("members") or {},
        tokens=tokens,
        then=tuple(written.get("then") or ()),
        schemas={name: sdl for name, sdl in (merged.get("schemas") or {}).items() if sdl is not None},
        policies=tuple(merged.get("policies") or ()),
    )
    default = next(iter(merged["catalogs"]))
    name, _, version = str(written.get("catalog") or default).partition("@")
    ask = dict(written["ask"])
    only_keys("ask", ask, "permission", "operation", "http", "graphql", "target", "parameters", "mutates", "variables",
        "operation_name",
    )  # fmt: skip
    question = Question(
        token,
        name,
        int(version) if version else None,
        user=written.get("user"),
        secret=written.get("secret"),
        attributes=written.get("attributes") or {},
        client_address=written.get("client_address"),
        **ask,
    )
    if ("allow" in written) is ("deny" in written):
        raise ValueError("a case says either `allow` or `deny`")
    expected = Expected(
        Reason(written.get("allow") or written["deny"]),
        tuple(_missing(text) for text in written.get("missing") or ()),
        hide=written.get("hide", False),
        absent=tuple(written.get("absent") or ()),
        failed=written.get("failed"),
    )
    if expected.allowed is not ("allow" in written):
        raise ValueError(f"`{expected.reason}` is not what this key says")
    where = written.get("where", "everywhere")
    if where not in ("everywhere", "rows", "service"):
        raise ValueError(f"`where` is `{where}`")
    return Case(file, written["name"], tuple(written["rules"]), world, question, expected, where)


def only_keys(what: str, written: Mapping[str, Any], *known: str) -> None:
    unknown = set(written) - set(known)
    if unknown:
        raise ValueError(f"{what}: no such key: {', '.join(sorted(unknown))}")


def _merge(common: Any, own: Any) -> Any:
    if not isinstance(common, Mapping) or not isinstance(own, Mapping):
        return own
    return {**common, **{key: _merge(common.get(key), value) for key, value in own.items()}}


def _node(value: Any) -> Mapping[str, Any]:
    return {"visibility": value} if isinstance(value, str) else value or {}


def _missing(text: str) -> Missing:
    found = _MISSING.fullmatch(text)
    if found is None:
        raise ValueError(f"`{text}` is not `issue:read@project on project:acme/web`")
    return Missing(found[1], NodeKind(found[2]), found[3])
