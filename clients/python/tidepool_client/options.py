"""The keyword arguments of `generate` and `chat`, and the messages that they become. Names, ranges and defaults are
those of proto/tidepool/v1/generation.proto; what is not given is left unset."""

from typing import Mapping, Sequence, TypedDict

from google.protobuf import json_format

from tidepool_client import v1

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
             "seed")
_STOP = {"max_tokens": "max_tokens", "min_tokens": "min_tokens", "ignore_eos": "ignore_eos"}


class Options(TypedDict, total=False):
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    logit_bias: Mapping[int, float]
    max_tokens: int
    min_tokens: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    logprobs: int
    compression: Mapping[str, object] | v1.CompressionParams
    reuse_prefix: bool
    request_id: str


def _compression(given):
    if isinstance(given, v1.CompressionParams):
        return given
    try:
        return json_format.ParseDict(dict(given), v1.CompressionParams())
    except json_format.ParseError as error:
        raise ValueError(f"compression: {error}") from None


def fill(request, options: Options):
    """Sets in a GenerateRequest or ChatRequest what `options` hold."""
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise TypeError(f"{unknown[0]}: is no option; there are {', '.join(sorted(Options.__annotations__))}")
    for name in _SAMPLING:
        if options.get(name) is not None:
            _set(request.sampling, name, name, options[name])
    for token, bias in (options.get("logit_bias") or {}).items():
        request.sampling.logit_bias[token] = bias
    for name, field in _STOP.items():
        if options.get(name) is not None:
            _set(request.stop, field, name, options[name])
    stop = options.get("stop") or ()
    request.stop.strings.extend([stop] if isinstance(stop, str) else stop)
    request.stop.token_ids.extend(options.get("stop_token_ids") or ())
    for name in ("logprobs", "reuse_prefix", "request_id"):
        if options.get(name) is not None:
            _set(request, name, name, options[name])
    if options.get("compression") is not None:
        request.compression.CopyFrom(_compression(options["compression"]))
    return request


def _set(message, field, name, value):
    try:
        setattr(message, field, value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {value!r}: {error}") from None


def generate_request(prompt, options):
    request = v1.GenerateRequest()
    if isinstance(prompt, str):
        request.text = prompt
    elif prompt is not None:
        request.token_ids.ids.extend(prompt)
    return fill(request, options)


def chat_request(messages, options):
    request = v1.ChatRequest()
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    for message in messages:
        request.messages.add(role=message["role"], content=message["content"])
    return fill(request, options)
