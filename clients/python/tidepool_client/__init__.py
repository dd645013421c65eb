"""A client of Tidepool's workers.

    from tidepool_client import Client

    with Client("127.0.0.1:7071") as client:
        for piece in client.generate("The tide", max_tokens=32):
            print(piece.text, end="", flush=True)
"""

from tidepool_client.answer import Answer, Piece
from tidepool_client.client import Client, Session
from tidepool_client.errors import (Cancelled, DeadlineExceeded, InvalidRequest, NotAllowed, Overloaded,
                                    SessionConflict, TidepoolError, Unavailable)

__all__ = ["Answer", "Cancelled", "Client", "DeadlineExceeded", "InvalidRequest", "NotAllowed", "Overloaded", "Piece",
           "Session", "SessionConflict", "TidepoolError", "Unavailable"]
