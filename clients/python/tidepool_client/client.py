"""The client, and sessions."""

import time
import uuid
import weakref
from typing import Mapping, Sequence, Unpack

from tidepool_client import options as _options
from tidepool_client import v1
from tidepool_client.answer import Answer
from tidepool_client.channel import Security
from tidepool_client.errors import Unavailable
from tidepool_client.workers import Workers

_LOOK_UP_SECONDS = 20.0  # calls that only look something up
_DEFAULT_ATTEMPTS = 6


class Client:
    """Of one worker or of several that share a cache service. Thread-safe; close it, or use it in a `with`.

    addresses: "host:port" or "unix:PATH", or a sequence of them. timeout: of each answer in seconds, unless it says
    its own. attempts: at most, of each answer, where its worker goes. The others: as `Security`."""

    def __init__(self, addresses: str | Sequence[str], *, tls_ca=None, tls_cert=None, tls_key=None,
                 tls_server_name=None, token=None, token_file=None, timeout: float | None = None,
                 attempts: int = _DEFAULT_ATTEMPTS):
        addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        if not addresses:
            raise ValueError("addresses: is empty")
        if attempts < 1:
            raise ValueError(f"attempts: {attempts} is not 1 or more")
        security = Security(tls_ca, tls_cert, tls_key, tls_server_name, token, token_file)
        self._workers = Workers(addresses, security)
        self._timeout = timeout
        self._attempts = attempts
        self._answers = weakref.WeakSet()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Cancels the answers under way."""
        for answer in list(self._answers):
            answer.cancel()
        self._workers.close()

    def generate(self, prompt: str | Sequence[int], *, timeout: float | None = None,
                 **options: Unpack[_options.Options]) -> Answer:
        """Goes on from a text or from token ids."""
        return self._answer("Generate", _options.generate_request(prompt, options), None, timeout)

    def chat(self, messages: str | Sequence[Mapping[str, str]], *, timeout: float | None = None,
             **options: Unpack[_options.Options]) -> Answer:
        """Answers messages with `role` and `content`; a string is one message of the user."""
        return self._answer("Chat", _options.chat_request(messages, options), None, timeout)

    def session(self, session_id: str | None = None) -> "Session":
        """A context that is kept between turns, on any worker. Without an id: a new one that ends with its `with`."""
        return Session(self, session_id)

    def tokenize(self, text: str, *, parse_special: bool = False, add_special: bool = False) -> list[int]:
        request = v1.TokenizeRequest(text=text, parse_special=parse_special, add_special=add_special)
        return list(self._look_up("Tokenize", request).ids)

    def detokenize(self, ids: Sequence[int], *, render_special: bool = False) -> bytes:
        return self._look_up("Detokenize", v1.DetokenizeRequest(ids=ids, render_special=render_special)).text

    def model(self) -> v1.GetModelResponse:
        return self._look_up("GetModel", v1.GetModelRequest())

    def policies(self) -> v1.ListPoliciesResponse:
        return self._look_up("ListPolicies", v1.ListPoliciesRequest())

    def _answer(self, method, request, session, timeout):
        answer = Answer(self._workers, method, request, session, self._timeout if timeout is None else timeout,
                        self._attempts)
        self._answers.add(answer)
        return answer

    def _look_up(self, method, request, session_id="", timeout=_LOOK_UP_SECONDS):
        """Asks one worker after the other until one answers."""
        give_up = time.monotonic() + timeout
        for worker in self._workers.candidates(session_id):
            try:
                return worker.call(method, request, max(give_up - time.monotonic(), 0.0))
            except Unavailable as error:
                self._workers.failed(worker)
                last = error
        raise last


class Session:
    """One conversation, of one thread. Each turn gives only what is new."""

    def __init__(self, client, session_id):
        self._client = client
        self._mine = session_id is None
        self.id = session_id or f"py-{uuid.uuid4().hex}"
        self.turns = 0 if self._mine else None  # None: not known yet

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._mine:
            self.end()

    def generate(self, prompt: str | Sequence[int], *, timeout: float | None = None,
                 **options: Unpack[_options.Options]) -> Answer:
        request = _options.generate_request(prompt, options)
        request.session_id = self.id
        return self._client._answer("Generate", request, self, timeout)

    def chat(self, messages: str | Sequence[Mapping[str, str]], *, timeout: float | None = None,
             **options: Unpack[_options.Options]) -> Answer:
        """The first turn gives everything, later ones the messages since the last answer."""
        request = _options.chat_request(messages, options)
        request.session_id = self.id
        return self._client._answer("Chat", request, self, timeout)

    def end(self):
        """The workers forget it."""
        self._client._look_up("EndSession", v1.EndSessionRequest(session_id=self.id), self.id)
        self.turns = 0

    def turns_now(self, timeout):
        """Asked once: from then on every answer says it."""
        if self.turns is None:
            question = v1.EstimateRequest(generate=v1.GenerateRequest(session_id=self.id))
            seconds = _LOOK_UP_SECONDS if timeout is None else min(timeout, _LOOK_UP_SECONDS)
            self.turns = self._client._look_up("Estimate", question, self.id, seconds).session_turns
        return self.turns
