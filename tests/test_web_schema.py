"""The routes keep to their schema: the committed one is theirs, and whatever is sent within it or beside it, no 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from web_page import Page, begin, page_of

from manylens.web.openapi import document

schemathesis = pytest.importorskip("schemathesis")

COMMITTED = Path(__file__).parent.parent / "frontend" / "openapi.json"

STARTS_OR_WRITES = {
    "/api/jobs", "/api/export", "/api/jobs/{number}/continue", "/api/interests/{slug}/re-sort/ask",
    "/api/images/{key}/show-in-folder",
}  # fmt: skip
"""Of these, what changes something goes to a page that is only shown: else hundreds of runs would begin."""

ENDLESS = "/api/events"

EXAMPLES = 12

SCHEMA = schemathesis.openapi.from_dict(document())

OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations() if found.ok().path != ENDLESS]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begin(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def writable(out: Path) -> Iterator[Page]:
    with page_of(out) as page:
        yield page


@pytest.fixture(scope="module")
def shown(out: Path) -> Iterator[Page]:
    with page_of(out, read_only=True) as page:
        yield page


def test_the_committed_schema_is_that_of_the_routes() -> None:
    """After a wanted change: python -m manylens.web.openapi > frontend/openapi.json, and build the page's client."""
    assert json.loads(COMMITTED.read_text("utf-8")) == document()


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_no_request_of_the_schema_ends_in_an_error_of_the_server(operation: Any, writable: Page, shown: Page) -> None:
    page = shown if operation.method.upper() != "GET" and operation.path in STARTS_OR_WRITES else writable
    known = {"slug": "color", "key": page.run.images().keys[0], "number": 1}

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def sent(case: Any) -> None:
        parts = {**case.path_parameters, **{name: known[name] for name in case.path_parameters if name in known}}
        for path_parts in (parts, case.path_parameters):
            path = case.operation.path.format(**{name: str(value) for name, value in path_parts.items()})
            try:
                request = page.client.build_request(
                    case.method,
                    path,
                    params={name: value for name, value in (case.query or {}).items() if value is not None} or None,
                    json=case.body if case.operation.body else None,
                )
            except (TypeError, ValueError):
                continue  # what no client can send
            response = page.client.send(request)
            assert response.status_code < 500, (case.method, path, case.query, case.body, response.text)
            if response.status_code >= 400 and response.status_code != 405:
                assert set(response.json()) == {"rule", "hint"}

    sent()
