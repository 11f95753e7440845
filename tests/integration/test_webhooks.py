"""Webhooks: signed, tried again, shown; and never a way to where nobody from outside may go."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
from datetime import timedelta
from ipaddress import ip_address

import pytest
from sqlalchemy import text
from tests.support.managing import Stage, body_of, staged
from tests.support.receiver import Receiver, receiving, status

from authz_service.admin import outbound as outbound_module
from authz_service.admin.addresses import is_public, parse_receiver
from authz_service.admin.delivering import Deliverer
from authz_service.admin.outbound import Outbound, OutboundError
from authz_service.errors import InvalidInputError
from authz_service.store import webhooks as store
from authz_service.store.events import Event, EventKind, append_event


@pytest.fixture
async def receiver(tmp_path):
    async with receiving(tmp_path) as running:
        yield running


@pytest.fixture
async def stage(database_url, tmp_path, receiver):
    given = {"webhook_private_hosts": "localhost", "webhook_ca_file": tmp_path / "ca.pem", "webhook_timeout": 1.0}
    async with staged(database_url, **given) as running:
        yield running


async def hook(stage: Stage, receiver: Receiver, secret: str | None = None, **given) -> dict:
    body = {"url": receiver.url()} | given
    answer = await stage.call("POST", "/v1/webhooks", secret or await stage.admin(), body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def until(condition, what: str = "") -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"it did not happen: {what}")


async def deliveries(stage: Stage, webhook_id: str) -> list[dict]:
    answer = await stage.call("GET", f"/v1/webhooks/{webhook_id}/deliveries", await stage.admin())
    return answer.json()["items"]


async def ended(stage: Stage, webhook_id: str, attempts: int = 1) -> dict:
    for _ in range(200):
        found = await deliveries(stage, webhook_id)
        if found and len(found[0]["log"]) >= attempts:
            return found[0]
        await asyncio.sleep(0.05)
    raise AssertionError("nothing was delivered")


async def happen(stage: Stage, *events: Event) -> None:
    async with stage.database.transaction() as conn:
        for event in events:
            await append_event(conn, event)


async def test_an_event_arrives_signed_as_documented(stage, receiver):
    made = await hook(stage, receiver, events=["token.leaked"])
    token_id, _ = await stage.give("dana", await stage.scope_at("gitlab", ["acme/web"], "job:read"))
    node = await stage.node("project:acme/web")
    await happen(
        stage,
        Event(EventKind.TOKEN_LEAKED, token_id, await stage.node("user:dana"), (node,), {"origin": "report"}),
        Event(EventKind.TOKEN_REUSED, token_id),
    )
    await until(lambda: receiver.requests, "a request")
    [request] = receiver.requests
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["host"] == f"localhost:{receiver.port}"
    assert request.headers["authz-event"] == "token.leaked"
    told = json.loads(request.body)
    assert told["token"] == {"id": token_id, "name": "given"}
    assert (told["owner"], told["nodes"], told["data"]) == ("dana", ["project:acme/web"], {"origin": "report"})
    # As a receiver would: the time and the very bytes of the body, under the text of the secret.
    fields = dict(part.split("=", 1) for part in request.headers["authz-signature"].split(","))
    code = hmac.new(made["secret"].encode(), f"{fields['t']}.".encode() + request.body, hashlib.sha256)
    assert hmac.compare_digest(code.hexdigest(), fields["v1"])
    shown = await ended(stage, made["id"])
    assert (shown["state"], shown["attempts"], shown["log"][0]["status"]) == ("delivered", 1, 204)


async def test_a_group_hears_of_what_lies_in_it_and_of_nothing_else(stage, receiver):
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "webhook:edit", "webhook:read"))
    made = await hook(stage, receiver, olga, node="group:acme")
    web, plan, acme = [await stage.node(name) for name in ("project:acme/web", "project:hidden/plan", "group:acme")]
    await happen(
        stage,
        Event(EventKind.TOKEN_LEAKED, nodes=(plan,)),
        Event(EventKind.TOKEN_LEAKED),
        Event(EventKind.TOKEN_LEAKED, nodes=(web, plan)),
        Event(EventKind.GRANT_REQUESTED, nodes=(acme,)),
    )
    await until(lambda: len(receiver.requests) == 2, "two requests")
    await asyncio.sleep(0.2)
    told = sorted((json.loads(request.body) for request in receiver.requests), key=lambda one: one["id"])
    assert [one["nodes"] for one in told] == [["project:acme/web"], ["group:acme"]]
    assert made["node"] == "group:acme"
    elsewhere = await stage.call("POST", "/v1/webhooks", olga, {"url": receiver.url()})
    assert elsewhere.status_code == 403
    listed = await stage.call("GET", "/v1/webhooks", olga, params={"node": "group:acme"})
    assert [one["id"] for one in listed.json()["items"]] == [made["id"]]


async def test_who_may_not_see_a_webhook_is_told_the_same_as_of_one_that_is_not_there(stage, receiver):
    made = await hook(stage, receiver, node="group:hidden")
    _, olga = await stage.give("olga", await stage.scope_at("authz", ["group:acme"], "webhook:edit", "webhook:read"))
    calls = [
        ("GET", "", None),
        ("PATCH", "", {"name": "mine"}),
        ("DELETE", "", None),
        ("POST", "/secret", None),
        ("POST", "/test", None),
        ("GET", "/deliveries", None),
        ("POST", "/deliveries/dlv_1/redeliver", None),
    ]
    for method, path, body in calls:
        both = [
            await stage.call(method, f"/v1/webhooks/{one}{path}", olga, body, headers={"If-Match": "*"})
            for one in (made["id"], "whk_absent")
        ]
        assert [answer.status_code for answer in both] == [404, 404], (method, path)
        assert both[0].content == both[1].content
    assert (await stage.call("GET", f"/v1/webhooks/{made['id']}", await stage.admin())).json()["name"] == ""


async def test_what_fails_is_tried_again_and_given_up_in_the_end(stage, receiver):
    receiver.answer = lambda request: status(500, b"secret of the receiver")
    made = await hook(stage, receiver)
    admin = await stage.admin()
    sent = (await stage.call("POST", f"/v1/webhooks/{made['id']}/test", admin)).json()
    assert (sent["state"], sent["kind"]) == ("waiting", "webhook.tested")
    shown = await ended(stage, made["id"])
    assert (shown["state"], shown["attempts"], shown["log"][0]["status"]) == ("waiting", 1, 500)
    assert "secret of the receiver" not in json.dumps(shown)
    for attempt in range(2, 9):
        await stage.shift(days=attempt)
        shown = await ended(stage, made["id"], attempt)
    assert (shown["state"], shown["attempts"]) == ("failed", 8)
    receiver.answer = lambda request: status(200)
    again = await stage.call("POST", f"/v1/webhooks/{made['id']}/deliveries/{shown['id']}/redeliver", admin)
    assert again.status_code == 202
    await until(lambda: len(receiver.requests) == 9, "the redelivery")
    bodies = {json.loads(request.body)["id"] for request in receiver.requests}
    assert bodies == {sent["event"]}
    assert len({request.headers["authz-delivery"] for request in receiver.requests}) == 2


async def test_a_receiver_that_is_gone_is_not_asked_again(stage, receiver):
    receiver.answer = lambda request: status(410)
    made = await hook(stage, receiver)
    await stage.call("POST", f"/v1/webhooks/{made['id']}/test", await stage.admin())
    assert (await ended(stage, made["id"]))["state"] == "failed"


async def test_a_redirect_is_not_followed_and_an_endless_body_not_read(stage, receiver):
    receiver.answer = lambda request: status(302, b"", f"Location: {receiver.url('/elsewhere')}")
    made = await hook(stage, receiver)
    await stage.call("POST", f"/v1/webhooks/{made['id']}/test", await stage.admin())
    shown = await ended(stage, made["id"])
    assert (shown["log"][0]["status"], [one.path for one in receiver.requests]) == (302, ["/hook"])
    receiver.answer = lambda request: b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024
    await stage.call("POST", f"/v1/webhooks/{made['id']}/test", await stage.admin())
    await until(lambda: len(receiver.requests) == 2, "the second")
    assert (await ended(stage, made["id"]))["log"][0]["status"] == 200


async def test_a_receiver_that_says_nothing_is_given_up_in_time(stage, receiver):
    receiver.answer = lambda request: None
    made = await hook(stage, receiver)
    await stage.call("POST", f"/v1/webhooks/{made['id']}/test", await stage.admin())
    attempt = (await ended(stage, made["id"]))["log"][0]
    assert (attempt["status"], attempt["error"]) == (None, "there was no answer within 1 s")


async def test_a_certificate_of_nobody_is_not_trusted(database_url, receiver):
    async with staged(database_url, webhook_private_hosts="localhost") as stage:
        made = await hook(stage, receiver)
        await stage.call("POST", f"/v1/webhooks/{made['id']}/test", await stage.admin())
        shown = await ended(stage, made["id"])
        assert shown["log"][0]["error"] == "the receiver's certificate is not trusted"
        assert receiver.requests == []


async def test_two_deliverers_make_each_delivery_once_and_one_that_died_is_taken_over(stage, receiver):
    await hook(stage, receiver, events=["token.reused"])
    await hook(stage, receiver, active=False)
    await happen(stage, *(Event(EventKind.TOKEN_LEAKED) for _ in range(3)))
    await happen(stage, *(Event(EventKind.TOKEN_REUSED) for _ in range(12)))
    outbound = stage.app.state.services.management.outbound
    pair = [Deliverer(stage.database, stage.peppers, outbound) for _ in range(2)]
    for _ in range(10):
        await asyncio.gather(*(one.round() for one in pair))
        await asyncio.gather(*(one.idle() for one in pair))
    await until(lambda: len(receiver.requests) == 12, "twelve")
    assert len({json.loads(request.body)["id"] for request in receiver.requests}) == 12
    # Claimed and never ended: what a process leaves that is killed with a delivery in hand.
    await happen(stage, Event(EventKind.TOKEN_REUSED))
    async with stage.database.transaction() as conn:
        await conn.execute(text("update delivery set state = 'waiting', next_at = authz_now(), log = '[]'"))
        claimed = await store.claim_due(conn, limit=1, lease=timedelta(hours=1))
    assert claimed
    before = len(receiver.requests)
    await stage.shift(hours=2)
    await until(lambda: len(receiver.requests) > before, "the one that was left behind")


async def test_an_event_told_once_is_written_once(stage):
    async with stage.database.transaction() as conn:
        first = await append_event(conn, Event(EventKind.TOKEN_EXPIRING, once="expiry/tok_x/7"))
        assert first is not None
        assert await append_event(conn, Event(EventKind.TOKEN_EXPIRING, once="expiry/tok_x/7")) is None
        assert await append_event(conn, Event(EventKind.TOKEN_EXPIRING, once="expiry/tok_x/1")) is not None
        assert await append_event(conn, Event(EventKind.TOKEN_EXPIRING)) is not None


async def test_a_secret_is_shown_once_and_a_renewed_one_signs_from_then_on(stage, receiver):
    made = await hook(stage, receiver)
    admin = await stage.admin()
    shown = await stage.call("GET", f"/v1/webhooks/{made['id']}", admin)
    assert "secret" not in shown.json()
    renewed = (await stage.call("POST", f"/v1/webhooks/{made['id']}/secret", admin)).json()
    assert renewed["secret"] != made["secret"]
    await stage.call("POST", f"/v1/webhooks/{made['id']}/test", admin)
    await until(lambda: receiver.requests, "a request")
    header, body = receiver.requests[0].headers["authz-signature"], receiver.requests[0].body
    at = header.partition(",")[0].removeprefix("t=")
    code = hmac.new(renewed["secret"].encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert header == f"t={at},v1={code}"
    async with stage.database.read() as conn:
        row = (await conn.execute(text("select w.* from webhook w"))).mappings().one()
    assert renewed["secret"].removeprefix("whsec_") not in str(dict(row))


async def test_edits_need_the_tag_of_what_they_were_made_from(stage, receiver):
    made = await hook(stage, receiver)
    admin, path = await stage.admin(), f"/v1/webhooks/{made['id']}"
    assert (await stage.call("PATCH", path, admin, {"name": "a"})).status_code == 428
    first = await stage.call("PATCH", path, admin, {"name": "a"}, headers={"If-Match": made["etag"]})
    assert (first.status_code, first.json()["name"]) == (200, "a")
    assert first.headers["etag"] == first.json()["etag"] != made["etag"]
    stale = await stage.call("PATCH", path, admin, {"name": "b"}, headers={"If-Match": made["etag"]})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    refused = await stage.call("PATCH", path, admin, {"url": "https://10.0.0.1/"}, headers={"If-Match": "*"})
    assert refused.status_code == 400
    assert (await stage.call("GET", path, admin)).json()["url"] == receiver.url()
    assert (await stage.call("DELETE", path, admin)).status_code == 204
    assert (await stage.call("GET", path, admin)).status_code == 404
    actions = [item["action"] for item in (await stage.call("GET", "/v1/audit", admin)).json()["items"]]
    assert actions[:3] == ["webhook.delete", "webhook.edit", "webhook.create"]


PRIVATE = [
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://0/",
    "https://0.0.0.0/",
    "https://10.1.2.3/",
    "https://172.16.0.1/",
    "https://192.168.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://192.0.0.8/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[2001:4860:4860::8888]x/",
    "https://..[2001:4860:4860::8888]/",
    "https://[2001:4860:4860::8888]s://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[0:0:0:0:0:ffff:10.0.0.1]/",
    "https://[::127.0.0.1]/",
    "https://[::ffff:0:7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2001:0:7f00:1::1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[2606:4700::200:5efe:10.0.0.1]/",
    "https://localhost./",
    "https://LOCALHOST.localdomain/",
    "https://ip6-localhost/",
    "https://this-name-leads-nowhere.invalid/",
    "https://127。0。0。1/",
    "https://①②⑦.⓪.⓪.①/",
    "http://hooks.example.com/",
    "ftp://hooks.example.com/",
    "https://user:password@hooks.example.com/",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://hooks.example.com#@127.0.0.1/",
    "https://127.0.0.1%00.example.com/",
    "https:///path",
    "https://",
    "//127.0.0.1/",
    "file:///etc/passwd",
    "https://[::1",
    "https://host:0/",
    "https://host:99999/",
    "https://a b/",
    "https://a\r\nHost: b/",
    "",
    "x" * 3000,
]


@pytest.mark.parametrize("url", PRIVATE)
async def test_an_address_that_is_not_public_is_refused_in_every_spelling(url):
    with pytest.raises(InvalidInputError) as caught:
        await Outbound(frozenset({"localhost"})).check(url)
    assert [fault.where for fault in caught.value.faults] == ["/url"]
    assert caught.value.faults[0].code in {"invalid_url", "address_refused"}
    with pytest.raises((OutboundError, InvalidInputError)):
        await Outbound(frozenset({"localhost"})).send("POST", url, timeout=3.0)


async def test_a_refused_address_is_a_problem_that_changes_nothing(stage):
    admin = await stage.admin()
    for url in ("https://169.254.169.254/", "https://2130706433/", "http://hooks.example.com/"):
        body = {"url": url, "events": ["token.nonsense"], "name": "x" * 101}
        answer = await stage.call("POST", "/v1/webhooks", admin, body)
        assert answer.status_code == 400
        assert [fault["where"] for fault in answer.json()["faults"]] == ["/name", "/events/0", "/url"]
    assert (await stage.call("GET", "/v1/webhooks", admin)).json()["items"] == []


async def test_a_name_that_leads_inside_reads_like_one_that_leads_nowhere(monkeypatch):
    async def answers(url: str, *addresses: str) -> str:
        async def look_up(receiver):
            if not addresses:
                raise OutboundError(outbound_module._REFUSED)
            return [ip_address(one) for one in addresses]

        monkeypatch.setattr(outbound_module, "_look_up", look_up)
        with pytest.raises(InvalidInputError) as caught:
            await Outbound().check(url)
        return str(caught.value.faults)

    inside = await answers("https://intranet.example.com/", "10.0.0.1")
    assert inside == await answers("https://nothing.example.com/")
    # One private address among public ones is enough: which one would be called is luck.
    assert inside == await answers("https://both.example.com/", "8.8.8.8", "10.0.0.1")


async def test_the_address_that_was_looked_at_is_the_one_that_is_called(receiver, tmp_path, monkeypatch):
    """A name that answers with another address the second time (rebinding) is asked for its address once."""
    asked = []

    async def look_up(wanted):
        asked.append(wanted.host)
        return [ip_address("127.0.0.1" if len(asked) == 1 else "127.0.0.9")]

    monkeypatch.setattr(outbound_module, "_look_up", look_up)
    out = Outbound(frozenset({"localhost"}), ca_file=tmp_path / "ca.pem")
    answer = await out.send("POST", receiver.url(), body=b"x", timeout=5.0)
    assert (answer.status, asked) == (204, ["localhost"])
    assert receiver.requests[0].headers["host"] == f"localhost:{receiver.port}"


async def test_a_port_on_the_inside_is_not_told_open_from_closed():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        said = set()
        for url in (f"https://127.0.0.1:{port}/", "https://127.0.0.1:1/"):
            with pytest.raises(OutboundError) as caught:
                await Outbound().send("POST", url, timeout=2.0)
            said.add(caught.value.message)
    assert len(said) == 1


async def test_an_answer_that_is_too_long_is_no_answer(receiver, tmp_path):
    out = Outbound(frozenset({"localhost"}), ca_file=tmp_path / "ca.pem")
    receiver.answer = lambda request: status(200, b"x" * 2000)
    assert len((await out.send("GET", receiver.url(), max_bytes=2000)).body) == 2000
    with pytest.raises(OutboundError, match="longer than 1999"):
        await out.send("GET", receiver.url(), max_bytes=1999)


def test_public_addresses_are_public():
    for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert is_public(ip_address(address)) or address.startswith("::ffff")
    assert parse_receiver("https://Hooks.Example.com:8443/a?b=c#".rstrip("#")).authority == "hooks.example.com:8443"


async def test_bodies_that_make_no_sense_are_problems(stage):
    admin = await stage.admin()
    for body in (b"", b"[]", b"{}", {"url": 7}, {"url": "https://a.example", "events": "all"}, {"nope": 1}, b"\xff"):
        answer = await stage.call("POST", "/v1/webhooks", admin, body)
        assert answer.status_code == 400, body
    for node in ("group:absent", "group:hidden/absent", "project:acme/web", "user:dana", "7", ""):
        answer = await stage.call("POST", "/v1/webhooks", admin, {"url": "https://8.8.8.8/", "node": node})
        assert answer.status_code == 400, node
    assert (await stage.call("POST", "/v1/webhooks", None, {"url": "https://8.8.8.8/"})).status_code == 401
    made = await stage.call("POST", "/v1/tokens", admin, body_of())
    refused = await stage.call("POST", "/v1/webhooks", made.json()["secret"], {"url": "https://8.8.8.8/"})
    assert refused.status_code == 403
