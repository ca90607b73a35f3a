#!/usr/bin/env python3
# SPDX-License-Identifier: MIT-0
"""Claude's Message Batches API in one file, on the standard library alone.

From the project claude-batches; copy it beside your script, or paste any part of it: no notice is needed.  It calls
the Message Batches, Models and token counting endpoints under the names of the official Python SDK, so that changing
between the two is one import line.  The shortest program::

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
many are missing; memory stays flat at 100,000 requests; the API key goes to one place only.  Errors::

    AnthropicError
    ├── InvalidRequestsError (also a ValueError)    an argument breaks a rule; nothing was sent
    ├── WaitTimeoutError (also a TimeoutError)      wait() took longer than its timeout
    └── APIError
        ├── APIConnectionError                      no answer, or a torn or foreign one
        │   ├── APITimeoutError
        │   └── IncompleteResultsError              results ended early, and no retry helped
        ├── APIResponseValidationError              an answer that breaks the API's own rules
        ├── BatchMayExistError                      a create went out whole, and no answer says what came of it
        └── APIStatusError                          an answer that says no
            ├── BadRequestError 400, AuthenticationError 401, PaymentRequiredError 402,
            │   PermissionDeniedError 403, NotFoundError 404, RequestTimeoutError 408, ConflictError 409,
            │   ContentTooLargeError 413, UnprocessableEntityError 422, RateLimitError 429
            └── InternalServerError 500 and above
                └── ServiceUnavailableError 503, GatewayTimeoutError 504, OverloadedError 529
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
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta, timezone

TYPE_CHECKING = False  # what typing would give at run time is not worth a tenth of the import's time
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, TypeVar

    T = TypeVar("T")
    Headers = Mapping[str, "str | None"]

__version__ = "1.0.0"

# ---- Constants -----------------------------------------------------------------------
# What the API and this file set as limits, each with its source.

API_VERSION = "2026-10-21"  # header anthropic-version; 2023-06-01 still takes temperature, top_p and top_k
BASE_URL = "https://api.anthropic.com"
USER_AGENT = (
    f"claude-batches/{__version__} Python/{sys.version_info[0]}.{sys.version_info[1]}"
)
MAX_BATCH_REQUESTS = 100_000  # API guide, Batch processing, limitations
MAX_BATCH_BYTES = 256_000_000  # the same: 256 MB, read the careful way
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # API reference, Create a Message Batch
TIMEOUT = 600.0  # seconds for one read or write, as in the SDK
CONNECT_TIMEOUT = 10.0  # seconds for the connection, the proxy's tunnel and TLS, each
ANSWER_TIMEOUT = 5.0  # seconds for the answer of a server that broke the upload off
MAX_RETRIES = 2  # as in the SDK
LOOK_SECONDS = 30.0  # the longest look for a batch whose create lost its answer
CLOCK_SLACK = timedelta(seconds=60)  # how far that look goes back before the create
POLL_LEAST, POLL_FIRST, POLL_LONGEST = 1.0, 5.0, 60.0  # seconds between two polls
NOT_FOUND_SECONDS = 30.0  # how long a poll's 404 is forgiven: a fresh batch gives some
BLOCK = (
    128 * 1024
)  # bytes of one read or write; a write's timeout is for the whole block
SPOOL_BYTES = 4 * 1024 * 1024  # up to here the body of a create is kept in memory


# ---- Client --------------------------------------------------------------------------
# What a user types.  A method is a docstring and one request: the objects that it returns
# are made in Objects, and the request goes out in Transport.

_BATCHES = "/v1/messages/batches"
_OPTIONS = (
    "extra_headers",
    "extra_query",
    "extra_body",
    "timeout",
    "workspace_id",
    "user_profile_id",
)
_NOT_GIVEN: Any = object()  # of a timeout, for which None means no limit


class Anthropic:
    """A client of the API; one may serve several threads.

    ``api_key`` or ``auth_token``, else ANTHROPIC_API_KEY, else ANTHROPIC_AUTH_TOKEN: sent as ``Authorization: Bearer``.
    ``base_url``, else ANTHROPIC_BASE_URL, else https://api.anthropic.com: the key goes to this origin and nowhere
    else; no redirect is followed, and a results_url elsewhere is read through base_url.
    ``timeout``: seconds for one read or write, more than 0 and less than 2e6, or None; a step of connecting: 10.
    ``max_retries``: how often a request is repeated, 0 or more; a create only if no batch can have come of it.
    ``default_headers``, ``default_query``: of every request; the headers win over those of ANTHROPIC_CUSTOM_HEADERS
    (lines of ``Name: value``).  None leaves a header out; Authorization or x-api-key here is a credential, too.
    ``ssl_context``: to trust a company's own CA, for instance; SSL_CERT_FILE works, too.
    ``opener``: anything with ``open(request, timeout=…)`` as in urllib, for tests and special transports; redirects,
    proxies, connecting, and answers during the upload are then its own affair.

    Raises InvalidRequestsError for an argument that cannot work; without a credential, the first request raises
    AnthropicError.  Every method also takes ``**options``: extra_headers, extra_query, extra_body (where there is a
    body), timeout (seconds, instead of the client's) and workspace_id; and raises APIStatusError or APIConnectionError.
    """

    _outlive: Callable[[APIError], None] | None = (
        None  # if set, it decides on retries: it sleeps, or raises
    )

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
        if api_key is not None and auth_token is not None:
            raise InvalidRequestsError("Give api_key or auth_token, not both")
        if not isinstance(max_retries, int) or max_retries < 0:
            raise InvalidRequestsError(
                f"max_retries must be 0 or more, not {max_retries!r}"
            )
        if api_key is None and auth_token is None:
            api_key = os.environ.get("ANTHROPIC_API_KEY", "").strip() or None
            auth_token = None if api_key else os.environ.get("ANTHROPIC_AUTH_TOKEN")
        lines = (
            line.partition(":")
            for line in os.environ.get("ANTHROPIC_CUSTOM_HEADERS", "").split("\n")
        )
        from_env = {
            name.strip(): value.strip() for name, colon, value in lines if colon
        }
        self.api_key, self.auth_token = (
            text and text.strip() for text in (api_key, auth_token)
        )
        if base_url is None:
            base_url = os.environ.get("ANTHROPIC_BASE_URL") or BASE_URL
        self.base_url = _checked_base_url(base_url)
        self.timeout, self.max_retries, self.ssl_context = (
            _checked_timeout(timeout),
            max_retries,
            ssl_context,
        )
        self.default_headers = {**_lower(from_env), **_lower(default_headers)}
        self.default_query = dict(default_query or {})
        self._opener = (
            _Transport(self.base_url, ssl_context) if opener is None else opener
        )
        self.messages, self.models = Messages(self), Models(self)

    def with_options(self, **changes: Any) -> Anthropic:
        """Return a client that differs in the given arguments of the constructor.

        default_headers and default_query are merged into this client's; a key or base_url of None is no change.
        """
        for name in ("base_url", "api_key", "auth_token"):
            if changes.get(name, "") is None:
                del changes[name]
        options = {
            name: getattr(self, name)
            for name in ("base_url", "timeout", "max_retries", "ssl_context")
        }
        if not isinstance(self._opener, _Transport) or not changes.keys() & {
            "base_url",
            "ssl_context",
        }:
            options["opener"] = self._opener
        if not changes.keys() & {"api_key", "auth_token"}:
            options.update(api_key=self.api_key, auth_token=self.auth_token)
        options.update(changes)
        for name in ("default_headers", "default_query"):
            options[name] = {**getattr(self, name), **(changes.get(name) or {})}
        return Anthropic(**options)

    def close(self) -> None:
        """Do nothing, for the SDK's sake: each call closes its own connection."""

    def __enter__(self) -> Anthropic:
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
        """Return the call of a request to a path below base_url, or a URL.  Raises before anything is sent."""
        own = {
            "accept": "application/json",
            "user-agent": USER_AGENT,
            "anthropic-version": API_VERSION,
        }
        if method != "GET":
            own["content-type"] = "application/json"
        if isinstance(body, _Body):
            own["content-length"] = str(body.size)
        elif method != "GET" and (body or extra_body):
            body = _encode_json({**(body or {}), **(extra_body or {})})
        ids = {
            "anthropic-workspace-id": workspace_id,
            "anthropic-user-profile-id": user_profile_id,
        }
        given = {name: value for name, value in ids.items() if value is not None}
        headers = self._merge_headers(own, self.default_headers, given, extra_headers)
        url = path if path.startswith("http") else self.base_url + path
        params = {**self.default_query, **(query or {}), **(extra_query or {})}
        pairs = [
            pair for name, value in params.items() for pair in _query_pairs(name, value)
        ]
        if pairs:
            url += ("&" if "?" in url else "?") + urllib.parse.urlencode(
                pairs, quote_via=urllib.parse.quote, errors="surrogatepass"
            )
        return _Call(
            method,
            url,
            headers,
            body,
            self.timeout if timeout is _NOT_GIVEN else _checked_timeout(timeout),
        )

    def _merge_headers(self, *layers: Headers | None) -> dict[str, str]:
        """Return the headers of all layers, the later ones winning.  Raises where one cannot be sent."""
        credential = self.api_key or self.auth_token
        merged: dict[str, str | None] = (
            {"authorization": f"Bearer {credential}"} if credential else {}
        )
        for layer in layers:
            merged.update(_lower(layer))
        # missing or empty; None would mean that the caller wants none sent
        if merged.get("authorization", "") == "" and not merged.get("x-api-key"):
            raise AnthropicError(
                "No credential: set the variable ANTHROPIC_API_KEY, or give Anthropic() an api_key"
            )
        headers = {}
        for name, value in merged.items():
            if value is not None:
                text = str(value)
                is_legal = (
                    _HEADER_NAME.fullmatch(name)
                    and text.replace("\t", " ").isprintable()
                )
                if not is_legal or (name in _SECRET_HEADERS and not text.isascii()):
                    # http.client's own error would show the value, and so the key
                    raise InvalidRequestsError(
                        f"The header {name!r} (its value is not shown) has an illegal character"
                    )
                headers[name] = text.encode().decode(
                    "latin-1"
                )  # UTF-8 on the wire, as from the SDK
        return headers

    def _send(
        self,
        call: _Call,
        read: Callable[[Any], T],
        final: tuple[type[APIError], ...] = (),
    ) -> T:
        """Return what ``read`` makes of the answer, after as many retries as it takes and may take."""
        while True:
            try:
                return read(self._open(call))
            except APIError as error:
                if isinstance(error, final):
                    raise
                if self._outlive:
                    self._outlive(error)
                elif not self._pause(call, error):
                    raise

    def _open(self, call: _Call) -> Any:
        """Send a call once and return its response, the body not read yet.  Raises APIError unless it is 2xx."""
        if isinstance(call.body, _Body):
            call.body.is_sent = False  # of this try: one that finds no connection does not even begin it
        request = urllib.request.Request(call.url, call.body, method=call.method)
        for name, value in call.headers.items():
            if (
                name in _SECRET_HEADERS
            ):  # which an opener of the caller's must not take along on a redirect
                request.add_unredirected_header(name, value)
            else:
                request.add_header(name, value)
        try:
            response = self._opener.open(request, timeout=call.timeout)
        except (
            urllib.error.HTTPError
        ) as error:  # ours raises none, an opener of the caller's may
            response = error
        except _TRANSPORT_ERRORS as error:
            raise call.connection_error(error) from error
        status = getattr(response, "status", None) or response.getcode()
        if 200 <= status < 300:
            return response
        raw = b""
        with contextlib.closing(response), contextlib.suppress(
            APIConnectionError
        ):  # torn: the status says enough
            for block in call.blocks(response):
                raw += block
                if len(raw) > BLOCK:
                    break
        raise call.status_error(status, _headers_of(response), raw)

    def _pause(self, call: _Call, error: APIError) -> bool:
        """Sleep before the next try, for as long as the answer asks, and log why; return False where there is none."""
        call.failures += 1
        if call.failures > self.max_retries or not _may_repeat(error, call.body):
            return False
        import logging  # not before it is needed: it takes a while

        seconds = _retry_after(error.headers) or _backoff(call.failures)
        call.headers["x-stainless-retry-count"] = str(call.failures)
        logging.getLogger("claude_batches").debug(
            "retry %d of %s in %.2f s: %s", call.failures, call, seconds, error
        )
        time.sleep(seconds)
        return True

    def _fetch(
        self, kind: Callable[..., T], method: str, path: str, **options: Any
    ) -> T:
        """Send a request and return the answer as an object of the class ``kind``."""
        call = self._prepare(method, path, **options)
        return kind(*self._send(call, call.read_json))

    def _fetch_page(
        self, kind: Any, path: str, query: dict[str, Any], **options: Any
    ) -> Page:
        """Return a page of objects of the class ``kind``."""
        query = {name: value for name, value in query.items() if value is not None}
        query.update(
            options.pop("extra_query", None) or {}
        )  # now, so that a later cursor wins over it
        call = self._prepare("GET", path, query=query, **options)
        fields, headers = self._send(call, call.read_json)
        if fields.get("data", "") is None:  # a gateway's empty list
            fields["data"] = []
        rows = fields.get("data")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise APIResponseValidationError(
                f"The answer is no list of objects (GET {path})"
            )
        fields["data"] = [kind(row) for row in rows]
        return Page(
            fields,
            headers,
            params=query,
            fetch=lambda params: self._fetch_page(kind, path, params, **options),
        )


class Messages:
    """``client.messages``: the batches, and token counting."""

    def __init__(self, client: Anthropic) -> None:
        self._client, self.batches = client, Batches(client)

    def count_tokens(
        self, *, model: str, messages: Iterable[Any], **more: Any
    ) -> MessageTokensCount:
        """Count the tokens of a message's input, free of charge.

        ``more``: the message's system, tools, tool_choice, thinking, cache_control, output_config and speed, where it
        has them (anything else, max_tokens too, is a BadRequestError); the options of every method; user_profile_id.
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
    """``client.messages.batches``: the Message Batches API.  Source: API reference, a page a method.

    What takes an id raises ValueError for an empty one and NotFoundError where there is no such batch, which for a
    second or two after its create may be wrong.
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

        ``requests``: 1 to 100,000 objects ``{"custom_id", "params"}``, at most 256,000,000 bytes in all, of any
        iterable.  custom_id: 1 to 64 of ``a-z A-Z 0-9 _ -``, unique in the batch; params: a message's.  Each is
        checked, and encoded into a temporary file, before anything is sent.

        Raises InvalidRequestsError for a request that breaks a rule, named with its index and custom_id;
        BatchMayExistError where the whole body went out and no answer says what came of it: look before you create
        again; another APIError where no batch was made; AnthropicError where the temporary file finds no room (set
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
                    raise APIConnectionError("The answer is no batch: it has no id")
                return batch
            except APIError as error:
                if error._is_refused or not body.is_sent:
                    raise
                raise self._may_exist(error, body, options) from error

    def _may_exist(
        self, error: APIError, body: _Body, options: Mapping[str, Any]
    ) -> BatchMayExistError:
        """Return the error of a create whose answer was lost, with what one look at the list shows."""
        sent_at = candidates = None
        found = "the look for it failed"
        with contextlib.suppress(AnthropicError):  # the error to tell is the create's
            sent_at, candidates = self._look(body, options)
            names = (
                ", ".join(str(batch.id) for batch in candidates)
                or "none, which proves nothing"
            )
            found = f"batches of that size made since then: {names}"
        return BatchMayExistError(
            f"No answer says whether a create of {body.count} requests made its batch; it may exist, and be billed; "
            f"{found}. Look before you create it again. {error}",
            request_count=body.count,
            sent_at=sent_at,
            candidates=candidates,
        )

    def _look(
        self, body: _Body, options: Mapping[str, Any]
    ) -> tuple[datetime, list[MessageBatch]]:
        """Return when the body was sent, by the server's clock, and the batches of its size made since."""
        elapsed, batches = (
            _stopwatch(),
            self._client.with_options(max_retries=0).messages.batches,
        )
        options = {
            name: options[name]
            for name in ("extra_headers", "workspace_id")
            if name in options
        }
        found: list[MessageBatch] = []
        after_id = None
        while True:
            left = LOOK_SECONDS - elapsed()
            if left <= 0:
                raise APITimeoutError("The look took too long")
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
        return self._client._fetch(
            MessageBatch, "GET", _batch_path(message_batch_id), **options
        )

    def list(
        self,
        *,
        after_id: str | None = None,
        before_id: str | None = None,
        limit: int | None = None,
        **options: Any,
    ) -> Page:
        """List the batches of the workspace, newest first; return the first Page, which iterates over all of them.

        ``limit``: batches a page, 1 to 1000, by the API's default 20; ``after_id``: begin after this batch;
        ``before_id``: before it, and go on towards the newer ones.
        """
        query = {"after_id": after_id, "before_id": before_id, "limit": limit}
        return self._client._fetch_page(MessageBatch, _BATCHES, query, **options)

    def cancel(self, message_batch_id: str, **options: Any) -> MessageBatch:
        """End a running batch early: it is ``canceling``, then ``ended``; what was under way may still succeed."""
        return self._client._fetch(
            MessageBatch, "POST", _batch_path(message_batch_id) + "/cancel", **options
        )

    def delete(self, message_batch_id: str, **options: Any) -> DeletedMessageBatch:
        """Delete an ended batch and its results; for a running one the API answers 400 (cancel it first)."""
        return self._client._fetch(
            DeletedMessageBatch, "DELETE", _batch_path(message_batch_id), **options
        )

    def results(self, message_batch_id: str, **options: Any) -> Results:
        """Download the results of an ended batch, row by row; a lost connection is opened again.

        ``extra_headers`` and ``extra_query`` are the download's, not those of the retrieve before it, as in the SDK.

        Raises AnthropicError, at the call, if the batch has no results (yet); then IncompleteResultsError if rows stay
        missing after max_retries without a new one, APIResponseValidationError for a line that is not JSON with a
        custom_id, or for more rows than requests.
        """
        kept = {
            name: options[name]
            for name in ("timeout", "workspace_id")
            if name in options
        }
        batch = self.retrieve(message_batch_id, **kept)
        if not isinstance(batch.results_url, str) or not batch.results_url:
            status = (
                "ended, and archived" if batch.archived_at else batch.processing_status
            )
            raise AnthropicError(
                f"No results_url for batch {message_batch_id}: its status is {status}"
            )
        own = {"accept": "application/binary", "accept-encoding": "gzip"}
        options["extra_headers"] = {**own, **_lower(options.get("extra_headers"))}
        call = self._client._prepare(
            "GET", _at_origin(self._client.base_url, batch.results_url), **options
        )
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
        """Poll until the batch has ended, and return it; through lost connections, 429, 5xx, and 404 for 30 s.

        ``poll_interval``: seconds between polls, 0 or more; else what the API asks for, kept within 1 to 60; else 5,
        growing to 60.  ``timeout``: seconds for the whole wait, more than 0, or None.  Both are less than 2e6.
        ``on_poll`` gets each batch that came.

        Raises WaitTimeoutError, and APIStatusError for what waiting does not mend: 401, 403, a 404 that stays.
        """
        if poll_interval is not None and not (
            isinstance(poll_interval, (int, float)) and 0 <= poll_interval < 2e6
        ):
            words = "poll_interval must be None, or 0 or more and less than 2e6 seconds"
            raise InvalidRequestsError(f"{words}, not {poll_interval!r}")
        elapsed, batch = _stopwatch(), None
        end = _checked_timeout(timeout) or float("inf")
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
        raise WaitTimeoutError(
            f"Batch {message_batch_id} has not ended within {end:g} s; it goes on",
            batch=batch,
        )

    def _polls(
        self,
        batch_id: str,
        interval: float | None,
        end: float = float("inf"),
        **options: Any,
    ) -> Iterator[tuple[MessageBatch | APIError, float]]:
        """Yield what each poll gives, a batch or a failure to wait through, and the seconds until the next one.

        No read goes past ``end`` seconds.  Raises the other failures.
        """
        batches = self._client.with_options(max_retries=0).messages.batches
        elapsed = since_success = _stopwatch()
        grown = POLL_FIRST
        outcome: Any
        while True:
            timeout = min(
                POLL_LONGEST, end - elapsed(), self._client.timeout or POLL_LONGEST
            )
            try:
                outcome = batches.retrieve(
                    batch_id, timeout=max(timeout, 0.001), **options
                )
                since_success, headers = _stopwatch(), outcome._headers
            except APIError as error:
                is_fresh = (
                    isinstance(error, NotFoundError)
                    and since_success() < NOT_FOUND_SECONDS
                )
                if not is_fresh and not error._is_transient:
                    raise
                outcome, headers = error, error.headers
            asked = _retry_after(headers)
            if interval is not None:
                delay = interval
            elif asked is not None:
                delay = min(max(asked, POLL_LEAST), POLL_LONGEST)
            else:
                delay, grown = grown, min(1.5 * grown, POLL_LONGEST)
            yield outcome, delay


def _batch_path(batch_id: str) -> str:
    return f"{_BATCHES}/{_segment('message_batch_id', batch_id)}"


class Models:
    """``client.models``: the Models API.  Source: API reference, Models."""

    def __init__(self, client: Anthropic) -> None:
        self._client = client

    def retrieve(self, model_id: str, **options: Any) -> ModelInfo:
        """Return a model by its id or an alias.  Raises NotFoundError if there is none, ValueError for an empty id."""
        return self._client._fetch(
            ModelInfo, "GET", f"/v1/models/{_segment('model_id', model_id)}", **options
        )

    def list(
        self,
        *,
        after_id: str | None = None,
        before_id: str | None = None,
        limit: int | None = None,
        lifecycle: Sequence[str] | None = None,
        **options: Any,
    ) -> Page:
        """List the models, newest first; return the first Page, which iterates over all of them.

        after_id, before_id, limit: as for batches.  ``lifecycle``: of ``active``, ``deprecated`` and ``retired`` those
        to list; by default all but the retired.
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

# datetime.fromisoformat before 3.11 takes neither Z nor other than 3 or 6 digits of fraction
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-]\d\d:\d\d))?"
)


def _parse_time(text: Any) -> datetime | None:
    """Return an aware datetime, UTC where the text names no zone; None if it is no time."""
    try:
        day, clock, fraction, zone = _RFC_3339.fullmatch(text).groups()  # type: ignore[union-attr]
        return datetime.fromisoformat(
            f"{day}T{clock}.{(fraction or '')[:6]:0<6}{zone or '+00:00'}"
        )
    except (AttributeError, TypeError, ValueError):
        return None


# what makes a field's value, by the word in its annotation; each _Object adds itself
_KINDS: dict[str, Callable[[Any], Any]] = {"datetime": _parse_time}


def _field(name: str, kind: Callable[[Any], Any]) -> property:
    """Return a field whose JSON is a time, parsed at each read, or an object or a list of them, made at the first."""

    def read(obj: Any) -> Any:
        value = obj.__dict__.get(name)
        if kind is _parse_time:  # the text stays, for to_dict()
            return value if isinstance(value, datetime) else _parse_time(value)
        if type(value) is dict:
            value = obj.__dict__[name] = kind(value)
        elif type(value) is list:
            value[:] = [kind(item) if type(item) is dict else item for item in value]
        return value

    def write(obj: Any, value: Any) -> None:
        obj.__dict__[name] = value

    return property(read, write)


class _Object:
    """A dataclass of its fields, or one that takes over the dict of its JSON as its __dict__: nothing is copied.

    A declared field that is missing is None; one that this file has never heard of is an attribute all the same.
    """

    __slots__ = ("__dict__", "_headers")

    def __init_subclass__(cls) -> None:
        _KINDS[cls.__name__] = cls
        dataclass(init=False, eq=False, repr=False)(cls)
        for name, annotation in getattr(
            cls, "__annotations__", {}
        ).items():  # 3.8: none where none are declared
            kinds = [
                _KINDS[word]
                for word in re.findall(r"\w+", str(annotation))
                if word in _KINDS
            ]
            setattr(cls, name, _field(name, kinds[0]) if kinds else None)
        for name in dir(cls):
            method = getattr(cls, name)
            if callable(method) and not name.startswith(
                "_"
            ):  # a field in __dict__ hides a method, but no property
                setattr(cls, name, property(method.__get__, doc=method.__doc__))

    def __init__(
        self,
        taken: dict[str, Any] | None = None,
        headers: Mapping[str, str] = {},
        /,
        **fields: Any,
    ) -> None:
        self.__dict__, self._headers = taken or fields, headers

    @property
    def _request_id(self) -> str | None:
        """The request id of the answer that this object is; None for an object inside one."""
        return self._headers.get("request-id")

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the object's JSON, times as text."""
        return dict(json.loads(json.dumps(self, default=_jsonable)))

    def __eq__(self, other: object) -> bool:
        return (
            self.to_dict() == other.to_dict()
            if type(self) is type(other)
            else NotImplemented
        )

    def __repr__(self) -> str:
        names = [
            name for name in type(self).__dataclass_fields__ if name in self.__dict__
        ]  # type: ignore[attr-defined]
        shown = {
            **self.__dict__,
            **{name: getattr(self, name) for name in names},
        }  # as they are read
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class OpenObject(_Object):
    """An object whose fields this file does not declare: one that is missing is None, whatever its name.

    In an answer, an object inside one is another of these.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return None


_KINDS["OpenObject"] = lambda fields: json.loads(
    json.dumps(fields, default=_jsonable), object_hook=OpenObject
)


class MessageBatchRequestCounts(_Object):
    """How many requests of a batch are where; the sum is always the number of requests."""

    processing: int | None
    succeeded: int | None
    errored: int | None
    canceled: int | None
    expired: int | None


class MessageBatch(_Object):
    """A batch.  ``processing_status`` is ``in_progress``, ``canceling``, or ``ended``, when it has results."""

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


class DeletedMessageBatch(_Object):
    """The answer to a delete."""

    id: str | None
    type: str | None


class ErrorResponse(_Object):
    """The error of an errored row.  It nests: ``error.error`` has the API's type, message and details."""

    type: str | None
    error: ErrorResponse | None
    message: str | None
    details: OpenObject | None
    request_id: str | None


class ContentBlock(_Object):
    """A block of a message.  ``type`` tells its other fields: ``text``, or ``name`` and ``input`` of a tool_use."""

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
    """The model's answer to one request."""

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
    """What became of a request: ``succeeded`` has a message, ``errored`` an error; else ``canceled``, ``expired``."""

    type: str | None
    message: Message | None
    error: ErrorResponse | None


class MessageBatchIndividualResponse(_Object):
    """A row of results.  Rows come in any order: ``custom_id`` tells whose it is."""

    custom_id: str
    result: MessageBatchResult


class MessageTokensCount(_Object):
    """The answer of count_tokens."""

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


# The SDK's names for what goes into create: dicts at run time there, too.
Request = MessageCreateParamsNonStreaming = dict


def _size(batch: MessageBatch) -> int | None:
    """Return how many requests a batch has, None where it does not tell."""
    counts = batch.request_counts
    values = (
        counts.__dict__.values()
        if isinstance(counts, MessageBatchRequestCounts)
        else ()
    )
    return sum(count for count in values if isinstance(count, int)) or None


class Page(_Object):
    """A page of a list.  Iterating it gives its objects and those of all pages after it, each fetched when reached.

    ``data``, ``has_more``, ``first_id``, ``last_id``: the API's fields.  ``params``: the query parameters that gave
    this page; ``fetch`` returns the Page for other ones.
    """

    data: list[Any]
    has_more: bool | None
    first_id: str | None
    last_id: str | None
    __slots__ = (
        "_queries",
        "_fetch",
    )  # the queries of the pages so far, this one's last

    def __init__(
        self,
        *taken: Any,
        params: Mapping[str, Any] | None = None,
        fetch: Callable[[dict[str, Any]], Page] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(*taken, **fields)
        self._queries, self._fetch = [dict(params or {})], fetch

    def next_page_info(self) -> OpenObject | None:
        """Return an object whose ``params`` lead on, in the direction that was asked for; None without a cursor."""
        goes_back = self._queries[-1].get("before_id")
        name, cursor = (
            ("before_id", self.first_id) if goes_back else ("after_id", self.last_id)
        )
        return OpenObject(params={name: cursor}) if cursor else None

    def has_next_page(self) -> bool:
        """Tell whether to go on: not after ``has_more: false``, an empty page, or one without a cursor."""
        return (
            self.has_more is not False
            and bool(self.data)
            and self.next_page_info() is not None
        )

    def get_next_page(self) -> Page:
        """Fetch the next page.

        Raises RuntimeError on the last one, APIResponseValidationError for a cursor that came before.
        """
        info = self.next_page_info()
        if info is None or not self.has_next_page() or self._fetch is None:
            raise RuntimeError(
                "No next page: ask has_next_page() before get_next_page()"
            )
        query = {**self._queries[-1], **info.params}
        if query in self._queries:
            raise APIResponseValidationError(
                f"The list goes in circles: {info.params} came before"
            )
        page: Page = self._fetch(query)
        page._queries = [*self._queries, query]
        return page

    def iter_pages(self) -> Iterator[Page]:
        """Yield this page and all after it, each fetched when it is reached; raises as get_next_page()."""
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

    It holds a connection until its end: close() it, or use ``with``, to stop before.  An error comes again at each try
    to go on, so that short results never look whole.
    """

    _error: AnthropicError | None = None  # how the iteration ended

    def __init__(self, client: Anthropic, call: _Call, batch: MessageBatch) -> None:
        self._client, self._call, self._batch_id, self._expected = (
            client,
            call,
            batch.id,
            _size(batch),
        )
        self._response = client._send(call, lambda response: response)
        self._objects = self._responses()

    def _responses(self) -> Generator[MessageBatchIndividualResponse, None, None]:
        seen: set[str] = set()
        try:
            for _, row in self._rows(seen):
                yield MessageBatchIndividualResponse(row)
        except GeneratorExit:  # of close()
            raise
        except (
            BaseException
        ) as error:  # an interrupt, too: what comes after it must not look like the end
            self._error = (
                error
                if isinstance(error, AnthropicError)
                else self._incomplete(error, len(seen))
            )
            raise

    def _rows(self, seen: set[str]) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield line, with its newline, and JSON of each row whose custom_id is not in ``seen``, and add it there."""
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
        """Yield the new ones of one answer.  Raises APIConnectionError where it ends before the last one."""
        for line in _lines(self._call.blocks(self._response)):
            if not line.isspace():
                row = self._decode(line, len(seen))
                if row["custom_id"] not in seen:
                    seen.add(row["custom_id"])
                    self._call.failures = 0
                    yield line if line.endswith(b"\n") else line + b"\n", row
        expected = self._expected or max(
            len(seen), 1
        )  # a batch that tells no counts has at least one
        if len(seen) > expected:
            raise APIResponseValidationError(
                f"Batch {self._batch_id}: {len(seen)} rows for {expected} requests"
            )
        if len(seen) < expected:
            raise APIConnectionError(f"The results ended early ({self._call})")

    def _decode(self, line: bytes, received: int) -> dict[str, Any]:
        try:
            text = line.decode().strip()
            row, end = _decoder.raw_decode(
                text
            )  # decode() would search for white space twice
            if (
                end == len(text)
                and isinstance(row, dict)
                and isinstance(row.get("custom_id"), str)
            ):
                return row
        except (ValueError, RecursionError):
            if not line.endswith(b"\n"):
                raise APIConnectionError(
                    f"The results ended inside a row ({self._call})"
                ) from None
        words = f"a row of {len(line)} bytes, after {received} good ones, is not JSON with a custom_id"
        raise APIResponseValidationError(f"Batch {self._batch_id}: {words}")

    def _reopen(self, lost: APIError, received: int) -> None:
        """Open the results again.  Raises IncompleteResultsError where that does not help."""
        self._response.close()
        try:
            if not self._client._pause(self._call, lost):
                raise lost
            self._response = self._client._send(
                self._call, lambda response: response, _FINAL
            )
        except APIError as error:
            raise self._incomplete(error, received) from error

    def _incomplete(
        self, error: BaseException, received: int
    ) -> IncompleteResultsError:
        words = f"{received} of {self._expected or '?'} rows came; then: {str(error) or type(error).__name__}"
        return IncompleteResultsError(
            f"Batch {self._batch_id}: {words}",
            expected=self._expected,
            received=received,
        )

    def __iter__(self) -> Iterator[MessageBatchIndividualResponse]:
        if self._error:
            raise self._error
        return self._objects  # not self: a generator is faster

    def __next__(self) -> MessageBatchIndividualResponse:
        return next(iter(self))

    def close(self) -> None:
        """End the iteration and close the connection."""
        self._objects.close()
        self._response.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with their newlines, at a cost linear in their length.

    They end at \\n alone, as BytesIO has it: str.splitlines() would split at U+2028, too, legal inside a JSON string.
    """
    begun: list[bytes] = []  # the pieces of a line whose end has not come yet
    for block in blocks:
        for piece in io.BytesIO(block):
            begun.append(piece)
            if piece.endswith(b"\n"):
                yield b"".join(begun)
                begun.clear()
    if begun:
        yield b"".join(begun)


def iter_json_lines(blocks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the JSON of each line; blank lines, CRLF and a missing last newline are forgiven.

    ``blocks``: bytes, cut anywhere: those of a download, or a file opened in binary mode.
    Raises APIResponseValidationError for a line that is not JSON, with its number from 1.  Source: https://jsonlines.org
    """
    for number, line in enumerate(_lines(blocks), 1):
        if not line.isspace():
            try:
                yield json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                raise APIResponseValidationError(
                    f"line {number} is not JSON: {error}"
                ) from None


# ---- Errors --------------------------------------------------------------------------
# All that the client raises.  The tree is in the docstring at the top.


class AnthropicError(Exception):
    """The root of all errors that this module raises.  ``fields`` are the attributes that the class declares."""

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.__dict__.update(fields)


class InvalidRequestsError(AnthropicError, ValueError):
    """An argument breaks a rule; nothing was sent.  A create names the request's index and custom_id."""


class WaitTimeoutError(AnthropicError, TimeoutError):
    """The batch did not end in time; it goes on.  ``batch``: as last seen, None if no poll came through."""

    batch: MessageBatch | None = None


class APIError(AnthropicError):
    """A request failed.  What the answer did not tell, or no answer came to tell, is None.

    ``type``: the API's word for it; ``body``: the answer's JSON, or its text; ``headers``: by names in lower case.
    """

    status_code: int | None = None
    request_id: str | None = None
    type: str | None = None
    body: object = None
    headers: Mapping[str, str] = {}
    _is_transient = False  # the same request may succeed later: all that the SDK retries, but certificates
    _is_api_form = (
        False  # the API's own error body: the answer is not of something on the way
    )
    _is_refused = False  # the API, or a gateway before it, said that it made no batch

    @property
    def message(self) -> str:
        """What str() gives."""
        return str(self)


class APIConnectionError(APIError):
    """No answer came, or one that is torn or not the API's."""

    _is_transient = True


class APITimeoutError(APIConnectionError):
    """Connecting, one read or one write took longer than its timeout."""


class IncompleteResultsError(APIConnectionError):
    """Of ``expected`` rows (None: the batch told no counts) ``received`` came, and no retry helped."""

    expected: int | None = None
    received: int = 0


class APIResponseValidationError(APIError):
    """An answer breaks the API's own rules: a row of results that is not JSON, a list that goes in circles."""


class BatchMayExistError(APIError):
    """The whole body of a create went out, and no answer says what came of it: the batch may exist, and be billed.

    ``request_count`` requests were sent at ``sent_at`` (server time, None if unknown).  ``candidates``: the batches of
    that size, or of none told, made since a minute before that; None if the look for them failed.  An empty list
    proves nothing: a body that something on the way holds back makes its batch later.  The cause is chained.
    """

    request_count: int = 0
    sent_at: datetime | None = None
    candidates: list[MessageBatch] | None = None


class APIStatusError(APIError):
    """The answer's status is not 2xx.  ``type``, ``api_message``, ``details`` and ``error_code`` are the API's.

    Source: API reference, Errors.
    """

    status_code: int
    api_message: str | None = None
    details: Any = None
    error_code: str | None = None
    _by_status: dict[int, type[APIStatusError]] = {}

    def __init_subclass__(
        cls, status: int | None = None
    ) -> None:  # None: a class of the caller's own
        if status:
            cls.status_code, cls._by_status[status] = status, cls


class BadRequestError(APIStatusError, status=400):
    """The request breaks a rule."""


class AuthenticationError(APIStatusError, status=401):
    """The key is missing or wrong."""


class PaymentRequiredError(APIStatusError, status=402):
    """Billing keeps the API from it."""


class PermissionDeniedError(APIStatusError, status=403):
    """The key may not do this."""


class NotFoundError(APIStatusError, status=404):
    """No such batch, model or path, or not yet."""


class RequestTimeoutError(APIStatusError, status=408):
    """The server gave up waiting for the request."""


class ConflictError(APIStatusError, status=409):
    """Something else is changing the same thing."""


class ContentTooLargeError(APIStatusError, status=413):
    """The body is too large."""


class UnprocessableEntityError(APIStatusError, status=422):
    """The request is well formed, but cannot be done."""


class RateLimitError(APIStatusError, status=429):
    """Too many calls, a full queue, or a spend limit."""


class InternalServerError(APIStatusError, status=500):
    """500 and above: the server failed."""


class ServiceUnavailableError(InternalServerError, status=503):
    """The API is not there at the moment."""


class GatewayTimeoutError(InternalServerError, status=504):
    """Something behind the gateway took too long."""


class OverloadedError(InternalServerError, status=529):
    """The API has too much to do."""


_FINAL = (
    AuthenticationError,
    PermissionDeniedError,
    NotFoundError,
)  # what no retry of a download mends


# ---- Requests ------------------------------------------------------------------------
# Arguments are checked and encoded here, before anything is sent.  The body of a create is
# spooled, and the rule whether it may be sent again stands beside it.

_PATH_SAFE = "!$&'()*+,;=:@"  # what the SDK leaves as it is in a segment of a path


def _segment(name: str, value: str) -> str:
    """Return an id as a segment of a path.  Raises InvalidRequestsError where it is empty, or climbs."""
    if not value:
        raise InvalidRequestsError(
            f"Expected a non-empty value for `{name}` but received {value!r}"
        )
    text = str(value)
    is_half = re.search("[\ud800-\udfff]", text)  # of a surrogate pair
    if is_half or text.partition(";")[0] in (
        "",
        ".",
        "..",
    ):  # some servers drop ";" and what follows
        raise InvalidRequestsError(
            f"`{name}` must not be {value!r}, which is no segment of a path"
        )
    return urllib.parse.quote(text, safe=_PATH_SAFE)


def _query_pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a query parameter as the SDK writes them: None is dropped, a list repeated as ``name[]``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _query_pairs(f"{name}[{key}]", item)
    elif isinstance(value, (Sequence, Set, ValuesView)) and not isinstance(
        value, (str, bytes, bytearray)
    ):
        for item in value:
            yield from _query_pairs(f"{name}[]", item)
    elif value is not None:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


_ORIGIN = re.compile(
    r"(?ai)https?://(\[[0-9a-f:.]+\]|([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?)(:\d+)?(/[!-\"$->@-~]*)?"
)


def _checked_base_url(url: Any) -> str:
    """Return base_url without its last slash.  Raises InvalidRequestsError where no key should go there."""
    try:
        is_good = _ORIGIN.fullmatch(url) and urllib.parse.urlsplit(url).port != 0
    except (TypeError, ValueError):  # no text; a port above 65,535
        is_good = False
    if not is_good:  # it is not shown: it may hold a password
        raise InvalidRequestsError(
            "base_url must be http(s)://host[:port][/path], without user:password, in ASCII"
        )
    scheme, _, rest = str(url).rstrip("/").partition("://")
    return f"{scheme.lower()}://{rest}"  # behind a proxy, http.client would read another Host out of HTTP://


def _at_origin(base_url: str, url: str) -> str:
    """Return a results_url at base_url's origin: behind a gateway it may name a host that must not get the key."""
    try:
        base, parts = urllib.parse.urlsplit(base_url), urllib.parse.urlsplit(url)
        path = "/" + parts.path.lstrip("/") + ("?" + parts.query if parts.query else "")
        path = urllib.parse.quote(path, safe="/%?" + _PATH_SAFE)
    except ValueError:
        raise APIResponseValidationError("The batch's results_url is no URL") from None
    if parts[:2] != base[:2] and not path.startswith(base.path + "/"):
        path = base.path + path
    return f"{base.scheme}://{base.netloc}{path}"


def _checked_timeout(seconds: float | None) -> float | None:
    if seconds is None or (
        isinstance(seconds, (int, float)) and 0 < seconds < 2e6
    ):  # poll() has 31 bits of ms
        return seconds
    raise InvalidRequestsError(
        f"timeout must be None, or more than 0 and less than 2e6 seconds, not {seconds!r}"
    )


def _lower(headers: Headers | None) -> dict[str, str | None]:
    return {name.lower(): value for name, value in (headers or {}).items()}


def _jsonable(value: Any) -> Any:
    """Return what the SDK sends for a value that json does not know.  Raises TypeError where it sends none."""
    if isinstance(value, _Object):
        return value.__dict__
    if isinstance(value, date):  # or a datetime
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    is_list = isinstance(value, (Sequence, Set, Iterator, ValuesView))
    if is_list and not isinstance(
        value, (bytes, bytearray, memoryview, io.IOBase)
    ):  # nor a file, whose lines it has
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_decoder = json.JSONDecoder()
_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_jsonable
)


def _encode_json(value: Any) -> bytes:
    """Return compact UTF-8 JSON.  Raises InvalidRequestsError with the reason where there is none."""
    try:
        return _encoder.encode(value).encode()
    except (
        TypeError,
        ValueError,
        RecursionError,
    ) as error:  # half a surrogate pair, too, which the API refuses
        raise InvalidRequestsError(f"it is not JSON: {error}") from None


def _encode_request(request: Any, seen: set[str]) -> bytes:
    """Return a request as it is sent, and add its custom_id to ``seen``.  Raises ValueError with the broken rule."""
    if not isinstance(request, Mapping):
        raise ValueError("a request must be an object with custom_id and params")
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
        raise ValueError(
            "custom_id must be 1 to 64 of the characters a-z, A-Z, 0-9, _ and -"
        )
    if custom_id in seen:
        raise ValueError("custom_id must be unique, and this one came before")
    if not isinstance(request.get("params"), Mapping):
        raise ValueError("params must be an object")
    others = set(request) - {"custom_id", "params"}
    if others:
        raise ValueError(
            f"no key but custom_id and params is allowed, and it has {others.pop()!r}"
        )
    encoded = _encode_json(request)
    seen.add(custom_id)
    return encoded


@contextlib.contextmanager
def _spooling() -> Iterator[None]:
    """Tell what the temporary file cannot take as an error that names its folder and TMPDIR."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "any folder for temporary files"
        advice = "set TMPDIR to a folder that takes all requests"
        raise AnthropicError(
            f"No room for the requests in {folder}: {error}; {advice}"
        ) from error


class _Body:
    """The body of a create: checked and encoded once into a temporary file, sent from there as often as it takes.

    ``is_sent`` tells whether the last byte was, or may have been, handed over in this try: only then a batch may exist.
    ``elapsed()``: seconds since the last iteration began.  ``before_last_block`` is called when all but the last block
    has been sent.
    """

    def __init__(self, before_last_block: Callable[[], None] | None = None) -> None:
        self._before_last_block = before_last_block
        self.count, self.size, self.is_sent, self.elapsed = 0, 0, False, _stopwatch()
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)

    def spool(self, requests: Iterable[Any], extra: Mapping[str, Any] | None) -> None:
        """Check the requests and write the body to the file.  Raises InvalidRequestsError."""
        if extra and "requests" in extra:
            raise InvalidRequestsError(
                "extra_body must not hold requests: give them as requests"
            )
        if not hasattr(requests, "__iter__"):
            raise InvalidRequestsError(
                "requests must be an iterable of objects with custom_id and params"
            )
        seen: set[str] = set()
        tail = b"]," + _encode_json(extra)[1:] if extra else b"]}"
        self._write(b'{"requests":[')
        for index, request in enumerate(requests):
            try:
                encoded = _encode_request(request, seen)
                if index >= MAX_BATCH_REQUESTS:
                    raise ValueError(
                        f"a batch takes at most {MAX_BATCH_REQUESTS:,} requests"
                    )
                if self.size + len(encoded) + (index > 0) + len(tail) > MAX_BATCH_BYTES:
                    raise ValueError(
                        f"with this request the batch has more than {MAX_BATCH_BYTES:,} bytes"
                    )
            except ValueError as error:
                custom_id = (
                    request.get("custom_id") if isinstance(request, Mapping) else None
                )
                raise InvalidRequestsError(
                    f"requests[{index}] (custom_id {custom_id!r}): {error}"
                ) from None
            self._write(b"," + encoded if index else encoded)
        if not seen:
            raise InvalidRequestsError("requests must hold at least one request")
        self._write(tail)
        self.count = len(seen)

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
            self.is_sent = True  # before that byte: a signal handler may raise when it has gone out
            yield last[-1:]

    def close(self) -> None:
        """Remove the temporary file."""
        with contextlib.suppress(OSError):  # a full disk fails the flush of close, too
            self._file.close()


def _may_repeat(error: APIError, body: bytes | _Body | None) -> bool:
    """Tell whether to send the request again: by the SDK's rule, and a create only if no batch can have come of it.

    That is so where the API said so, or where its body had not gone out whole when it failed, whichever exception came.
    """
    should = error.headers.get("x-should-retry")
    may = error._is_transient and should != "false"
    if not isinstance(body, _Body):
        return may or should == "true"
    if error._is_refused:
        return may and (error._is_api_form or error.status_code == 429)
    return may and not body.is_sent


# ---- Transport -----------------------------------------------------------------------
# The only code that touches urllib.request and sockets: one call, as often as it is sent, and
# what its response says.

_SECRET_HEADERS = ("authorization", "x-api-key")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(repr=False)
class _Call:
    """One request, ready to be sent as often as it takes."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | _Body | None
    timeout: float | None
    failures: int = 0  # in a row

    def __repr__(
        self,
    ) -> (
        str
    ):  # what messages show: headers hold the key, and a query may hold a gateway's
        return f"{self.method} {self.url.partition('?')[0]}"

    def masked(self, text: Any) -> Any:
        """Return a text of the other side's without the key that it may repeat; what is no text, as it is."""
        for word in " ".join(
            self.headers.get(name, "") for name in _SECRET_HEADERS
        ).split():
            if (
                isinstance(text, str) and len(word) > 7
            ):  # "Bearer", "sandbox" and the like are no secrets
                text = text.replace(word, "***")
        return text

    def connection_error(self, error: Exception) -> APIConnectionError:
        """Return the error that a failure of the connection calls for; what is chained to it is masked in place."""
        links: list[BaseException] = [error]
        for link in links:  # http.client's exceptions quote what came in place of a status line, or of a chunk's size
            link.args = tuple(map(self.masked, link.args))
            link.__dict__.update(
                {name: self.masked(value) for name, value in link.__dict__.items()}
            )
            chained = (
                link.__cause__,
                link.__context__,
            )  # of these kinds alone: behind them may be one of the caller's
            links += [
                more
                for more in chained
                if isinstance(more, _TRANSPORT_ERRORS) and more not in links
            ]
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(
            reason, (socket.timeout, TimeoutError)
        ):  # one and the same from 3.10 on
            return APITimeoutError(f"Request timed out ({self})")
        if isinstance(reason, ssl.SSLCertVerificationError):
            advice = (
                "to trust a company's own CA, set SSL_CERT_FILE or pass ssl_context"
            )
            words = f"The certificate is not trusted: {reason.verify_message} ({self}); {advice}"
            return APIConnectionError(words, _is_transient=False)
        return APIConnectionError(
            f"Connection error: {str(reason) or type(reason).__name__} ({self})"
        )

    def status_error(
        self, status: int, headers: Mapping[str, str], raw: bytes
    ) -> APIStatusError:
        """Return the error that an answer calls for."""
        headers = {name: self.masked(value) for name, value in headers.items()}
        text = raw.decode("utf-8", "replace").strip()
        try:
            text = self.masked(
                json.dumps(json.loads(text), ensure_ascii=False)
            )  # no escapes, which would hide a key
            body = json.loads(text)
        except (ValueError, RecursionError):
            text = body = self.masked(text)
        form = body if isinstance(body, dict) else {}
        error = form["error"] if isinstance(form.get("error"), dict) else {}
        kind, message, details = (
            error.get(name) for name in ("type", "message", "details")
        )
        request_id = headers.get("request-id") or form.get("request_id")
        words = f"{kind}: {message}" if kind else " ".join(text.split())[:200]
        if 300 <= status < 400:
            words = f"a redirect to {headers.get('location', 'nowhere')}, not followed: the key stays with base_url"
        is_api_form = form.get("type") == "error" and isinstance(kind, str)
        default = InternalServerError if status >= 500 else APIStatusError
        return APIStatusError._by_status.get(status, default)(
            f"Error code: {status} - {words}{f' (request id {request_id})' if request_id else ''} ({self})",
            status_code=status,
            headers=headers,
            body=body,
            request_id=request_id,
            type=kind,
            api_message=message,
            details=details,
            error_code=details.get("error_code") if isinstance(details, dict) else None,
            _is_transient=status in (408, 409, 429) or status >= 500,
            _is_api_form=is_api_form,
            _is_refused=300 <= status < 500 or (is_api_form and status in (503, 529)),
        )

    def blocks(self, response: Any) -> Iterator[bytes]:
        """Yield the body in large blocks, gzip undone.  Raises APIConnectionError where it is torn.

        Not by lines: readline() ends quietly where the connection is cut at a line's end (python/cpython#115997).
        """
        read = getattr(response, "read1", response.read)
        blocks: Iterator[bytes] = iter(lambda: read(BLOCK), b"")
        try:
            is_gzip = _headers_of(response).get(
                "content-encoding", ""
            ).strip().lower() in ("gzip", "x-gzip")
            yield from _gunzip(blocks) if is_gzip else blocks
            if getattr(response, "length", None):
                raise http.client.IncompleteRead(b"", response.length)
        except _TRANSPORT_ERRORS as error:
            raise self.connection_error(error) from error

    def read_json(self, response: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the answer's JSON object and headers.  Raises APIConnectionError where there is none."""
        with contextlib.closing(response):
            raw = b"".join(self.blocks(response))
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise APIConnectionError(
                f"The answer is no JSON object, but {len(raw)} bytes of something else ({self})"
            )
        return answer, _headers_of(response)


def _headers_of(response: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text or "")
        return (
            moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        ).astimezone(timezone.utc)
    except (
        TypeError,
        ValueError,
        OverflowError,
        IndexError,
        UnboundLocalError,
    ):  # the odd ones before 3.10
        return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the answer asks for, as milliseconds, seconds or a date; None if none or past."""
    moment = _http_date(headers.get("retry-after"))
    asked = moment.timestamp() - time.time() if moment else 0.0
    for name, unit in (("retry-after", 1), ("retry-after-ms", 1000)):
        with contextlib.suppress(KeyError, ValueError):
            asked = float(headers[name]) / unit
    return (
        min(asked, 4_294_967.0) if asked > 0 else None
    )  # what time.sleep takes everywhere


def _backoff(failures: int) -> float:
    """Return the SDK's seconds after so many failures in a row: 0.5, doubled up to 8, less up to a quarter."""
    return min(0.5 * 2.0 ** min(failures - 1, 10), 8.0) * (1 - 0.25 * random.random())


def _stopwatch() -> Callable[[], float]:
    """Return a function that tells the seconds since this call.

    A laptop's sleep counts, during which the monotonic clock may stand still; the wall clock may be set back.
    """
    monotonic, wall = time.monotonic(), time.time()
    return lambda: max(time.monotonic() - monotonic, time.time() - wall)


class _Response(http.client.HTTPResponse):
    """An answer that may come after interim ones, of which http.client passes over 100 alone."""

    def begin(self) -> None:
        """Read status and headers of the answer that is the last."""
        try:
            super().begin()
            while self.status in (102, 103):
                self.headers = self.msg = None  # type: ignore[assignment]
                super().begin()
        except TypeError as error:  # from the email package, of a Content-Type's parameters that it cannot put in order
            raise http.client.HTTPException(
                f"headers that cannot be read: {error}"
            ) from error


class _Connection(http.client.HTTPConnection):
    """A connection that has its own timeout for connecting, and hears a refusal that comes during the upload."""

    response_class = _Response

    def connect(self) -> None:
        """Connect within CONNECT_TIMEOUT; what comes after it has the call's own timeout."""
        timeout = self.timeout
        self.timeout = (
            CONNECT_TIMEOUT if timeout is None else min(timeout, CONNECT_TIMEOUT)
        )
        super().connect()
        self.sock.settimeout(timeout)

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request; where that breaks, take the answer that the server may have given before it closed."""
        self.connect()  # else a failure to connect would look like one to send
        try:
            super().request(*args, **kwargs)
        except OSError as error:  # the server may have refused, 401 or 413, and closed
            try:
                self.sock.settimeout(ANSWER_TIMEOUT)
                answer = self.getresponse()
            except (OSError, http.client.HTTPException):
                if isinstance(error, socket.timeout):
                    raise error from None
                words = "the server closed during the upload; a wrong key or too large a body may be why"
                raise ConnectionAbortedError(f"{words} ({error})") from error
            self.getresponse = lambda: answer  # type: ignore[method-assign]


class _TLSConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS."""


class _Transport(urllib.request.AbstractHTTPHandler):
    """urllib for http and https alone, its opener built at the first request because an SSL context takes a while.

    No redirect is followed: urllib would take the key along to any host (python/cpython#77842).  An answer of any
    status is returned, not raised.
    """

    def __init__(self, base_url: str, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self._base, self._context = urllib.parse.urlsplit(base_url), context
        self._director: urllib.request.OpenerDirector | None = None

    def open(self, request: urllib.request.Request, timeout: float | None) -> Any:
        """Send a request, through the environment's proxy but to loopback, and return the response."""
        if self._director is None:
            host, director = self._base.hostname or "", urllib.request.OpenerDirector()
            if self._base.scheme == "https":
                self._context = self._context or ssl.create_default_context()
            # with http_proxy set, urllib would send even 127.0.0.1 to the proxy
            is_loopback = re.fullmatch(r"localhost|::1|127(\.\d+){1,3}", host)
            director.add_handler(
                urllib.request.ProxyHandler({} if is_loopback else None)
            )
            director.add_handler(urllib.request.UnknownHandler())
            director.add_handler(self)
            self._director = director
        return self._director.open(request, timeout=timeout)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """What urllib calls for http."""
        return self.do_open(_Connection, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """What urllib calls for https, through a proxy, too."""
        return self.do_open(_TLSConnection, request, context=self._context)


# OSError from sockets, TLS and urllib; ValueError from http.client for a chunk's size that is no number;
# EOFError and zlib.error where gzip is cut or none
_TRANSPORT_ERRORS = (
    OSError,
    http.client.HTTPException,
    ValueError,
    EOFError,
    zlib.error,
)


def _gunzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Undo gzip of what has come; the gzip module would first fill a buffer.  Raises EOFError where it is cut."""
    member = zlib.decompressobj(31)  # 31: with gzip's header, of any window
    for block in blocks:
        while block:
            if member.eof:
                member = zlib.decompressobj(31)
            yield member.decompress(block, BLOCK)
            block = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        raise EOFError("gzip ended early")


# What a star import gives; the part below the line adds its own.
__all__ = """
    Anthropic Messages Batches Models Results Page iter_json_lines Request MessageCreateParamsNonStreaming
    MessageBatch MessageBatchRequestCounts DeletedMessageBatch MessageBatchIndividualResponse MessageBatchResult
    ErrorResponse Message ContentBlock Usage MessageTokensCount ModelInfo OpenObject
    AnthropicError InvalidRequestsError WaitTimeoutError APIError APIConnectionError APITimeoutError
    IncompleteResultsError APIResponseValidationError BatchMayExistError APIStatusError BadRequestError
    AuthenticationError PaymentRequiredError PermissionDeniedError NotFoundError RequestTimeoutError ConflictError
    ContentTooLargeError UnprocessableEntityError RateLimitError InternalServerError ServiceUnavailableError
    GatewayTimeoutError OverloadedError
""".split()

# ================================================================================================================
# Everything above is the client and works without what follows.
# ================================================================================================================

__all__ += ["Job", "JobError", "Sandbox", "main"]

# ---- Job -------------------------------------------------------------------------------------------------------
# plan → send → wait → collect → finish.  The journal beside the results says how far it came, at every moment.

COUNTED = (  # what of a request's params count_tokens takes: API reference, Count tokens in a Message
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


def _count(client: Anthropic, params: Mapping[str, Any]) -> int:
    fields = {name: params[name] for name in COUNTED if name in params}
    count = client.messages.count_tokens(
        **{"model": None, "messages": None, **fields}
    ).input_tokens
    if not isinstance(count, int):
        raise APIResponseValidationError(
            "The answer to count_tokens has no input_tokens"
        )
    return count


class JobError(AnthropicError):
    """The job cannot go on by itself; the text says why, and what to do."""


def _read_requests(
    lines: Iterable[bytes], path: str, first: int = 1
) -> Iterator[tuple[int, bytes, Any, int]]:
    """Yield number, line, request and its size as sent, of lines that are not blank.  Raises InvalidRequestsError."""
    seen: set[str] = set()
    for number, line in enumerate(lines, first):
        line = line[3:] if line.startswith(b"\xef\xbb\xbf") else line
        if line.strip():
            request = None
            try:
                request = json.loads(line.decode())
                size = len(_encode_request(request, seen))
            except (ValueError, RecursionError) as error:
                words = str(error)
                if isinstance(error, json.JSONDecodeError):
                    words = f"not JSON: {error.msg}, column {error.colno}"
                custom_id = (
                    request.get("custom_id") if isinstance(request, dict) else None
                )
                name = f"custom_id {custom_id!r}: " if custom_id else ""
                raise InvalidRequestsError(f"{path}:{number}: {name}{words}") from None
            yield number, line, request, size


def _hashed(lines: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for line in lines:
        digest.update(line)
        yield line


def _later_refusal(params: Mapping[str, Any], version: str) -> str | None:
    """Return why the API will refuse these params, after it took the batch; None if it will not."""
    for name in ("model", "max_tokens", "messages"):
        if params.get(name) is None:
            return f"params have no {name}"
    if (
        params.get("stream")
        or params["max_tokens"] == 0
        or params.get("speed") is not None
    ):
        return "params must not have stream: true, max_tokens: 0 or speed in a batch"
    for name in ("temperature", "top_p", "top_k"):
        if version == API_VERSION and params.get(name) is not None:
            return f"params must not have {name} under anthropic-version {API_VERSION}; 2023-06-01 takes it"
    return None


@dataclass
class _Part:
    """What becomes one batch: so many requests of REQUESTS, from the byte ``start`` on."""

    line: int  # the number of its first line
    start: int
    digest: str = ""
    requests: int = 0
    bytes: int = 14  # of the body: {"requests":[]}, less the comma that each request but the first brings along
    state: str = "planned"  # then sending, closing (the last block goes out: in doubt from here on), created, collected
    noted_at: str = ""  # server time before sending
    waited_until: str = (
        ""  # server time until which the answer to closing is, or was, waited for
    )
    batch_id: str | None = None
    is_adopted: bool = False
    is_asked: bool = False  # the run stopped for it: --adopt is the answer
    foreign: list[str] = field(
        default_factory=list
    )  # batches that were adopted, and are not ours


@dataclass
class _Journal:
    """How far the job came; RESULTS.job is its JSON."""

    digest: str  # of REQUESTS
    base_url: str
    parts: list[_Part]
    organization_id: str | None = None
    workspace_id: str | None = None
    started_at: str = field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat()
    )
    collected: int = 0  # bytes of RESULTS.part that are rows, and on disk

    def is_collected(self) -> bool:
        """Tell whether all rows are in RESULTS.part."""
        return all(part.state == "collected" for part in self.parts)

    @classmethod
    def load(cls, path: str) -> _Journal:
        """Read a journal.  Raises JobError where the file is none."""
        try:
            with open(path, encoding="utf-8") as file:
                fields = json.load(file)
            return cls(
                **{**fields, "parts": [_Part(**part) for part in fields["parts"]]}
            )
        except (ValueError, TypeError, KeyError) as error:
            raise JobError(
                f"{path} is not the journal of a run ({error}); to pay for all anew, move it away"
            ) from None

    def save(self, path: str) -> None:
        """Replace the journal in one step that survives a power cut."""
        try:
            with _new_file(path + ".tmp") as file:
                file.write(json.dumps(asdict(self), indent=1).encode())
                _sync(file)
            os.replace(path + ".tmp", path)
            _sync_folder(path)
        except OSError as error:  # raised as another: between two blocks it would pass for the connection's
            raise JobError(
                f"The journal {path} cannot be written: {error}; run again"
            ) from error


def _new_file(path: str) -> Any:
    with contextlib.suppress(
        FileNotFoundError
    ):  # a link, or a second name of a file that is published
        os.remove(path)
    return open(path, "xb")


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: str) -> None:
    if hasattr(os, "O_DIRECTORY"):  # Windows has none, and needs none
        folder = os.open(
            os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY
        )
        with contextlib.suppress(OSError):  # some network folders refuse
            os.fsync(folder)
        os.close(folder)


def _publish(source: str, target: str) -> None:
    """Give a whole file its name in one step.  Raises InvalidRequestsError rather than overwrite."""
    try:
        os.link(source, target)  # a rename would overwrite on POSIX
    except OSError:
        if not os.path.lexists(target):  # there are no hard links here
            os.rename(source, target)
            return
        import filecmp

        # the same content is this file, published by a run that was killed before it had told so
        if (
            os.path.islink(target)
            or not os.path.isfile(target)
            or not filecmp.cmp(source, target, shallow=False)
        ):
            _refuse_existing(target)
            raise  # it went away meanwhile
    os.unlink(source)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[Any]:
    """Open a file for appending, for one process at a time.  The lock dies with the process."""
    with open(path, "a+b") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                file.seek(
                    1 << 40
                )  # far behind all rows: a lock there keeps nobody from reading them
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JobError(
                f"Another run is at work on {path}, or the folder has no locks ({error})"
            ) from None
        is_ours = False
        with contextlib.suppress(
            FileNotFoundError
        ):  # the run that held the lock before may have moved or removed it
            is_ours = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        if not is_ours:
            raise JobError(
                f"Another run was at work on {path}, and has just ended; run again if there is more to do"
            )
        yield file


class Job:
    """A file of requests to a file of results, through as many batches as it takes, and through kills.

    ``requests`` and ``results`` are paths; beside results go ``.job``, ``.part`` (or into ``folder``) and what failed.
    ``poll_interval``: seconds between polls, None as in wait().  ``settle``: seconds, 0 or more, after a lost create
    until it is believed that no batch will come of it.  ``adopt``: for a part in doubt the id of its batch, or "none".
    ``progress`` tells a person: ``say(line)`` what stays, ``live(line, times="")`` what is going on at the moment,
    ``batches(batches, parts)`` the MessageBatches that are running, of so many parts.
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
        self._client = client.with_options(
            max_retries=20
        )  # so many cuts of results without a new row
        self._client._outlive, self._is_answered = self._outlive, False
        self._batches = self._client.messages.batches
        self._requests, self._results, self._progress = requests, results, progress
        stem = os.path.join(folder, os.path.basename(results)) if folder else results
        self._journal_path, self._rows_path = stem + ".job", stem + ".part"
        root, extension = os.path.splitext(results)
        self._failed_path = root + ".failed" + extension
        self._interval, self._settle, self._adopt = poll_interval, settle, adopt
        self._journal: Any = None

    @property
    def open_batches(self) -> list[str]:
        """The ids of the batches that are running or not collected yet."""
        return (
            [part.batch_id for part in self._journal.parts if part.state == "created"]
            if self._journal
            else []
        )

    def run(self) -> bool:
        """Do what is left, and tell whether every request succeeded.  Raises AnthropicError, or OSError of a file."""
        self._polls_by_id: dict[
            str, Iterator[tuple[MessageBatch | APIError, float]]
        ] = {}
        with _locked(self._rows_path) as self._rows_file:
            try:
                self._open()
            except BaseException:
                if not os.path.exists(self._journal_path) and not os.path.getsize(
                    self._rows_path
                ):
                    os.unlink(self._rows_path)
                raise
            try:
                while not self._journal.is_collected():
                    self._send()
                    self._gather()
                return self._finish()
            except OSError as error:  # a full disk, for one
                raise JobError(f"{error}: mend that, and run again to go on") from error

    # -- plan

    def _open(self) -> None:
        """Take up the journal, or begin one; refuse what does not belong together."""
        if os.path.exists(self._journal_path):
            journal = self._journal = _Journal.load(
                self._journal_path
            )  # at once: its batches go on
            if journal.digest != self.plan()[0].digest:
                raise JobError(
                    f"{self._requests} has changed since the run began; put it back, or begin another run"
                )
            if journal.base_url != self._client.base_url:
                raise JobError(
                    f"The run began at {journal.base_url}, and this is {self._client.base_url}"
                )
            if not journal.is_collected():
                _refuse_existing(self._results)
            self._progress.say(f"going on with {self._journal_path}")
        else:
            _refuse_existing(self._results, self._failed_path)
            if os.path.getsize(self._rows_path):
                raise JobError(
                    f"{self._rows_path} is of a run without its journal; move it away"
                )
            journal = self.plan()[0]
            self._try(journal.parts[0])
        self._journal = journal
        if not journal.is_collected():
            self._identify()
            self._take_up_rows()
        if self._adopt and not any(part.is_asked for part in journal.parts):
            self._progress.say(
                f"--adopt {self._adopt}: not used, because no run has stopped to ask for it"
            )
        self._save()

    def _try(self, part: _Part) -> None:
        """Have the tokens of the first request counted, for free: what is wrong with it is told now."""
        _, request = next(self._requests_in(part))
        try:
            _count(self._client, request["params"])
            self._is_answered = True
        except BadRequestError as error:
            raise InvalidRequestsError(
                f"{self._requests}: the API refuses the first request: {error}"
            ) from None
        except APIError as error:
            self._progress.say(f"the first request could not be tried: {error}")

    def _identify(self) -> None:
        """Note the API's clock and whose key this is.  Raises JobError for the key of another workspace."""
        headers = self._batches.list(limit=1)._headers
        self._is_answered, now = True, _http_date(headers.get("date"))
        for part in self._journal.parts:
            if (
                part.state == "closing" and now
            ):  # the run that waited for its answer is dead
                part.waited_until = min(
                    datetime.fromisoformat(part.waited_until), now
                ).isoformat()
        for name in ("organization_id", "workspace_id"):
            known, told = (
                getattr(self._journal, name),
                headers.get(f"anthropic-{name.replace('_', '-')}"),
            )
            if known and told and known != told:
                raise JobError(
                    f"The run began in {name} {known}, and this key is of {told}"
                )
            setattr(self._journal, name, known or told)

    def _take_up_rows(self) -> None:
        """Cut RESULTS.part where the journal says, and read whose rows are there."""
        if os.path.getsize(self._rows_path) < self._journal.collected:
            raise JobError(
                f"{self._rows_path} has lost rows that {self._journal_path} counts; put it back"
            )
        self._rows_file.truncate(
            self._journal.collected
        )  # what comes after it may be torn
        with open(self._rows_path, "rb") as rows:
            self._collected = {row["custom_id"] for row in iter_json_lines(rows)}

    def plan(self) -> tuple[_Journal, str]:
        """Check REQUESTS and cut it into parts; return the new journal, and the plan in words."""
        version = self._client.default_headers.get("anthropic-version") or API_VERSION
        whole, digest, warnings, max_tokens = hashlib.sha256(), hashlib.sha256(), 0, 0
        parts: list[_Part] = []
        models: Counter[str] = Counter()
        with open(self._requests, "rb") as file:
            for number, line, request, size in _read_requests(
                _hashed(file, whole), self._requests
            ):
                place, params = f"{self._requests}:{number}", request["params"]
                part = parts[-1] if parts else None
                if (
                    not part
                    or part.requests == MAX_BATCH_REQUESTS
                    or part.bytes + 1 + size > MAX_BATCH_BYTES
                ):
                    part, digest = (
                        _Part(number, file.tell() - len(line)),
                        hashlib.sha256(),
                    )
                    parts.append(part)
                digest.update(line)
                part.digest = digest.hexdigest()
                part.requests += 1
                part.bytes += 1 + size
                if part.bytes > MAX_BATCH_BYTES:
                    raise InvalidRequestsError(
                        f"{place}: more than the {MAX_BATCH_BYTES:,} bytes of a batch"
                    )
                models[str(params.get("model"))] += 1
                if isinstance(params.get("max_tokens"), int):
                    max_tokens += params["max_tokens"]
                refusal = _later_refusal(params, version)
                warnings += bool(refusal)
                if refusal and warnings <= 20:
                    self._progress.say(
                        f"{place}: warning: this will come back errored: {refusal}"
                    )
        if not parts:
            raise InvalidRequestsError(f"{self._requests}: no requests")
        if warnings > 20:
            self._progress.say(f"… and {warnings - 20:,} more warnings")
        return _Journal(whole.hexdigest(), self._client.base_url, parts), (
            f"requests: {sum(part.requests for part in parts):,}\nparts: {len(parts):,}\n"
            f"bytes: {sum(part.bytes for part in parts):,}\n"
            f"models: {', '.join(f'{model} ({count:,})' for model, count in models.items())}\n"
            f"max_tokens: {max_tokens:,}"
        )

    def _requests_in(self, part: _Part) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Yield line and request of a part.  Raises JobError at its end if it is not as planned."""
        digest = hashlib.sha256()
        with open(self._requests, "rb") as file:
            file.seek(part.start)
            for _, line, request, _ in itertools.islice(
                _read_requests(file, self._requests, part.line), part.requests
            ):
                digest.update(line)
                yield line, request
        if digest.hexdigest() != part.digest:
            raise JobError(
                f"{self._requests} has changed since the run began; put it back, and run again"
            )

    # -- send

    def _send(self) -> None:
        """Make a batch of each part that has none.  One part is in doubt at a time."""
        while parts := [part for part in self._journal.parts if not part.batch_id]:
            part = next((part for part in parts if part.state == "closing"), parts[0])
            try:
                if part.state == "closing":
                    self._resolve(part)
                else:
                    self._create(part)
            except BatchMayExistError as error:
                self._progress.say(str(error))
            except APIError as error:
                wait = self._delay(error) or (
                    POLL_LONGEST if error.status_code == 429 else POLL_FIRST
                )
                elapsed, collected = _stopwatch(), self._journal.collected
                while (
                    elapsed() < wait and self._journal.collected == collected
                ):  # what has ended makes room
                    self._gather(max(0.0, wait - elapsed()), is_shown=False)

    def _create(self, part: _Part) -> None:
        noted = _http_date(
            self._batches.list(limit=1)._headers.get("date")
        ) or datetime.now(timezone.utc)
        part.noted_at, part.state, elapsed = noted.isoformat(), "sending", _stopwatch()
        self._save()

        def note_closing(longest: float) -> None:
            """Note that the batch may be made from now on, until at most so many seconds later."""
            part.state, part.waited_until = (
                "closing",
                (noted + timedelta(seconds=elapsed() + longest)).isoformat(),
            )
            self._save()

        try:
            requests = (request for _, request in self._requests_in(part))
            batch = self._once.messages.batches._create(
                requests,
                before_last_block=lambda: note_closing(self._client.timeout or TIMEOUT),
            )
            part.waited_until = (
                part.noted_at
            )  # the answer has come, and is waited for no longer
            self._note(part, "created", batch.id)
        except BatchMayExistError:
            note_closing(0.0)  # nobody waits for its answer any more
            raise
        except APIError:  # no batch was made
            self._note(part, "planned")
            raise
        except KeyboardInterrupt:
            if part.state == "closing":
                self._progress.say(
                    f"{self._name(part)}: its batch may exist, and be billed; the next run looks"
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
            self._progress.say(f"{self._name(part)}: batch {batch_id}")
        part.state, part.batch_id, part.is_adopted, part.is_asked = (
            state,
            batch_id,
            is_adopted,
            False,
        )
        self._save()

    def _resolve(self, part: _Part) -> None:
        """Find out whether a part whose answer was lost has its batch: adopt it, or plan the part again."""
        noted = datetime.fromisoformat(part.noted_at) - timedelta(
            seconds=10
        )  # clocks differ
        deadline = datetime.fromisoformat(part.waited_until) + timedelta(
            seconds=self._settle + 1
        )  # Date's grain
        known = {*part.foreign, *(other.batch_id for other in self._journal.parts)}
        while part.state == "closing" and not self._obey(part):
            page = self._batches.list(limit=100)
            now = _http_date(page._headers.get("date")) or datetime.now(timezone.utc)
            recent = itertools.takewhile(
                lambda batch: (batch.created_at or noted) >= noted, page
            )
            found = [
                batch.id
                for batch in recent
                if (batch.created_at or noted) <= deadline
                and _size(batch) in (part.requests, None)
                and batch.id not in known
            ]
            if len(found) > 1:
                self._ask(
                    part,
                    f"{self._name(part)} may be any of {', '.join(found)}; say which: run again with "
                    "--adopt ID, or with --adopt none if it is none of them, which sends it again",
                )
            elif found:
                self._note(part, "created", found[0], is_adopted=True)
            elif now >= deadline:
                self._note(part, "planned")
            else:
                self._progress.live(
                    f"{self._name(part)}: looking whether its batch was made",
                    f"until {deadline:%H:%M:%S}",
                )
                time.sleep(
                    min(self._interval or POLL_FIRST, (deadline - now).total_seconds())
                )

    def _obey(self, part: _Part) -> bool:
        """Do with a part what --adopt says, if a run has stopped to ask for it; tell whether that was so."""
        word = self._adopt
        if not word or not part.is_asked:
            return False
        if word in (
            other.batch_id for other in self._journal.parts if other is not part
        ):
            raise JobError(
                f"Batch {word} is that of another part, and not of {self._name(part)}"
            )
        batch = None if word == "none" else self._batches.retrieve(word)
        if batch and _size(batch) not in (part.requests, None):
            raise JobError(
                f"Batch {word} has {_size(batch)} requests, and {self._name(part)} has {part.requests}"
            )
        if batch:
            self._note(part, "created", word, is_adopted=True)
        else:
            self._note(part, "planned")
        return True

    def _ask(self, part: _Part, question: str) -> None:
        """Stop, and take the next run's --adopt as the answer."""
        for other in self._journal.parts:  # an earlier question is answered no more
            other.is_asked = other is part
        self._save()
        raise JobError(question)

    # -- wait

    def _outlive(self, error: APIError) -> None:
        time.sleep(self._delay(error) or POLL_FIRST)

    def _delay(self, error: APIError) -> float | None:
        """Tell the error, and return the seconds that it asks for; raise it before the first answer, or if it stays."""
        if not (error._is_transient and self._is_answered):
            raise error
        if isinstance(error, RateLimitError) and "spend_limit" in str(error.error_code):
            raise JobError(
                f"{error}.  It stays so until the limit is raised; then run again to go on"
            ) from error
        self._progress.live(f"waiting: {error}")
        return _retry_after(error.headers)

    def _gather(self, longest: float = POLL_LONGEST, is_shown: bool = True) -> None:
        """Poll the batches once, collect those that have ended, and sleep until the next round."""
        running, delays = [], [longest]
        for part in [part for part in self._journal.parts if part.state == "created"]:
            polls = self._polls_by_id.setdefault(
                part.batch_id, self._batches._polls(part.batch_id, self._interval)
            )
            try:
                outcome, delay = next(polls)
            except NotFoundError as error:
                del self._polls_by_id[part.batch_id]  # it has ended with this
                self._lost(part, f"the API knows it no longer ({error})")
                delays.append(0.0)
                continue
            if not isinstance(outcome, MessageBatch):
                self._progress.live(f"waiting: {outcome}")
            elif outcome.processing_status == "ended":
                self._collect(part, outcome)
                delay = 0.0
            else:
                if part.is_asked:  # it is there after all
                    part.is_asked = False
                    self._save()
                running.append(outcome)
            delays.append(delay)
        if running and is_shown:
            self._progress.batches(running, len(self._journal.parts))
        time.sleep(min(delays))

    def _lost(self, part: _Part, why: str) -> None:
        """Stop for a batch that gives no results, unless --adopt says what to do."""
        if not self._obey(part):
            self._ask(
                part,
                f"Batch {part.batch_id} of {self._name(part)} gives no results: {why}.  With the key of "
                "the right workspace, run again; or send the part again, and pay again: --adopt none",
            )

    # -- collect

    def _collect(self, part: _Part, batch: MessageBatch) -> None:
        """Append the rows of an ended batch to RESULTS.part, from where it stopped."""
        if not batch.results_url:
            self._lost(
                part,
                "they have been archived"
                if batch.archived_at
                else "it has no results_url",
            )
            return
        wanted = {request["custom_id"] for _, request in self._requests_in(part)}
        if part.is_adopted:  # then no row is taken before all are known to be ours
            for _, row in self._batches.results(batch.id)._rows(set()):
                if row["custom_id"] not in wanted:
                    self._progress.say(
                        f"Batch {batch.id} has a row {row['custom_id']!r}: it is not ours"
                    )
                    part.foreign.append(batch.id)
                    self._note(part, "closing")
                    return
        seen, unsynced = wanted & self._collected, 0
        for line, row in self._batches.results(batch.id)._rows(seen):
            if row["custom_id"] not in wanted:
                raise JobError(
                    f"Batch {batch.id} has a row {row['custom_id']!r}, which is not in {self._name(part)}"
                )
            unsynced += self._rows_file.write(line)
            if unsynced > SYNC_BYTES:
                self._note_rows()
                unsynced = 0
        if len(seen) < part.requests:  # of a batch that told no counts
            raise JobError(
                f"Batch {batch.id}: {len(seen)} of {part.requests} rows came; run again to go on"
            )
        part.state = "collected"
        self._note_rows()
        self._progress.say(f"{self._name(part)}: {len(seen):,} results")

    def _note_rows(self) -> None:
        _sync(self._rows_file)
        self._journal.collected = os.path.getsize(self._rows_path)
        self._save()

    # -- finish

    def _finish(self) -> bool:
        """Write what failed, give RESULTS its name, sum up, and remove the journal last."""
        has_rows = (
            os.path.getsize(self._rows_path) > 0
        )  # else killed after RESULTS got its name
        rows = self._rows_path if has_rows else self._results
        if not os.path.isfile(rows) or os.path.getsize(rows) != self._journal.collected:
            raise JobError(
                f"{rows} has not the rows that {self._journal_path} counts; put it back and run again, or "
                f"remove the journal if you have the results"
            )
        summary, failed = self._sum_up(rows)
        if failed:
            with _new_file(self._failed_path + ".tmp") as file:
                for line, request in itertools.chain.from_iterable(
                    map(self._requests_in, self._journal.parts)
                ):
                    if request["custom_id"] in failed:
                        file.write(line.rstrip(b"\n") + b"\n")
                _sync(file)
            _publish(self._failed_path + ".tmp", self._failed_path)
        if sys.platform == "win32":
            self._rows_file.close()  # an open file can be neither renamed nor removed there
        if has_rows:
            _publish(self._rows_path, self._results)
        else:
            os.unlink(self._rows_path)
        _sync_folder(self._results)
        self._progress.say(summary)
        os.unlink(self._journal_path)
        return not failed

    def _sum_up(self, path: str) -> tuple[str, set[str]]:
        """Return the summary in words, and the custom_ids that did not succeed."""
        outcomes: Counter[str] = Counter()
        errors: Counter[str] = Counter()
        tokens: Counter[str] = Counter()
        failed = set()
        with open(path, "rb") as rows:
            for row in map(MessageBatchIndividualResponse, iter_json_lines(rows)):
                result = (
                    row.result
                    if isinstance(row.result, MessageBatchResult)
                    else MessageBatchResult()
                )
                outcomes[str(result.type)] += 1
                if result.type != "succeeded":
                    failed.add(row.custom_id)
                usage, error = (
                    getattr(result.message, "usage", None),
                    getattr(result.error, "error", None),
                )
                if isinstance(usage, Usage):
                    tokens.update(
                        {
                            name: n
                            for name, n in usage.__dict__.items()
                            if isinstance(n, int)
                        }
                    )
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
        tokens_in = sum(
            tokens[f"{kind}input_tokens"]
            for kind in ("", "cache_creation_", "cache_read_")
        )
        elapsed = datetime.now(timezone.utc) - datetime.fromisoformat(
            self._journal.started_at
        )
        batches = (
            part.batch_id + (" (adopted)" if part.is_adopted else "")
            for part in self._journal.parts
        )
        lines = [
            f"{sum(outcomes.values()):,} requests: "
            + ", ".join(f"{n:,} {kind}" for kind, n in outcomes.items())
        ]
        lines += [f"  {n:,} × {words}" for words, n in errors.most_common(5)]
        lines += [
            f"{tokens_in:,} tokens in, {tokens['output_tokens']:,} out; {_clock(elapsed)} elapsed"
        ]
        lines += [f"batches: {', '.join(batches)}"]
        if failed:
            lines += [
                f"what did not succeed, ready to be run again: {self._failed_path}"
            ]
        lines += [f"results: {self._results}"]
        return "\n".join(lines)

    def _save(self) -> None:
        self._journal.save(self._journal_path)

    def _name(self, part: _Part) -> str:
        parts = self._journal.parts
        return (
            f"part {parts.index(part) + 1} of {len(parts)} ({part.requests:,} requests)"
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


# ---- Sandbox ---------------------------------------------------------------------------------------------------


@dataclass
class _SandboxBatch:
    url: str
    id: str
    created_at: datetime
    ends: datetime
    requests: list[
        tuple[str, str, str | None]
    ]  # custom_id, model, and why it is refused, if so; never the bodies
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
        ended, counts = (
            self.is_ended(),
            dict.fromkeys(
                ("processing", "succeeded", "errored", "canceled", "expired"), 0
            ),
        )
        for custom_id, _, refusal in self.requests:
            counts[self.outcome(custom_id, refusal) if ended else "processing"] += 1
        return {
            "id": self.id,
            "type": "message_batch",
            "request_counts": counts,
            "processing_status": "ended"
            if ended
            else "canceling"
            if self.cancel_initiated_at
            else "in_progress",
            "created_at": self.created_at,
            "expires_at": self.created_at + timedelta(hours=24),
            "ended_at": self.ends if ended else None,
            "cancel_initiated_at": self.cancel_initiated_at,
            "archived_at": None,
            "results_url": f"{self.url}{_BATCHES}/{self.id}/results" if ended else None,
        }

    def rows(self) -> Iterator[bytes]:
        """Yield the lines of results."""
        for number, (custom_id, model, refusal) in enumerate(
            reversed(self.requests)
        ):  # the API promises no order
            result: dict[str, Any] = {"type": self.outcome(custom_id, refusal)}
            if result["type"] == "errored":
                error = {
                    "type": "invalid_request_error",
                    "message": f"{refusal} (says the sandbox)",
                }
                result["error"] = {"type": "error", "error": error, "request_id": None}
            elif result["type"] == "succeeded":
                result["message"] = {
                    "id": f"msg_sandbox_{number}",
                    "type": "message",
                    "role": "assistant",
                    "model": model,
                    "content": [
                        {
                            "type": "text",
                            "text": "This is the sandbox's answer; no model was asked.",
                        }
                    ],
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
            yield _encode_json({"custom_id": custom_id, "result": result}) + b"\n"


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
    """The API's stand-in, a real HTTP server on 127.0.0.1: no key, no network beyond this machine, no cost.

    ::

        with Sandbox() as sandbox:
            client = Anthropic(base_url=sandbox.url, api_key="sandbox")

    ``port``: 0 for any free one; ``seconds``: 0 or more, how long a batch is in progress.  ``url``: for base_url; it
    answers inside the ``with`` block.  Rows: ``errored`` what the API refuses inside params, ``canceled`` after a
    cancel, ``expired`` where custom_id begins so, else ``succeeded``.
    """

    def __init__(self, *, port: int = 0, seconds: float = 1.0) -> None:
        from threading import Lock

        self._seconds, self._lock = timedelta(seconds=seconds), Lock()
        self._batches: dict[str, _SandboxBatch] = {}  # oldest first
        self._server = _sandbox_server(self, port)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Sandbox:
        from threading import Thread

        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(
        self, call: str, query: Mapping[str, list[str]], headers: Any, raw: bytes
    ) -> Any:
        """Return the answer's JSON, or an iterator of rows.  Raises ValueError for a 400, else what the client will."""
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
            return _sandbox_page(
                [batch.show() for batch in reversed(self._batches.values())], query
            )
        if call == "GET /v1/models":
            wanted = query.get("lifecycle[]", ["active", "deprecated"])
            return _sandbox_page(
                [model for model in _SANDBOX_MODELS if model["lifecycle"] in wanted],
                query,
            )
        for model in _SANDBOX_MODELS:
            if call.partition("GET /v1/models/")[2] in (
                model["id"],
                re.sub(r"-\d{8}$", "", model["id"]),
            ):  # or alias
                return model
        method, _, path = call.partition(_BATCHES + "/")
        batch_id, _, action = path.partition("/")
        answer = (
            self._act(method + action, self._batches[batch_id])
            if batch_id in self._batches
            else None
        )
        if answer is None:
            raise NotFoundError(
                f"the sandbox has no {call}, or not yet", type="not_found_error"
            )
        return answer

    def _create(self, body: Any, version: str) -> dict[str, Any]:
        requests = body.get("requests") if isinstance(body, dict) else None
        if (
            not isinstance(requests, list)
            or not requests
            or len(requests) > MAX_BATCH_REQUESTS
            or len(body) > 1
        ):
            raise ValueError(
                "requests: 1 to 100,000 are allowed, and nothing beside them"
            )
        seen: set[str] = set()
        kept = []
        for index, request in enumerate(requests):
            try:
                _encode_request(request, seen)
            except ValueError as error:
                raise ValueError(f"requests.{index}: {error}") from None
            params = request["params"]
            kept.append(
                (
                    request["custom_id"],
                    str(params.get("model")),
                    _later_refusal(params, version),
                )
            )
        now = datetime.now(timezone.utc)
        batch = _SandboxBatch(
            self.url,
            f"msgbatch_sandbox_{os.urandom(8).hex()}",
            now,
            now + self._seconds,
            kept,
        )
        self._batches[batch.id] = batch
        return batch.show()

    def _act(self, action: str, batch: _SandboxBatch) -> Any:
        """Return the answer to an action on a batch, None where there is none, or not yet."""
        is_ended = batch.is_ended()
        if action == "GET results" and is_ended:
            return batch.rows()
        if action == "DELETE " and is_ended:
            return {
                "id": self._batches.pop(batch.id).id,
                "type": "message_batch_deleted",
            }
        if action == "DELETE ":
            raise ValueError("the batch is in progress: cancel it before you delete it")
        if action == "POST cancel" and not is_ended and not batch.cancel_initiated_at:
            batch.cancel_initiated_at = datetime.now(timezone.utc)
            batch.ends = batch.cancel_initiated_at + self._seconds
        return batch.show() if action in ("GET ", "POST cancel") else None

    def _count_tokens(self, body: Any) -> dict[str, Any]:
        if (
            not isinstance(body, dict)
            or not body.get("model")
            or not body.get("messages")
        ):
            raise ValueError("model and messages: Field required")
        for name in body.keys() - COUNTED:
            raise ValueError(f"{name!r}: Extra inputs are not permitted")
        return {"input_tokens": len(_encode_json(body)) // 4}


def _sandbox_json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The request body is not valid JSON: {error}") from None


def _sandbox_page(
    items: list[dict[str, Any]], query: Mapping[str, list[str]]
) -> dict[str, Any]:
    """Return the page of a list, newest first, that limit, after_id and before_id ask for."""
    limit, after, before = (
        query.get(name, [""])[-1] for name in ("limit", "after_id", "before_id")
    )
    ids = [item["id"] for item in items]
    size = int(limit) if limit.isdecimal() else 0 if limit else 20
    if not 1 <= size <= 1000 or (after and before) or not {after, before} <= {"", *ids}:
        raise ValueError("limit: 1 to 1000; after_id or before_id: one that exists")
    rest = items[
        ids.index(after) + 1 if after else 0 : ids.index(before) if before else None
    ]
    page, more = (rest[-size:], rest[:-size]) if before else (rest[:size], rest[size:])
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"data": page, "has_more": bool(more), "first_id": first, "last_id": last}


def _sandbox_server(sandbox: Sandbox, port: int) -> Any:
    from http.server import (
        ThreadingHTTPServer,
    )  # not at the top: the client has no use for it

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:
            if not isinstance(
                sys.exc_info()[1], ConnectionError
            ):  # a client that went away is no news
                super().handle_error(*args)

    return Server(("127.0.0.1", port), _sandbox_handler(sandbox))


def _sandbox_handler(sandbox: Sandbox) -> Any:
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body in one packet

        def answer(self) -> None:
            """Answer one request."""
            _sandbox_respond(sandbox, self)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    return Handler


def _sandbox_respond(sandbox: Sandbox, handler: Any) -> None:
    """Answer one request, in chunks, as the API sends rows."""
    raw = handler.rfile.read(int(handler.headers.get("content-length") or 0))
    path, _, query = handler.path.partition("?")
    status, request_id = 200, f"req_sandbox_{os.urandom(6).hex()}"
    try:
        call = f"{handler.command} {urllib.parse.unquote(path)}"
        with sandbox._lock:
            given = sandbox._answer(
                call, urllib.parse.parse_qs(query), handler.headers, raw
            )
    except (APIStatusError, ValueError) as error:
        status, kind = (
            getattr(error, "status_code", 400),
            getattr(error, "type", "invalid_request_error"),
        )
        given = {
            "type": "error",
            "error": {"type": kind, "message": str(error)},
            "request_id": request_id,
        }
    is_json = isinstance(given, dict)
    handler.send_response(status)
    handler.send_header("request-id", request_id)
    handler.send_header("anthropic-organization-id", "sandbox")
    handler.send_header("transfer-encoding", "chunked")
    handler.send_header(
        "content-type", "application/json" if is_json else "application/x-jsonl"
    )
    if is_json and given.get("processing_status") in ("in_progress", "canceling"):
        handler.send_header("retry-after", "1")  # the polling interval
    handler.end_headers()
    for block in [_encode_json(given)] if is_json else given:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
    handler.wfile.write(b"0\r\n\r\n")


# ---- Command line ----------------------------------------------------------------------------------------------


class _Progress:
    """Tells a person on standard error: lines that stay, and on a terminal one that lives."""

    _last, _width = (
        "",
        0,
    )  # the line that was shown last, and how wide it stands on the terminal

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads: no reason to give up a job
            print(text, end="", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print what stays."""
        self._write(f"\r{'':{self._width}}\r{text}\n" if self._width else text + "\n")
        self._width = 0

    def live(self, line: str, times: str = "", is_last: bool = False) -> None:
        """Show the line of the moment; elsewhere than on a terminal only when more of it changes than a request id."""
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except (
            OSError,
            ValueError,
            AttributeError,
        ):  # no terminal (Windows, python/cpython#93203), or no file
            words = re.sub(r" \(request id [^)]*\)", "", line)
            self._write(line + "\n" if words != self._last else "")
            self._last = words
        else:
            shown = ", ".join(filter(None, (line, times)))[: columns - 1]
            self._write("\r" + shown.ljust(self._width) + "\n" * is_last)
            self._width = 0 if is_last else len(shown)

    def batches(self, batches: list[MessageBatch], parts: int = 1) -> None:
        """Show batches in one line, which stays once they have ended.  The API moves its counts then: no percentage."""
        counts = {
            name: sum(
                getattr(batch.request_counts, name, None) or 0 for batch in batches
            )
            for name in MessageBatchRequestCounts.__annotations__
        }
        status = ", ".join(sorted({str(batch.processing_status) for batch in batches}))
        several = f"{len(batches)} of {parts} batches " if parts > 1 else ""
        now = _http_date(batches[0]._headers.get("date")) or datetime.now(timezone.utc)
        begun = min(batch.created_at or now for batch in batches)
        end = min(batch.expires_at or now for batch in batches)
        self.live(
            f"{several}{status}: "
            + ", ".join(f"{n:,} {name}" for name, n in counts.items() if n),
            f"{_clock(now - begun)} elapsed, expires in {_clock(end - now)}",
            is_last=status == "ended",
        )


def _print(value: Any) -> None:
    """Print a text, or an object as JSON."""
    print(value if isinstance(value, str) else _encode_json(value).decode(), flush=True)


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
    rows = [
        head.split(),
        *(
            ["" if cell is None else str(cell) for cell in cells(one)]
            for one in objects
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        _print("  ".join(map(str.ljust, row, widths)).rstrip())


def _requests_of(path: str) -> Iterator[Any]:
    """Yield the requests of a file, "-" being standard input.  Raises InvalidRequestsError."""
    with (
        contextlib.nullcontext(sys.stdin.buffer)
        if path == "-"
        else _open_requests(path)
    ) as file:
        for _, _, request, _ in _read_requests(
            file, "standard input" if path == "-" else path
        ):
            yield request


def _open_requests(path: str) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except OSError as error:
        raise InvalidRequestsError(f"{path}: {error.strerror}") from None


def _run_command(args: Any) -> int:
    if not args.output and not args.dry_run:
        raise InvalidRequestsError("run: -o RESULTS is required")
    if args.requests == "-" or (
        os.path.exists(args.requests) and not os.path.isfile(args.requests)
    ):
        raise InvalidRequestsError(
            f"{args.requests}: run needs a regular file, to read it again"
        )
    _open_requests(args.requests).close()
    options = {
        name: getattr(args, name)
        for name in ("progress", "poll_interval", "settle", "adopt")
    }
    if args.dry_run:
        _print(
            Job(Anthropic(), args.requests, args.output or "results", **options).plan()[
                1
            ]
        )
        return 0
    if args.sandbox:
        if os.path.exists(args.output + ".job"):
            raise JobError(
                f"{args.output}.job is of a real run, untouched by --sandbox: name another RESULTS"
            )
        with Sandbox() as sandbox, _folder_beside(args.output) as folder:
            client = Anthropic(base_url=sandbox.url, api_key="sandbox")
            return (
                0
                if Job(
                    client, args.requests, args.output, folder=folder, **options
                ).run()
                else 3
            )
    job = Job(Anthropic(), args.requests, args.output, **options)
    args.going_on = lambda: (
        job.open_batches
    )  # those in the sandbox end with this process
    return 0 if job.run() else 3


def _folder_beside(path: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(
        prefix=".claude-batches-", dir=os.path.dirname(os.path.abspath(path))
    )


def _create_command(args: Any) -> None:
    batch = Anthropic().messages.batches.create(requests=_requests_of(args.requests))
    try:
        _print(batch)
    except OSError:  # a closed pipe, too: who misses the id pays again
        args.progress.say(f"the batch was made, but could not be printed: {batch.id}")
        raise


def _act_command(args: Any) -> None:
    _print(getattr(Anthropic().messages.batches, args.name)(args.id))


def _wait_command(args: Any) -> int:
    def seen(batch: MessageBatch) -> MessageBatch:
        args.going_on = lambda: [args.id] if batch.processing_status != "ended" else []
        return batch

    batches = Anthropic().messages.batches
    with contextlib.suppress(
        NotFoundError
    ):  # which wait() forgives for a while: the batch may be fresh
        seen(
            batches.retrieve(args.id)
        )  # else it would wait through what is wrong from the start
    batch = batches.wait(
        args.id,
        poll_interval=args.poll_interval,
        on_poll=lambda batch: args.progress.batches([seen(batch)]),
    )
    _print(batch)
    return (
        3
        if batch.request_counts and _size(batch) != batch.request_counts.succeeded
        else 0
    )


def _list_command(args: Any) -> None:
    def cells(batch: MessageBatch) -> Iterable[object]:
        counts = batch.request_counts or MessageBatchRequestCounts()
        created = (
            batch.created_at
            and f"{batch.created_at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%SZ}"
        )
        return (
            batch.id,
            batch.processing_status,
            created,
            _size(batch),
            counts.succeeded,
            counts.errored,
        )

    newest = itertools.islice(
        Anthropic().messages.batches.list(limit=min(args.limit, 1000)), args.limit
    )
    _print_all(args, newest, "ID STATUS CREATED REQUESTS SUCCEEDED ERRORED", cells)


def _models_command(args: Any) -> None:
    def cells(model: ModelInfo) -> Iterable[object]:
        can = ((model.capabilities or OpenObject()).batch or OpenObject()).supported
        created = model.created_at and f"{model.created_at:%Y-%m-%d}"
        return (
            model.id,
            model.display_name,
            model.lifecycle,
            created,
            {True: "yes", False: "no"}.get(can),
        )

    if args.id:
        _print(Anthropic().models.retrieve(args.id))
    else:
        _print_all(
            args,
            Anthropic().models.list(limit=1000),
            "ID NAME LIFECYCLE CREATED BATCH",
            cells,
        )


def _results_command(args: Any) -> int:
    if args.output:
        _refuse_existing(args.output)
    with contextlib.ExitStack() as stack:
        folder = args.output and stack.enter_context(_folder_beside(args.output))
        results = stack.enter_context(Anthropic().messages.batches.results(args.id))
        path = folder and os.path.join(folder, "results")
        file = (
            stack.enter_context(open(path, "w", encoding="utf-8", newline="\n"))
            if path
            else sys.stdout
        )
        failed = 0
        for line, row in results._rows(set()):
            file.write(line.decode())
            failed += (
                getattr(MessageBatchIndividualResponse(row).result, "type", None)
                != "succeeded"
            )
        if path:
            _sync(file)
            file.close()
            _publish(path, args.output)
    return 3 if failed else 0


def _count_tokens_command(args: Any) -> None:
    client, total = Anthropic(), 0
    with tempfile.TemporaryFile() as file:
        file.writelines(
            _encode_json(request) + b"\n" for request in _requests_of(args.requests)
        )
        file.seek(0)  # all are checked before the first one is sent
        for request in iter_json_lines(file):
            try:
                count = _count(client, request["params"])
            except APIError as error:
                raise AnthropicError(
                    f"custom_id {request['custom_id']!r}: {error}"
                ) from error
            _print(f"{request['custom_id']}\t{count}")
            total += count
    args.progress.say(f"{total:,} input tokens in all")


def _sandbox_command(args: Any) -> None:
    sandbox = Sandbox(port=args.port)
    _print(f"export ANTHROPIC_BASE_URL={sandbox.url}\nexport ANTHROPIC_API_KEY=sandbox")
    sandbox._server.serve_forever()


def _number(
    kind: Callable[[str], float], least: float, end: float
) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < end:
            raise ValueError  # which argparse tells as "invalid number value"
        return value

    return number


_COMMANDS = {  # what runs it, its arguments, and what it does
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
        "help": "after a lost answer, how long a batch may still come of it (300)",
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
        epilog="Exit status: 0; 1 an error; 2 wrong usage, a wrong input file, or a RESULTS that exists; 3 ended, but "
        "not every request succeeded; 130 interrupted; 143 terminated.",
    )
    parser.add_argument(
        "--version", action="version", version=f"claude_batches {__version__}"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (function, words, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(
            command=function, name=name, progress=_Progress(), going_on=list
        )  # list() is: no batch
        for word in words.split():
            command.add_argument(
                *word.strip("[]").lower().split("/"), **_ARGUMENTS[word]
            )
    return parser.parse_args(argv)


def _tell_interrupted(args: Any, argv: list[str], word: str) -> None:
    import shlex

    program = ("python " if sys.argv[0].endswith(".py") else "") + shlex.quote(
        sys.argv[0]
    )
    args.progress.say(word)
    ids = args.going_on()
    if args.command is _create_command:
        args.progress.say(
            f"the batch may have been made, and be billed; look: {program} list"
        )
    if ids:
        args.progress.say(f"these go on, and are billed: {', '.join(ids)}")
        args.progress.say(
            f"to cancel: {'; '.join(f'{program} cancel {batch_id}' for batch_id in ids)}"
        )
    if ids or args.command is _run_command:
        args.progress.say(f"to go on: {program} {shlex.join(argv)}")


def _perform(args: Any, argv: list[str]) -> int:
    """Perform a command, tell what ends it, and return the exit status."""
    status = 0
    try:
        status = args.command(args) or 0
        sys.stdout.flush()
    except (
        BrokenPipeError
    ):  # standard output's; those of the network are APIConnectionErrors
        pass
    except (AnthropicError, OSError) as error:
        status = 2 if isinstance(error, InvalidRequestsError) else 1
        args.progress.say(f"claude_batches: {error}")
        ids = args.going_on()
        if ids:
            args.progress.say(
                f"these go on, and are billed: {', '.join(ids)}; run the same command again to go on"
            )
    except KeyboardInterrupt as signaled:
        word = str(signaled) or "interrupted"
        status = 143 if word == "terminated" else 130
        _tell_interrupted(args, argv, word)
    try:
        sys.stdout.flush()
    except (
        OSError
    ):  # a closed pipe or a full disk, of which the flush at the exit would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise a KeyboardInterrupt that says which, one a second: a wrapper sends Ctrl-C again."""
    import signal

    raised = float("-inf")

    def interrupt(number: int, _: object) -> None:
        nonlocal raised
        if time.monotonic() - raised > 1.0:
            raised = time.monotonic()
            raise KeyboardInterrupt(
                "terminated" if number == signal.SIGTERM else "interrupted"
            )

    handlers: dict[signal.Signals, Any] = {}
    with contextlib.suppress(ValueError):  # not in the main thread
        for each in (signal.SIGINT, signal.SIGTERM):
            if (
                signal.getsignal(each) != signal.SIG_IGN
            ):  # which it is for what runs in the background
                handlers[each] = signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler or signal.SIG_DFL)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1, 2, 3, 130 or 143, as --help says.

    ``argv``: the words after the program's name, sys.argv[1:] unless given.  Raises SystemExit for --help, --version
    and wrong usage.  It sets the encoding of sys.stdout, and lifts Python's limit of an integer's digits.
    """
    sys.stdin, sys.stdout, sys.stderr = (  # None where the caller closed it
        stream or open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")
        for stream, mode in ((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w"))
    )
    with contextlib.suppress(AttributeError):  # a notebook's has no such method
        sys.stdout.reconfigure(
            encoding="utf-8", errors="backslashreplace", newline="\n"
        )  # type: ignore[union-attr]
    with contextlib.suppress(AttributeError):  # older Pythons have no such limit
        sys.set_int_max_str_digits(0)  # a tool's input may hold any integer
    argv = sys.argv[1:] if argv is None else argv
    args = _parse(argv)
    with _signals_interrupt():
        return _perform(args, argv)


if __name__ == "__main__":
    sys.exit(main())
