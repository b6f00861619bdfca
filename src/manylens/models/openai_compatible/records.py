"""What a run remembers of models behind servers: where they answer, and what was found out about them.

In: a model's name and options, the file of an earlier run. Out: endpoints, and a `Dialect`. Promise: what a record
holds that no probe finds counts as not recorded.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from manylens.files import read_regular, write_atomically
from manylens.models.base import ModelOptions
from manylens.models.openai_compatible.addresses import OPENAI_URL, clean_url
from manylens.models.openai_compatible.dialect import Dialect
from manylens.models.openai_compatible.endpoint import Endpoint, check_variables
from manylens.models.openai_compatible.probe import probe


def server_url(options: ModelOptions) -> str:
    """Where the server answers: `base_url`, else the client's own variable, else OpenAI. Raises UsageError."""
    return clean_url(options.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)


def find_dialect(model: str, options: ModelOptions, recorded: Path | None = None) -> Dialect:
    """What one model can do: from the record of an earlier run, else by a probe, which is recorded before it is used.

    Raises ModelUnavailable where the server cannot be used, UsageError where a variable stands in the way.
    """
    endpoint, embedding_endpoint = endpoints_of(model, options)
    for one in (endpoint, embedding_endpoint):
        if one is not None:
            check_variables(one.url)
    known = read_recorded(recorded)
    identity = identity_of(endpoint, embedding_endpoint)
    if identity in known:
        return known[identity]
    dialect = probe(endpoint, embedding_endpoint)
    if recorded is not None:
        known[identity] = dialect
        content = {key: known[key].to_dict() for key in sorted(known)}
        write_atomically(recorded, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return dialect


def endpoints_of(model: str, options: ModelOptions) -> tuple[Endpoint, Endpoint | None]:
    """The model's server, and the embedding model's where one was named."""
    url = server_url(options)
    embeds = options.embedding_model
    endpoint = Endpoint(url, model, options.timeout_s)
    return endpoint, None if embeds is None else Endpoint(options.embedding_url or url, embeds, options.timeout_s)


def identity_of(endpoint: Endpoint, embedding_endpoint: Endpoint | None) -> str:
    parts = [endpoint.url, endpoint.model]
    if embedding_endpoint is not None:
        parts += [embedding_endpoint.url, embedding_endpoint.model]
    return " ".join(parts)


def read_recorded(recorded: Path | None) -> dict[str, Dialect]:
    """Dialects by model identity; those of another version of this file count as not recorded."""
    found: dict[str, Dialect] = {}
    for identity, values in read_object(recorded).items():
        with contextlib.suppress(TypeError):
            found[identity] = Dialect.from_dict(values)
    return found


def read_object(path: Path | None) -> dict[str, Any]:
    """A file's JSON object of objects; what is missing or damaged counts as not there."""
    try:
        content = json.loads(read_regular(path)) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, dict)}
