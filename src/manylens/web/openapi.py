"""`python -m manylens.web.openapi > frontend/openapi.json`: the contract from which the page's client is generated."""

from __future__ import annotations

import json
import sys
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from manylens.web.app import TITLE, routers
from manylens.web.schemas import EventOut


def document() -> dict[str, Any]:
    """The OpenAPI document, with the data of events beside the routes' own models."""
    app = FastAPI(title=TITLE, version="1")
    for router in routers():
        app.include_router(router)
    values = get_openapi(title=TITLE, version="1", routes=app.routes)
    _, events = models_json_schema([(EventOut, "serialization")], ref_template="#/components/schemas/{model}")
    schemas = values["components"]["schemas"]
    for name, schema in events.get("$defs", {}).items():
        schemas.setdefault(name, schema)
    return values


def main() -> None:
    sys.stdout.write(json.dumps(document(), indent=2, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
