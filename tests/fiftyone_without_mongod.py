"""FiftyOne over a MongoDB in this process (mongomock), for where no `mongod` can be installed.

FiftyOne's own code runs: datasets, views, its export and its importer; what answers its queries is not MongoDB.
"""

from __future__ import annotations

import importlib
import os
from typing import Any


def start() -> Any:
    """The module `fiftyone`, once its connection is replaced. To be called before it is imported."""
    os.environ |= {
        "FIFTYONE_DATABASE_URI": "mongodb://localhost",
        "FIFTYONE_DATABASE_VALIDATION": "false",
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    }
    mongoengine: Any = importlib.import_module("mongoengine")
    mongomock: Any = importlib.import_module("mongomock")
    pymongo: Any = importlib.import_module("pymongo")
    importlib.import_module("mongomock.gridfs").enable_gridfs_integration()  # where FiftyOne keeps an index
    store = importlib.import_module("mongomock.store").ServerStore()

    class Client(mongomock.MongoClient):  # type: ignore[misc]
        _closed = False

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__("localhost", _store=store)

    connect = mongoengine.connect
    pymongo.MongoClient = Client
    mongoengine.connect = lambda name, **_: connect(name, mongo_client_class=Client)
    database: Any = importlib.import_module("fiftyone.core.odm.database")
    database._apply_options = lambda found: found
    return importlib.import_module("fiftyone")
