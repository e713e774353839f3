"""Asking an endpoint: several questions at once, patiently, within a budget, without leaking a key.

    asker = Asker(parse_endpoint("http://localhost:8000/v1#my-model"))
    for index, reply in asker.ask_all(questions): ...

What passes is tried again with growing pauses: no connection, a connection that is cut, no reply
in time, 408, 409, 425, 429 and 5xx; a server's Retry-After is heeded. All else ends at once in an
`EndpointError`. When one question cannot be answered, no new one is sent, those under way are
still received (they are paid for), and then the error is raised.
"""

from __future__ import annotations

import email.utils
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from demur.errors import DemurError, EndpointError
from demur.models.budget import Budget, Spent
from demur.models.endpoint import Endpoint, Question, Reply, path_and_body, read_reply

PASSING = frozenset({408, 409, 425, 429, *range(500, 600)})
CONTINUES = "give the same command again: only what is missing is asked."
OTHER_NAME = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
OPTIONAL = ("temperature", "top_logprobs", "logprobs")
# What is set aside for a request: fewer bytes a token than running text has, and the template.
BYTES_A_TOKEN, TEMPLATE_TOKENS = 2, 32


@dataclass(frozen=True)
class Patience:
    """How long an endpoint is waited for.

    Attributes:
        tries: how often a question is sent at most.
        timeout: seconds until a reply must be there.
        pause: seconds before the second try; each further pause is twice as long.
        longest: the longest pause, whatever the server asks for.
    """

    tries: int = 6
    timeout: float = 120.0
    pause: float = 1.0
    longest: float = 120.0


class Asker:
    """Asks one endpoint; several threads send, one receives."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        budget: Budget | None = None,
        patience: Patience | None = None,
        at_once: int = 8,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            budget: counts and caps what is spent; it may be shared with other askers.
            at_once: how many questions are under way at the same time.
        """
        self.endpoint = endpoint
        self.budget = budget or Budget()
        self.patience = patience or Patience()
        self.at_once = max(1, at_once)
        self.spent = Spent()
        self._refused: frozenset[str] = frozenset()  # parameters that this server does not know
        self._lock = threading.Lock()

    def ask_all(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """Yield (index, reply) as the replies come, in no particular order.

        Raises:
            EndpointError: a question could not be answered, or the budget is spent; all replies
                that came are yielded before.
        """
        if not questions:
            return
        self.endpoint.key()  # a missing key is told before anything is sent
        waiting = iter(range(len(questions)))
        done: queue.Queue[tuple[int, Reply] | DemurError | None] = queue.Queue()
        stop = threading.Event()
        workers = min(self.at_once, len(questions))
        client = self._client(workers)

        def work() -> None:
            try:
                while not stop.is_set():
                    with self._lock:
                        index = next(waiting, None)
                    if index is None:
                        break
                    done.put((index, self._ask(client, questions[index], stop)))
            except DemurError as error:
                stop.set()
                done.put(error)
            finally:
                done.put(None)

        for _ in range(workers):  # daemons: Ctrl-C does not wait for replies that may never come
            threading.Thread(target=work, daemon=True).start()
        failure: DemurError | None = None
        answered = 0
        try:
            while workers:
                item = done.get()
                if item is None:
                    workers -= 1
                elif isinstance(item, DemurError):
                    failure = failure or item
                else:
                    answered += 1
                    yield item
        finally:
            stop.set()
            client.close()
        if failure is not None:
            raise failure
        if answered < len(questions):
            raise RuntimeError("a thread that asks an endpoint has died")

    def ask(self, question: Question) -> Reply:
        """Ask one question and wait for the reply; errors as in `ask_all`."""
        return next(reply for _, reply in self.ask_all([question]))

    def _client(self, connections: int) -> Any:
        import httpx2 as httpx

        host = httpx.URL(self.endpoint.url).host
        local = host in ("localhost", "::1") or host.startswith("127.")
        return httpx.Client(
            timeout=self.patience.timeout,
            limits=httpx.Limits(max_connections=connections),
            trust_env=not local,  # a proxy of the environment does not reach this machine
        )

    def _ask(self, client: Any, question: Question, stop: threading.Event) -> Reply:
        sent = sum(len(text.encode()) for text in question.texts)
        aside = self.budget.set_aside(sent // BYTES_A_TOKEN + TEMPLATE_TOKENS, question.tokens)
        real: Spent | None = None
        try:
            reply = self._try(client, question, stop)
            real = self.budget.cost(
                aside.tokens_in if reply.tokens_in is None else reply.tokens_in,
                aside.tokens_out if reply.tokens_out is None else reply.tokens_out,
            )
            return reply
        finally:
            self.budget.settle(aside, real)
            if real is not None:
                with self._lock:
                    self.spent += real

    def _try(self, client: Any, question: Question, stop: threading.Event) -> Reply:
        import httpx2 as httpx

        why, pause = "", self.patience.pause
        for number in range(self.patience.tries):
            if stop.is_set() or (number and stop.wait(pause)):
                break
            pause = min(self.patience.longest, self.patience.pause * 2**number)
            pause *= random.uniform(0.7, 1.3)  # so that many do not come again all at once
            try:
                response = self._send(client, question)
            except httpx.TimeoutException:
                why = f"there was no reply within {self.patience.timeout:g} s"
                continue
            except httpx.RequestError as error:
                why = f"the connection failed ({self._clean(str(error), question)})"
                continue
            if response.status_code in PASSING:
                why = f"it answered {self._said(response, question)}"
                pause = max(pause, self._wished(response, why))
                continue
            if _filtered(response):
                return Reply("", False, {}, None, None, filtered=True)
            if response.status_code != 200:
                raise self._refusal(response, question)
            try:
                return self._reply(response)
            except (ValueError, KeyError, IndexError, TypeError, AttributeError):
                why = "its reply was not what the protocol says"
        tries = "once" if self.patience.tries == 1 else f"{self.patience.tries} times"
        raise EndpointError(
            f"{self.endpoint.spec} gave no answer, asked {tries}: {why or 'stopped'}.",
            f"What came back is kept; see to the endpoint, and {CONTINUES}",
        )

    def _send(self, client: Any, question: Question) -> Any:
        while True:
            path, body = path_and_body(self.endpoint, question)
            refused = self._refused
            for name in refused & body.keys():
                value = body.pop(name)
                if name in OTHER_NAME and OTHER_NAME[name] not in refused:
                    body[OTHER_NAME[name]] = value
            url, headers = self.endpoint.url + path, self.endpoint.headers()
            response = client.post(url, json=body, headers=headers)
            unknown = self._unknown(response, body)
            if not unknown:
                return response
            with self._lock:
                self._refused = self._refused | {unknown}

    def _unknown(self, response: Any, body: dict[str, Any]) -> str:
        """Return the parameter of the body that a 400 complains of, if it can be done without."""
        if response.status_code != 400:
            return ""
        text = _message(response)
        # the limit of tokens may have another name, but is never left out: it bounds the cost
        names = [name for name, other in OTHER_NAME.items() if other not in self._refused]
        named = [name for name in (*names, *OPTIONAL) if name in body and name in text]
        return named[0] if named else ""

    def _reply(self, response: Any) -> Reply:
        reply = read_reply(self.endpoint, response.json())
        key = self.endpoint.key()
        if key and key in reply.text:  # a server that repeats it must not put it into a journal
            return replace(reply, text=reply.text.replace(key, "[key]"))
        return reply

    def _refusal(self, response: Any, question: Question) -> EndpointError:
        said = self._said(response, question)
        if response.status_code in (401, 403):
            return EndpointError(
                f"{self.endpoint.spec} does not accept the key: {said}.",
                f"Check what the environment variable {self.endpoint.key_variable} holds.",
            )
        return EndpointError(
            f"{self.endpoint.spec} cannot be asked: it answered {said}.",
            f"Check the address and the model's name; then {CONTINUES}",
        )

    def _said(self, response: Any, question: Question) -> str:
        text = self._clean(_message(response), question)
        return f"{response.status_code} ({text})" if text else str(response.status_code)

    def _clean(self, text: str, question: Question) -> str:
        """Return one short line without the key and without what was asked."""
        key = self.endpoint.key()
        if key:
            text = text.replace(key, "[key]")
        for sent in question.texts:
            text = text.replace(sent, "[...]")
        line = " ".join(text.split()).rstrip(".")
        return line if len(line) <= 160 else line[:157] + "..."

    def _wished(self, response: Any, why: str) -> float:
        """Return the seconds that Retry-After asks for.

        Raises:
            EndpointError: they are more than our patience.
        """
        value = response.headers.get("retry-after", "").strip()
        if not value:
            return 0.0
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except ValueError:
                return 0.0
        if seconds > self.patience.longest:
            raise EndpointError(
                f"{self.endpoint.spec} asks to wait {seconds:.0f} s: {why}.",
                f"What came back is kept; wait, then {CONTINUES}",
            )
        return max(0.0, seconds)


def _filtered(response: Any) -> bool:
    """Return whether a content filter refused the request, as OpenAI's protocol has it on Azure."""
    if response.status_code != 400:
        return False
    try:
        value = response.json()
    except ValueError:
        return False
    error = value.get("error") if isinstance(value, dict) else None
    return isinstance(error, dict) and error.get("code") == "content_filter"


def _message(response: Any) -> str:
    """Return the sentence in which a server says what is wrong, as far as it has one."""
    try:
        value = response.json()
    except ValueError:
        return str(response.text)[:400]
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or ""
    return str(error)[:2000]
