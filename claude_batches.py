#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Claude's Message Batches API in one file, on the standard library alone.

From the project claude-batches; copy it beside your script, or paste any part of it, without notice.  It speaks
for the Message Batches, Models and token counting endpoints under the names of the official Python SDK, so that
changing between the two is one import line.  The shortest program::

    from claude_batches import Anthropic

    client = Anthropic()  # reads ANTHROPIC_API_KEY
    hello = {"model": "claude-opus-4-6", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
    batch = client.messages.batches.create(requests=[{"custom_id": "first", "params": hello}])
    client.messages.batches.wait(batch.id)
    for row in client.messages.batches.results(batch.id):
        print(row.custom_id, row.result.type)

The shortest command line (with ``--sandbox`` it needs no key and costs nothing)::

    python claude_batches.py run requests.jsonl -o results.jsonl

What it keeps beyond the SDK: a batch is never made, and billed, twice; results are whole or an error says how
many are missing; memory stays flat at 100,000 requests; the API key goes to one place only.

Errors::

    AnthropicError
    ├── InvalidRequestsError (also a ValueError)    an argument breaks a rule; nothing was sent
    ├── WaitTimeoutError (also a TimeoutError)      wait() took longer than its timeout
    └── APIError
        ├── APIConnectionError                      no answer, or a torn or foreign one
        │   ├── APITimeoutError
        │   └── IncompleteResultsError              results ended early, and no retry helped
        ├── APIResponseValidationError              an answer that breaks the API's own rules
        ├── BatchMayExistError                      the answer to a create was lost
        └── APIStatusError                          an answer that says no
            ├── BadRequestError 400, AuthenticationError 401, PaymentRequiredError 402,
            │   PermissionDeniedError 403, NotFoundError 404, RequestTimeoutError 408, ConflictError 409,
            │   ContentTooLargeError 413, UnprocessableEntityError 422, RateLimitError 429
            └── InternalServerError 500 and above
                └── ServiceUnavailableError 503, GatewayTimeoutError 504, OverloadedError 529
"""

from __future__ import annotations

import contextlib
import copyreg
import email.utils
import http.client
import io
import itertools
import json
import os
import random
import re
import socket
import ssl
import sys
import tempfile
import time
import types
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta, timezone

TYPE_CHECKING = False  # what typing would give at run time is not worth a tenth of the import's time
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    T = TypeVar("T")
    Headers = Mapping[str, "str | None"]

__version__ = "1.0.0"
__all__ = """
    Anthropic Messages Batches Models Results Page PageInfo iter_json_lines Request MessageCreateParamsNonStreaming
    MessageBatch MessageBatchRequestCounts DeletedMessageBatch MessageBatchIndividualResponse MessageBatchResult
    ErrorResponse Message ContentBlock Usage MessageTokensCount ModelInfo OpenObject
    AnthropicError InvalidRequestsError WaitTimeoutError APIError APIConnectionError APITimeoutError
    IncompleteResultsError APIResponseValidationError BatchMayExistError APIStatusError BadRequestError
    AuthenticationError PaymentRequiredError PermissionDeniedError NotFoundError RequestTimeoutError ConflictError
    ContentTooLargeError UnprocessableEntityError RateLimitError InternalServerError ServiceUnavailableError
    GatewayTimeoutError OverloadedError
""".split()

# ---- Constants -------------------------------------------------------------------------------------------------

API_VERSION = "2026-10-21"  # header anthropic-version; 2023-06-01 still takes temperature, top_p and top_k
BASE_URL = "https://api.anthropic.com"
USER_AGENT = f"claude-batches/{__version__} Python/{sys.version_info[0]}.{sys.version_info[1]}"

MAX_BATCH_REQUESTS = 100_000  # API guide, Batch processing, limitations
MAX_BATCH_BYTES = 256_000_000  # the same: 256 MB, read the careful way
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # API reference, Create a Message Batch

TIMEOUT = 600.0  # seconds for one read or write, as in the SDK
CONNECT_TIMEOUT = 10.0  # seconds for the connection, the proxy's tunnel and TLS, each
ANSWER_TIMEOUT = 5.0  # seconds for the answer of a server that broke the upload off
MAX_RETRIES = 2  # as in the SDK
LOOK_SECONDS = 30.0  # the longest look for a batch whose create lost its answer
CLOCK_SLACK = timedelta(seconds=60)  # how far that look goes back before the create
POLL_SECONDS = (1.0, 5.0, 60.0)  # least, first and longest interval between two polls
NOT_FOUND_SECONDS = 30.0  # so long a poll's 404 is forgiven: a fresh batch gives some
BLOCK = 128 * 1024  # bytes of one read or write; a write's timeout is for the whole block
SPOOL_BYTES = 4 * 1024 * 1024  # up to here the body of a create is kept in memory

_NO_HEADERS: dict[str, str] = {}

# ---- Errors ----------------------------------------------------------------------------------------------------


class AnthropicError(Exception):
    """The root of all errors that this module raises."""

    def __reduce__(self) -> Any:  # else an error with keyword arguments could not be unpickled
        state = {**self.__dict__, "args": self.args}
        return copyreg.__newobj__, (type(self), *self.args), state  # type: ignore[attr-defined]


class InvalidRequestsError(AnthropicError, ValueError):
    """An argument breaks a rule; nothing was sent.  A create names the request's index and custom_id."""


class WaitTimeoutError(AnthropicError, TimeoutError):
    """The batch did not end in time; it goes on.  ``batch``: as last seen, None if no poll came through."""

    def __init__(self, message: str, batch: MessageBatch | None = None) -> None:
        super().__init__(message)
        self.batch = batch


class APIError(AnthropicError):
    """A request failed.  ``message`` is what str() gives, ``body`` the answer's JSON or text; unknown is None."""

    status_code: int | None = None
    request_id: str | None = None
    type: str | None = None
    headers: Mapping[str, str] = _NO_HEADERS
    _is_api_form = False  # the API's own error body: the answer is not of something on the way

    def __init__(self, message: str, *, body: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.body = body


class APIConnectionError(APIError):
    """No answer came, or one that is torn or not the API's."""


class APITimeoutError(APIConnectionError):
    """Connecting, one read or one write took longer than its timeout."""


class IncompleteResultsError(APIConnectionError):
    """Of ``expected`` rows (None: the batch told no counts) ``received`` came, and no retry helped."""

    def __init__(self, message: str, *, expected: int | None, received: int) -> None:
        super().__init__(message)
        self.expected = expected
        self.received = received


class APIResponseValidationError(APIError):
    """An answer breaks the API's own rules: a row of results that is not JSON, a list that goes in circles."""


class BatchMayExistError(APIError):
    """The whole body of a create went out and its answer was lost: the batch may exist, and be billed.

    ``request_count`` requests were sent at ``sent_at`` (server time, None if unknown).  ``candidates`` are the
    batches of that size listed since then, None if the look failed.  An empty list proves nothing: a body that
    something on the way holds back makes its batch later.  The cause is chained.
    """

    def __init__(self, message: str, *, request_count: int, sent_at: datetime | None,
                 candidates: list[MessageBatch] | None) -> None:
        super().__init__(message)
        self.request_count = request_count
        self.sent_at = sent_at
        self.candidates = candidates


class APIStatusError(APIError):
    """The answer's status is not 2xx.  ``type``, ``api_message``, ``details`` and ``error_code`` are the API's."""

    status_code: int

    def __init__(self, message: str, *, status_code: int, headers: Mapping[str, str], body: object) -> None:
        super().__init__(message, body=body)
        form: Any = body if isinstance(body, dict) else {}
        error = form["error"] if isinstance(form.get("error"), dict) else {}
        self.status_code = status_code
        self.headers = headers  # names in lower case
        self.request_id = headers.get("request-id") or form.get("request_id")
        self.type, self.api_message, self.details = (error.get(name) for name in ("type", "message", "details"))
        self.error_code = self.details.get("error_code") if isinstance(self.details, dict) else None
        self._is_api_form = form.get("type") == "error" and isinstance(self.type, str)


class BadRequestError(APIStatusError): """400: the request breaks a rule."""
class AuthenticationError(APIStatusError): """401: the key is missing or wrong."""
class PaymentRequiredError(APIStatusError): """402: a matter of billing."""
class PermissionDeniedError(APIStatusError): """403: the key may not do this."""
class NotFoundError(APIStatusError): """404: no such batch, model or path, or not yet."""
class RequestTimeoutError(APIStatusError): """408: the server gave up waiting for the request."""
class ConflictError(APIStatusError): """409: something else is changing the same thing."""
class ContentTooLargeError(APIStatusError): """413: the body is too large."""
class UnprocessableEntityError(APIStatusError): """422: understood, and refused."""
class RateLimitError(APIStatusError): """429: too many calls, a full queue, or a spend limit."""
class InternalServerError(APIStatusError): """500 and above: the server failed."""
class ServiceUnavailableError(InternalServerError): """503: not now."""
class GatewayTimeoutError(InternalServerError): """504: something behind the gateway took too long."""
class OverloadedError(InternalServerError): """529: the API has too much to do."""


_STATUS_ERRORS: dict[int, type[APIStatusError]] = {
    400: BadRequestError, 401: AuthenticationError, 402: PaymentRequiredError, 403: PermissionDeniedError,
    404: NotFoundError, 408: RequestTimeoutError, 409: ConflictError, 413: ContentTooLargeError,
    422: UnprocessableEntityError, 429: RateLimitError, 503: ServiceUnavailableError, 504: GatewayTimeoutError,
    529: OverloadedError,
}

# ---- Objects ---------------------------------------------------------------------------------------------------
# An object takes over the decoded dict of its JSON as its __dict__: nothing is copied, a missing field is the
# dataclass's default (None), and a field that this file has never heard of is an attribute all the same.


class _Nested:
    """A field whose JSON becomes an object, or a list of them, when it is first read."""

    def __init__(self, build: Callable[[dict[str, Any]], Any] = dict) -> None:
        self._build = build

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        if obj is None:
            return None  # the dataclass's default
        fields = obj.__dict__
        value = fields.get(self._name)
        if type(value) is dict:
            value = fields[self._name] = self._build(value)
        elif type(value) is list:
            value[:] = [self._build(item) if type(item) is dict else item for item in value]
        return value

    def __set__(self, obj: Any, value: Any) -> None:
        obj.__dict__[self._name] = value


class _Time(_Nested):
    """A field whose RFC 3339 text is read as an aware datetime, and stays text for to_dict()."""

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        value = obj.__dict__.get(self._name) if obj is not None else None
        return value if isinstance(value, datetime) else _parse_time(value) if isinstance(value, str) else None


class _Method:
    """A method that no field of the same name can hide: a data descriptor goes before the __dict__."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.__doc__ = function, function.__doc__

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self if obj is None else types.MethodType(self._function, obj)

    def __set__(self, obj: Any, value: Any) -> None:
        raise AttributeError(f"{self._function.__name__} is a method")


def _method(function: T) -> T:
    return _Method(function)  # type: ignore[arg-type, return-value]


_nested: Any = _Nested  # Any, because the annotations of the fields tell their types
_time: Any = _Time


_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-]\d\d:\d\d))?")


def _parse_time(text: str) -> datetime | None:
    """Return an aware datetime, UTC where the text names no zone; None if it is no time.

    datetime.fromisoformat before 3.11 takes neither Z nor other than 3 or 6 digits of fraction.
    """
    match = _RFC_3339.fullmatch(text)
    if not match:
        return None
    day, clock, fraction, zone = match.groups()
    try:
        return datetime.fromisoformat(f"{day}T{clock}.{(fraction or '')[:6]:0<6}{zone or '+00:00'}")
    except ValueError:
        return None


def _plain(value: Any) -> Any:
    """Return a copy of a value as JSON has it: objects as dicts, times as text."""
    if isinstance(value, _Object):
        value = value.__dict__
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


class _Object:
    __slots__ = ("__dict__", "_headers")
    _headers: Mapping[str, str]

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    @classmethod
    def _take(cls, fields: dict[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        self = object.__new__(cls)
        self.__dict__ = fields
        if headers is not None:
            self._headers = headers
        return self

    @property
    def _request_id(self) -> str | None:
        """The request id of the answer that this object is; None inside one."""
        return getattr(self, "_headers", {}).get("request-id")

    @_method
    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the object's JSON, times as text."""
        return dict(_plain(self))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _plain(self) == _plain(other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


@dataclass(init=False, eq=False, repr=False)
class OpenObject(_Object):
    """An object whose fields are not declared here: one that is missing is None, one inside is another of these."""

    @classmethod
    def _take(cls, fields: Any, headers: Mapping[str, str] | None = None) -> Any:
        if isinstance(fields, list):
            return [cls._take(item) for item in fields]
        if not isinstance(fields, dict):
            return fields
        return super()._take({name: cls._take(value) for name, value in fields.items()}, headers)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return None


@dataclass(init=False, eq=False, repr=False)
class MessageBatchRequestCounts(_Object):
    """How many requests of a batch are where; the sum is always the number of requests."""

    processing: int | None = None
    succeeded: int | None = None
    errored: int | None = None
    canceled: int | None = None
    expired: int | None = None


@dataclass(init=False, eq=False, repr=False)
class MessageBatch(_Object):
    """A batch.  ``processing_status`` is ``in_progress``, ``canceling`` or ``ended``; only then it has results."""

    id: str = None  # type: ignore[assignment]
    type: str | None = None
    processing_status: str | None = None
    request_counts: MessageBatchRequestCounts | None = _nested(MessageBatchRequestCounts._take)
    created_at: datetime | None = _time()
    expires_at: datetime | None = _time()
    ended_at: datetime | None = _time()
    cancel_initiated_at: datetime | None = _time()
    archived_at: datetime | None = _time()
    results_url: str | None = None


@dataclass(init=False, eq=False, repr=False)
class DeletedMessageBatch(_Object):
    """The answer to a delete."""

    id: str | None = None
    type: str | None = None


@dataclass(init=False, eq=False, repr=False)
class ErrorResponse(_Object):
    """The error of an errored row.  It nests: ``error.error`` has the API's type, message and details."""

    type: str | None = None
    error: ErrorResponse | None = _nested(lambda fields: ErrorResponse._take(fields))
    message: str | None = None
    details: OpenObject | None = _nested(OpenObject._take)
    request_id: str | None = None


@dataclass(init=False, eq=False, repr=False)
class ContentBlock(_Object):
    """A block of a message.  ``type`` tells its other fields: ``text``, or ``name`` and ``input`` of a tool_use."""

    type: str | None = None
    citations: list[OpenObject] | None = _nested(OpenObject._take)
    caller: OpenObject | None = _nested(OpenObject._take)
    content: Any = _nested(OpenObject._take)


@dataclass(init=False, eq=False, repr=False)
class Usage(_Object):
    """The tokens of a message."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: OpenObject | None = _nested(OpenObject._take)
    server_tool_use: OpenObject | None = _nested(OpenObject._take)
    service_tier: str | None = None
    inference_geo: str | None = None
    speed: str | None = None
    output_tokens_details: OpenObject | None = _nested(OpenObject._take)


@dataclass(init=False, eq=False, repr=False)
class Message(_Object):
    """The model's answer to one request."""

    id: str | None = None
    type: str | None = None
    role: str | None = None
    model: str | None = None
    content: list[Any] | None = _nested(ContentBlock._take)
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: OpenObject | None = _nested(OpenObject._take)
    container: OpenObject | None = _nested(OpenObject._take)
    diagnostics: OpenObject | None = _nested(OpenObject._take)
    usage: Usage | None = _nested(Usage._take)


@dataclass(init=False, eq=False, repr=False)
class MessageBatchResult(_Object):
    """What became of a request: ``succeeded`` has a message, ``errored`` an error; else ``canceled``, ``expired``."""

    type: str | None = None
    message: Message | None = _nested(Message._take)
    error: ErrorResponse | None = _nested(ErrorResponse._take)


@dataclass(init=False, eq=False, repr=False)
class MessageBatchIndividualResponse(_Object):
    """A row of results.  Rows come in any order: ``custom_id`` tells whose it is."""

    custom_id: str = None  # type: ignore[assignment]
    result: MessageBatchResult = _nested(MessageBatchResult._take)


@dataclass(init=False, eq=False, repr=False)
class MessageTokensCount(_Object):
    """The answer of count_tokens."""

    input_tokens: int = None  # type: ignore[assignment]


@dataclass(init=False, eq=False, repr=False)
class ModelInfo(_Object):
    """A model.  ``capabilities.batch.supported`` says whether it can be batched."""

    id: str = None  # type: ignore[assignment]
    type: str | None = None
    display_name: str | None = None
    created_at: datetime | None = _time()
    lifecycle: str | None = None
    deprecated_at: datetime | None = _time()
    retires_at: datetime | None = _time()
    line: str | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: OpenObject | None = _nested(OpenObject._take)


# The SDK's names for what goes into create: dicts at run time there, too.
Request = MessageCreateParamsNonStreaming = dict

# ---- Pages and JSON Lines --------------------------------------------------------------------------------------


@dataclass
class PageInfo:
    """Where the next page is: the query parameters that it differs by."""

    params: dict[str, str]


@dataclass(init=False, eq=False, repr=False)
class Page(_Object):
    """A page of a list.  Iterating it gives its objects and those of all pages after it, each fetched when reached.

    Args:
        data, has_more, first_id, last_id: the API's fields.
        params: the query parameters that gave this page.
        fetch: returns the Page for other parameters.
    """

    __slots__ = ("_params", "_fetch")
    data: list[Any] = None  # type: ignore[assignment]
    has_more: bool | None = None
    first_id: str | None = None
    last_id: str | None = None

    def __init__(self, data: list[Any], has_more: bool | None = None, first_id: str | None = None,
                 last_id: str | None = None, *, params: Mapping[str, Any] | None = None,
                 fetch: Callable[[dict[str, Any]], Page] | None = None) -> None:
        self.__dict__.update(data=data, has_more=has_more, first_id=first_id, last_id=last_id)
        self._params, self._fetch = dict(params or {}), fetch

    @_method
    def next_page_info(self) -> PageInfo | None:
        """Return where the next page is, in the direction that was asked for; None without a cursor."""
        name, cursor = ("before_id", self.first_id) if self._params.get("before_id") else ("after_id", self.last_id)
        return PageInfo({name: cursor}) if cursor else None

    @_method
    def has_next_page(self) -> bool:
        """Tell whether to go on: not after ``has_more: false``, an empty page, or one without a cursor."""
        return self.has_more is not False and bool(self.data) and self.next_page_info() is not None

    @_method
    def get_next_page(self) -> Page:
        """Fetch the next page.  Raises RuntimeError on the last one, and what the request raises."""
        info = self.next_page_info() if self.has_next_page() else None
        if info is None or self._fetch is None:
            raise RuntimeError("No next page: ask has_next_page() before get_next_page()")
        if info.params.items() <= self._params.items():
            raise APIResponseValidationError(f"The list does not go on: the page after {info.params} is itself")
        return self._fetch({**self._params, **info.params})

    @_method
    def iter_pages(self) -> Iterator[Page]:
        """Yield this page and all after it.  Raises APIResponseValidationError where a cursor comes again."""
        page, seen = self, set()
        while True:
            yield page
            if not page.has_next_page():
                return
            cursor = str(page.next_page_info())
            if cursor in seen:
                raise APIResponseValidationError(f"The list goes in circles: {cursor} came before")
            seen.add(cursor)
            page = page.get_next_page()

    def __iter__(self) -> Iterator[Any]:
        for page in self.iter_pages():
            yield from page.data


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with their newlines, at a cost linear in their length.

    Split at b"\\n" alone: str.splitlines() would split at U+2028, too, which is legal inside a JSON string.
    """
    pieces: list[bytes] = []
    for block in blocks:
        for piece in io.BytesIO(block):
            if not piece.endswith(b"\n"):
                pieces.append(piece)
            elif pieces:
                yield b"".join((*pieces, piece))
                pieces.clear()
            else:
                yield piece
    if pieces:
        yield b"".join(pieces)


def iter_json_lines(blocks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the JSON of each line; blank lines, CRLF and a missing last newline are forgiven.

    Args:
        blocks: bytes, cut anywhere: the blocks of a download, or a file opened in binary mode.
    Raises:
        APIResponseValidationError: a line, named with its number from 1, is not JSON.
    Source: https://jsonlines.org
    """
    for number, line in enumerate(_lines(blocks), 1):
        if not line.isspace():
            try:
                yield json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                raise APIResponseValidationError(f"line {number} is not JSON: {error}") from None


# ---- Client ----------------------------------------------------------------------------------------------------


class _Stopwatch:
    """Counts seconds so that a laptop's sleep counts: the monotonic clock may stand still meanwhile."""

    def __init__(self) -> None:
        self._monotonic, self._wall = time.monotonic(), time.time()

    def elapsed(self) -> float:
        return max(time.monotonic() - self._monotonic, time.time() - self._wall)


class _Connection(http.client.HTTPConnection):
    """A connection that has its own timeout for connecting, and hears a refusal that comes during the upload."""

    _broken: OSError | None = None

    def connect(self) -> None:
        timeout = self.timeout
        self.timeout = CONNECT_TIMEOUT if timeout is None else min(timeout, CONNECT_TIMEOUT)
        super().connect()
        self.sock.settimeout(timeout)

    def request(self, *args: Any, **kwargs: Any) -> None:
        self.connect()  # else a failure to connect would look like one to send
        try:
            super().request(*args, **kwargs)
        except OSError as error:  # the server may have refused, 401 or 413, and closed: see getresponse
            self._broken = error
            with contextlib.suppress(OSError):
                self.sock.settimeout(ANSWER_TIMEOUT)

    def getresponse(self) -> http.client.HTTPResponse:
        try:
            return super().getresponse()
        except (OSError, http.client.HTTPException):
            if self._broken is None:
                raise
            if isinstance(self._broken, socket.timeout):
                raise self._broken from None
            words = "the server closed during the upload; a wrong key or too large a body may be why"
            raise ConnectionAbortedError(f"{words} ({self._broken})") from self._broken


class _TLSConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS."""


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        request.unredirected_hdrs.pop("Content-type", None)  # urllib's own, where the caller wants none
        return self.do_open(_Connection, request)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        request.unredirected_hdrs.pop("Content-type", None)
        return self.do_open(_TLSConnection, request, context=self._context)  # type: ignore[attr-defined]


class _Transport:
    """urllib's opener with http and https alone, built at the first request because that takes a while.

    No redirect is followed: urllib would take the key along to any host (python/cpython#77842).  There is no
    file: and no ftp:, and an answer of any status is an answer.
    """

    def __init__(self, context: ssl.SSLContext | None, base_url: str) -> None:
        self._context, self._has_tls = context, base_url.startswith("https:")
        host = urllib.parse.urlsplit(base_url).hostname or ""
        # with http_proxy set, urllib would send even 127.0.0.1 to the proxy
        self._proxies: dict[str, str] | None = {} if host in ("localhost", "::1") or host.startswith("127.") else None
        self._director: urllib.request.OpenerDirector | None = None

    def open(self, request: urllib.request.Request, timeout: float | None) -> Any:
        if self._director is None:
            director = urllib.request.OpenerDirector()
            director.add_handler(urllib.request.ProxyHandler(self._proxies))
            director.add_handler(urllib.request.UnknownHandler())
            director.add_handler(_HTTPHandler())
            if self._has_tls:  # its context is what takes a while
                director.add_handler(_HTTPSHandler(context=self._context or ssl.create_default_context()))
            self._director = director
        return self._director.open(request, timeout=timeout)


@dataclass
class _Call:
    """One request, ready to be sent as often as it takes."""

    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes | _Body | None
    timeout: float | None

    def __str__(self) -> str:  # for messages: a query may hold a gateway's key
        return f"{self.method} {self.url.partition('?')[0]}"


# OSError from sockets, TLS and urllib; ValueError from http.client for a chunk's size that is no number;
# EOFError and zlib.error where gzip is cut or none
_TRANSPORT_ERRORS = (OSError, http.client.HTTPException, ValueError, EOFError, zlib.error)


def _connection_error(call: _Call, error: Exception) -> APIConnectionError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.timeout):
        return APITimeoutError(f"Request timed out ({call})")
    if isinstance(reason, ssl.SSLCertVerificationError):
        advice = "to trust a company's own CA, set SSL_CERT_FILE or pass ssl_context"
        return APIConnectionError(f"The certificate is not trusted: {reason.verify_message} ({call}); {advice}")
    return APIConnectionError(f"Connection error: {str(reason) or type(reason).__name__} ({call})")


def _status_error(call: _Call, status: int, headers: Mapping[str, str], raw: bytes) -> APIStatusError:
    """Return the error that an answer calls for; a key that the answer repeats is masked."""
    text = raw.decode("utf-8", "replace").strip()
    for secret in (call.headers.get(name, "").rpartition(" ")[2] for name in _SECRET_HEADERS):
        if len(secret) > 7:  # a shorter one is none, but may be a word
            text = text.replace(secret, "***")
            headers = {name: value.replace(secret, "***") for name, value in headers.items()}
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    kind = _STATUS_ERRORS.get(status, InternalServerError if status >= 500 else APIStatusError)
    error = kind("", status_code=status, headers=headers, body=body)
    words = f"{error.type}: {error.api_message}" if error.type else " ".join(text.split())[:200]
    if 300 <= status < 400:
        words = f"a redirect to {headers.get('location', 'nowhere')}, not followed because the key stays with base_url"
    request_id = f" (request id {error.request_id})" if error.request_id else ""
    error.message = f"Error code: {status} - {words}{request_id} ({call})"
    error.args = (error.message,)
    return error


def _headers_of(response: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _read_blocks(response: Any) -> Iterator[bytes]:
    """Yield the body in large blocks.  Raises where it ends before its announced end.

    Not by lines: readline() ends quietly where the connection is cut at a line's end (python/cpython#115997).
    """
    read = getattr(response, "read1", response.read)
    yield from iter(lambda: read(BLOCK), b"")
    if getattr(response, "length", None):
        raise http.client.IncompleteRead(b"", response.length)


def _gunzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Undo gzip, at most BLOCK bytes at a time.  Raises EOFError where it ends before its own end."""
    member = zlib.decompressobj(31)
    for block in blocks:
        while block:
            if member.eof:
                member = zlib.decompressobj(31)
            yield member.decompress(block, BLOCK)
            block = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        raise EOFError("gzip ended early")


def _body_blocks(call: _Call, response: Any) -> Iterator[bytes]:
    """Yield the body's blocks, gzip undone.  Raises APIConnectionError where it is torn."""
    is_gzip = _headers_of(response).get("content-encoding", "").lower() in ("gzip", "x-gzip")
    try:
        yield from _gunzip(_read_blocks(response)) if is_gzip else _read_blocks(response)
    except _TRANSPORT_ERRORS as error:
        raise _connection_error(call, error) from error


def _read_json(call: _Call, response: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the answer's JSON object and headers.  Raises APIConnectionError where there is none."""
    headers = _headers_of(response)
    with contextlib.closing(response):
        raw = b"".join(_body_blocks(call, response))
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise APIConnectionError(f"The answer is not the API's JSON, but {len(raw)} bytes of something else ({call})")
    return fields, headers


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError):  # TypeError before 3.10
        return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the answer asks for, as milliseconds, seconds or a date; None if none or past."""
    moment = _http_date(headers.get("retry-after"))
    asked = moment.timestamp() - time.time() if moment else 0.0
    for name, unit in (("retry-after", 1), ("retry-after-ms", 1000)):
        with contextlib.suppress(KeyError, ValueError):
            asked = float(headers[name]) / unit
    return min(asked, 4_294_967.0) if asked > 0 else None  # what time.sleep takes everywhere


def _backoff(failures: int) -> float:
    """Return the SDK's seconds after so many failures in a row: 0.5, doubled up to 8, less up to a quarter."""
    return min(0.5 * 2.0 ** min(failures - 1, 10), 8.0) * (1 - 0.25 * random.random())


def _is_refused(error: APIError) -> bool:
    """Tell whether the API, or a gateway before it, said that it made no batch."""
    status = error.status_code or 0
    return 300 <= status < 500 or (status in (503, 529) and error._is_api_form)


def _is_transient(error: APIError) -> bool:
    """Tell whether the same request may succeed later: all that the SDK retries, but certificates."""
    if isinstance(error, APIConnectionError):
        cause = error.__cause__
        reason = cause.reason if isinstance(cause, urllib.error.URLError) else cause
        return not isinstance(reason, ssl.SSLCertVerificationError)
    status = error.status_code or 0
    return status in (408, 409, 429) or status >= 500


def _may_repeat(error: APIError, body: bytes | _Body | None) -> bool:
    """Tell whether to send the request again.

    All that make nothing by the SDK's rule.  A create only if no batch can have come of it, because the server
    said so, or because its body had not gone out whole when it failed, whichever exception came.
    """
    should = error.headers.get("x-should-retry")
    if not isinstance(body, _Body):
        return should == "true" or (should != "false" and _is_transient(error))
    if should == "false" or not _is_transient(error):
        return False
    if _is_refused(error):
        return error.status_code == 429 or error._is_api_form
    return not body.is_sent


def _jsonable(value: Any) -> Any:
    """Return what the SDK sends for a value that json does not know."""
    if isinstance(value, (_Object, datetime)):
        return _plain(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (Sequence, Set, Iterator)) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_decoder = json.JSONDecoder()
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_jsonable)


def _encode_json(value: Any) -> bytes:
    """Return compact UTF-8 JSON.  Raises InvalidRequestsError with the reason where there is none."""
    try:
        return _encoder.encode(value).encode()
    except UnicodeEncodeError:
        raise InvalidRequestsError("it holds half of a surrogate pair, which the API refuses") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestsError(f"it is not JSON: {error}") from None


def _encode_request(request: Any, seen: set[str]) -> bytes:
    """Return a request as it is sent, and add its custom_id to ``seen``.  Raises ValueError with the broken rule."""
    if not isinstance(request, Mapping):
        raise ValueError("a request must be an object with custom_id and params")
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
        raise ValueError("custom_id must be 1 to 64 of the characters a-z, A-Z, 0-9, _ and -")
    if custom_id in seen:
        raise ValueError("custom_id must be unique, and this one came before")
    if not isinstance(request.get("params"), Mapping):
        raise ValueError("params must be an object")
    for key in set(request) - {"custom_id", "params"}:
        raise ValueError(f"no key but custom_id and params is allowed, and it has {key!r}")
    encoded = _encode_json(request)
    seen.add(custom_id)
    return encoded


class _Body:
    """The body of a create: checked and encoded once into a temporary file, sent from there as often as it takes.

    ``is_sent`` tells whether the last iteration came to its end: only then may a batch have come of it.
    ``before_last_block`` is called when all but the last block has been sent.
    """

    def __init__(self, requests: Iterable[Any], extra: Mapping[str, Any] | None = None,
                 before_last_block: Callable[[], None] = lambda: None) -> None:
        self._before_last_block = before_last_block
        self.count = self.size = 0
        self.is_sent = False
        self.started = _Stopwatch()
        with self._room():
            self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)
        try:
            self._spool(requests, dict(extra or {}))
        except BaseException:
            self.close()
            raise

    def _spool(self, requests: Iterable[Any], extra: dict[str, Any]) -> None:
        if "requests" in extra:
            raise InvalidRequestsError("extra_body must not hold requests: give them as requests")
        if not hasattr(requests, "__iter__"):
            raise InvalidRequestsError("requests must be an iterable of objects with custom_id and params")
        seen: set[str] = set()
        tail = b"]," + _encode_json(extra)[1:] if extra else b"]}"
        self._write(b'{"requests":[')
        for index, request in enumerate(requests):
            try:
                encoded = _encode_request(request, seen)
                if index >= MAX_BATCH_REQUESTS:
                    raise ValueError(f"a batch takes at most {MAX_BATCH_REQUESTS:,} requests")
                if self.size + len(encoded) + (index > 0) + len(tail) > MAX_BATCH_BYTES:
                    raise ValueError(f"with this request the batch has more than {MAX_BATCH_BYTES:,} bytes")
            except ValueError as error:
                custom_id = request.get("custom_id") if isinstance(request, Mapping) else None
                raise InvalidRequestsError(f"requests[{index}] (custom_id {custom_id!r}): {error}") from None
            self._write(b"," + encoded if index else encoded)
        self._write(tail)
        self.count = len(seen)
        if not seen:
            raise InvalidRequestsError("requests must hold at least one request")

    def _write(self, block: bytes) -> None:
        self.size += len(block)
        with self._room():
            self._file.write(block)

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            folder = tempfile.tempdir or "any folder for temporary files"
            advice = "set TMPDIR to a folder that takes all requests"
            raise AnthropicError(f"No room for the requests in {folder}: {error}; {advice}") from error

    def __iter__(self) -> Iterator[bytes]:
        self.is_sent, self.started = False, _Stopwatch()
        left = self.size
        with self._room():
            self._file.seek(0)
        while left > 0:
            if left <= BLOCK:
                self._before_last_block()
            with self._room():
                block = self._file.read(BLOCK)
            if not block:
                raise AnthropicError("The temporary file of the requests was cut by someone; no batch was made")
            left -= len(block)
            yield block
        self.is_sent = True

    def close(self) -> None:
        self._file.close()


_SECRET_HEADERS = ("authorization", "x-api-key")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATH_SAFE = "!$&'()*+,;=:@"  # what the SDK leaves as it is in a segment of a path
_CLIENTS_OWN: Any = object()  # the timeout of a call that is given none


def _segment(name: str, value: str) -> str:
    """Return an id as a segment of a path.  Raises InvalidRequestsError where it is empty, or climbs."""
    if not value:
        raise InvalidRequestsError(f"Expected a non-empty value for `{name}` but received {value!r}")
    if str(value).partition(";")[0] in ("", ".", ".."):  # some servers drop ";" and what follows
        raise InvalidRequestsError(f"`{name}` must not be {value!r}, which would change the path")
    try:
        return urllib.parse.quote(str(value), safe=_PATH_SAFE)
    except UnicodeEncodeError:
        raise InvalidRequestsError(f"`{name}` holds half of a surrogate pair: {value!r}") from None


def _query_pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a query parameter as the SDK writes them: None is dropped, a list repeated as ``name[]``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _query_pairs(f"{name}[{key}]", item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _query_pairs(f"{name}[]", item)
    elif value is not None:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def _checked_base_url(url: str) -> str:
    """Return base_url without its last slash.  Raises InvalidRequestsError where no key should go there."""
    if not (isinstance(url, str) and url.isascii() and url.isprintable() and " " not in url):
        raise InvalidRequestsError("base_url must be a text without spaces and non-ASCII characters")
    try:
        parts = urllib.parse.urlsplit(url)
        labels = (parts.hostname or "").rstrip(".").split(".")
        _ = parts.port  # raises where it is no number
    except ValueError:
        raise InvalidRequestsError("base_url must name a host, and a port only as a number") from None
    if "@" in parts.netloc:
        raise InvalidRequestsError("base_url must not hold user:password; give them as a header")
    is_host = all(0 < len(label) < 64 for label in labels)
    if parts.scheme not in ("http", "https") or not is_host or parts.query or parts.fragment:
        raise InvalidRequestsError(f"base_url must be http(s)://host[:port][/path], not {url!r}")
    return url.rstrip("/")


def _checked_timeout(seconds: float | None) -> float | None:
    if seconds is None or (isinstance(seconds, (int, float)) and 0 < seconds < 1e9):
        return seconds
    raise InvalidRequestsError(f"timeout must be None or more than 0 seconds, not {seconds!r}")


def _lower(headers: Headers | None) -> dict[str, str | None]:
    return {name.lower(): value for name, value in (headers or {}).items()}


class Anthropic:
    """A client of the API.

    Args:
        api_key: the key, else ANTHROPIC_API_KEY, else ANTHROPIC_AUTH_TOKEN; an empty variable is an unset one.
        auth_token: a token instead of a key; either goes out as ``Authorization: Bearer``.
        base_url: else ANTHROPIC_BASE_URL, else https://api.anthropic.com.  The key goes to this origin and nowhere
            else: no redirect is followed, and a results_url elsewhere is read through base_url.
        timeout: seconds for one read or write, more than 0, or None; connecting takes at most 10 in any case.
        max_retries: how often a request is repeated, 0 or more; a create only if no batch can have come of it.
        default_headers: headers of every request, before those of ANTHROPIC_CUSTOM_HEADERS (lines of
            ``Name: value``).  None leaves a header out; Authorization or x-api-key here is a credential, too.
        default_query: query parameters of every request.
        ssl_context: to trust a company's own CA, for instance; SSL_CERT_FILE works, too.
        opener: anything with ``open(request, timeout=…)`` as in urllib, for tests and special transports.
            Redirects, proxies, connecting, and answers during the upload are then its own affair.
    Raises:
        InvalidRequestsError: an argument cannot work.  Without a credential, the first request raises
            AnthropicError.

    Every method also takes ``**options``: extra_headers, extra_query, extra_body (for requests that have a body),
    timeout (seconds, instead of the client's) and workspace_id; and raises APIStatusError or APIConnectionError.
    One client may serve several threads.
    """

    def __init__(self, *, api_key: str | None = None, auth_token: str | None = None, base_url: str | None = None,
                 timeout: float | None = TIMEOUT, max_retries: int = MAX_RETRIES,
                 default_headers: Headers | None = None, default_query: Mapping[str, Any] | None = None,
                 ssl_context: ssl.SSLContext | None = None, opener: Any = None) -> None:
        if api_key is not None and auth_token is not None:
            raise InvalidRequestsError("Give api_key or auth_token, not both")
        if not isinstance(max_retries, int) or max_retries < 0:
            raise InvalidRequestsError(f"max_retries must be 0 or more, not {max_retries!r}")
        if api_key is None and auth_token is None:
            api_key = os.environ.get("ANTHROPIC_API_KEY", "").strip() or None
            auth_token = None if api_key else os.environ.get("ANTHROPIC_AUTH_TOKEN")
        lines = (line.partition(":") for line in os.environ.get("ANTHROPIC_CUSTOM_HEADERS", "").split("\n"))
        from_env = {name.strip(): value.strip() for name, colon, value in lines if colon}
        self.api_key = api_key and api_key.strip()
        self.auth_token = auth_token and auth_token.strip()
        self.base_url = _checked_base_url(base_url or os.environ.get("ANTHROPIC_BASE_URL") or BASE_URL)
        self.timeout = _checked_timeout(timeout)
        self.max_retries = max_retries
        self.default_headers = {**_lower(from_env), **_lower(default_headers)}
        self.default_query = dict(default_query or {})
        self.ssl_context = ssl_context
        self._opener = opener or _Transport(ssl_context, self.base_url)
        self.messages = Messages(self)
        self.models = Models(self)

    def __repr__(self) -> str:
        return f"Anthropic(base_url={self.base_url!r})"

    def with_options(self, **changes: Any) -> Anthropic:
        """Return a client that differs in the given arguments of the constructor; headers and query are added."""
        options = {name: getattr(self, name) for name in ("base_url", "timeout", "max_retries", "ssl_context")}
        options.update(changes)
        for name in ("default_headers", "default_query"):
            options[name] = {**getattr(self, name), **(changes.get(name) or {})}
        if changes.get("api_key") is None and changes.get("auth_token") is None:
            options.update({"auth_token": self.auth_token} if self.api_key is None else {"api_key": self.api_key})
        if not isinstance(self._opener, _Transport) or not changes.keys() & {"base_url", "ssl_context"}:
            options.setdefault("opener", self._opener)
        return Anthropic(**options)

    def close(self) -> None:
        """Do nothing, for the SDK's sake: each call closes its own connection."""

    def __enter__(self) -> Anthropic:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _prepare(self, method: str, path: str, *, query: Mapping[str, Any] | None = None,
                 headers: Headers | None = None, body: Mapping[str, Any] | _Body | None = None,
                 extra_headers: Headers | None = None, extra_query: Mapping[str, Any] | None = None,
                 extra_body: Mapping[str, Any] | None = None, timeout: float | None = _CLIENTS_OWN,
                 workspace_id: str | None = None) -> _Call:
        """Return the call of a request to a path below base_url, or a URL.  Raises before anything is sent."""
        own: dict[str, str | None] = {
            "accept": "application/json", "user-agent": USER_AGENT, "anthropic-version": API_VERSION,
        }
        data: bytes | _Body | None = body if isinstance(body, _Body) else None
        if method != "GET":
            own["content-type"] = "application/json"
        if isinstance(body, _Body):
            own["content-length"] = str(body.size)
        elif method != "GET" and (body or extra_body):
            data = _encode_json({**(body or {}), **(extra_body or {})})
        given = {} if workspace_id is None else {"anthropic-workspace-id": workspace_id}
        merged = self._merge_headers(own, self.default_headers, headers, given, extra_headers)
        url = path if path.startswith("http") else self.base_url + path
        params = {**self.default_query, **(query or {}), **(extra_query or {})}
        pairs = [pair for name, value in params.items() for pair in _query_pairs(name, value)]
        if pairs:
            try:
                url += ("&" if "?" in url else "?") + urllib.parse.urlencode(pairs, quote_via=urllib.parse.quote)
            except UnicodeEncodeError:
                raise InvalidRequestsError("A query parameter holds half of a surrogate pair") from None
        return _Call(method, url, merged, data, self.timeout if timeout is _CLIENTS_OWN else _checked_timeout(timeout))

    def _merge_headers(self, own: dict[str, str | None], *layers: Headers | None) -> dict[str, str]:
        """Return the headers of all layers, the later ones winning.  Raises where one cannot be sent."""
        credential = self.api_key or self.auth_token
        if credential:
            own["authorization"] = f"Bearer {credential}"
        for layer in layers:
            own.update(_lower(layer))
        if own.get("authorization", "") == "" and not own.get("x-api-key"):  # None: the caller wants none sent
            raise AnthropicError("No credential: set the variable ANTHROPIC_API_KEY, or give Anthropic() an api_key")
        headers = {name: str(value) for name, value in own.items() if value is not None}
        for name, value in headers.items():  # http.client's own error would show the value, and so the key
            is_legal = _HEADER_NAME.fullmatch(name) and value.replace("\t", " ").isprintable()
            if not is_legal or (name in _SECRET_HEADERS and not value.isascii()):
                raise InvalidRequestsError(f"The header {name!r} (its value is not shown) has an illegal character")
            headers[name] = value.encode().decode("latin-1")  # UTF-8 on the wire, as from the SDK
        return headers

    def _send(self, call: _Call, read: Callable[[_Call, Any], T]) -> T:
        """Return what ``read`` makes of the answer, after as many retries as it takes and may take."""
        for failures in itertools.count(1):
            try:
                return read(call, self._open(call, failures - 1))
            except APIError as error:
                if failures > self.max_retries or not _may_repeat(error, call.body):
                    raise
                self._pause(call, error, failures)
        raise AssertionError

    def _open(self, call: _Call, retries: int = 0) -> Any:
        """Send a call once and return its response, the body not read yet.  Raises APIError unless it is 2xx."""
        if isinstance(call.body, _Body):
            call.body.is_sent = False  # of this try: one that finds no connection does not even begin it
        request = urllib.request.Request(call.url, call.body, method=call.method)
        for name, value in call.headers.items():
            if name in _SECRET_HEADERS:  # which an opener of the caller's must not take along on a redirect
                request.add_unredirected_header(name, value)
            else:
                request.add_header(name, value)
        if retries:
            request.add_header("x-stainless-retry-count", str(retries))
        try:
            response = self._opener.open(request, timeout=call.timeout)
        except urllib.error.HTTPError as error:  # ours raises none, an opener of the caller's may
            response = error
        except _TRANSPORT_ERRORS as error:
            raise _connection_error(call, error) from error
        status = getattr(response, "status", None) or response.getcode()
        if 200 <= status < 300:
            return response
        raw = b""
        with contextlib.closing(response), contextlib.suppress(APIConnectionError):  # torn: the status says enough
            for block in _body_blocks(call, response):
                raw += block
                if len(raw) > BLOCK:
                    break
        raise _status_error(call, status, _headers_of(response), raw)

    def _pause(self, call: _Call, error: APIError, failures: int) -> None:
        """Sleep before the next try, for as long as the answer asks, and log why at debug level."""
        import logging  # not before it is needed: it takes a while

        seconds = _retry_after(error.headers) or _backoff(failures)
        logging.getLogger("claude_batches").debug("retry %d of %s in %.2f s: %s", failures, call, seconds, error)
        time.sleep(seconds)

    def _take(self, kind: type[T], call: _Call) -> T:
        """Send a call and return the answer as an object of the class ``kind``."""
        return kind._take(*self._send(call, _read_json))  # type: ignore[attr-defined, no-any-return]

    def _fetch(self, kind: type[T], method: str, path: str, **options: Any) -> T:
        return self._take(kind, self._prepare(method, path, **options))

    def _fetch_page(self, kind: Any, path: str, query: dict[str, Any], **options: Any) -> Page:
        """Return a page of objects of the class ``kind``."""
        query = {name: value for name, value in query.items() if value is not None}
        query.update(options.pop("extra_query", None) or {})  # now, so that a later cursor wins over it
        page = self._fetch(Page, "GET", path, query=query, **options)
        if "data" in page.__dict__ and page.data is None:  # a gateway's empty list
            page.data = []
        if not isinstance(page.data, list) or not all(isinstance(row, dict) for row in page.data):
            raise APIResponseValidationError(f"The answer is no list of objects (GET {path})")
        page.data = [kind._take(row) for row in page.data]
        page._params, page._fetch = query, lambda params: self._fetch_page(kind, path, params, **options)
        return page


# ---- Resources -------------------------------------------------------------------------------------------------


class Messages:
    """``client.messages``: the batches, and token counting."""

    def __init__(self, client: Anthropic) -> None:
        self._client = client
        self.batches = Batches(client)

    def count_tokens(self, *, model: str, messages: Iterable[Any], user_profile_id: str | None = None,
                     **more: Any) -> MessageTokensCount:
        """Count the tokens of a message's input, free of charge.

        Args:
            model: the model's id, or an alias.
            messages: the conversation, as in a request's params.
            user_profile_id: on whose behalf.
            more: of system, tools, tool_choice, thinking, cache_control, output_config and speed what the message
                has (the API refuses any other, max_tokens too); and the options of every method.
        Source: API reference, Count tokens in a Message.
        """
        names = ("extra_headers", "extra_query", "extra_body", "timeout", "workspace_id")
        options = {name: more.pop(name) for name in names if name in more}
        body = {"messages": messages, "model": model, **more}
        return self._client._fetch(MessageTokensCount, "POST", "/v1/messages/count_tokens", body=body,
                                   headers=_profile(user_profile_id), **options)


def _profile(user_profile_id: str | None) -> Headers:
    return {} if user_profile_id is None else {"anthropic-user-profile-id": user_profile_id}


class Batches:
    """``client.messages.batches``: the Message Batches API."""

    _path = "/v1/messages/batches"

    def __init__(self, client: Anthropic) -> None:
        self._client = client

    def _url(self, message_batch_id: str) -> str:
        return f"{self._path}/{_segment('message_batch_id', message_batch_id)}"

    def create(self, *, requests: Iterable[Any], user_profile_id: str | None = None, **options: Any) -> MessageBatch:
        """Make a batch, once.

        Args:
            requests: 1 to 100,000 objects ``{"custom_id", "params"}``, at most 256,000,000 bytes in all; any
                iterable.  custom_id: 1 to 64 of ``a-z A-Z 0-9 _ -``, unique in the batch.  params: a message's.
                Each is checked, and encoded into a temporary file, before anything is sent.
            user_profile_id: on whose behalf.
        Raises:
            InvalidRequestsError: a request breaks a rule; it is named with its index and custom_id.
            BatchMayExistError: the answer was lost after the whole body went out.  Look before you create again.
            APIError: no batch was made.  What the iterable raises comes through unchanged.
        Source: API reference, Create a Message Batch.
        """
        return self._create(requests, headers=_profile(user_profile_id), **options)

    def _create(self, requests: Iterable[Any], before_last_block: Callable[[], None] = lambda: None,
                extra_body: Mapping[str, Any] | None = None, **options: Any) -> MessageBatch:
        with contextlib.closing(_Body(requests, extra_body, before_last_block)) as body:
            call = self._client._prepare("POST", self._path, body=body, **options)
            try:
                batch = self._client._take(MessageBatch, call)
                if not isinstance(batch.id, str) or not batch.id:
                    raise APIConnectionError(f"The answer is no batch: it has no id ({call})")
                return batch
            except APIError as error:
                if _is_refused(error) or not body.is_sent:
                    raise
                raise self._may_exist(error, body, options) from error

    def _may_exist(self, error: APIError, body: _Body, options: Mapping[str, Any]) -> BatchMayExistError:
        """Return the error of a create whose answer was lost, with what one look at the list shows."""
        sent_at, candidates, found = None, None, "the look for it failed"
        try:
            sent_at, candidates = self._look(body, options)
            names = ", ".join(str(batch.id) for batch in candidates) or "none, which proves nothing"
            found = f"batches of that size made since then: {names}"
        except APIError:
            pass  # candidates stay None; the error to tell is the create's
        return BatchMayExistError(
            f"The answer to a create of {body.count} requests was lost; the batch may exist, and be billed; {found}. "
            f"Look before you create it again. {error}",
            request_count=body.count, sent_at=sent_at, candidates=candidates,
        )

    def _look(self, body: _Body, options: Mapping[str, Any]) -> tuple[datetime, list[MessageBatch]]:
        """Return when the body was sent, by the server's clock, and the batches of its size made since."""
        watch, batches = _Stopwatch(), self._client.with_options(max_retries=0).messages.batches
        options = {name: options[name] for name in ("extra_headers", "workspace_id") if name in options}
        found: list[MessageBatch] = []
        after_id = None
        while watch.elapsed() < LOOK_SECONDS:
            page = batches.list(after_id=after_id, limit=100, timeout=LOOK_SECONDS - watch.elapsed(), **options)
            now = _http_date(page._headers.get("date"))
            if now is None:
                raise APIResponseValidationError("The list has no Date")
            sent_at = now - timedelta(seconds=body.started.elapsed())
            for batch in page.data:
                if batch.created_at and batch.created_at < sent_at - CLOCK_SLACK:
                    return sent_at, found
                if _size(batch) in (body.count, None):
                    found.append(batch)
            if not page.has_next_page():
                return sent_at, found
            after_id = page.last_id
        raise APITimeoutError("The look took too long")

    def retrieve(self, message_batch_id: str, **options: Any) -> MessageBatch:
        """Return a batch as it is now.

        Raises:
            NotFoundError: there is none of this id; right after its create that may be wrong for a second or two.
            ValueError: the id is empty.
        Source: API reference, Retrieve a Message Batch.
        """
        return self._client._fetch(MessageBatch, "GET", self._url(message_batch_id), **options)

    def list(self, *, after_id: str | None = None, before_id: str | None = None, limit: int | None = None,
             **options: Any) -> Page:
        """List the batches of the workspace, newest first.

        Args:
            after_id: give the page right after this batch.
            before_id: give the page right before it; iterating then goes towards the newer ones.
            limit: batches a page, 1 to 1000; the API's default is 20.
        Returns:
            The first Page; iterating it gives all batches, page after page.
        Source: API reference, List Message Batches.
        """
        query = {"after_id": after_id, "before_id": before_id, "limit": limit}
        return self._client._fetch_page(MessageBatch, self._path, query, **options)

    def cancel(self, message_batch_id: str, **options: Any) -> MessageBatch:
        """End a running batch early: it is ``canceling``, then ``ended``; what was under way may still succeed.

        Raises as retrieve.  Source: API reference, Cancel a Message Batch.
        """
        return self._client._fetch(MessageBatch, "POST", self._url(message_batch_id) + "/cancel", **options)

    def delete(self, message_batch_id: str, **options: Any) -> DeletedMessageBatch:
        """Delete an ended batch and its results; for a running one the API answers 400 (cancel it first).

        Raises as retrieve.  Source: API reference, Delete a Message Batch.
        """
        return self._client._fetch(DeletedMessageBatch, "DELETE", self._url(message_batch_id), **options)

    def results(self, message_batch_id: str, **options: Any) -> Results:
        """Download the results of an ended batch, row by row; a lost connection is opened again.

        Returns:
            Results, an iterator of MessageBatchIndividualResponse in any order, each once.
        Raises:
            AnthropicError: at the call, if the batch has no results (yet).
            IncompleteResultsError: while iterating, if rows stay missing after max_retries without a new one.
            APIResponseValidationError: while iterating, for a row that is not JSON or has no custom_id.
        Source: API reference, Retrieve Message Batch results.
        """
        return Results(self._download(message_batch_id, **options))

    def _download(self, message_batch_id: str, **options: Any) -> _Download:
        kept = {name: options[name] for name in ("timeout", "workspace_id") if name in options}
        batch = self.retrieve(message_batch_id, **kept)
        if not isinstance(batch.results_url, str) or not batch.results_url:
            status = "ended, and archived" if batch.archived_at else batch.processing_status
            raise AnthropicError(f"No results_url for batch {message_batch_id}: its status is {status}")
        headers = {"accept": "application/binary", "accept-encoding": "gzip"}
        call = self._client._prepare("GET", self._at_home(batch.results_url), headers=headers, **options)
        return _Download(self._client, call, message_batch_id, _size(batch))

    def _at_home(self, url: str) -> str:
        """Return a results_url at base_url's origin: behind a gateway it may name a host that must not get the key."""
        try:
            base, parts = (urllib.parse.urlsplit(text) for text in (self._client.base_url, url))
            path = urllib.parse.quote("/" + parts.path.lstrip("/"), safe="/%" + _PATH_SAFE)
            query = "?" + urllib.parse.quote(parts.query, safe="/%?" + _PATH_SAFE) if parts.query else ""
        except ValueError:
            raise APIResponseValidationError(f"The batch's results_url is no URL: {url!r}") from None
        if parts[:2] != base[:2] and not path.startswith(base.path + "/"):
            path = base.path + path
        return f"{base.scheme}://{base.netloc}{path}{query}"

    def wait(self, message_batch_id: str, *, poll_interval: float | None = None, timeout: float | None = None,
             on_poll: Callable[[MessageBatch], object] | None = None, **options: Any) -> MessageBatch:
        """Poll until the batch has ended, through lost connections, 429 and 5xx, and for 30 s through 404.

        Args:
            poll_interval: seconds between polls; else what the API asks for, kept within 1 to 60; else 5, growing
                to 60.
            timeout: seconds for the whole wait, more than 0; None: as long as it takes.
            on_poll: called with each MessageBatch that came.
        Returns:
            The ended MessageBatch.
        Raises:
            WaitTimeoutError: the timeout is over.
            APIStatusError: an answer that waiting does not mend, such as 401, 403, or a 404 that stays.
        """
        _checked_timeout(timeout)
        polls, watch, batch = _Polls(self, message_batch_id, poll_interval, options), _Stopwatch(), None
        while timeout is None or watch.elapsed() < timeout:
            outcome = polls.poll(None if timeout is None else max(timeout - watch.elapsed(), 0.001))
            if isinstance(outcome, MessageBatch):
                batch = outcome
                if on_poll:
                    on_poll(batch)
                if batch.processing_status == "ended":
                    return batch
            left = polls.delay if timeout is None else timeout - watch.elapsed()
            time.sleep(max(0.0, min(polls.delay, left)))
        raise WaitTimeoutError(f"Batch {message_batch_id} has not ended within {timeout:g} s; it goes on", batch)


def _size(batch: MessageBatch) -> int | None:
    """Return how many requests a batch has, None where it does not tell."""
    counts = batch.request_counts
    values = counts.__dict__.values() if isinstance(counts, MessageBatchRequestCounts) else ()
    return sum(count for count in values if isinstance(count, int)) or None


class _Polls:
    """The polls of one batch: which failures to wait through, and how long to sleep (``delay``) until the next."""

    def __init__(self, batches: Batches, batch_id: str, interval: float | None, options: Mapping[str, Any]) -> None:
        self._client = batches._client.with_options(max_retries=0)
        self._batch_id, self._interval, self._options = batch_id, interval, options
        self._known = _Stopwatch()  # since the last success, or the start
        self._grown = POLL_SECONDS[1]
        self.delay = 0.0

    def poll(self, left: float | None = None) -> MessageBatch | APIError:
        """Return the batch, or the failure to wait through; no read takes longer than ``left``.  Raises others."""
        timeout = min(seconds for seconds in (POLL_SECONDS[2], left, self._client.timeout) if seconds is not None)
        outcome: Any
        try:
            outcome = self._client.messages.batches.retrieve(self._batch_id, timeout=timeout, **self._options)
            self._known, headers = _Stopwatch(), outcome._headers
        except APIError as error:
            is_fresh = isinstance(error, NotFoundError) and self._known.elapsed() < NOT_FOUND_SECONDS
            if not is_fresh and not _is_transient(error):
                raise
            outcome, headers = error, error.headers
        least, _, longest = POLL_SECONDS
        asked = _retry_after(headers)
        if self._interval is not None:
            self.delay = self._interval
        elif asked is not None:
            self.delay = min(max(asked, least), longest)
        else:
            self.delay, self._grown = self._grown, min(1.5 * self._grown, longest)
        return outcome  # type: ignore[no-any-return]


class _Download:
    """The rows of one ended batch, over as many connections as it takes; the first is opened at once."""

    def __init__(self, client: Anthropic, call: _Call, batch_id: str, expected: int | None) -> None:
        self._client, self._call, self._batch_id, self._expected = client, call, batch_id, expected
        self._response = client._send(call, lambda call, response: response)

    def rows(self, seen: set[str]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield line and JSON of each row whose custom_id is not in ``seen``, and add it there."""
        failures = 0
        with contextlib.closing(self):
            while True:
                try:
                    for line in _lines(_body_blocks(self._call, self._response)):
                        if line.isspace():
                            continue
                        row = self._decode(line, len(seen))
                        custom_id = row["custom_id"]
                        if custom_id not in seen:
                            seen.add(custom_id)
                            failures = 0
                            yield line, row
                    if self._is_whole(len(seen)):
                        return
                    lost: APIError = APIConnectionError(f"The results ended early ({self._call})")
                except APIConnectionError as error:
                    lost = error
                self.close()
                failures = self._reopen(lost, failures, len(seen))

    def _decode(self, line: bytes, received: int) -> dict[str, Any]:
        try:
            text = line.decode().strip()
            row, end = _decoder.raw_decode(text)  # decode() would search for white space twice
            row = row if end == len(text) else None
        except (ValueError, RecursionError):
            row = None
            if not line.endswith(b"\n"):
                raise APIConnectionError(f"The results ended inside a row ({self._call})") from None
        if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
            words = f"a row of {len(line)} bytes, after {received} good ones, is not JSON with a custom_id"
            raise APIResponseValidationError(f"Batch {self._batch_id}: {words}")
        return row

    def _is_whole(self, received: int) -> bool:
        if self._expected and received > self._expected:
            raise APIResponseValidationError(f"Batch {self._batch_id}: {received} rows for {self._expected} requests")
        return received >= (self._expected or 1)  # a batch that tells no counts has at least one

    def _reopen(self, lost: APIError, failures: int, received: int) -> int:
        """Open the results again and return the failures so far.  Raises IncompleteResultsError after too many."""
        while True:
            failures += 1
            is_final = isinstance(lost, (AuthenticationError, PermissionDeniedError, NotFoundError))
            if failures > self._client.max_retries or is_final or not _may_repeat(lost, None):
                raise IncompleteResultsError(
                    f"Batch {self._batch_id}: {received} of {self._expected or '?'} rows came; then: {lost}",
                    expected=self._expected, received=received) from lost
            self._client._pause(self._call, lost, failures)
            try:
                self._response = self._client._open(self._call, failures)
                return failures
            except APIError as error:
                lost = error

    def close(self) -> None:
        self._response.close()


class Results:
    """The rows of a batch, an iterator of MessageBatchIndividualResponse; it holds a connection until its end."""

    def __init__(self, download: _Download) -> None:
        self._download = download
        self._rows = (MessageBatchIndividualResponse._take(row) for _, row in download.rows(set()))

    def __iter__(self) -> Iterator[MessageBatchIndividualResponse]:
        return self._rows

    def __next__(self) -> MessageBatchIndividualResponse:
        return next(self._rows)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the iteration and close the connection."""
        self._rows.close()
        self._download.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Models:
    """``client.models``: the Models API."""

    def __init__(self, client: Anthropic) -> None:
        self._client = client

    def retrieve(self, model_id: str, **options: Any) -> ModelInfo:
        """Return a model by its id, or by an alias.

        Raises:
            NotFoundError: there is no such model.
            ValueError: the id is empty.
        Source: API reference, Get a Model.
        """
        return self._client._fetch(ModelInfo, "GET", f"/v1/models/{_segment('model_id', model_id)}", **options)

    def list(self, *, after_id: str | None = None, before_id: str | None = None, limit: int | None = None,
             lifecycle: Sequence[str] | None = None, **options: Any) -> Page:
        """List the models, newest first.

        Args:
            after_id, before_id, limit: as for batches.
            lifecycle: of ``active``, ``deprecated`` and ``retired`` those to list; by default all but the retired.
        Returns:
            The first Page; iterating it gives all models, page after page.
        Source: API reference, List Models.
        """
        query = {"after_id": after_id, "before_id": before_id, "limit": limit, "lifecycle": lifecycle}
        return self._client._fetch_page(ModelInfo, "/v1/models", query, **options)


# ================================================================================================================
# Everything above is the client and works without what follows.
# ================================================================================================================

__all__ += ["InputError", "Job", "JobError", "Sandbox", "main"]

# ---- Job -------------------------------------------------------------------------------------------------------
# plan → send → wait → collect → finish.  The journal beside the results says how far it came, at every moment.

COUNTED = (  # what of a request's params count_tokens takes: API reference, Count tokens in a Message
    "model", "messages", "system", "tools", "tool_choice", "thinking", "cache_control", "output_config", "speed",
)


class JobError(AnthropicError):
    """The job cannot go on by itself; the text says why, and what to do."""


class InputError(AnthropicError):
    """A file cannot be used: REQUESTS, with its line, or a RESULTS that exists."""


def _parse_request(line: bytes, place: str, seen: set[str]) -> tuple[dict[str, Any], int] | None:
    """Return the request of a line and its size as sent, None for a blank line.  Raises InputError at its place."""
    if not line.replace(b"\xef\xbb\xbf", b"").strip():
        return None
    request = None
    try:
        request = json.loads(line.decode("utf-8-sig"))
        return request, len(_encode_request(request, seen))
    except (ValueError, RecursionError) as error:
        words = f"not JSON: {error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        name = f"custom_id {request['custom_id']!r}: " if isinstance(request, dict) and "custom_id" in request else ""
        raise InputError(f"{place}: {name}{words}") from None


def _later_refusal(params: Mapping[str, Any], version: str) -> str | None:
    """Return why the API will refuse these params, after it took the batch; None if it will not."""
    for name in ("model", "max_tokens", "messages"):
        if params.get(name) is None:
            return f"params have no {name}"
    if params.get("stream") or params["max_tokens"] == 0 or params.get("speed") is not None:
        return "params must not have stream: true, max_tokens: 0 or speed in a batch"
    for name in ("temperature", "top_p", "top_k"):
        if version == API_VERSION and params.get(name) is not None:
            return f"params must not have {name} under anthropic-version {API_VERSION}; 2023-06-01 takes it"
    return None


@dataclass
class _Part:
    """What becomes one batch: the lines from byte ``start`` to ``end`` of REQUESTS."""

    line: int  # the number of its first line
    start: int
    end: int
    requests: int
    bytes: int  # of the body
    digest: str
    state: str = "planned"  # then sending, closing (the last block goes out), created, collected
    noted_at: str | None = None  # server time before sending
    closing_at: str | None = None  # server time of closing
    batch_id: str | None = None
    is_adopted: bool = False
    rows_at: int | None = None  # the byte of RESULTS.part where its rows begin


@dataclass
class _Journal:
    """How far the job came; RESULTS.job is its JSON."""

    digest: str  # of REQUESTS
    base_url: str
    parts: list[_Part]
    organization_id: str | None = None
    workspace_id: str | None = None
    started_at: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat())
    collected: int = 0  # bytes of RESULTS.part that are rows, and on disk
    foreign: list[str] = field(default_factory=list)  # batches that were adopted, and are not ours
    is_finishing: bool = False
    obeyed: str | None = None  # the word of --adopt that settled the last doubt: it does not answer another one

    @classmethod
    def load(cls, path: str) -> _Journal:
        try:
            with open(path, encoding="utf-8") as file:
                fields = json.load(file)
            return cls(**{**fields, "parts": [_Part(**part) for part in fields["parts"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise JobError(f"{path} is not the journal of a run ({error}); move it away to start anew") from None

    def save(self, path: str) -> None:
        """Replace the journal in one step that survives a power cut."""
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=1)
            _sync(file)
        os.replace(path + ".tmp", path)
        _sync_folder(path)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: str) -> None:
    if hasattr(os, "O_DIRECTORY"):  # Windows has none, and needs none
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _publish(source: str, target: str) -> None:
    """Give a whole file its name in one step.  Raises FileExistsError rather than overwrite."""
    try:
        os.link(source, target)  # a rename would overwrite on POSIX
    except FileExistsError:
        if not os.path.samefile(source, target):  # else killed between the two steps
            raise
    except OSError:  # no hard links here
        if os.path.exists(target):
            raise FileExistsError(17, "File exists", target) from None
        os.rename(source, target)
        return
    os.unlink(source)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[Any]:
    """Open a file for appending, for one process at a time.  The lock dies with the process."""
    with open(path, "a+b") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                file.seek(1 << 40)  # far behind all rows: a lock there keeps nobody from reading them
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(file.fileno()), os.stat(path))  # else the other run just ended
        except OSError as error:
            raise JobError(f"Another run is at work on {path}, or the folder has no locks ({error})") from None
        if not is_ours:
            raise JobError(f"Another run was at work on {path}, and has just ended; run again if there is more to do")
        yield file


class Job:
    """A file of requests to a file of results, through as many batches as it takes, and through kills.

    Args:
        client: whose API; the job waits out failures by itself.
        requests, results: paths; beside results go ``.job``, ``.part`` and what failed.
        folder: where ``.job`` and ``.part`` go instead.
        poll_interval: seconds between polls; None as in wait().
        settle: seconds after a lost create until it is believed that no batch will come of it.
        adopt: for a part in doubt the id of its batch, or "none".
        progress: where to tell a person, by ``say(line)``, ``live(line, times)`` and ``batches(batches, parts)``.
    """

    def __init__(self, client: Anthropic, requests: str, results: str, *, progress: Any, folder: str | None = None,
                 poll_interval: float | None = None, settle: float = 300.0, adopt: str | None = None) -> None:
        self._client = client.with_options(max_retries=0)
        self._batches = self._client.messages.batches
        self._requests, self._results, self._progress = requests, results, progress
        stem = os.path.join(folder, os.path.basename(results)) if folder else results
        self._journal_path, self._part_path = stem + ".job", stem + ".part"
        stem, extension = os.path.splitext(results)
        self._failed_path = f"{stem}.failed{extension}"
        self._interval, self._settle, self._adopt = poll_interval, settle, adopt
        self._has_answered = False
        self._polls: dict[str, _Polls] = {}
        self._journal: Any = None

    @property
    def open_batches(self) -> list[str]:
        """The ids of the batches that are running or not collected yet."""
        return [part.batch_id for part in self._journal.parts if part.state == "created"] if self._journal else []

    def run(self) -> bool:
        """Do what is left of the job, and tell whether every request succeeded.

        Raises InputError, JobError, and what the API refuses.
        """
        with _locked(self._part_path) as self._part_file:
            try:
                self._open()
            except BaseException:
                if not os.path.exists(self._journal_path) and not os.path.getsize(self._part_path):
                    os.unlink(self._part_path)
                raise
            while any(part.state != "collected" for part in self._journal.parts):
                self._send()
                self._gather()
            return self._finish()

    # -- plan

    def plan(self) -> tuple[list[_Part], str, dict[str, Any]]:
        """Check REQUESTS and cut it into parts; return them, the file's digest, and what the plan shows a person."""
        import hashlib

        version = self._client.default_headers.get("anthropic-version") or API_VERSION
        whole, digest, end = hashlib.sha256(), hashlib.sha256(), 0
        seen: set[str] = set()
        parts: list[_Part] = []
        shown: dict[str, Any] = {"first": None, "models": {}, "max_tokens": 0, "warnings": 0}
        with open(self._requests, "rb") as file:
            for number, line in enumerate(file, 1):
                start, end = end, end + len(line)
                whole.update(line)
                parsed = _parse_request(line, f"{self._requests}:{number}", seen)
                if parsed is None:
                    continue
                params, size = parsed[0]["params"], parsed[1]
                if 15 + size > MAX_BATCH_BYTES:  # the 15 of {"requests":[]}
                    raise InputError(f"{self._requests}:{number}: more than the {MAX_BATCH_BYTES:,} bytes of a batch")
                part = parts[-1] if parts else None
                if not part or part.requests == MAX_BATCH_REQUESTS or part.bytes + 1 + size > MAX_BATCH_BYTES:
                    part, digest = _Part(number, start, end, 0, 15 - 1, ""), hashlib.sha256()  # the first has no comma
                    parts.append(part)
                part.end, part.requests, part.bytes = end, part.requests + 1, part.bytes + 1 + size
                digest.update(line)
                part.digest = digest.hexdigest()
                self._show(shown, params, f"{self._requests}:{number}", _later_refusal(params, version))
        if not parts:
            raise InputError(f"{self._requests}: no requests")
        return parts, whole.hexdigest(), shown

    def _show(self, shown: dict[str, Any], params: Mapping[str, Any], place: str, refusal: str | None) -> None:
        model, limit = str(params.get("model")), params.get("max_tokens")
        shown["first"] = shown["first"] or params
        shown["models"][model] = shown["models"].get(model, 0) + 1
        shown["max_tokens"] += limit if isinstance(limit, int) else 0
        if refusal:
            shown["warnings"] += 1
            if shown["warnings"] <= 20:
                self._progress.say(f"{place}: warning: this will come back errored: {refusal}")

    def _open(self) -> None:
        """Take up the journal, or plan and begin one; refuse what does not belong together."""
        if os.path.exists(self._journal_path):
            journal = _Journal.load(self._journal_path)
            if os.path.lexists(self._results) and not journal.is_finishing:
                raise InputError(f"{self._results} exists, and is not overwritten; move it away and run again")
            if journal.digest != _digest(self._requests):
                raise JobError(f"{self._requests} has changed since the run began; put it back, or begin another run")
            if journal.base_url != self._client.base_url:
                raise JobError(f"The run began at {journal.base_url}, and this is {self._client.base_url}")
            self._journal = journal
            if journal.is_finishing:
                return
            if os.path.getsize(self._part_path) < journal.collected:
                raise JobError(f"{self._part_path} has lost rows that {self._journal_path} counts; put it back")
            self._progress.say(f"going on with {self._journal_path}")
        else:
            for path in (self._results, self._failed_path):
                if os.path.lexists(path):
                    raise InputError(f"{path} exists, and is not overwritten")
            if os.path.getsize(self._part_path):
                raise JobError(f"{self._part_path} is of a run without its journal; move it away")
            parts, digest, shown = self.plan()
            if shown["warnings"] > 20:
                self._progress.say(f"… and {shown['warnings'] - 20:,} more warnings")
            self._try_first(shown["first"])
            journal = _Journal(digest, self._client.base_url, parts)
        headers = self._greet()
        for name in ("organization_id", "workspace_id"):
            known, now = getattr(journal, name), headers.get(f"anthropic-{name.replace('_', '-')}")
            if known and now and known != now:
                raise JobError(f"The run began in {name} {known}, and this key is of {now}")
            setattr(journal, name, known or now)
        self._journal = journal
        self._save()

    def _try_first(self, params: Mapping[str, Any]) -> None:
        """Have the tokens of the first request counted, for free: what is wrong with it is told now."""
        try:
            fields = {name: params[name] for name in COUNTED if name in params}
            self._ask(lambda: self._client.messages.count_tokens(**{"model": None, "messages": None, **fields}))
        except BadRequestError as error:
            raise InputError(f"{self._requests}: the API refuses the first request: {error}") from None
        except APIError as error:
            self._progress.say(f"the first request could not be tried: {error}")

    def _save(self) -> None:
        try:
            self._journal.save(self._journal_path)
        except OSError as error:  # as no OSError: http.client would take that for the connection's
            raise JobError(f"The journal {self._journal_path} cannot be written: {error}; run again") from error

    # -- send

    def _send(self) -> None:
        """Make a batch of each part that has none.  One part is in doubt at a time."""
        for part in self._journal.parts:
            if part.state == "closing":
                self._resolve(part)
            failures = 0
            while part.state in ("planned", "sending"):
                try:
                    self._create(part)
                except BatchMayExistError as error:
                    self._progress.say(str(error))
                    self._resolve(part)
                except RateLimitError as error:  # the queue is full: what has ended makes room
                    _refuse_spend_limit(error)
                    self._progress.live(f"{self._name(part)} waits: {error}")
                    self._gather(_retry_after(error.headers) or POLL_SECONDS[2])
                except APIError as error:
                    failures += 1
                    self._outlive(error, failures)

    def _create(self, part: _Part) -> None:
        noted = _http_date(self._greet().get("date")) or datetime.now(timezone.utc)
        part.noted_at, part.state, watch = noted.isoformat(), "sending", _Stopwatch()
        self._save()

        def closing() -> None:
            part.closing_at, part.state = (noted + timedelta(seconds=watch.elapsed())).isoformat(), "closing"
            self._save()

        try:
            batch = self._batches._create((request for _, request in self._lines(part)), closing)
        except BatchMayExistError:  # its answer was waited for until now: it may have been made as late as this
            part.closing_at = (noted + timedelta(seconds=watch.elapsed())).isoformat()
            self._save()
            raise
        except AnthropicError:  # no batch was made
            part.state = "planned"
            self._save()
            raise
        self._created(part, batch.id)

    def _created(self, part: _Part, batch_id: str) -> None:
        self._progress.say(f"{self._name(part)}: batch {batch_id}")
        part.batch_id, part.state = batch_id, "created"
        self._save()

    def _lines(self, part: _Part) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield line and request of a part.  Raises JobError at its end if it is not as planned."""
        import hashlib

        digest, number = hashlib.sha256(), part.line
        seen: set[str] = set()
        with open(self._requests, "rb") as file:
            file.seek(part.start)
            while file.tell() < part.end:
                line = file.readline()
                parsed = _parse_request(line, f"{self._requests}:{number}", seen)
                number += 1
                if parsed:
                    digest.update(line)
                    yield line, parsed[0]
                elif not line:
                    break
        if digest.hexdigest() != part.digest:
            raise JobError(f"{self._requests} has changed since the run began; put it back, and run again")

    def _resolve(self, part: _Part) -> None:
        """Find out whether a part whose answer was lost has its batch: adopt it, or plan the part again."""
        deadline = datetime.fromisoformat(part.closing_at or "") + timedelta(seconds=self._settle + 1)  # Date's grain
        while not self._obey(part):
            now, found = self._ask(lambda: self._look(part, deadline))
            if len(found) > 1:
                self._ask_again()
                raise JobError(
                    f"{self._name(part)} may be any of {', '.join(found)}; say which: run again with --adopt ID, or "
                    f"with --adopt none if it is none of them, which sends it again")
            if found:
                part.is_adopted = True
                self._created(part, found[0])
                return
            if now >= deadline:
                part.state = "planned"
                return
            self._progress.live(f"{self._name(part)}: looking whether its batch was made", f"until {deadline:%H:%M:%S}")
            time.sleep(min(self._interval or POLL_SECONDS[1], max(0.0, (deadline - now).total_seconds())))

    def _obey(self, part: _Part) -> bool:
        """Do with a part in doubt what --adopt says; tell whether it said something."""
        word, self._adopt = self._adopt, None
        if not word or word == self._journal.obeyed:
            return False
        self._journal.obeyed = word
        if word == "none":
            part.state = "planned"
            self._forget(part)
        else:
            batch = self._ask(lambda: self._batches.retrieve(word))
            if _size(batch) not in (part.requests, None):
                raise JobError(f"Batch {word} has {_size(batch)} requests, and {self._name(part)} has {part.requests}")
            part.is_adopted = True
            self._created(part, word)
        return True

    def _ask_again(self) -> None:
        self._journal.obeyed = None
        self._save()

    def _forget(self, part: _Part) -> None:
        """Undo what is known of a part's batch, its rows too."""
        if part.rows_at is not None:
            self._journal.collected = part.rows_at
        part.batch_id, part.is_adopted, part.rows_at = None, False, None
        self._save()
        self._part_file.truncate(self._journal.collected)

    def _look(self, part: _Part, deadline: datetime) -> tuple[datetime, list[str]]:
        """Return the server's time, and the batches that may be this part's."""
        known = {other.batch_id for other in self._journal.parts} | set(self._journal.foreign)
        noted = datetime.fromisoformat(part.noted_at or "") - timedelta(seconds=2)  # clocks differ
        found = []
        page = self._batches.list(limit=100)
        now = _http_date(page._headers.get("date")) or datetime.now(timezone.utc)
        for batch in page:
            created = batch.created_at or noted
            if created < noted:
                break
            if created <= deadline and batch.id not in known and _size(batch) in (part.requests, None):
                found.append(batch.id)
        return now, found

    # -- wait

    def _greet(self) -> Mapping[str, str]:
        """Return the headers of an answer, which tell the server's time and whose key it is."""
        return self._ask(lambda: self._batches.list(limit=1))._headers

    def _ask(self, ask: Callable[[], T]) -> T:
        """Return what ``ask`` does, after waiting out failures."""
        for failures in itertools.count(1):
            try:
                answer = ask()
                self._has_answered = True
                return answer
            except APIError as error:
                self._outlive(error, failures)
        raise AssertionError

    def _outlive(self, error: APIError, failures: int) -> None:
        """Sleep where waiting may help, once the API has answered this process; else raise the error."""
        if not self._has_answered or not _is_transient(error) or isinstance(error, IncompleteResultsError):
            raise error
        _refuse_spend_limit(error)
        self._progress.live(f"waiting: {error}")
        time.sleep(_retry_after(error.headers) or min(2.0 ** min(failures - 1, 10), POLL_SECONDS[2]))

    def _gather(self, longest: float = POLL_SECONDS[2]) -> None:
        """Poll the batches once, collect those that have ended, and sleep until the next round."""
        parts = [part for part in self._journal.parts if part.state == "created"]
        parts = [part for part in parts if part.rows_at is not None] or parts  # rows of one part at a time
        seen, delay = [], longest
        for part in parts:
            polls = self._polls.setdefault(part.batch_id, _Polls(self._batches, part.batch_id, self._interval, {}))
            try:
                outcome = polls.poll()
            except NotFoundError as error:
                self._lost(part, f"the API knows it no longer ({error})")
                continue
            if not isinstance(outcome, MessageBatch):
                if not self._has_answered:
                    raise outcome
                self._progress.live(f"waiting: {outcome}")
            elif outcome.processing_status == "ended":
                self._collect(part, outcome)
                delay = 0.0
            else:
                seen.append(outcome)
            self._has_answered, delay = True, min(delay, polls.delay)
        if seen:
            self._progress.batches(seen, len(self._journal.parts))
        if not parts or any(part.state == "created" for part in parts):
            time.sleep(delay)

    def _lost(self, part: _Part, why: str) -> None:
        """Stop for a batch that gives no results, unless --adopt says what to do."""
        if not self._obey(part):
            self._ask_again()
            raise JobError(
                f"Batch {part.batch_id} of {self._name(part)} gives no results: {why}.  With the key of the right "
                f"workspace, run again; or send the part again, and pay again, with --adopt none")

    # -- collect

    def _collect(self, part: _Part, batch: MessageBatch) -> None:
        """Append the rows of an ended batch to RESULTS.part, from where it stopped."""
        if not batch.results_url:
            self._lost(part, "they have been archived" if batch.archived_at else "it has no results_url")
            return
        wanted = {request["custom_id"] for _, request in self._lines(part)}
        if part.rows_at is None:
            part.rows_at = self._journal.collected
        received, idle = -1, 0
        while received < part.requests and idle < 20:
            before = received
            try:
                received = self._ask(lambda: self._append(part, wanted))
            except IncompleteResultsError as error:
                if isinstance(error.__cause__, APIStatusError) and not _is_transient(error.__cause__):
                    raise
                received = error.received
                self._progress.live(f"waiting: {error}")
                time.sleep(_backoff(idle + 1))
            if part.state != "created":
                return  # it was refuted
            idle = idle + 1 if received == before else 0
        if received < part.requests:
            raise JobError(f"Batch {part.batch_id}: {received} of {part.requests} rows came; run again to go on")
        part.state = "collected"
        self._save()
        self._progress.say(f"{self._name(part)}: {received:,} results")

    def _append(self, part: _Part, wanted: set[str]) -> int:
        """Download once what is missing of a part, and return how many rows there are."""
        file = self._part_file
        seen: set[str] = set()
        file.truncate(self._journal.collected)
        with open(self._part_path, "rb") as rows:
            rows.seek(part.rows_at or 0)
            seen.update(row["custom_id"] for row in iter_json_lines(rows))
        unsynced = 0
        try:
            with contextlib.closing(self._batches._download(part.batch_id or "")) as download:
                for line, row in download.rows(seen):
                    if row["custom_id"] not in wanted:
                        self._refute(part, row["custom_id"])
                        return 0
                    unsynced += file.write(line if line.endswith(b"\n") else line + b"\n")
                    if unsynced > 8_000_000:
                        self._note_rows()
                        unsynced = 0
        except AnthropicError:  # not an OSError, which may have torn the last row
            self._note_rows()
            raise
        self._note_rows()
        return len(seen)

    def _note_rows(self) -> None:
        _sync(self._part_file)
        self._journal.collected = os.path.getsize(self._part_path)
        self._save()

    def _refute(self, part: _Part, custom_id: str) -> None:
        """Undo the adoption of a batch that has a row which no request asked for: the part is in doubt again."""
        words = f"Batch {part.batch_id} has a row {custom_id!r}, which is not in {self._name(part)}"
        if not part.is_adopted:
            raise JobError(words)
        self._progress.say(f"{words}: it is not ours")
        self._journal.foreign.append(part.batch_id)
        part.state = "closing"
        self._forget(part)

    # -- finish

    def _finish(self) -> bool:
        """Write what failed, give RESULTS its name, sum up, and remove the journal last."""
        journal = self._journal
        if not journal.is_finishing:
            for path in (self._results, self._failed_path):
                if os.path.lexists(path):
                    raise JobError(f"{path} exists, and is not overwritten; move it away and run again to finish")
            journal.is_finishing = True
            self._save()
        has_rows = os.path.getsize(self._part_path) > 0  # else killed after RESULTS got its name
        summary, failed = self._sum_up(self._part_path if has_rows else self._results)
        if failed:
            self._write_failed(failed)
        if sys.platform == "win32":
            self._part_file.close()  # an open file can be neither renamed nor removed there
        if has_rows:
            try:
                _publish(self._part_path, self._results)
            except FileExistsError:
                raise JobError(f"{self._results} exists, and is not overwritten; move it away and run again") from None
        else:
            os.unlink(self._part_path)
        _sync_folder(self._results)
        for line in summary:
            self._progress.say(line)
        os.unlink(self._journal_path)
        return not failed

    def _sum_up(self, path: str) -> tuple[list[str], set[str]]:
        """Return the lines of the summary, and the custom_ids that did not succeed."""
        outcomes: dict[str, int] = {}
        errors: dict[str, int] = {}
        failed, tokens_in, tokens_out = set(), 0, 0
        with open(path, "rb") as rows:
            for row in map(MessageBatchIndividualResponse._take, iter_json_lines(rows)):
                result = row.result if isinstance(row.result, MessageBatchResult) else MessageBatchResult()
                kind = str(result.type)
                outcomes[kind] = outcomes.get(kind, 0) + 1
                usage = result.message.usage if result.message else None
                if usage:
                    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
                    tokens_in += sum(getattr(usage, name) or 0 for name in names)
                    tokens_out += usage.output_tokens or 0
                if kind != "succeeded":
                    failed.add(row.custom_id)
                if result.error and result.error.error:
                    words = f"{result.error.error.type}: {result.error.error.message}"
                    errors[words] = errors.get(words, 0) + 1
        parts = self._journal.parts
        elapsed = datetime.now(timezone.utc) - datetime.fromisoformat(self._journal.started_at)
        batches = ", ".join(part.batch_id + (" (adopted)" if part.is_adopted else "") for part in parts)
        common = sorted(errors.items(), key=lambda item: -item[1])[:5]
        return [
            f"{sum(outcomes.values()):,} requests: " + ", ".join(f"{n:,} {kind}" for kind, n in outcomes.items()),
            *(f"  {n:,} × {words}" for words, n in common),
            f"{tokens_in:,} tokens in, {tokens_out:,} out; {_clock(elapsed.total_seconds())} elapsed",
            f"batches: {batches}",
            *([f"what did not succeed, ready to be run again: {self._failed_path}"] if failed else []),
            f"results: {self._results}",
        ], failed

    def _write_failed(self, failed: set[str]) -> None:
        with open(self._failed_path + ".tmp", "wb") as file:
            for part in self._journal.parts:
                for line, request in self._lines(part):
                    if request["custom_id"] in failed:
                        line = line[3:] if line.startswith(b"\xef\xbb\xbf") else line
                        file.write(line if line.endswith(b"\n") else line + b"\n")
            _sync(file)
        os.replace(self._failed_path + ".tmp", self._failed_path)

    def _name(self, part: _Part) -> str:
        parts = self._journal.parts
        return f"part {parts.index(part) + 1} of {len(parts)} ({part.requests:,} requests)"


def _refuse_spend_limit(error: APIError) -> None:
    if isinstance(error, RateLimitError) and "spend_limit" in (error.error_code or ""):
        raise JobError(f"{error}.  It stays so until the limit is raised; then run again to go on") from error


def _digest(path: str) -> str:
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _clock(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


# ---- Sandbox ---------------------------------------------------------------------------------------------------


@dataclass
class _SandboxBatch:
    url: str
    id: str
    created_at: datetime
    ends: datetime
    requests: list[tuple[str, str, str | None]]  # custom_id, model, and why it is refused, if so; never the bodies
    cancel_initiated_at: datetime | None = None

    def is_ended(self) -> bool:
        return datetime.now(timezone.utc) >= self.ends

    def outcome(self, custom_id: str, refusal: str | None) -> str:
        if refusal:
            return "errored"
        if self.cancel_initiated_at:
            return "canceled"
        return "expired" if custom_id.startswith("expired") else "succeeded"

    def to_dict(self) -> dict[str, Any]:
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        for custom_id, _, refusal in self.requests:
            counts[self.outcome(custom_id, refusal) if self.is_ended() else "processing"] += 1
        status = "ended" if self.is_ended() else "canceling" if self.cancel_initiated_at else "in_progress"
        return {
            "id": self.id, "type": "message_batch", "processing_status": status, "request_counts": counts,
            "created_at": self.created_at.isoformat(),
            "expires_at": (self.created_at + timedelta(hours=24)).isoformat(),
            "ended_at": self.ends.isoformat() if self.is_ended() else None,
            "cancel_initiated_at": self.cancel_initiated_at and self.cancel_initiated_at.isoformat(),
            "archived_at": None,
            "results_url": f"{self.url}/v1/messages/batches/{self.id}/results" if self.is_ended() else None,
        }

    def rows(self) -> Iterator[bytes]:
        for number, (custom_id, model, refusal) in enumerate(reversed(self.requests)):  # the API promises no order
            result: dict[str, Any] = {"type": self.outcome(custom_id, refusal)}
            if result["type"] == "errored":
                error = {"type": "invalid_request_error", "message": f"{refusal} (says the sandbox)"}
                result["error"] = {"type": "error", "error": error, "request_id": None}
            elif result["type"] == "succeeded":
                result["message"] = {
                    "id": f"msg_sandbox_{number}", "type": "message", "role": "assistant", "model": model,
                    "content": [{"type": "text", "text": "This is the sandbox's answer; no model was asked."}],
                    "stop_reason": "end_turn", "stop_sequence": None,
                    "usage": {
                        "input_tokens": 10, "output_tokens": 12, "service_tier": "batch",
                        "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
                    },
                }
            yield _encode_json({"custom_id": custom_id, "result": result}) + b"\n"


def _sandbox_model(model_id: str, name: str, created: str, lifecycle: str = "active") -> dict[str, Any]:
    return {
        "id": model_id, "type": "model", "display_name": name, "created_at": f"{created}T00:00:00Z",
        "lifecycle": lifecycle, "deprecated_at": None, "retires_at": None, "line": model_id.split("-")[1],
        "max_input_tokens": 200_000, "max_tokens": 64_000, "capabilities": {"batch": {"supported": True}},
    }


_SANDBOX_MODELS = [
    _sandbox_model("claude-sonnet-4-6", "Claude Sonnet 4.6", "2026-02-17"),
    _sandbox_model("claude-opus-4-6", "Claude Opus 4.6", "2026-02-04"),
    _sandbox_model("claude-haiku-4-5-20251001", "Claude Haiku 4.5", "2025-10-15"),
    _sandbox_model("claude-opus-4-1-20250805", "Claude Opus 4.1", "2025-08-05", "deprecated"),
    _sandbox_model("claude-opus-4-20250514", "Claude Opus 4", "2025-05-22", "retired"),
]
_SANDBOX_ALIASES = {"claude-haiku-4-5": "claude-haiku-4-5-20251001", "claude-opus-4-1": "claude-opus-4-1-20250805"}


class Sandbox:
    """The API's stand-in, a real HTTP server on 127.0.0.1: no key, no network beyond this machine, no cost.

    ::

        with Sandbox() as sandbox:
            client = Anthropic(base_url=sandbox.url, api_key="sandbox")

    It answers every endpoint by the API's rules.  What the API refuses inside params comes back ``errored``; after a
    cancel, rows are ``canceled``; a custom_id that begins with ``expired`` is ``expired``; all others succeed.

    Args:
        port: where to listen, 0 for any free port; ``url`` then tells it.
        seconds: how long a batch is in progress, 0 or more.
    """

    def __init__(self, *, port: int = 0, seconds: float = 1.0) -> None:
        from http.server import ThreadingHTTPServer  # not at the top: the client has no use for it
        from threading import Lock

        self._seconds = timedelta(seconds=seconds)
        self._batches: dict[str, _SandboxBatch] = {}  # oldest first
        self._lock = Lock()

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args: Any) -> None:
                if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that went away is no news
                    super().handle_error(*args)

        self._server = Server(("127.0.0.1", port), _sandbox_handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Sandbox:
        from threading import Thread

        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve_forever(self) -> None:
        """Serve in this thread, until it is interrupted."""
        self._server.serve_forever()

    def _answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> Any:
        """Return the answer's JSON, or an iterator of rows.  Raises _Refusal."""
        parts = urllib.parse.urlsplit(target)
        query = urllib.parse.parse_qs(parts.query)
        if not headers.get("authorization", headers.get("x-api-key")):
            raise _Refusal(401, "authentication_error", "a key is missing; the sandbox takes any")
        path = [urllib.parse.unquote(part) for part in parts.path.split("/")[1:]]
        with self._lock:
            if path == ["v1", "messages", "count_tokens"] and method == "POST":
                return self._count_tokens(_sandbox_json(raw))
            if path == ["v1", "models"] and method == "GET":
                wanted = query.get("lifecycle[]", ["active", "deprecated"])
                return _sandbox_page([model for model in _SANDBOX_MODELS if model["lifecycle"] in wanted], query)
            if path[:2] == ["v1", "models"] and len(path) == 3 and method == "GET":
                for model in _SANDBOX_MODELS:
                    if model["id"] == _SANDBOX_ALIASES.get(path[2], path[2]):
                        return model
            if path == ["v1", "messages", "batches"] and method in ("GET", "POST"):
                if method == "POST":
                    return self._create(_sandbox_json(raw), headers.get("anthropic-version", ""))
                return _sandbox_page([batch.to_dict() for batch in reversed(self._batches.values())], query)
            if path[:3] == ["v1", "messages", "batches"] and len(path) in (4, 5) and path[3] in self._batches:
                return self._batch(method, self._batches[path[3]], path[4:])
        raise _Refusal(404, "not_found_error", f"the sandbox has no {method} {parts.path}")

    def _create(self, body: Any, version: str) -> dict[str, Any]:
        requests = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(requests, list) or not requests or len(requests) > MAX_BATCH_REQUESTS or len(body) > 1:
            raise _Refusal(400, "invalid_request_error", "requests: 1 to 100,000 are allowed, and nothing beside them")
        seen: set[str] = set()
        kept = []
        for index, request in enumerate(requests):
            try:
                _encode_request(request, seen)
            except ValueError as error:
                raise _Refusal(400, "invalid_request_error", f"requests.{index}: {error}") from None
            params = request["params"]
            kept.append((request["custom_id"], str(params.get("model")), _later_refusal(params, version)))
        now = datetime.now(timezone.utc)
        batch = _SandboxBatch(self.url, f"msgbatch_sandbox_{os.urandom(8).hex()}", now, now + self._seconds, kept)
        self._batches[batch.id] = batch
        return batch.to_dict()

    def _batch(self, method: str, batch: _SandboxBatch, action: list[str]) -> Any:
        if method == "GET" and not action:
            return batch.to_dict()
        if method == "GET" and action == ["results"] and batch.is_ended():
            return batch.rows()
        if method == "POST" and action == ["cancel"]:
            if not batch.is_ended() and not batch.cancel_initiated_at:
                batch.cancel_initiated_at = datetime.now(timezone.utc)
                batch.ends = batch.cancel_initiated_at + self._seconds
            return batch.to_dict()
        if method == "DELETE" and not action:
            if not batch.is_ended():
                raise _Refusal(400, "invalid_request_error", "the batch is in progress: cancel it before you delete it")
            del self._batches[batch.id]
            return {"id": batch.id, "type": "message_batch_deleted"}
        raise _Refusal(404, "not_found_error", f"the sandbox has no such thing of batch {batch.id}, or not yet")

    def _count_tokens(self, body: Any) -> dict[str, Any]:
        for name in body if isinstance(body, dict) else {"model": None}:
            if name not in COUNTED:
                raise _Refusal(400, "invalid_request_error", f"{name}: Extra inputs are not permitted")
        if not isinstance(body, dict) or not body.get("model") or not body.get("messages"):
            raise _Refusal(400, "invalid_request_error", "model and messages: Field required")
        return {"input_tokens": max(1, len(_encode_json(body)) // 4)}


class _Refusal(Exception):
    """An error of the API's, with status, type and message."""


def _sandbox_json(raw: bytes) -> Any:
    try:
        body = json.loads(raw)
        _encode_json(body)  # NaN and half surrogates
    except (ValueError, RecursionError) as error:
        raise _Refusal(400, "invalid_request_error", f"The request body is not valid JSON: {error}") from None
    return body


def _sandbox_page(items: list[dict[str, Any]], query: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the page of a list, newest first, that limit, after_id and before_id ask for."""
    limit, after, before = (query.get(name, [""])[-1] for name in ("limit", "after_id", "before_id"))
    size = int(limit or 20) if (limit or "20").isdecimal() else 0
    ids = [item["id"] for item in items]
    if not 1 <= size <= 1000 or (after and before) or not {after, before} <= {"", *ids}:
        raise _Refusal(400, "invalid_request_error", "limit: 1 to 1000; after_id or before_id: one that exists")
    end = ids.index(before) if before else len(ids)
    start = max(0, end - size) if before else ids.index(after) + 1 if after else 0
    page = items[start:end] if before else items[start : start + size]
    has_more = start > 0 if before else start + size < len(items)
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"data": page, "has_more": has_more, "first_id": first, "last_id": last}


def _sandbox_handler(sandbox: Sandbox) -> type:
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body in one packet

        def answer(self) -> None:
            """Answer one request."""
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, given, request_id = 200, None, f"req_sandbox_{os.urandom(6).hex()}"
            try:
                given = sandbox._answer(self.command, self.path, _headers_of(self), raw)
            except _Refusal as refusal:
                status, kind, words = refusal.args
                given = {"type": "error", "error": {"type": kind, "message": words}, "request_id": request_id}
            self.send_response(status)
            self.send_header("request-id", request_id)
            self.send_header("anthropic-organization-id", "sandbox")
            if isinstance(given, dict):
                self.send_json(given)
            else:
                self.send_rows(given)

        do_GET = do_POST = do_DELETE = answer

        def send_json(self, given: dict[str, Any]) -> None:
            """Send an object, with the polling interval if it is a running batch."""
            if given.get("processing_status") in ("in_progress", "canceling"):
                self.send_header("retry-after", "1")
            body = _encode_json(given)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def send_rows(self, rows: Iterator[bytes]) -> None:
            """Send rows as the API does, chunked."""
            self.send_header("content-type", "application/x-jsonl")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for row in rows:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(row), row))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    return Handler


# ---- Command line ----------------------------------------------------------------------------------------------


class _Terminated(BaseException):
    """SIGTERM, raised where the program is, so that it ends as on Ctrl-C."""


class _Progress:
    """Tells a person on standard error: lines that stay, and on a terminal one that lives."""

    def __init__(self) -> None:
        self._is_terminal, self._last, self._width = sys.stderr.isatty(), "", 0

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads: no reason to give up a job
            sys.stderr.write(text)
            sys.stderr.flush()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._write("\r" + " " * self._width + "\r" + line + "\n" if self._width else line + "\n")
        self._width = 0

    def end(self) -> None:
        """Let the live line stay."""
        self._write("\n" if self._width else "")
        self._width = 0

    def live(self, line: str, times: str = "") -> None:
        """Show the line of the moment; elsewhere than on a terminal only when it changes, without its times."""
        if self._is_terminal:
            width = 80
            with contextlib.suppress(OSError):
                width = os.get_terminal_size(sys.stderr.fileno()).columns or width
            shown = ", ".join(filter(None, (line, times)))[: width - 1]
            self._write("\r" + shown.ljust(self._width))
            self._width = len(shown)
        elif line != self._last:
            self._write(line + "\n")
        self._last = line

    def batches(self, batches: list[MessageBatch], parts: int = 1) -> None:
        """Show the running batches of a job in one line.  The API moves its counts at the end: no percentage."""
        counts: dict[str, int] = {}
        for batch in batches:
            for name, count in (batch.request_counts.__dict__ if batch.request_counts else {}).items():
                counts[name] = counts.get(name, 0) + count
        status = ", ".join(sorted({str(batch.processing_status) for batch in batches}))
        several = f"{len(batches)} of {parts} batches " if parts > 1 else ""
        line = f"{several}{status}: " + ", ".join(f"{n:,} {name}" for name, n in counts.items() if n)
        now = _http_date(batches[0]._headers.get("date")) or datetime.now(timezone.utc)
        begun = [batch.created_at for batch in batches if batch.created_at]
        ends = [batch.expires_at for batch in batches if batch.expires_at]
        times = [f"{_clock((now - min(begun)).total_seconds())} elapsed"] if begun else []
        times += [f"expires in {_clock((min(ends) - now).total_seconds())}"] if ends else []
        self.live(line, ", ".join(times))


def _print(value: Any) -> None:
    sys.stdout.buffer.write(_encode_json(value) + b"\n")
    sys.stdout.flush()


def _print_columns(rows: list[tuple[Any, ...]]) -> None:
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())


def _read_requests(path: str) -> Iterator[dict[str, Any]]:
    """Yield the requests of a file, "-" being standard input.  Raises InputError."""
    seen: set[str] = set()
    try:
        source: Any = contextlib.nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    with source as file:
        for number, line in enumerate(file, 1):
            parsed = _parse_request(line, f"{'standard input' if path == '-' else path}:{number}", seen)
            if parsed:
                yield parsed[0]


def _run(args: Any) -> int:
    if not os.path.isfile(args.requests):
        words = "run needs a regular file, which it can read again"
        there = args.requests == "-" or os.path.exists(args.requests)
        raise InputError(f"{args.requests}: {words if there else 'No such file'}")
    progress = args.progress
    options = {"progress": progress, "poll_interval": args.poll_interval, "settle": args.settle, "adopt": args.adopt}
    if args.dry_run:
        parts, _, shown = Job(Anthropic(), args.requests, args.output or "results", **options).plan()
        models = ", ".join(f"{model} ({count:,})" for model, count in shown["models"].items())
        print(f"requests: {sum(part.requests for part in parts):,}\nparts: {len(parts):,}")
        print(f"bytes: {sum(part.bytes for part in parts):,}\nmodels: {models}\nmax_tokens: {shown['max_tokens']:,}")
        return 0
    with contextlib.ExitStack() as stack:
        client = None
        if args.sandbox:
            if os.path.exists(args.output + ".job"):
                raise JobError(f"{args.output}.job is of a real run, untouched by --sandbox: name another RESULTS")
            sandbox = stack.enter_context(Sandbox())
            client = Anthropic(base_url=sandbox.url, api_key="sandbox")
            beside = os.path.dirname(os.path.abspath(args.output))
            options["folder"] = stack.enter_context(tempfile.TemporaryDirectory(prefix=".sandbox-", dir=beside))
        job = Job(client or Anthropic(), args.requests, args.output, **options)
        if not args.sandbox:  # whose batches end with this process
            args.going_on = lambda: job.open_batches
        return 0 if job.run() else 3


def _create(args: Any) -> int:
    _print(Anthropic().messages.batches.create(requests=_read_requests(args.requests)))
    return 0


def _act(args: Any) -> int:
    _print(getattr(Anthropic().messages.batches, args.name)(args.id))
    return 0


def _wait(args: Any) -> int:
    batches = Anthropic().messages.batches
    with contextlib.suppress(NotFoundError):  # a fresh batch gives some: wait() knows for how long
        batches.retrieve(args.id)  # what is wrong from the start is told at once
        args.going_on = lambda: [args.id]
    batch = batches.wait(
        args.id, poll_interval=args.poll_interval, on_poll=lambda batch: args.progress.batches([batch]))
    args.progress.end()
    _print(batch)
    counts = batch.request_counts
    return 3 if counts and _size(batch) != counts.succeeded else 0


def _list(args: Any) -> int:
    batches = Anthropic().messages.batches.list(limit=min(args.limit, 1000))
    rows: list[tuple[Any, ...]] = [("ID", "STATUS", "CREATED", "REQUESTS", "SUCCEEDED", "ERRORED")]
    for batch in itertools.islice(batches, args.limit):
        if args.json:
            _print(batch)
        counts = batch.request_counts or MessageBatchRequestCounts()
        created = batch.created_at and f"{batch.created_at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%SZ}"
        rows.append((batch.id, batch.processing_status, created, _size(batch), counts.succeeded, counts.errored))
    if not args.json:
        _print_columns(rows)
    return 0


def _results(args: Any) -> int:
    if args.output and os.path.lexists(args.output):
        raise InputError(f"{args.output} exists, and is not overwritten")
    if args.output and not os.path.isdir(os.path.dirname(os.path.abspath(args.output))):
        raise JobError(f"{args.output}: its folder does not exist")
    with contextlib.ExitStack() as stack:
        download = stack.enter_context(contextlib.closing(Anthropic().messages.batches._download(args.id)))
        file, failed = sys.stdout.buffer, 0
        if args.output:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=".results-", dir=os.path.dirname(os.path.abspath(args.output))))
            file = stack.enter_context(open(os.path.join(folder, "results"), "wb"))
        for line, row in download.rows(set()):
            file.write(line if line.endswith(b"\n") else line + b"\n")
            failed += (row.get("result") or {}).get("type") != "succeeded"
        if args.output:
            _sync(file)
            file.close()
            _publish(file.name, args.output)
    return 3 if failed else 0


def _models(args: Any) -> int:
    if args.id:
        _print(Anthropic().models.retrieve(args.id))
        return 0
    rows: list[tuple[Any, ...]] = [("ID", "NAME", "LIFECYCLE", "CREATED", "BATCH")]
    for model in Anthropic().models.list(limit=1000):
        if args.json:
            _print(model)
        can = {True: "yes", False: "no"}.get(((model.capabilities or OpenObject()).batch or OpenObject()).supported, "")
        created = model.created_at and model.created_at.strftime("%Y-%m-%d")
        rows.append((model.id, model.display_name, model.lifecycle, created, can))
    if not args.json:
        _print_columns(rows)
    return 0


def _count_tokens(args: Any) -> int:
    client, total = Anthropic(), 0
    with tempfile.TemporaryFile() as file:
        for request in _read_requests(args.requests):  # all are checked before the first one is sent
            file.write(_encode_json(request) + b"\n")
        file.seek(0)
        for request in iter_json_lines(file):
            fields = {name: request["params"][name] for name in COUNTED if name in request["params"]}
            try:
                count = client.messages.count_tokens(**{"model": None, "messages": None, **fields}).input_tokens
            except APIError:
                args.progress.say(f"custom_id {request['custom_id']!r}:")
                raise
            print(f"{request['custom_id']}\t{count}", flush=True)
            total += count
    args.progress.say(f"{total:,} input tokens in all")
    return 0


def _sandbox(args: Any) -> int:
    sandbox = Sandbox(port=args.port)
    print(f"export ANTHROPIC_BASE_URL={sandbox.url}\nexport ANTHROPIC_API_KEY=sandbox", flush=True)
    sandbox.serve_forever()
    return 0


def _seconds(text: str) -> float:
    if not 0 <= float(text) < 1e9:
        raise ValueError
    return float(text)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _port(text: str) -> int:
    if not 0 <= int(text) < 65536:
        raise ValueError
    return int(text)


def _parser() -> Any:
    import argparse

    parser = argparse.ArgumentParser(
        prog="claude_batches.py", description="Claude's Message Batches API on the standard library alone.",
        epilog="Exit status: 0; 1 an error; 2 wrong usage, a wrong input file, or a RESULTS that exists; 3 ended, but "
        "not every request succeeded; 130 interrupted; 143 terminated.")
    parser.add_argument("--version", action="version", version=f"claude_batches {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str, *arguments: str) -> Any:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=run, name=name, progress=_Progress(), going_on=list)
        for argument in arguments:
            sub.add_argument(argument.lower(), metavar=argument)
        return sub

    run = command("run", _run, "do a whole job: check, split, create, wait, download; run it again and it goes on",
                  "REQUESTS")
    run.add_argument("-o", "--output", metavar="RESULTS", help="the file to make; required but for --dry-run")
    run.add_argument("--dry-run", action="store_true", help="check REQUESTS and print the plan; needs no key")
    run.add_argument("--sandbox", action="store_true", help="use a stand-in of the API: no key, no network, no cost")
    run.add_argument("--settle", type=_seconds, default=300.0, metavar="SECONDS",
                     help="after a lost answer, how long a batch may still come of it (300)")
    run.add_argument("--adopt", metavar="ID|none", help="the batch of a part in doubt")
    command("create", _create, "make one batch of the requests", "REQUESTS")
    command("retrieve", _act, "print a batch", "ID")
    wait = command("wait", _wait, "wait until a batch has ended, and print it", "ID")
    for sub in (run, wait):
        sub.add_argument("--poll-interval", type=_seconds, metavar="SECONDS", help="between two polls")
    listing = command("list", _list, "list the newest batches")
    listing.add_argument("--limit", type=_positive, default=20, metavar="N", help="how many (20)")
    results = command("results", _results, "print or save the results of a batch", "ID")
    results.add_argument("-o", "--output", metavar="FILE", help="write there, whole or not at all; never over a file")
    command("cancel", _act, "cancel a batch", "ID")
    command("delete", _act, "delete an ended batch and its results", "ID")
    models = command("models", _models, "list the models, or print one")
    models.add_argument("id", nargs="?", metavar="ID")
    for sub in (listing, models):
        sub.add_argument("--json", action="store_true", help="print JSON, one object a line")
    command("count-tokens", _count_tokens, "print each request's input tokens; it is free", "REQUESTS")
    sandbox = command("sandbox", _sandbox, "serve a stand-in of the API on 127.0.0.1, and print how to use it")
    sandbox.add_argument("--port", type=_port, default=0, metavar="N", help="0, the default, is any free one")
    return parser


def _tell_interrupted(args: Any, argv: list[str], word: str) -> None:
    import shlex

    program = ("python " if sys.argv[0].endswith(".py") else "") + shlex.quote(sys.argv[0])
    args.progress.say(word)
    ids = args.going_on()
    if args.command is _create:
        args.progress.say(f"the batch may have been made, and be billed; look: {program} list")
    if ids:
        args.progress.say(f"these go on, and are billed: {', '.join(ids)}")
        args.progress.say(f"to cancel: {'; '.join(f'{program} cancel {batch_id}' for batch_id in ids)}")
    if ids or args.command is _run:
        args.progress.say(f"to go on: {program} {' '.join(shlex.quote(word) for word in argv)}")


def _discard_output() -> None:
    """Let go of what standard output does not take, of which the flush at the exit would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status; ``argv`` is sys.argv[1:] unless given."""
    import signal

    def terminate(*_: object) -> None:
        raise _Terminated

    for name in ("stdout", "stderr"):  # None where the caller closed them
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    if args.command is _run and not args.output and not args.dry_run:
        _parser().error("run: -o RESULTS is required")
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, terminate)
    try:
        status: int = args.command(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # standard output's; those of the network are APIConnectionErrors
        _discard_output()
        return 0
    except (InputError, InvalidRequestsError) as error:
        args.progress.say(f"claude_batches: {error}")
        return 2
    except (AnthropicError, OSError) as error:
        args.progress.say(f"claude_batches: {error}")
        try:
            sys.stdout.flush()
        except OSError:  # a full disk
            _discard_output()
        ids = args.going_on()
        if ids:
            args.progress.say(f"these go on, and are billed: {', '.join(ids)}; run the same command again to go on")
        return 1
    except KeyboardInterrupt:
        _tell_interrupted(args, argv, "interrupted")
        return 130
    except _Terminated:
        _tell_interrupted(args, argv, "terminated")
        return 143


if __name__ == "__main__":
    sys.exit(main())
