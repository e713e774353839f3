"""Endpoints: both protocols, patience, the spending cap, and keys that are never shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from tests.endpoint_server import KEY, Fails, ModelServer, Says, asked_text, model_server

from demur.errors import ConfigError, EndpointError
from demur.models.asking import Asker, Patience
from demur.models.budget import Budget, Caps, Spent
from demur.models.endpoint import Endpoint, Question, is_endpoint, parse_endpoint
from demur.models.endpoint_answers import endpoint_answers
from demur.models.generation import Decoding
from demur.run.journal import Journal

QUICK = Patience(tries=4, timeout=5.0, pause=0.01, longest=0.5)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with model_server() as model:
        yield model


def asker(server: ModelServer, **how: object) -> Asker:
    return Asker(parse_endpoint(server.spec()), **{"patience": QUICK, **how})  # type: ignore[arg-type]


def anthropic(server: ModelServer) -> Endpoint:
    return Endpoint("anthropic:c", "anthropic", server.url, "c", "ANTHROPIC_API_KEY", True)


def test_specs_name_endpoints() -> None:
    own = parse_endpoint("http://localhost:8000/v1/#org/model")
    assert (own.url, own.model, own.key_needed) == ("http://localhost:8000/v1", "org/model", False)
    assert own.name == "localhost:8000#org/model"
    assert parse_endpoint("openai:gpt-4o-mini").name == "openai:gpt-4o-mini"
    claude = parse_endpoint("anthropic:claude-x", "MINE")
    assert (claude.dialect, claude.key_variable) == ("anthropic", "MINE")
    assert is_endpoint("https://a#b") and not is_endpoint("org/model") and not is_endpoint("./x")
    for wrong in ("http://h/v1", "openai:", "ftp://h#m", "http://u:p@h/v1#m", "http://h?k=1#m"):
        with pytest.raises(EndpointError):
            parse_endpoint(wrong)
    with pytest.raises(EndpointError):
        parse_endpoint("http://host:port/v1#m")
    with pytest.raises(EndpointError) as caught:
        parse_endpoint(f"http://me:{KEY}@host/v1#m")
    assert KEY not in str(caught.value)


def test_both_protocols_and_plain_completions(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = lambda path, body: Says(
        f"{path}: {asked_text(body).strip()}", first={"a": -1.0}
    )
    reply = asker(server).ask(Question(user="hi", system="be brief", choices=5))
    assert reply.text == "/v1/chat/completions: be brief\nhi" and reply.finished
    assert (reply.tokens_in, reply.tokens_out, reply.first) == (20, 5, {"a": -1.0})
    reply = asker(server).ask(Question(prompt="raw", choices=5, tokens=7))
    assert reply.text == "/v1/completions: raw" and reply.first == {"a": -1.0}
    assert server.requests[-1][2]["max_tokens"] == 7 and server.requests[-1][2]["temperature"] == 0
    assert "authorization" not in server.requests[-1][1]
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    reply = Asker(anthropic(server)).ask(Question(user="hi", system="be brief"))
    assert reply.text == "/v1/messages: be brief\nhi" and reply.tokens_out == 5
    assert server.requests[-1][1]["x-api-key"] == KEY
    assert server.requests[-1][1]["anthropic-version"]
    with pytest.raises(EndpointError, match="takes no plain prompt"):
        Asker(anthropic(server)).ask(Question(prompt="raw"))


def test_a_truncated_reply_is_seen_as_one(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    server.script = lambda path, body: Says("half an", "length")
    assert not asker(server).ask(Question(user="x")).finished
    assert not Asker(anthropic(server)).ask(Question(user="x")).finished


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_what_passes_is_tried_again(server: ModelServer, status: int) -> None:
    server.fails = [Fails(status, times=2)]
    assert asker(server).ask(Question(user="x")).text == "hello"
    assert len(server.requests) == 3


@pytest.mark.parametrize("keep", [0, 30])
def test_a_cut_connection_is_tried_again(server: ModelServer, keep: int) -> None:
    server.fails = [Fails(0, times=2, keep=keep)]
    assert asker(server).ask(Question(user="x")).text == "hello"
    assert len(server.requests) == 3


def test_retry_after_is_heeded_in_both_of_its_forms(server: ModelServer) -> None:
    server.fails = [Fails(429, times=1, headers={"Retry-After": "0.3"})]
    begun = time.monotonic()
    assert asker(server).ask(Question(user="x")).text == "hello"
    assert time.monotonic() - begun >= 0.3
    server.fails = [Fails(503, times=1, headers={"Retry-After": formatdate(0, usegmt=True)})]
    assert asker(server).ask(Question(user="x")).text == "hello"
    server.fails = [Fails(429, headers={"Retry-After": "3600"})]
    before = len(server.requests)
    with pytest.raises(EndpointError, match="asks to wait 3600 s"):
        asker(server).ask(Question(user="x"))
    assert len(server.requests) == before + 1


def test_patience_ends_with_what_happened(server: ModelServer) -> None:
    server.fails = [Fails(500, body='{"error": {"message": "out of memory"}}')]
    with pytest.raises(EndpointError) as caught:
        asker(server).ask(Question(user="x"))
    assert "4 times" in caught.value.cause and "500 (out of memory)" in caught.value.cause
    assert "same command" in caught.value.remedy and "only what is missing" in caught.value.remedy
    assert len(server.requests) == 4


def test_no_reply_in_time_and_no_server(server: ModelServer) -> None:
    server.fails = [Fails(200, delay=1.0)]
    hasty = Patience(tries=2, timeout=0.1, pause=0.01)
    with pytest.raises(EndpointError, match=r"no reply within 0\.1 s"):
        asker(server, patience=hasty).ask(Question(user="x"))
    with pytest.raises(EndpointError, match="the connection failed"):
        Asker(parse_endpoint("http://127.0.0.1:9/v1#m"), patience=hasty).ask(Question(user="x"))


def test_what_does_not_pass_is_not_tried_again(server: ModelServer) -> None:
    server.fails = [Fails(404, body='{"error": {"message": "no such model"}}')]
    with pytest.raises(EndpointError, match=r"404 \(no such model\)"):
        asker(server).ask(Question(user="x"))
    server.fails = [Fails(200, times=0)]
    server.script = lambda path, body: Says(None)  # type: ignore[arg-type]
    assert asker(server).ask(Question(user="x")).text == ""  # a null content is an empty one
    with pytest.raises(EndpointError, match="not what the protocol says"):
        asker(server).ask(Question(prompt="x"))


def test_parameters_that_a_server_does_not_know_are_left_out(server: ModelServer) -> None:
    message = "Unsupported parameter: 'max_tokens' is not supported; use 'max_completion_tokens'"
    server.fails = [
        Fails(400, times=1, body='{"error": {"message": "temperature does not support 0"}}'),
        Fails(400, times=1, body='{"error": {"message": "' + message + '"}}'),
    ]
    one = asker(server)
    assert one.ask(Question(user="x", tokens=9)).text == "hello"
    body = server.requests[-1][2]
    assert "temperature" not in body and body["max_completion_tokens"] == 9
    one.ask(Question(user="y"))
    assert len(server.requests) == 4  # what was learnt once is not asked again


def test_the_limit_of_tokens_is_never_left_out(server: ModelServer) -> None:
    server.fails = [Fails(400, body='{"error": "max_tokens, max_completion_tokens: too large"}')]
    with pytest.raises(EndpointError, match="400"):
        asker(server).ask(Question(user="x", tokens=9))
    assert len(server.requests) == 2
    assert all(9 in body.values() for _, _, body in server.requests)


def test_several_at_once_and_no_more(server: ModelServer) -> None:
    from threading import Barrier, BrokenBarrierError

    together = Barrier(3)

    def script(path: str, body: dict[str, object]) -> Says:
        try:
            together.wait(5)
        except BrokenBarrierError:
            return Says("alone")
        return Says(asked_text(body).strip())

    server.script = script
    questions = [Question(user=f"q{index}") for index in range(9)]
    replies = dict(asker(server, at_once=3).ask_all(questions))
    assert [replies[index].text for index in range(9)] == [f"q{index}" for index in range(9)]


def test_a_failure_still_yields_what_came_and_sends_nothing_more(server: ModelServer) -> None:
    server.fails = [Fails(404, after=5)]
    came: list[int] = []
    replies = asker(server, at_once=2).ask_all([Question(user="x")] * 40)
    with pytest.raises(EndpointError):
        came.extend(index for index, _ in replies)
    assert len(came) == server.answered >= 5
    assert len(server.requests) <= 8


def test_caps_are_never_passed(server: ModelServer) -> None:
    budget = Budget(Caps(requests=3))
    with pytest.raises(EndpointError, match="cap of 3 requests is reached") as caught:
        list(asker(server, budget=budget, at_once=8).ask_all([Question(user="x")] * 20))
    assert server.answered == len(server.requests) == 3
    assert "--max-requests" in caught.value.remedy
    budget = Budget(Caps(tokens=200))
    with pytest.raises(EndpointError, match="cap of 200 tokens"):
        list(asker(server, budget=budget).ask_all([Question(user="x", tokens=30)] * 20))
    assert 100 <= budget.spent.tokens_in + budget.spent.tokens_out <= 200
    prices = Caps(dollars=0.01, price_in=10.0, price_out=100.0)
    budget = Budget(prices)
    with pytest.raises(EndpointError, match=r"cap of 0\.01 dollars"):
        list(asker(server, budget=budget).ask_all([Question(user="x", tokens=6)] * 40))
    n = budget.spent.requests
    assert budget.spent == Spent(n, 20 * n, 5 * n, pytest.approx(n * 0.0007))
    assert n >= 12 and budget.spent.dollars <= 0.01


def test_what_earlier_tries_spent_counts_and_silence_is_counted_in_full(
    server: ModelServer,
) -> None:
    budget = Budget(Caps(requests=3), Spent(requests=2))
    with pytest.raises(EndpointError):
        list(asker(server, budget=budget).ask_all([Question(user="x")] * 5))
    assert len(server.requests) == 1
    server.script = lambda path, body: Says("hello", usage=False)
    budget = Budget()
    asker(server, budget=budget).ask(Question(user="x" * 100, tokens=64))
    assert (budget.spent.tokens_in, budget.spent.tokens_out) == (82, 64)


def test_senseless_caps_are_errors() -> None:
    for wrong in ({"requests": 0}, {"tokens": -5}, {"dollars": float("nan")}, {"dollars": 1.0}):
        with pytest.raises(ConfigError):
            Caps(**wrong)  # type: ignore[arg-type]


def test_a_missing_or_impossible_key_is_told_first(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EndpointError, match="OPENAI_API_KEY is not set"):
        Asker(parse_endpoint("openai:gpt-4o-mini")).ask(Question(user="x"))
    with pytest.raises(EndpointError, match="MINE is not set"):
        Asker(parse_endpoint(server.spec(), "MINE")).ask(Question(user="x"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-clé-\u00e9")
    with pytest.raises(EndpointError, match="is no key") as caught:
        asker(server).ask(Question(user="x"))
    assert "clé" not in str(caught.value) and not server.requests


@pytest.mark.parametrize("status", [401, 400, 500])
def test_no_error_shows_the_key_even_if_the_server_does(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.fails = [Fails(status, body='{"error": {"message": "bad key {key} given"}}')]
    one = asker(server)
    with pytest.raises(EndpointError) as caught:
        one.ask(Question(user="x"))
    assert server.requests[0][1]["authorization"] == f"Bearer {KEY}"
    error = caught.value
    shown = f"{error} {error!r} {error.__cause__!r} {error.__context__!r} {one.endpoint!r}"
    assert KEY not in shown and "[key]" in shown
    server.fails = [Fails(status, body="plain text with {key}")]
    with pytest.raises(EndpointError) as caught:
        one.ask(Question(user="x"))
    assert KEY not in str(caught.value)


def test_errors_do_not_repeat_what_was_asked(server: ModelServer) -> None:
    asked = "something that does not belong in a log"
    server.fails = [Fails(422, body='{"detail": "cannot parse: ' + asked + '"}')]
    with pytest.raises(EndpointError) as caught:
        asker(server).ask(Question(user=asked))
    assert asked not in str(caught.value)


def test_answers_are_journalled_as_they_come_and_only_the_rest_is_asked(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script = lambda path, body: Says(f" {KEY} {body['messages'][-1]['content']}\n")
    server.fails = [Fails(403, after=7)]
    journal = Journal(tmp_path / "journal.sqlite")
    prompts = [f"p{index}" for index in range(20)] + ["p0"]
    with pytest.raises(EndpointError):
        endpoint_answers(asker(server, at_once=3), prompts, journal, Decoding(50))
    kept = journal.count("answers")
    assert kept == server.answered >= 7
    server.fails, server.requests = [], []
    seen: list[int] = []
    answers = endpoint_answers(asker(server), prompts, journal, Decoding(50), advance=seen.append)
    assert len(server.requests) == 20 - kept and sum(seen) == 21
    assert [each.prompt for each in answers] == prompts
    assert answers[3].text == "[key] p3" and answers[3].tokens == () and answers[3].finished
    journal.close()
    assert KEY.encode() not in b"".join(each.read_bytes() for each in tmp_path.iterdir())
    with pytest.raises(EndpointError, match="opened for it"):
        endpoint_answers(asker(server), prompts, journal, Decoding(50, "Sure"))
