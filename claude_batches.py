#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Claude's Message Batches API in one file, on the standard library alone.

From the project claude-batches; copy it beside your script, or paste any part of it:
no notice is needed.  It calls the Message Batches, Models and token counting endpoints
under the names of the official Python SDK, so that changing between the two is one
import line.  The shortest program::

    from claude_batches import Anthropic

    client = Anthropic()  # reads ANTHROPIC_API_KEY
    messages = [{"role": "user", "content": "Hello"}]
    params = {"model": "claude-opus-4-6", "max_tokens": 100, "messages": messages}
    requests = [{"custom_id": "first", "params": params}]
    batch = client.messages.batches.create(requests=requests)
    client.messages.batches.wait(batch.id)
    for row in client.messages.batches.results(batch.id):
        print(row.custom_id, row.result.type)

The shortest command line (with ``--sandbox`` it needs no key and costs nothing)::

    python claude_batches.py run requests.jsonl -o results.jsonl

What it promises beyond the SDK: a batch is never made, and billed, twice; results are
whole or an error says how many are missing; memory stays flat at 100,000 requests; the
API key goes to one place only.  Errors::

    AnthropicError
    ├── InvalidRequestsError (also a ValueError)   an argument breaks a rule
    ├── WaitTimeoutError (also a TimeoutError)     wait() took longer than its timeout
    └── APIError
        ├── APIConnectionError                     no response, or one that is not whole
        │   ├── APITimeoutError
        │   └── IncompleteResultsError             rows are missing, and no retry helped
        ├── APIResponseValidationError             a response breaks the API's own rules
        ├── BatchMayExistError                     the response of a create is lost
        └── APIStatusError                         the status of a response is an error
            ├── BadRequestError 400, AuthenticationError 401, PaymentRequiredError 402,
            │   PermissionDeniedError 403, NotFoundError 404, RequestTimeoutError 408,
            │   ConflictError 409, ContentTooLargeError 413 (RequestTooLargeError, too),
            │   UnprocessableEntityError 422, RateLimitError 429
            └── InternalServerError 500 and above
                └── ServiceUnavailableError 503, OverloadedError 529,
                    GatewayTimeoutError 504 (DeadlineExceededError, too)
"""

from __future__ import annotations

import base64
import contextlib
import copy
import email.message
import email.utils
import functools
import hashlib
import http.client
import io
import itertools
import json
import operator
import os
import random
import re
import socket
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections import Counter, defaultdict
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    ValuesView,
)
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta, timezone
from types import MappingProxyType, SimpleNamespace
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Generic,
    Literal,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
)

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    _Fields = Mapping[str, Any]
    _JSONObject = dict[str, Any]
    _Clock = Callable[[], float]
    _Headers = Mapping[str, Union[str, None]]
    # Seconds, None for no limit, or an object like the SDK's Timeout.
    _Timeout = Union[float, None, "_TimeoutObject"]

_T = TypeVar("_T")

__version__ = "1.0.0"

# ---- Constants -----------------------------------------------------------------------
# The limits of the API and of this file, each with its source.

# The older version 2023-06-01 still accepts temperature, top_p and top_k.
API_VERSION = "2026-10-21"
BASE_URL = "https://api.anthropic.com"
USER_AGENT = (
    f"claude-batches/{__version__} Python/{sys.version_info[0]}.{sys.version_info[1]}"
)

# API guide, "Batch processing", limitations; 256 MB is read as the smaller number.
MAX_BATCH_REQUESTS = 100_000
MAX_BATCH_BYTES = 256_000_000
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # API reference, Create a Message Batch

TIMEOUT = 600.0  # seconds for one read or write, as in the SDK
MAX_RETRIES = 2  # as in the SDK

# Seconds to connect, to open the tunnel of a proxy, and for TLS, each.
CONNECT_TIMEOUT = 10.0
# Seconds without traffic after which TCP asks whether the other side is still there: a
# NAT forgets a connection while a large create waits for its response.
KEEP_ALIVE = 60
# Seconds for the response of a server that closed during the upload.
REFUSAL_TIMEOUT = 5.0
# Seconds that the search for a batch takes at most, and how far before the create it
# goes.
SEARCH_TIMEOUT = 30.0
CLOCK_SLACK = timedelta(seconds=60)
# Seconds between two polls: at least, at most, and if the response does not say.
POLL_MIN, POLL_MAX, POLL_DEFAULT = 1.0, 60.0, 10.0
# Seconds for which 404 is ignored, from the first one on, and between two of them: a
# replica of the API may lag behind.
NOT_FOUND_SECONDS, NOT_FOUND_INTERVAL = 30.0, 3.0

# Bytes of any response but results; a longer one is an error.
MAX_RESPONSE_BYTES = 64_000_000
# Bytes of one read or write.  It is not larger because a write has one timeout.
BLOCK = 128 * 1024
SPOOL_BYTES = 4 * 1024 * 1024  # a larger body of a create goes into a temporary file

# ---- Client --------------------------------------------------------------------------
# What a user types.  A method is a docstring and one request: Requests checks the
# arguments, Transport sends the request, and Objects holds what is returned.

_BATCHES = "/v1/messages/batches"
# The body of a create, before and after its requests.
_HEAD, _END = b'{"requests":[', b"]}"


class _Closable:
    """What a ``with`` statement closes at its end."""

    def close(self) -> None:
        """Close what is open.  A client has nothing open between two calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Anthropic(_Closable):
    """A client of the API; several threads may use the same one.

    ``api_key`` or ``auth_token``, else ANTHROPIC_API_KEY, else ANTHROPIC_AUTH_TOKEN:
    sent as ``Authorization: Bearer``.
    ``base_url`` (without /v1), else ANTHROPIC_BASE_URL, else https://api.anthropic.com:
    the key goes to this origin and nowhere else.  No redirect is followed, and a
    results_url with another host is requested from base_url.
    ``timeout``: seconds for one read or write, more than 0 and less than 2e6, None for
    no limit, or an object whose ``read`` is one of these; each step of connecting has
    at most 10 seconds.
    ``max_retries``: 0 or more; a create is only retried if no batch can have been made.
    ``default_headers``, ``default_query``: sent with every request; the headers win
    over those of ANTHROPIC_CUSTOM_HEADERS (lines of ``Name: value``).  None leaves a
    header out; Authorization or x-api-key among them is a credential, too.
    ``ssl_context``: to trust a company's own CA, for instance; SSL_CERT_FILE works,
    too.
    ``opener``: anything with ``open(request, timeout=…)`` as in urllib, for tests and
    special transports.  Redirects, proxies, connecting, and responses during the upload
    are then the opener's own business.

    Raises InvalidRequestsError for an argument that breaks a rule; without a
    credential, the first request raises AnthropicError.  Every method also takes
    ``**options``: betas (names for ``anthropic-beta``), extra_headers (they win over
    all others, except for Host, Content-Length and Transfer-Encoding), extra_query,
    extra_body (where there is a body), timeout (instead of the client's) and
    workspace_id; it raises APIStatusError or APIConnectionError.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        auth_token: str | None = None,
        base_url: str | None = None,
        timeout: _Timeout = TIMEOUT,
        max_retries: int = MAX_RETRIES,
        default_headers: _Headers | None = None,
        default_query: _Fields | None = None,
        ssl_context: ssl.SSLContext | None = None,
        opener: Any = None,
    ) -> None:
        if api_key is not None and auth_token is not None:
            raise InvalidRequestsError("Give api_key or auth_token, not both")
        if api_key is None and auth_token is None:
            api_key = _variable("ANTHROPIC_API_KEY")
            auth_token = None if api_key else _variable("ANTHROPIC_AUTH_TOKEN")
        self.api_key = _checked_key(api_key)
        self.auth_token = _checked_key(auth_token)
        if not isinstance(max_retries, int) or max_retries < 0:
            raise InvalidRequestsError(
                f"max_retries must be 0 or more, not {max_retries!r}"
            )
        if base_url is None:
            base_url = _variable("ANTHROPIC_BASE_URL") or BASE_URL
        self.base_url = _checked_base_url(base_url)
        self.timeout = _checked_seconds("timeout", timeout)
        self.max_retries = max_retries
        self.ssl_context = ssl_context
        self.default_headers = _merged(_environment_headers(), default_headers)
        self.default_query = dict(default_query or {})
        if opener is None:
            opener = _Transport(ssl_context)
        self.opener = opener

    @functools.cached_property
    def messages(self) -> Messages:
        """The batches, and token counting."""
        return Messages(self)

    @functools.cached_property
    def models(self) -> Models:
        """The Models API."""
        return Models(self)

    @property
    def beta(self) -> Anthropic:
        """This client: the SDK has its betas here.  Name them in ``betas=[…]``."""
        return self

    def with_options(self, **changes: Unpack[_ClientOptions]) -> Anthropic:
        """Return a client that differs in the given arguments of the constructor.

        default_headers and default_query are merged into this client's.  None
        changes nothing, but for timeout: there it means no limit.
        """
        kept = {name: getattr(self, name) for name in _ClientOptions.__annotations__}
        given = _given(changes)
        if "timeout" in changes:
            given["timeout"] = changes["timeout"]
        if given.keys() & {"api_key", "auth_token"}:
            kept.update(api_key=None, auth_token=None)
        if isinstance(self.opener, _Transport) and "ssl_context" in given:
            kept["opener"] = None
        for name in ("default_headers", "default_query"):
            given[name] = {**kept[name], **given.get(name, {})}
        return Anthropic(**{**kept, **given})

    copy = with_options

    def _prepare(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        extra_query: _Fields | None = None,
        extra_body: _Fields | None = None,
        left: _Clock | None = None,
        **options: Any,
    ) -> _Call:
        """Return the call of a path below base_url, or of a URL; nothing is sent yet.

        ``left`` tells the seconds left for the whole response, None for no limit.
        ``options``: timeout, where None is no limit, too, and those of _headers.
        Raises InvalidRequestsError or AnthropicError.
        """
        timeout = _checked_seconds("timeout", options.pop("timeout", self.timeout))
        if method != "GET" and not isinstance(body, _Body):
            fields = {**(body or {}), **(extra_body or {})}
            body = _encode_json(fields) if fields else None
        headers = self._headers(method, body, **options)
        url = path if path.startswith("http") else self.base_url + path
        url = _with_query(url, {**self.default_query, **(extra_query or {})})
        return _Call(self.opener, method, url, headers, body, timeout, left)

    def _headers(
        self,
        method: str,
        body: Any,
        own: _Headers | None = None,
        betas: Iterable[str] | None = None,
        extra_headers: _Headers | None = None,
        workspace_id: str | None = None,
        user_profile_id: str | None = None,
    ) -> _Headers:
        """Return the headers of a request; each layer wins over those before it.

        Raises as _encoded_headers.
        """
        basic = {
            "accept": "application/json",
            "user-agent": USER_AGENT,
            "anthropic-version": API_VERSION,
        }
        if method != "GET":
            basic["content-type"] = "application/json"
        credential = self.api_key or self.auth_token
        if credential:
            basic["authorization"] = f"Bearer {credential}"
        # An iterator would be used up by the first of several requests.
        if isinstance(betas, (str, bytes, Iterator)):
            raise InvalidRequestsError(f"betas must be a list of names, not {betas!r}")
        arguments = {
            "anthropic-workspace-id": workspace_id,
            "anthropic-user-profile-id": user_profile_id,
            "anthropic-beta": ",".join(map(str, betas or ())) or None,
        }
        # The caller cannot choose these: they belong to the connection.
        size = str(body.size) if isinstance(body, _Body) else None
        framing = {"host": None, "content-length": size, "transfer-encoding": None}
        layers = basic, own, self.default_headers, _given(arguments), extra_headers
        return _encoded_headers(_merged(*layers, framing))

    def _send(
        self,
        call: _Call,
        read: Callable[[Any], _T],
        final: tuple[type[APIError], ...] = (),
    ) -> _T:
        """Return what ``read`` makes of the response, after retries that are allowed.

        Raises the last APIError; one of the classes in ``final`` at once.
        """
        while True:
            try:
                return read(call.open())
            except final:
                raise
            except APIError as error:
                call.failures += 1
                is_last = call.failures > self.max_retries
                if is_last or not _is_retryable(error, call.body):
                    raise
                seconds = _retry_after(error.headers) or _backoff(call.failures)
                _pause(seconds, error)

    def _fetch(self, cls: type[_T], method: str, path: str, **options: Any) -> _T:
        """Send a request and return its response as an object of ``cls``."""
        return self._fetch_call(cls, self._prepare(method, path, **options))

    def _fetch_call(self, cls: type[_T], call: _Call) -> _T:
        fields, headers = self._send(call, call.read_json)
        obj = _object_of(cls, call, fields)
        obj._headers = headers
        return obj  # type: ignore[no-any-return]

    def _fetch_page(
        self,
        cls: type[_T],
        path: str,
        query: _JSONObject,
        *earlier: _JSONObject,
        extra_query: _Fields | None = None,
        **options: Any,
    ) -> Page[_T]:
        """Send a request and return its response as a Page of objects of ``cls``.

        ``earlier``: the queries of the pages before it.
        """
        # It is plain JSON, because each later page sends it again, and an iterator
        # would be used up; then the cursor of a later page wins over extra_query.
        query = _plain({**_given(query), **(extra_query or {})})
        call = self._prepare("GET", path, extra_query=query, **options)
        page: Page[_T] = self._fetch_call(Page, call)
        page._queries = query, *earlier
        page._fetch = functools.partial(self._fetch_page, cls, path, **options)
        rows = page.data or ()
        page.data = [_object_of(cls, call, row) for row in rows]
        return page


# The SDK has this name, too.
Client = Anthropic


class _Resource:
    """A part of the API, whose calls go through a client."""

    def __init__(self, client: Anthropic) -> None:
        self._client = client


class Messages(_Resource):
    """``client.messages``: the batches, and token counting."""

    @functools.cached_property
    def batches(self) -> Batches:
        """The Message Batches API."""
        return Batches(self._client)

    def count_tokens(
        self,
        *,
        model: str,
        messages: Iterable[Mapping[str, Any]],
        **more: Unpack[_TokenOptions],
    ) -> MessageTokensCount:
        """Count the input tokens of a message, free of charge.

        ``more``: the message's system, tools, tool_choice, thinking, cache_control,
        output_config and speed, where it has them (anything else, max_tokens too, is a
        BadRequestError); under a beta also mcp_servers, context_management, compaction
        and billing_policy; the options of every method; user_profile_id.
        Source: API reference, Count tokens in a Message.
        """
        body: _JSONObject = {"messages": messages, "model": model, **more}
        names = _CreateOptions.__annotations__
        options = {name: body.pop(name) for name in names if name in body}
        path = "/v1/messages/count_tokens"
        return self._client._fetch(
            MessageTokensCount, "POST", path, body=body, **options
        )


class Batches(_Resource):
    """``client.messages.batches``: the Message Batches API.

    A method that takes an id raises ValueError for an empty one, and NotFoundError if
    there is no such batch; for a second or two after a create that may be wrong.
    Source: API reference, a page for each method.
    """

    def create(
        self,
        *,
        requests: Iterable[Mapping[str, Any]],
        **options: Unpack[_CreateOptions],
    ) -> MessageBatch:
        """Make a batch, once, and return it.

        ``requests``: any iterable of 1 to 100,000 objects ``{"custom_id", "params"}``,
        at most 256,000,000 bytes in all.  custom_id: 1 to 64 of ``a-z A-Z 0-9 _ -``,
        unique in the batch; params: those of a message.  Each is checked, and encoded
        into a temporary file, before anything is sent.

        Raises InvalidRequestsError for a request that breaks a rule, with its index and
        custom_id; BatchMayExistError if the whole body was sent and no response says
        whether the batch was made: look before you create it again; another APIError if
        no batch was made; AnthropicError if the temporary file finds no room (set
        TMPDIR); and what the iterable raises, unchanged.
        """
        tail = _tail(options.pop("extra_body", None))
        encoded = _encoded(requests, len(tail))
        return self._create(encoded, lambda: None, tail, **options)

    def _create(
        self,
        encoded: Iterable[bytes],
        before_last_block: Callable[[], None],
        tail: bytes = _END,
        **options: Any,
    ) -> MessageBatch:
        """Make a batch of requests that are encoded; raises as create().

        ``before_last_block`` is called when all but the last block has been sent.
        ``tail``: what follows the requests in the body.
        """
        with contextlib.closing(_Body(before_last_block)) as body:
            body.spool(encoded, tail)
            call = self._client._prepare("POST", _BATCHES, body=body, **options)
            try:
                return self._client._fetch_call(MessageBatch, call)
            except APIError as error:
                if not _batch_may_exist(error, body.is_sent):
                    raise
                raise self._lost(error, call, body.count, options) from error

    def _lost(
        self, error: APIError, call: _Call, count: int, options: _Fields
    ) -> BatchMayExistError:
        """Return the error of a create whose response is lost, with its candidates."""
        sent_at = candidates = None
        found = "the search for it failed"
        # If the search fails, too, the error to report is still that of the create.
        with contextlib.suppress(AnthropicError, RecursionError):
            sent_at, candidates = self._candidates(call, count, options)
            ids = ", ".join(call.masked(batch.id) for batch in candidates)
            found = "batches of that size made since then: "
            found += ids or "none, which proves nothing"
        return BatchMayExistError(
            f"No response says whether a create of {_plural(count, 'request')} made "
            f"its batch; it may exist, and be billed; {found}. Look before you create "
            f"it again. {error}",
            request_count=count,
            sent_at=sent_at,
            candidates=candidates,
        )

    def _candidates(
        self, call: _Call, count: int, options: _Fields
    ) -> tuple[datetime, list[MessageBatch]]:
        """Return when a create was sent, by the server's clock, and the batches of its
        size that were made since then, or tell no size.
        """
        client = self._client.with_options(max_retries=0)
        limits = {"timeout": SEARCH_TIMEOUT, "left": _countdown(SEARCH_TIMEOUT)}
        page = client.messages.batches.list(limit=100, **{**options, **limits})
        now = _http_date(page._headers.get("date"))
        if now is None:
            raise APIResponseValidationError("The list has no Date")
        sent_at = now - timedelta(seconds=call.elapsed())
        found = []
        # They come newest first.
        for batch in page:
            if (_moment(batch.created_at) or now) < sent_at - CLOCK_SLACK:
                break
            if _size(batch) in (count, None):
                found.append(batch)
        return sent_at, found

    def retrieve(
        self, message_batch_id: str, **options: Unpack[_Options]
    ) -> MessageBatch:
        """Return a batch as it is now."""
        path = _batch_path(message_batch_id)
        return self._client._fetch(MessageBatch, "GET", path, **options)

    def list(
        self,
        *,
        after_id: str | None = None,
        before_id: str | None = None,
        limit: int | None = None,
        **options: Unpack[_Options],
    ) -> Page[MessageBatch]:
        """List the batches of the workspace, newest first.

        ``limit``: batches of a page, 1 to 1000, by the API's default 20; ``after_id``:
        start after this batch; ``before_id``: start before it, and go towards the newer
        ones.  Returns the first Page, which iterates over all of them.
        """
        query = {"after_id": after_id, "before_id": before_id, "limit": limit}
        return self._client._fetch_page(MessageBatch, _BATCHES, query, **options)

    def cancel(
        self, message_batch_id: str, **options: Unpack[_Options]
    ) -> MessageBatch:
        """End a running batch early: it is ``canceling``, then ``ended``.

        Requests that are being processed may still succeed.
        """
        path = _batch_path(message_batch_id) + "/cancel"
        return self._client._fetch(MessageBatch, "POST", path, **options)

    def delete(
        self, message_batch_id: str, **options: Unpack[_Options]
    ) -> DeletedMessageBatch:
        """Delete an ended batch and its results.

        Raises BadRequestError for a running one: cancel it first.
        """
        path = _batch_path(message_batch_id)
        return self._client._fetch(DeletedMessageBatch, "DELETE", path, **options)

    def results(self, message_batch_id: str, **options: Unpack[_Options]) -> Results:
        """Download the results of an ended batch, row by row.

        A connection that is lost is opened again.  ``extra_headers`` and
        ``extra_query`` belong to the download, not to the retrieve before it, as in the
        SDK.

        A row that cannot be read counts as missing, and does not hide the rows behind
        it.  For 30 seconds a 404 of the batch, or of the results of an ended one, is
        ignored.

        Raises AnthropicError, at the call, if the batch has no results (yet); later
        IncompleteResultsError if rows stay missing after max_retries without a new one;
        APIResponseValidationError for more rows than requests.
        """
        plain: _JSONObject = {**options, "extra_headers": None, "extra_query": None}
        batch = _ignoring_404(lambda: self.retrieve(message_batch_id, **plain))
        url = batch.results_url
        if not isinstance(url, str) or not url:
            status: str = batch.processing_status
            if batch.archived_at:
                status = "ended, and archived"
            status = self._client._prepare("GET", "").masked(status)
            raise AnthropicError(
                f"No results_url for batch {message_batch_id}: its status is {status}"
            )
        url = _at_origin(self._client.base_url, url)
        own = {"accept": "application/binary", "accept-encoding": "gzip"}
        call = self._client._prepare("GET", url, own=own, **options)
        return Results(self._client, call, batch)

    def wait(
        self,
        message_batch_id: str,
        *,
        poll_interval: float | None = None,
        timeout: float | None = None,
        on_poll: Callable[[MessageBatch], object] | None = None,
        **options: Unpack[_WaitOptions],
    ) -> MessageBatch:
        """Poll until the batch has ended, and return it.

        It waits through lost connections, 429 and 5xx without a limit of its own, and
        through 404 for 30 seconds.

        ``poll_interval``: seconds between polls, 0 or more; else what the API asks for,
        kept within 1 to 60, or 10.  ``timeout``: seconds for the whole wait, more than
        0, or None.  Both are less than 2e6.  ``on_poll`` is called with each batch that
        was received.

        Raises WaitTimeoutError, and APIError for an error that does not go away by
        waiting: 401, 403, a 404 that stays, a response that is not a batch.
        """
        # 0 seconds are allowed here.
        _checked_seconds("poll_interval", poll_interval or None)
        end = _checked_seconds("timeout", timeout) or float("inf")
        path = _batch_path(message_batch_id)
        longest = min(POLL_MAX, self._client.timeout or POLL_MAX)
        client = self._client.with_options(max_retries=0, timeout=longest)
        left = _countdown(end)
        fetch = functools.partial(
            client._fetch, MessageBatch, "GET", path, left=left, **options
        )
        batch = None
        while left() > 0:
            try:
                batch = _ignoring_404(fetch, left)
            except APIError as error:
                if not error._is_transient:
                    raise
                seconds = _poll_delay(error.headers, poll_interval)
                _pause(min(seconds, left()), error)
                continue
            if on_poll:
                on_poll(batch)
            if batch.processing_status == "ended":
                return batch
            seconds = _poll_delay(batch._headers, poll_interval)
            time.sleep(min(seconds, left()))
        message = f"Batch {message_batch_id} has not ended within {end:g} s; it goes on"
        raise WaitTimeoutError(message, batch=batch)


class Models(_Resource):
    """``client.models``: the Models API.  Source: API reference, Models."""

    def retrieve(self, model_id: str, **options: Unpack[_Options]) -> ModelInfo:
        """Return a model by its id or an alias.

        Raises NotFoundError if there is none, ValueError for an empty id.
        """
        path = f"/v1/models/{_segment('model_id', model_id)}"
        return self._client._fetch(ModelInfo, "GET", path, **options)

    def list(
        self,
        *,
        after_id: str | None = None,
        before_id: str | None = None,
        limit: int | None = None,
        lifecycle: Iterable[str] | None = None,
        **options: Unpack[_Options],
    ) -> Page[ModelInfo]:
        """List the models, newest first.

        ``after_id``, ``before_id``, ``limit``: as for batches.  ``lifecycle``: which of
        ``active``, ``deprecated`` and ``retired`` to list; by default all but the
        retired.  Returns the first Page, which iterates over all of them.
        """
        query = {
            "after_id": after_id,
            "before_id": before_id,
            "limit": limit,
            "lifecycle": lifecycle,
        }
        return self._client._fetch_page(ModelInfo, "/v1/models", query, **options)


# ---- Objects -------------------------------------------------------------------------
# What goes into a call, as types for checkers; and what the API sends: plain
# dataclasses, pages and results.  Only _from_json makes a record of JSON.


class _TimeoutObject(Protocol):
    """What the SDK's Timeout has: this client needs only ``read``."""

    @property
    def read(self) -> float | None: ...


class _WaitOptions(TypedDict, total=False):
    """What every method takes; wait has a timeout of its own."""

    betas: Iterable[str] | None
    extra_headers: _Headers | None
    extra_query: _Fields | None
    workspace_id: str | None


class _Options(_WaitOptions, total=False):
    extra_body: _Fields | None
    timeout: _Timeout


class _CreateOptions(_Options, total=False):
    user_profile_id: str | None


class _CountedParams(TypedDict, total=False):
    """The params of a request that count_tokens takes, too."""

    cache_control: Any
    output_config: Any
    system: Any
    thinking: Any
    tool_choice: Any
    tools: Iterable[Mapping[str, Any]]


class _TokenOptions(_CreateOptions, _CountedParams, total=False):
    """What count_tokens takes besides model and messages."""

    speed: Any
    mcp_servers: Iterable[Any]
    context_management: Any
    compaction: Any
    billing_policy: Any


class _ClientOptions(TypedDict, total=False):
    api_key: str | None
    auth_token: str | None
    base_url: str | None
    timeout: _Timeout
    max_retries: int
    default_headers: _Headers | None
    default_query: _Fields | None
    ssl_context: ssl.SSLContext | None
    opener: Any


class _RequiredParams(TypedDict):
    model: str
    max_tokens: int
    messages: Iterable[Mapping[str, Any]]


class MessageCreateParamsNonStreaming(_RequiredParams, _CountedParams, total=False):
    """The params of a request: a dict, at run time.

    Source: API reference, Messages.
    """

    container: Any
    diagnostics: Any
    inference_geo: str | None
    metadata: Any
    service_tier: str
    stop_sequences: Iterable[str]
    temperature: float
    top_k: int
    top_p: float


class Request(TypedDict):
    """One request of a batch: a dict, at run time."""

    custom_id: str
    params: MessageCreateParamsNonStreaming


class _Object:
    """The base of what the API sends: its attributes are the fields of the JSON.

    A declared field that is missing is None; one that is not declared is an attribute
    if it came.  ``_nested`` names the fields whose JSON is not their value, each with
    its class, with datetime, or with a class for each value of ``type``; ``_required``
    is the field, with its type, that a response of the class, or a row of a list, has.
    """

    __slots__ = ("_headers",)
    _nested: tuple[tuple[str, Any], ...] = ()
    _required: tuple[str, Any] = ("id", str)
    _headers: Mapping[str, str]

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> None:
            # A declared field is None: a gateway may leave out what the API always
            # sends.
            if name not in getattr(type(self), "__dataclass_fields__", ()):
                cls = type(self).__name__
                raise AttributeError(f"{cls!r} object has no attribute {name!r}")

    @property
    def _request_id(self) -> str | None:
        """The request id of the response; None for an object inside one."""
        return getattr(self, "_headers", {}).get("request-id")

    # A field may hide a method, so this file calls these on the class, not on objects.

    def to_dict(self, *, mode: str = "json") -> _JSONObject:
        """Return the fields that came; ``mode`` as in model_dump()."""
        return _Object.model_dump(self, mode=mode, exclude_unset=True)

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the fields that came as a text of JSON."""
        return _dump_json(_dump(self, exclude_unset=True), indent)

    def model_dump(
        self,
        *,
        mode: str = "python",
        exclude_none: bool = False,
        exclude_unset: bool = False,
    ) -> _JSONObject:
        """Return all declared fields and those that came, as in the SDK.

        ``mode``: "python" keeps times as datetimes, "json" gives them as text.
        """
        fields = _dump(self, exclude_none, exclude_unset)
        if mode == "json":
            fields = json.loads(_dump_json(fields))
        return fields  # type: ignore[no-any-return]

    def model_dump_json(
        self, *, indent: int | None = None, exclude_none: bool = False
    ) -> str:
        """Return all declared fields and those that came as a text of JSON."""
        return _dump_json(_dump(self, exclude_none), indent)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield names and values, as ``dict(batch)`` needs them."""
        return iter(_fields_of(self).items())

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __dir__(self) -> Iterable[str]:
        return {*super().__dir__(), *_fields_of(self)}

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"


def _from_json(nested: Any, value: Any) -> Any:
    """Return a value as ``nested`` says; one that has another form stays as it is.

    An object takes over the dict; nothing is copied.  What is nested too deep in it
    stays as it came.
    """
    if type(value) is list:
        return [_from_json(nested, item) for item in value]
    if nested is datetime:
        return _parse_time(value)
    if type(value) is not dict:
        return value
    if type(nested) is dict:
        nested = nested.get(str(value.get("type")), nested[None])
    is_open = nested is OpenObject
    fields = [(name, nested) for name in value] if is_open else nested._nested
    try:
        for name, inner in fields:
            field = value.get(name)
            if field is not None:
                value[name] = _from_json(inner, field)
    except RecursionError:
        pass
    obj = object.__new__(nested)
    obj.__dict__ = value
    return obj


# datetime.fromisoformat before 3.11 takes neither Z nor other than 3 or 6 digits of
# fraction.
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(?:[Zz]|([+-]\d\d:\d\d))?"
)


def _parse_time(text: Any) -> Any:
    """Return a text that is a time as a datetime in UTC, and all else unchanged.

    A time without a zone is UTC.
    """
    match = _RFC_3339.fullmatch(text) if isinstance(text, str) else None
    if match:
        day, clock, fraction, zone = match.groups()
        moment = f"{day}T{clock}{fraction or '.':0<7}{zone or '+00:00'}"
        with contextlib.suppress(ValueError, OverflowError):
            return datetime.fromisoformat(moment).astimezone(timezone.utc)
    return text


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _moment(value: Any) -> datetime | None:
    """Return the value of a field if it is a time that could be read, else None."""
    return value if isinstance(value, datetime) else None


def _time_text(moment: date) -> str:
    """Return a time as the API writes it; UTC is Z."""
    return moment.isoformat().replace("+00:00", "Z")


def _dump(value: Any, exclude_none: bool = False, exclude_unset: bool = False) -> Any:
    """Return a copy in which objects are dicts."""
    if isinstance(value, list):
        return [_dump(item, exclude_none, exclude_unset) for item in value]
    if not isinstance(value, _Object):
        return copy.deepcopy(value)
    fields = vars(value) if exclude_unset else _fields_of(value)
    return {
        name: _dump(item, exclude_none, exclude_unset)
        for name, item in fields.items()
        if item is not None or not exclude_none
    }


def _fields_of(obj: _Object) -> _JSONObject:
    """Return all declared fields of an object, and those that came."""
    declared = getattr(obj, "__dataclass_fields__", ())
    return {**dict.fromkeys(declared), **vars(obj)}


def _dump_json(fields: Any, indent: int | None = None) -> str:
    return json.dumps(
        fields,
        indent=indent,
        separators=(",", ": " if indent else ":"),
        ensure_ascii=False,
        default=_time_text,
    )


class OpenObject(_Object):
    """An object whose fields this file does not declare: it has what came.

    An object inside one is another of these.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


@dataclass(init=False, eq=False, repr=False)
class MessageBatchRequestCounts(_Object):
    """How many requests of a batch are in each state; all of them are in one."""

    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int


@dataclass(init=False, eq=False, repr=False)
class MessageBatch(_Object):
    """A batch.  It has results once it is ``ended``."""

    id: str
    type: Literal["message_batch"]
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: MessageBatchRequestCounts
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    cancel_initiated_at: datetime | None
    archived_at: datetime | None
    results_url: str | None
    _nested = (
        ("request_counts", MessageBatchRequestCounts),
        ("created_at", datetime),
        ("expires_at", datetime),
        ("ended_at", datetime),
        ("cancel_initiated_at", datetime),
        ("archived_at", datetime),
    )


def _size(batch: MessageBatch) -> int | None:
    """Return how many requests a batch has, None if it does not tell."""
    # Gateways add numbers of their own, which do not count, and may write 3 as 3.0.
    size = 0
    for name in MessageBatchRequestCounts.__annotations__:
        value = getattr(batch.request_counts, name, None)
        if isinstance(value, (int, float)) and 0 < value < 1e9:
            size += int(value)
    return size or None


@dataclass(init=False, eq=False, repr=False)
class DeletedMessageBatch(_Object):
    """The response to a delete."""

    id: str
    type: Literal["message_batch_deleted"]


@dataclass(init=False, eq=False, repr=False)
class MessageTokensCount(_Object):
    """The response of count_tokens."""

    input_tokens: int
    _required = ("input_tokens", int)


@dataclass(init=False, eq=False, repr=False)
class ModelInfo(_Object):
    """A model.  ``capabilities.batch.supported`` says whether batches may use it."""

    id: str
    type: Literal["model"]
    display_name: str
    created_at: datetime
    lifecycle: Literal["active", "deprecated", "retired"]
    deprecated_at: datetime | None
    retires_at: datetime | None
    line: str | None
    max_input_tokens: int | None
    max_tokens: int | None
    capabilities: OpenObject | None
    _nested = (
        ("created_at", datetime),
        ("deprecated_at", datetime),
        ("retires_at", datetime),
        ("capabilities", OpenObject),
    )


@dataclass(init=False, eq=False, repr=False)
class TextBlock(_Object):
    """A text of a message, with its citations if it has any."""

    type: Literal["text"]
    text: str
    citations: list[OpenObject] | None
    _nested = (("citations", OpenObject),)


@dataclass(init=False, eq=False, repr=False)
class ThinkingBlock(_Object):
    """What the model thought."""

    type: Literal["thinking"]
    thinking: str
    signature: str


@dataclass(init=False, eq=False, repr=False)
class RedactedThinkingBlock(_Object):
    """What the model thought, encrypted."""

    type: Literal["redacted_thinking"]
    data: str


@dataclass(init=False, eq=False, repr=False)
class ToolUseBlock(_Object):
    """A call of a tool.  ``input`` is free JSON."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: OpenObject | None
    toolset_name: str | None
    _nested = (("caller", OpenObject),)


class OtherContentBlock(OpenObject):
    """A block of any other type: it has the fields that came.

    ``type`` may be one that is not listed here; ``input`` is free JSON.
    """

    type: Literal[
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "container_upload",
    ]
    _nested = (
        ("caller", OpenObject),
        ("citations", OpenObject),
        ("content", OpenObject),
    )


ContentBlock = Union[
    TextBlock, ThinkingBlock, RedactedThinkingBlock, ToolUseBlock, OtherContentBlock
]
_CONTENT_BLOCKS = {
    "text": TextBlock,
    "thinking": ThinkingBlock,
    "redacted_thinking": RedactedThinkingBlock,
    "tool_use": ToolUseBlock,
    None: OtherContentBlock,
}


@dataclass(init=False, eq=False, repr=False)
class Usage(_Object):
    """The tokens of a message."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | None
    cache_read_input_tokens: int | None
    cache_creation: OpenObject | None
    server_tool_use: OpenObject | None
    service_tier: str | None
    inference_geo: str | None
    speed: str | None
    output_tokens_details: OpenObject | None
    _nested = (
        ("cache_creation", OpenObject),
        ("server_tool_use", OpenObject),
        ("output_tokens_details", OpenObject),
    )


@dataclass(init=False, eq=False, repr=False)
class Container(_Object):
    """The container in which code was executed."""

    id: str
    expires_at: datetime
    skills: list[OpenObject] | None
    _nested = (
        ("expires_at", datetime),
        ("skills", OpenObject),
    )


@dataclass(init=False, eq=False, repr=False)
class Message(_Object):
    """The model's response to one request."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ContentBlock]
    stop_reason: str | None
    stop_sequence: str | None
    stop_details: OpenObject | None
    container: Container | None
    diagnostics: OpenObject | None
    usage: Usage
    _nested = (
        ("content", _CONTENT_BLOCKS),
        ("usage", Usage),
        ("stop_details", OpenObject),
        ("container", Container),
        ("diagnostics", OpenObject),
    )


@dataclass(init=False, eq=False, repr=False)
class ErrorObject(_Object):
    """The API's error.  Source: API reference, Errors."""

    type: str
    message: str
    details: OpenObject | None
    _nested = (("details", OpenObject),)


@dataclass(init=False, eq=False, repr=False)
class ErrorResponse(_Object):
    """The error of an errored row: ``error.error`` has type, message and details."""

    type: Literal["error"]
    error: ErrorObject
    request_id: str | None
    _nested = (("error", ErrorObject),)


@dataclass(init=False, eq=False, repr=False)
class MessageBatchSucceededResult(_Object):
    """The request succeeded; only then it is billed."""

    type: Literal["succeeded"]
    message: Message
    _nested = (("message", Message),)


@dataclass(init=False, eq=False, repr=False)
class MessageBatchErroredResult(_Object):
    """The request failed."""

    type: Literal["errored"]
    error: ErrorResponse
    _nested = (("error", ErrorResponse),)


@dataclass(init=False, eq=False, repr=False)
class MessageBatchCanceledResult(_Object):
    """The batch was canceled before the request was processed."""

    type: Literal["canceled"]


@dataclass(init=False, eq=False, repr=False)
class MessageBatchExpiredResult(_Object):
    """The batch expired before the request was processed."""

    type: Literal["expired"]


MessageBatchResult = Union[
    MessageBatchSucceededResult,
    MessageBatchErroredResult,
    MessageBatchCanceledResult,
    MessageBatchExpiredResult,
]
_RESULTS = {
    "succeeded": MessageBatchSucceededResult,
    "errored": MessageBatchErroredResult,
    "canceled": MessageBatchCanceledResult,
    "expired": MessageBatchExpiredResult,
    None: OpenObject,
}


@dataclass(init=False, eq=False, repr=False)
class MessageBatchIndividualResponse(_Object):
    """A row of results.  Rows come in any order: ``custom_id`` names the request."""

    custom_id: str
    result: MessageBatchResult
    _nested = (("result", _RESULTS),)


class Page(_Object, Generic[_T]):
    """A page of a list.

    Iterating it gives its objects and those of all pages after it; each page is fetched
    when it is reached.

    It has the API's ``data``, ``has_more``, ``first_id`` and ``last_id``.
    """

    data: list[_T]
    has_more: bool | None = None
    first_id: str | None = None
    last_id: str | None = None
    # A gateway's empty list may be null.
    _required = ("data", (list, type(None)))
    # _queries holds the query of this page, then those of the pages before it; _fetch
    # returns the page of such queries.
    __slots__ = ("__dict__", "_fetch", "_queries")
    _queries: tuple[_JSONObject, ...]
    _fetch: Callable[..., Page[_T]]

    def next_page_info(self) -> OpenObject | None:
        """Return an object whose ``params`` ask for the next page, None without one.

        There is none after ``has_more: false``, an empty page, or one without a cursor.
        The direction stays the one that was asked for.
        """
        if self.has_more is False or not self.data:
            return None
        name, cursor = "after_id", self.last_id
        if self._queries[0].get("before_id"):
            name, cursor = "before_id", self.first_id
        return OpenObject(params={name: cursor}) if cursor else None

    def has_next_page(self) -> bool:
        """Tell whether there is a next page."""
        return Page.next_page_info(self) is not None

    def get_next_page(self) -> Page[_T]:
        """Fetch the next page.

        Raises RuntimeError on the last one, APIResponseValidationError for a cursor
        that came before.
        """
        info = Page.next_page_info(self)
        if info is None:
            raise RuntimeError(
                "No next page: ask has_next_page() before get_next_page()"
            )
        query = {**self._queries[0], **info.params}
        (cursor,) = info.params.values()
        if query in self._queries or not isinstance(cursor, str):
            raise APIResponseValidationError(
                "The list repeats a cursor, or has one that is not a text"
            )
        return self._fetch(query, *self._queries)

    def iter_pages(self) -> Iterator[Page[_T]]:
        """Yield this page and all after it, each fetched when it is reached.

        Raises APIResponseValidationError for a cursor that came before.
        """
        page = self
        yield page
        while Page.has_next_page(page):
            page = Page.get_next_page(page)
            yield page

    def __iter__(self) -> Iterator[_T]:  # type: ignore[override]
        for page in Page.iter_pages(self):
            yield from page.data


class Results(_Closable):
    """The rows of a batch, an iterator of MessageBatchIndividualResponse.

    It holds a connection until its end: close() it, or use ``with``, to stop before.
    An error is raised again at each attempt to go on, so that incomplete results never
    look whole.
    """

    # What the next attempt to go on raises.
    _error: AnthropicError | None = None

    def __init__(self, client: Anthropic, call: _Call, batch: MessageBatch) -> None:
        self._client = client
        self._call = call
        self._batch_id = call.masked(batch.id)
        self._expected = _size(batch)
        self._custom_ids: set[str] = set()
        self._response = self._open()
        self._rows = self._all_rows()
        # A generator that has raised would end quietly when it is asked again.
        self._objects = itertools.chain(self._records(), iter(self._end, None))

    def _open(self) -> Any:
        """Send the request.  For 30 seconds a 404 is not final.

        The batch has ended, so a 404 comes from a replica that lags behind.
        """
        # No retry helps against these.
        final = (AuthenticationError, PermissionDeniedError, NotFoundError)
        return _ignoring_404(
            lambda: self._client._send(self._call, lambda response: response, final)
        )

    def _all_rows(self) -> Generator[tuple[bytes, _JSONObject], None, None]:
        """Yield the line, with its newline, and the JSON of each row once.

        Raises IncompleteResultsError if opening the results again does not help.
        """
        while True:
            try:
                with contextlib.closing(self._response):
                    yield from self._new_rows()
                return
            except APIConnectionError as error:
                self._call.failures += 1
                if self._call.failures > self._client.max_retries:
                    raise self._incomplete(error) from error
                _pause(_backoff(self._call.failures), error)
            try:
                self._response = self._open()
            except APIError as error:
                raise self._incomplete(error) from error

    def _new_rows(self) -> Iterator[tuple[bytes, _JSONObject]]:
        """Yield the rows of one response that no response before it had.

        Raises APIConnectionError if it ends before the last row.
        """
        count = 0
        bad_row = ""
        for line in _lines(self._call.blocks(self._response)):
            row = _decode_row(line)
            if row:
                if row["custom_id"] not in self._custom_ids:
                    self._custom_ids.add(row["custom_id"])
                    self._call.failures = 0
                    yield line, row
            elif line.isspace():
                continue
            elif not bad_row:
                shown = self._call.quoted(line.decode("utf-8", "replace"))
                bad_row = (
                    f"a row of {len(line)} bytes, after {count} good ones, is not JSON "
                    f"with a custom_id: {shown}"
                )
            count += 1
        received = len(self._custom_ids)
        expected = self._expected
        if expected and received > expected:
            raise APIResponseValidationError(
                f"Batch {self._batch_id}: {_plural(received, 'row')} for "
                f"{_plural(expected, 'request')}"
            )
        # The results of a batch that tells no counts have a row at least, and each
        # response has all of them.
        is_whole = 0 < received == (expected or count)
        if not is_whole:
            reason = bad_row or "the results ended early"
            raise APIConnectionError(f"{reason} ({self._call})")

    def _incomplete(self, error: BaseException) -> IncompleteResultsError:
        cause = str(error) or type(error).__name__
        received = len(self._custom_ids)
        return IncompleteResultsError(
            f"Batch {self._batch_id}: {received} of {self._expected or '?'} rows came; "
            f"then: {cause}",
            expected=self._expected,
            received=received,
        )

    def _records(self) -> Iterator[MessageBatchIndividualResponse]:
        try:
            for _, row in self._rows:
                yield _from_json(MessageBatchIndividualResponse, row)
        except BaseException as error:
            # After an interrupt, too, what is left must not look like the end.
            self._error = self._incomplete(error)
            if isinstance(error, AnthropicError):
                self._error = error
            raise

    def _end(self) -> Any:
        if self._error:
            raise self._error

    def __iter__(self) -> Iterator[MessageBatchIndividualResponse]:
        # It returns another iterator and not itself, because that is faster.
        return self._objects

    def __next__(self) -> MessageBatchIndividualResponse:
        return next(iter(self))

    def close(self) -> None:
        """End the iteration and close the connection."""
        self._rows.close()
        self._response.close()


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines, each with a newline, at a cost linear in their length.

    They end at \\n alone, as those of BytesIO do.  str.splitlines() would split at
    U+2028, too, which is legal inside a JSON string.
    """
    # The pieces of a line whose end has not come yet.
    begun: list[bytes] = []
    for block in blocks:
        for piece in io.BytesIO(block):
            begun.append(piece)
            if piece.endswith(b"\n"):
                yield b"".join(begun)
                begun.clear()
    if begun:
        yield b"".join(begun) + b"\n"


_decoder = json.JSONDecoder()


def _decode_row(line: bytes) -> _JSONObject | None:
    """Return the JSON of a row, None if it is not JSON with a custom_id."""
    try:
        text = line.decode().strip()
        # loads() would search for white space twice.
        row, end = _decoder.raw_decode(text)
    except _NOT_JSON:
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("custom_id"), str)
    return row if is_row and end == len(text) else None


# What decoding a line, and json.loads, raise for bytes that are not JSON.
_NOT_JSON = (ValueError, RecursionError)


def iter_json_lines(blocks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the JSON of each line.

    Blank lines, white space around JSON, and a missing last newline are allowed.
    ``blocks``: bytes, cut anywhere: those of a download, or a file opened in binary
    mode.
    Raises APIResponseValidationError for a line that is not JSON, with its number from
    1.
    Source: https://jsonlines.org
    """
    for number, line in enumerate(_lines(blocks), 1):
        try:
            if not line.isspace():
                yield json.loads(line.decode())
        except _NOT_JSON as error:
            raise APIResponseValidationError(
                f"line {number} is not JSON: {error}"
            ) from None


# ---- Errors --------------------------------------------------------------------------
# All that the client raises.  The tree is in the docstring at the top.


class AnthropicError(Exception):
    """The base class of all errors of this file.

    ``fields`` are the attributes that the class declares.
    """

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.__dict__.update(fields)


class InvalidRequestsError(AnthropicError, ValueError):
    """An argument breaks a rule; nothing was sent.

    The error of a create names the request's index and custom_id.
    """


class WaitTimeoutError(AnthropicError, TimeoutError):
    """The batch did not end in time; it goes on.

    ``batch``: as it was last seen; None if no poll succeeded.
    """

    batch: MessageBatch | None = None


class APIError(AnthropicError):
    """A request failed.  An attribute that the response did not set is None.

    ``type``: the API's name of the error; ``body``: the response's JSON, or its text;
    ``headers``: by names in lower case.
    """

    status_code: Any = None
    request_id: str | None = None
    type: str | None = None
    body: object = None
    headers: Mapping[str, str] = MappingProxyType({})
    # The same request may succeed later.  That is all that the SDK retries, except for
    # certificates.
    _is_transient = False

    @property
    def message(self) -> str:
        """What str() gives."""
        return str(self)


class APIConnectionError(APIError):
    """No response came, or one that is not whole or not the API's."""

    _is_transient = True


class APITimeoutError(APIConnectionError):
    """Connecting, one read or one write took longer than its timeout."""


class IncompleteResultsError(APIConnectionError):
    """Of ``expected`` rows ``received`` came, and no retry helped.

    ``expected`` is None if the batch told no counts.
    """

    expected: int | None = None
    received: int = 0


class APIResponseValidationError(APIError):
    """A response breaks the API's own rules.

    For instance a batch without an id, or a list that goes in circles.
    """


class BatchMayExistError(APIError):
    """A create was sent, and no response says whether it made a batch.

    The batch may exist, and be billed.  ``request_count`` requests were sent at
    ``sent_at`` (server time, None if unknown).  ``candidates``: the batches of that
    size, or that tell none, made since a minute before that; None if the search failed.
    An empty list proves nothing: if a proxy holds the body back, the batch is made
    later.  The cause is chained.
    """

    request_count: int = 0
    sent_at: datetime | None = None
    candidates: list[MessageBatch] | None = None


class APIStatusError(APIError):
    """The status of the response is not 2xx.

    ``type``, ``api_message``, ``details`` and ``error_code`` are the API's.
    Source: API reference, Errors.
    """

    status_code: int
    api_message: str | None = None
    details: Any = None
    error_code: str | None = None

    @property
    def response(self) -> SimpleNamespace:
        """As in the SDK: status_code, and headers, whose names may have any case."""
        headers = email.message.Message()
        for name, value in self.headers.items():
            headers[name] = value
        return SimpleNamespace(status_code=self.status_code, headers=headers)


class BadRequestError(APIStatusError):
    """The request breaks a rule."""


class AuthenticationError(APIStatusError):
    """The key is missing or wrong."""


class PaymentRequiredError(APIStatusError):
    """A problem with billing or payment."""


class PermissionDeniedError(APIStatusError):
    """The key may not do this."""


class NotFoundError(APIStatusError):
    """No such batch, model or path, or not yet."""


class RequestTimeoutError(APIStatusError):
    """The server gave up waiting for the request."""


class ConflictError(APIStatusError):
    """Another request is changing the same object."""


class ContentTooLargeError(APIStatusError):
    """The body is too large."""


class UnprocessableEntityError(APIStatusError):
    """The request is well formed, but cannot be processed."""


class RateLimitError(APIStatusError):
    """Too many calls, a full queue, or a spend limit."""


class InternalServerError(APIStatusError):
    """The server failed: 500 and above."""


class ServiceUnavailableError(InternalServerError):
    """The API is not available at the moment."""


class GatewayTimeoutError(InternalServerError):
    """A server behind the gateway took too long."""


class OverloadedError(InternalServerError):
    """The API has too many requests at the moment."""


# Older names that the SDK keeps.
RequestTooLargeError = ContentTooLargeError
DeadlineExceededError = GatewayTimeoutError


_ERRORS_BY_STATUS = {
    400: BadRequestError,
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: RequestTimeoutError,
    409: ConflictError,
    413: ContentTooLargeError,
    422: UnprocessableEntityError,
    429: RateLimitError,
    500: InternalServerError,
    503: ServiceUnavailableError,
    504: GatewayTimeoutError,
    529: OverloadedError,
}
# An error that a program makes, without a response, has the status of its class.
for _status, _class in _ERRORS_BY_STATUS.items():
    _class.status_code = _status


# ---- Requests ------------------------------------------------------------------------
# Arguments are checked and encoded here, before anything is sent.  The body of a create
# is spooled into a temporary file, and the rule for its retries stands beside it.

# What the SDK leaves as it is in a segment of a path.
_PATH_SAFE = "!$&'()*+,;=:@"
# A header with one of these names is a secret: it stays out of messages.
_SECRET_HEADERS = ("authorization", "x-api-key")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# The origin of a URL, and its path and query without the first slashes.
_URL = r"((?:[^:/?#]+:)?//[^/?#]*)?/*([^#]*)"
_BASE_URL = re.compile(
    r"(?ai)(?P<scheme>https?)://"
    r"(?P<rest>(\[[0-9a-f:.]+\]|([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?)"
    r"(:\d{1,5})?(/[!-\"$->@-~]*)?)"
)


def _variable(name: str) -> str | None:
    """Return a variable of the environment; an empty one is not set."""
    return os.environ.get(name, "").strip() or None


def _checked_key(key: str | None) -> str | None:
    """Return a key without white space around it.

    Raises InvalidRequestsError for quotes.
    """
    text = str(key or "").strip()
    if text != text.strip("'\"‘’“”"):
        raise InvalidRequestsError(
            "The API key or token has a quotation mark at an end: set it without "
            "quotes around it"
        )
    # An empty one stays empty, so that a client that is derived from this one looks for
    # no other.
    return key if key is None else text


def _environment_headers() -> dict[str, str]:
    """Return the headers of ANTHROPIC_CUSTOM_HEADERS."""
    lines = _variable("ANTHROPIC_CUSTOM_HEADERS") or ""
    pairs = re.findall("(?m)^(.*?):(.*)", lines)
    return {name.strip(): value.strip() for name, value in pairs}


def _given(values: _Fields) -> _JSONObject:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _merged(*layers: _Headers | None) -> dict[str, str | None]:
    """Return the headers of all layers, names in lower case, the later ones winning."""
    merged: dict[str, str | None] = {}
    for layer in layers:
        for name, value in (layer or {}).items():
            merged[name.lower()] = value
    return merged


def _encoded_headers(headers: _Headers) -> _Headers:
    """Return headers as http.client takes them; None leaves one out.

    It sends Latin-1, but on the wire it is UTF-8, as from the SDK.  Raises
    AnthropicError without a credential, InvalidRequestsError for a header that cannot
    be sent: http.client's own error would show the value, and so the key.
    """
    # None means that the caller wants none to be sent.
    if headers.get("authorization", "") == "" and not headers.get("x-api-key"):
        raise AnthropicError(
            "No credential: set the variable ANTHROPIC_API_KEY, "
            "or give Anthropic() an api_key"
        )
    encoded = dict(headers)
    for name, value in _given(headers).items():
        text = str(value)
        is_legal = text.replace("\t", " ").isprintable()
        if name in _SECRET_HEADERS:
            is_legal = is_legal and text.isascii()
        if not is_legal or not _HEADER_NAME.fullmatch(name):
            raise InvalidRequestsError(
                f"The header {name!r} (its value is not shown) has an illegal character"
            )
        encoded[name] = text.encode().decode("latin-1")
    return encoded


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _batch_path(batch_id: str) -> str:
    return f"{_BATCHES}/{_segment('message_batch_id', batch_id)}"


def _segment(name: str, value: str) -> str:
    """Return an id as a segment of a path.

    Raises InvalidRequestsError if it is empty, or leads to another path.
    """
    if not value:
        raise InvalidRequestsError(
            f"Expected a non-empty value for `{name}` but received {value!r}"
        )
    text = str(value)
    # Some servers drop ";" and what follows, so that it is "." or ".."; and a lone
    # surrogate cannot be sent.
    if re.fullmatch("(?s)[.]{0,2}(;.*)?|.*[\ud800-\udfff].*", text):
        raise InvalidRequestsError(
            f"`{name}` must not be {value!r}, which cannot be a segment of a path"
        )
    return urllib.parse.quote(text, safe=_PATH_SAFE)


def _plain(value: Any) -> Any:
    """Return what JSON makes of a value: dicts, lists, texts, numbers and None."""
    return json.loads(_encode_json(value))


def _with_query(url: str, params: _Fields) -> str:
    """Return a URL with query parameters added, written as the SDK writes them."""
    pairs = list(_query_pairs("", _plain(params)))
    if not pairs:
        return url
    query = urllib.parse.urlencode(pairs, quote_via=urllib.parse.quote)
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _query_pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the pairs of plain JSON: a list is repeated as ``name[]``."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _query_pairs(f"{name}[{key}]" if name else key, item)
    elif isinstance(value, list):
        for item in value:
            yield from _query_pairs(f"{name}[]", item)
    elif value is not None:
        yield name, value if isinstance(value, str) else json.dumps(value)


def _checked_base_url(url: Any) -> str:
    """Return base_url without its last slash.

    Raises InvalidRequestsError for one to which no key should go.
    """
    match = _BASE_URL.fullmatch(str(url))
    try:
        # It knows which ports there are and, from Python 3.11 on, IPv6 addresses.
        port = urllib.parse.urlsplit(str(url)).port
    except ValueError:
        port = 0
    if not match or port == 0:
        # It is not shown, because it may hold a password.
        raise InvalidRequestsError(
            "base_url must be http(s)://host[:port][/path], without user:password, "
            "in ASCII; it may come from ANTHROPIC_BASE_URL"
        )
    rest = match["rest"].rstrip("/")
    if re.search("(?i)/v1(/messages)?(/batches)?$", rest):
        raise InvalidRequestsError("base_url must end before /v1, which each path adds")
    # Behind a proxy, http.client would take another Host from HTTP:// in upper case.
    return f"{match['scheme'].lower()}://{rest}"


def _at_origin(base_url: str, url: str) -> str:
    """Return a results_url at the origin of base_url.

    Behind a gateway it may name another host, which must not get the key.
    """
    origin, prefix = re.findall(_URL, base_url)[0]
    elsewhere, path = re.findall(_URL, url)[0]
    safe = "/%?" + _PATH_SAFE
    path = urllib.parse.quote(path, safe, errors="replace")
    if prefix and elsewhere != origin and not path.startswith(prefix + "/"):
        path = f"{prefix}/{path}"
    return f"{origin}/{path}"


def _checked_seconds(name: str, value: Any) -> float | None:
    """Return the seconds of an argument, which may be an object with ``read``."""
    seconds = getattr(value, "read", value)
    if seconds is None:
        return None
    # poll() counts milliseconds in 31 bits.
    if isinstance(seconds, (int, float)) and 0 < seconds < 2e6:
        return seconds
    raise InvalidRequestsError(
        f"{name} must be None, or seconds between 0 and 2e6, not {value!r}"
    )


def _jsonable(value: Any) -> Any:
    """Return what the SDK sends for a value that json does not know.

    Raises TypeError if it sends none.
    """
    if isinstance(value, _Object):
        return _Object.to_dict(value)
    # A datetime is a date, too.
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    # A file is an iterator of its lines, but to send those is never meant.
    is_raw = isinstance(value, (bytes, bytearray, memoryview, io.IOBase))
    is_list = isinstance(value, (Sequence, AbstractSet, Iterator, ValuesView))
    if is_list and not is_raw:
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_jsonable
)


def _encode_json(value: Any) -> bytes:
    """Return compact UTF-8 JSON.

    Raises InvalidRequestsError with the reason if there is none; a lone surrogate is
    one, because the API refuses it.
    """
    try:
        return _encoder.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestsError(f"it is not JSON: {error}") from None


def _check_request(request: Any, seen: set[str]) -> None:
    """Add the custom_id of a request to ``seen``.

    Raises InvalidRequestsError with the rule that the request breaks.
    """
    if not isinstance(request, Mapping):
        raise InvalidRequestsError(
            "a request must be an object with custom_id and params"
        )
    for name in ("custom_id", "params"):
        if name not in request:
            raise InvalidRequestsError(f"{name} is missing")
    custom_id = request["custom_id"]
    if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
        raise InvalidRequestsError(
            "custom_id must be a string of 1 to 64 of the characters a-z, A-Z, 0-9, _ "
            "and -"
        )
    if custom_id in seen:
        raise InvalidRequestsError("custom_id must be unique, and this one came before")
    if not isinstance(request["params"], Mapping):
        raise InvalidRequestsError("params must be an object")
    others = set(request) - {"custom_id", "params"}
    if others:
        raise InvalidRequestsError(
            f"only custom_id and params are allowed, not {others.pop()!r:.80}"
        )
    seen.add(custom_id)


def _encoded(requests: Iterable[Any], tail: int) -> Iterator[bytes]:
    """Yield each request as it is sent; ``tail`` bytes of the body follow them.

    Raises InvalidRequestsError for one that breaks a rule, with its index and
    custom_id, and if there is none.
    """
    if not hasattr(requests, "__iter__"):
        raise InvalidRequestsError(
            "requests must be an iterable of objects with custom_id and params"
        )
    seen: set[str] = set()
    size = len(_HEAD) - 1 + tail
    for index, request in enumerate(requests):
        try:
            _check_request(request, seen)
            encoded = _encode_json(request)
            size += 1 + len(encoded)
            if index >= MAX_BATCH_REQUESTS:
                raise InvalidRequestsError(
                    f"a batch takes at most {MAX_BATCH_REQUESTS:,} requests"
                )
            if size > MAX_BATCH_BYTES:
                raise InvalidRequestsError(
                    f"this request takes the batch over {MAX_BATCH_BYTES:,} bytes"
                )
        except ValueError as error:
            is_object = isinstance(request, Mapping)
            custom_id = request.get("custom_id") if is_object else None
            place = f"requests[{index}] (custom_id {custom_id!r:.80})"
            raise InvalidRequestsError(f"{place}: {error}") from None
        yield encoded
    if not seen:
        raise InvalidRequestsError("requests must hold at least one request")


def _tail(extra_body: Any) -> bytes:
    """Return what follows the requests in the body of a create."""
    if not extra_body:
        return _END
    if not isinstance(extra_body, Mapping) or "requests" in extra_body:
        raise InvalidRequestsError(
            "extra_body must be an object, and hold no requests: give them as requests"
        )
    return b"]," + _encode_json(extra_body)[1:]


def _spooled(function: Callable[..., Any], *args: Any) -> None:
    """Call a function of the temporary file.  Raises AnthropicError if that fails."""
    try:
        function(*args)
    except OSError as error:
        folder = tempfile.tempdir or "any folder for temporary files"
        raise AnthropicError(
            f"The requests cannot be written to a temporary file in {folder}: {error}; "
            "set TMPDIR to a folder with room for all of them"
        ) from error


class _Body:
    """The body of a create: spooled once, sent as often as it takes.

    ``is_sent``: whether the last byte was, or may have been, handed over in this
    attempt; only then a batch may exist.
    ``before_last_block`` is called when all but the last block has been sent.
    """

    def __init__(self, before_last_block: Callable[[], None]) -> None:
        self._before_last_block = before_last_block
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
        self.count = 0
        self.is_sent = False

    def spool(self, encoded: Iterable[bytes], tail: bytes) -> None:
        """Write requests that are encoded, and what follows them, to the file."""
        separator = _HEAD
        for request in encoded:
            _spooled(self._file.write, separator + request)
            separator = b","
            self.count += 1
        _spooled(self._file.write, tail)
        _spooled(self._file.flush)
        self.size = self._file.tell()

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        for _ in range(0, self.size - BLOCK, BLOCK):
            yield self._file.read(BLOCK)
        self._before_last_block()
        last = self._file.read()
        yield last[:-1]
        # The last byte goes alone and counts as sent before it is handed over, because
        # a signal handler may raise just when it has gone out.
        self.is_sent = True
        yield last[-1:]

    def close(self) -> None:
        """Remove the temporary file."""
        # On a full disk the flush of close fails, too.
        with contextlib.suppress(OSError):
            self._file.close()


# Gateways respond so after the API has made the batch.
_UNKNOWN_STATUSES = (303, 408, 409, 425, 460, 499)


def _batch_may_exist(error: APIError, is_sent: bool) -> bool:
    """Tell whether a create that failed may have made its batch, for client and job.

    ``is_sent``: whether the last byte of the body was, or may have been, handed over.
    """
    # Special case: the server cannot make a batch of a body that it does not have.
    if not is_sent:
        return False
    # Special case: a gateway gave up on an API that may have done the work.
    is_unknown = getattr(error, "error_code", None) == "change_outcome_unknown"
    if is_unknown or error.status_code in _UNKNOWN_STATUSES:
        return True
    # Special case: these are refusals of the API, but a gateway's own prove nothing.
    if error.status_code in (503, 529):
        is_api_form = _dig(error.body, "type") == "error" and isinstance(
            error.type, str
        )
        return not is_api_form
    # Standard case: the API, or a gateway before it, refused.  Everything else may
    # exist: another 5xx, or a response that is lost, torn, late, or not the API's.
    return not (error.status_code and 300 <= error.status_code < 500)


def _is_retryable(error: APIError, body: bytes | _Body | None) -> bool:
    """Tell whether to send the request again: the SDK's rule, but for a create.

    A create that went out whole is only sent again if the API refused it for now.
    """
    should_retry = error.headers.get("x-should-retry")
    if isinstance(body, _Body) and body.is_sent:
        is_for_now = error.status_code in (429, 503, 529) and should_retry != "false"
        return is_for_now and not _batch_may_exist(error, is_sent=True)
    if should_retry in ("true", "false"):
        return should_retry == "true"
    return error._is_transient


def _object_of(cls: Any, call: _Call, fields: Any) -> Any:
    """Return JSON, a response or a row of a list, as an object of ``cls``.

    Raises APIResponseValidationError if it is something else.
    """
    name, kind = cls._required
    known = fields if isinstance(fields, dict) else {}
    has_error = known.get("type") == "error" or isinstance(known.get("error"), dict)
    value = known.get(name, "")
    is_missing = value == "" or not isinstance(value, kind)
    if has_error or is_missing:
        raise APIResponseValidationError(
            f"The response is not a {cls.__name__} with {name}: {call.quoted(fields)}"
        )
    return _from_json(cls, known)


# ---- Transport -----------------------------------------------------------------------
# The only code that touches urllib.request and sockets.  A call is one request, sent as
# often as it takes; every failure leaves this section as an APIError.

# OSError comes from sockets, TLS and urllib; ValueError from http.client, for the size
# of a chunk that is no number; TypeError from the email package, for parameters of a
# Content-Type that it cannot sort; EOFError and zlib.error from gzip that is cut, or is
# none.
_TRANSPORT_ERRORS = (
    OSError,
    http.client.HTTPException,
    ValueError,
    TypeError,
    EOFError,
    zlib.error,
)


@dataclass(repr=False)
class _Call:
    """One request, ready to be sent as often as it takes."""

    opener: Any
    method: str
    url: str
    headers: _Headers
    body: bytes | _Body | None
    timeout: float | None
    # Tells the seconds left for the whole response; None for no limit.
    left: _Clock | None = None
    # The number of failures in a row.
    failures: int = 0
    # Seconds since it was sent last.
    elapsed: _Clock = lambda: 0.0

    def __repr__(self) -> str:
        # Messages show it: headers hold the key, and a query may hold a gateway's.
        text = f"{self.method} {self.url.partition('?')[0]}"
        proxy = _proxy_of(self.url)
        if proxy and isinstance(self.opener, _Transport):
            text += f", through the proxy {proxy[0]}://{proxy[2]}"
        return self.masked(text)

    def open(self) -> Any:
        """Send the request once and return its response, the body not read yet.

        Raises APIError unless the status is 2xx.
        """
        if isinstance(self.body, _Body):
            # It is reset here, because an attempt that fails to connect never reads the
            # body.
            self.body.is_sent = False
        self.elapsed = _stopwatch()
        response = self._guarded(self._send)
        status = getattr(response, "status", None) or response.getcode()
        if 200 <= status < 300:
            return response
        raise self._status_error(status, response)

    def _guarded(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what a function returns.  Raises APIConnectionError if it fails."""
        try:
            return function(*args)
        except urllib.error.HTTPError as response:
            # This file's own opener raises none, but one of the caller's may.
            return response
        except _TRANSPORT_ERRORS as error:
            failed = [self._connection_error(error)]
        # It is raised here so that an exception that may quote a response is not its
        # context; and from a list, because a local variable would keep it alive.
        raise failed.pop()

    def _send(self) -> Any:
        request = urllib.request.Request(self.url, self.body, method=self.method)
        headers = {"x-stainless-retry-count": self.failures or None, **self.headers}
        for name, value in _given(headers).items():
            add = request.add_header
            if name in _SECRET_HEADERS:
                # An opener of the caller's must not take it along on a redirect.
                add = request.add_unredirected_header
            add(name, str(value))
        return self.opener.open(request, timeout=self._left())

    def read_json(self, response: Any) -> tuple[_JSONObject, dict[str, str]]:
        """Return the JSON object and the headers of a response, and close it.

        Raises APIConnectionError if it has no JSON object, or is too long.
        """
        raw = bytearray()
        with contextlib.closing(response):
            for block in self.blocks(response):
                raw += block
                if len(raw) > MAX_RESPONSE_BYTES:
                    raise APIConnectionError(
                        f"More than {MAX_RESPONSE_BYTES:,} bytes in a response ({self})"
                    )
        try:
            fields = json.loads(raw)
        except _NOT_JSON:
            fields = None
        if not isinstance(fields, dict):
            raise APIConnectionError(
                f"The response is not a JSON object, but {len(raw)} bytes of something "
                f"else ({self})"
            )
        return fields, self._headers_of(response)

    def blocks(self, response: Any) -> Iterator[bytes]:
        """Yield the body in large blocks, gzip undone.

        It does not read by lines, because readline() ends quietly if the connection is
        cut at the end of a line (python/cpython#115997).
        Raises APIConnectionError if the body is torn, APITimeoutError if no time is
        left.
        """
        encoding = self._headers_of(response).get("content-encoding", "")
        encoding = encoding.strip().lower()
        blocks = self._raw_blocks(response)
        if encoding in ("gzip", "x-gzip"):
            blocks = _gunzip(blocks)
        elif encoding not in ("", "identity"):
            raise APIConnectionError(
                f"The response has the encoding {encoding}, which nobody asked for "
                f"({self})"
            )
        yield from iter(lambda: self._guarded(next, blocks, None), None)

    def _raw_blocks(self, response: Any) -> Iterator[bytes]:
        # Without a limit a response keeps its timeout, which is short for a refusal
        # that came during the upload.
        if self.left and isinstance(response, _Response):
            response.limit_reads(self._left)
        read = getattr(response, "read1", response.read)
        while True:
            self._left()
            block = read(BLOCK)
            if not block:
                break
            yield block
        if getattr(response, "length", None):
            raise http.client.IncompleteRead(b"", response.length)

    def _left(self) -> float | None:
        """Return the seconds that the next read or write may take.

        Raises socket.timeout if none are left.
        """
        if self.left is None:
            return self.timeout
        seconds = self.left()
        if seconds <= 0:
            raise socket.timeout
        return min(seconds, self.timeout or seconds)

    def _headers_of(self, response: Any) -> dict[str, str]:
        headers = response.headers.items()
        return {name.lower(): self.masked(value) for name, value in headers}

    def masked(self, value: Any) -> str:
        """Return a text of the server's without the key, which it may repeat."""
        text = str(value)
        for name in _SECRET_HEADERS:
            header = self.headers.get(name) or ""
            for secret in header.split():
                # "Bearer", "sandbox" and other short words are no secrets.
                if len(secret) > 7:
                    # JSON writes some characters as escapes.
                    escaped = json.dumps(secret)[1:-1]
                    text = text.replace(escaped, "***").replace(secret, "***")
        return text

    def quoted(self, response: Any) -> str:
        """Return the start of a response, or of a part of it, as a message shows it."""
        if not isinstance(response, str):
            response = json.dumps(response, ensure_ascii=False)
        return " ".join(self.masked(response).split())[:200]

    def _connection_error(self, error: Exception) -> APIConnectionError:
        """Return the APIConnectionError for a failure of the connection."""
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        # From Python 3.10 on these two are the same class.
        if isinstance(reason, (socket.timeout, TimeoutError)):
            found: APIConnectionError = APITimeoutError(f"Request timed out ({self})")
        elif isinstance(reason, ssl.SSLCertVerificationError):
            found = APIConnectionError(
                f"The certificate is not trusted: {reason.verify_message} ({self}); "
                f"{_certificate_advice(reason.verify_code)}",
                _is_transient=False,
            )
        else:
            text = self.masked(reason) or type(reason).__name__
            # A URL that is wrong, for instance the proxy's, stays so.
            found = APIConnectionError(
                f"Connection error: {text} ({self})",
                _is_transient=not isinstance(reason, http.client.InvalidURL),
            )
        # An exception of http.client alone may quote what came in place of a status
        # line or of the size of a chunk, and so hold the key.
        if isinstance(reason, OSError) and not reason.__context__:
            found.__cause__ = reason
        return found

    def _status_error(self, status: int, response: Any) -> APIStatusError:
        """Return the error for a response whose status is not 2xx, and close it."""
        headers = self._headers_of(response)
        body = self._error_body(response)
        error_type = _dig(body, "error", "type")
        api_message = _dig(body, "error", "message")
        request_id = headers.get("request-id") or _dig(body, "request_id")
        if 300 <= status < 400:
            message = (
                f"a redirect to {headers.get('location', 'nowhere')}, not followed: "
                "the key stays with base_url"
            )
        elif error_type:
            message = f"{error_type}: {api_message}"
        else:
            message = self.quoted(body)
        if request_id:
            message += f" (request id {request_id})"
        default = InternalServerError if status >= 500 else APIStatusError
        return _ERRORS_BY_STATUS.get(status, default)(
            f"Error code: {status} - {message} ({self})",
            status_code=status,
            headers=headers,
            body=body,
            request_id=request_id,
            type=error_type,
            api_message=api_message,
            details=_dig(body, "error", "details"),
            error_code=_dig(body, "error", "details", "error_code"),
            _is_transient=status in (408, 409, 429) or status >= 500,
        )

    def _error_body(self, response: Any) -> Any:
        """Return the body of an error, JSON or else text, and close the response.

        It is masked, and no more of it is read than a message needs.
        """
        raw = b""
        # If the body is torn, the status still says enough.
        with contextlib.closing(response), contextlib.suppress(APIConnectionError):
            for block in self.blocks(response):
                raw += block
                if len(raw) > BLOCK:
                    break
        text = raw.decode("utf-8", "replace")
        try:
            # JSON is encoded anew before it is masked, because escapes would hide the
            # key.
            text = json.dumps(json.loads(text), ensure_ascii=False)
            return json.loads(self.masked(text))
        except _NOT_JSON:
            return self.masked(text)


def _dig(value: Any, *names: str) -> Any:
    """Return a field inside objects of JSON, None if there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _http_date(text: str | None) -> datetime | None:
    """Return the time of a date, which HTTP writes in GMT; None for another text."""
    try:
        moment = email.utils.parsedate_to_datetime(text or "")
        return moment.replace(tzinfo=timezone.utc)
    except _NOT_A_DATE:
        return None


# What parsedate_to_datetime raises; the last two before Python 3.10.
_NOT_A_DATE = (TypeError, ValueError, OverflowError, IndexError, UnboundLocalError)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the response asks to wait; None if none, or in the past.

    They come as milliseconds, seconds or a date.
    """
    moment = _http_date(headers.get("retry-after"))
    seconds = moment.timestamp() - time.time() if moment else 0.0
    for name, unit in (("retry-after", 1), ("retry-after-ms", 1000)):
        with contextlib.suppress(KeyError, ValueError):
            seconds = float(headers[name]) / unit
    # time.sleep takes no more than that on some systems.
    return min(seconds, 4_294_967.0) if seconds > 0 else None


def _backoff(failures: int) -> float:
    """Return the SDK's seconds after so many failures in a row.

    They are 0.5, doubled up to 8, less up to a quarter.
    """
    return random.uniform(0.75, 1) * min(1 << failures, 32) / 4


def _poll_delay(headers: Mapping[str, str], interval: float | None) -> float:
    """Return the seconds until the next poll."""
    if interval is not None:
        return interval
    asked = _retry_after(headers) or POLL_DEFAULT
    return min(max(asked, POLL_MIN), POLL_MAX)


def _ignoring_404(
    send: Callable[[], _T], left: _Clock = lambda: NOT_FOUND_SECONDS
) -> _T:
    """Return what ``send`` returns; for 30 seconds it is called again after a 404.

    They are counted from the first 404 on.  ``left`` returns the seconds that a pause
    may take.
    """
    patience = None
    while True:
        try:
            return send()
        except NotFoundError as error:
            patience = patience or _countdown(NOT_FOUND_SECONDS)
            if not patience():
                raise
            _pause(min(NOT_FOUND_INTERVAL, left()), error)


def _pause(seconds: float, error: APIError) -> None:
    """Wait before a request is sent again, and log why."""
    # Importing logging takes a while, and most runs need no retry.
    import logging

    logger = logging.getLogger("claude_batches")
    logger.debug("retry in %.1f s, because of: %s", seconds, error)
    time.sleep(seconds)


def _stopwatch() -> _Clock:
    """Return a function that tells the seconds since this call.

    A laptop's sleep counts, during which the monotonic clock may stand still; the wall
    clock may be set back.
    """
    monotonic, wall = time.monotonic(), time.time()
    return lambda: max(time.monotonic() - monotonic, time.time() - wall)


def _countdown(seconds: float) -> _Clock:
    """Return a function that tells how many of the seconds are left, at least 0."""
    elapsed = _stopwatch()
    return lambda: max(0.0, seconds - elapsed())


class _Response(http.client.HTTPResponse):
    """A response that may come after interim ones; http.client skips 100 alone."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._sock = sock

    def limit_reads(self, left: Callable[[], float | None]) -> None:
        """Let no read from the socket take longer than ``left`` tells at its start.

        One read of the body may be several of these: a size of a chunk may trickle in.
        """
        sock = self._sock

        def readinto(buffer: Any) -> int:
            sock.settimeout(left())
            return sock.recv_into(buffer)

        raw: Any = self.fp.raw
        raw.readinto = readinto

    def begin(self) -> None:
        """Read status and headers of the final response."""
        super().begin()
        while 101 < self.status < 200:
            self.headers = None  # type: ignore[assignment]
            super().begin()


class _Connection(http.client.HTTPConnection):
    """A connection with its own timeout for connecting.

    It also reads a refusal that comes during the upload.
    """

    response_class = _Response
    _early_response: http.client.HTTPResponse | None = None

    def connect(self) -> None:
        """Connect within CONNECT_TIMEOUT; later reads have the timeout of the call."""
        timeout = self.timeout
        self.timeout = min(timeout or CONNECT_TIMEOUT, CONNECT_TIMEOUT)
        super().connect()
        self.sock.settimeout(timeout)
        # The name on macOS is the second one; some systems have neither.
        option = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
        if option:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                self.sock.setsockopt(socket.IPPROTO_TCP, option, KEEP_ALIVE)

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request.

        If that fails, the server may have refused, with 401 or 413, and closed: then
        getresponse() returns that response.
        """
        # It stands outside the try, because after it a failure is one of the upload.
        self.connect()
        try:
            super().request(*args, **kwargs)
        except OSError as error:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.sock.settimeout(REFUSAL_TIMEOUT)
                self._early_response = super().getresponse()
                return
            if isinstance(error, socket.timeout):
                raise
            raise ConnectionAbortedError(
                "the server closed during the upload; a wrong key or too large a body "
                f"may be why ({error})"
            ) from error

    def getresponse(self) -> http.client.HTTPResponse:
        """Return the response, which may have come during the upload."""
        return self._early_response or super().getresponse()


class _TLSConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS."""


def _certificate_advice(verify_code: int) -> str:
    """Return what to do about a certificate that failed, by the code of OpenSSL."""
    named = _variable("SSL_CERT_FILE")
    if named and not os.path.isfile(named):
        return f"SSL_CERT_FILE names no file: {named}"
    # Hostname and IP address mismatch.
    if verify_code in (62, 64):
        return "it is the certificate of another host: check base_url"
    # What only X509_STRICT refuses.
    if 80 <= verify_code <= 94:
        return (
            "Python 3.13 and newer verify strictly: have the CA's certificate "
            "corrected, or pass an ssl_context without ssl.VERIFY_X509_STRICT"
        )
    paths = ssl.get_default_verify_paths()
    if sys.platform == "darwin" and not paths.cafile:
        return "run Install Certificates.command, which is in the folder of this Python"
    if sys.platform != "win32" and not (paths.cafile or paths.capath):
        return (
            "this machine has no CA certificates: install the package ca-certificates"
        )
    return "to trust a company's own CA, set SSL_CERT_FILE or pass ssl_context"


_LOOPBACK = r"localhost|::1|127(\.\d+){1,3}"
# Scheme, user and password, host and port of a proxy.
_PROXY = r"(?s)^(?:([\w+.-]+)://)?(?:(.*)@)?(.*?)/?$"


class _Transport(urllib.request.AbstractHTTPHandler):
    """urllib for http and https alone.

    No redirect is followed: urllib would take the key along to any host
    (python/cpython#77842).  A response of any status is returned, not raised.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self._context = context

    def open(self, request: urllib.request.Request, timeout: float | None) -> Any:
        """Send a request, through the environment's proxy, and return the response.

        Raises APIConnectionError unless that is an HTTP proxy.
        """
        request.timeout = timeout
        proxy = _proxy_of(request.full_url)
        if proxy:
            scheme, user, host = proxy
            if scheme not in ("http", "https"):
                raise APIConnectionError(
                    f"The proxy must be http://host:port, not {scheme}://{host}; the "
                    "standard library does not speak SOCKS: set HTTPS_PROXY to an HTTP "
                    "proxy",
                    _is_transient=False,
                )
            request.set_proxy(host, scheme)
            if user:
                plain = urllib.parse.unquote(user).encode()
                encoded = base64.b64encode(plain).decode()
                request.add_header("Proxy-Authorization", f"Basic {encoded}")
        if request.type == "http":
            return self.do_open(_Connection, request)
        # It is made at the first request, because it takes a while.
        self._context = self._context or ssl.create_default_context()
        return self.do_open(_TLSConnection, request, context=self._context)


def _proxy_of(url: str) -> tuple[str, str, str] | None:
    """Return the environment's proxy for a URL, None if there is none.

    It comes as its scheme, user and password, host and port.
    """
    parts = urllib.parse.urlsplit(url)
    # With http_proxy set, urllib would send even 127.0.0.1 to the proxy.
    is_loopback = re.fullmatch(_LOOPBACK, parts.hostname or "")
    if is_loopback or urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    # Whatever comes before the last "@" may be a password.
    scheme, user, host = re.findall(_PROXY, proxy)[0]
    return scheme.lower() or "http", user, host


def _gunzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Undo gzip of what has come; the gzip module would first fill a buffer.

    Raises EOFError if it is cut.
    """
    # 31 is gzip's header, and a window of any size.
    member = zlib.decompressobj(31)
    for block in blocks:
        while block:
            if member.eof:
                member = zlib.decompressobj(31)
            yield member.decompress(block, BLOCK)
            block = member.unconsumed_tail or member.unused_data
    if not member.eof:
        raise EOFError("gzip ended early")


# What Job, below the line, uses of the classes above.
_create_encoded = Batches._create
_raw_rows = operator.attrgetter("_rows")
_headers = operator.attrgetter("_headers")
_may_pass = operator.attrgetter("_is_transient")

# What a star import gives; the part below the line adds its own names.
__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "Anthropic",
    "AnthropicError",
    "AuthenticationError",
    "BadRequestError",
    "BatchMayExistError",
    "Batches",
    "Client",
    "ConflictError",
    "Container",
    "ContentBlock",
    "ContentTooLargeError",
    "DeadlineExceededError",
    "DeletedMessageBatch",
    "ErrorObject",
    "ErrorResponse",
    "GatewayTimeoutError",
    "IncompleteResultsError",
    "InternalServerError",
    "InvalidRequestsError",
    "Message",
    "MessageBatch",
    "MessageBatchCanceledResult",
    "MessageBatchErroredResult",
    "MessageBatchExpiredResult",
    "MessageBatchIndividualResponse",
    "MessageBatchRequestCounts",
    "MessageBatchResult",
    "MessageBatchSucceededResult",
    "MessageCreateParamsNonStreaming",
    "MessageTokensCount",
    "Messages",
    "ModelInfo",
    "Models",
    "NotFoundError",
    "OpenObject",
    "OtherContentBlock",
    "OverloadedError",
    "Page",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "RateLimitError",
    "RedactedThinkingBlock",
    "Request",
    "RequestTimeoutError",
    "RequestTooLargeError",
    "Results",
    "ServiceUnavailableError",
    "TextBlock",
    "ThinkingBlock",
    "ToolUseBlock",
    "UnprocessableEntityError",
    "Usage",
    "WaitTimeoutError",
    "iter_json_lines",
]

# ======================================================================================
# Everything above is the client and works without what follows.
# ======================================================================================

__all__ += ["Job", "JobError", "Sandbox", "main"]

# ---- Job -----------------------------------------------------------------------------
# A file of requests to a file of results.  Of the client it uses what users use, and
# _plural, _check_request, _create_encoded, _raw_rows, _headers, _size, _dig, _moment,
# _now, _parse_time, _decode_row, _ignoring_404, _may_pass, _poll_delay, _retry_after.
#
# The journal beside the results holds the state of each part, which becomes one batch:
#
#   planned    no batch of it exists
#   closing    the last block went out, or may have: its batch may exist.  While it has
#              no candidate it is in doubt, and no other part is sent; once settle is
#              over the candidates are written down, and their rows decide
#   created    its batch is known
#   collected  its rows are in RESULTS.part, before the byte rows_end
#
# A part that is not in doubt, and has no batch or candidate left, is sent.
#
# A run sleeps until the next of two times: when to send, or to look for a batch, and
# when to poll all batches that are left.

# The params of a request that count_tokens takes, too.
COUNTED = {"model", "messages", *_TokenOptions.__annotations__} - {
    *_CreateOptions.__annotations__
}
JOURNAL_FORMAT = 4
MAX_WARNINGS = 20  # of requests that the API will refuse later
MAX_NAMES = 1000  # of errors, models and stop reasons that the summary counts
# What may be around the JSON of a line: a byte order mark, and white space.
AROUND_JSON = b"\xef\xbb\xbf \t\r\n"


class JobError(AnthropicError):
    """The job cannot go on by itself; the message says why, and what to do."""


# What ends a run at once: the journal cannot be written, or the key is refused, which
# concerns every batch.
_STOPS_ALL = (
    JobError,
    AuthenticationError,
    PaymentRequiredError,
    PermissionDeniedError,
)


def _count(client: Anthropic, params: _Fields, betas: Iterable[str] | None) -> int:
    # count_tokens says what is wrong with a field that is missing.
    params = {"model": None, "messages": None, **params}
    fields = {name: params[name] for name in params if name in COUNTED}
    return client.messages.count_tokens(betas=betas, **fields).input_tokens


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_strict_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_WANTED = 'a line must be {"custom_id": "…", "params": {…}}'
# The jq program that makes a request of a line with method, url and body.
_OTHER_VENDOR = (
    'def is_system: .role == "system" or .role == "developer"; '
    '{custom_id, params: {model: "claude-opus-4-6", '
    "max_tokens: (.body.max_completion_tokens // .body.max_tokens // 1024), "
    "system: [.body.messages[] | select(is_system) | .content | "
    'if type == "string" then {type: "text", text: .} else .[] end], '
    "messages: [.body.messages[] | select(is_system | not)]}}"
)
# Escapes that may be half of a surrogate pair, or may spell a key of a request.
_SUSPICIOUS = rb"\\u([dD][89a-fA-F]|00[2-7])"


def _read_requests(path: str) -> Iterator[tuple[str, int, bytes, _JSONObject]]:
    """Yield place, first byte, text and request of each line that is not blank.

    The place is path and line; "-" is standard input.  The text is what is sent: the
    bytes of the line without what is around the JSON.  Raises InvalidRequestsError with
    the place, and for a file without requests.
    """
    seen: set[str] = set()
    end = 0
    name = "standard input" if path == "-" else path
    with _open_requests(path) as file:
        for number, line in enumerate(file, 1):
            start, end = end, end + len(line)
            text = line.strip(AROUND_JSON)
            if text:
                place = f"{name}:{number}"
                request = None
                try:
                    request = _strict_decoder.decode(text.decode())
                    _check_request(request, seen)
                    _check_text(text, request)
                except _NOT_JSON as error:
                    reason = _reason(error, line, text, request, path)
                    raise InvalidRequestsError(f"{place}: {reason}") from None
                yield place, start, text, request
    if not seen:
        raise InvalidRequestsError(
            f"{name}: no requests, but there must be at least one"
        )


def _open_requests(path: str) -> BinaryIO:
    try:
        return sys.stdin.buffer if path == "-" else open(path, "rb")
    except OSError as error:
        raise InvalidRequestsError(f"{path}: {error.strerror}") from None


def _check_text(text: bytes, request: _JSONObject) -> None:
    """Raise ValueError for what the API refuses, or may read in another way.

    That is half of a surrogate pair, and a key that comes twice.
    """
    is_plain = text.count(b'"custom_id"') == text.count(b'"params"') == 1
    if is_plain and not re.search(_SUSPICIOUS, text):
        return
    _encode_json(request)
    # The hook makes lists of pairs of all objects; the outermost is the request.
    if len(json.loads(text, object_pairs_hook=list)) != len(request):
        raise ValueError("a key comes twice")


def _reason(error: Exception, line: bytes, text: bytes, request: Any, path: str) -> str:
    """Return why a line is not a request, and how to make requests of such a file."""
    keys = set(request) if isinstance(request, dict) else set()
    old = "FILE" if path == "-" else path
    # Its name differs, because a shell empties the target before it reads.
    new = old + ".jsonl"
    reason = str(error)
    if "custom_id" in keys:
        reason = f"custom_id {request['custom_id']!r:.80}: {error}"
    if keys >= {"custom_id", "params"}:
        return reason
    if line.startswith((b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{")):
        return (
            "this is UTF-16, as PowerShell writes it, and must be UTF-8; there: "
            f"Get-Content {_quote(old)} | Set-Content -Encoding utf8 {_quote(new)}; "
            f"elsewhere: iconv -f UTF-16 -t UTF-8 {_quote(old)} > {_quote(new)}"
        )
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        reason = _syntax_error(error, line, text)
    found, program = _other_format(text, keys)
    if program:
        # It converts all or nothing, because half a file could be taken for the whole.
        program = _quote(f"[inputs | {program}][]")
        command = f"jq -cn {program} {_quote(old)} > {_quote(new)}"
        return f"{reason}; this is {found}, but {_WANTED}: {command}"
    if not text.startswith(b"{"):
        reason += " (README shows how to make requests of a CSV)"
    return f"{reason}; {_WANTED}"


def _other_format(text: bytes, keys: set[str]) -> tuple[str, str]:
    """Return what a line is that is no request, and the jq program to convert it."""
    if text.startswith(b"["):
        return "a JSON array", ".[]"
    if text == b"{":
        return "JSON over several lines", ".requests[]? // ."
    if "requests" in keys:
        return "the body of a create", ".requests[]"
    if keys >= {"method", "url", "body"}:
        return "another vendor's batch file", _OTHER_VENDOR
    return "", ""


def _syntax_error(error: Any, line: bytes, text: bytes) -> str:
    """Return what is wrong with the JSON, and in which column."""
    before, _, _ = line.partition(text)
    # A byte order mark is no column.
    column = 1 + len(before.decode("ascii", "ignore"))
    if isinstance(error, UnicodeDecodeError):
        column += len(text[: error.start].decode())
        return f"not utf-8: {error.reason}, column {column}"
    is_cut = error.pos >= len(error.doc) or "Unterminated" in error.msg
    end = "; it is cut, or goes on in the next line" if is_cut else ""
    return f"not JSON: {error.msg}, column {column + error.pos}{end}"


# What the SDK takes beside params, and people put inside them.
_NOT_PARAMS = ("betas", "extra_headers", "extra_query", "extra_body", "timeout")


def _later_refusal(params: _Fields, version: str) -> str | None:
    """Return why the API accepts a batch and later refuses these params, or None."""
    for name in ("model", "max_tokens", "messages"):
        if params.get(name) is None:
            return f"params have no {name}"
    for name in _NOT_PARAMS:
        if name in params:
            return f"params must not have {name}"
    is_speed = params.get("speed") is not None
    if params.get("stream") or params["max_tokens"] == 0 or is_speed:
        return "params must not have stream: true, max_tokens: 0 or speed in a batch"
    return _version_refusal(params) if version == API_VERSION else None


def _version_refusal(params: _Fields) -> str | None:
    """Return what API_VERSION refuses and the version before it does not, or None."""
    for name in ("temperature", "top_p", "top_k"):
        if params.get(name) is not None:
            return (
                f"params must not have {name} under anthropic-version {API_VERSION}; "
                "2023-06-01 takes it"
            )
    if _dig(params, "billing_policy", "bill_to") == "user_profile":
        return "billing_policy.bill_to must not be user_profile in a batch"
    for message in _objects_in(params["messages"]):
        for block in _objects_in(message.get("content")):
            found = message.get("role"), block.get("type")
            if found == ("assistant", "document"):
                return "messages of an assistant must not have a document"
            if found == ("user", "text") and block.get("citations"):
                return "messages of a user must not have a text with citations"
    return None


def _objects_in(value: Any) -> list[_JSONObject]:
    """Return the objects in a list of JSON, which may be something else."""
    items = value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict)]


@dataclass
class _Part:
    """What becomes one batch: requests of REQUESTS, from the byte ``start`` on."""

    start: int
    requests: int = 0
    # The size of the body: {"requests":[]} and the requests, each with a comma, less
    # one.
    size: int = len(_HEAD) + 2 - 1
    # SHA-256 of the digest before the last request, at first of start, and of the text
    # of that request.
    digest: str = ""
    state: str = "planned"
    # The first page of the list before it was sent: ids, and the oldest created_at.
    noted: list[str] = field(default_factory=list)
    noted_since: str = ""
    # Its batch, or the candidates: how many of the part's rows each has, None if that
    # is not known.  One with 0 is somebody else's, or was disowned; the batch of a part
    # has a number only if it was taken over.
    batches: dict[str, int | None] = field(default_factory=dict)
    # Whether the list was read far enough to show every candidate: if none of them is
    # the part's, no batch of the part exists.
    is_certain: bool = False
    # The ids that a question has named: they can be disowned until one of them is read
    # after all.
    asked: list[str] = field(default_factory=list)
    # What only a person can decide.  It is no field, because it is not journalled: the
    # next run asks again if it is still open.
    question = ""
    # How many polls in a row brought a response that is not the API's, or a download
    # without all rows.  It is not journalled, either.
    incomplete = 0

    @property
    def left(self) -> dict[str, int | None]:
        """The batches that may be the part's."""
        return {one: rows for one, rows in self.batches.items() if rows != 0}

    @property
    def is_in_doubt(self) -> bool:
        """Whether its batch may exist, and has to be looked for."""
        is_settled = self.batches and self.is_certain
        return self.state == "closing" and not self.left and not is_settled

    def is_full(self, text: bytes) -> bool:
        """Tell whether a batch has no room for one more request."""
        is_long = self.size + 1 + len(text) > MAX_BATCH_BYTES
        return is_long or self.requests == MAX_BATCH_REQUESTS

    def add(self, text: bytes) -> None:
        """Add a request to the part."""
        self.requests += 1
        self.size += len(text) + 1
        digest = hashlib.sha256(str(self.digest or self.start).encode())
        # It is not added to the text, which would copy it.
        digest.update(text)
        self.digest = digest.hexdigest()


@dataclass
class _Journal:
    """How far the job came; RESULTS.job is its JSON."""

    base_url: str
    betas: list[str]
    parts: list[_Part]
    started_at: str
    format: int = JOURNAL_FORMAT
    # The headers of a response that tell whose key the run began with.
    owner: dict[str, str] = field(default_factory=dict)
    # The byte of RESULTS.part where the rows of the collected parts end.
    rows_end: int = 0
    disowned: list[str] = field(default_factory=list)


def _read_journal(path: str) -> _Journal:
    """Read a journal.

    Raises JobError for one that was changed, or is of another version.
    """
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
        if "format" not in fields and "parts" in fields:
            raise JobError(
                f"{path} is the journal of an earlier version of this file: end "
                "that job with it, or move the journal away to pay for all anew"
            )
        is_whole = fields.pop("journal_digest") == _digest_of(fields)
        if not is_whole or fields["format"] != JOURNAL_FORMAT:
            raise ValueError("it was changed, or is of another version")
        fields["parts"] = [_Part(**part) for part in fields["parts"]]
        return _Journal(**fields)
    except (*_NOT_JSON, TypeError, KeyError, AttributeError) as error:
        raise JobError(
            f"{path} is not the journal of a run: {error}.  Put it back as it was, "
            "or move it away to pay for all anew"
        ) from None


def _digest_of(fields: _JSONObject) -> str:
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_same(name: str, then: Any, now: Any) -> None:
    """Raise JobError if something is not as it was when the run began."""
    if then != now:
        raise JobError(
            f"The run began with {name} {then}, but now it is {now}; put that back "
            "and run again, or begin another run"
        )


def _while_held(change: Callable[..., None], *paths: str) -> None:
    """Replace, rename or remove files; on Windows wait while another program holds one.

    A virus scanner or an indexer does so for some milliseconds.
    """
    for _ in range(50 if sys.platform == "win32" else 0):
        try:
            return change(*paths)
        except PermissionError:
            time.sleep(0.1)
    return change(*paths)


def _write(path: str, blocks: Iterable[bytes]) -> None:
    """Write a new file, down to the disk."""
    # It may be a link, or a second name of a file that is published.
    with contextlib.suppress(FileNotFoundError):
        _while_held(os.remove, path)
    with open(path, "xb") as file:
        file.writelines(blocks)
        _sync(file)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: str) -> None:
    # Windows has no way to do that, and does not need it; some network folders refuse.
    folder = os.path.dirname(os.path.abspath(path))
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _publish(source: str, target: str) -> None:
    """Give a whole file its name in one step.

    Raises InvalidRequestsError rather than overwrite.
    """
    import filecmp

    try:
        # A rename would overwrite on POSIX.
        os.link(source, target)
    except OSError:
        if not os.path.lexists(target):
            # There are no hard links in this folder.
            _while_held(os.rename, source, target)
            return
        # A run that published it may have been killed before it could say so.
        if os.path.islink(target) or not filecmp.cmp(source, target, shallow=False):
            _refuse_existing(target)
            # It went away meanwhile.
            raise
    _while_held(os.unlink, source)


def _refuse_existing(*paths: str) -> None:
    for path in paths:
        if os.path.exists(path) and not os.path.isfile(path):
            raise InvalidRequestsError(
                f"{path} exists and is a folder or a device: name a file"
            )
        if os.path.lexists(path):
            raise InvalidRequestsError(
                f"{path} exists, and is not overwritten; move it away, and run again"
            )


def _folder_of(path: str) -> str:
    """Return the folder of a file that is to be made.

    Raises InvalidRequestsError if it is not there, or if no file can have that name.
    """
    folder, name = os.path.split(path)
    if not os.path.isdir(folder or "."):
        raise InvalidRequestsError(f"{path}: there is no folder {folder}")
    # Most file systems allow 255 bytes.
    if not 0 < len(os.fsencode(name)) < 256:
        raise InvalidRequestsError(f"{path!r}: the name is empty or too long")
    return folder or "."


def _check_names(requests: str, results: str, own: list[str]) -> None:
    """Raise InvalidRequestsError for a name with which the job could not end."""
    is_there = os.path.exists(requests)
    if requests == "-" or (is_there and not os.path.isfile(requests)):
        raise InvalidRequestsError(
            f"{requests}: run needs a regular file, to read it again"
        )
    if results == "-":
        raise InvalidRequestsError("-o -: run writes a file, so that it can go on")
    for path in [results, *own]:
        _folder_of(path)
        if os.path.realpath(path) == os.path.realpath(requests):
            raise InvalidRequestsError(
                f"{requests} is a file that the job writes: name another RESULTS"
            )


@contextlib.contextmanager
def _locked(path: str) -> Iterator[Any]:
    """Open a file for appending, for one process at a time.

    The lock dies with the process.
    """
    with open(path, "a+b") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                # A lock far behind all rows keeps nobody from reading them.
                file.seek(1 << 40)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The run that held the lock before may have moved or removed the file.
            locked = os.fstat(file.fileno())
            is_ours = os.path.samestat(locked, os.stat(path))
        except OSError:
            is_ours = False
        if not is_ours:
            raise JobError(
                f"Another run is at work on {path}, or has just ended, or the folder "
                "has no locks; run again if there is more to do"
            )
        yield file


@dataclass(eq=False)
class Job:
    """A file of requests to a file of results.

    It takes as many batches as needed, and goes on after it was killed.

    ``requests`` and ``results`` are paths; beside results (or in ``folder``) it writes
    ``.job``, ``.part`` and what failed.  ``poll_interval``: seconds between polls, None
    as in wait().  ``settle``: seconds, 0 or more, after which no batch is expected from
    a create whose response is lost.  ``disown``: ids of batches that a question has
    named, and that are not to be taken.  ``betas``: for count_tokens and create.
    ``wait``: False ends the run when all that is possible now is done.  ``check``:
    False leaves out count_tokens for the first request.  ``progress`` tells a person:
    ``message(text)`` stays, ``waiting(seconds, reason)`` is what happens at the moment,
    ``batches(batches, parts)`` shows the MessageBatches that are running, of so many
    parts; ``again(*arguments)`` and ``command(*arguments)`` return what to type.
    """

    client: Anthropic
    requests: str
    results: str
    progress: Any
    folder: str | None = None
    poll_interval: float | None = None
    settle: float = 300.0
    disown: Iterable[str] = ()
    betas: Sequence[str] = ()
    wait: bool = True
    check: bool = True

    def __post_init__(self) -> None:
        self._batches = self.client.messages.batches
        stem = self.results
        if self.folder:
            stem = os.path.join(self.folder, os.path.basename(stem))
        self._journal_path = stem + ".job"
        self._rows_path = stem + ".part"
        root, extension = os.path.splitext(self.results)
        self._failed_path = root + ".failed" + extension
        self._parts: list[_Part] = []

    @property
    def open_batches(self) -> list[str]:
        """The ids of the batches that are running or not collected yet."""
        parts = [part for part in self._parts if part.state == "created"]
        return [one for part in parts for one in part.left]

    def run(self) -> int:
        """Do what is left, and return the exit status.

        It is 0 if every request succeeded, 3 if not, 4 if something is unfinished (only
        without ``wait``).  Raises AnthropicError, or OSError of a file.
        """
        own = [self._journal_path, self._rows_path, self._failed_path]
        own += [path + ".tmp" for path in own]
        _check_names(self.requests, self.results, own)
        # When to send or look, and when to poll: by the monotonic clock of this
        # process.
        self._send_due = self._poll_due = 0.0
        with _locked(self._rows_path) as self._rows_file:
            try:
                self._open()
            except BaseException:
                if not os.path.getsize(self._rows_path):
                    self._release_rows_file()
                    # On Windows another run may have opened it just now: it is that
                    # run's.
                    with contextlib.suppress(PermissionError):
                        os.unlink(self._rows_path)
                raise
            try:
                return self._work()
            except KeyboardInterrupt:
                for part in self._parts:
                    is_left = part.left or part.is_in_doubt
                    if part.state == "closing" and is_left:
                        self.progress.message(
                            f"{self._name(part)}: its batch may exist, and be billed; "
                            "the next run looks for it"
                        )
                raise
            except OSError as error:
                # For instance a full disk.
                raise JobError(
                    f"{error}: correct that, and run again to go on"
                ) from error

    def _work(self) -> int:
        self._await_settle()
        if self._send_due and not self.wait:
            # Otherwise runs that do not wait would never end a doubt.
            time.sleep(self.settle)
            self._send_due = 0.0
        while True:
            self._send_and_poll()
            dues = []
            if self._to_send():
                dues.append(self._send_due)
            if self._to_poll():
                dues.append(self._poll_due)
            if not dues or not self.wait:
                break
            time.sleep(max(0.0, min(dues) - time.monotonic()))
        questions = [part.question for part in self._parts if part.question]
        if questions:
            raise JobError("\n".join(questions))
        # A part that is not collected is due, or has a question.
        return 4 if dues else self._finish()

    def _send_and_poll(self) -> None:
        try:
            self._send()
        except AnthropicError:
            # What has ended is collected all the same, and what is asked is told.
            self._poll()
            for part in self._parts:
                if part.question:
                    self.progress.message(part.question)
            raise
        self._poll()

    # Plan

    def _open(self) -> None:
        """Go on from the journal, or begin one; refuse what does not fit it."""
        if os.path.exists(self._journal_path):
            self._load()
        else:
            _refuse_existing(self.results, self._failed_path)
            if os.path.getsize(self._rows_path):
                raise JobError(
                    f"{self._rows_path} is of a run without its journal; move it away"
                )
            self._journal, _ = self.plan()
            self._parts = self._journal.parts
            if self.check:
                self._check_first()
        self._apply_disowned()
        if any(part.state != "collected" for part in self._parts):
            _refuse_existing(self.results)
            if os.path.getsize(self._rows_path) < self._journal.rows_end:
                raise JobError(
                    f"{self._rows_path} has lost rows that {self._journal_path} "
                    "counts; put it back"
                )
            self._identify()
        self._save()

    def _load(self) -> None:
        """Take the journal of an earlier run.

        Raises JobError if it is of another job.
        """
        # It is set before the checks, so that open_batches is right if one fails.
        journal = self._journal = _read_journal(self._journal_path)
        self._parts = journal.parts
        plan, _ = self.plan()
        then, now = ([part.digest for part in one.parts] for one in (journal, plan))
        if then != now:
            self._refuse_change()
        _check_same("base_url", journal.base_url, plan.base_url)
        _check_same("--beta", journal.betas, plan.betas)
        self.progress.message(f"going on with {self._journal_path}")

    def _apply_disowned(self) -> None:
        """Strike off what --disown names.

        Raises InvalidRequestsError for another id.
        """
        disowned = self._journal.disowned
        for batch_id in self.disown:
            parts = [part for part in self._parts if batch_id in part.asked]
            if parts:
                disowned.append(batch_id)
            elif batch_id not in disowned:
                raise InvalidRequestsError(
                    f"--disown {batch_id}: no question that is open names this batch"
                )
            # If several questions named it, that about a part in doubt is answered.
            in_doubt = [part for part in parts if part.is_in_doubt]
            for part in in_doubt or parts:
                if part.is_in_doubt:
                    part.noted.remove(batch_id)
                    part.asked.remove(batch_id)
                    continue
                # The question is answered.  What is left decides, and the next question
                # says whether to give that up pays again.
                part.asked = []
                part.batches[batch_id] = 0

    def _check_first(self) -> None:
        """Count the tokens of the first request: what is wrong with it is told now."""
        *_, request = next(_read_requests(self.requests))
        try:
            _count(self.client, request["params"], self.betas)
        except APIError as error:
            is_refusal = isinstance(error, BadRequestError) and not error.error_code
            if is_refusal and error.type == "invalid_request_error":
                raise InvalidRequestsError(
                    f"count_tokens refuses the first request: {error}.  If only "
                    "count_tokens does (a gateway may not have it), go on without it: "
                    f"{self.progress.again('--no-check')}"
                ) from None
            self.progress.message(f"the first request could not be checked: {error}")

    def _identify(self) -> None:
        """Note whose key this is.  Raises JobError for the key of another workspace."""
        headers = _headers(self._batches.list(limit=1))
        for name in ("anthropic-organization-id", "anthropic-workspace-id"):
            if name in headers:
                known = self._journal.owner.setdefault(name, headers[name])
                _check_same(name, known, headers[name])

    def plan(self) -> tuple[_Journal, str]:
        """Check REQUESTS and cut it into parts.

        Returns the new journal, and the plan as text.  Raises InvalidRequestsError with
        file and line.
        """
        version = self.client.default_headers.get("anthropic-version") or API_VERSION
        warnings = max_tokens = 0
        parts: list[_Part] = []
        models: Counter[str] = Counter()
        # The first byte of the part of each custom_id: with it nothing is parsed again.
        self._part_of: dict[str, int] = {}
        for place, start, text, request in _read_requests(self.requests):
            params = request["params"]
            if not parts or parts[-1].is_full(text):
                parts.append(_Part(start))
            part = parts[-1]
            part.add(text)
            if part.size > MAX_BATCH_BYTES:
                raise InvalidRequestsError(
                    f"{place}: more than the {MAX_BATCH_BYTES:,} bytes of a batch"
                )
            self._part_of[request["custom_id"]] = part.start
            _count_name(models, params.get("model"))
            limit = params.get("max_tokens")
            if isinstance(limit, int):
                max_tokens += limit
            refusal = _later_refusal(params, version)
            if refusal:
                warnings += 1
                if warnings <= MAX_WARNINGS:
                    self.progress.message(
                        f"{place}: warning: this will come back errored: {refusal}"
                    )
        if warnings > MAX_WARNINGS:
            self.progress.message(f"… and {warnings - MAX_WARNINGS:,} more warnings")
        started_at = _now().isoformat()
        journal = _Journal(self.client.base_url, list(self.betas), parts, started_at)
        return journal, _plan_text(parts, models, max_tokens)

    def _texts_of(self, part: _Part) -> Iterator[bytes]:
        """Yield the requests of a part as they are sent.

        Raises JobError at their end if they are not those of the plan.
        """
        seen = _Part(part.start)
        with open(self.requests, "rb") as file:
            file.seek(part.start)
            for text in filter(None, (line.strip(AROUND_JSON) for line in file)):
                seen.add(text)
                yield text
                if seen.requests == part.requests:
                    break
        if seen.digest != part.digest:
            self._refuse_change()

    def _refuse_change(self) -> None:
        raise JobError(
            f"{self.requests} has changed since the run began; put it back and run "
            "again, or begin another run"
        )

    # Send

    def _in_doubt(self) -> list[_Part]:
        return [part for part in self._parts if part.is_in_doubt]

    def _to_send(self) -> list[_Part]:
        """Return the parts in doubt, which hold up others, or those without a batch."""
        in_doubt = self._in_doubt()
        if any(part.question for part in in_doubt):
            return []
        return in_doubt or [part for part in self._parts if not part.left]

    def _await_settle(self) -> None:
        """Let batches of parts in doubt appear in the list."""
        for part in self._in_doubt():
            self._send_due = time.monotonic() + self.settle
            self.progress.waiting(
                self.settle, f"{self._name(part)}: looking whether its batch was made"
            )

    def _send(self) -> None:
        """Look for the batch of a part in doubt, then send the parts that have none."""
        while self._to_send() and time.monotonic() >= self._send_due:
            part = self._to_send()[0]
            try:
                page = self._batches.list(limit=100)
                if part.is_in_doubt:
                    self._look(part, page)
                else:
                    self._create(part, page)
            except BatchMayExistError as error:
                self.progress.message(f"{self._name(part)}: {error}")
                self._await_settle()
                return
            except APIError as error:
                self._postpone(error)

    def _look(self, part: _Part, first: Page[MessageBatch]) -> None:
        """Write down the candidates of a part in doubt; without any, send it again."""
        found, is_certain = self._candidates(part, first)
        # What this look finds answers the question, or asks it again.
        part.asked = []
        if found:
            part.batches.update(dict.fromkeys(found))
            part.is_certain = is_certain
            self._save()
        elif is_certain:
            # The page of this look is noted, so that nothing comes in between.
            self._create(part, first)
        else:
            flags = [word for one in part.noted for word in ("--disown", one)]
            self._ask(
                part,
                "no response says whether its batch was made, and none of the batches "
                "that were listed before is in the list now.  If this key is of "
                "another workspace, run again with the right one.  If the batches were "
                "deleted, disown them; unless the list then shows its batch, the part "
                "is sent, and paid for, again.\n  to disown them: "
                + self.progress.again(*flags),
                *part.noted,
            )

    def _candidates(
        self, part: _Part, first: Page[MessageBatch]
    ) -> tuple[list[str], bool]:
        """Return what may be the batch of a part; and whether their absence is certain.

        It is if the list has a batch that was noted, or none was and the list has
        ended, or gone past those that were disowned.
        """
        # A candidate of another part may be this part's, so that it counts, too.
        known = {*self._journal.disowned, *part.noted, *part.batches}
        for other in self._parts:
            if other.state != "closing":
                known.update(other.left)
        since = _parse_time(part.noted_since)
        found: list[str] = []
        is_met = is_past = False
        page = first
        for page in Page.iter_pages(first):
            for batch in page.data:
                is_met = is_met or batch.id in part.noted
                created_at = _moment(batch.created_at)
                if since and created_at and created_at < since - CLOCK_SLACK:
                    # What is older than what was noted is of an earlier run.
                    is_past = True
                elif batch.id not in known and _size(batch) in (part.requests, None):
                    found.append(batch.id)
            if is_past:
                break
        # A gateway may leave out has_more, also of a list that is empty.
        is_end = page.has_more is False or not (page.data or page.has_more)
        return found, is_met or (not part.noted and (is_past or is_end))

    def _create(self, part: _Part, page: Page[MessageBatch]) -> None:
        """Make the batch of a part; the page is the list before that."""

        def close() -> None:
            # It is journalled before the last block goes out.
            part.state, part.batches = "closing", {}
            self._save()

        disowned = self._journal.disowned
        part.noted = [one.id for one in page.data if one.id not in disowned]
        times = [_moment(one.created_at) for one in page.data]
        part.noted_since = str(min(filter(None, times), default=""))
        try:
            batch = _create_encoded(
                self._batches,
                self._texts_of(part),
                before_last_block=close,
                betas=self.betas,
            )
        except BatchMayExistError:
            raise
        except APIError:
            part.state = "planned"
            self._save()
            raise
        # The id is printed before it is written down.
        self.progress.message(f"{self._name(part)}: batch {batch.id}")
        part.state, part.batches = "created", {batch.id: None}
        self._save()

    def _postpone(self, error: APIError) -> None:
        """Wait before the next attempt to send.  Raises the error if it stays."""
        if "spend_limit" in str(getattr(error, "error_code", None)):
            raise JobError(
                f"{error}.  It stays so until the limit is raised; then run again"
            ) from error
        if error.headers.get("x-should-retry") == "false" or not _may_pass(error):
            raise error
        usual = POLL_MAX if error.status_code == 429 else POLL_DEFAULT
        seconds = _retry_after(error.headers) or usual
        self._send_due = time.monotonic() + seconds
        self.progress.waiting(seconds, str(error))

    # Poll

    def _to_poll(self) -> list[_Part]:
        """Return the parts whose batches are running, or not read yet."""
        parts = [part for part in self._parts if part.state != "collected"]
        return [part for part in parts if part.left and not part.question]

    def _poll(self) -> None:
        """Poll all batches once it is time, and collect those that have ended."""
        if time.monotonic() < self._poll_due:
            return
        self._running: list[MessageBatch] = []
        for part in self._to_poll():
            self._poll_part(part)
        if self._running:
            self.progress.batches(self._running, len(self._parts))

    def _poll_part(self, part: _Part) -> None:
        """Poll the batches of a part, and decide between candidates."""
        for batch_id, rows in part.left.items():
            is_to_read = rows is None or part.state == "created"
            if is_to_read and not part.question:
                self._poll_batch(part, batch_id)
        if part.state == "closing" and not part.question:
            self._decide(part)

    def _poll_batch(self, part: _Part, batch_id: str) -> None:
        """Poll a batch of a part, and read it if it has ended."""
        batch = None
        try:
            batch = _ignoring_404(lambda: self._batches.retrieve(batch_id))
            if batch.processing_status == "ended":
                self._read(part, batch_id)
            else:
                self._running.append(batch)
                self._poll_later(_headers(batch))
                if part.asked:
                    # It has come back, and cannot be given up any more.
                    part.asked = []
                    self._save()
        except _STOPS_ALL:
            raise
        except AnthropicError as error:
            self._after_error(part, batch_id, error, batch)
        else:
            part.incomplete = 0

    def _poll_later(self, headers: Mapping[str, str]) -> float:
        """Put off the next poll as a response asks; return the seconds."""
        seconds = _poll_delay(headers, self.poll_interval)
        self._poll_due = max(self._poll_due, time.monotonic() + seconds)
        return seconds

    def _after_error(
        self,
        part: _Part,
        batch_id: str,
        error: AnthropicError,
        batch: MessageBatch | None,
    ) -> None:
        """Poll again later, or ask about the batch.

        ``batch`` is what the poll gave before the error, if anything.
        """
        if isinstance(error, APIError):
            is_passing = _may_pass(error)
        else:
            # There are no results.  If the poll saw some, a replica lags behind.
            is_passing = isinstance(getattr(batch, "results_url", None), str)
        if isinstance(error, (IncompleteResultsError, APIResponseValidationError)):
            part.incomplete += 1
            # A run that does not wait leaves a poll that gave no batch to the next run.
            is_early = part.incomplete < 3
            is_passing = is_early and (self.wait or not batch)
        if is_passing:
            headers = getattr(error, "headers", {})
            self.progress.waiting(self._poll_later(headers), str(error))
        else:
            self._ask_about(part, str(error), batch_id)

    def _read(self, part: _Part, batch_id: str) -> None:
        """Append a part's rows of a batch to RESULTS.part.

        If the batch is a candidate, they are only counted.
        """
        ours = 0
        others = []
        # What comes after the rows of collected parts was not collected, or is torn.
        end = self._rows_file.truncate(self._journal.rows_end)
        with self._batches.results(batch_id) as results:
            for line, row in _raw_rows(results):
                if self._part_of.get(row["custom_id"]) == part.start:
                    ours += 1
                    end += self._rows_file.write(line)
                else:
                    others.append(row["custom_id"])
        part.asked = []
        if part.state == "closing":
            part.batches[batch_id] = ours
        elif others or ours < part.requests:
            reason = f"it has {ours:,} of the part's rows"
            if others:
                reason += f", and {len(others):,} others ({others[0]!r} for one)"
            self._ask_about(part, reason, batch_id)
        else:
            _sync(self._rows_file)
            part.state, self._journal.rows_end = "collected", end
            self._save()
            if not self._in_doubt():
                # It has made room in the queue.
                self._send_due = 0.0
            rows = _plural(part.requests, "result")
            self.progress.message(f"{self._name(part)}: {rows}")

    def _decide(self, part: _Part) -> None:
        """Take the candidate that has the part's rows, once all of them are known."""
        left = part.left
        if list(left.values()) == [part.requests]:
            (batch_id,) = left
            self.progress.message(f"{self._name(part)}: batch {batch_id}, taken over")
            part.state = "created"
            self._poll_part(part)
        elif part.is_in_doubt:
            # The last look did not prove that there is no other candidate: look again.
            self._await_settle()
        elif left and None not in left.values():
            counts = [f"{one} has {ours:,} of its rows" for one, ours in left.items()]
            self._ask_about(part, f"which batch is it?  {', '.join(counts)}", *left)
        self._save()

    def _ask_about(self, part: _Part, reason: str, *ids: str) -> None:
        """Ask whether to give up batches of a part."""
        text = f"{reason}."
        effect = "and if no other one is the part's, send it, and pay for it, again"
        if len(part.left) == 1:
            show = self.progress.command("results", *part.left)
            text += f"\n  to see the rows there are: {show}"
            effect = "send its requests again, and pay again"
        for batch_id in ids:
            disown = self.progress.again("--disown", batch_id)
            text += f"\n  to give up {batch_id}, {effect}: {disown}"
        self._ask(part, text, *ids)

    def _ask(self, part: _Part, text: str, *ids: str) -> None:
        """Note a question that only a person can answer, and go on with the others."""
        part.asked = list(ids)
        part.question = f"{self._name(part)}: {text}"
        self._save()

    # Finish

    def _release_rows_file(self) -> None:
        """Close RESULTS.part on Windows, which renames and removes no open file."""
        if sys.platform == "win32":
            self._rows_file.close()

    def _finish(self) -> int:
        """Write what failed, give RESULTS its name, sum up, and remove the journal."""
        # RESULTS.part is empty after a run that was killed when RESULTS had its name.
        has_rows = os.path.getsize(self._rows_path) > 0
        path = self._rows_path if has_rows else self.results
        summary = _Summary()
        if os.path.isfile(path) and os.path.getsize(path) == self._journal.rows_end:
            summary.read(path)
        outcomes = summary.counts["outcomes"]
        if sum(outcomes.values()) != len(self._part_of):
            raise JobError(
                f"{path} does not have the rows that {self._journal_path} counts; put "
                "it back and run again, or remove the journal if you have the results"
            )
        if summary.failed:
            _write(self._failed_path + ".tmp", self._failed_texts(summary.failed))
            _publish(self._failed_path + ".tmp", self._failed_path)
        self._release_rows_file()
        if has_rows:
            _publish(self._rows_path, self.results)
        else:
            _while_held(os.unlink, self._rows_path)
        _sync_folder(self.results)
        self.progress.message("\n".join(self._summary_lines(summary)))
        _while_held(os.unlink, self._journal_path)
        return 3 if summary.failed else 0

    def _failed_texts(self, failed: set[str]) -> Iterator[bytes]:
        """Yield the lines of the requests that did not succeed, as they were."""
        # The plan knows the order of the custom_ids.
        custom_ids = iter(self._part_of)
        for part in self._parts:
            for text in self._texts_of(part):
                if next(custom_ids) in failed:
                    yield text + b"\n"

    def _summary_lines(self, summary: _Summary) -> Iterator[str]:
        yield from summary.lines()
        began = _parse_time(self._journal.started_at)
        batches: list[str] = []
        for part in self._parts:
            for one, rows in part.left.items():
                batches.append(f"{one} (taken over)" if rows else one)
        elapsed = _clock(_now() - began)
        yield f"{elapsed} elapsed; batches: {', '.join(batches)}"
        if summary.failed:
            yield f"requests that failed, to correct or run again: {self._failed_path}"
        yield f"results: {self.results}"

    def _save(self) -> None:
        """Replace the journal in one step that survives a power cut."""
        path = self._journal_path
        fields = asdict(self._journal)
        fields["journal_digest"] = _digest_of(fields)
        text = json.dumps(fields, indent=1)
        try:
            _write(path + ".tmp", [text.encode()])
            _while_held(os.replace, path + ".tmp", path)
            _sync_folder(path)
        except OSError as error:
            # An OSError would be taken for a lost connection during the upload.
            raise JobError(
                f"The journal {path} cannot be written: {error}; run again"
            ) from error

    def _name(self, part: _Part) -> str:
        number = self._parts.index(part) + 1
        return (
            f"part {number} of {len(self._parts)} ({_plural(part.requests, 'request')})"
        )


def _count_name(counter: Counter[str], name: Any, number: int = 1) -> None:
    """Count a name, of which a server or a file may have any number."""
    name = str(name)
    is_known = name in counter or len(counter) < MAX_NAMES
    counter[name if is_known else "others"] += number


def _plan_text(parts: list[_Part], models: Counter[str], max_tokens: int) -> str:
    counts = ", ".join(f"{model} ({count:,})" for model, count in models.items())
    return (
        f"requests: {sum(part.requests for part in parts):,}\n"
        f"parts: {len(parts):,}\n"
        f"bytes: {sum(part.size for part in parts):,}\n"
        f"models: {counts}\n"
        f"max_tokens: {max_tokens:,}"
    )


# By the field of usage: what the summary calls it.
_TOKENS = {
    "input_tokens": "in",
    "cache_creation_input_tokens": "cache write",
    "cache_read_input_tokens": "cache read",
    "output_tokens": "out",
}
_USUAL_STOPS = ("end_turn", "tool_use", "stop_sequence")


class _Summary:
    """What a file of results holds, in numbers."""

    def __init__(self) -> None:
        # By what is counted: outcomes, errors, stop reasons, and the tokens of models.
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.failed: set[str] = set()
        # Failed requests that would fail again.
        self.invalid = 0

    def read(self, path: str) -> None:
        """Count the rows of a file."""
        with open(path, "rb") as rows:
            for row in filter(None, map(_decode_row, rows)):
                self._add(row["custom_id"], row.get("result"))

    def _add(self, custom_id: str, result: Any) -> None:
        outcome = _dig(result, "type")
        _count_name(self.counts["outcomes"], outcome)
        if outcome != "succeeded":
            self.failed.add(custom_id)
            error_type = _dig(result, "error", "error", "type")
            if error_type is not None:
                message = _dig(result, "error", "error", "message")
                _count_name(self.counts["errors"], f"{error_type}: {message}")
                self.invalid += error_type == "invalid_request_error"
        message = _dig(result, "message")
        usage = _dig(message, "usage")
        if isinstance(usage, dict):
            reason = message.get("stop_reason")
            if reason not in _USUAL_STOPS:
                _count_name(self.counts["stops"], reason)
            for name in _TOKENS:
                number = usage.get(name)
                number = number if isinstance(number, int) else 0
                _count_name(self.counts[name], message.get("model"), number)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the summary."""
        outcomes = self.counts["outcomes"]
        counts = ", ".join(f"{count:,} {name}" for name, count in outcomes.items())
        yield f"{_plural(sum(outcomes.values()), 'request')}: {counts}"
        for message, count in self.counts["errors"].most_common(5):
            yield f"  {count:,} × {message}"
        if self.failed:
            again = len(self.failed) - self.invalid
            yield (
                f"  worth running again: {again:,}; failing again as they are: "
                f"{self.invalid:,}"
            )
        for reason, count in self.counts["stops"].most_common(5):
            yield f"  {count:,} stopped by {reason}"
        for model in self.counts["input_tokens"]:
            shown = [
                f"{self.counts[name][model]:,} {text}" for name, text in _TOKENS.items()
            ]
            yield f"tokens of {model}: {', '.join(shown)}"


def _clock(span: timedelta) -> str:
    """Return a span of time as h:mm:ss; a day is 24:00:00."""
    minutes, seconds = divmod(max(0, int(span.total_seconds())), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


# ---- Sandbox -------------------------------------------------------------------------
# A stand-in of the API on 127.0.0.1, for a first try and for tests.


@dataclass
class _SandboxBatch:
    url: str
    id: str
    created_at: datetime
    ends: datetime
    # custom_id, model, and why the request is refused, or None; never the bodies.
    requests: list[tuple[str, str, str | None]]
    cancel_initiated_at: datetime | None = None

    def outcome(self, custom_id: str, refusal: str | None) -> str:
        """Return the type of a request's result."""
        if refusal:
            return "errored"
        if self.cancel_initiated_at:
            return "canceled"
        return "expired" if custom_id.startswith("expired") else "succeeded"

    def show(self) -> _JSONObject:
        """Return the MessageBatch's JSON as it is now."""
        ended = _now() >= self.ends
        counts = dict.fromkeys(MessageBatchRequestCounts.__annotations__, 0)
        for custom_id, _, refusal in self.requests:
            outcome = self.outcome(custom_id, refusal) if ended else "processing"
            counts[outcome] += 1
        status = "canceling" if self.cancel_initiated_at else "in_progress"
        results_url = f"{self.url}{_BATCHES}/{self.id}/results"
        return {
            "id": self.id,
            "type": "message_batch",
            "request_counts": counts,
            "processing_status": "ended" if ended else status,
            "created_at": self.created_at,
            "expires_at": self.created_at + timedelta(hours=24),
            "ended_at": self.ends if ended else None,
            "cancel_initiated_at": self.cancel_initiated_at,
            "archived_at": None,
            "results_url": results_url if ended else None,
        }

    def rows(self) -> Iterator[bytes]:
        """Yield the lines of results, in another order: the API promises none."""
        for number, (custom_id, model, refusal) in enumerate(reversed(self.requests)):
            outcome = self.outcome(custom_id, refusal)
            result: _JSONObject = {"type": outcome}
            if refusal:
                message = f"{refusal} (says the sandbox)"
                error = {"type": "invalid_request_error", "message": message}
                result["error"] = {"type": "error", "error": error, "request_id": None}
            elif outcome == "succeeded":
                result["message"] = _sandbox_message(number, model)
            yield _encode_json({"custom_id": custom_id, "result": result}) + b"\n"


def _sandbox_message(number: int, model: str) -> _JSONObject:
    text = "This is the sandbox's answer; no model was asked."
    return {
        "id": f"msg_sandbox_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "output_tokens": 12,
            "service_tier": "batch",
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 0,
                "ephemeral_1h_input_tokens": 0,
            },
        },
    }


_SANDBOX_MODELS: list[_JSONObject] = [
    {
        "id": model_id,
        "type": "model",
        "display_name": name,
        "created_at": f"{created}T00:00:00Z",
        "lifecycle": lifecycle,
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
        "capabilities": {"batch": {"supported": True}},
    }
    for model_id, name, created, lifecycle in (
        ("claude-sonnet-4-6", "Claude Sonnet 4.6", "2026-02-17", "active"),
        ("claude-opus-4-6", "Claude Opus 4.6", "2026-02-04", "active"),
        ("claude-haiku-4-5-20251001", "Claude Haiku 4.5", "2025-10-15", "active"),
        ("claude-opus-4-1-20250805", "Claude Opus 4.1", "2025-08-05", "deprecated"),
        ("claude-opus-4-20250514", "Claude Opus 4", "2025-05-22", "retired"),
    )
]


class Sandbox:
    """A stand-in of the API: a real HTTP server on 127.0.0.1.

    It needs no key, no network beyond this machine, and costs nothing. ::

        with Sandbox() as sandbox:
            client = Anthropic(base_url=sandbox.url, api_key="sandbox")

    ``port``: 0 for any free one; ``seconds``: 0 or more, how long a batch is in
    progress.
    ``url``: for base_url; it responds inside the ``with`` block.  Rows: ``errored`` for
    what the API refuses inside params, ``canceled`` after a cancel, ``expired`` if
    custom_id begins so, else ``succeeded``.
    """

    def __init__(self, *, port: int = 0, seconds: float = 1.0) -> None:
        self._seconds = timedelta(seconds=seconds)
        # Oldest first.
        self._batches: dict[str, _SandboxBatch] = {}
        self._server = _sandbox_server(self, port)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        from threading import Thread

        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _respond(
        self, call: str, query: list[tuple[str, str]], headers: Any, raw: bytes
    ) -> Any:
        """Return the response's JSON, or an iterator of rows.

        Raises ValueError for a 400, else the error that the client will raise.
        """
        if not (headers.get("authorization") or headers.get("x-api-key")):
            raise AuthenticationError(
                "the sandbox wants a key, any key", type="authentication_error"
            )
        if call == "POST /v1/messages/count_tokens":
            return self._count_tokens(_sandbox_json(raw))
        if call == f"POST {_BATCHES}":
            return self._create(
                _sandbox_json(raw), headers.get("anthropic-version", "")
            )
        if call == f"GET {_BATCHES}":
            # A copy, because other threads may make or delete batches meanwhile.
            batches = list(self._batches.values())
            return _sandbox_page([batch.show() for batch in batches[::-1]], dict(query))
        if call == "GET /v1/models":
            asked = [value for name, value in query if name == "lifecycle[]"]
            wanted = asked or ["active", "deprecated"]
            models = [one for one in _SANDBOX_MODELS if one["lifecycle"] in wanted]
            return _sandbox_page(models, dict(query))
        response = self._find(call)
        if response is None:
            raise NotFoundError(
                f"the sandbox has no {call}, or not yet", type="not_found_error"
            )
        return response

    def _find(self, call: str) -> Any:
        """Return the response for a model or a batch, None if there is none (yet)."""
        for model in _SANDBOX_MODELS:
            alias = re.sub(r"-\d{8}$", "", model["id"])
            if call.partition("GET /v1/models/")[2] in (model["id"], alias):
                return model
        method, _, path = call.partition(_BATCHES + "/")
        batch_id, _, action = path.partition("/")
        batch = self._batches.get(batch_id)
        return batch and self._act(method + action, batch)

    def _create(self, body: Any, version: str) -> _JSONObject:
        requests = _dig(body, "requests")
        if not isinstance(requests, list) or len(body) != 1:
            raise ValueError("requests must be a list, and the only field")
        kept = []
        # What the client does not send is what the API refuses.
        for _, request in zip(_encoded(requests, len(_END)), requests):
            params = request["params"]
            refusal = _later_refusal(params, version)
            kept.append((request["custom_id"], str(params.get("model")), refusal))
        now = _now()
        batch_id = f"msgbatch_sandbox_{os.urandom(8).hex()}"
        batch = _SandboxBatch(self.url, batch_id, now, now + self._seconds, kept)
        self._batches[batch_id] = batch
        return batch.show()

    def _act(self, action: str, batch: _SandboxBatch) -> Any:
        """Return the response to an action on a batch, None if there is none (yet)."""
        is_ended = _now() >= batch.ends
        if action == "GET results":
            return batch.rows() if is_ended else None
        if action == "DELETE ":
            if not is_ended:
                raise ValueError(
                    "the batch is in progress: cancel it before you delete it"
                )
            self._batches.pop(batch.id, None)
            return {"id": batch.id, "type": "message_batch_deleted"}
        if action == "POST cancel" and not is_ended and not batch.cancel_initiated_at:
            now = _now()
            # In this order, another thread sees no canceled batch that ends before.
            batch.ends = now + self._seconds
            batch.cancel_initiated_at = now
        return batch.show() if action in ("GET ", "POST cancel") else None

    def _count_tokens(self, body: Any) -> _JSONObject:
        if not _dig(body, "model") or not _dig(body, "messages"):
            raise ValueError("model and messages: Field required")
        for name in body.keys() - COUNTED:
            raise ValueError(f"{name!r}: Extra inputs are not permitted")
        return {"input_tokens": len(_encode_json(body)) // 4}


def _sandbox_json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except _NOT_JSON as error:
        raise ValueError(f"The request body is not valid JSON: {error}") from None


def _sandbox_page(items: list[_JSONObject], query: Mapping[str, str]) -> _JSONObject:
    """Return the page of a list that limit, after_id and before_id ask for."""
    size = int(query.get("limit", 20))
    after, before = query.get("after_id", ""), query.get("before_id", "")
    cursor = after or before
    # Before an item, the list is read from its end.
    order = -1 if before else 1
    items = items[::order]
    ids = ["", *[item["id"] for item in items]]
    if not 1 <= size <= 1000 or (after and before) or cursor not in ids:
        raise ValueError("limit: 1 to 1000; after_id or before_id: one that exists")
    start = ids.index(cursor)
    end = start + size
    page = items[start:end][::order]
    return {
        "data": page,
        "has_more": end < len(items),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _sandbox_server(sandbox: Sandbox, port: int) -> Any:
    # It is imported here because the client has no use for it.
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            # A client that has disconnected is not reported.
            with contextlib.suppress(ConnectionError):
                super().finish_request(request, client_address)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        # Head and body go out in one packet.
        wbufsize = -1

        do_GET = do_POST = do_DELETE = functools.partialmethod(
            _sandbox_respond, sandbox
        )

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    return Server(("127.0.0.1", port), Handler)


def _sandbox_respond(handler: Any, sandbox: Sandbox) -> None:
    """Respond to one request, in chunks, as the API sends rows."""
    length = int(handler.headers.get("content-length") or 0)
    raw = handler.rfile.read(length)
    path, _, query = handler.path.partition("?")
    call = f"{handler.command} {urllib.parse.unquote(path)}"
    params = urllib.parse.parse_qsl(query, keep_blank_values=True)
    status = 200
    request_id = f"req_sandbox_{os.urandom(6).hex()}"
    try:
        response = sandbox._respond(call, params, handler.headers, raw)
    except (APIStatusError, ValueError) as error:
        status = getattr(error, "status_code", 400)
        error_type = getattr(error, "type", "invalid_request_error")
        response = {
            "type": "error",
            "error": {"type": error_type, "message": str(error)},
            "request_id": request_id,
        }
    content_type, blocks = "application/x-jsonl", response
    if isinstance(response, dict):
        content_type, blocks = "application/json", [_encode_json(response)]
    handler.send_response(status)
    handler.send_header("request-id", request_id)
    handler.send_header("anthropic-organization-id", "sandbox")
    handler.send_header("transfer-encoding", "chunked")
    handler.send_header("content-type", content_type)
    if _dig(response, "processing_status") in ("in_progress", "canceling"):
        # The polling interval.
        handler.send_header("retry-after", "1")
    handler.end_headers()
    for block in blocks:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
    handler.wfile.write(b"0\r\n\r\n")


# ---- Command line --------------------------------------------------------------------
# A command is a function of the parsed arguments that returns an exit status, None for
# 0.  Output goes to standard output, what is for a person to standard error.


def _visible(text: str) -> str:
    """Return a text whose control characters, but for those of a new line, are escapes.

    A response may hold what a terminal takes for commands.
    """
    control = r"[\x00-\x09\x0b-\x1f\x7f-\x9f]"
    return re.sub(control, lambda match: repr(match.group())[1:-1], text)


def _one_line(value: object) -> str:
    """Return what is shown of a value in one line: nothing of None."""
    text = "" if value is None else str(value)
    return _visible(text.replace("\n", " "))


def _ask_stderr(function: Callable[[int], Any]) -> Any:
    """Return what a function tells of standard error, None where that is no file."""
    # get_terminal_size raises the first two (ValueError on Windows,
    # python/cpython#93203), a stream that is no file any of them.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return function(sys.stderr.fileno())
    return None


def _terminal_columns() -> int:
    """Return the width of the terminal, 0 if standard error is none."""
    size = _ask_stderr(os.get_terminal_size)
    return (size.columns or 80) if size else 0


class _Progress:
    """Tells a person on standard error: messages that stay, and a status line.

    On a terminal the status line is overwritten by the next one.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv
        # The status line that was shown last, and the width of the widest one on the
        # terminal, which is what there may be to overwrite.
        self._last, self._width = "", 0

    def command(self, *arguments: str) -> str:
        """Return a command of this file as it can be pasted into a shell."""
        program = sys.argv[:1]
        if program[0].endswith(".py"):
            program.insert(0, os.path.basename(sys.executable or "python"))
        return " ".join(map(_quote, [*program, *arguments]))

    def again(self, *arguments: str) -> str:
        """Return the command that is running, with more arguments."""
        name, *rest = self._argv
        # What was disowned is in the journal; to repeat it could answer a later
        # question before anybody has read it.
        kept = [
            argument
            for before, argument in zip(self._argv, rest)
            if "--disown" not in (before, argument.partition("=")[0])
        ]
        return self.command(name, *arguments, *kept)

    def _write(self, text: str) -> None:
        # A job goes on if standard error is closed.
        with contextlib.suppress(OSError):
            print(text, end="", file=sys.stderr, flush=True)

    def message(self, text: str) -> None:
        """Print a message, which stays.  In a file, such as nohup's, it has a time."""
        if _ask_stderr(os.path.isfile):
            text = f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}"
        # The terminal may be narrower now than when the status line was written.
        width = min(self._width, _terminal_columns() - 1)
        erasure = f"\r{'':{width}}\r" if width > 0 else ""
        self._write(erasure + _visible(text) + "\n")

    def status_line(self, text: str, times: str = "", is_last: bool = False) -> None:
        """Show what happens at the moment.

        Elsewhere than on a terminal it is printed without ``times``, which follow it,
        and only when more changes than a request id or the end of a wait.
        """
        columns = _terminal_columns()
        if columns:
            # Spaces overwrite what is left of a line that was longer.
            shown = _one_line(text + times).ljust(self._width)[: columns - 1]
            end = "\n" if is_last else ""
            self._write("\r" + shown + end)
            self._width = len(shown)
        else:
            kept = re.sub(r" \(request id [^)]*\)| until [\d:]{8}", "", text)
            if kept != self._last:
                self.message(text)
            self._last = kept

    def waiting(self, seconds: float, reason: str) -> None:
        """Show why and until when nothing happens."""
        until = datetime.now() + timedelta(seconds=min(seconds, 1e6))
        self.status_line(f"waiting until {until:%H:%M:%S}: {reason}")

    def batches(self, batches: list[MessageBatch], parts: int = 1) -> None:
        """Show batches in the status line, which stays once they have ended.

        There is no percentage, because the API moves the counts only at the end.
        """
        counts = []
        for name in MessageBatchRequestCounts.__annotations__:
            each = [getattr(batch.request_counts, name, None) for batch in batches]
            total = sum(count for count in each if isinstance(count, int))
            if total:
                counts.append(f"{total:,} {name}")
        states = {str(batch.processing_status) for batch in batches}
        status = ", ".join(sorted(states))
        several = f"{len(batches)} of {parts} batches " if parts > 1 else ""
        date_header = _headers(batches[0]).get("date")
        now = _http_date(date_header) or _now()
        begun = min(_moment(batch.created_at) or now for batch in batches)
        end = min(_moment(batch.expires_at) or now for batch in batches)
        self.status_line(
            f"{several}{status}: {', '.join(counts)}",
            f", {_clock(now - begun)} elapsed, expires in {_clock(end - now)}",
            is_last=status == "ended",
        )


def _quote(argument: str) -> str:
    """Return an argument as the shell of the system takes it."""
    if sys.platform == "win32":
        is_plain = re.fullmatch(r"[\w.:\\/=@-]+", argument)
        escaped = argument.replace('"', '\\"')
        return argument if is_plain else f'"{escaped}"'
    import shlex

    return shlex.quote(argument)


def _show_retries(progress: _Progress, stack: contextlib.ExitStack) -> None:
    """Show the retries that the client logs, if they wait for more than a moment.

    The stack undoes it.
    """
    import logging

    def show(record: Any) -> bool:
        seconds, reason = record.args
        if isinstance(reason, NotFoundError):
            progress.status_line(
                f"not found yet; it is looked for until {NOT_FOUND_SECONDS:g} s have "
                f"passed, because a new batch may be seen late: {reason}"
            )
        elif seconds >= NOT_FOUND_INTERVAL:
            progress.waiting(seconds, str(reason))
        return True

    logger = logging.getLogger("claude_batches")
    stack.callback(logger.setLevel, logger.level)
    logger.setLevel(logging.DEBUG)
    # A filter sees all that is logged, and this one lets all pass.
    stack.callback(logger.removeFilter, show)
    logger.addFilter(show)


def _print(value: Any) -> None:
    """Print a text, or an object as JSON."""
    if not isinstance(value, str):
        value = _Object.to_json(value, indent=None)
    print(value, flush=True)


def _print_all(
    args: Any,
    objects: Iterable[Any],
    head: str,
    cells: Callable[[Any], Iterable[object]],
) -> None:
    """Print objects as lines of JSON, or as aligned columns."""
    if args.json:
        for one in objects:
            _print(one)
        return
    rows = [head.split()]
    for one in objects:
        rows.append([*map(_one_line, cells(one))])
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        _print("  ".join(map(str.ljust, row, widths)).rstrip())


def _run_command(args: Any) -> int:
    if not args.output and not args.dry_run:
        raise InvalidRequestsError("run: -o RESULTS is required")
    names = ("progress", "poll_interval", "settle", "disown", "betas", "wait", "check")
    options = {name: getattr(args, name) for name in names}
    if args.sandbox and not args.dry_run:
        return _run_in_sandbox(args, options)
    job = Job(Anthropic(), args.REQUESTS, args.output or "results", **options)
    if args.dry_run:
        _print(job.plan()[1])
        return 0
    try:
        return job.run()
    finally:
        args.open_batches = job.open_batches


def _run_in_sandbox(args: Any, options: _JSONObject) -> int:
    if not args.wait:
        raise InvalidRequestsError(
            "--sandbox ends with the command: leave out --no-wait"
        )
    if os.path.exists(args.output + ".job"):
        raise JobError(
            f"{args.output}.job is of a real run, untouched by --sandbox: name another "
            "RESULTS"
        )
    with Sandbox() as sandbox, _folder_beside(args.output) as folder:
        client = Anthropic(base_url=sandbox.url, api_key="sandbox")
        job = Job(client, args.REQUESTS, args.output, folder=folder, **options)
        return job.run()


def _folder_beside(path: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=".claude-batches-", dir=_folder_of(path))


def _create_command(args: Any) -> None:
    requests = (request for *_, request in _read_requests(args.REQUESTS))
    batch = Anthropic().messages.batches.create(requests=requests, betas=args.betas)
    try:
        _print(batch)
    except (OSError, ValueError, RecursionError) as error:
        # Without the id, people would create the batch, and pay for it, again.
        raise AnthropicError(
            f"the batch {batch.id} was made, but could not be printed: {error}"
        ) from error


def _act_command(args: Any) -> None:
    act = getattr(Anthropic().messages.batches, args.name)
    _print(act(args.ID))


def _wait_command(args: Any) -> int:
    def show(batch: MessageBatch) -> None:
        is_ended = batch.processing_status == "ended"
        args.open_batches = [] if is_ended else [args.ID]
        args.progress.batches([batch])

    batches = Anthropic().messages.batches
    # The batch is retrieved once before, because wait() would retry an error that
    # should be told at once.
    batch = _ignoring_404(lambda: batches.retrieve(args.ID))
    show(batch)
    if args.open_batches:
        batch = batches.wait(args.ID, poll_interval=args.poll_interval, on_poll=show)
    _print(batch)
    counts = batch.request_counts
    return 3 if counts and _size(batch) != counts.succeeded else 0


def _list_command(args: Any) -> None:
    def cells(batch: MessageBatch) -> Iterable[object]:
        counts = batch.request_counts or MessageBatchRequestCounts()
        created = _moment(batch.created_at) and f"{batch.created_at:%Y-%m-%d %H:%M:%SZ}"
        status, size = batch.processing_status, _size(batch)
        return batch.id, status, created, size, counts.succeeded, counts.errored

    page = Anthropic().messages.batches.list(limit=min(args.limit, 1000))
    newest = itertools.islice(page, args.limit)
    _print_all(args, newest, "ID STATUS CREATED REQUESTS SUCCEEDED ERRORED", cells)


def _models_command(args: Any) -> None:
    def cells(model: ModelInfo) -> Iterable[object]:
        batch = getattr(model.capabilities, "batch", None)
        supported = getattr(batch, "supported", None)
        if isinstance(supported, bool):
            supported = "yes" if supported else "no"
        created = _moment(model.created_at) and f"{model.created_at:%Y-%m-%d}"
        return model.id, model.display_name, model.lifecycle, created, supported

    models = Anthropic().models
    if args.ID:
        _print(models.retrieve(args.ID))
    else:
        page = models.list(limit=1000)
        _print_all(args, page, "ID NAME LIFECYCLE CREATED BATCH", cells)


def _results_command(args: Any) -> int:
    status = 0

    def lines() -> Iterator[bytes]:
        nonlocal status
        with Anthropic().messages.batches.results(args.ID) as results:
            for line, row in _raw_rows(results):
                if _dig(row, "result", "type") != "succeeded":
                    status = 3
                yield line

    if args.output in (None, "-"):
        sys.stdout.writelines(map(bytes.decode, lines()))
        return status
    _refuse_existing(args.output)
    with _folder_beside(args.output) as folder:
        path = os.path.join(folder, "results")
        _write(path, lines())
        _publish(path, args.output)
    return status


def _count_tokens_command(args: Any) -> None:
    client, total = Anthropic(), 0
    with tempfile.TemporaryFile() as file:
        # All are checked before the first one is sent.
        for *_, text, _ in _read_requests(args.REQUESTS):
            file.write(text + b"\n")
        file.seek(0)
        for request in iter_json_lines(file):
            custom_id = request["custom_id"]
            try:
                count = _count(client, request["params"], args.betas)
            except APIError as error:
                raise AnthropicError(f"custom_id {custom_id!r}: {error}") from error
            _print(f"{custom_id}\t{count}")
            total += count
    args.progress.message(f"{total:,} input tokens in all")


def _sandbox_command(args: Any) -> None:
    sandbox = Sandbox(port=args.port)
    _print(_assignment("ANTHROPIC_BASE_URL", sandbox.url))
    _print(_assignment("ANTHROPIC_API_KEY", "sandbox"))
    sandbox._server.serve_forever()


def _assignment(name: str, value: str) -> str:
    """Return how the shell at hand sets a variable for the commands after it."""
    # Git Bash, which sets MSYSTEM, is such a shell on Windows.
    if sys.platform != "win32" or "MSYSTEM" in os.environ:
        return f"export {name}={value}"
    # cmd.exe sets PROMPT, and Windows the other one for all programs.
    if "PSModulePath" in os.environ and "PROMPT" not in os.environ:
        return f'$env:{name} = "{value}"'
    return f"set {name}={value}"


def _number(
    convert: Callable[[str], float], least: float, end: float
) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = convert(text)
        if not least <= value < end:
            # argparse reports it as "invalid number value".
            raise ValueError
        return value

    return number


# Of each command the function, its arguments, and what it does.
_COMMANDS = {
    "run": (
        _run_command,
        "REQUESTS -o/--output --dry-run --sandbox --no-wait --no-check --beta --disown"
        + " --settle --poll-interval",
        "do a whole job: check, split, create, wait, download; run again, it goes on",
    ),
    "create": (_create_command, "REQUESTS --beta", "make one batch of the requests"),
    "retrieve": (_act_command, "ID", "print a batch"),
    "wait": (
        _wait_command,
        "ID --poll-interval",
        "wait until a batch has ended, and print it",
    ),
    "list": (_list_command, "--limit --json", "list the newest batches"),
    "results": (
        _results_command,
        "ID -o/--output",
        "print the results of a batch, or save them",
    ),
    "cancel": (_act_command, "ID", "cancel a batch"),
    "delete": (_act_command, "ID", "delete an ended batch and its results"),
    "models": (_models_command, "[ID] --json", "list the models, or print one"),
    "count-tokens": (
        _count_tokens_command,
        "REQUESTS --beta",
        "print each request's input tokens; it is free",
    ),
    "sandbox": (
        _sandbox_command,
        "--port",
        "serve a stand-in of the API on 127.0.0.1 until Ctrl-C; print how to use it",
    ),
}
_ARGUMENTS: dict[str, _JSONObject] = {
    "REQUESTS": {"help": "JSON Lines of custom_id and params"},
    "ID": {"type": str.strip},
    "[ID]": {"nargs": "?"},
    "-o/--output": {
        "metavar": "FILE",
        "help": "the file to make, whole or not at all; never over one that exists",
    },
    "--dry-run": {
        "action": "store_true",
        "help": "check REQUESTS and print the plan; needs no key",
    },
    "--sandbox": {
        "action": "store_true",
        "help": "use a stand-in of the API: no key, no network, no cost",
    },
    "--settle": {
        "type": _number(float, 0, 2e6),
        "default": 300.0,
        "metavar": "SECONDS",
        "help": "after a lost response, how long to wait for its batch to appear (300)",
    },
    "--no-wait": {
        "action": "store_false",
        "dest": "wait",
        "help": "do what is possible now, and end; status 4: run the same line again",
    },
    "--no-check": {
        "action": "store_false",
        "dest": "check",
        "help": "do not count the tokens of the first request before the first create",
    },
    "--beta": {
        "action": "append",
        "dest": "betas",
        "default": [],
        "metavar": "NAME",
        "help": "a name for the header anthropic-beta; may be repeated",
    },
    "--disown": {
        "action": "append",
        "default": [],
        "metavar": "ID",
        "help": "give up a batch that a question has named; may be repeated",
    },
    "--poll-interval": {
        "type": _number(float, 0, 2e6),
        "metavar": "SECONDS",
        "help": "between two polls; by default what the API asks for, else 10",
    },
    "--limit": {
        "type": _number(int, 1, sys.maxsize),
        "default": 20,
        "help": "how many (20)",
    },
    "--json": {"action": "store_true", "help": "print JSON, one object a line"},
    "--port": {
        "type": _number(int, 0, 65536),
        "default": 0,
        "help": "0, the default, is any free one",
    },
}


def _parse(argv: list[str]) -> Any:
    import argparse

    parser = argparse.ArgumentParser(
        prog="claude_batches.py",
        description="Claude's Message Batches API on the standard library alone.",
        epilog="Exit status: 0; 1 an error; 2 wrong usage, a wrong input file, or a "
        "RESULTS that exists; 3 ended, but not every request succeeded; 4 something is "
        "unfinished (run --no-wait); 130 interrupted; 143 terminated.",
    )
    version = f"claude_batches {__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (function, arguments, text) in _COMMANDS.items():
        command = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False
        )
        command.set_defaults(
            command=function, name=name, progress=_Progress(argv), open_batches=[]
        )
        for argument in arguments.split():
            flags = argument.strip("[]").split("/")
            command.add_argument(*flags, **_ARGUMENTS[argument])
    return parser.parse_args(argv)


def _report(args: Any, status: int, reason: str) -> None:
    """Tell what ended a command, which batches go on, and what to type."""
    progress, ids = args.progress, args.open_batches
    interrupted = args.command if status > 2 else None
    progress.message(reason)
    if interrupted is _create_command:
        look = progress.command("list")
        progress.message(f"the batch may have been made, and be billed; look: {look}")
    if ids:
        progress.message(f"these go on, and are billed: {', '.join(ids)}")
        cancels = [progress.command("cancel", batch_id) for batch_id in ids]
        progress.message(f"to cancel: {'; '.join(cancels)}")
    if ids or interrupted in (_run_command, _wait_command):
        progress.message(f"to go on: {progress.again()}")


def _perform(args: Any) -> int:
    """Perform a command, report what ends it, and return the exit status."""
    status = 0
    try:
        status = args.command(args) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads standard output; errors of the network are APIConnectionErrors.
        pass
    except (AnthropicError, OSError, RecursionError) as error:
        status = 2 if isinstance(error, InvalidRequestsError) else 1
        hint = ""
        if isinstance(error, NotFoundError):
            name = "models" if args.name == "models" else "list"
            hint = f"; is the id one of these?  {args.progress.command(name)}"
        _report(args, status, f"claude_batches: {error}{hint}")
    except KeyboardInterrupt as signaled:
        reason = str(signaled) or "interrupted"
        status = 143 if reason == "terminated" else 130
        _report(args, status, reason)
    try:
        sys.stdout.flush()
    except OSError:
        # For a closed pipe or a full disk, the flush at the exit would complain.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
    return status


def _interrupt_on_signals(stack: contextlib.ExitStack) -> None:
    """Have SIGINT and SIGTERM raise a KeyboardInterrupt that says which.

    It raises at most one a second, because a wrapper may send Ctrl-C again.  The stack
    undoes it.
    """
    import signal

    quiet = _countdown(0.0)

    def interrupt(number: int, _: object) -> None:
        nonlocal quiet
        if not quiet():
            quiet = _countdown(1.0)
            is_term = number == signal.SIGTERM
            raise KeyboardInterrupt("terminated" if is_term else "interrupted")

    # Only the main thread may set handlers.
    with contextlib.suppress(ValueError):
        for each in (signal.SIGINT, signal.SIGTERM):
            # A command in the background has its SIGINT ignored, and it stays so.
            if signal.getsignal(each) != signal.SIG_IGN:
                former = signal.signal(each, interrupt) or signal.SIG_DFL
                stack.callback(signal.signal, each, former)


def _open_null(mode: str) -> Any:
    """Return a stream for one that the caller closed."""
    return open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 to 4, 130 or 143.

    ``argv``: the arguments after the program's name, sys.argv[1:] unless given.  Raises
    SystemExit for --help, --version and wrong usage.  It sets the encoding of
    sys.stdout, and lifts Python's limit of an integer's digits.
    """
    sys.stdin = sys.stdin or _open_null("r")
    # What cannot be printed is an error: it may be the id of a batch that was made.
    sys.stdout = sys.stdout or _open_null("r")
    sys.stderr = sys.stderr or _open_null("w")
    # The stream of a notebook has no such method.
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="backslashreplace", newline="\n"
        )
    # An input may hold any integer; older Pythons have no such limit.
    with contextlib.suppress(AttributeError):
        sys.set_int_max_str_digits(0)
    args = _parse(sys.argv[1:] if argv is None else argv)
    with contextlib.ExitStack() as stack:
        _show_retries(args.progress, stack)
        _interrupt_on_signals(stack)
        return _perform(args)


if __name__ == "__main__":
    sys.exit(main())
