"""AuthZEN requests read to questions: bodies of the Authorization API 1.0, with every fault they have.

Only translation. Fields that the standard does not know are passed over, as it says; properties that cannot be an
attribute here, or that the directory alone knows, are passed over too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from fastapi import Request

from authz_service.admin.faults import Faults, shown
from authz_service.api.check.reading import CATALOG, MOST_ATTRIBUTES, MOST_ITEMS
from authz_service.api.wire import parse_json, plain_address
from authz_service.directory.model import Attributes, Scalar
from authz_service.engine.attributes import RESERVED
from authz_service.errors import Fault, InvalidBodyError
from authz_service.pdp.question import Freshly
from authz_service.pdp.subjects import About, Subject, SubjectKind, about_of

OURS: Final = "authz"
"""The key of `context` that holds what only this service knows."""
_LONGEST_TEXT: Final = 2048
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Semantic(StrEnum):
    """How far a batch goes."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"


@dataclass(frozen=True, slots=True)
class Ours:
    """What `context.authz` asks of this service besides."""

    catalog: str | None = None
    explain: bool = False
    client_address: str | None = None
    freshly: Freshly = field(default_factory=Freshly)


@dataclass(frozen=True, slots=True)
class Entity:
    """A subject (`id`), a resource (`id`) or an action (`name`): an empty `key` was not given and need not be."""

    type: str
    key: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One question. `subject` None is of a type that this service does not know."""

    subject: Subject | None
    about: About
    attributes: Attributes
    ours: Ours


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions in their order, a list of faults in place of each that has some; `single` is to be answered as one."""

    items: list[Evaluation | tuple[Fault, ...]]
    semantic: Semantic = Semantic.EXECUTE_ALL
    single: bool = False
    freshly: Freshly = field(default_factory=Freshly)


def require_json(request: Request) -> None:
    """Raises InvalidBodyError unless the body says, once, that it is JSON."""
    given = request.headers.getlist("content-type")
    if len(given) != 1 or given[0].partition(";")[0].strip().lower() != "application/json":
        raise InvalidBodyError("send the body as `Content-Type: application/json`")


def read_object(body: bytes) -> dict[str, Any]:
    value = parse_json(body)
    if not isinstance(value, dict):
        raise InvalidBodyError("the body is no JSON object; send one")
    return value


def read_evaluation(body: bytes) -> Batch:
    """`/access/v1/evaluation`. Raises InvalidBodyError with every fault."""
    return _single(read_object(body), Faults())


def read_evaluations(body: bytes) -> Batch:
    """`/access/v1/evaluations`. Raises InvalidBodyError for what is wrong with the whole."""
    value = read_object(body)
    faults = Faults()
    semantic = _read_semantic(value, faults)
    given = value.get("evaluations")
    if given is None or given == []:
        return _single(value, faults)
    if not isinstance(given, list):
        faults.add("/evaluations", "wrong_type", "write a list of questions")
    elif len(given) > MOST_ITEMS:
        faults.add("/evaluations", "out_of_range", f"a batch has at most {MOST_ITEMS} items, and this one {len(given)}")
    for name in ("subject", "action", "resource"):
        _check_default(value, name, faults)
    ours = read_ours(value, "", faults)
    raise_invalid(faults)
    return Batch([_read_item(value, one, at) for at, one in enumerate(given)], semantic, freshly=ours.freshly)


def _single(value: Mapping[str, Any], faults: Faults) -> Batch:
    found = _read_one(value, "", faults)
    raise_invalid(faults)
    if found is None:
        raise AssertionError("what cannot be read has a fault")
    return Batch([found], single=True, freshly=found.ours.freshly)


def raise_invalid(faults: Faults) -> None:
    if faults:
        raise InvalidBodyError(faults.summary("the body"), faults=faults.named)


def _read_semantic(value: Mapping[str, Any], faults: Faults) -> Semantic:
    options = value.get("options")
    if options is None:
        return Semantic.EXECUTE_ALL
    if not isinstance(options, dict):
        faults.add("/options", "wrong_type", "write an object")
        return Semantic.EXECUTE_ALL
    given = options.get("evaluations_semantic", Semantic.EXECUTE_ALL.value)
    if not isinstance(given, str) or given not in list(Semantic):
        known = ", ".join(f"`{one.value}`" for one in Semantic)
        message = f"`{shown(str(given))}` is not known here; write one of {known}"
        faults.add("/options/evaluations_semantic", "unknown_value", message)
        return Semantic.EXECUTE_ALL
    return Semantic(given)


def _check_default(value: Mapping[str, Any], name: str, faults: Faults) -> None:
    """A default may lack parts that the items have, but what it has is of the right type."""
    given = value.get(name)
    if given is None:
        return
    if not isinstance(given, dict):
        faults.add(f"/{name}", "wrong_type", "write an object")
        return
    for part in ("type", "id", "name"):
        if part in given and not isinstance(given[part], str):
            faults.add(f"/{name}/{part}", "wrong_type", "write a text")


def _read_item(common: Mapping[str, Any], item: object, position: int) -> Evaluation | tuple[Fault, ...]:
    """An item's own parts, the defaults where it has none; what it has replaces a default as a whole.

    Only the required parts of an entity come from the default one by one.
    """
    where = f"/evaluations/{position}"
    faults = Faults()
    if not isinstance(item, dict):
        faults.add(where, "wrong_type", "write an object")
        return tuple(faults.named)
    merged: dict[str, Any] = {}
    for name in ("subject", "action", "resource", "context"):
        own, default = item.get(name), common.get(name)
        merged[name] = default if own is None else own
        if isinstance(own, dict) and isinstance(default, dict) and name != "context":
            merged[name] = {part: default[part] for part in ("type", "id", "name") if part in default} | own
    found = _read_one(merged, where, faults)
    return tuple(faults.named) if found is None or faults else found


def _read_one(value: Mapping[str, Any], where: str, faults: Faults) -> Evaluation | None:
    subject = read_entity(value, "subject", ("type", "id"), where, faults)
    action = read_entity(value, "action", ("name",), where, faults)
    resource = read_entity(value, "resource", ("type", "id"), where, faults)
    ours = read_ours(value, where, faults)
    if faults or subject is None or action is None or resource is None:
        return None
    attributes = read_attributes(value, subject, action, resource)
    return Evaluation(subject_of(subject), about_of(resource.type, resource.key, action.key), attributes, ours)


def read_entity(
    value: Mapping[str, Any], name: str, needed: tuple[str, ...], where: str, faults: Faults
) -> Entity | None:
    """A subject, action or resource with the parts that are `needed`; None when it has a fault, which is noted."""
    given = value.get(name)
    at = f"{where}/{name}"
    if not isinstance(given, dict):
        _note(name in value and given is not None, at, "an object", faults)
        return None
    before = faults.count
    parts = {}
    for part in ("type", "id", "name"):
        found = given.get(part)
        if part not in needed:
            continue
        if not isinstance(found, str):
            _note(part in given, f"{at}/{part}", "a text", faults)
        elif len(found) > _LONGEST_TEXT:
            faults.add(f"{at}/{part}", "too_long", f"that is too much: {_LONGEST_TEXT} characters at most")
        else:
            parts[part] = found
    properties = given.get("properties")
    if properties is not None and not isinstance(properties, dict):
        faults.add(f"{at}/properties", "wrong_type", "write an object")
    if faults.count != before:
        return None
    key = parts.get("name", parts.get("id", ""))
    return Entity(parts.get("type", ""), key, properties if isinstance(properties, dict) else {})


def _note(given: bool, where: str, what: str, faults: Faults) -> None:
    if given:
        faults.add(where, "wrong_type", f"write {what}")
    else:
        faults.add(where, "missing_field", f"the field is missing; write {what}")


def read_ours(value: Mapping[str, Any], where: str, faults: Faults) -> Ours:
    """`context.authz`, with its faults noted."""
    context = value.get("context")
    if context is None:
        return Ours()
    if not isinstance(context, dict):
        faults.add(f"{where}/context", "wrong_type", "write an object")
        return Ours()
    given = context.get(OURS)
    at = f"{where}/context/{OURS}"
    if given is None:
        return Ours()
    if not isinstance(given, dict):
        faults.add(at, "wrong_type", "write an object")
        return Ours()
    texts: dict[str, str | None] = {}
    for name in ("catalog", "client_address", "at_least"):
        texts[name] = given.get(name)
        if not isinstance(texts[name], str | None):
            faults.add(f"{at}/{name}", "wrong_type", "write a text")
            texts[name] = None
    flags: dict[str, bool] = {}
    for name in ("explain", "fully_consistent"):
        flags[name] = given.get(name) is True
        if not isinstance(given.get(name, False), bool):
            faults.add(f"{at}/{name}", "wrong_type", "write true or false")
    catalog, address = texts["catalog"], texts["client_address"]
    if catalog is not None and not CATALOG.fullmatch(catalog):
        message = f"`{shown(catalog)}` names no catalog; write `name` or `name@1`"
        faults.add(f"{at}/catalog", "invalid_value", message)
    if address is not None and plain_address(address) is None:
        faults.add(f"{at}/client_address", "invalid_value", f"`{shown(address)}` is no IP address")
    return Ours(catalog, flags["explain"], address, Freshly(texts["at_least"], flags["fully_consistent"]))


def read_attributes(
    value: Mapping[str, Any], subject: Entity | None, action: Entity | None, resource: Entity | None
) -> Attributes:
    """Properties and context as attributes (C5). What the directory alone knows is not the PEP's to say."""
    found: dict[str, Scalar] = {}
    context = value.get("context")
    sides = {
        "subject": {} if subject is None else subject.properties,
        "action": {} if action is None else action.properties,
        "resource": {} if resource is None else resource.properties,
        "context": context if isinstance(context, dict) else {},
    }
    for side, properties in sides.items():
        for name, one in properties.items():
            attribute = f"{side}.{name}"
            fits = _NAME.fullmatch(name) is not None and attribute not in RESERVED and attribute != f"context.{OURS}"
            short = not isinstance(one, str) or len(one) <= _LONGEST_TEXT
            if fits and short and isinstance(one, str | int | bool) and len(found) < MOST_ATTRIBUTES:
                found[attribute] = one
    return found


def subject_of(entity: Entity) -> Subject | None:
    """None for a type that is neither `token` nor `user`: nothing is known of it, and it may nothing."""
    return Subject(SubjectKind(entity.type), entity.key) if entity.type in list(SubjectKind) else None
