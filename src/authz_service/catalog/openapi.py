"""What an OpenAPI 3 document says of an API's calls, as far as a catalog can be drafted from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from authz_service.catalog.faults import MOST_FAULTS
from authz_service.errors import Fault, InvalidInputError

MAX_CHARACTERS: Final = 32 * 1024 * 1024
_METHODS: Final = ("get", "head", "post", "put", "patch", "delete", "options", "trace")
_JOINED: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LOCAL: Final = "#/"


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of the document. `public` says that it asks for no credentials, by the document's own word."""

    method: str
    path: str
    tags: tuple[str, ...] = ()
    summary: str = ""
    deprecated: bool = False
    public: bool = False

    @property
    def id(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Api:
    """`server` is the path under which the first server listens, and None where it depends on something."""

    title: str
    server: str | None
    calls: tuple[Call, ...]


def read_openapi(text: str, *, file: str) -> Api:
    """The document's calls in its order. Raises InvalidInputError with every fault, at a line or a JSON pointer."""
    reader = _Reader(file)
    document = reader.parse(text)
    api = None if document is None else reader.read(document)
    if reader.faults or api is None:
        count = len(reader.faults)
        noun = "fault" if count == 1 else "faults"
        raise InvalidInputError(f"`{file}` has {count} {noun}", faults=reader.faults[:MOST_FAULTS])
    return api


@dataclass(slots=True)
class _Reader:
    file: str
    faults: list[Fault] = field(default_factory=list)

    def add(self, where: str, code: str, message: str) -> None:
        self.faults.append(Fault(f"{self.file}{where}", code, message))

    def parse(self, text: str) -> Mapping[str, Any] | None:
        """JSON where it begins like it, else YAML: the first is read far faster."""
        if len(text) > MAX_CHARACTERS:
            self.add("", "too_large", f"the document has more than {MAX_CHARACTERS} characters")
            return None
        text = text.removeprefix("\ufeff")
        try:
            document = json.loads(text) if text.lstrip().startswith("{") else YAML(typ="safe", pure=True).load(text)
        except json.JSONDecodeError as error:
            self.add(
                f":{error.lineno}", "bad_syntax", f"this is no JSON: it stops making sense at column {error.colno}"
            )
            return None
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            problem = str(getattr(error, "problem", None) or "it cannot be read").partition("\n")[0].replace("`", "'")
            self.add(f":{1 if mark is None else mark.line + 1}", "bad_syntax", f"this is no YAML: {problem}")
            return None
        except (RecursionError, ValueError):
            self.add("", "bad_syntax", "the document is nested too deeply, or holds a value that cannot be read")
            return None
        if not isinstance(document, Mapping):
            self.add(":1", "bad_type", "this is no OpenAPI document; one begins with `openapi: 3.1.0`")
            return None
        return document

    def read(self, document: Mapping[str, Any]) -> Api | None:
        version = document.get("openapi")
        if "swagger" in document:
            self.add("#/swagger", "bad_version", "this is OpenAPI 2 (Swagger); convert it to OpenAPI 3 first")
            return None
        if not isinstance(version, str) or not version.startswith("3."):
            said = "is missing" if version is None else f"is `{str(version)[:20]}`"
            self.add("#/openapi", "bad_version", f"`openapi` {said}; documents of versions 3.0 and 3.1 are read")
            return None
        paths = document.get("paths")
        if not isinstance(paths, Mapping) or not paths:
            self.add("#/paths", "no_paths", "the document has no `paths`, so there is nothing to draft from")
            return None
        secured = bool(document.get("security"))
        calls = [call for path, item in paths.items() for call in self._calls(document, path, item, secured=secured)]
        if not calls and not self.faults:
            self.add("#/paths", "no_paths", "no path of the document has an operation")
        info = document.get("info")
        title = info.get("title") if isinstance(info, Mapping) else None
        return Api(one_line(title), self._server(document), tuple(calls))

    def _calls(self, document: Mapping[str, Any], path: object, item: object, *, secured: bool) -> Iterator[Call]:
        if not isinstance(path, str):
            self.add("#/paths", "bad_path", f"`{path}` is no path; write it in quotes, beginning with `/`")
            return
        where = f"#/paths/{_escape(path)}"
        if path.startswith("x-"):
            return
        if not path.startswith("/"):
            self.add(where, "bad_path", f"`{path}` is no path: it does not begin with `/`")
            return
        found = self._resolved(document, where, item)
        for method in _METHODS if found is not None else ():
            operation = found.get(method) if found is not None else None
            if operation is None:
                continue
            if not isinstance(operation, Mapping):
                self.add(f"{where}/{method}", "bad_type", f"`{method}` is a mapping that describes the operation")
                continue
            yield self._call(where, method, path, operation, secured=secured)

    def _resolved(self, document: Mapping[str, Any], where: str, item: object) -> Mapping[str, Any] | None:
        """A path's item, through a reference within the document."""
        seen: set[str] = set()
        while isinstance(item, Mapping) and isinstance(item.get("$ref"), str):
            reference = item["$ref"]
            if not reference.startswith(_LOCAL) or reference in seen:
                message = f"`{reference[:80]}` leads out of this document; join the documents to one first"
                self.add(f"{where}/$ref", "bad_reference", message)
                return None
            seen.add(reference)
            item = _follow(document, reference)
        if isinstance(item, Mapping):
            return item
        self.add(where, "bad_type", "a path is a mapping of methods, or its reference leads to none")
        return None

    def _call(self, where: str, method: str, path: str, operation: Mapping[str, Any], *, secured: bool) -> Call:
        tags = operation.get("tags", [])
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            self.add(f"{where}/{method}/tags", "bad_type", "`tags` is a list of texts")
            tags = []
        security = operation.get("security")
        return Call(
            method.upper(),
            path,
            tuple(tags),
            one_line(operation.get("summary") or operation.get("operationId")),
            deprecated=operation.get("deprecated") is True,
            public=secured and security in ([], [{}]),
        )

    @staticmethod
    def _server(document: Mapping[str, Any]) -> str | None:
        servers = document.get("servers")
        first = servers[0] if isinstance(servers, list) and servers else {}
        url = first.get("url") if isinstance(first, Mapping) else None
        if url is None:
            return ""
        if not isinstance(url, str) or "{" in url:
            return None
        try:
            return urlsplit(url).path.rstrip("/")
        except ValueError:
            return None


def _follow(document: Mapping[str, Any], reference: str) -> object:
    found: object = document
    for step in reference.removeprefix(_LOCAL).split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def one_line(text: object, longest: int = 80) -> str:
    """A stranger's text as it may stand in a catalog: one line of what prints."""
    words = " ".join(text.split()) if isinstance(text, str) else ""
    clean = "".join(letter for letter in words if letter.isprintable())
    return clean if len(clean) <= longest else f"{clean[: longest - 1].rstrip()}…"


def slug(text: str) -> str:
    """`Pull Requests`, `orderItems` and `order-items` as names of a catalog; empty where nothing of it can be one."""
    plain = _JOINED.sub("_", text).lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:60].rstrip("_")
    return name if name[:1].isalpha() else ""


def singular(name: str) -> str:
    """`order_items` to `order_item`, as far as English goes by rules."""
    for ending, single in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if name.endswith(ending) and len(name) > len(ending) + 1:
            return name.removesuffix(ending) + single
    if name.endswith("s") and not name.endswith(("ss", "us", "is", "ews")) and len(name) > 2:
        return name[:-1]
    return name
