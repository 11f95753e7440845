"""The format of a catalog file: one table of keys, for the loader, the format's page and editors."""

from __future__ import annotations

import re
from typing import Final

from authz_service.catalog.faults import CatalogFault
from authz_service.catalog.model import BOUNDARIES, AnyOperation, ArgumentKind, OwnerCheck, ParameterKind
from authz_service.catalog.shapes import Choice, Either, Fields, Flag, Key, Keyed, Many, Nothing, Plain, Text, Whole

MAX_VERSION: Final = 2**31 - 1
MAX_PERMISSIONS: Final = 4096
MAX_OPERATIONS: Final = 20_000
MAX_SETS: Final = 64

NAME_PATTERN: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""Names of catalogs, resources, actions and roles, and the parts of bundles': ASCII, so that no two look alike."""

NAME: Final = Text("a name of small letters, digits and `_`", NAME_PATTERN, CatalogFault.BAD_NAME)
PERMISSION: Final = Text(
    "a permission as `resource:action`",
    re.compile(rf"{NAME_PATTERN.pattern}:{NAME_PATTERN.pattern}"),
    CatalogFault.BAD_NAME,
)
BUNDLE: Final = Text(
    "a name of small letters, digits and `_`, or two with a `:` between them",
    re.compile(rf"{NAME_PATTERN.pattern}(:{NAME_PATTERN.pattern})?"),
    CatalogFault.BAD_NAME,
)
SENTENCE: Final = Text("a text", longest=500)
OPERATION: Final = Text("an operation as `GET /path`", code=CatalogFault.BAD_OPERATION)
OPERATIONS: Final = Many(OPERATION)
TARGET: Final = Text("a target as `project {id}`, `self` or `caller`", code=CatalogFault.BAD_TARGET)
BOUNDARY: Final = Choice(tuple(boundary.value for boundary in BOUNDARIES), CatalogFault.UNKNOWN_BOUNDARY)
MIN_ROLE: Final = Text("the name of a role", NAME_PATTERN, CatalogFault.BAD_NAME)
ATTRIBUTE: Final = Text(
    "an attribute as `resource.status`, `action.…`, `subject.…` or `context.…`",
    re.compile(r"(subject|resource|action|context)\.[a-z][a-z0-9_]{0,63}"),
    CatalogFault.BAD_CONDITION,
)
WHEN: Final = Keyed(ATTRIBUTE, Plain(), 8)

AT_BOUNDARY: Final = Either(
    (
        Nothing(),
        OPERATIONS,
        Fields(
            (
                Key("min_role", MIN_ROLE, "the least role of the owner there; at `instance`, `none` or `admin`"),
                Key("operations", OPERATIONS, "the operations that this permission unlocks there"),
            )
        ),
    )
)
PERMISSION_FIELDS: Final = Fields(
    (
        *(Key(boundary.value, AT_BOUNDARY, f"the permission exists at {boundary.value}") for boundary in BOUNDARIES),
        Key("description", SENTENCE, "what the permission allows, for people"),
        Key("implies", Many(PERMISSION, 256), "permissions that this one includes"),
        Key("mutates", Flag(), "whether it changes anything; without it, `reading_actions` decides"),
        Key("public_read", Flag(), "whether a public project or group satisfies it without scope or membership"),
        Key("reviewed", Flag(), "somebody made sure that `public_read` may cover this mutating permission"),
        Key("visitor", Flag(), "whether a legacy token has it where its owner is only a visitor"),
        Key("when", WHEN, "attributes of the request that must be equal for the permission to be held"),
        Key("deprecated", Flag(), "hidden at creation, still working"),
        Key("aliases", Many(PERMISSION, 16), "former names of the permission"),
        Key("extension", Flag(), "in no published table of this API; counted apart"),
    )
)
ACTION: Final = Either((Nothing(), Many(BOUNDARY, 4), PERMISSION_FIELDS))
RESOURCES: Final = Keyed(NAME, Keyed(NAME, ACTION, 256), MAX_PERMISSIONS)

ITEM: Final = Either(
    (
        Text("an item as `permission` or `permission@boundary`"),
        Fields(
            (
                Key("permission", PERMISSION, "the permission that must be held", required=True),
                Key("boundary", BOUNDARY, "the boundary at which it must be held"),
                Key("target", TARGET, "where it must be held"),
            )
        ),
    )
)
REQUIREMENT: Final = Either(
    (
        Text("items joined by ` + `"),
        Fields(
            (
                Key("all_of", Many(ITEM, 16), "the items that must all hold", required=True),
                Key("when", WHEN, "attributes for which this set stands in place of those without `when`"),
                Key("min_role", MIN_ROLE, "the least role of the owner at the first item's target"),
            )
        ),
    )
)
REQUIREMENTS: Final = Many(REQUIREMENT, MAX_SETS)
OPERATION_FIELDS: Final = Fields(
    (
        Key("needs", REQUIREMENTS, "what unlocks the operation: any one of these sets"),
        Key("target", TARGET, "where all its items must hold"),
        Key("open", Either((Flag(), TARGET)), "any valid token may call it; a target is the node it must see"),
        Key("public_read", Flag(), "no permission is needed where every target is public"),
        Key("closed", Flag(), "no fine-grained token may call it, whatever it holds"),
        Key("reviewed", Flag(), "somebody made sure that `open` or `public_read` may cover this mutating operation"),
        Key("mutates", Flag(), "whether it changes anything; without it, its method or type decides"),
        Key("extension", Flag(), "in no published table of this API; counted apart"),
        Key("summary", SENTENCE, "what the operation does, for people"),
    )
)

ARGUMENT: Final = Text(
    "an argument as `fullPath` or `input.projectPath`",
    re.compile(r"[a-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z_][A-Za-z0-9_]{0,63}){0,3}"),
    CatalogFault.BAD_NAME,
)
FIELD: Final = Text(
    "a field as `Query.project`",
    re.compile(r"[A-Z][A-Za-z0-9_]{0,127}\.[A-Za-z_][A-Za-z0-9_]{0,127}"),
    CatalogFault.BAD_NAME,
)
TYPE: Final = Text("a type as `Project`", re.compile(r"[A-Z][A-Za-z0-9_]{0,127}"), CatalogFault.BAD_NAME)
PARAMETER_KIND: Final = Choice(tuple(kind.value for kind in ParameterKind))
GRAPHQL: Final = Fields(
    (
        Key(
            "path",
            Text("a path as `/api/graphql`", re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+"), CatalogFault.BAD_VALUE),
            "where documents are sent, whole: `base_path` does not stand before it",
        ),
        Key(
            "arguments",
            Keyed(ARGUMENT, Choice(tuple(kind.value for kind in ArgumentKind), CatalogFault.BAD_TARGET), 1000),
            "what an argument of this name names, on whatever field",
        ),
        Key(
            "fields",
            Keyed(FIELD, Many(Text("`self`, `instance`, `caller`, or as `project fullPath`", None), 8), 5000),
            "where a field is, in place of what `arguments` says",
        ),
        Key("places", Many(TYPE, 256), "types whose objects are places, or lie where their own field says"),
        Key("stays", Many(FIELD, 5000), "fields whose objects lie where the field is, though they are `places`"),
        Key("leaves", Many(FIELD, 5000), "fields whose objects may lie anywhere"),
        Key(
            "global_ids",
            Keyed(Text("what a global id begins with, as `gid://gitlab/Project/`"), PARAMETER_KIND, 64),
            "what global ids that begin so name",
        ),
    )
)

CATALOG: Final = Fields(
    (
        Key("catalog", NAME, "the catalog's name, as tokens store it", required=True),
        Key("version", Whole(1, MAX_VERSION), "counts up with each change", required=True),
        Key("title", SENTENCE, "the API's name for people"),
        Key("source", NAME, "the directory source that its groups, projects and users come from"),
        Key("owner_check", Choice(tuple(check.value for check in OwnerCheck)), "`upstream`: no directory is needed"),
        Key("single_owner", Flag(), "each token belongs to one group or user, and all it selects lies under it"),
        Key("case_sensitive", Flag(), "whether paths of groups and projects compare by case"),
        Key(
            "base_path",
            Text("a path as `/api/v4`, without a `/` at its end", re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")),
            "what stands before every path of the API",
        ),
        Key(
            "words",
            Fields(tuple(Key(boundary.value, SENTENCE, f"what the API calls a {boundary}") for boundary in BOUNDARIES)),
            "the API's own words for the boundaries",
        ),
        Key(
            "roles",
            Keyed(
                NAME,
                Either(
                    (
                        Nothing(),
                        Many(NAME, 64),
                        Fields(
                            (
                                Key("includes", Many(NAME, 64), "roles that this one includes"),
                                Key("inherits", Flag(), "`false`: it counts only at its own node"),
                            )
                        ),
                    )
                ),
                256,
            ),
            "the roles of members, and which of them include which",
        ),
        Key("top_role", NAME, "the role of users in their own namespace"),
        Key("reading_actions", Many(NAME, 64), "actions whose permissions do not mutate; `read` when left out"),
        Key("levels", Many(NAME, 64), "actions of which each includes those before it, on one resource"),
        Key(
            "implies",
            Fields(
                tuple(
                    Key(boundary.value, Many(PERMISSION, 64), f"what any permission of {boundary} includes")
                    for boundary in BOUNDARIES
                )
            ),
            "permissions that every other permission of a boundary includes",
        ),
        Key(
            "targets",
            Keyed(
                Text("a path prefix or a parameter", code=CatalogFault.BAD_TARGET),
                Text("`project`, `group`, `user`, `namespace` or a target", code=CatalogFault.BAD_TARGET),
                2000,
            ),
            "what paths and their parameters name",
        ),
        Key(
            "attribute_parameters",
            Keyed(ATTRIBUTE, Text("the name of a path parameter"), 64),
            "attributes that a path parameter gives",
        ),
        Key(
            "encoded_parameters",
            Many(Text("the name of a path parameter"), 256),
            "path parameters whose values may hold encoded separators, as a file's path or a branch",
        ),
        Key(
            "spanning_parameters",
            Many(Text("the name of a path parameter"), 256),
            "path parameters that take raw slashes too",
        ),
        Key("graphql", GRAPHQL, "where the fields of GraphQL documents are"),
        Key("permissions", RESOURCES, "resources, their actions, and where each exists"),
        Key("categories", Keyed(NAME, RESOURCES, 256), "the same, by category"),
        Key(
            "operations",
            Keyed(
                OPERATION,
                Either((REQUIREMENTS, OPERATION_FIELDS)),
                MAX_OPERATIONS,
            ),
            "operations whose requirement needs more than a line under its permission",
        ),
        Key(
            "flags",
            Fields(
                (
                    Key("open", OPERATIONS, "operations that any valid token may call"),
                    Key("public_read", OPERATIONS, "operations free where every target is public"),
                    Key("closed", OPERATIONS, "operations that no fine-grained token may call"),
                    Key("reviewed", OPERATIONS, "mutating operations that may be open or public all the same"),
                    Key("mutates", OPERATIONS, "operations that change something although they look like reading"),
                    Key("reads", OPERATIONS, "operations that change nothing although they look like it"),
                )
            ),
            "marks for many operations",
        ),
        Key(
            "bundles",
            Keyed(
                BUNDLE,
                Fields(
                    (
                        Key("permissions", Many(Text("a permission, `all` or `reads`")), "what it holds"),
                        Key("operations", Many(Text("an operation, `all` or `reads`")), "what it may call besides"),
                        Key(
                            "any_operation",
                            Choice(tuple(choice.value for choice in AnyOperation)),
                            "which operations in no table it covers",
                        ),
                        Key("public_only", Flag(), "of projects and groups, it speaks of public ones alone"),
                        Key("description", SENTENCE, "what it is, for people"),
                    )
                ),
                256,
            ),
            "legacy scopes",
        ),
        Key(
            "forbidding_legacy_ends_public_reads",
            Flag(),
            "whether a policy against legacy tokens also ends what they may read in public",
        ),
    )
)
