"""How workers are reached: plain text, or TLS that checks their certificates; with a bearer token or without."""

import ipaddress

import grpc

_MESSAGE_BYTES = 8 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A worker that comes back is found at once; by default two minutes may pass between attempts.
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def _on_this_machine(address):
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Security:
    """tls_ca: PEM file of who signs the workers' certificates; without it: plain text. tls_cert, tls_key: PEM files of
    the client's own identity. tls_server_name: the name that the workers' certificates have, in place of the
    address's host. token, or token_file, which is read at every call. In plain text a token is only ever sent to this
    machine."""

    def __init__(self, tls_ca=None, tls_cert=None, tls_key=None, tls_server_name=None, token=None, token_file=None):
        if token is not None and token_file is not None:
            raise ValueError("token: is given beside token_file; give one of them")
        if (tls_cert is None) != (tls_key is None):
            raise ValueError("tls_cert, tls_key: give both or none")
        if tls_ca is None and (tls_cert is not None or tls_server_name is not None):
            raise ValueError("tls_ca: is missing; without it the connection is plain text")
        self._tls = tls_ca is not None
        self._credentials = None
        self._server_name = tls_server_name
        self._token = token
        self._token_file = token_file
        if self._tls:
            self._credentials = grpc.ssl_channel_credentials(
                root_certificates=_read(tls_ca), private_key=_read(tls_key) if tls_key else None,
                certificate_chain=_read(tls_cert) if tls_cert else None)

    def open(self, address):
        tls = self._tls and not address.startswith("unix:")
        if (self._token is not None or self._token_file is not None) and not tls and not _on_this_machine(address):
            raise ValueError(f"token: is not sent to {address} in plain text; give tls_ca")
        if not tls:
            return grpc.insecure_channel(address, options=_OPTIONS)
        options = _OPTIONS
        if self._server_name is not None:
            options += (("grpc.ssl_target_name_override", self._server_name),)
        return grpc.secure_channel(address, self._credentials, options=options)

    def metadata(self):
        """Of every call."""
        token = self._token
        if self._token_file is not None:
            token = _read(self._token_file).decode().strip()
        return (("authorization", f"Bearer {token}"),) if token is not None else ()
