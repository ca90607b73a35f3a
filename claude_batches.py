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
    ├── InvalidRequestsError (also a ValueError)   an argument breaks a rule; nothing sent
    ├── WaitTimeoutError (also a TimeoutError)     wait() took longer than its timeout
    └── APIError
        ├── APIConnectionError                     no response, or one that is not whole
        │   ├── APITimeoutError
        │   └── IncompleteResultsError             rows are missing, and no retry helped
        ├── APIResponseValidationError             a response breaks the API's own rules
        ├── BatchMayExistError                     a create was sent, its response is lost
        └── APIStatusError                         the status of the response is an error
            ├── BadRequestError 400, AuthenticationError 401, PaymentRequiredError 402,
            │   PermissionDeniedError 403, NotFoundError 404, RequestTimeoutError 408,
            │   ConflictError 409, ContentTooLargeError 413,
            │   UnprocessableEntityError 422, RateLimitError 429
            └── InternalServerError 500 and above
                └── ServiceUnavailableError 503, GatewayTimeoutError 504,
                    OverloadedError 529
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
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
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta, timezone
from types import MappingProxyType

# Importing typing would make the import of this file a tenth slower.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, ClassVar, Self, TypeVar

    T = TypeVar("T")
    Headers = Mapping[str, "str | None"]

__version__ = "1.0.0"

# ---- Constants -----------------------------------------------------------------------
# The limits of the API and of this file, each with its source.

# The older version 2023-06-01 still accepts temperature, top_p and top_k.
API_VERSION = "2026-10-21"
BASE_URL = "https://api.anthropic.com"
USER_AGENT = (
    f"claude-batches/{__version__} Python/{sys.version_info[0]}.{sys.version_info[1]}"
)

# API guide, "Batch processing", limitations; 256 MB is read the careful way.
MAX_BATCH_REQUESTS = 100_000
MAX_BATCH_BYTES = 256_000_000
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # API reference, Create a Message Batch

TIMEOUT = 600.0  # seconds for one read or write, as in the SDK
MAX_RETRIES = 2  # as in the SDK

# Seconds to connect, to open the tunnel of a proxy, and for TLS, each.
CONNECT_TIMEOUT = 10.0
# Seconds for the response of a server that closed during the upload.
REFUSAL_TIMEOUT = 5.0
# Seconds that the search for a batch takes at most, and how far before the create it goes.
SEARCH_TIMEOUT = 30.0
CLOCK_SLACK = timedelta(seconds=60)
# Seconds between two polls: at least, at first, and at most.
POLL_MIN, POLL_FIRST, POLL_MAX = 1.0, 5.0, 60.0
# Seconds for which a poll ignores 404: a fresh batch may not be found at once.
NOT_FOUND_SECONDS = 30.0

# Bytes of one read or write.  It is not larger because a write has one timeout.
BLOCK = 128 * 1024
SPOOL_BYTES = 4 * 1024 * 1024  # a larger body of a create goes into a temporary file

# ---- Client --------------------------------------------------------------------------
# What a user types.  A method is a docstring and one request: Requests checks the
# arguments, Transport sends the request, and Objects holds what is returned.

_BATCHES = "/v1/messages/batches"
_OPTIONS = (
    "extra_headers",
    "extra_query",
    "extra_body",
    "timeout",
    "workspace_id",
    "user_profile_id",
)
_NOT_GIVEN: Any = object()  # a default for timeout, because None means no limit


class Anthropic:
    """A client of the API; several threads may use the same one.

    ``api_key`` or ``auth_token``, else ANTHROPIC_API_KEY, else ANTHROPIC_AUTH_TOKEN:
    sent as ``Authorization: Bearer``.
    ``base_url``, else ANTHROPIC_BASE_URL, else https://api.anthropic.com: the key goes
    to this origin and nowhere else.  No redirect is followed, and a results_url with
    another host is requested from base_url.
    ``timeout``: seconds for one read or write, more than 0 and less than 2e6, or None
    for no limit; each step of connecting has at most 10 seconds.
    ``max_retries``: 0 or more; a create is only retried if no batch can have been made.
    ``default_headers``, ``default_query``: sent with every request; the headers win over
    those of ANTHROPIC_CUSTOM_HEADERS (lines of ``Name: value``).  None leaves a header
    out; Authorization or x-api-key among them is a credential, too.
    ``ssl_context``: to trust a company's own CA, for instance; SSL_CERT_FILE works, too.
    ``opener``: anything with ``open(request, timeout=…)`` as in urllib, for tests and
    special transports.  Redirects, proxies, connecting, and responses during the upload
    are then the opener's own business.

    Raises InvalidRequestsError for an argument that breaks a rule; without a credential,
    the first request raises AnthropicError.  Every method also takes ``**options``:
    extra_headers, extra_query, extra_body (where there is a body), timeout (seconds,
    instead of the client's) and workspace_id; it raises APIStatusError or
    APIConnectionError.
    """

    # If set, it is called with each error instead of the rule for retries: it sleeps
    # before the retry, or raises.
    _on_error: Callable[[APIError], None] | None = None

    def __init__(
        self,
        *,
        api_key: str | None = None,
        auth_token: str | None = None,
        base_url: str | None = None,
        timeout: float | None = TIMEOUT,
        max_retries: int = MAX_RETRIES,
        default_headers: Headers | None = None,
        default_query: Mapping[str, Any] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        opener: Any = None,
    ) -> None:
        self.api_key, self.auth_token = _credentials(api_key, auth_token)
        if not isinstance(max_retries, int) or max_retries < 0:
            message = f"max_retries must be 0 or more, not {max_retries!r}"
            raise InvalidRequestsError(message)
        if base_url is None:
            base_url = os.environ.get("ANTHROPIC_BASE_URL") or BASE_URL
        self.base_url = _checked_base_url(base_url)
        self.timeout = _checked_timeout(timeout)
        self.max_retries = max_retries
        self.ssl_context = ssl_context
        self.default_headers = {**_environment_headers(), **_lower(default_headers)}
        self.default_query = dict(default_query or {})
        if opener is None:
            opener = _Transport(self.base_url, ssl_context)
        self._opener = opener
        self.messages = Messages(self)
        self.models = Models(self)

    def with_options(self, **changes: Any) -> Anthropic:
        """Return a client that differs in the given arguments of the constructor.

        default_headers and default_query are merged into this client's; a key or
        base_url of None is no change.
        """
        for name in ("base_url", "api_key", "auth_token"):
            if changes.get(name, "") is None:
                del changes[name]
        options = {
            name: getattr(self, name)
            for name in ("base_url", "timeout", "max_retries", "ssl_context")
        }
        is_own_transport = isinstance(self._opener, _Transport)
        if not is_own_transport or not changes.keys() & {"base_url", "ssl_context"}:
            options["opener"] = self._opener
        if not changes.keys() & {"api_key", "auth_token"}:
            options.update(api_key=self.api_key, auth_token=self.auth_token)
        options.update(changes)
        for name in ("default_headers", "default_query"):
            options[name] = {**getattr(self, name), **(changes.get(name) or {})}
        return Anthropic(**options)

    def close(self) -> None:
        """Do nothing: each call closes its own connection.  The SDK has this method."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _prepare(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        extra_headers: Headers | None = None,
        extra_query: Mapping[str, Any] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        timeout: float | None = _NOT_GIVEN,
        workspace_id: str | None = None,
        user_profile_id: str | None = None,
    ) -> _Call:
        """Return the call of a path below base_url, or of a URL; nothing is sent yet.

        Raises InvalidRequestsError or AnthropicError.
        """
        if timeout is _NOT_GIVEN:
            timeout = self.timeout
        timeout = _checked_timeout(timeout)
        if method != "GET" and not isinstance(body, _Body) and (body or extra_body):
            body = _encode_json({**(body or {}), **(extra_body or {})})
        ids = {
            "anthropic-workspace-id": workspace_id,
            "anthropic-user-profile-id": user_profile_id,
        }
        headers = self._merge_headers(
            _own_headers(method, body),
            self.default_headers,
            {name: value for name, value in ids.items() if value is not None},
            extra_headers,
        )
        url = path if path.startswith("http") else self.base_url + path
        params = {**self.default_query, **(query or {}), **(extra_query or {})}
        return _Call(method, _with_query(url, params), headers, body, timeout)

    def _merge_headers(self, *layers: Headers | None) -> dict[str, str]:
        """Return the headers of all layers, the later ones winning.

        Raises AnthropicError without a credential, InvalidRequestsError for a header
        that cannot be sent.
        """
        credential = self.api_key or self.auth_token
        merged: dict[str, str | None] = {}
        if credential:
            merged["authorization"] = f"Bearer {credential}"
        for layer in layers:
            merged.update(_lower(layer))
        # Missing or empty; None means that the caller wants none to be sent.
        if merged.get("authorization", "") == "" and not merged.get("x-api-key"):
            raise AnthropicError(
                "No credential: set the variable ANTHROPIC_API_KEY, "
                "or give Anthropic() an api_key"
            )
        return {
            name: _encode_header(name, value)
            for name, value in merged.items()
            if value is not None
        }

    def _send(
        self,
        call: _Call,
        read: Callable[[Any], T],
        final: tuple[type[APIError], ...] = (),
    ) -> T:
        """Return what ``read`` makes of the response, after the retries that are allowed.

        Raises the last APIError; one of the classes in ``final`` at once.
        """
        while True:
            try:
                return read(call.open(self._opener))
            except APIError as error:
                if isinstance(error, final):
                    raise
                if self._on_error:
                    self._on_error(error)
                elif not self._may_retry(call, error):
                    raise

    def _may_retry(self, call: _Call, error: APIError) -> bool:
        """Tell whether a call is to be sent again, after the pause before its retry.

        The result is returned, not raised, because an error that this frame raised
        would keep the response in memory until the garbage collector comes.
        """
        call.failures += 1
        if call.failures > self.max_retries or not _is_retryable(error, call.body):
            return False
        # Importing logging takes a while, and most runs need no retry.
        import logging

        seconds = _retry_after(error.headers) or _backoff(call.failures)
        call.headers["x-stainless-retry-count"] = str(call.failures)
        logging.getLogger("claude_batches").debug(
            "retry %d of %s in %.2f s: %s", call.failures, call, seconds, error
        )
        time.sleep(seconds)
        return True

    def _fetch(
        self, cls: Callable[..., T], method: str, path: str, **options: Any
    ) -> T:
        """Send a request and return its response as an object of ``cls``."""
        call = self._prepare(method, path, **options)
        return cls(*self._send(call, call.read_json))

    def _fetch_page(
        self, cls: Any, path: str, query: dict[str, Any], **options: Any
    ) -> Page:
        """Send a request and return its response as a Page of objects of ``cls``."""
        query = {name: value for name, value in query.items() if value is not None}
        # It is merged here so that the cursor of a later page wins over it.
        query.update(options.pop("extra_query", None) or {})
        call = self._prepare("GET", path, query=query, **options)
        fields, headers = self._send(call, call.read_json)
        # A gateway's empty list may be null.
        rows = [] if fields.get("data", "") is None else fields.get("data")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            message = f"The response is not a list of objects (GET {path})"
            raise APIResponseValidationError(message)
        fields["data"] = [cls(row) for row in rows]

        def fetch(params: dict[str, Any]) -> Page:
            return self._fetch_page(cls, path, params, **options)

        return Page(fields, headers, params=query, fetch=fetch)


class Messages:
    """``client.messages``: the batches, and token counting."""

    def __init__(self, client: Anthropic) -> None:
        self._client = client
        self.batches = Batches(client)

    def count_tokens(
        self, *, model: str, messages: Iterable[Any], **more: Any
    ) -> MessageTokensCount:
        """Count the input tokens of a message, free of charge.

        ``more``: the message's system, tools, tool_choice, thinking, cache_control,
        output_config and speed, where it has them (anything else, max_tokens too, is a
        BadRequestError); the options of every method; user_profile_id.
        Source: API reference, Count tokens in a Message.
        """
        options = {name: more.pop(name) for name in _OPTIONS if name in more}
        body = {"messages": messages, "model": model, **more}
        return self._client._fetch(
            MessageTokensCount,
            "POST",
            "/v1/messages/count_tokens",
            body=body,
            **options,
        )


class Batches:
    """``client.messages.batches``: the Message Batches API.

    A method that takes an id raises ValueError for an empty one, and NotFoundError if
    there is no such batch; for a second or two after a create that may be wrong.
    Source: API reference, a page for each method.
    """

    def __init__(self, client: Anthropic) -> None:
        self._client = client

    def create(
        self,
        *,
        requests: Iterable[Any],
        user_profile_id: str | None = None,
        **options: Any,
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
        return self._create(requests, None, user_profile_id=user_profile_id, **options)

    def _create(
        self,
        requests: Iterable[Any],
        before_last_block: Callable[[], None] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> MessageBatch:
        with contextlib.closing(_Body(before_last_block)) as body:
            body.spool(requests, extra_body)
            try:
                batch = self._client._fetch(
                    MessageBatch, "POST", _BATCHES, body=body, **options
                )
                if not isinstance(batch.id, str) or not batch.id:
                    raise APIConnectionError(
                        "The response is not a batch: it has no id"
                    )
                return batch
            except APIError as error:
                if error._is_refused or not body.is_sent:
                    raise
                raise self._may_exist(error, body, options) from error

    def _may_exist(
        self, error: APIError, body: _Body, options: Mapping[str, Any]
    ) -> BatchMayExistError:
        """Return the error of a create whose response is lost, with its candidates."""
        sent_at = candidates = None
        found = "the search for it failed"
        # If the search fails, too, the error to report is still that of the create.
        with contextlib.suppress(AnthropicError):
            sent_at, candidates = self._candidates(body, options)
            ids = ", ".join(str(batch.id) for batch in candidates)
            found = "batches of that size made since then: "
            found += ids or "none, which proves nothing"
        return BatchMayExistError(
            f"No response says whether a create of {body.count} requests made its batch; "
            f"it may exist, and be billed; {found}. "
            f"Look before you create it again. {error}",
            request_count=body.count,
            sent_at=sent_at,
            candidates=candidates,
        )

    def _candidates(
        self, body: _Body, options: Mapping[str, Any]
    ) -> tuple[datetime, list[MessageBatch]]:
        """Return when the body was sent, by the server's clock, and the batches of its
        size that were made since then, or tell no size.
        """
        elapsed = _stopwatch()
        batches = self._client.with_options(max_retries=0).messages.batches
        kept = ("extra_headers", "workspace_id")
        options = {name: options[name] for name in kept if name in options}
        found: list[MessageBatch] = []
        after_id = None
        while True:
            left = SEARCH_TIMEOUT - elapsed()
            if left <= 0:
                raise APITimeoutError("The search for the batch took too long")
            page = batches.list(after_id=after_id, limit=100, timeout=left, **options)
            now = _http_date(page._headers.get("date"))
            if now is None:
                raise APIResponseValidationError("The list has no Date")
            sent_at = now - timedelta(seconds=body.elapsed())
            since = [
                batch
                for batch in page.data
                if (batch.created_at or sent_at) >= sent_at - CLOCK_SLACK
            ]
            found += [batch for batch in since if _size(batch) in (body.count, None)]
            if len(since) < len(page.data) or not page.has_next_page():
                return sent_at, found
            after_id = page.last_id

    def retrieve(self, message_batch_id: str, **options: Any) -> MessageBatch:
        """Return a batch as it is now."""
        path = _batch_path(message_batch_id)
        return self._client._fetch(MessageBatch, "GET", path, **options)

    def list(
        self,
        *,
        after_id: str | None = None,
        before_id: str | None = None,
        limit: int | None = None,
        **options: Any,
    ) -> Page:
        """List the batches of the workspace, newest first.

        ``limit``: batches of a page, 1 to 1000, by the API's default 20; ``after_id``:
        start after this batch; ``before_id``: start before it, and go towards the newer
        ones.  Returns the first Page, which iterates over all of them.
        """
        query = {"after_id": after_id, "before_id": before_id, "limit": limit}
        return self._client._fetch_page(MessageBatch, _BATCHES, query, **options)

    def cancel(self, message_batch_id: str, **options: Any) -> MessageBatch:
        """End a running batch early: it is ``canceling``, then ``ended``.

        Requests that are being processed may still succeed.
        """
        path = _batch_path(message_batch_id) + "/cancel"
        return self._client._fetch(MessageBatch, "POST", path, **options)

    def delete(self, message_batch_id: str, **options: Any) -> DeletedMessageBatch:
        """Delete an ended batch and its results.

        Raises BadRequestError for a running one: cancel it first.
        """
        path = _batch_path(message_batch_id)
        return self._client._fetch(DeletedMessageBatch, "DELETE", path, **options)

    def results(self, message_batch_id: str, **options: Any) -> Results:
        """Download the results of an ended batch, row by row.

        A connection that is lost is opened again.  ``extra_headers`` and ``extra_query``
        belong to the download, not to the retrieve before it, as in the SDK.

        Raises AnthropicError, at the call, if the batch has no results (yet); later
        IncompleteResultsError if rows stay missing after max_retries without a new one,
        APIResponseValidationError for a line that is not JSON with a custom_id, or for
        more rows than requests.
        """
        kept = ("timeout", "workspace_id")
        retrieve_options = {name: options[name] for name in kept if name in options}
        batch = self.retrieve(message_batch_id, **retrieve_options)
        if not isinstance(batch.results_url, str) or not batch.results_url:
            status = batch.processing_status
            if batch.archived_at:
                status = "ended, and archived"
            raise AnthropicError(
                f"No results_url for batch {message_batch_id}: its status is {status}"
            )
        own = {"accept": "application/binary", "accept-encoding": "gzip"}
        headers = {**own, **_lower(options.pop("extra_headers", None))}
        url = _at_origin(self._client.base_url, batch.results_url)
        call = self._client._prepare("GET", url, extra_headers=headers, **options)
        return Results(self._client, call, batch)

    def wait(
        self,
        message_batch_id: str,
        *,
        poll_interval: float | None = None,
        timeout: float | None = None,
        on_poll: Callable[[MessageBatch], object] | None = None,
        **options: Any,
    ) -> MessageBatch:
        """Poll until the batch has ended, and return it.

        It waits through lost connections, 429, 5xx, and 404 for 30 seconds.

        ``poll_interval``: seconds between polls, 0 or more; else what the API asks for,
        kept within 1 to 60; else 5, growing to 60.  ``timeout``: seconds for the whole
        wait, more than 0, or None.  Both are less than 2e6.  ``on_poll`` is called with
        each batch that was received.

        Raises WaitTimeoutError, and APIStatusError for what waiting does not mend: 401,
        403, a 404 that stays.
        """
        _check_poll_interval(poll_interval)
        elapsed = _stopwatch()
        end = _checked_timeout(timeout) or float("inf")
        batch = None
        polls = self._polls(message_batch_id, poll_interval, end, **options)
        while elapsed() < end:
            outcome, delay = next(polls)
            if isinstance(outcome, MessageBatch):
                batch = outcome
                if on_poll:
                    on_poll(batch)
                if batch.processing_status == "ended":
                    return batch
            time.sleep(max(0.0, min(delay, end - elapsed())))
        message = f"Batch {message_batch_id} has not ended within {end:g} s; it goes on"
        raise WaitTimeoutError(message, batch=batch)

    def _polls(
        self,
        batch_id: str,
        interval: float | None,
        end: float = float("inf"),
        **options: Any,
    ) -> Iterator[tuple[MessageBatch | APIError, float]]:
        """Yield the outcome of each poll and the seconds until the next one.

        The outcome is a batch, or an error through which to wait; no read takes longer
        than until ``end`` seconds from now.  Raises the other errors.
        """
        batches = self._client.with_options(max_retries=0).messages.batches
        elapsed = since_success = _stopwatch()
        grown = POLL_FIRST
        longest = min(POLL_MAX, self._client.timeout or POLL_MAX)
        outcome: Any
        while True:
            timeout = max(min(longest, end - elapsed()), 0.001)
            try:
                outcome = batches.retrieve(batch_id, timeout=timeout, **options)
                since_success, headers = _stopwatch(), outcome._headers
            except APIError as error:
                is_404 = isinstance(error, NotFoundError)
                is_fresh = is_404 and since_success() < NOT_FOUND_SECONDS
                if not is_fresh and not error._is_transient:
                    raise
                outcome, headers = error, error.headers
            asked = _retry_after(headers)
            if interval is not None:
                delay = interval
            elif asked is not None:
                delay = min(max(asked, POLL_MIN), POLL_MAX)
            else:
                delay, grown = grown, min(1.5 * grown, POLL_MAX)
            yield outcome, delay


class Models:
    """``client.models``: the Models API.  Source: API reference, Models."""

    def __init__(self, client: Anthropic) -> None:
        self._client = client

    def retrieve(self, model_id: str, **options: Any) -> ModelInfo:
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
        lifecycle: Sequence[str] | None = None,
        **options: Any,
    ) -> Page:
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
# What the API sends, as dataclasses; pages and results are iterators over them.

# datetime.fromisoformat before 3.11 takes neither Z nor other than 3 or 6 digits of
# fraction.
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-]\d\d:\d\d))?"
)


def _parse_time(text: Any) -> datetime | None:
    """Return an aware datetime, UTC if the text names no zone; None if it is no time."""
    try:
        day, clock, fraction, zone = _RFC_3339.fullmatch(text).groups()  # type: ignore[union-attr]
        fraction = f"{(fraction or '')[:6]:0<6}"
        return datetime.fromisoformat(f"{day}T{clock}.{fraction}{zone or '+00:00'}")
    except _NOT_A_TIME:
        return None


_NOT_A_TIME = (AttributeError, TypeError, ValueError)

# What makes the value of a field, by the word in its annotation.  Each _Object adds
# itself.
_CONVERTERS: dict[str, Callable[[Any], Any]] = {"datetime": _parse_time}


def _field(name: str, convert: Callable[[Any], Any]) -> property:
    """Return a property for a field whose JSON is not its value.

    A time is parsed at each read; an object, or a list of them, is made at the first.
    """

    def read(obj: Any) -> Any:
        value = obj.__dict__.get(name)
        # The text of a time is kept for to_dict().
        if convert is _parse_time:
            return value if isinstance(value, datetime) else _parse_time(value)
        if type(value) is dict:
            value = obj.__dict__[name] = convert(value)
        elif type(value) is list:
            value[:] = [convert(item) if type(item) is dict else item for item in value]
        return value

    def write(obj: Any, value: Any) -> None:
        obj.__dict__[name] = value

    return property(read, write)


class _Object:
    """A dataclass that may take over the dict of its JSON as its __dict__.

    Nothing is copied.  A declared field that is missing is None; one that this file does
    not know is an attribute all the same.
    """

    __slots__ = ("__dict__", "_headers")

    def __init_subclass__(cls) -> None:
        _CONVERTERS[cls.__name__] = cls
        dataclass(init=False, eq=False, repr=False)(cls)
        # Python 3.8 has no __annotations__ where none are declared.
        for name, annotation in getattr(cls, "__annotations__", {}).items():
            names = re.findall(r"\w+", str(annotation))
            converters = [_CONVERTERS[word] for word in names if word in _CONVERTERS]
            setattr(cls, name, _field(name, converters[0]) if converters else None)
        # A field in __dict__ would hide a method, but it does not hide a property.
        for name in dir(cls):
            method = getattr(cls, name)
            if callable(method) and not name.startswith("_"):
                setattr(cls, name, property(method.__get__, doc=method.__doc__))

    def __init__(
        self,
        taken: dict[str, Any] | None = None,
        headers: Mapping[str, str] = {},
        /,
        **fields: Any,
    ) -> None:
        self.__dict__ = taken or fields
        self._headers = headers

    @property
    def _request_id(self) -> str | None:
        """The request id of the response; None for an object inside one."""
        return self._headers.get("request-id")

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the object's JSON, times as text."""
        return dict(json.loads(json.dumps(self, default=_jsonable)))

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        declared = type(self).__dataclass_fields__  # type: ignore[attr-defined]
        # A declared field is shown as it is read, another one as it came.
        shown = dict(self.__dict__)
        for name in declared:
            if name in shown:
                shown[name] = getattr(self, name)
        fields = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"{type(self).__name__}({fields})"


class OpenObject(_Object):
    """An object whose fields this file does not declare: a missing one is None.

    In a response, an object inside one is another of these.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return None


def _open_object(fields: dict[str, Any]) -> Any:
    text = json.dumps(fields, default=_jsonable)
    return json.loads(text, object_hook=OpenObject)


_CONVERTERS["OpenObject"] = _open_object


class MessageBatchRequestCounts(_Object):
    """How many requests of a batch are where; their sum is the number of requests."""

    processing: int | None
    succeeded: int | None
    errored: int | None
    canceled: int | None
    expired: int | None


class MessageBatch(_Object):
    """A batch.

    ``processing_status`` is ``in_progress``, ``canceling``, or ``ended``: then it has
    results.
    """

    id: str
    type: str | None
    processing_status: str | None
    request_counts: MessageBatchRequestCounts | None
    created_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    cancel_initiated_at: datetime | None
    archived_at: datetime | None
    results_url: str | None


def _size(batch: MessageBatch) -> int | None:
    """Return how many requests a batch has, None if it does not tell."""
    counts = batch.request_counts
    if not isinstance(counts, MessageBatchRequestCounts):
        return None
    numbers = [count for count in counts.__dict__.values() if isinstance(count, int)]
    return sum(numbers) or None


class DeletedMessageBatch(_Object):
    """The response to a delete."""

    id: str | None
    type: str | None


class ErrorResponse(_Object):
    """The error of an errored row.

    It is nested: ``error.error`` has the API's type, message and details.
    """

    type: str | None
    error: ErrorResponse | None
    message: str | None
    details: OpenObject | None
    request_id: str | None


class ContentBlock(_Object):
    """A block of a message.

    ``type`` tells its other fields: ``text``, or ``name`` and ``input`` of a tool_use.
    """

    type: str | None
    citations: list[OpenObject] | None
    caller: OpenObject | None
    content: Any | OpenObject  # a text, or objects


class Usage(_Object):
    """The tokens of a message."""

    input_tokens: int | None
    output_tokens: int | None
    cache_creation_input_tokens: int | None
    cache_read_input_tokens: int | None
    cache_creation: OpenObject | None
    server_tool_use: OpenObject | None
    service_tier: str | None
    inference_geo: str | None
    speed: str | None
    output_tokens_details: OpenObject | None


class Message(_Object):
    """The model's response to one request."""

    id: str | None
    type: str | None
    role: str | None
    model: str | None
    content: list[ContentBlock] | None
    stop_reason: str | None
    stop_sequence: str | None
    stop_details: OpenObject | None
    container: OpenObject | None
    diagnostics: OpenObject | None
    usage: Usage | None


class MessageBatchResult(_Object):
    """What became of a request.

    ``succeeded`` has a message, ``errored`` an error; else it is ``canceled`` or
    ``expired``.
    """

    type: str | None
    message: Message | None
    error: ErrorResponse | None


class MessageBatchIndividualResponse(_Object):
    """A row of results.  Rows come in any order: ``custom_id`` names the request."""

    custom_id: str
    result: MessageBatchResult


class MessageTokensCount(_Object):
    """The response of count_tokens."""

    input_tokens: int


class ModelInfo(_Object):
    """A model.  ``capabilities.batch.supported`` says whether it can be batched."""

    id: str
    type: str | None
    display_name: str | None
    created_at: datetime | None
    lifecycle: str | None
    deprecated_at: datetime | None
    retires_at: datetime | None
    line: str | None
    max_input_tokens: int | None
    max_tokens: int | None
    capabilities: OpenObject | None


# The SDK's names for what goes into create; its types, too, are dicts at run time.
Request = MessageCreateParamsNonStreaming = dict


class Page(_Object):
    """A page of a list.

    Iterating it gives its objects and those of all pages after it; each page is fetched
    when it is reached.

    ``data``, ``has_more``, ``first_id``, ``last_id``: the API's fields.  ``params``: the
    query parameters that gave this page; ``fetch`` returns the Page for other ones.
    """

    data: list[Any]
    has_more: bool | None
    first_id: str | None
    last_id: str | None
    # _queries: those of the pages so far, the one of this page last.
    __slots__ = ("_fetch", "_queries")

    def __init__(
        self,
        *taken: Any,
        params: Mapping[str, Any] | None = None,
        fetch: Callable[[dict[str, Any]], Page] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(*taken, **fields)
        self._queries = [dict(params or {})]
        self._fetch = fetch

    def next_page_info(self) -> OpenObject | None:
        """Return an object whose ``params`` ask for the next page; None without a cursor.

        The direction stays the one that was asked for.
        """
        if self._queries[-1].get("before_id"):
            name, cursor = "before_id", self.first_id
        else:
            name, cursor = "after_id", self.last_id
        return OpenObject(params={name: cursor}) if cursor else None

    def has_next_page(self) -> bool:
        """Tell whether there is a next page.

        There is none after ``has_more: false``, an empty page, or one without a cursor.
        """
        if self.has_more is False or not self.data:
            return False
        return self.next_page_info() is not None

    def get_next_page(self) -> Page:
        """Fetch the next page.

        Raises RuntimeError on the last one, APIResponseValidationError for a cursor that
        came before.
        """
        info = self.next_page_info()
        if info is None or not self.has_next_page() or self._fetch is None:
            message = "No next page: ask has_next_page() before get_next_page()"
            raise RuntimeError(message)
        query = {**self._queries[-1], **info.params}
        if query in self._queries:
            message = f"The list goes in circles: {info.params} came before"
            raise APIResponseValidationError(message)
        page: Page = self._fetch(query)
        page._queries = [*self._queries, query]
        return page

    def iter_pages(self) -> Iterator[Page]:
        """Yield this page and all after it, each fetched when it is reached.

        Raises APIResponseValidationError for a cursor that came before.
        """
        page = self
        yield page
        while page.has_next_page():
            page = page.get_next_page()
            yield page

    def __iter__(self) -> Iterator[Any]:
        for page in self.iter_pages():
            yield from page.data


class Results:
    """The rows of a batch, an iterator of MessageBatchIndividualResponse.

    It holds a connection until its end: close() it, or use ``with``, to stop before.  An
    error is raised again at each attempt to go on, so that incomplete results never look
    whole.
    """

    # How the iteration ended.
    _error: AnthropicError | None = None

    def __init__(self, client: Anthropic, call: _Call, batch: MessageBatch) -> None:
        self._client = client
        self._call = call
        self._batch_id = batch.id
        self._expected = _size(batch)
        self._response = client._send(call, lambda response: response)
        self._objects = self._responses()

    def _responses(self) -> Generator[MessageBatchIndividualResponse, None, None]:
        seen: set[str] = set()
        try:
            for _, row in self._rows(seen):
                yield MessageBatchIndividualResponse(row)
        except GeneratorExit:
            # close() ends the generator so.
            raise
        except BaseException as error:
            # After an interrupt, too, what is left must not look like the end.
            if isinstance(error, AnthropicError):
                self._error = error
            else:
                self._error = self._incomplete(error, len(seen))
            raise

    def _rows(self, seen: set[str]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield line, with its newline, and JSON of each row whose custom_id is not in
        ``seen``, and add it there.
        """
        try:
            while True:
                try:
                    yield from self._new_rows(seen)
                    return
                except APIConnectionError as error:
                    self._reopen(error, len(seen))
        finally:
            self._response.close()

    def _new_rows(self, seen: set[str]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield the new rows of one response.

        Raises APIConnectionError if it ends before the last row.
        """
        for line in _lines(self._call.blocks(self._response)):
            if line.isspace():
                continue
            row = self._decode(line, len(seen))
            if row["custom_id"] not in seen:
                seen.add(row["custom_id"])
                self._call.failures = 0
                yield line if line.endswith(b"\n") else line + b"\n", row
        # A batch that tells no counts has at least one request.
        expected = self._expected or max(len(seen), 1)
        if len(seen) > expected:
            message = (
                f"Batch {self._batch_id}: {len(seen)} rows for {expected} requests"
            )
            raise APIResponseValidationError(message)
        if len(seen) < expected:
            raise APIConnectionError(f"The results ended early ({self._call})")

    def _decode(self, line: bytes, received: int) -> dict[str, Any]:
        try:
            text = line.decode().strip()
            # decode() would search for white space twice.
            row, end = _decoder.raw_decode(text)
            is_row = isinstance(row, dict) and isinstance(row.get("custom_id"), str)
            if is_row and end == len(text):
                return row  # type: ignore[no-any-return]
        except _NOT_JSON:
            if not line.endswith(b"\n"):
                message = f"The results ended inside a row ({self._call})"
                raise APIConnectionError(message) from None
        raise APIResponseValidationError(
            f"Batch {self._batch_id}: a row of {len(line)} bytes, after {received} good "
            "ones, is not JSON with a custom_id"
        )

    def _reopen(self, lost: APIError, received: int) -> None:
        """Open the results again.  Raises IncompleteResultsError if that does not help."""
        self._response.close()
        try:
            if not self._client._may_retry(self._call, lost):
                raise lost
            self._response = self._client._send(
                self._call, lambda response: response, _FINAL
            )
        except APIError as error:
            raise self._incomplete(error, received) from error

    def _incomplete(
        self, error: BaseException, received: int
    ) -> IncompleteResultsError:
        cause = str(error) or type(error).__name__
        expected = self._expected or "?"
        return IncompleteResultsError(
            f"Batch {self._batch_id}: {received} of {expected} rows came; then: {cause}",
            expected=self._expected,
            received=received,
        )

    def __iter__(self) -> Iterator[MessageBatchIndividualResponse]:
        if self._error:
            raise self._error
        # It returns the generator and not itself, because that is faster.
        return self._objects

    def __next__(self) -> MessageBatchIndividualResponse:
        return next(iter(self))

    def close(self) -> None:
        """End the iteration and close the connection."""
        self._objects.close()
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with their newlines, at a cost linear in their length.

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
        yield b"".join(begun)


# What decoding a line, and json.loads, raise for bytes that are not JSON.
_NOT_JSON = (ValueError, RecursionError)


def iter_json_lines(blocks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the JSON of each line.

    Blank lines, CRLF and a missing last newline are allowed.  ``blocks``: bytes, cut
    anywhere: those of a download, or a file opened in binary mode.
    Raises APIResponseValidationError for a line that is not JSON, with its number from 1.
    Source: https://jsonlines.org
    """
    for number, line in enumerate(_lines(blocks), 1):
        if not line.isspace():
            try:
                yield json.loads(line.decode())
            except _NOT_JSON as error:
                message = f"line {number} is not JSON: {error}"
                raise APIResponseValidationError(message) from None


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
    """A request failed.  An attribute that no response told is None.

    ``type``: the API's name of the error; ``body``: the response's JSON, or its text;
    ``headers``: by names in lower case.
    """

    status_code: int | None = None
    request_id: str | None = None
    type: str | None = None
    body: object = None
    headers: Mapping[str, str] = MappingProxyType({})
    # The same request may succeed later.  That is all that the SDK retries, except for
    # certificates.
    _is_transient = False
    # The body is an error of the API, not of something between it and this client.
    _is_api_form = False
    # The API, or a gateway before it, said that it made no batch.
    _is_refused = False

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

    For instance a row of results that is not JSON, or a list that goes in circles.
    """


class BatchMayExistError(APIError):
    """The whole body of a create was sent, and no response says whether it made a batch.

    The batch may exist, and be billed.  ``request_count`` requests were sent at
    ``sent_at`` (server time, None if unknown).  ``candidates``: the batches of that size,
    or that tell none, made since a minute before that; None if the search failed.  An
    empty list proves nothing: if a proxy holds the body back, the batch is made later.
    The cause is chained.
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
    _by_status: ClassVar[dict[int, type[APIStatusError]]] = {}

    def __init_subclass__(cls, status: int | None = None) -> None:
        # A class of the caller's own has no status.
        if status:
            cls.status_code = status
            cls._by_status[status] = cls


class BadRequestError(APIStatusError, status=400):
    """The request breaks a rule."""


class AuthenticationError(APIStatusError, status=401):
    """The key is missing or wrong."""


class PaymentRequiredError(APIStatusError, status=402):
    """A problem with billing or payment."""


class PermissionDeniedError(APIStatusError, status=403):
    """The key may not do this."""


class NotFoundError(APIStatusError, status=404):
    """No such batch, model or path, or not yet."""


class RequestTimeoutError(APIStatusError, status=408):
    """The server gave up waiting for the request."""


class ConflictError(APIStatusError, status=409):
    """Another request is changing the same object."""


class ContentTooLargeError(APIStatusError, status=413):
    """The body is too large."""


class UnprocessableEntityError(APIStatusError, status=422):
    """The request is well formed, but cannot be processed."""


class RateLimitError(APIStatusError, status=429):
    """Too many calls, a full queue, or a spend limit."""


class InternalServerError(APIStatusError, status=500):
    """The server failed: 500 and above."""


class ServiceUnavailableError(InternalServerError, status=503):
    """The API is not available at the moment."""


class GatewayTimeoutError(InternalServerError, status=504):
    """A server behind the gateway took too long."""


class OverloadedError(InternalServerError, status=529):
    """The API has too many requests at the moment."""


# What no retry of a download mends.
_FINAL = (AuthenticationError, PermissionDeniedError, NotFoundError)


# ---- Requests ------------------------------------------------------------------------
# Arguments are checked and encoded here, before anything is sent.  The body of a create
# is spooled into a temporary file, and the rule for its retries stands beside it.

# What the SDK leaves as it is in a segment of a path.
_PATH_SAFE = "!$&'()*+,;=:@"
# A header with one of these names is a secret: it stays out of messages.
_SECRET_HEADERS = ("authorization", "x-api-key")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BASE_URL = re.compile(
    r"(?ai)https?://(\[[0-9a-f:.]+\]|([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?)(:\d+)?(/[!-\"$->@-~]*)?"
)


def _credentials(
    api_key: str | None, auth_token: str | None
) -> tuple[str | None, str | None]:
    """Return api_key and auth_token, one of them from the environment if none is given.

    Raises InvalidRequestsError if both are given.
    """
    if api_key is not None and auth_token is not None:
        raise InvalidRequestsError("Give api_key or auth_token, not both")
    if api_key is None and auth_token is None:
        api_key = os.environ.get("ANTHROPIC_API_KEY", "").strip() or None
        auth_token = None if api_key else os.environ.get("ANTHROPIC_AUTH_TOKEN")
    return api_key and api_key.strip(), auth_token and auth_token.strip()


def _environment_headers() -> dict[str, str | None]:
    """Return the headers of ANTHROPIC_CUSTOM_HEADERS, names in lower case."""
    headers: dict[str, str | None] = {}
    for line in os.environ.get("ANTHROPIC_CUSTOM_HEADERS", "").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers


def _lower(headers: Headers | None) -> dict[str, str | None]:
    return {name.lower(): value for name, value in (headers or {}).items()}


def _own_headers(method: str, body: Any) -> dict[str, str | None]:
    """Return the headers that every request has."""
    headers: dict[str, str | None] = {
        "accept": "application/json",
        "user-agent": USER_AGENT,
        "anthropic-version": API_VERSION,
    }
    if method != "GET":
        headers["content-type"] = "application/json"
    if isinstance(body, _Body):
        headers["content-length"] = str(body.size)
    return headers


def _encode_header(name: str, value: Any) -> str:
    """Return a header's value as http.client takes it, which sends Latin-1.

    On the wire it is UTF-8, as from the SDK.  Raises InvalidRequestsError for what cannot
    be sent: http.client's own error would show the value, and so the key.
    """
    text = str(value)
    is_legal = _HEADER_NAME.fullmatch(name) and text.replace("\t", " ").isprintable()
    if not is_legal or (name in _SECRET_HEADERS and not text.isascii()):
        raise InvalidRequestsError(
            f"The header {name!r} (its value is not shown) has an illegal character"
        )
    return text.encode().decode("latin-1")


def _batch_path(batch_id: str) -> str:
    return f"{_BATCHES}/{_segment('message_batch_id', batch_id)}"


def _segment(name: str, value: str) -> str:
    """Return an id as a segment of a path.

    Raises InvalidRequestsError if it is empty, or leads to another path.
    """
    if not value:
        message = f"Expected a non-empty value for `{name}` but received {value!r}"
        raise InvalidRequestsError(message)
    text = str(value)
    has_surrogate = re.search("[\ud800-\udfff]", text)
    # Some servers drop ";" and what follows.
    if has_surrogate or text.partition(";")[0] in ("", ".", ".."):
        message = f"`{name}` must not be {value!r}, which is no segment of a path"
        raise InvalidRequestsError(message)
    return urllib.parse.quote(text, safe=_PATH_SAFE)


def _with_query(url: str, params: Mapping[str, Any]) -> str:
    """Return a URL with query parameters added, written as the SDK writes them."""
    pairs: list[tuple[str, str]] = []
    for name, value in params.items():
        pairs += _query_pairs(name, value)
    if not pairs:
        return url
    query = urllib.parse.urlencode(
        pairs, quote_via=urllib.parse.quote, errors="surrogatepass"
    )
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _query_pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a parameter: None is left out, a list repeated as ``name[]``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _query_pairs(f"{name}[{key}]", item)
    elif isinstance(value, (str, bytes, bytearray)):
        yield name, str(value)
    elif isinstance(value, (Sequence, AbstractSet, ValuesView)):
        for item in value:
            yield from _query_pairs(f"{name}[]", item)
    elif value is not None:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def _checked_base_url(url: Any) -> str:
    """Return base_url without its last slash.

    Raises InvalidRequestsError for one to which no key should go.
    """
    try:
        is_legal = _BASE_URL.fullmatch(url) and urllib.parse.urlsplit(url).port != 0
    except _NOT_A_URL:
        is_legal = False
    if not is_legal:
        # It is not shown, because it may hold a password.
        raise InvalidRequestsError(
            "base_url must be http(s)://host[:port][/path], without user:password, "
            "in ASCII"
        )
    # Behind a proxy, http.client would take another Host from HTTP:// in upper case.
    scheme, _, rest = str(url).rstrip("/").partition("://")
    return f"{scheme.lower()}://{rest}"


# What _BASE_URL and urlsplit raise for what is no text, and for a port above 65,535.
_NOT_A_URL = (TypeError, ValueError)


def _at_origin(base_url: str, url: str) -> str:
    """Return a results_url at the origin of base_url.

    Behind a gateway it may name another host, which must not get the key.
    """
    try:
        base = urllib.parse.urlsplit(base_url)
        parts = urllib.parse.urlsplit(url)
        path = "/" + parts.path.lstrip("/")
        if parts.query:
            path += "?" + parts.query
        path = urllib.parse.quote(path, safe="/%?" + _PATH_SAFE)
    except ValueError:
        message = "The batch's results_url is not a URL"
        raise APIResponseValidationError(message) from None
    if parts[:2] != base[:2] and not path.startswith(base.path + "/"):
        path = base.path + path
    return f"{base.scheme}://{base.netloc}{path}"


def _checked_timeout(seconds: float | None) -> float | None:
    # poll() counts milliseconds in 31 bits.
    if seconds is None or (isinstance(seconds, (int, float)) and 0 < seconds < 2e6):
        return seconds
    raise InvalidRequestsError(
        "timeout must be None, or more than 0 and less than 2e6 seconds, "
        f"not {seconds!r}"
    )


def _check_poll_interval(seconds: float | None) -> None:
    if seconds is None or (isinstance(seconds, (int, float)) and 0 <= seconds < 2e6):
        return
    raise InvalidRequestsError(
        "poll_interval must be None, or 0 or more and less than 2e6 seconds, "
        f"not {seconds!r}"
    )


def _jsonable(value: Any) -> Any:
    """Return what the SDK sends for a value that json does not know.

    Raises TypeError if it sends none.
    """
    if isinstance(value, _Object):
        return value.__dict__
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


_decoder = json.JSONDecoder()
_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_jsonable
)


def _encode_json(value: Any) -> bytes:
    """Return compact UTF-8 JSON.

    Raises InvalidRequestsError with the reason if there is none; a lone surrogate is one,
    because the API refuses it.
    """
    try:
        return _encoder.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestsError(f"it is not JSON: {error}") from None


def _encode_request(request: Any, seen: set[str]) -> bytes:
    """Return a request as it is sent, and add its custom_id to ``seen``.

    Raises ValueError with the rule that it breaks.
    """
    if not isinstance(request, Mapping):
        message = "a request must be an object with custom_id and params"
        raise InvalidRequestsError(message)
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
        message = "custom_id must be 1 to 64 of the characters a-z, A-Z, 0-9, _ and -"
        raise InvalidRequestsError(message)
    if custom_id in seen:
        message = "custom_id must be unique, and this one came before"
        raise InvalidRequestsError(message)
    if not isinstance(request.get("params"), Mapping):
        raise InvalidRequestsError("params must be an object")
    others = set(request) - {"custom_id", "params"}
    if others:
        message = f"no key but custom_id and params is allowed: {others.pop()!r}"
        raise InvalidRequestsError(message)
    encoded = _encode_json(request)
    seen.add(custom_id)
    return encoded


@contextlib.contextmanager
def _spooling() -> Iterator[None]:
    """Turn an OSError of the temporary file into one that names its folder and TMPDIR."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "any folder for temporary files"
        raise AnthropicError(
            f"No room for the requests in {folder}: {error}; "
            "set TMPDIR to a folder that takes all requests"
        ) from error


class _Body:
    """The body of a create: checked and encoded once, sent as often as it takes.

    ``is_sent``: whether the last byte was, or may have been, handed over in this attempt;
    only then a batch may exist.  ``elapsed()``: seconds since the last iteration began.
    ``before_last_block`` is called when all but the last block has been sent.
    """

    def __init__(self, before_last_block: Callable[[], None] | None = None) -> None:
        self._before_last_block = before_last_block
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
        self.count = 0
        self.size = 0
        self.is_sent = False
        self.elapsed = _stopwatch()

    def spool(
        self, requests: Iterable[Any], extra: Mapping[str, Any] | None = None
    ) -> None:
        """Check the requests and write the body to the file.

        Raises InvalidRequestsError with index and custom_id.
        """
        if extra and "requests" in extra:
            message = "extra_body must not hold requests: give them as requests"
            raise InvalidRequestsError(message)
        if not hasattr(requests, "__iter__"):
            message = (
                "requests must be an iterable of objects with custom_id and params"
            )
            raise InvalidRequestsError(message)
        tail = b"]}"
        if extra:
            tail = b"]," + _encode_json(extra)[1:]
        seen: set[str] = set()
        self._write(b'{"requests":[')
        for index, request in enumerate(requests):
            try:
                encoded = _encode_request(request, seen)
                if index:
                    encoded = b"," + encoded
                self._check_limits(index, len(encoded) + len(tail))
            except ValueError as error:
                is_object = isinstance(request, Mapping)
                custom_id = request.get("custom_id") if is_object else None
                place = f"requests[{index}] (custom_id {custom_id!r})"
                raise InvalidRequestsError(f"{place}: {error}") from None
            self._write(encoded)
        if not seen:
            raise InvalidRequestsError("requests must hold at least one request")
        self._write(tail)
        self.count = len(seen)

    def _check_limits(self, index: int, size: int) -> None:
        if index >= MAX_BATCH_REQUESTS:
            message = f"a batch takes at most {MAX_BATCH_REQUESTS:,} requests"
            raise InvalidRequestsError(message)
        if self.size + size > MAX_BATCH_BYTES:
            raise InvalidRequestsError(
                f"with this request the batch has more than {MAX_BATCH_BYTES:,} bytes"
            )

    def _write(self, block: bytes) -> None:
        self.size += len(block)
        with _spooling():
            self._file.write(block)

    def __iter__(self) -> Iterator[bytes]:
        self.elapsed = _stopwatch()
        with _spooling():
            self._file.seek(0)
            for _ in range(0, self.size - BLOCK, BLOCK):
                yield self._file.read(BLOCK)
            if self._before_last_block:
                self._before_last_block()
            last = self._file.read()
            if len(last) > 1:
                yield last[:-1]
            # The last byte goes alone and counts as sent before it is handed over,
            # because a signal handler may raise just when it has gone out.
            self.is_sent = True
            yield last[-1:]

    def close(self) -> None:
        """Remove the temporary file."""
        # On a full disk the flush of close fails, too.
        with contextlib.suppress(OSError):
            self._file.close()


def _is_retryable(error: APIError, body: bytes | _Body | None) -> bool:
    """Tell whether to send the request again.

    That is the SDK's rule, but a create is only sent again if no batch can have been
    made: if the API said so, or if its body had not gone out whole when it failed,
    whichever exception came.
    """
    should_retry = error.headers.get("x-should-retry")
    may_help = error._is_transient and should_retry != "false"
    if not isinstance(body, _Body):
        return may_help or should_retry == "true"
    if error._is_refused:
        return may_help and (error._is_api_form or error.status_code == 429)
    return may_help and not body.is_sent


# ---- Transport -----------------------------------------------------------------------
# The only code that touches urllib.request and sockets.  A call is one request, sent as
# often as it takes; every failure leaves this section as an APIError.

# OSError comes from sockets, TLS and urllib; ValueError from http.client, for the size of
# a chunk that is no number; EOFError and zlib.error from gzip that is cut, or is none.
_TRANSPORT_ERRORS = (
    OSError,
    http.client.HTTPException,
    ValueError,
    EOFError,
    zlib.error,
)


@dataclass(repr=False)
class _Call:
    """One request, ready to be sent as often as it takes."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | _Body | None
    timeout: float | None
    # The number of failures in a row.
    failures: int = 0

    def __repr__(self) -> str:
        # Messages show it: headers hold the key, and a query may hold a gateway's.
        return f"{self.method} {self.url.partition('?')[0]}"

    def open(self, opener: Any) -> Any:
        """Send the request once and return its response, the body not read yet.

        Raises APIError unless the status is 2xx.
        """
        if isinstance(self.body, _Body):
            # An attempt that finds no connection does not even begin the body.
            self.body.is_sent = False
        try:
            response = opener.open(self._request(), timeout=self.timeout)
        except urllib.error.HTTPError as error:
            # This file's own opener raises none, but one of the caller's may.
            response = error
        except _TRANSPORT_ERRORS as error:
            raise self.connection_error(error) from error
        status = getattr(response, "status", None) or response.getcode()
        if 200 <= status < 300:
            return response
        raise self.status_error(status, _headers_of(response), self._start_of(response))

    def _request(self) -> urllib.request.Request:
        request = urllib.request.Request(self.url, self.body, method=self.method)
        for name, value in self.headers.items():
            if name in _SECRET_HEADERS:
                # An opener of the caller's must not take it along on a redirect.
                request.add_unredirected_header(name, value)
            else:
                request.add_header(name, value)
        return request

    def _start_of(self, response: Any) -> bytes:
        """Return the body of an error, as much as a message needs, and close it."""
        raw = b""
        # If the body is torn, the status still says enough.
        with contextlib.closing(response), contextlib.suppress(APIConnectionError):
            for block in self.blocks(response):
                raw += block
                if len(raw) > BLOCK:
                    break
        return raw

    def read_json(self, response: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the JSON object and the headers of a response, and close it.

        Raises APIConnectionError if it has no JSON object.
        """
        with contextlib.closing(response):
            raw = b"".join(self.blocks(response))
        try:
            fields = json.loads(raw)
        except _NOT_JSON:
            fields = None
        if not isinstance(fields, dict):
            raise APIConnectionError(
                "The response is not a JSON object, but "
                f"{len(raw)} bytes of something else ({self})"
            )
        return fields, _headers_of(response)

    def blocks(self, response: Any) -> Iterator[bytes]:
        """Yield the body in large blocks, gzip undone.

        It does not read by lines, because readline() ends quietly if the connection is
        cut at the end of a line (python/cpython#115997).
        Raises APIConnectionError if the body is torn.
        """
        read = getattr(response, "read1", response.read)
        blocks: Iterator[bytes] = iter(lambda: read(BLOCK), b"")
        try:
            encoding = _headers_of(response).get("content-encoding", "")
            if encoding.strip().lower() in ("gzip", "x-gzip"):
                blocks = _gunzip(blocks)
            yield from blocks
            if getattr(response, "length", None):
                raise http.client.IncompleteRead(b"", response.length)
        except _TRANSPORT_ERRORS as error:
            raise self.connection_error(error) from error

    def masked(self, text: Any) -> Any:
        """Return a text of the server's without the key, which it may repeat.

        What is not a text is returned as it is.
        """
        secrets = [self.headers.get(name, "") for name in _SECRET_HEADERS]
        for secret in " ".join(secrets).split():
            # "Bearer", "sandbox" and other short words are no secrets.
            if isinstance(text, str) and len(secret) > 7:
                text = text.replace(secret, "***")
        return text

    def connection_error(self, error: Exception) -> APIConnectionError:
        """Return the APIConnectionError for a failure of the connection."""
        self._mask_chain(error)
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        # From Python 3.10 on these two are the same class.
        if isinstance(reason, (socket.timeout, TimeoutError)):
            return APITimeoutError(f"Request timed out ({self})")
        if isinstance(reason, ssl.SSLCertVerificationError):
            return APIConnectionError(
                f"The certificate is not trusted: {reason.verify_message} ({self}); to "
                "trust a company's own CA, set SSL_CERT_FILE or pass ssl_context",
                _is_transient=False,
            )
        message = str(reason) or type(reason).__name__
        return APIConnectionError(f"Connection error: {message} ({self})")

    def _mask_chain(self, error: Exception) -> None:
        """Mask the key in an exception of the transport and in those chained to it.

        http.client's exceptions quote what came in place of a status line, or of the
        size of a chunk.  Exceptions of other classes may be the caller's own.
        """
        links: list[BaseException] = [error]
        for link in links:
            link.args = tuple(map(self.masked, link.args))
            fields = {name: self.masked(value) for name, value in vars(link).items()}
            link.__dict__.update(fields)
            for chained in (link.__cause__, link.__context__):
                if isinstance(chained, _TRANSPORT_ERRORS) and chained not in links:
                    links.append(chained)

    def status_error(
        self, status: int, headers: Mapping[str, str], raw: bytes
    ) -> APIStatusError:
        """Return the error for a response whose status is not 2xx."""
        headers = {name: self.masked(value) for name, value in headers.items()}
        body, text = self._masked_body(raw)
        fields = body if isinstance(body, dict) else {}
        error = fields["error"] if isinstance(fields.get("error"), dict) else {}
        details = error.get("details")
        request_id = headers.get("request-id") or fields.get("request_id")
        if 300 <= status < 400:
            target = headers.get("location", "nowhere")
            message = (
                f"a redirect to {target}, not followed: the key stays with base_url"
            )
        elif error.get("type"):
            message = f"{error['type']}: {error.get('message')}"
        else:
            message = " ".join(text.split())[:200]
        if request_id:
            message += f" (request id {request_id})"
        is_api_form = fields.get("type") == "error" and isinstance(
            error.get("type"), str
        )
        default = InternalServerError if status >= 500 else APIStatusError
        return APIStatusError._by_status.get(status, default)(
            f"Error code: {status} - {message} ({self})",
            status_code=status,
            headers=headers,
            body=body,
            request_id=request_id,
            type=error.get("type"),
            api_message=error.get("message"),
            details=details,
            error_code=details.get("error_code") if isinstance(details, dict) else None,
            _is_transient=status in (408, 409, 429) or status >= 500,
            _is_api_form=is_api_form,
            _is_refused=300 <= status < 500 or (is_api_form and status in (503, 529)),
        )

    def _masked_body(self, raw: bytes) -> tuple[Any, str]:
        """Return the body of an error as JSON, or its text, and the text.

        JSON is encoded anew before it is masked, because escapes would hide the key.
        """
        text = raw.decode("utf-8", "replace").strip()
        try:
            text = self.masked(json.dumps(json.loads(text), ensure_ascii=False))
            return json.loads(text), text
        except _NOT_JSON:
            text = self.masked(text)
            return text, text


def _headers_of(response: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text or "")
        if not moment.tzinfo:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.astimezone(timezone.utc)
    except _NOT_A_DATE:
        return None


# What parsedate_to_datetime raises; the last two before Python 3.10.
_NOT_A_DATE = (TypeError, ValueError, OverflowError, IndexError, UnboundLocalError)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the response asks to wait; None if none, or in the past.

    They come as milliseconds, seconds or a date.
    """
    seconds = 0.0
    moment = _http_date(headers.get("retry-after"))
    if moment:
        seconds = moment.timestamp() - time.time()
    for name, unit in (("retry-after", 1), ("retry-after-ms", 1000)):
        with contextlib.suppress(KeyError, ValueError):
            seconds = float(headers[name]) / unit
    # time.sleep takes no more than that on some systems.
    return min(seconds, 4_294_967.0) if seconds > 0 else None


def _backoff(failures: int) -> float:
    """Return the SDK's seconds after so many failures in a row.

    They are 0.5, doubled up to 8, less up to a quarter.
    """
    longest = min(0.5 * 2.0 ** min(failures - 1, 10), 8.0)
    return longest * (1 - 0.25 * random.random())


def _stopwatch() -> Callable[[], float]:
    """Return a function that tells the seconds since this call.

    A laptop's sleep counts, during which the monotonic clock may stand still; the wall
    clock may be set back.
    """
    monotonic, wall = time.monotonic(), time.time()
    return lambda: max(time.monotonic() - monotonic, time.time() - wall)


class _Response(http.client.HTTPResponse):
    """A response that may come after interim ones; http.client skips 100 alone."""

    def begin(self) -> None:
        """Read status and headers of the final response."""
        try:
            super().begin()
            while self.status in (102, 103):
                self.headers = self.msg = None  # type: ignore[assignment]
                super().begin()
        except TypeError as error:
            # The email package raises it for parameters of a Content-Type that it
            # cannot sort.
            message = f"headers that cannot be read: {error}"
            raise http.client.HTTPException(message) from error


class _Connection(http.client.HTTPConnection):
    """A connection with its own timeout for connecting.

    It also reads a refusal that comes during the upload.
    """

    response_class = _Response

    def connect(self) -> None:
        """Connect within CONNECT_TIMEOUT; later reads have the timeout of the call."""
        timeout = self.timeout
        self.timeout = CONNECT_TIMEOUT
        if timeout is not None:
            self.timeout = min(timeout, CONNECT_TIMEOUT)
        super().connect()
        self.sock.settimeout(timeout)

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request.

        If that fails, the server may have refused, with 401 or 413, and closed: then its
        response is taken.
        """
        # Otherwise a failure to connect would look like one to send.
        self.connect()
        try:
            super().request(*args, **kwargs)
        except OSError as error:
            try:
                self.sock.settimeout(REFUSAL_TIMEOUT)
                response = self.getresponse()
            except (OSError, http.client.HTTPException) as no_response:
                del no_response
                if isinstance(error, socket.timeout):
                    raise error from None
                raise ConnectionAbortedError(
                    "the server closed during the upload; a wrong key or too large a "
                    f"body may be why ({error})"
                ) from error
            self.getresponse = lambda: response  # type: ignore[method-assign]


class _TLSConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS."""


class _Transport(urllib.request.AbstractHTTPHandler):
    """urllib for http and https alone.

    No redirect is followed: urllib would take the key along to any host
    (python/cpython#77842).  A response of any status is returned, not raised.
    """

    def __init__(self, base_url: str, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self._base = urllib.parse.urlsplit(base_url)
        self._context = context
        self._director: urllib.request.OpenerDirector | None = None

    def open(self, request: urllib.request.Request, timeout: float | None) -> Any:
        """Send a request, through the environment's proxy, and return the response.

        A loopback base_url needs no proxy.
        """
        # The opener is built at the first request, because an SSL context takes a while.
        if self._director is None:
            self._director = self._build()
        return self._director.open(request, timeout=timeout)

    def _build(self) -> urllib.request.OpenerDirector:
        if self._base.scheme == "https":
            self._context = self._context or ssl.create_default_context()
        # With http_proxy set, urllib would send even 127.0.0.1 to the proxy.
        host = self._base.hostname or ""
        is_loopback = re.fullmatch(r"localhost|::1|127(\.\d+){1,3}", host)
        director = urllib.request.OpenerDirector()
        director.add_handler(urllib.request.ProxyHandler({} if is_loopback else None))
        director.add_handler(urllib.request.UnknownHandler())
        director.add_handler(self)
        return director

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open a request for http; urllib calls it."""
        return self.do_open(_Connection, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open a request for https, through a proxy, too; urllib calls it."""
        return self.do_open(_TLSConnection, request, context=self._context)


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
            block = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        raise EOFError("gzip ended early")


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
    "ConflictError",
    "ContentBlock",
    "ContentTooLargeError",
    "DeletedMessageBatch",
    "ErrorResponse",
    "GatewayTimeoutError",
    "IncompleteResultsError",
    "InternalServerError",
    "InvalidRequestsError",
    "Message",
    "MessageBatch",
    "MessageBatchIndividualResponse",
    "MessageBatchRequestCounts",
    "MessageBatchResult",
    "MessageCreateParamsNonStreaming",
    "MessageTokensCount",
    "Messages",
    "ModelInfo",
    "Models",
    "NotFoundError",
    "OpenObject",
    "OverloadedError",
    "Page",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "RateLimitError",
    "Request",
    "RequestTimeoutError",
    "Results",
    "ServiceUnavailableError",
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
# A file of requests to a file of results: plan, send, wait, collect, finish.  The journal
# beside the results says how far the job came, at every moment.

# What of a request's params count_tokens takes: API reference, Count tokens in a Message.
COUNTED = (
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "cache_control",
    "output_config",
    "speed",
)
SYNC_BYTES = 8_000_000  # of rows, between two notes of them in the journal
MAX_WARNINGS = 20  # of requests that the API will refuse later


def _count(client: Anthropic, params: Mapping[str, Any]) -> int:
    fields: dict[str, Any] = {"model": None, "messages": None}
    fields.update({name: params[name] for name in COUNTED if name in params})
    count = client.messages.count_tokens(**fields).input_tokens
    if not isinstance(count, int):
        message = "The response to count_tokens has no input_tokens"
        raise APIResponseValidationError(message)
    return count


class JobError(AnthropicError):
    """The job cannot go on by itself; the message says why, and what to do."""


def _read_requests(
    lines: Iterable[bytes], path: str, first: int = 1
) -> Iterator[tuple[int, bytes, Any, int]]:
    """Yield number, line, request and its size as sent, of each line that is not blank.

    Raises InvalidRequestsError with path and line.
    """
    seen: set[str] = set()
    for number, line in enumerate(lines, first):
        text = line[3:] if line.startswith(b"\xef\xbb\xbf") else line
        if text.strip():
            request = None
            try:
                request = json.loads(text.decode())
                size = len(_encode_request(request, seen))
            except _NOT_JSON as error:
                reason = _reason(error, request)
                message = f"{path}:{number}: {reason}"
                raise InvalidRequestsError(message) from None
            yield number, text, request, size


def _reason(error: Exception, request: Any) -> str:
    """Return why a line is not a request, with its custom_id if it has one."""
    message = str(error)
    if isinstance(error, json.JSONDecodeError):
        message = f"not JSON: {error.msg}, column {error.colno}"
    custom_id = request.get("custom_id") if isinstance(request, dict) else None
    return f"custom_id {custom_id!r}: {message}" if custom_id else message


def _hashed(lines: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for line in lines:
        digest.update(line)
        yield line


def _later_refusal(params: Mapping[str, Any], version: str) -> str | None:
    """Return why the API will refuse these params after it took the batch, or None."""
    for name in ("model", "max_tokens", "messages"):
        if params.get(name) is None:
            return f"params have no {name}"
    is_speed = params.get("speed") is not None
    if params.get("stream") or params["max_tokens"] == 0 or is_speed:
        return "params must not have stream: true, max_tokens: 0 or speed in a batch"
    for name in ("temperature", "top_p", "top_k"):
        if version == API_VERSION and params.get(name) is not None:
            return (
                f"params must not have {name} under anthropic-version {API_VERSION}; "
                "2023-06-01 takes it"
            )
    return None


@dataclass
class _Part:
    """What becomes one batch: so many requests of REQUESTS, from the byte ``start`` on.

    ``state``: planned; sending; closing, when the last block goes out and from when on
    the batch may exist; created; collected.
    """

    # The number of its first line.
    line: int
    start: int
    digest: str = ""
    requests: int = 0
    # The size of the body: {"requests":[]} and the requests, each with a comma, less one.
    bytes: int = 14
    state: str = "planned"
    # Server time before sending.
    noted_at: str = ""
    # Server time until which the response to closing is, or was, waited for.
    waited_until: str = ""
    batch_id: str | None = None
    is_adopted: bool = False
    # A run stopped with a question about it, which --adopt answers.
    is_asked: bool = False
    # Batches that were adopted and have other requests.
    foreign: list[str] = field(default_factory=list)


@dataclass
class _Journal:
    """How far the job came; RESULTS.job is its JSON."""

    # The digest of REQUESTS.
    digest: str
    base_url: str
    parts: list[_Part]
    organization_id: str | None = None
    workspace_id: str | None = None
    started_at: str = field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat()
    )
    # Bytes of RESULTS.part that are rows, and on disk.
    collected: int = 0

    def is_collected(self) -> bool:
        """Tell whether all rows are in RESULTS.part."""
        return all(part.state == "collected" for part in self.parts)

    @classmethod
    def load(cls, path: str) -> _Journal:
        """Read a journal.  Raises JobError if the file is not one."""
        try:
            with open(path, encoding="utf-8") as file:
                fields = json.load(file)
            parts = [_Part(**part) for part in fields["parts"]]
            return cls(**{**fields, "parts": parts})
        except (ValueError, TypeError, KeyError) as error:
            raise JobError(
                f"{path} is not the journal of a run ({error}); to pay for all anew, "
                "move it away"
            ) from None

    def save(self, path: str) -> None:
        """Replace the journal in one step that survives a power cut."""
        try:
            with _new_file(path + ".tmp") as file:
                file.write(json.dumps(asdict(self), indent=1).encode())
                _sync(file)
            os.replace(path + ".tmp", path)
            _sync_folder(path)
        except OSError as error:
            # An OSError between two blocks would look like one of the connection.
            message = f"The journal {path} cannot be written: {error}; run again"
            raise JobError(message) from error


def _new_file(path: str) -> Any:
    # It may be a link, or a second name of a file that is published.
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
    return open(path, "xb")


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: str) -> None:
    # Windows has no way to do that, and does not need it.
    if hasattr(os, "O_DIRECTORY"):
        folder = os.path.dirname(os.path.abspath(path))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        # Some network folders refuse.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
        os.close(descriptor)


def _publish(source: str, target: str) -> None:
    """Give a whole file its name in one step.

    Raises InvalidRequestsError rather than overwrite.
    """
    try:
        # A rename would overwrite on POSIX.
        os.link(source, target)
    except OSError:
        if not os.path.lexists(target):
            # There are no hard links in this folder.
            os.rename(source, target)
            return
        if not _is_same_file(source, target):
            _refuse_existing(target)
            # It went away meanwhile.
            raise
        # A run that published it was killed before it could say so.
    os.unlink(source)


def _is_same_file(source: str, target: str) -> bool:
    import filecmp

    if os.path.islink(target) or not os.path.isfile(target):
        return False
    return filecmp.cmp(source, target, shallow=False)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[Any]:
    """Open a file for appending, for one process at a time.

    The lock dies with the process.
    """
    with open(path, "a+b") as file:
        try:
            _lock(file)
        except OSError as error:
            raise JobError(
                f"Another run is at work on {path}, or the folder has no locks ({error})"
            ) from None
        is_ours = False
        # The run that held the lock before may have moved or removed the file.
        with contextlib.suppress(FileNotFoundError):
            is_ours = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        if not is_ours:
            raise JobError(
                f"Another run was at work on {path}, and has just ended; run again if "
                "there is more to do"
            )
        yield file


def _lock(file: Any) -> None:
    if sys.platform == "win32":
        import msvcrt

        # A lock far behind all rows keeps nobody from reading them.
        file.seek(1 << 40)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Job:
    """A file of requests to a file of results.

    It takes as many batches as needed, and goes on after it was killed.

    ``requests`` and ``results`` are paths; beside results (or in ``folder``) it writes
    ``.job``, ``.part`` and what failed.  ``poll_interval``: seconds between polls, None
    as in wait().  ``settle``: seconds, 0 or more, after which no batch is expected from a
    create whose response is lost.  ``adopt``: the id of the batch of a part in doubt, or
    "none".  ``progress`` tells a person: ``message(text)`` stays, ``status_line(text,
    times="")`` is what happens at the moment, ``batches(batches, parts)`` shows the
    MessageBatches that are running, of so many parts.
    """

    def __init__(
        self,
        client: Anthropic,
        requests: str,
        results: str,
        *,
        progress: Any,
        folder: str | None = None,
        poll_interval: float | None = None,
        settle: float = 300.0,
        adopt: str | None = None,
    ) -> None:
        self._once = client.with_options(max_retries=0)
        # So many interruptions of a download are allowed without a new row.
        self._client = client.with_options(max_retries=20)
        self._client._on_error = self._wait_and_retry
        self._has_response = False
        self._batches = self._client.messages.batches
        self._requests = requests
        self._results = results
        self._progress = progress
        stem = os.path.join(folder, os.path.basename(results)) if folder else results
        self._journal_path = stem + ".job"
        self._rows_path = stem + ".part"
        root, extension = os.path.splitext(results)
        self._failed_path = root + ".failed" + extension
        self._interval = poll_interval
        self._settle = settle
        self._adopt = adopt
        self._journal: Any = None

    @property
    def open_batches(self) -> list[str]:
        """The ids of the batches that are running or not collected yet."""
        parts = self._journal.parts if self._journal else []
        return [part.batch_id for part in parts if part.state == "created"]

    def run(self) -> bool:
        """Do what is left, and tell whether every request succeeded.

        Raises AnthropicError, or OSError of a file.
        """
        self._polls_by_id: dict[
            str, Iterator[tuple[MessageBatch | APIError, float]]
        ] = {}
        with _locked(self._rows_path) as self._rows_file:
            try:
                self._open()
            except BaseException:
                is_new = not os.path.exists(self._journal_path)
                if is_new and not os.path.getsize(self._rows_path):
                    self._remove_rows_file()
                raise
            try:
                while not self._journal.is_collected():
                    self._send()
                    self._poll()
                return self._finish()
            except OSError as error:
                # For instance a full disk.
                message = f"{error}: mend that, and run again to go on"
                raise JobError(message) from error

    def _release_rows_file(self) -> None:
        """Close RESULTS.part on Windows, where an open file cannot be renamed or removed."""
        if sys.platform == "win32":
            self._rows_file.close()

    def _remove_rows_file(self) -> None:
        self._release_rows_file()
        # On Windows another run may have opened the file just now: then it is that run's.
        with contextlib.suppress(PermissionError):
            os.unlink(self._rows_path)

    # Plan

    def _open(self) -> None:
        """Resume from the journal, or begin one; refuse what does not belong together."""
        if os.path.exists(self._journal_path):
            journal = self._load()
        else:
            journal = self._begin()
        self._journal = journal
        if not journal.is_collected():
            self._identify()
            self._resume()
        if self._adopt and not any(part.is_asked for part in journal.parts):
            self._progress.message(
                f"--adopt {self._adopt}: not used, because no run has stopped to ask for it"
            )
        self._save()

    def _load(self) -> _Journal:
        """Return the journal of an earlier run.  Raises JobError if it is of another job."""
        # It is set at once, because its batches go on whatever comes now.
        journal = self._journal = _Journal.load(self._journal_path)
        if journal.digest != self.plan()[0].digest:
            raise JobError(
                f"{self._requests} has changed since the run began; put it back, or begin "
                "another run"
            )
        if journal.base_url != self._client.base_url:
            raise JobError(
                f"The run began at {journal.base_url}, and this is {self._client.base_url}"
            )
        if not journal.is_collected():
            _refuse_existing(self._results)
        self._progress.message(f"going on with {self._journal_path}")
        return journal

    def _begin(self) -> _Journal:
        """Return a new journal, after the first request was tried."""
        _refuse_existing(self._results, self._failed_path)
        if os.path.getsize(self._rows_path):
            message = f"{self._rows_path} is of a run without its journal; move it away"
            raise JobError(message)
        journal = self.plan()[0]
        self._try(journal.parts[0])
        return journal

    def _try(self, part: _Part) -> None:
        """Count the tokens of the first request, for free: what is wrong is told now."""
        _, request = next(self._requests_in(part))
        try:
            _count(self._client, request["params"])
            self._has_response = True
        except BadRequestError as error:
            message = f"{self._requests}: the API refuses the first request: {error}"
            raise InvalidRequestsError(message) from None
        except APIError as error:
            self._progress.message(f"the first request could not be tried: {error}")

    def _identify(self) -> None:
        """Note the API's clock, and whose key this is.

        Raises JobError for the key of another workspace.
        """
        headers = self._batches.list(limit=1)._headers
        self._has_response = True
        now = _http_date(headers.get("date"))
        for part in self._journal.parts:
            # The run that waited for the response is dead.
            if part.state == "closing" and now:
                waited_until = datetime.fromisoformat(part.waited_until)
                part.waited_until = min(waited_until, now).isoformat()
        for name in ("organization_id", "workspace_id"):
            known = getattr(self._journal, name)
            told = headers.get(f"anthropic-{name.replace('_', '-')}")
            if known and told and known != told:
                message = f"The run began in {name} {known}, and this key is of {told}"
                raise JobError(message)
            setattr(self._journal, name, known or told)

    def _resume(self) -> None:
        """Cut RESULTS.part where the journal says, and read whose rows are there."""
        if os.path.getsize(self._rows_path) < self._journal.collected:
            raise JobError(
                f"{self._rows_path} has lost rows that {self._journal_path} counts; put it "
                "back"
            )
        # What comes after it may be torn.
        self._rows_file.truncate(self._journal.collected)
        with open(self._rows_path, "rb") as rows:
            self._collected = {row["custom_id"] for row in iter_json_lines(rows)}

    def plan(self) -> tuple[_Journal, str]:
        """Check REQUESTS and cut it into parts; return the new journal, and the plan as text.

        Raises InvalidRequestsError with file and line.
        """
        version = self._client.default_headers.get("anthropic-version") or API_VERSION
        whole, digest = hashlib.sha256(), hashlib.sha256()
        warnings = max_tokens = 0
        parts: list[_Part] = []
        models: Counter[str] = Counter()
        with open(self._requests, "rb") as file:
            lines = _read_requests(_hashed(file, whole), self._requests)
            for number, line, request, size in lines:
                place = f"{self._requests}:{number}"
                if not parts or _is_full(parts[-1], size):
                    parts.append(_Part(number, file.tell() - len(line)))
                    digest = hashlib.sha256()
                digest.update(line)
                _add(parts[-1], size, digest.hexdigest(), place)
                params = request["params"]
                models[str(params.get("model"))] += 1
                if isinstance(params.get("max_tokens"), int):
                    max_tokens += params["max_tokens"]
                refusal = _later_refusal(params, version)
                warnings += bool(refusal)
                if refusal and warnings <= MAX_WARNINGS:
                    self._progress.message(
                        f"{place}: warning: this will come back errored: {refusal}"
                    )
        if not parts:
            raise InvalidRequestsError(f"{self._requests}: no requests")
        if warnings > MAX_WARNINGS:
            self._progress.message(f"… and {warnings - MAX_WARNINGS:,} more warnings")
        journal = _Journal(whole.hexdigest(), self._client.base_url, parts)
        return journal, _plan_text(parts, models, max_tokens)

    def _requests_in(self, part: _Part) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield line and request of a part.  Raises JobError at its end if it has changed."""
        digest = hashlib.sha256()
        with open(self._requests, "rb") as file:
            file.seek(part.start)
            lines = _read_requests(file, self._requests, part.line)
            for _, line, request, _ in itertools.islice(lines, part.requests):
                digest.update(line)
                yield line, request
        if digest.hexdigest() != part.digest:
            raise JobError(
                f"{self._requests} has changed since the run began; put it back, and run "
                "again"
            )

    # Send

    def _send(self) -> None:
        """Make a batch of each part that has none.  One part is in doubt at a time."""
        while parts := [part for part in self._journal.parts if not part.batch_id]:
            in_doubt = [part for part in parts if part.state == "closing"]
            try:
                if in_doubt:
                    self._resolve(in_doubt[0])
                else:
                    self._create(parts[0])
            except BatchMayExistError as error:
                self._progress.message(str(error))
            except APIError as error:
                self._wait_for_room(error)

    def _wait_for_room(self, error: APIError) -> None:
        """Wait before a create that was refused is sent again, and collect meanwhile.

        What has ended makes room in the queue, so it ends the pause.
        """
        seconds = self._seconds_asked(error)
        if seconds is None:
            seconds = POLL_MAX if error.status_code == 429 else POLL_FIRST
        elapsed, collected = _stopwatch(), self._journal.collected
        while elapsed() < seconds and self._journal.collected == collected:
            self._poll(max(0.0, seconds - elapsed()), is_shown=False)

    def _create(self, part: _Part) -> None:
        headers = self._batches.list(limit=1)._headers
        noted = _http_date(headers.get("date")) or datetime.now(timezone.utc)
        part.noted_at, part.state = noted.isoformat(), "sending"
        elapsed = _stopwatch()
        self._save()

        def note_closing(longest: float) -> None:
            """Note that the batch may be made from now on, for at most so many seconds."""
            until = noted + timedelta(seconds=elapsed() + longest)
            part.state, part.waited_until = "closing", until.isoformat()
            self._save()

        longest = self._client.timeout or TIMEOUT
        try:
            batch = self._once.messages.batches._create(
                (request for _, request in self._requests_in(part)),
                before_last_block=lambda: note_closing(longest),
            )
            # The response has come, and is not waited for any longer.
            part.waited_until = part.noted_at
            self._note(part, "created", batch.id)
        except BatchMayExistError:
            # Nobody waits for its response any longer.
            note_closing(0.0)
            raise
        except APIError:
            # No batch was made.
            self._note(part, "planned")
            raise
        except KeyboardInterrupt:
            if part.state == "closing":
                self._progress.message(
                    f"{self._name(part)}: its batch may exist, and be billed; the next run "
                    "looks for it"
                )
            raise

    def _note(
        self,
        part: _Part,
        state: str,
        batch_id: str | None = None,
        is_adopted: bool = False,
    ) -> None:
        if batch_id:
            self._progress.message(f"{self._name(part)}: batch {batch_id}")
        part.state, part.batch_id = state, batch_id
        part.is_adopted, part.is_asked = is_adopted, False
        self._save()

    def _resolve(self, part: _Part) -> None:
        """Find out whether a part whose response was lost has its batch.

        If so, it is adopted; else the part is planned again.
        """
        # Date has a grain of one second.
        settle = timedelta(seconds=self._settle + 1)
        deadline = datetime.fromisoformat(part.waited_until) + settle
        while part.state == "closing" and not self._apply_adopt(part):
            now, found = self._candidates(part, deadline)
            if len(found) > 1:
                self._ask(
                    part,
                    f"{self._name(part)} may be any of {', '.join(found)}; say which: run "
                    "again with --adopt ID, or with --adopt none if it is none of them, "
                    "which sends it again",
                )
            elif found:
                self._note(part, "created", found[0], is_adopted=True)
            elif now >= deadline:
                self._note(part, "planned")
            else:
                self._progress.status_line(
                    f"{self._name(part)}: looking whether its batch was made",
                    f"until {deadline:%H:%M:%S}",
                )
                left = (deadline - now).total_seconds()
                time.sleep(min(self._interval or POLL_FIRST, left))

    def _candidates(
        self, part: _Part, deadline: datetime
    ) -> tuple[datetime, list[str]]:
        """Return the server's time, and the ids of the batches that may be the part's."""
        # The clocks of a gateway and of the API differ.
        noted = datetime.fromisoformat(part.noted_at) - timedelta(seconds=10)
        known = {*part.foreign, *(other.batch_id for other in self._journal.parts)}
        page = self._batches.list(limit=100)
        now = _http_date(page._headers.get("date")) or datetime.now(timezone.utc)
        found = []
        for batch in page:
            created_at = batch.created_at or noted
            if created_at < noted:
                break
            has_size = _size(batch) in (part.requests, None)
            if created_at <= deadline and has_size and batch.id not in known:
                found.append(batch.id)
        return now, found

    def _apply_adopt(self, part: _Part) -> bool:
        """Do with a part what --adopt says; tell whether that was so.

        It holds for the part about which a run has stopped to ask, and for no other.
        """
        batch_id = self._adopt
        if not batch_id or not part.is_asked:
            return False
        if batch_id == "none":
            self._note(part, "planned")
            return True
        others = [other for other in self._journal.parts if other is not part]
        if batch_id in [other.batch_id for other in others]:
            raise JobError(
                f"Batch {batch_id} is that of another part, and not of {self._name(part)}"
            )
        size = _size(self._batches.retrieve(batch_id))
        if size not in (part.requests, None):
            raise JobError(
                f"Batch {batch_id} has {size} requests, and {self._name(part)} has "
                f"{part.requests}"
            )
        self._note(part, "created", batch_id, is_adopted=True)
        return True

    def _ask(self, part: _Part, question: str) -> None:
        """Stop, and take the next run's --adopt as the answer."""
        # An earlier question is not answered any longer.
        for other in self._journal.parts:
            other.is_asked = other is part
        self._save()
        raise JobError(question)

    # Wait

    def _wait_and_retry(self, error: APIError) -> None:
        seconds = self._seconds_asked(error)
        time.sleep(POLL_FIRST if seconds is None else seconds)

    def _seconds_asked(self, error: APIError) -> float | None:
        """Tell the error, and return the seconds that its response asks to wait, or None.

        Raises the error before the first response of the API, or if it stays.
        """
        if not (error._is_transient and self._has_response):
            raise error
        is_limit = "spend_limit" in str(getattr(error, "error_code", None))
        if isinstance(error, RateLimitError) and is_limit:
            message = f"{error}.  It stays so until the limit is raised; then run again to go on"
            raise JobError(message) from error
        self._progress.status_line(f"waiting: {error}")
        return _retry_after(error.headers)

    def _poll(self, longest: float = POLL_MAX, is_shown: bool = True) -> None:
        """Poll the batches once, collect those that have ended, and sleep until the next
        poll, at most ``longest`` seconds.
        """
        running, delays = [], [longest]
        for part in self._journal.parts:
            if part.state == "created":
                batch, delay = self._poll_part(part)
                delays.append(delay)
                if batch:
                    running.append(batch)
        if running and is_shown:
            self._progress.batches(running, len(self._journal.parts))
        time.sleep(min(delays))

    def _poll_part(self, part: _Part) -> tuple[MessageBatch | None, float]:
        """Poll a part once; return its batch if it is running, and the seconds to wait."""
        polls = self._polls_by_id.get(part.batch_id or "")
        if not polls:
            polls = self._batches._polls(part.batch_id or "", self._interval)
            self._polls_by_id[part.batch_id or ""] = polls
        try:
            outcome, delay = next(polls)
        except NotFoundError as error:
            # The generator has ended with this.
            del self._polls_by_id[part.batch_id or ""]
            self._no_results(part, f"the API knows it no longer ({error})")
            return None, 0.0
        if not isinstance(outcome, MessageBatch):
            self._progress.status_line(f"waiting: {outcome}")
            return None, delay
        if outcome.processing_status == "ended":
            self._collect(part, outcome)
            return None, 0.0
        if part.is_asked:
            # It is there after all.
            part.is_asked = False
            self._save()
        return outcome, delay

    def _no_results(self, part: _Part, why: str) -> None:
        """Stop for a batch that gives no results, unless --adopt says what to do."""
        if not self._apply_adopt(part):
            self._ask(
                part,
                f"Batch {part.batch_id} of {self._name(part)} gives no results: {why}.  "
                "With the key of the right workspace, run again; or send the part again, "
                "and pay again: --adopt none",
            )

    # Collect

    def _collect(self, part: _Part, batch: MessageBatch) -> None:
        """Append the rows of an ended batch to RESULTS.part, from where it stopped."""
        if not batch.results_url:
            reason = "it has no results_url"
            if batch.archived_at:
                reason = "they have been archived"
            self._no_results(part, reason)
            return
        wanted = {request["custom_id"] for _, request in self._requests_in(part)}
        # Of an adopted batch, no row is taken before all are known to be ours.
        if part.is_adopted and self._is_foreign(part, batch, wanted):
            return
        seen, unsynced = wanted & self._collected, 0
        for line, row in self._batches.results(batch.id)._rows(seen):
            if row["custom_id"] not in wanted:
                raise JobError(
                    f"Batch {batch.id} has a row {row['custom_id']!r}, which is not in "
                    f"{self._name(part)}"
                )
            unsynced += self._rows_file.write(line)
            if unsynced > SYNC_BYTES:
                self._note_rows()
                unsynced = 0
        # Only a batch that told no counts can end so.
        if len(seen) < part.requests:
            raise JobError(
                f"Batch {batch.id}: {len(seen)} of {part.requests} rows came; run again to "
                "go on"
            )
        part.state = "collected"
        self._note_rows()
        self._progress.message(f"{self._name(part)}: {len(seen):,} results")

    def _is_foreign(self, part: _Part, batch: MessageBatch, wanted: set[str]) -> bool:
        """Tell whether an adopted batch has a row that is not the part's, and note that."""
        for _, row in self._batches.results(batch.id)._rows(set()):
            if row["custom_id"] not in wanted:
                self._progress.message(
                    f"Batch {batch.id} has a row {row['custom_id']!r}: it is not ours"
                )
                part.foreign.append(batch.id)
                self._note(part, "closing")
                return True
        return False

    def _note_rows(self) -> None:
        _sync(self._rows_file)
        self._journal.collected = os.path.getsize(self._rows_path)
        self._save()

    # Finish

    def _finish(self) -> bool:
        """Write what failed, give RESULTS its name, sum up, and remove the journal last."""
        # RESULTS.part is empty after a run that was killed when RESULTS had its name.
        has_rows = os.path.getsize(self._rows_path) > 0
        rows = self._rows_path if has_rows else self._results
        if not os.path.isfile(rows) or os.path.getsize(rows) != self._journal.collected:
            raise JobError(
                f"{rows} has not the rows that {self._journal_path} counts; put it back and "
                "run again, or remove the journal if you have the results"
            )
        summary, failed = self._sum_up(rows)
        if failed:
            self._write_failed(failed)
        self._release_rows_file()
        if has_rows:
            _publish(self._rows_path, self._results)
        else:
            os.unlink(self._rows_path)
        _sync_folder(self._results)
        self._progress.message(summary)
        os.unlink(self._journal_path)
        return not failed

    def _write_failed(self, failed: set[str]) -> None:
        """Write the requests that did not succeed, as they were, beside RESULTS."""
        with _new_file(self._failed_path + ".tmp") as file:
            for part in self._journal.parts:
                for line, request in self._requests_in(part):
                    if request["custom_id"] in failed:
                        file.write(line.rstrip(b"\n") + b"\n")
            _sync(file)
        _publish(self._failed_path + ".tmp", self._failed_path)

    def _sum_up(self, path: str) -> tuple[str, set[str]]:
        """Return the summary as text, and the custom_ids that did not succeed."""
        outcomes: Counter[str] = Counter()
        errors: Counter[str] = Counter()
        tokens: Counter[str] = Counter()
        failed = set()
        with open(path, "rb") as rows:
            for row in map(MessageBatchIndividualResponse, iter_json_lines(rows)):
                result = row.result
                if not isinstance(result, MessageBatchResult):
                    result = MessageBatchResult()
                outcomes[str(result.type)] += 1
                if result.type != "succeeded":
                    failed.add(row.custom_id)
                usage = getattr(result.message, "usage", None)
                if isinstance(usage, Usage):
                    for name, number in vars(usage).items():
                        tokens[name] += number if isinstance(number, int) else 0
                error = getattr(result.error, "error", None)
                if isinstance(error, ErrorResponse):
                    errors[f"{error.type}: {error.message}"] += 1
        return self._summary(outcomes, errors, tokens, failed), failed

    def _summary(
        self,
        outcomes: Counter[str],
        errors: Counter[str],
        tokens: Counter[str],
        failed: set[str],
    ) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in outcomes.items())
        lines = [f"{sum(outcomes.values()):,} requests: {counts}"]
        for message, count in errors.most_common(5):
            lines.append(f"  {count:,} × {message}")
        prefixes = ("", "cache_creation_", "cache_read_")
        tokens_in = sum(tokens[f"{prefix}input_tokens"] for prefix in prefixes)
        tokens_out = tokens["output_tokens"]
        started_at = datetime.fromisoformat(self._journal.started_at)
        elapsed = _clock(datetime.now(timezone.utc) - started_at)
        lines.append(f"{tokens_in:,} tokens in, {tokens_out:,} out; {elapsed} elapsed")
        batches = []
        for part in self._journal.parts:
            mark = " (adopted)" if part.is_adopted else ""
            batches.append(part.batch_id + mark)
        lines.append(f"batches: {', '.join(batches)}")
        if failed:
            lines.append(
                f"what did not succeed, ready to be run again: {self._failed_path}"
            )
        lines.append(f"results: {self._results}")
        return "\n".join(lines)

    def _save(self) -> None:
        self._journal.save(self._journal_path)

    def _name(self, part: _Part) -> str:
        parts = self._journal.parts
        number = parts.index(part) + 1
        return f"part {number} of {len(parts)} ({part.requests:,} requests)"


def _is_full(part: _Part, size: int) -> bool:
    """Tell whether a part has no room for a request of so many bytes."""
    is_many = part.requests == MAX_BATCH_REQUESTS
    return is_many or part.bytes + 1 + size > MAX_BATCH_BYTES


def _add(part: _Part, size: int, digest: str, place: str) -> None:
    """Add a request to a part.  Raises InvalidRequestsError if it is too large for any."""
    part.digest = digest
    part.requests += 1
    part.bytes += 1 + size
    if part.bytes > MAX_BATCH_BYTES:
        message = f"{place}: more than the {MAX_BATCH_BYTES:,} bytes of a batch"
        raise InvalidRequestsError(message)


def _plan_text(parts: list[_Part], models: Counter[str], max_tokens: int) -> str:
    counts = ", ".join(f"{model} ({count:,})" for model, count in models.items())
    return (
        f"requests: {sum(part.requests for part in parts):,}\n"
        f"parts: {len(parts):,}\n"
        f"bytes: {sum(part.bytes for part in parts):,}\n"
        f"models: {counts}\n"
        f"max_tokens: {max_tokens:,}"
    )


def _refuse_existing(*paths: str) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise InvalidRequestsError(
                f"{path} exists, and is not overwritten; move it away, and run again"
            )


def _clock(span: timedelta) -> str:
    """Return a span of time as h:mm:ss, more than a day in hours, too."""
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

    def is_ended(self) -> bool:
        """Tell whether its time is over."""
        return datetime.now(timezone.utc) >= self.ends

    def outcome(self, custom_id: str, refusal: str | None) -> str:
        """Return the type of a request's result."""
        if refusal:
            return "errored"
        if self.cancel_initiated_at:
            return "canceled"
        return "expired" if custom_id.startswith("expired") else "succeeded"

    def show(self) -> dict[str, Any]:
        """Return the MessageBatch's JSON as it is now."""
        ended = self.is_ended()
        names = ("processing", "succeeded", "errored", "canceled", "expired")
        counts = dict.fromkeys(names, 0)
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
            result: dict[str, Any] = {"type": self.outcome(custom_id, refusal)}
            if result["type"] == "errored":
                message = f"{refusal} (says the sandbox)"
                error = {"type": "invalid_request_error", "message": message}
                result["error"] = {"type": "error", "error": error, "request_id": None}
            elif result["type"] == "succeeded":
                result["message"] = _sandbox_message(number, model)
            yield _encode_json({"custom_id": custom_id, "result": result}) + b"\n"


def _sandbox_message(number: int, model: str) -> dict[str, Any]:
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


_SANDBOX_MODELS: list[dict[str, Any]] = [
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

    ``port``: 0 for any free one; ``seconds``: 0 or more, how long a batch is in progress.
    ``url``: for base_url; it responds inside the ``with`` block.  Rows: ``errored`` for
    what the API refuses inside params, ``canceled`` after a cancel, ``expired`` if
    custom_id begins so, else ``succeeded``.
    """

    def __init__(self, *, port: int = 0, seconds: float = 1.0) -> None:
        from threading import Lock

        self._seconds = timedelta(seconds=seconds)
        self._lock = Lock()
        # Oldest first.
        self._batches: dict[str, _SandboxBatch] = {}
        self._server = _sandbox_server(self, port)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        from threading import Thread

        serve = self._server.serve_forever
        Thread(target=serve, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _respond(
        self, call: str, query: Mapping[str, list[str]], headers: Any, raw: bytes
    ) -> Any:
        """Return the response's JSON, or an iterator of rows.

        Raises ValueError for a 400, else the error that the client will raise.
        """
        if not (headers.get("authorization") or headers.get("x-api-key")):
            message = "the sandbox wants a key, any key"
            raise AuthenticationError(message, type="authentication_error")
        if call == "POST /v1/messages/count_tokens":
            return self._count_tokens(_sandbox_json(raw))
        if call == f"POST {_BATCHES}":
            return self._create(_sandbox_json(raw), headers.get("anthropic-version"))
        if call == f"GET {_BATCHES}":
            batches = reversed(self._batches.values())
            return _sandbox_page([batch.show() for batch in batches], query)
        if call == "GET /v1/models":
            wanted = query.get("lifecycle[]", ["active", "deprecated"])
            models = [one for one in _SANDBOX_MODELS if one["lifecycle"] in wanted]
            return _sandbox_page(models, query)
        response = self._find(call)
        if response is None:
            message = f"the sandbox has no {call}, or not yet"
            raise NotFoundError(message, type="not_found_error")
        return response

    def _find(self, call: str) -> Any:
        """Return the response for a model or a batch; None if there is none, or not yet."""
        for model in _SANDBOX_MODELS:
            alias = re.sub(r"-\d{8}$", "", model["id"])
            if call.partition("GET /v1/models/")[2] in (model["id"], alias):
                return model
        method, _, path = call.partition(_BATCHES + "/")
        batch_id, _, action = path.partition("/")
        if batch_id not in self._batches:
            return None
        return self._act(method + action, self._batches[batch_id])

    def _create(self, body: Any, version: str | None) -> dict[str, Any]:
        requests: Any = body.get("requests") if isinstance(body, dict) else None
        is_alone = isinstance(requests, list) and len(body) == 1
        if not is_alone or not 0 < len(requests) <= MAX_BATCH_REQUESTS:
            message = "requests: 1 to 100,000 are allowed, and nothing beside them"
            raise ValueError(message)
        seen: set[str] = set()
        kept = []
        for index, request in enumerate(requests):
            try:
                _encode_request(request, seen)
            except ValueError as error:
                raise ValueError(f"requests.{index}: {error}") from None
            params = request["params"]
            refusal = _later_refusal(params, version or "")
            kept.append((request["custom_id"], str(params.get("model")), refusal))
        now = datetime.now(timezone.utc)
        batch_id = f"msgbatch_sandbox_{os.urandom(8).hex()}"
        batch = _SandboxBatch(self.url, batch_id, now, now + self._seconds, kept)
        self._batches[batch.id] = batch
        return batch.show()

    def _act(self, action: str, batch: _SandboxBatch) -> Any:
        """Return the response to an action on a batch, None if there is none, or not yet."""
        is_ended = batch.is_ended()
        if action == "GET results":
            return batch.rows() if is_ended else None
        if action == "DELETE ":
            if not is_ended:
                message = "the batch is in progress: cancel it before you delete it"
                raise ValueError(message)
            del self._batches[batch.id]
            return {"id": batch.id, "type": "message_batch_deleted"}
        if action == "POST cancel" and not is_ended and not batch.cancel_initiated_at:
            batch.cancel_initiated_at = datetime.now(timezone.utc)
            batch.ends = batch.cancel_initiated_at + self._seconds
        return batch.show() if action in ("GET ", "POST cancel") else None

    def _count_tokens(self, body: Any) -> dict[str, Any]:
        is_object = isinstance(body, dict)
        if not is_object or not body.get("model") or not body.get("messages"):
            raise ValueError("model and messages: Field required")
        for name in body.keys() - COUNTED:
            raise ValueError(f"{name!r}: Extra inputs are not permitted")
        return {"input_tokens": len(_encode_json(body)) // 4}


def _sandbox_json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except _NOT_JSON as error:
        message = f"The request body is not valid JSON: {error}"
        raise ValueError(message) from None


def _sandbox_page(
    items: list[dict[str, Any]], query: Mapping[str, list[str]]
) -> dict[str, Any]:
    """Return the page of a list, newest first, that limit, after_id and before_id ask for."""
    limit = query.get("limit", ["20"])[-1]
    after = query.get("after_id", [""])[-1]
    before = query.get("before_id", [""])[-1]
    ids = [item["id"] for item in items]
    size = int(limit) if limit.isdecimal() else 0
    is_known = {after, before} <= {"", *ids}
    if not 1 <= size <= 1000 or (after and before) or not is_known:
        raise ValueError("limit: 1 to 1000; after_id or before_id: one that exists")
    if before:
        rest = items[: ids.index(before)]
        page, more = rest[-size:], rest[:-size]
    else:
        rest = items[ids.index(after) + 1 :] if after else items
        page, more = rest[:size], rest[size:]
    return {
        "data": page,
        "has_more": bool(more),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _sandbox_server(sandbox: Sandbox, port: int) -> Any:
    # It is imported here because the client has no use for it.
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:
            # A client that went away is no news.
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(*args)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        # Head and body go out in one packet.
        wbufsize = -1

        def respond(self) -> None:
            """Respond to one request."""
            _sandbox_respond(sandbox, self)

        do_GET = do_POST = do_DELETE = respond

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    return Server(("127.0.0.1", port), Handler)


def _sandbox_respond(sandbox: Sandbox, handler: Any) -> None:
    """Respond to one request, in chunks, as the API sends rows."""
    raw = handler.rfile.read(int(handler.headers.get("content-length") or 0))
    path, _, query = handler.path.partition("?")
    call = f"{handler.command} {urllib.parse.unquote(path)}"
    params = urllib.parse.parse_qs(query, keep_blank_values=True)
    status, request_id = 200, f"req_sandbox_{os.urandom(6).hex()}"
    try:
        with sandbox._lock:
            response = sandbox._respond(call, params, handler.headers, raw)
    except (APIStatusError, ValueError) as error:
        status = getattr(error, "status_code", 400)
        error_type = getattr(error, "type", "invalid_request_error")
        response = {
            "type": "error",
            "error": {"type": error_type, "message": str(error)},
            "request_id": request_id,
        }
    is_json = isinstance(response, dict)
    handler.send_response(status)
    handler.send_header("request-id", request_id)
    handler.send_header("anthropic-organization-id", "sandbox")
    handler.send_header("transfer-encoding", "chunked")
    content_type = "application/json" if is_json else "application/x-jsonl"
    handler.send_header("content-type", content_type)
    if is_json and response.get("processing_status") in ("in_progress", "canceling"):
        # The polling interval.
        handler.send_header("retry-after", "1")
    handler.end_headers()
    for block in [_encode_json(response)] if is_json else response:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
    handler.wfile.write(b"0\r\n\r\n")


# ---- Command line --------------------------------------------------------------------
# A command is a function of the parsed arguments that returns an exit status, None for 0.
# Output goes to standard output, what is for a person to standard error.


class _Progress:
    """Tells a person on standard error: messages that stay, and a status line.

    On a terminal the status line is overwritten by the next one.
    """

    # The status line that was shown last, and its width on the terminal.
    _last, _width = "", 0

    def _write(self, text: str) -> None:
        # That nobody reads it is no reason to give up a job.
        with contextlib.suppress(OSError):
            print(text, end="", file=sys.stderr, flush=True)

    def message(self, text: str) -> None:
        """Print a message, which stays."""
        self._write(f"\r{'':{self._width}}\r{text}\n" if self._width else text + "\n")
        self._width = 0

    def status_line(self, text: str, times: str = "", is_last: bool = False) -> None:
        """Show what happens at the moment.

        Elsewhere than on a terminal it is printed only when more than a request id
        changes, and without times.
        """
        columns = _terminal_columns()
        if columns:
            shown = ", ".join(filter(None, (text, times)))[: columns - 1]
            self._write("\r" + shown.ljust(self._width) + "\n" * is_last)
            self._width = 0 if is_last else len(shown)
        else:
            without_id = re.sub(r" \(request id [^)]*\)", "", text)
            self._write(text + "\n" if without_id != self._last else "")
            self._last = without_id

    def batches(self, batches: list[MessageBatch], parts: int = 1) -> None:
        """Show batches in the status line, which stays once they have ended.

        There is no percentage, because the API moves the counts only at the end.
        """
        counts = []
        for name in MessageBatchRequestCounts.__annotations__:
            each = [getattr(batch.request_counts, name, None) for batch in batches]
            total = sum(count or 0 for count in each)
            if total:
                counts.append(f"{total:,} {name}")
        status = ", ".join(sorted({str(batch.processing_status) for batch in batches}))
        several = f"{len(batches)} of {parts} batches " if parts > 1 else ""
        date_header = batches[0]._headers.get("date")
        now = _http_date(date_header) or datetime.now(timezone.utc)
        begun = min(batch.created_at or now for batch in batches)
        end = min(batch.expires_at or now for batch in batches)
        self.status_line(
            f"{several}{status}: {', '.join(counts)}",
            f"{_clock(now - begun)} elapsed, expires in {_clock(end - now)}",
            is_last=status == "ended",
        )


def _terminal_columns() -> int | None:
    """Return the width of the terminal, None if standard error is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except _NOT_A_TERMINAL:
        return None


# What get_terminal_size raises (ValueError on Windows, python/cpython#93203), and a
# stream that is no file.
_NOT_A_TERMINAL = (OSError, ValueError, AttributeError)


def _print(value: Any) -> None:
    """Print a text, or an object as JSON."""
    text = value if isinstance(value, str) else _encode_json(value).decode()
    print(text, flush=True)


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
        rows.append(["" if cell is None else str(cell) for cell in cells(one)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        _print("  ".join(map(str.ljust, row, widths)).rstrip())


def _requests_of(path: str) -> Iterator[Any]:
    """Yield the requests of a file, "-" being standard input.

    Raises InvalidRequestsError.
    """
    if path == "-":
        yield from _requests_in(sys.stdin.buffer, "standard input")
    else:
        with _open_requests(path) as file:
            yield from _requests_in(file, path)


def _requests_in(file: Iterable[bytes], name: str) -> Iterator[Any]:
    for _, _, request, _ in _read_requests(file, name):
        yield request


def _open_requests(path: str) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InvalidRequestsError(f"{path}: {error.strerror}") from None


def _run_command(args: Any) -> int:
    if not args.output and not args.dry_run:
        raise InvalidRequestsError("run: -o RESULTS is required")
    is_special = os.path.exists(args.requests) and not os.path.isfile(args.requests)
    if args.requests == "-" or is_special:
        message = f"{args.requests}: run needs a regular file, to read it again"
        raise InvalidRequestsError(message)
    _open_requests(args.requests).close()
    names = ("progress", "poll_interval", "settle", "adopt")
    options = {name: getattr(args, name) for name in names}
    if args.dry_run:
        job = Job(Anthropic(), args.requests, args.output or "results", **options)
        _print(job.plan()[1])
        return 0
    if args.sandbox:
        return _run_in_sandbox(args, options)
    job = Job(Anthropic(), args.requests, args.output, **options)
    args.open_batches = lambda: job.open_batches
    return 0 if job.run() else 3


def _run_in_sandbox(args: Any, options: dict[str, Any]) -> int:
    if os.path.exists(args.output + ".job"):
        raise JobError(
            f"{args.output}.job is of a real run, untouched by --sandbox: name another "
            "RESULTS"
        )
    with Sandbox() as sandbox, _folder_beside(args.output) as folder:
        client = Anthropic(base_url=sandbox.url, api_key="sandbox")
        job = Job(client, args.requests, args.output, folder=folder, **options)
        return 0 if job.run() else 3


def _folder_beside(path: str) -> tempfile.TemporaryDirectory[str]:
    folder = os.path.dirname(os.path.abspath(path))
    return tempfile.TemporaryDirectory(prefix=".claude-batches-", dir=folder)


def _create_command(args: Any) -> None:
    batch = Anthropic().messages.batches.create(requests=_requests_of(args.requests))
    try:
        _print(batch)
    except OSError:
        # A closed pipe, too: who does not see the id pays again.
        args.progress.message(
            f"the batch was made, but could not be printed: {batch.id}"
        )
        raise


def _act_command(args: Any) -> None:
    _print(getattr(Anthropic().messages.batches, args.name)(args.id))


def _wait_command(args: Any) -> int:
    def note(batch: MessageBatch) -> None:
        is_ended = batch.processing_status == "ended"
        args.open_batches = lambda: [] if is_ended else [args.id]

    def show(batch: MessageBatch) -> None:
        note(batch)
        args.progress.batches([batch])

    batches = Anthropic().messages.batches
    # The first request is not wait(), which would wait through what is wrong from the
    # start.  A 404 is ignored, because the batch may be fresh.
    with contextlib.suppress(NotFoundError):
        note(batches.retrieve(args.id))
    batch = batches.wait(args.id, poll_interval=args.poll_interval, on_poll=show)
    _print(batch)
    counts = batch.request_counts
    return 3 if counts and _size(batch) != counts.succeeded else 0


def _list_command(args: Any) -> None:
    def cells(batch: MessageBatch) -> Iterable[object]:
        counts = batch.request_counts or MessageBatchRequestCounts()
        created = None
        if batch.created_at:
            created = f"{batch.created_at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%SZ}"
        status, size = batch.processing_status, _size(batch)
        return batch.id, status, created, size, counts.succeeded, counts.errored

    page = Anthropic().messages.batches.list(limit=min(args.limit, 1000))
    newest = itertools.islice(page, args.limit)
    _print_all(args, newest, "ID STATUS CREATED REQUESTS SUCCEEDED ERRORED", cells)


def _models_command(args: Any) -> None:
    def cells(model: ModelInfo) -> Iterable[object]:
        batch = (model.capabilities or OpenObject()).batch or OpenObject()
        supported = {True: "yes", False: "no"}.get(batch.supported)
        created = model.created_at and f"{model.created_at:%Y-%m-%d}"
        return model.id, model.display_name, model.lifecycle, created, supported

    models = Anthropic().models
    if args.id:
        _print(models.retrieve(args.id))
    else:
        page = models.list(limit=1000)
        _print_all(args, page, "ID NAME LIFECYCLE CREATED BATCH", cells)


def _results_command(args: Any) -> int:
    if not args.output:
        with Anthropic().messages.batches.results(args.id) as results:
            return _write_rows(results, sys.stdout)
    _refuse_existing(args.output)
    with _folder_beside(args.output) as folder:
        path = os.path.join(folder, "results")
        results = Anthropic().messages.batches.results(args.id)
        with results, open(path, "w", encoding="utf-8", newline="\n") as file:
            status = _write_rows(results, file)
            _sync(file)
        _publish(path, args.output)
    return status


def _write_rows(results: Results, file: Any) -> int:
    """Write rows to a file, and return the exit status."""
    failed = 0
    for line, row in results._rows(set()):
        file.write(line.decode())
        result = MessageBatchIndividualResponse(row).result
        failed += getattr(result, "type", None) != "succeeded"
    return 3 if failed else 0


def _count_tokens_command(args: Any) -> None:
    client, total = Anthropic(), 0
    with tempfile.TemporaryFile() as file:
        # All are checked before the first one is sent.
        for request in _requests_of(args.requests):
            file.write(_encode_json(request) + b"\n")
        file.seek(0)
        for request in iter_json_lines(file):
            custom_id = request["custom_id"]
            try:
                count = _count(client, request["params"])
            except APIError as error:
                raise AnthropicError(f"custom_id {custom_id!r}: {error}") from error
            _print(f"{custom_id}\t{count}")
            total += count
    args.progress.message(f"{total:,} input tokens in all")


def _sandbox_command(args: Any) -> None:
    sandbox = Sandbox(port=args.port)
    _print(f"export ANTHROPIC_BASE_URL={sandbox.url}")
    _print("export ANTHROPIC_API_KEY=sandbox")
    sandbox._server.serve_forever()


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
        "REQUESTS -o/--output --dry-run --sandbox --settle --adopt --poll-interval",
        "do a whole job: check, split, create, wait, download; run it again and it goes on",
    ),
    "create": (_create_command, "REQUESTS", "make one batch of the requests"),
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
        "REQUESTS",
        "print each request's input tokens; it is free",
    ),
    "sandbox": (
        _sandbox_command,
        "--port",
        "serve a stand-in of the API on 127.0.0.1, and print how to use it",
    ),
}
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "REQUESTS": {"metavar": "REQUESTS", "help": "JSON Lines of custom_id and params"},
    "ID": {"metavar": "ID"},
    "[ID]": {"metavar": "ID", "nargs": "?"},
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
        "help": "after a lost response, how long its batch may still be made (300)",
    },
    "--adopt": {"metavar": "ID|none", "help": "the batch of a part in doubt"},
    "--poll-interval": {
        "type": _number(float, 0, 2e6),
        "metavar": "SECONDS",
        "help": "between two polls",
    },
    "--limit": {
        "type": _number(int, 1, sys.maxsize),
        "default": 20,
        "metavar": "N",
        "help": "how many (20)",
    },
    "--json": {"action": "store_true", "help": "print JSON, one object a line"},
    "--port": {
        "type": _number(int, 0, 65536),
        "default": 0,
        "metavar": "N",
        "help": "0, the default, is any free one",
    },
}


def _parse(argv: list[str]) -> Any:
    import argparse

    parser = argparse.ArgumentParser(
        prog="claude_batches.py",
        description="Claude's Message Batches API on the standard library alone.",
        epilog="Exit status: 0; 1 an error; 2 wrong usage, a wrong input file, or a "
        "RESULTS that exists; 3 ended, but not every request succeeded; 130 interrupted; "
        "143 terminated.",
    )
    version = f"claude_batches {__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (function, arguments, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        # list() is the function that names no open batch.
        command.set_defaults(
            command=function, name=name, progress=_Progress(), open_batches=list
        )
        for argument in arguments.split():
            flags = argument.strip("[]").lower().split("/")
            command.add_argument(*flags, **_ARGUMENTS[argument])
    return parser.parse_args(argv)


def _report_interrupt(args: Any, argv: list[str], reason: str) -> None:
    import shlex

    program = shlex.quote(sys.argv[0])
    if sys.argv[0].endswith(".py"):
        program = "python " + program
    message = args.progress.message
    message(reason)
    ids = args.open_batches()
    if args.command is _create_command:
        message(f"the batch may have been made, and be billed; look: {program} list")
    if ids:
        message(f"these go on, and are billed: {', '.join(ids)}")
        cancels = [f"{program} cancel {batch_id}" for batch_id in ids]
        message(f"to cancel: {'; '.join(cancels)}")
    if ids or args.command is _run_command:
        message(f"to go on: {program} {shlex.join(argv)}")


def _perform(args: Any, argv: list[str]) -> int:
    """Perform a command, report what ends it, and return the exit status."""
    status = 0
    try:
        status = args.command(args) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # It is standard output's; those of the network are APIConnectionErrors.
        pass
    except (AnthropicError, OSError) as error:
        status = 2 if isinstance(error, InvalidRequestsError) else 1
        args.progress.message(f"claude_batches: {error}")
        ids = args.open_batches()
        if ids:
            args.progress.message(
                f"these go on, and are billed: {', '.join(ids)}; run the same command "
                "again to go on"
            )
    except KeyboardInterrupt as signaled:
        reason = str(signaled) or "interrupted"
        status = 143 if reason == "terminated" else 130
        _report_interrupt(args, argv, reason)
    try:
        sys.stdout.flush()
    except OSError:
        # For a closed pipe or a full disk, the flush at the exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise a KeyboardInterrupt that says which.

    It raises one a second, because a wrapper may send Ctrl-C again.
    """
    import signal

    raised = float("-inf")

    def interrupt(number: int, _: object) -> None:
        nonlocal raised
        if time.monotonic() - raised > 1.0:
            raised = time.monotonic()
            is_term = number == signal.SIGTERM
            raise KeyboardInterrupt("terminated" if is_term else "interrupted")

    handlers: dict[signal.Signals, Any] = {}
    # Only the main thread may set handlers.
    with contextlib.suppress(ValueError):
        for each in (signal.SIGINT, signal.SIGTERM):
            # A command in the background has its SIGINT ignored, and it stays so.
            if signal.getsignal(each) != signal.SIG_IGN:
                handlers[each] = signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler or signal.SIG_DFL)


def _open_null(mode: str) -> Any:
    """Return a stream for one that the caller closed."""
    return open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1, 2, 3, 130 or 143.

    ``argv``: the arguments after the program's name, sys.argv[1:] unless given.  Raises
    SystemExit for --help, --version and wrong usage.  It sets the encoding of sys.stdout,
    and lifts Python's limit of an integer's digits.
    """
    sys.stdin = sys.stdin or _open_null("r")
    sys.stdout = sys.stdout or _open_null("w")
    sys.stderr = sys.stderr or _open_null("w")
    # The stream of a notebook has no such method.
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="backslashreplace", newline="\n"
        )
    # An input may hold any integer; older Pythons have no such limit.
    with contextlib.suppress(AttributeError):
        sys.set_int_max_str_digits(0)
    argv = sys.argv[1:] if argv is None else argv
    args = _parse(argv)
    with _signals_interrupt():
        return _perform(args, argv)


if __name__ == "__main__":
    sys.exit(main())
