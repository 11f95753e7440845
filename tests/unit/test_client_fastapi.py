"""An API of somebody else's, protected by the client; no service runs here, and none is needed."""

from __future__ import annotations

import inspect

import httpx
import pytest
from fastapi import FastAPI

from authz_service.client import (
    Answer,
    Ask,
    AsyncClient,
    CachedDecisions,
    DecisionSource,
    FakeDecisions,
    UndecidedError,
    UnreachableError,
)
from authz_service.client.asgi import AuthzMiddleware
from authz_service.client.fastapi import path_param, protect, require

ACTIONS = {"GET": "read", "POST": "create", "DELETE": "cancel"}
THINGS = ("orders", "returns", "tills", "coupons")
TILL = {"till": {"order:read": ["project:corner-shop"], "order:create": ["project:corner-shop"]}}


def make_app(decisions: DecisionSource) -> FastAPI:
    """Twelve routes, protected in ten lines."""
    app = FastAPI()
    protect(app, decisions, catalog="orders")
    for thing in THINGS:
        for method, action in ACTIONS.items():
            needed = require(f"{thing.removesuffix('s')}:{action}", target=path_param("shop"))

            @app.api_route(f"/shops/{{shop}}/{thing}", methods=[method], dependencies=[needed])
            async def route() -> str:
                return "done"

    return app


async def call(app, method="GET", path="/shops/corner-shop/orders", token="till", **more):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as http:
        return await http.request(method, path, headers=headers, **more)


async def test_twelve_routes_are_protected_each_by_its_own_permission():
    decisions = FakeDecisions({"t": {}})
    app = make_app(decisions)
    asked = set()
    for thing in THINGS:
        for method, action in ACTIONS.items():
            assert (await call(app, method, f"/shops/a/{thing}", "t")).status_code == 403
            asked.add(("t", f"{thing.removesuffix('s')}:{action}", "project:a"))
    assert len(asked) == 12
    assert set(decisions.asked) == asked


def test_the_application_of_twelve_protected_routes_has_ten_lines():
    app = make_app(FakeDecisions({}))
    assert len([route for route in app.routes if getattr(route, "path", "").startswith("/shops/")]) == 12
    lines = [line.strip() for line in inspect.getsource(make_app).splitlines()]
    assert len([line for line in lines if line and not line.startswith('"""')]) <= 10


async def test_what_is_granted_runs_and_what_is_not_names_what_is_missing():
    app = make_app(FakeDecisions(TILL))
    assert (await call(app)).json() == "done"
    refused = await call(app, "DELETE")
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="order:cancel"'
    assert refused.json()["code"] == "permission_missing"
    assert (await call(app, path="/shops/other/orders")).json()["code"] == "outside_reach"


@pytest.mark.parametrize("token", [None, "", "a b", "unknown", "x" * 5000])
async def test_without_a_working_token_it_is_a_401(token):
    answer = await call(make_app(FakeDecisions(TILL)), token=token)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_two_tokens_in_one_request_are_none():
    app = make_app(FakeDecisions(TILL))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as http:
        headers = [("Authorization", "Bearer till"), ("Authorization", "Bearer till")]
        assert (await http.get("/shops/corner-shop/orders", headers=headers)).status_code == 401


@pytest.mark.parametrize("shop", ["..%2Fcorner-shop", "a%3Fb", "%20", "a%23b", "a%00", "%252e", "a%5Cb"])
async def test_a_name_that_could_be_another_place_is_not_asked_about(shop):
    decisions = FakeDecisions({"till": {"order:read": ["*"]}})
    assert (await call(make_app(decisions), path=f"/shops/{shop}/orders")).status_code == 404
    assert decisions.asked == []


class Broken:
    """A source that fails, or says what must be hidden."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def check(self, token, ask, *, catalog=None, client_address=None) -> Answer:
        if self.error is not None:
            raise self.error
        return Answer("deny", "owner_not_member", "dana is no member of `secret`", hide=True)

    async def check_http(self, token, method, path, *, catalog=None, client_address=None) -> Answer:
        return await self.check(token, None)


@pytest.fixture(params=["dependency", "middleware"])
def guarded(request):
    """The same application behind either guard."""
    if request.param == "dependency":
        return make_app
    return lambda source: AuthzMiddleware(make_app(FakeDecisions({"till": {}})), source, catalog="orders")


@pytest.mark.parametrize(
    "error", [UnreachableError("no"), UndecidedError("stale", reason="stale", retry_after=2.0)], ids=["gone", "stale"]
)
async def test_no_decision_is_a_503_and_never_an_allow(guarded, error):
    answer = await call(guarded(Broken(error)))
    assert (answer.status_code, answer.json()["code"]) == (503, "cannot_decide")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_hidden_place_is_a_404_that_says_nothing(guarded):
    answer = await call(guarded(Broken()))
    assert answer.status_code == 404
    assert "secret" not in answer.text


async def test_a_mistake_in_a_permission_is_found_when_the_route_is_made():
    with pytest.raises(ValueError, match="resource:action"):
        require("order")


# a whole API by its catalog


async def test_the_middleware_asks_about_the_request_as_it_was_sent():
    decisions = FakeDecisions({"till": {"GET /shops/corner%2Fshop/orders": ["*"]}})
    reached = []

    async def app(scope, receive, send):
        reached.append(scope["authz"].token_id)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    guarded = AuthzMiddleware(app, decisions, catalog="orders", encoded_slashes=True)
    assert (await call(guarded, path="/shops/corner%2Fshop/orders?x=1")).status_code == 204
    assert reached == ["tok_fake"]
    assert (await call(guarded, path="/shops/corner/shop/orders")).status_code == 403
    assert len(reached) == 1


@pytest.mark.parametrize("path", ["/shops/a%2Forders", "/shops/a%2forders", "/shops/eu%2Fb/orders", "/%2Fshops/a"])
async def test_a_slash_that_the_application_decodes_before_it_routes_is_refused(path):
    """Else the shop `a/orders` would be decided, and the orders of the shop `a` served."""
    served = []
    app = FastAPI()

    @app.get("/shops/{shop}")
    async def shop(shop: str) -> None:
        served.append(shop)

    @app.get("/shops/{shop:path}/orders")
    async def orders(shop: str) -> None:
        served.append(shop)

    decisions = FakeDecisions({"till": {f"GET {path}": ["*"], "GET /shops/a": ["*"], "GET /shops/a/orders": ["*"]}})
    guarded = AuthzMiddleware(app, decisions, catalog="orders")
    assert (await call(guarded, path="/shops/a")).status_code == 200
    assert (await call(guarded, path="/shops/a/orders")).status_code == 200
    asked = len(decisions.asked)
    answer = await call(guarded, path=path)
    assert (answer.status_code, answer.json()["code"]) == (403, "bad_path")
    assert (served, len(decisions.asked)) == (["a", "a"], asked)
    # Without the refusal it is the other route that answers: the test can fail.
    open_door = AuthzMiddleware(app, decisions, catalog="orders", encoded_slashes=True)
    assert (await call(open_door, path=path)).status_code in (200, 404)


@pytest.mark.parametrize("path", ["/healthz/", "/healthz%2f", "//healthz", "/healthz/../shops/a/orders", "/HEALTHZ"])
async def test_an_open_path_opens_that_path_alone(path):
    guarded = AuthzMiddleware(make_app(FakeDecisions({})), FakeDecisions({}), catalog="orders", open_paths=["/healthz"])
    assert (await call(guarded, path="/healthz", token=None)).status_code == 404  # the application's own
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": []}
    await guarded(scope, None, send)
    assert sent[0]["status"] == 401


async def test_a_web_socket_is_closed_before_it_opens():
    sent = []

    async def send(message):
        sent.append(message)

    guarded = AuthzMiddleware(make_app(FakeDecisions({})), FakeDecisions({}), catalog="orders")
    await guarded({"type": "websocket", "path": "/feed", "headers": []}, None, send)
    assert [one["type"] for one in sent] == ["websocket.close"]
    with pytest.raises(RuntimeError):
        await guarded({"type": "something"}, None, send)


# the short memory


class Counting:
    """A source that says its revision, and counts."""

    def __init__(self) -> None:
        self.revision, self.count, self.error = "r1.0.1", 0, None

    async def check(self, token, ask, *, catalog=None, client_address=None) -> Answer:
        self.count += 1
        if self.error is not None:
            raise self.error
        return Answer("allow", "granted", revision=self.revision)

    async def check_http(self, token, method, path, *, catalog=None, client_address=None) -> Answer:
        return await self.check(token, None)


@pytest.fixture
def memory():
    source, now = Counting(), [0.0]
    return source, now, CachedDecisions(source, seconds=2, most=3, clock=lambda: now[0])


READ = Ask("order", "read", "project:a")


async def test_the_same_question_is_asked_once_until_its_seconds_are_over(memory):
    source, now, cached = memory
    for moment, count in ((0.0, 1), (1.9, 1), (2.0, 2)):
        now[0] = moment
        assert (await cached.check("t", READ)).allowed
        assert source.count == count


async def test_whatever_differs_is_another_question(memory):
    source, _, cached = memory
    await cached.check("t", READ)
    await cached.check("u", READ)
    await cached.check("t", READ, catalog="orders")
    await cached.check("t", READ, client_address="10.0.0.1")
    await cached.check("t", Ask("order", "read", "project:a", {"context.x": True}))
    await cached.check("t", Ask("order", "read", "project:a", {"context.x": 1}))
    await cached.check_http("t", "GET", "/a")
    assert source.count == 7


async def test_a_newer_revision_forgets_what_was_decided_before_it(memory):
    source, _, cached = memory
    await cached.check("t", READ)
    source.revision = "r1.0.2"
    await cached.check("u", READ)
    await cached.check("t", READ)
    assert source.count == 3


async def test_an_outage_is_no_answer_once_the_seconds_are_over_and_is_not_remembered(memory):
    source, now, cached = memory
    await cached.check("t", READ)
    now[0], source.error = 2.0, UnreachableError("gone")
    for _ in range(2):
        with pytest.raises(UnreachableError):
            await cached.check("t", READ)
    assert source.count == 3


async def test_it_keeps_no_more_than_it_was_allowed_and_no_secret(memory):
    source, _, cached = memory
    for token in ("a", "b", "c", "d", "a"):
        await cached.check(f"secret-{token}", READ)
    assert source.count == 5
    assert "secret" not in repr(cached._kept)


@pytest.mark.parametrize("seconds", [0, -1, 61])
def test_a_memory_that_would_undo_a_revoke_for_long_is_refused(seconds):
    with pytest.raises(ValueError, match="seconds"):
        CachedDecisions(Counting(), seconds=seconds)


# asking again


@pytest.mark.parametrize(("failure", "tries"), [(httpx.ReadError, 2), (httpx.ConnectError, 2), (httpx.ReadTimeout, 1)])
async def test_a_question_is_asked_again_when_its_connection_broke_and_not_after_a_time_out(failure, tries):
    seen = []

    def answer(request):
        seen.append(request)
        raise failure("broken", request=request)

    async with AsyncClient("http://authz.test", "own", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(UnreachableError):
            await client.check_http("t", "GET", "/a")
    assert len(seen) == tries


async def test_a_write_is_never_sent_twice():
    from authz_service.client.wire import Call

    seen = []

    def answer(request):
        seen.append(request)
        raise httpx.ReadError("broken", request=request)

    async with AsyncClient("http://authz.test", "own", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(UnreachableError):
            await client.document(Call("POST", "/v1/tokens", b"{}"))
    assert len(seen) == 1
