"""A model server on 127.0.0.1, for tests: OpenAI's and Anthropic's protocols, and their failures.

It answers every request by a script, counts what it is asked, and fails on order. It is a real
server: connections, headers, bodies and their cuts are the network's own.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-5up3r5ecret-0123456789"


@dataclass
class Says:
    """What the model says.

    Attributes:
        text: its words.
        finish: why it stopped, in OpenAI's terms: `stop` or `length`.
        first: log-probabilities of the first token's alternatives.
        usage: whether the reply reports its tokens.
    """

    text: str
    finish: str = "stop"
    first: dict[str, float] | None = None
    usage: bool = True


@dataclass
class Fails:
    """How the next requests fail.

    Attributes:
        status: the status to answer with; 0 for a connection that is cut without a reply.
        times: how many requests fail so.
        after: how many requests are answered before.
        headers: of the answer.
        body: of the answer; {key} is replaced by the key that was sent.
        delay: seconds to wait before.
        keep: for a connection that is cut, how many bytes of a good reply are sent before.
    """

    status: int
    times: int = 1_000_000
    after: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    delay: float = 0.0
    keep: int = 0


@dataclass
class ModelServer:
    """The running server.

    Attributes:
        url: its address, up to and with /v1.
        script: from a request's path and body to what the model says.
        requests: the path, headers and body of each request so far.
        answered: how many got a good reply.
    """

    url: str = ""
    script: Callable[[str, dict[str, Any]], Says] = lambda path, body: Says("hello")
    fails: list[Fails] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    answered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def spec(self, model: str = "tester") -> str:
        """Return how a user writes this endpoint."""
        return f"{self.url}#{model}"

    def failure(self) -> Fails | None:
        """Return how this request fails, if it does, and count it."""
        with self.lock:
            for each in self.fails:
                if each.after > 0:
                    each.after -= 1
                elif each.times > 0:
                    each.times -= 1
                    return each
            return None


def asked_text(body: dict[str, Any]) -> str:
    """Return all that the model is shown."""
    if "prompt" in body:
        return str(body["prompt"])
    system = body.get("system", "")
    return "\n".join([system, *(message["content"] for message in body["messages"])])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: ModelServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer a request by the script, or fail as ordered."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        headers = {key.lower(): value for key, value in self.headers.items()}
        with self.model.lock:
            self.model.requests.append((self.path, headers, body))
        failure = self.model.failure()
        if failure is not None and failure.delay:
            threading.Event().wait(failure.delay)
        if failure is not None and failure.status not in (0, 200):
            key = headers.get("x-api-key") or headers.get("authorization", "").split(" ")[-1]
            self._send(failure.status, failure.body.replace("{key}", key), failure.headers)
            return
        says = self.model.script(self.path, body)
        text = json.dumps(_reply(self.path, says))
        if failure is not None and failure.status == 0:
            self.close_connection = True
            if failure.keep:
                self._send(200, text, {}, failure.keep)
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        with self.model.lock:
            self.model.answered += 1
        self._send(200, text, {})

    def _send(self, status: int, text: str, headers: dict[str, str], keep: int = -1) -> None:
        data = text.encode()
        try:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data if keep < 0 else data[:keep])
        except (BrokenPipeError, ConnectionResetError):  # who asked has given up
            self.close_connection = True


def _reply(path: str, says: Says) -> dict[str, Any]:
    if path.endswith("/messages"):
        reason = {"stop": "end_turn", "length": "max_tokens"}[says.finish]
        value: dict[str, Any] = {
            "content": [{"type": "text", "text": says.text}],
            "stop_reason": reason,
        }
        if says.usage:
            value["usage"] = {"input_tokens": 20, "output_tokens": 5}
        return value
    if path.endswith("/chat/completions"):
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": says.text}}
        if says.first is not None:
            top = [{"token": token, "logprob": each} for token, each in says.first.items()]
            choice["logprobs"] = {"content": [{"token": "x", "top_logprobs": top}]}
    else:
        choice = {"text": says.text}
        if says.first is not None:
            choice["logprobs"] = {"top_logprobs": [says.first]}
    choice["finish_reason"] = says.finish
    value = {"choices": [choice]}
    if says.usage:
        value["usage"] = {"prompt_tokens": 20, "completion_tokens": 5}
    return value


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: cut connections are ordered."""


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Run the server on a free port of 127.0.0.1 until the block ends."""
    model = ModelServer()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"model": model}))
    model.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
