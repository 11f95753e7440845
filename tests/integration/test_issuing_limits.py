"""No sequence of issues makes a token that may do what the first issuer may not (M2, T4)."""

from __future__ import annotations

import contextlib
from collections import Counter
from random import Random
from typing import Any

import httpx
import pytest
from tests.support.asked_for import TokenDrawer, managers
from tests.support.forge import CATALOGS, FORGE_2
from tests.support.pair import Pair, pair_of_replicas
from tests.support.powers import powers
from tests.support.stored_rows import Reading, import_lines, install, read_all
from tests.support.upheaval import START, Upheaval

from authz_service.errors import InvalidInputError
from authz_service.tokens.model import Reach, ReachKind, Scope, TokenId

ISSUES = 16


async def issue_and_go_on(pair: Pair, secret: str, first: TokenId, random: Random) -> Counter[int]:
    """Issues by one token, by those that it issued, and so on; some of them are widened by nothing but luck."""
    secrets = {first: secret}
    statuses: Counter[int] = Counter()
    reading = await read_all(pair.database)
    drawer = TokenDrawer(random, reading.now, near=0.9)
    for _ in range(ISSUES):
        known = [token for token in reading.rows.tokens if token.id in secrets]
        able = [token for token in known if "authz" in token.catalogs]
        issuer = random.choice([*able, *(token for token in known if token.id == first)])
        body = drawer.draw(reading.rows, issuer, known)
        answer = await random.choice(pair.sides).call("POST", "/v1/tokens", secrets[issuer.id], body)
        statuses[answer.status_code] += 1
        if answer.status_code == 201:
            secrets[answer.json()["id"]] = answer.json()["secret"]
            reading = await read_all(pair.database)
    return statuses


def assert_within(reading: Reading, first: TokenId) -> None:
    """Every token that came of the first one may do at most what that may."""
    origin = {token.id: token for token in reading.rows.tokens}[first]
    whole = powers(reading.rows, origin, reading.now, operations=True)
    for token in reading.rows.tokens:
        if token.id != first and token.name == "drawn":
            beyond = powers(reading.rows, token, reading.now, operations=True) - whole
            assert not beyond, f"{token}\ncame of {origin}\nand may also {sorted(beyond)}"


@pytest.mark.parametrize("seed", range(3))
async def test_what_comes_of_a_token_may_do_nothing_that_it_may_not(database_url: str, seed: int):
    random = Random(f"issues {seed}")
    async with pair_of_replicas(database_url, START) as pair:
        await install(pair.database, *CATALOGS, *([FORGE_2] if seed == 1 else []))
        upheaval = Upheaval(Random(f"issues {seed}"))
        for _ in range(8):
            with contextlib.suppress(InvalidInputError):
                await import_lines(pair.database, *upheaval.draw((await read_all(pair.database)).rows))
        body = random.choice(managers((await read_all(pair.database)).rows))
        if seed == 1:  # a version that is not the newest any more
            body["scopes"] = [{**one, "catalog": f"{one['catalog']}@1"} for one in body["scopes"]]
        made = (await pair.sides[0].call("POST", "/v1/tokens", pair.admin, body)).json()
        statuses = await issue_and_go_on(pair, made["secret"], TokenId(made["id"]), random)
        assert_within(await read_all(pair.database), TokenId(made["id"]))
        assert statuses[201] > 1


# What chance would hardly find


@pytest.fixture
async def pair(database_url):
    async with pair_of_replicas(database_url, START) as running:
        await install(running.database, *CATALOGS, FORGE_2)
        yield running


def on(*nodes: int, catalog: str = "forge", permissions: tuple[str, ...] = ("issue:read",)) -> Scope:
    return Scope(catalog, Reach(ReachKind.SELECTED, nodes), permissions)


CREATE = Scope("authz", Reach(ReachKind.USER), ("token:create",))


async def issue(pair: Pair, secret: str, **changed: Any) -> httpx.Response:
    wanted = {"reach": {"kind": "selected", "nodes": ["group:acme"]}, "permissions": ["issue:read"]}
    body = {"name": "drawn", "catalog": "forge", "scopes": [wanted]} | changed
    return await pair.sides[0].call("POST", "/v1/tokens", secret, body)


def faults_of(answer: httpx.Response) -> list[tuple[str, str]]:
    return [(fault["where"], fault["code"]) for fault in answer.json()["faults"]]


async def test_nobody_moves_to_another_version_of_a_catalog_by_issuing(pair):
    """There a name may hold more, or need a lower role."""
    acme = await pair.node("group", "21")
    for own, other in ((1, 2), (2, 1)):
        named = {"authz": 1, "forge": own}
        first, secret = await pair.put_token("dana", CREATE, on(acme), catalogs=named)
        for catalog in ("forge", f"forge@{own}"):
            answer = await issue(pair, secret, catalog=catalog)
            assert (answer.status_code, answer.json()["catalogs"]) == (201, [f"forge@{own}"])
        moved = await issue(pair, secret, catalog=f"forge@{other}")
        assert (moved.status_code, faults_of(moved)) == (403, [("/catalog", "beyond_issuer")])
        empty = await issue(pair, secret, catalog=f"forge@{other}", scopes=[])
        assert (empty.status_code, faults_of(empty)) == (403, [("/catalog", "beyond_issuer")])
        child = await issue(pair, pair.admin, catalog=f"forge@{other}", parent=first.id)
        assert (child.status_code, faults_of(child)) == (400, [("/catalog", "beyond_parent")])
    newest = await issue(pair, pair.admin, owner="dana")
    assert newest.json()["catalogs"] == ["forge@2"]


STATIONARY = """
catalog: visits
version: 1
roles: {visitor: {inherits: false}, guest: [visitor]}
top_role: guest
permissions: {room: {enter: {project: {min_role: visitor}, group: }}}
"""


async def test_a_role_that_does_not_come_down_is_lent_to_no_service_account_below_its_place(pair):
    """The robot is a guest there and below; who issues for it is a visitor of the group itself, and below nobody."""
    await install(pair.database, STATIONARY)
    await import_lines(
        pair.database,
        {"type": "membership", "user": "olga", "node": "acme", "role": "owner"},
        {"type": "membership", "user": "olga", "node": "acme/Tools", "role": "visitor"},
        {"type": "membership", "user": "bot", "node": "acme/Tools", "role": "guest"},
    )
    acme, tools = await pair.node("group", "21"), await pair.node("group", "22")
    held = (on(acme, catalog="authz", permissions=("token:create",)),)
    first, secret = await pair.put_token("olga", *held, on(tools, catalog="visits", permissions=("room:enter",)))
    wanted = {"reach": {"kind": "selected", "nodes": ["group:acme/Tools"]}, "permissions": ["room:enter"]}
    answer = await issue(pair, secret, catalog="visits", owner="bot", scopes=[wanted])
    assert (answer.status_code, faults_of(answer)) == (403, [("/scopes/0/permissions/0", "beyond_issuer")])
    assert_within(await read_all(pair.database), first.id)


SHIPPING = """
catalog: ships
version: 1
roles: {member: , developer: [member], maintainer: [developer]}
top_role: maintainer
targets: {/p/:id: project}
permissions:
  thing:
    read: {project: {min_role: developer}}
    run: {project: {min_role: developer}}
    check: {project: {min_role: developer}}
    lead: {project: {min_role: developer}}
    admin: {project: {min_role: developer}, implies: ["thing:ship"]}
    ship: {project: {min_role: maintainer}, implies: ["thing:sink"]}
    sink: {project: {min_role: maintainer}}
    board: {project: , when: {subject.role: maintainer}}
    moor: {project: , implies: ["thing:board"]}
operations:
  POST /p/:id/deploy: {needs: [{min_role: maintainer, all_of: ["thing:run"]}]}
  POST /p/:id/both: {needs: [{min_role: maintainer, all_of: ["thing:check", "thing:read"]}]}
  POST /p/:id/leader: {needs: [{when: {subject.role: maintainer}, all_of: ["thing:lead"]}]}
"""
"""Each permission but `ship`, `sink` and `board` is a developer's; what comes of it is a maintainer's."""


@pytest.fixture
async def shipping(pair):
    """`olga`'s token for the robot's home and for the catalog; she is a developer of `web`, the robot a maintainer."""
    await install(pair.database, SHIPPING)
    await import_lines(
        pair.database,
        {"type": "membership", "user": "olga", "node": "acme", "role": "owner"},
        {"type": "membership", "user": "olga", "node": "acme/Tools", "role": "developer"},
        {"type": "membership", "user": "bot", "node": "acme/Tools", "role": "maintainer"},
    )
    acme, tools = await pair.node("group", "21"), await pair.node("group", "22")
    names = ("read", "run", "check", "lead", "admin", "moor")
    held = on(tools, catalog="ships", permissions=tuple(f"thing:{name}" for name in names))
    manages = on(acme, catalog="authz", permissions=("token:create",))
    return await pair.put_token("olga", CREATE, manages, held)


def ships(*names: str) -> dict[str, Any]:
    reach = {"kind": "selected", "nodes": ["group:acme/Tools"]}
    return {"catalog": "ships", "scopes": [{"reach": reach, "permissions": [f"thing:{name}" for name in names]}]}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["admin"], id="what it implies"),
        pytest.param(["run"], id="a set of an operation"),
        pytest.param(["check", "read"], id="a set of two items"),
        pytest.param(["moor"], id="a when of what it implies"),
        pytest.param(["lead"], id="a when of a set"),
    ],
)
async def test_a_service_account_is_given_nothing_that_the_issuers_role_forbids(pair, shipping, names):
    first, secret = shipping
    answer = await issue(pair, secret, owner="bot", **ships(*names))
    assert (answer.status_code, faults_of(answer)[0]) == (403, ("/scopes/0/permissions/0", "beyond_issuer"))
    assert_within(await read_all(pair.database), first.id)
    for_herself = await issue(pair, secret, **ships(*names))
    assert for_herself.status_code == 201


async def test_what_takes_a_higher_role_only_with_more_than_is_given_is_given(pair, shipping):
    first, secret = shipping
    for name in ("check", "read"):
        assert (await issue(pair, secret, owner="bot", **ships(name))).status_code == 201
    assert_within(await read_all(pair.database), first.id)


async def test_an_edit_gives_no_service_account_the_rest_of_such_a_set(pair, shipping):
    first, secret = shipping
    made = (await issue(pair, secret, owner="bot", **ships("check"))).json()
    acme = await pair.node("group", "21")
    edits = on(acme, catalog="authz", permissions=("token:edit", "token:read"))
    _, editor = await pair.put_token("olga", *first.scopes, edits)
    body = {"scopes": ships("check", "read")["scopes"]}
    headers = {"If-Match": "*"}
    answer = await pair.sides[0].call("PATCH", f"/v1/tokens/{made['id']}", editor, body, headers=headers)
    assert (answer.status_code, faults_of(answer)) == (403, [("/scopes/0/permissions/0", "beyond_issuer")])
