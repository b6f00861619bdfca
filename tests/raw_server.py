"""A server that sends whatever bytes it is told: what no well-behaved one would."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Send = Callable[[bytes], None]
Answer = Callable[[bytes, Send], None]
"""(the request's head and body, a way to send bytes) -> returns when it has said all; then the connection is closed."""


@contextmanager
def serve(answer: Answer) -> Iterator[tuple[str, list[bytes]]]:
    """Its address, and the requests that came so far, head and body."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests: list[bytes] = []

    def one(connection: socket.socket) -> None:
        with connection:
            try:
                request = _read(connection)
                requests.append(request)
                answer(request, connection.sendall)
            except OSError:
                return  # the client has gone

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", requests
    finally:
        listener.close()


def _read(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def head(status: int = 200, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
