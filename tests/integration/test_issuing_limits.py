"""No sequence of issues makes a token that may do what the first issuer may not (M2, T4)."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from tests.reference import naive
from tests.support.asked_for import TokenDrawer, managers
from tests.support.forge import CATALOGS, FORGE_2
from tests.support.pair import Pair, pair_of_replicas
from tests.support.powers import powers
from tests.support.stored_rows import import_lines, install, read_all
from tests.support.upheaval import START, Upheaval

from authz_service.errors import InvalidInputError
from authz_service.tokens.model import TokenId

ISSUES = 25


async def issued_from(pair: Pair, secret: str, first: TokenId, random: Random) -> tuple[set[TokenId], Counter[int]]:
    """Ids of what came of one token: issued by it, by those that it issued, and so on."""
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
            made = answer.json()
            secrets[made["id"]] = made["secret"]
            reading = await read_all(pair.database)
    return set(secrets) - {first}, statuses


@pytest.mark.parametrize("seed", range(3))
async def test_what_comes_of_a_token_may_do_nothing_that_it_may_not(database_url: str, seed: int):
    random = Random(f"issues {seed}")
    statuses: Counter[int] = Counter()
    async with pair_of_replicas(database_url, START) as pair:
        await install(pair.database, *CATALOGS, *([FORGE_2] if seed % 2 else []))
        upheaval = Upheaval(Random(f"issues {seed}"))
        for _ in range(10):
            try:
                await import_lines(pair.database, *upheaval.draw((await read_all(pair.database)).rows))
            except InvalidInputError:
                continue
        for body in managers((await read_all(pair.database)).rows):
            if seed % 2:
                body["scopes"] = [{**one, "catalog": f"{one['catalog']}@1"} for one in body["scopes"]]
            made = (await pair.sides[0].call("POST", "/v1/tokens", pair.admin, body)).json()
            first = TokenId(made["id"])
            followers, seen = await issued_from(pair, made["secret"], first, random)
            statuses += seen
            reading = await read_all(pair.database)
            whole = powers(reading.rows, naive.token_of(reading.rows, first), reading.now, operations=True)
            for token_id in followers:
                token = naive.token_of(reading.rows, token_id)
                beyond = powers(reading.rows, token, reading.now, operations=True) - whole
                assert not beyond, f"{body['owner']}: {token} from {first}: {sorted(beyond)}"
    assert statuses[201] > 10
