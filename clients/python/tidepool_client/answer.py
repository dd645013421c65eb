"""One answer: an iterator over its pieces, which goes on at another worker where that is safe."""

import random
import threading
import time
from dataclasses import dataclass, field

import grpc

from tidepool_client import v1
from tidepool_client.errors import Cancelled, DeadlineExceeded, SessionConflict, Unavailable, from_rpc_error

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class Piece:
    """What came since the last one. `text` ends on a character boundary and never holds part of a stop string."""

    text: str
    ids: list[int]
    logprobs: list[v1.TokenLogprob] = field(default_factory=list)


class Answer:
    """Asked for when it is first read. Iterate it once, from one thread; `cancel` may be called from any, and is when
    nobody holds the answer any more.

    A worker that goes before anything came is replaced by another one. Once tokens have come, only a session's turn
    goes on elsewhere: it is asked again, which a worker refuses when the turn has been stored, and what had come is
    not given twice."""

    def __init__(self, workers, method, request, session, timeout, attempts):
        self._stream = _Stream(workers, method, request, session, timeout, attempts)
        self._pieces = self._stream.pieces()

    def __iter__(self):
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cancel()

    def __del__(self):
        self.cancel()

    def cancel(self):
        """Ends the generation at the worker. Nothing when the answer has ended."""
        self._stream.cancel()

    @property
    def text(self) -> str:
        """All of it: reads what has not been iterated over."""
        return self._whole().text

    @property
    def ids(self) -> list[int]:
        """All of them, likewise."""
        return self._whole().ids

    @property
    def finished(self) -> v1.Finished:
        """Why it ended, and what it used; likewise."""
        return self._whole().finished

    @property
    def usage(self) -> v1.Usage:
        return self.finished.usage

    @property
    def prefilled_tokens(self) -> int:
        """Of the prompt, so far. Reads nothing."""
        return self._stream.prefilled_tokens

    def _whole(self):
        for _ in self:
            pass
        if self._stream.finished is None:
            raise Cancelled(grpc.StatusCode.CANCELLED, "the answer has not ended: it failed or was cancelled")
        return self._stream


class _Stream:
    """What an Answer reads. It does not know the Answer, so that this one ends when its caller lets go of it."""

    def __init__(self, workers, method, request, session, timeout, attempts):
        self._workers = workers
        self._method = method
        self._request = request
        self._session = session
        self._give_up = None if timeout is None else time.monotonic() + timeout
        self._attempts = attempts
        self._lock = threading.Lock()
        self._call = None  # under way
        self._cancelled = threading.Event()
        self.ids = []  # given so far
        self.text = ""
        self.finished = None
        self.prefilled_tokens = 0

    def cancel(self):
        with self._lock:
            self._cancelled.set()
            if self._call is not None:
                self._call.cancel()

    def pieces(self):
        tried = set()
        for attempt in range(1, self._attempts + 1):
            worker = None
            try:
                if self._session is not None and not self._request.HasField("session_turns"):
                    self._request.session_turns = self._session.turns_now(self._remaining())
                    self._session.turns = None  # until this turn has ended
                worker = self._workers.choose(self._request, self._request.session_id, tried)
                yield from self._ask(worker)
                return
            except Unavailable:
                if attempt == self._attempts or (self._session is None and self.ids):
                    raise
            if worker is not None:
                self._workers.failed(worker)
                tried.add(worker.address)
            # Each worker once without a pause, then again after growing ones.
            if worker is None or len(tried) == len(self._workers):
                tried.clear()
                self._pause(attempt)

    def _ask(self, worker):
        ids, text, logprobs = [], "", []
        with self._lock:
            if self._cancelled.is_set():
                raise Cancelled(grpc.StatusCode.CANCELLED, "cancelled")
            self._call = getattr(worker.stub, self._method)(
                self._request, timeout=self._remaining(), metadata=worker.security.metadata())
        self._workers.lease(worker, 1)
        try:
            for response in self._call:
                self._workers.answered(worker)
                event = response.WhichOneof("event")
                if event == "progress":
                    self.prefilled_tokens = response.progress.prefilled_tokens
                elif event == "finished":
                    self.finished = response.finished
                elif event == "tokens":
                    ids += response.tokens.ids
                    text += response.tokens.text
                    logprobs += response.tokens.logprobs
                    if (piece := self._new_piece(ids, text, logprobs)) is not None:
                        yield piece
            if self._session is not None:
                self._session.turns = self.finished.session_turns
        except grpc.RpcError as error:
            raise self._error_of(error, worker) from None
        finally:
            self._workers.lease(worker, -1)
            with self._lock:
                self._call.cancel()  # where the caller has stopped to read
                self._call = None

    def _new_piece(self, ids, text, logprobs):
        """Of what a worker has given in all, what is new to the caller."""
        known_ids, known_text = len(self.ids), len(self.text)
        if ids[:known_ids] != self.ids[:len(ids)] or text[:known_text] != self.text[:len(text)]:
            raise SessionConflict(grpc.StatusCode.ABORTED,
                                  "the worker went, and another one answers otherwise from the beginning "
                                  "(asynchronous recall, or another device): ask the turn again")
        if len(ids) <= known_ids and len(text) <= known_text:
            return None
        piece = Piece(text[known_text:], ids[known_ids:], logprobs[known_ids:])
        self.ids += piece.ids
        self.text += piece.text
        return piece

    def _error_of(self, rpc_error, worker):
        error = from_rpc_error(rpc_error, worker.address)
        # A worker that ends cancels what is left after its drain time.
        if isinstance(error, Cancelled) and not self._cancelled.is_set():
            return Unavailable(grpc.StatusCode.UNAVAILABLE, f"{worker.address}: the worker ended the call")
        return error

    def _remaining(self):
        return None if self._give_up is None else max(self._give_up - time.monotonic(), 0.0)

    def _pause(self, attempt):
        pause = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
        remaining = self._remaining()
        if remaining is not None and remaining < pause:
            raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, "no worker answered in time")
        self._cancelled.wait(pause)
