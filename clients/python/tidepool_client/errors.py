"""What calls raise: one class for each thing that a caller may do about it."""

import re

import grpc

from tidepool_client import v1


class TidepoolError(Exception):
    """`code` is the gRPC status; `field` the request's field that is wrong, where the worker names one; `retry_after`
    the seconds before which another try is refused, where it says so."""

    def __init__(self, code, message, retry_after=None):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after

    @property
    def field(self):
        named = re.match(r"([a-z_][a-z0-9_]*(?:\[\d+\])?(?:\.[a-z_][a-z0-9_]*(?:\[\d+\])?)*)(?:: | is | holds )",
                         self.message)
        return named.group(1) if named and isinstance(self, InvalidRequest) else None


class InvalidRequest(TidepoolError):
    """The same request will be refused again."""


class NotAllowed(TidepoolError):
    """No token, one that is not known, or one whose role may not do this."""


class Overloaded(TidepoolError):
    """The queue, the pages or the tenant's rate do not allow it now."""


class SessionConflict(TidepoolError):
    """The session is not where this client thought it was: another client has written it, or the turn is stored and
    the end of its answer was lost with the worker, or the worker that went on with the turn answers otherwise."""


class Unavailable(TidepoolError):
    """No worker could be reached, or the worker went while it answered and nobody could go on."""


class Cancelled(TidepoolError):
    """The answer was cancelled."""


class DeadlineExceeded(TidepoolError):
    """The timeout has passed."""


_CLASSES = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidRequest,
    grpc.StatusCode.UNIMPLEMENTED: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: NotAllowed,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.ABORTED: SessionConflict,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def error_of(code, message, retry_after=None):
    return _CLASSES.get(code, TidepoolError)(code, message, retry_after)


def from_rpc_error(error, address):
    message = error.details() or ""
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        message = f"{address}: {message}"
    return error_of(error.code(), message, _retry_after(error))


def _retry_after(error):
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in v1.StatusDetails.FromString(value).details:
                if detail.type_url == "type.googleapis.com/google.rpc.RetryInfo":
                    return v1.RetryInfo.FromString(detail.value).retry_delay.ToTimedelta().total_seconds()
    return None
