"""A model behind an endpoint, measured beside one of this machine: what can be asked of it.

The endpoint is a real server on 127.0.0.1 that speaks OpenAI's protocol and can fail.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from demur.errors import EndpointError
from demur.judge.names import Means
from demur.measuring.measure import measure_models
from demur.models.asking import Patience
from demur.models.budget import Caps
from tests.test_measuring import CHOICES, home  # noqa: F401

FEW = {**CHOICES, "n": 6, "templates": None, "prefill": 3, "blimp": None}
MEANS = Means(patience=Patience(tries=1, timeout=20.0, pause=0.01), at_once=2)


@dataclass
class Server:
    """What was asked, and after how many answers all else fails with 500."""

    address: str = ""
    asked: list[dict] = field(default_factory=list)
    healthy: int = 1_000_000


@contextmanager
def server():
    state, lock = Server(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format, *args):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.asked.append(body)
                state.healthy -= 1
                status = 200 if state.healthy >= 0 else 500
            text = body["messages"][-1]["content"]
            said = "I'm sorry, but I can't help with that." if len(text) % 2 else "Sure: do this."
            reply = {
                "choices": [{"message": {"content": said}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5},
            }
            data = json.dumps(reply if status == 200 else {"error": "down"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    state.address = f"http://127.0.0.1:{http.server_address[1]}/v1#served"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def test_an_endpoint_is_measured_beside_a_model(home: Path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(home)
    choices = {**FEW, "system": ("Be kind.", "none")}
    with server() as state:
        run = Path("runs/mixed")
        found = measure_models(("one", f"far={state.address}"), run=run, means=MEANS, **choices)
        rows = [json.loads(line) for line in found.answers.read_text().splitlines()]
        far = [row for row in rows if row["model"] == "far"]
        # 6 of each kind, under two system prompts; three of them have prefills at the other model
        assert len(state.asked) == len(far) == 36
        assert sum(row["attack"] == "prefill" for row in rows) == 3
        systems = [
            [m["content"] for m in b["messages"] if m["role"] == "system"] for b in state.asked
        ]
        assert systems.count(["Be kind."]) == systems.count([]) == 18
        assert {body["max_tokens"] for body in state.asked} == {5}
        again = measure_models(("one", f"far={state.address}"), run=run, means=MEANS, **choices)
        assert len(state.asked) == 36
    assert again.answers.read_bytes() == (home / found.answers).read_bytes()
    one, other = found.standing.models
    assert (one.apart, other.weights, other.parameters) == ("", "", 0)
    assert "no probabilities" in other.apart
    assert other.perplexity_ratio is None and other.divergence is None
    row = found.standing.row("direct/pooled:harmful")
    refused = sum(
        len(r["prompt"]) % 2 for r in far if (r["kind"], r["system"]) == ("harmful", "Be kind.")
    )
    assert row.cells[1].refused.count == refused
    assert found.standing.row("prefill/pooled:harmful").cells[1] is None
    assert "not asked" in found.page.read_text(encoding="utf-8")
    text = found.results.read_text(encoding="utf-8")
    assert json.loads(text)["models"][1]["perplexity"] is None


def test_an_endpoint_alone_or_as_the_reference(home: Path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(home)
    with server() as state:
        found = measure_models(state.address, run=Path("runs/alone"), means=MEANS, **FEW)
        assert [m.label for m in found.standing.models] == ["served"]
        assert found.standing.row("prefill/pooled:harmful") is None
        found = measure_models((state.address, "one"), run=Path("runs/led"), means=MEANS, **FEW)
    forced = found.standing.row("prefill/pooled:harmful").cells
    assert forced[0] is None and forced[1].difference is None and forced[1].refused.n == 3
    assert "reference is an endpoint" in found.standing.models[1].apart
    assert found.standing.row("direct/pooled:twin").cells[1].difference is not None


def test_an_endpoint_that_goes_away_is_asked_only_what_is_missing(home: Path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(home)
    with server() as state:
        state.healthy = 7
        with pytest.raises(EndpointError, match="gave no answer"):
            measure_models(state.address, run=Path("runs/away"), means=MEANS, **FEW)
        state.healthy, state.asked = 1_000, []
        found = measure_models(state.address, run=Path("runs/away"), means=MEANS, **FEW)
        assert len(state.asked) == 18 - 7
        whole = measure_models(state.address, run=Path("runs/there"), means=MEANS, **FEW)
    assert found.answers.read_bytes() == whole.answers.read_bytes()


def test_a_cap_on_what_is_spent_holds_over_several_tries(home: Path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(home)
    with server() as state:
        for _ in range(2):
            with pytest.raises(EndpointError, match="spending cap of 5 requests"):
                measure_models(
                    state.address, run=Path("runs/cap"), means=MEANS, caps=Caps(requests=5), **FEW
                )
        assert len(state.asked) == 5


def test_an_endpoint_that_is_written_wrongly_is_told_before_any_work(home: Path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(home)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, words in (("http://127.0.0.1:1/v1", "which model"), ("openai:gpt-x", "no key")):
        with pytest.raises(EndpointError, match=words):
            measure_models(name, run=Path("runs/wrong"), means=MEANS, **FEW)
    assert not Path("runs/wrong").exists()
