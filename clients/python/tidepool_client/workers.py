"""The workers of a client, and which of them a request goes to."""

import hashlib
import random
import threading
import time

import grpc

from tidepool_client import v1
from tidepool_client.errors import from_rpc_error
from tidepool_client.v1 import generation_pb2_grpc

ESTIMATE_SECONDS = 2.0  # a worker that does not answer so soon is too busy anyway
MOST_ASKED = 4  # workers whose estimates are asked for before a request
_LONGEST_REST_SECONDS = 10.0
_UNKNOWN_TOKENS_PER_SECOND = 1000.0


def weight(session_id, address):
    """Highest-random-weight hashing, with the numbers of tidepool-http: both send a session to the same worker."""
    digest = hashlib.sha256()
    for field in (session_id.encode(), address.encode()):
        digest.update(len(field).to_bytes(8, "little") + field)
    return int.from_bytes(digest.digest()[:8], "little")


class Worker:
    def __init__(self, address, security):
        self.address = address
        self.security = security
        self.channel = security.open(address)
        self.stub = generation_pb2_grpc.GenerationStub(self.channel)
        self.load = 0  # answers of this client
        self.failures = 0  # in a row
        self.rests_until = 0.0

    def call(self, method, request, timeout):
        """A unary call."""
        try:
            return getattr(self.stub, method)(request, timeout=timeout, metadata=self.security.metadata())
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None


class Workers:
    """Thread-safe."""

    def __init__(self, addresses, security):
        self._workers = [Worker(address, security) for address in addresses]
        self._lock = threading.Lock()

    def __len__(self):
        return len(self._workers)

    def close(self):
        for worker in self._workers:
            worker.channel.close()

    def failed(self, worker):
        """It could not be reached: others are asked first for a while."""
        with self._lock:
            worker.failures += 1
            rest = min(0.5 * 2 ** (worker.failures - 1), _LONGEST_REST_SECONDS)
            worker.rests_until = time.monotonic() + rest

    def answered(self, worker):
        with self._lock:
            worker.failures, worker.rests_until = 0, 0.0

    def candidates(self, session_id, without=()):
        """In the order in which they are to be tried. For a session the same one each time, as long as it answers."""
        now = time.monotonic()
        with self._lock:
            def rank(worker):
                resting = worker.rests_until > now
                tried = worker.address in without
                if session_id:
                    return tried, resting, -weight(session_id, worker.address)
                return tried, resting, worker.load, random.random()
            return sorted(self._workers, key=rank)

    def choose(self, request, session_id, without=()):
        """For a session its worker; else the one that is expected to give the first token first, by what it has stored
        of the prompt and by its load."""
        candidates = self.candidates(session_id, without)
        awake = [worker for worker in candidates[:MOST_ASKED]
                 if worker.address not in without and worker.rests_until <= time.monotonic()]
        if session_id or len(awake) < 2:
            return candidates[0]
        question = v1.EstimateRequest()
        getattr(question, "generate" if isinstance(request, v1.GenerateRequest) else "chat").CopyFrom(request)
        calls = [(worker, worker.stub.Estimate.future(
            question, timeout=ESTIMATE_SECONDS, metadata=worker.security.metadata())) for worker in awake]
        estimates = []
        for worker, call in calls:
            try:
                estimates.append((worker, call.result()))
            except grpc.RpcError:  # what is wrong with the request, the request itself is told
                if call.code() == grpc.StatusCode.UNAVAILABLE:
                    self.failed(worker)
        if not estimates:
            return candidates[0]
        known = [estimate.prompt_tokens_per_second for _, estimate in estimates if estimate.prompt_tokens_per_second]
        fallback = max(known, default=_UNKNOWN_TOKENS_PER_SECOND)

        def cost(pair):
            worker, estimate = pair
            tokens = estimate.waiting_tokens + estimate.prompt_tokens - estimate.stored_tokens
            busy = estimate.running_sequences + estimate.waiting_requests
            return tokens / (estimate.prompt_tokens_per_second or fallback), busy, worker.load, random.random()
        return min(estimates, key=cost)[0]

    def lease(self, worker, count):
        with self._lock:
            worker.load += count
