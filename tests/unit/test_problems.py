import httpx
import pytest
from fastapi import FastAPI, HTTPException

from authz_service import errors
from authz_service.api import problems
from authz_service.errors import AuthzError, Fault, ForbiddenError, InvalidInputError, UnauthenticatedError
from authz_service.tokens.secret import new_secret


def every_error() -> list[type[AuthzError]]:
    found: list[type[AuthzError]] = []
    waiting: list[type[AuthzError]] = [AuthzError]
    while waiting:
        error = waiting.pop()
        if error.__module__ == errors.__name__:
            found.append(error)
        waiting.extend(error.__subclasses__())
    return found


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/fine")
    async def fine(number: int = 0) -> dict[str, int]:
        return {"number": number}

    @app.get("/faulty")
    async def faulty() -> None:
        raise InvalidInputError("two faults", faults=[Fault("/a", "x", "no"), Fault("/b", "y", "neither")])

    @app.get("/forbidden")
    async def forbidden() -> None:
        raise ForbiddenError("not you")

    @app.get("/who")
    async def who() -> None:
        raise UnauthenticatedError("show a token")

    @app.get("/odd")
    async def odd() -> None:
        raise HTTPException(418, "short and stout")

    @app.get("/broken")
    async def broken() -> None:
        raise KeyError("select secret from table")

    @app.get("/unready")
    async def unready() -> None:
        raise errors.StaleError("no answer for 5 s")

    problems.install(app)
    return app


async def get(path: str, method: str = "GET", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=application())
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_every_error_has_a_status_and_a_title(error):
    assert error.code in problems.STATUSES
    assert error.code in problems.TITLES


def test_the_table_holds_no_code_that_nothing_raises():
    assert set(problems.STATUSES) == {error.code for error in every_error()} == set(problems.TITLES)


def test_what_cannot_decide_is_never_a_success():
    undecided = [error.code for error in every_error() if issubclass(error, errors.CannotDecideError)]
    assert {problems.STATUSES[code] for code in undecided} == {503}


async def test_a_problem_lists_all_faults():
    answer = await get("/faulty")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:authz:problem:invalid_input",
        "title": problems.TITLES["invalid_input"],
        "status": 400,
        "detail": "two faults",
        "code": "invalid_input",
        "faults": [
            {"where": "/a", "code": "x", "message": "no"},
            {"where": "/b", "code": "y", "message": "neither"},
        ],
    }


async def test_what_nobody_meant_is_a_500_that_tells_nothing():
    answer = await get("/broken", **{"X-Request-ID": "mine"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "mine"
    assert answer.json()["code"] == "internal"
    assert "detail" not in answer.json()
    assert "secret" not in answer.text
    assert "KeyError" not in answer.text


@pytest.mark.parametrize("path", ["/fine", "/faulty", "/broken", "/nowhere", "/fine?number=x", "/who"])
async def test_every_answer_has_the_request_id(path):
    assert (await get(path, **{"X-Request-ID": "mine"})).headers["x-request-id"] == "mine"
    made = (await get(path)).headers["x-request-id"]
    assert len(made) == 32


async def test_a_401_says_whether_a_token_was_shown():
    assert (await get("/who")).headers["www-authenticate"] == "Bearer"
    shown = await get("/who", Authorization="Bearer x")
    assert shown.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_an_unknown_path_and_method_are_problems_too():
    nowhere = await get("/nowhere")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")
    wrong = await get("/fine", "DELETE")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET"


async def test_an_error_of_the_framework_becomes_a_problem_of_ours():
    answer = await get("/odd")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")
    assert "stout" not in answer.text


async def test_a_wrong_parameter_is_400_and_named():
    answer = await get("/fine?number=x")
    assert answer.status_code == 400
    assert [fault["where"] for fault in answer.json()["faults"]] == ["number"]
    assert "pydantic" not in answer.text


async def test_unavailability_says_when_to_come_back():
    answer = await get("/unready")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("path", ["/fine?x={}", "/fine?{}=1", "/nowhere?a=b&c={}", "/nowhere/{}", "/fine?x=a{}b"])
async def test_a_secret_in_the_url_is_refused_on_every_route(path):
    secret = new_secret("azt", "k1").reveal()
    answer = await get(path.format(secret))
    assert (answer.status_code, answer.json()["code"]) == (400, "secret_in_url")
    assert secret not in answer.text


async def test_an_encoded_secret_in_the_url_is_refused():
    secret = new_secret("azt", "k1").reveal().replace("_", "%5F")
    assert (await get(f"/fine?x={secret}")).json()["code"] == "secret_in_url"
