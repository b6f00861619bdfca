"""Nobody but the person at this computer gets anything from the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from web_page import HOST, ORIGIN, TOKEN, begin, page_of

from manylens.web.guard import TOKEN_HEADER

UNDO = "/api/interests/color/undo"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Without any credentials."""
    with page_of(begin(tmp_path_factory.mktemp("run"), ("color",))) as page:
        yield TestClient(page.client.app, base_url=ORIGIN, follow_redirects=False)


@pytest.fixture
def inside(client: TestClient) -> Iterator[TestClient]:
    """A browser that was let in."""
    client.get("/", params={"token": TOKEN})
    yield client
    client.cookies.clear()


@pytest.mark.parametrize(
    "path", ["/", "/api/run", "/api/events", "/api/jobs", "/docs", "/openapi.json", "/assets/x.js"]
)
def test_without_the_token_nothing_is_answered(client: TestClient, path: str) -> None:
    for headers in ({}, {TOKEN_HEADER: "another-token-of-theirs"}, {TOKEN_HEADER: ""}, {"Cookie": "manylens-8672=x"}):
        assert client.get(path, headers=headers).status_code == 401
    assert client.get(path, params={"token": "wrong"}).status_code == 401
    if path != "/":
        assert client.get(path, params={"token": TOKEN}).status_code == 401, "in no other address does it count"


def test_the_token_becomes_a_cookie_that_no_script_reads_and_leaves_the_address(client: TestClient) -> None:
    response = client.get("/", params={"token": TOKEN, "view": "map"})
    assert (response.status_code, response.headers["location"]) == (303, "/?view=map")
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "domain" not in cookie
    client.cookies.clear()


def test_the_cookie_lets_the_page_in(inside: TestClient) -> None:
    assert inside.get("/api/run").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8672", "127.0.0.1", "localhost.evil:8672"])
def test_a_name_that_was_pointed_at_this_computer_gets_nothing(inside: TestClient, host: str) -> None:
    assert inside.get("/api/run", headers={"Host": host}).status_code == 403
    assert inside.get("/", params={"token": TOKEN}, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:8672", "http://127.0.0.1:1"])
def test_a_page_of_another_origin_gets_nothing_and_changes_nothing(inside: TestClient, origin: str) -> None:
    assert inside.get("/api/run", headers={"Origin": origin}).status_code == 403
    assert inside.post(UNDO, headers={"Origin": origin}).status_code == 403
    response = inside.options(UNDO, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
    assert response.status_code == 403 and "access-control-allow-origin" not in response.headers


def test_a_change_needs_to_say_where_it_comes_from(inside: TestClient) -> None:
    assert inside.post(UNDO).status_code == 403, "a form of another site sends the cookie of a browser without SameSite"
    assert inside.post(UNDO, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert inside.post(UNDO, headers={"Sec-Fetch-Site": "same-site", "Origin": ORIGIN}).status_code == 403
    assert inside.post(UNDO, headers={"Origin": ORIGIN}).status_code == 409, "from the page: there is nothing to undo"
    assert inside.post(UNDO, headers={TOKEN_HEADER: TOKEN}).status_code == 409, "from a program with the token"
    assert inside.request("PUT", UNDO, headers={"Origin": ORIGIN}).status_code == 405


def test_every_answer_says_what_the_browser_may_do_with_it(inside: TestClient) -> None:
    for path, host in (("/api/run", HOST), ("/api/nothing", HOST), ("/api/run", "evil.example")):
        headers = inside.get(path, headers={"Host": host}).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert inside.get("/api/run").headers["cache-control"] == "no-store"


def test_a_body_has_bounds(inside: TestClient) -> None:
    headers = {"Origin": ORIGIN, "Content-Length": str(1 << 40)}
    assert inside.post("/api/interests/color/corrections", headers=headers, content=b"{}").status_code == 413


def test_the_documents_of_the_routes_are_not_served(inside: TestClient) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert inside.get(path).status_code == 404


def test_what_is_served_beside_the_routes_is_the_page_alone(inside: TestClient) -> None:
    for path in (
        "/run.sqlite",
        "/../run.sqlite",
        "/%2e%2e/%2e%2e/pyproject.toml",
        "/assets/..%2f..%2fapp.py",
        "/app.py",
    ):
        assert inside.get(path).status_code == 404


def test_the_token_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    from manylens.web.server import TOKEN_NAME, page_token
    from manylens.web.shown import ShownRun

    run = ShownRun(begin(tmp_path, ("color",)))
    token = page_token(run)
    kept = run.path / TOKEN_NAME
    assert kept.stat().st_mode & 0o077 == 0 and page_token(run) == token
    kept.chmod(0o644)  # a copy of the folder that others read
    assert page_token(run) != token
    kept.unlink()
    kept.symlink_to(tmp_path / "elsewhere")
    page_token(run)
    assert not (tmp_path / "elsewhere").exists() and not kept.is_symlink()
    run.close()
