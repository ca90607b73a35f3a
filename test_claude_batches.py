"""The promises of claude_batches.py, a test each.  They need pytest, loopback sockets, and no key."""

from __future__ import annotations

import argparse
import ast
import base64
import collections
import contextlib
import copy
import dataclasses
import datetime as dt
import email.message
import email.utils
import gc
import gzip
import hashlib
import http.client
import http.server
import importlib.util
import inspect
import io
import itertools
import json
import logging
import os
import pathlib
import pickle
import random
import re
import shlex
import signal
import socket
import ssl
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
import tracemalloc
import types
import urllib.error
import urllib.parse
import urllib.request
import urllib.response
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

import pytest

import claude_batches
from claude_batches import (
    Anthropic,
    AnthropicError,
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BatchMayExistError,
    ContentTooLargeError,
    IncompleteResultsError,
    InternalServerError,
    InvalidRequestsError,
    MessageBatch,
    MessageBatchIndividualResponse,
    MessageTokensCount,
    ModelInfo,
    NotFoundError,
    OpenObject,
    Page,
    PermissionDeniedError,
    Sandbox,
    WaitTimeoutError,
    iter_json_lines,
)


class NoPause:
    """The time module as the module under test sees it, whose sleeps take no time and are noted."""

    monotonic, time = staticmethod(time.monotonic), staticmethod(time.time)

    def __init__(self):
        self.seconds = []
        self.sleep = self.seconds.append


@pytest.fixture(autouse=True)
def pauses(monkeypatch, tmp_path, caplog):
    """Nothing of the developer's reaches a test, no pause takes time, and no log shows the key."""
    for name in list(os.environ):
        if (
            name.upper().startswith(("ANTHROPIC_", "SSL_CERT"))
            or name.upper().endswith("_PROXY")
            or name in ("COLUMNS", "LINES")
        ):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    # Making one takes a while.
    real = ssl.create_default_context
    monkeypatch.setattr(
        ssl,
        "create_default_context",
        lambda *args, **given: (
            real(*args, **given)
            if args or given or "SSL_CERT_FILE" in os.environ
            else TLS
        ),
    )
    no_pause = NoPause()
    monkeypatch.setattr(claude_batches, "time", no_pause)
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }
    # Where it is ignored, a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    caplog.set_level(logging.DEBUG)
    # Where it runs in a deep list's parse, finalizers meet the recursion limit, which
    # ends Python 3.8.
    gc.disable()
    yield no_pause.seconds
    gc.enable()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert KEY not in caplog.text


# ---- The client's surface --------------------------------------------------------------------------------------

BASE, UTC = "https://api.test", timezone.utc
RAW = {
    "id": "b1",
    "type": "message_batch",
    "processing_status": "ended",
    "request_counts": {
        "processing": 0,
        "succeeded": 1,
        "errored": 1,
        "canceled": 0,
        "expired": 0,
    },
    "created_at": "2026-08-19T14:44:51.493319+00:00",
    "expires_at": "2026-08-20T14:44:51.493319Z",
    "ended_at": None,
    "results_url": "https://elsewhere.test/v2/%41%2F/x y?sig=a%2Fb&c=d",
}
SUCCEEDED = {
    "custom_id": "a",
    "result": {
        "type": "succeeded",
        "message": {
            "id": "msg_1",
            "role": "assistant",
            "stop_sequence": None,
            "container": {"id": "c1"},
            "content": [
                {
                    "type": "text",
                    "text": "h\u00e4 \u2028",
                    "citations": [{"type": "char_location", "start_char_index": 3}],
                },
                {
                    "type": "tool_use",
                    "id": "t1",
                    "name": "look",
                    "input": {"q": {"deep": [1, {"x": None}]}},
                },
                {
                    "type": "web_search_tool_result",
                    "content": [{"type": "web_search_result", "url": "u"}],
                },
                {"type": "a block of tomorrow", "payload": {"n": 1}},
            ],
            "stop_reason": "a reason of tomorrow",
            "stop_details": {"type": "refusal", "category": None},
            "usage": {
                "input_tokens": 1,
                "service_tier": "batch",
                "server_tool_use": {"web_search_requests": 1},
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 5,
                    "ephemeral_1h_input_tokens": 6,
                },
                "output_tokens_details": {"thinking_tokens": 7},
            },
        },
    },
}
ERRORED = {
    "custom_id": "b",
    "result": {
        "type": "errored",
        "error": {
            "type": "error",
            "request_id": None,
            "error": {
                "type": "invalid_request_error",
                "message": "no",
                "details": {"error_code": "x", "more": [{"y": 1}]},
            },
        },
    },
}
RAW_ROWS = "".join(json.dumps(row) + "\n" for row in (SUCCEEDED, ERRORED)).encode()
MODEL = {
    "id": "m1",
    "type": "model",
    "display_name": "M",
    "created_at": "2026-01-02T03:04:05Z",
    "lifecycle": "active",
    "deprecated_at": None,
    "max_tokens": 9,
    "capabilities": {"batch": {"supported": True}, "effort": {"low": {}}},
}
REQUESTS = [
    {
        "custom_id": "a",
        "params": {"messages": [{"role": "user", "content": "\u00e4\u2028\u0000"}]},
    }
]


def page(*ids, more=False, **fields):
    rows = [{"id": name} for name in ids]
    return {
        "data": rows,
        "has_more": more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        **fields,
    }


def api_error(kind="x_error", message="no", **more):
    return {
        "type": "error",
        "error": {"type": kind, "message": message, **more},
        "request_id": "req_body",
    }


class CannedResponse:
    """What http.client gives: status, headers, read, read1, close."""

    def __init__(self, status, headers, body):
        self.status, self.closed = status, False
        self.headers = email.message.Message()
        for name, value in {
            "Content-Type": "application/json",
            "Request-Id": "req_1",
            **headers,
        }.items():
            self.headers[name] = value
        raw = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        self.read, self.read1 = raw.read, raw.read1

    def close(self):
        self.closed = True


class CannedOpener:
    """Records requests and gives the answers in their order: JSON, bytes, (status, headers, body), or an exception."""

    def __init__(self, answers):
        self.answers, self.requests, self.responses = list(answers), [], []

    def open(self, request, timeout=None):
        url, data = urllib.parse.urlsplit(request.full_url), request.data
        request.wire = [
            request.get_method(),
            url.path,
            url.query,
            data if data is None or isinstance(data, bytes) else b"".join(data),
        ]
        request.sent = {name.lower(): value for name, value in request.header_items()}
        request.seconds = timeout
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.responses.append(
            CannedResponse(*answer if isinstance(answer, tuple) else (200, {}, answer))
        )
        return self.responses[-1]


def make(*answers, **options):
    """Return a client and the opener that gives it the answers."""
    opener = CannedOpener(answers)
    return Anthropic(
        **{"api_key": "k1", "base_url": BASE, "opener": opener, **options}
    ), opener


def sent(call, *answers, **options):
    """Return the requests of one call."""
    client, opener = make(*answers, **options)
    call(client)
    assert not opener.answers
    return opener.requests


@contextlib.contextmanager
def loopback(answer, status=200):
    """A server on 127.0.0.1 that answers everything alike: its URL, and a list of (request line, headers)."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_one_request(self):
            self.raw_requestline, self.close_connection = self.rfile.readline(), True
            if self.raw_requestline and self.parse_request():
                requests.append((self.requestline, self.headers))
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


def python(folder, code, *argv):
    """Run code in a fresh interpreter, modules of the folder first; return what it prints, which is no warning."""
    code = (
        "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, sys.argv[1])\n"
        + code
    )
    command = [
        sys.executable,
        "-I",
        "-S",
        "-W",
        "error",
        "-c",
        code,
        str(folder),
        *argv,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


# ---- The wire ---------------------------------------------------------------------------------------------------
# What is expected here is what the official SDK, 2.12.0, was seen to send.

B, C = "/v1/messages/batches", "/v1/messages/count_tokens"
BODY = (
    b'{"requests":[{"custom_id":"a","params":{"messages":'
    b'[{"role":"user","content":"\xc3\xa4\xe2\x80\xa8\\u0000"}]}}]}'
)
COUNT_BODY = b'{"messages":[{"role":"user","content":"\xc3\xa4"}],"model":"m"}'
MESSAGES = [{"role": "user", "content": "\u00e4"}]
# A call, its answers, and [method, path, query, body] of each request.
ASKS = {
    "create": (
        lambda c, **kw: c.messages.batches.create(requests=iter(REQUESTS), **kw),
        [RAW],
        [["POST", B, "", BODY]],
    ),
    "retrieve": (
        lambda c, **kw: c.messages.batches.retrieve("b1", **kw),
        [RAW],
        [["GET", B + "/b1", "", None]],
    ),
    "list": (
        lambda c, **kw: c.messages.batches.list(**kw),
        [page()],
        [["GET", B, "", None]],
    ),
    "cancel": (
        lambda c, **kw: c.messages.batches.cancel("b1", **kw),
        [RAW],
        [["POST", B + "/b1/cancel", "", None]],
    ),
    "delete": (
        lambda c, **kw: c.messages.batches.delete("b1", **kw),
        [{"id": "b1"}],
        [["DELETE", B + "/b1", "", None]],
    ),
    "results": (
        lambda c, **kw: list(c.messages.batches.results("b1", **kw)),
        [RAW, RAW_ROWS],
        [
            ["GET", B + "/b1", "", None],
            ["GET", "/v2/%41%2F/x%20y", "sig=a%2Fb&c=d", None],
        ],
    ),
    "wait": (
        lambda c, **kw: c.messages.batches.wait("b1", **kw),
        [{**RAW, "processing_status": "canceling"}, RAW],
        [["GET", B + "/b1", "", None]] * 2,
    ),
    "count_tokens": (
        lambda c, **kw: c.messages.count_tokens(
            model="m", messages=iter(MESSAGES), **kw
        ),
        [{"input_tokens": 3}],
        [["POST", C, "", COUNT_BODY]],
    ),
    "models.list": (
        lambda c, **kw: c.models.list(**kw),
        [page()],
        [["GET", "/v1/models", "", None]],
    ),
    "models.retrieve": (
        lambda c, **kw: c.models.retrieve("m 1", **kw),
        [MODEL],
        [["GET", "/v1/models/m%201", "", None]],
    ),
}


@pytest.mark.parametrize("name", ASKS)
def test_a_call_sends_what_the_sdk_sends(name):
    call, answers, wires = ASKS[name]
    requests = sent(call, *answers)
    assert [request.wire for request in requests] == wires
    for request in requests:
        is_rows = name == "results" and request is requests[-1]
        assert request.full_url.startswith(BASE + "/")
        assert (request.sent["authorization"], request.sent["anthropic-version"]) == (
            "Bearer k1",
            "2026-10-21",
        )
        assert request.sent["accept"] == "application/" + (
            "binary" if is_rows else "json"
        )
        assert request.sent.get("content-type") == (
            None if request.wire[0] == "GET" else "application/json"
        )
        assert request.sent["user-agent"].startswith("claude-batches/")
        assert request.seconds == (60.0 if name == "wait" else 600.0)


@pytest.mark.parametrize("name", ASKS)
def test_every_call_takes_the_common_options(name):
    call, answers, wires = ASKS[name]
    options = {
        "extra_headers": {"X-Custom": "1"},
        "extra_query": {"q": [1, True]},
        "timeout": 5,
        "workspace_id": "ws",
    }
    if name in ("create", "count_tokens"):
        options["user_profile_id"] = "up"
    requests = sent(lambda c: call(c, **options), *answers)
    assert {request.sent["anthropic-workspace-id"] for request in requests} == {"ws"}
    assert {request.seconds <= 5 for request in requests} == {True}
    assert name != "results" or (requests[0].wire, "x-custom" in requests[0].sent) == (
        wires[0],
        False,
    )
    assert requests[-1].sent["x-custom"] == "1"
    assert requests[-1].sent.get("anthropic-user-profile-id") == options.get(
        "user_profile_id"
    )
    query = wires[-1][2] + "&" if wires[-1][2] else ""
    assert (
        requests[-1].wire
        == wires[-1][:2] + [query + "q%5B%5D=1&q%5B%5D=true"] + wires[-1][3:]
    )


@pytest.mark.parametrize(
    ("name", "options", "query", "body", "default_query"),
    [
        (
            "create",
            {"extra_body": {"z": [1, None]}},
            "",
            BODY[:-1] + b',"z":[1,null]}',
            None,
        ),
        ("cancel", {"extra_body": {"a": 1}}, "", b'{"a":1}', None),
        ("retrieve", {"extra_body": {"a": 1}}, "", None, None),
        (
            "list",
            {"after_id": "a b", "before_id": None, "limit": 5},
            "after_id=a%20b&limit=5",
            None,
            None,
        ),
        ("list", {"before_id": "x/\u00e4"}, "before_id=x%2F%C3%A4", None, None),
        (
            "models.list",
            {"limit": 2, "lifecycle": ["active", "retired"]},
            "limit=2&lifecycle%5B%5D=active&lifecycle%5B%5D=retired",
            None,
            None,
        ),
        ("models.list", {"after_id": "x", "lifecycle": []}, "after_id=x", None, None),
        (
            "count_tokens",
            {"system": None, "extra_body": {"tools": []}},
            "",
            COUNT_BODY[:-1] + b',"system":null,"tools":[]}',
            None,
        ),
        (
            "list",
            {"limit": 5, "extra_query": {"a": 3}},
            "a=3&b=2&limit=5",
            None,
            {"a": 1, "b": 2, "limit": 1},
        ),
        ("list", {}, "limit=100", None, {"limit": 100}),
        ("models.list", {}, "lifecycle%5B%5D=active", None, {"lifecycle": ["active"]}),
    ],
)
def test_arguments_go_where_the_sdk_puts_them(
    name, options, query, body, default_query
):
    (request,) = sent(
        lambda c: ASKS[name][0](c, **options),
        *ASKS[name][1],
        default_query=default_query,
    )
    assert request.wire[2:] == [query, body]


@pytest.mark.parametrize(
    ("query", "wire"),
    [
        ({"a": True, "b": False, "c": None}, "a=true&b=false"),
        ({"a": (1, None, "x")}, "a[]=1&a[]=x"),
        ({"a": {"x": 1, "y": 2}.keys()}, "a[]=x&a[]=y"),
        ({"a": "x y+z&=/?#%\u00e4~"}, "a=x%20y%2Bz%26%3D%2F%3F%23%25%C3%A4~"),
        ({"a": "", "b": []}, "a="),
        ({"a b": 1.5}, "a%20b=1.5"),
        ({"limit": 9}, "limit=9"),
        ({"limit": None}, ""),
    ],
)
def test_a_query_is_written_as_by_the_sdk(query, wire):
    (default,) = sent(ASKS["retrieve"][0], RAW, default_query=query)
    query = {**query, "limit": query.get("limit")}
    (extra,) = sent(
        lambda c: c.messages.batches.list(limit=1, extra_query=query),
        page(),
        default_query={"limit": 1},
    )
    assert default.wire[2] == extra.wire[2] == wire.replace("[]", "%5B%5D")


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (types.MappingProxyType({"a": None}), {"a": None}),
        ((1, (2,)), [1, [2]]),
        ({1}, [1]),
        (collections.deque([1]), [1]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        (iter([1]), [1]),
        (
            claude_batches.ContentBlock(type="text", citations=[OpenObject(n=1)]),
            {"type": "text", "citations": [{"n": 1}]},
        ),
        (
            MessageBatch(created_at=datetime(2026, 1, 2, tzinfo=UTC)),
            {"created_at": "2026-01-02T00:00:00+00:00"},
        ),
    ],
)
def test_a_value_that_json_does_not_know_goes_out_as_from_the_sdk(value, wire):
    (request,) = sent(
        lambda c: c.messages.batches.create(
            requests=[{"custom_id": "a", "params": {"x": value}}]
        ),
        RAW,
    )
    assert json.loads(request.wire[3])["requests"][0]["params"] == {"x": wire}


@pytest.mark.parametrize(
    ("given", "segment"),
    [
        ("m b", "m%20b"),
        ("a/b?c#d", "a%2Fb%3Fc%23d"),
        ("a%2Fb", "a%252Fb"),
        ("\u00e4", "%C3%A4"),
        ("...", "..."),
        ("a:b@c!$&'()*,=~+", "a:b@c!$&'()*,=~+"),
        ("%2e", "%252e"),
        ("a;b", "a;b"),
        (5, "5"),
        ('a\nb\\[]{}"<>^`|', "a%0Ab%5C%5B%5D%7B%7D%22%3C%3E%5E%60%7C"),
    ],
)
def test_an_odd_id_stays_one_segment_of_the_path(given, segment):
    for call, path in (
        (lambda c: c.messages.batches.retrieve(given), B + "/" + segment),
        (lambda c: c.messages.batches.cancel(given), B + "/" + segment + "/cancel"),
        (lambda c: c.models.retrieve(given), "/v1/models/" + segment),
    ):
        assert sent(call, RAW)[0].wire[1] == path


@pytest.mark.parametrize("given", ["", None, ".", "..", "..;x", ";x"])
def test_an_empty_or_climbing_id_is_refused_before_anything_is_sent(given):
    client, opener = make()
    batches, words = client.messages.batches, "`%s`"
    if not given:
        words = f"Expected a non-empty value for `%s` but received {given!r}"
    for method in (
        batches.retrieve,
        batches.cancel,
        batches.delete,
        batches.results,
        batches.wait,
    ):
        with pytest.raises(ValueError, match=words.replace("%s", "message_batch_id")):
            method(given)
    with pytest.raises(InvalidRequestsError, match=words.replace("%s", "model_id")):
        client.models.retrieve(given)
    assert opener.requests == []


@pytest.mark.parametrize("path", ["", "/", "/gw", "/gw/", ":8080/a%20b"])
def test_base_url_may_have_a_port_and_a_path(path):
    assert sent(lambda c: c.models.retrieve("m"), MODEL, base_url=BASE + path)[
        0
    ].full_url == (BASE + path.rstrip("/") + "/v1/models/m")
    # As http.client asks.
    assert (
        Anthropic(api_key="k1", base_url="HTTP://Host/Path").base_url
        == "http://Host/Path"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *(
            ({"base_url": url}, "base_url")
            for url in (
                "ftp://h",
                "file:///x",
                "https://",
                "h",
                "//h",
                "https://user:secret@h",
                "https://h?a=secret",
                "https://h#f",
                "https://h:x",
                "https://h h",
                "https://h\n",
                "https://\u00e4",
                "http\u017f://h",
                5,
                "",
            )
        ),
        *(({"timeout": seconds}, "timeout") for seconds in (0, -1, float("nan"), "5")),
        *(({"max_retries": retries}, "max_retries") for retries in (-1, None, 1.5)),
        ({"auth_token": "t"}, "api_key or auth_token"),
    ],
)
def test_an_argument_that_cannot_work_is_refused(options, words):
    with pytest.raises(InvalidRequestsError, match=words) as caught:
        Anthropic(api_key="k1", **options)
    assert "user:secret" not in str(caught.value)


# ---- Credentials and headers -------------------------------------------------------------------------------------

VAR, TOKEN, CUSTOM = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_CUSTOM_HEADERS",
)


@pytest.mark.parametrize(
    ("environment", "options", "authorization", "x_api_key"),
    [
        ({VAR: "ek", TOKEN: "et"}, {"api_key": "arg"}, "Bearer arg", None),
        ({VAR: "ek", TOKEN: "et"}, {"auth_token": "arg"}, "Bearer arg", None),
        ({VAR: "ek", TOKEN: "et"}, {}, "Bearer ek", None),
        ({VAR: "", TOKEN: "et"}, {}, "Bearer et", None),
        ({VAR: " \n", TOKEN: " et\r\n"}, {}, "Bearer et", None),
        ({VAR: "\tek \n"}, {}, "Bearer ek", None),
        ({}, {"api_key": " arg\n"}, "Bearer arg", None),
        ({CUSTOM: "Authorization: Bearer x"}, {}, "Bearer x", None),
        ({CUSTOM: "authorization: Bearer x", VAR: "ek"}, {}, "Bearer x", None),
        ({CUSTOM: "X-Api-Key: k2"}, {}, None, "k2"),
        ({}, {"default_headers": {"AUTHORIZATION": "Basic x"}}, "Basic x", None),
        (
            {VAR: "ek"},
            {"default_headers": {"Authorization": None, "X-Api-Key": "k2"}},
            None,
            "k2",
        ),
        ({VAR: "ek"}, {"default_headers": {"X-API-KEY": "k2"}}, "Bearer ek", "k2"),
        ({}, {"default_headers": {"X-Api-Key": "k2"}}, None, "k2"),
        ({VAR: "", TOKEN: " ", CUSTOM: ""}, {}, None, None),
        ({VAR: "ek"}, {"api_key": ""}, None, None),
        ({}, {"default_headers": {"x-api-key": ""}}, None, None),
        ({VAR: "ek"}, {"default_headers": {"Authorization": ""}}, None, None),
    ],
)
def test_the_credential_is_the_argument_else_the_key_else_the_token(
    monkeypatch, environment, options, authorization, x_api_key
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    opener = CannedOpener([RAW])
    client = Anthropic(base_url=BASE, opener=opener, **options)
    # Told at the first request, not before.
    if not authorization and not x_api_key:
        with pytest.raises(AnthropicError, match=VAR):
            client.messages.batches.retrieve("b1")
        return
    client.messages.batches.retrieve("b1")
    (request,) = opener.requests
    assert (request.sent.get("authorization"), request.sent.get("x-api-key")) == (
        authorization,
        x_api_key,
    )
    # These a redirect would take along.
    assert not {"Authorization", "X-api-key"} & request.headers.keys()


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"api_key": "secret" + letter + "key"}
            for letter in "\n\r\x00\u00e4\u20ac\ud800"
        ),
        *(
            {"default_headers": headers}
            for headers in ({"A": "secret\n"}, {"A B": "secret"}, {"": "secret"})
        ),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_without_being_shown(options):
    client, opener = make(**options)
    with pytest.raises(InvalidRequestsError, match="header") as caught:
        client.messages.batches.create(requests=REQUESTS)
    error = caught.value
    assert "secret" not in "".join(
        traceback.format_exception(type(error), error, error.__traceback__)
    ) + repr(client)
    assert opener.requests == []


def test_a_retry_is_logged_at_debug_level_and_nothing_shows_the_key(caplog):
    caplog.set_level(logging.DEBUG)
    client, _ = make(
        (500, {}, api_error()),
        (401, {}, api_error(message="bad key sk-secret")),
        api_key="sk-secret",
    )
    with pytest.raises(AnthropicError, match="bad key") as caught:
        client.models.retrieve("m", extra_query={"q": "sk-private"})
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("claude_batches", logging.DEBUG)
    assert re.search(f"GET {BASE}/v1/models/m .*500", record.getMessage())
    shown = (
        repr((client, client.messages, client.models, caught.value, caught.value.body))
        + caplog.text
    )
    assert "sk-" not in shown


def test_the_environment_gives_base_url_and_headers(monkeypatch):
    opener = CannedOpener([RAW] * 3)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", BASE + "/env/")
    monkeypatch.setenv(
        CUSTOM, "X-Custom: a: b\nno header\n X-Other :c \r\nANTHROPIC-BETA: x,y"
    )
    client = Anthropic(api_key="k1", opener=opener, default_headers={"x-custom": "own"})
    client.messages.batches.retrieve("b1")
    client.messages.batches.retrieve(
        "b1", extra_headers={"X-CUSTOM": None, "x-other": "call"}
    )
    Anthropic(
        api_key="k1", opener=opener, default_headers={"X-Other": None}
    ).messages.batches.retrieve("b1")
    assert opener.requests[0].full_url == BASE + "/env/v1/messages/batches/b1"
    names = ("x-custom", "x-other", "anthropic-beta")
    assert [
        [request.sent.get(name) for name in names] for request in opener.requests
    ] == [["own", "c", "x,y"], [None, "call", "x,y"], ["a: b", None, "x,y"]]
    assert Anthropic(api_key="k1", base_url=BASE).base_url == BASE
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "")
    assert Anthropic(api_key="k1").base_url == "https://api.anthropic.com"


@pytest.mark.parametrize("layer", ["default_headers", "extra_headers"])
@pytest.mark.parametrize(
    ("headers", "wire"),
    [
        (
            {"Accept": "text/x", "ANTHROPIC-VERSION": "2023-06-01"},
            {"accept": "text/x", "anthropic-version": "2023-06-01"},
        ),
        (
            {"Accept": None, "Anthropic-Version": None},
            {"accept": None, "anthropic-version": None},
        ),
        ({"content-type": "text/x"}, {"content-type": "text/x"}),
        ({"Authorization": None}, {"authorization": None}),
        (
            {"anthropic-beta": "a,b", "X-Custom": ""},
            {"anthropic-beta": "a,b", "x-custom": ""},
        ),
        (
            {"X-Custom": "\u00e4"},
            {"x-custom": "\u00c3\u00a4"},
        ),  # UTF-8, since http.client sends Latin-1
        ({"Anthropic-Workspace-Id": "w"}, {"anthropic-workspace-id": "w"}),
        ({"X-Custom": 5}, {"x-custom": "5"}),
    ],
)
def test_a_header_of_the_callers_wins_and_none_leaves_it_out(layer, headers, wire):
    options, more = {layer: headers}, {}
    if layer == "extra_headers":
        options, more = {}, {**options, "workspace_id": "x"}
    (request,) = sent(
        lambda c: c.messages.batches.create(requests=REQUESTS, **more), RAW, **options
    )
    assert {name: request.sent.get(name) for name in wire} == wire


def test_none_leaves_the_content_type_out_too():
    with loopback({"input_tokens": 3}) as (url, requests):
        client = Anthropic(
            api_key="k1", base_url=url, default_headers={"Content-Type": None}
        )
        client.messages.count_tokens(model="m", messages=[])
    assert requests[0][1]["Content-Type"] is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"timeout": 3},
            {
                "authorization": "Bearer k1",
                "x-custom": "d",
                "x-other": "e",
                "query": "a=1&b=1",
                "seconds": 3,
            },
        ),
        ({"timeout": None}, {"seconds": None}),
        ({"auth_token": "t9"}, {"authorization": "Bearer t9"}),
        ({"api_key": "k9"}, {"authorization": "Bearer k9"}),
        ({"default_query": {"b": 2, "c": [3]}}, {"query": "a=1&b=2&c%5B%5D=3"}),
        (
            {"default_headers": {"X-CUSTOM": None, "x-new": "n"}},
            {"x-custom": None, "x-other": "e", "x-new": "n"},
        ),
        (
            {"base_url": "https://two.test/gw"},
            {"url": "https://two.test/gw/v1/models/m", "authorization": "Bearer k1"},
        ),
        (
            {"base_url": None, "api_key": None, "auth_token": None},
            {"url": BASE + "/v1/models/m", "authorization": "Bearer k1"},
        ),
        ({"api_key": None, "auth_token": "t9"}, {"authorization": "Bearer t9"}),
    ],
)
def test_with_options_changes_what_it_names_and_keeps_the_rest(changes, expected):
    headers, query = {"X-Custom": "d", "X-Other": "e"}, {"a": 1, "b": 1}
    client, opener = make(MODEL, MODEL, default_headers=headers, default_query=query)
    with client.with_options(**changes) as changed:
        changed.models.retrieve("m")
    client.models.retrieve("m")
    first, second = opener.requests
    url, _, query = first.full_url.partition("?")
    found = {**first.sent, "url": url, "query": query, "seconds": first.seconds}
    assert {name: found.get(name) for name in expected} == expected
    assert (second.sent["x-custom"], second.wire[2], second.seconds, second.host) == (
        "d",
        "a=1&b=1",
        600.0,
        "api.test",
    )


# ---- Objects -----------------------------------------------------------------------------------------------------


def take(kind, fields):
    """Return an object as a call returns it."""
    if kind is MessageBatchIndividualResponse:
        client, _ = make(
            {**RAW, "request_counts": None}, json.dumps(fields).encode() + b"\n"
        )
        return next(client.messages.batches.results("b1"))
    return ASKS[
        {MessageBatch: "retrieve", ModelInfo: "models.retrieve"}.get(
            kind, "count_tokens"
        )
    ][0](make(fields)[0])


def touch(value):
    """Read every field of an object and of those inside it."""
    for item in value if isinstance(value, list) else [value]:
        if dataclasses.is_dataclass(item):
            for name in {field.name for field in dataclasses.fields(item)} | vars(
                item
            ).keys():
                touch(getattr(item, name))


WHOLE = pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (MessageBatch, RAW),
        (ModelInfo, MODEL),
        (MessageTokensCount, {"input_tokens": 3}),
        (MessageBatchIndividualResponse, SUCCEEDED),
        (MessageBatchIndividualResponse, ERRORED),
    ],
)


@pytest.mark.parametrize(
    ("kind", "fields", "path", "value"),
    [
        (MessageBatch, RAW, "request_counts.succeeded", 1),
        (MessageBatch, RAW, "cancel_initiated_at", None),
        (ModelInfo, MODEL, "capabilities.batch.supported", True),
        (ModelInfo, MODEL, "retires_at", None),
        (ModelInfo, MODEL, "capabilities.none_such", None),
        (ModelInfo, MODEL, "capabilities.effort.low.supported", None),
        *(
            (MessageBatchIndividualResponse, ERRORED, "result." + path, value)
            for path, value in (
                ("error.type", "error"),
                ("error.request_id", None),
                ("error.error.type", "invalid_request_error"),
                ("error.error.message", "no"),
                ("error.error.details.more.0.y", 1),
                ("message", None),
            )
        ),
        *(
            (MessageBatchIndividualResponse, SUCCEEDED, "result.message." + path, value)
            for path, value in (
                ("container.id", "c1"),
                ("stop_details.type", "refusal"),
                ("stop_sequence", None),
                ("model", None),
                ("stop_reason", "a reason of tomorrow"),
                ("usage.input_tokens", 1),
                ("usage.output_tokens", None),
                ("usage.cache_creation.ephemeral_5m_input_tokens", 5),
                ("usage.cache_creation.ephemeral_1h_input_tokens", 6),
                ("usage.server_tool_use.web_search_requests", 1),
                ("usage.output_tokens_details.thinking_tokens", 7),
                ("usage.service_tier", "batch"),
                ("usage.inference_geo", None),
                ("usage.cache_creation.none_such", None),
                ("content.0.text", "h\u00e4 \u2028"),
                ("content.0.citations.0.start_char_index", 3),
                ("content.1.input", {"q": {"deep": [1, {"x": None}]}}),
                ("content.2.content.0.url", "u"),
                ("content.3.type", "a block of tomorrow"),
                ("content.3.payload", {"n": 1}),
            )
        ),
    ],
)
def test_every_nested_object_is_read_by_attribute(kind, fields, path, value):
    found = take(kind, fields)
    for name in path.split("."):
        found = found[int(name)] if name.isdigit() else getattr(found, name)
    assert (type(found), found) == (type(value), value)


@WHOLE
def test_to_dict_gives_the_json_back_exactly(kind, fields):
    found = take(kind, fields)
    for _ in range(2):
        assert json.dumps(found.to_dict()) == json.dumps(fields)
        found.to_dict().clear()
        touch(found)


@WHOLE
def test_objects_compare_print_pickle_and_copy(kind, fields):
    found, other = take(kind, fields), take(kind, fields)
    for _ in range(2):
        for clone in (
            pickle.loads(pickle.dumps(found)),
            copy.deepcopy(found),
            copy.copy(found),
        ):
            assert (type(clone), clone, clone._request_id) == (
                kind,
                other,
                found._request_id,
            )
            assert clone.to_dict() == fields
        assert found == other
        assert found not in (kind(), fields)
        touch(found)
    assert found._request_id == (
        None if kind is MessageBatchIndividualResponse else "req_1"
    )
    assert re.match(
        rf"{kind.__name__}\({next(iter(fields))}=['3]", repr(found)
    ) and repr(found) == repr(other)


def test_objects_are_dataclasses_whose_missing_fields_are_none_and_unknown_ones_pass():
    for kind in (getattr(claude_batches, name) for name in claude_batches.__all__):
        if hasattr(kind, "to_dict") and kind is not Page:
            assert dataclasses.is_dataclass(kind)
            assert {
                getattr(kind(), field.name) for field in dataclasses.fields(kind)
            } <= {None}
    made = MessageBatch(id="b", created_at="2026-01-01T00:00:00Z")
    assert (
        made.created_at.year,
        dataclasses.replace(made, id="c").id,
        made._request_id,
    ) == (2026, "c", None)
    made.created_at = datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1)))
    assert made.to_dict()["created_at"] == "2026-01-02T00:00:00+01:00"
    batch = take(
        MessageBatch,
        {
            "id": "b",
            "processing_status": "paused",
            "new": {"a": [1]},
            "request_counts": "many",
        },
    )
    found = (batch.processing_status, batch.new, batch.request_counts, batch.type)
    assert found == ("paused", {"a": [1]}, "many", None)
    assert not hasattr(batch, "none_such")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-08-19T14:44:51.493319+00:00", (14, 44, 51, 493319)),
        ("2026-08-19T14:44:51Z", (14, 44, 51)),
        ("2026-08-19T14:44:51+00:00", (14, 44, 51)),
        ("2026-08-19T14:44:51", (14, 44, 51)),
        ("2026-08-19t14:44:51.4z", (14, 44, 51, 400000)),
        ("2026-08-19 14:44:51.493Z", (14, 44, 51, 493000)),
        ("2026-08-19T14:44:51.493319999Z", (14, 44, 51, 493319)),
        ("2026-08-19T14:44:51.493-02:30", (17, 14, 51, 493000)),
        ("2026-13-19T14:44:51Z", None),
        ("2026-08-19", None),
        ("2026-08-19T14:44:51Z\n", None),
        ("", None),
        (5, None),
    ],
)
def test_times_are_aware_datetimes_in_every_form_of_the_wire(text, moment):
    batch = take(MessageBatch, {"id": "b", "created_at": text, "archived_at": text})
    assert (
        batch.created_at
        == batch.archived_at
        == (moment and datetime(2026, 8, 19, *moment, tzinfo=UTC))
    )
    assert batch.to_dict()["created_at"] == text


def test_a_field_never_hides_a_method():
    hidden = dict.fromkeys(
        (
            "to_dict",
            "_request_id",
            "_headers",
            "_take",
            "__class__",
            "__dict__",
            "__eq__",
        ),
        1,
    )
    batch, model = (
        take(MessageBatch, {"id": "b", **hidden}),
        take(ModelInfo, {"capabilities": dict(hidden)}),
    )
    assert (batch.to_dict(), batch._request_id, copy.deepcopy(batch)) == (
        {"id": "b", **hidden},
        "req_1",
        batch,
    )
    assert repr(batch).startswith(
        "MessageBatch(id='b', to_dict=1, "
    ) and "to_dict=1" in repr(model)
    assert (
        repr(OpenObject(__dataclass_fields__=1)) == "OpenObject(__dataclass_fields__=1)"
    )
    assert (type(model.capabilities), model.capabilities.to_dict()) == (
        OpenObject,
        hidden,
    )
    names = (
        "to_dict",
        "iter_pages",
        "has_next_page",
        "next_page_info",
        "get_next_page",
        "_params",
        "_fetch",
    )
    fields = page("1", more=True, _request_id=1, **dict.fromkeys(names, 1))
    first = make(fields, page("2"))[0].messages.batches.list()
    assert [batch.id for batch in first] == ["1", "2"]
    assert (first.has_next_page(), first._request_id, first.to_dict()) == (
        True,
        "req_1",
        fields,
    )


# ---- Pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "pages", "queries"),
    [
        (
            {"limit": 2},
            [page("1", "2", more=True), page("3", more=True), page("4")],
            ["limit=2", "after_id=2&limit=2", "after_id=3&limit=2"],
        ),
        (
            {"before_id": "9"},
            [page("7", "8", more=True), page("6")],
            ["before_id=9", "before_id=7"],
        ),
        (
            {"before_id": "9", "after_id": "1"},
            [page("7", "8", more=True), page("6")],
            ["after_id=1&before_id=9", "after_id=1&before_id=7"],
        ),
        (
            {"extra_query": {"q": 1}, "workspace_id": "w"},
            [page("1", more=True), page("2")],
            ["q=1", "after_id=1&q=1"],
        ),
        (
            {"extra_query": {"before_id": "9"}},
            [page("7", more=True), page("6")],
            ["before_id=9", "before_id=7"],
        ),
        (
            {"extra_query": {"after_id": "1"}},
            [page("7", more=True), page("6")],
            ["after_id=1", "after_id=7"],
        ),
        (
            {},
            [page("1", more=None), page("2", more=None), page(more=None)],
            ["", "after_id=1", "after_id=2"],
        ),
        (
            {},
            [{"data": [{"id": "1"}], "last_id": "1"}, {"data": []}],
            ["", "after_id=1"],
        ),
        ({}, [page(more=True, last_id="x")], [""]),
        ({}, [page("1", more=True, last_id=None)], [""]),
    ],
)
def test_iterating_goes_through_all_pages_in_the_direction_asked_for(
    options, pages, queries
):
    client, opener = make(*pages)
    found = [batch.id for batch in client.messages.batches.list(**options)]
    assert found == [row["id"] for part in pages for row in part["data"]]
    assert [
        "&".join(sorted(request.wire[2].split("&"))) for request in opener.requests
    ] == queries
    assert {
        request.sent.get("anthropic-workspace-id") for request in opener.requests
    } == {options.get("workspace_id")}


def test_a_page_is_fetched_only_when_it_is_reached():
    client, opener = make(page("1", "2", more=True), page("3", more=True), page("4"))
    first = client.messages.batches.list()
    batches = iter(first)
    for wanted, requests in (("1", 1), ("2", 1), ("3", 2), ("4", 3)):
        assert (next(batches).id, len(opener.requests)) == (wanted, requests)
    assert (next(batches, None), [batch.id for batch in first.data]) == (
        None,
        ["1", "2"],
    )
    client, opener = make(page("1", more=True), page("2"))
    pages = client.models.list(lifecycle=["active"]).iter_pages()
    assert (
        next(pages).last_id,
        len(opener.requests),
        [item.last_id for item in pages],
    ) == ("1", 1, ["2"])
    assert opener.requests[1].wire[2].count("lifecycle%5B%5D=active") == 1


def test_pages_by_hand():
    client, _ = make(
        page("7", "8", more=True, new=1), page("5", "6", more=True), page("4")
    )
    first = client.messages.batches.list(before_id="9")
    second = first.get_next_page()
    third = second.get_next_page()
    assert (first.next_page_info().params, second.next_page_info().params) == (
        {"before_id": "7"},
        {"before_id": "5"},
    )
    assert (first.has_more, first.first_id, first.last_id, first.new) == (
        True,
        "7",
        "8",
        1,
    )
    assert [item.has_next_page() for item in (first, second, third)] == [
        True,
        True,
        False,
    ]
    assert (type(third.data[0]), third.to_dict()) == (MessageBatch, page("4"))
    with pytest.raises(RuntimeError, match="has_next_page"):
        third.get_next_page()


@pytest.mark.parametrize("options", [{}, {"before_id": "z"}])
@pytest.mark.parametrize("cursors", ["AAAAAAAA", "ABABABAB", "XABCABCA"])
def test_a_cursor_that_repeats_ends_with_an_error(cursors, options):
    client, opener = make(*(page(cursor, more=True) for cursor in cursors))
    with pytest.raises(APIResponseValidationError, match="list"):
        list(client.messages.batches.list(**options))
    assert len(opener.requests) <= len(set(cursors)) + 1
    client, _ = make(page("A", more=True), page("A", more=True))
    # By hand, too.
    with pytest.raises(APIResponseValidationError, match="list"):
        client.messages.batches.list(**options).get_next_page().get_next_page()


def test_a_page_is_usable_alone():
    alone, asked = Page(data=[1, 2]), []
    assert (list(alone), alone.has_next_page(), alone.next_page_info()) == (
        [1, 2],
        False,
        None,
    )
    with pytest.raises(RuntimeError):
        alone.get_next_page()
    for params, wanted in (
        ({"limit": 1}, {"limit": 1, "after_id": "b"}),
        ({"before_id": "c"}, {"before_id": "a"}),
    ):
        first = Page(
            data=[1],
            first_id="a",
            last_id="b",
            params=params,
            fetch=lambda params: asked.append(params) or Page(data=[2]),
        )
        assert (list(first), asked[-1]) == ([1, 2], wanted)


# ---- JSON Lines --------------------------------------------------------------------------------------------------

LINES = '\r\n{"a": "x\u2028y\u2029\u0085z"}\r\n\n  \n[1, "\u00e4"]\n"\U0001f600"\r\n{"last": null}'.encode()
VALUES = [{"a": "x\u2028y\u2029\u0085z"}, [1, "\u00e4"], "\U0001f600", {"last": None}]


def test_lines_are_the_same_wherever_the_blocks_are_cut(tmp_path):
    for cut in range(len(LINES) + 1):
        assert list(iter_json_lines([LINES[:cut], b"", LINES[cut:]])) == VALUES
        assert (
            list(
                iter_json_lines(
                    [LINES[:cut], LINES[cut : cut + 1], LINES[cut + 1 :] + b"\n"]
                )
            )
            == VALUES
        )
    assert (
        list(iter_json_lines(LINES[index : index + 1] for index in range(len(LINES))))
        == VALUES
    )
    assert (
        list(iter_json_lines([])) == list(iter_json_lines([b"", b"\n", b" \r\n"])) == []
    )
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    with (tmp_path / "rows.jsonl").open("rb") as file:
        assert list(iter_json_lines(file)) == VALUES
    blocks = iter([b"1\n2", b"\n", b"not read yet"])
    rows = iter_json_lines(blocks)
    assert (next(rows), next(rows), next(blocks)) == (1, 2, b"not read yet")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"{}\n\n{]\n{}", 3),
        (b"{}\r\n{} {}\r\n", 2),
        (b'"\xff"\n', 1),
        (b"{}\n{", 2),
        (b"[" * 100_000, 1),
    ],
)
def test_a_line_that_is_not_json_is_named(text, number):
    with pytest.raises(APIResponseValidationError, match=f"line {number} is not JSON"):
        list(iter_json_lines([text[:3], text[3:]]))


# ---- Errors ------------------------------------------------------------------------------------------------------

STATUS = {
    400: "BadRequest",
    401: "Authentication",
    402: "PaymentRequired",
    403: "PermissionDenied",
    404: "NotFound",
    408: "RequestTimeout",
    409: "Conflict",
    413: "ContentTooLarge",
    422: "UnprocessableEntity",
    429: "RateLimit",
    500: "InternalServer",
    502: "InternalServer",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
    529: "Overloaded",
    599: "InternalServer",
    405: "APIStatus",
    418: "APIStatus",
}


def failure(status, body, **headers):
    client, opener = make((status, headers, body), max_retries=0)
    with pytest.raises(APIStatusError) as caught:
        client.messages.batches.retrieve("b1")
    assert opener.responses[0].closed
    return caught.value


@pytest.mark.parametrize("status", STATUS)
def test_a_status_is_an_error_of_its_class_with_all_that_the_answer_tells(status):
    body = api_error("some_error", "what is wrong", details={"error_code": "c"})
    error = failure(status, body, **{"Retry-After": "7"})
    assert (type(error).__name__, isinstance(error, InternalServerError)) == (
        STATUS[status] + "Error",
        status >= 500,
    )
    assert (error.status_code, error.request_id, error.type, error.body) == (
        status,
        "req_1",
        "some_error",
        body,
    )
    assert (error.api_message, error.details, error.error_code) == (
        "what is wrong",
        {"error_code": "c"},
        "c",
    )
    assert (error.message, error.headers["retry-after"]) == (str(error), "7")
    for words in (
        str(status),
        "some_error",
        "what is wrong",
        "req_1",
        "/v1/messages/batches/b1",
    ):
        assert words in str(error)
    for clone in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (type(clone), str(clone), vars(clone)) == (
            type(error),
            str(error),
            vars(error),
        )
    assert type(error)("made by hand").status_code == {
        502: 500,
        599: 500,
        405: None,
        418: None,
    }.get(status, status)


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"<html>\n<b>large</b></html>", "<html>\n<b>large</b></html>"),
        (b"", ""),
        (b"\xff", "\ufffd"),
        (b"[1]", [1]),
        (b"null", None),
        (b'{"error": "text"}', {"error": "text"}),
        (b'{"error": {"type": 5}}', {"error": {"type": 5}}),
        (b"[" * 100_000, "[" * 100_000),
        (b'{"type": "error", "error": null}', {"type": "error", "error": None}),
    ],
)
def test_an_error_body_may_be_anything(raw, body):
    error = failure(413, raw, **{"Content-Type": "text/html"})
    assert (type(error).__name__, error.body, error.request_id) == (
        "ContentTooLargeError",
        body,
        "req_1",
    )
    assert re.search("413.*req_1", str(error))
    assert len(str(error)) < 500
    assert b"html" not in raw or "<html> <b>large</b></html>" in str(error)
    assert failure(404, api_error(), **{"Request-Id": ""}).request_id == "req_body"


def test_an_http_error_that_the_opener_raises_is_an_answer():
    response = CannedResponse(404, {}, api_error())
    with pytest.raises(NotFoundError, match="x_error"):
        make(urllib.error.HTTPError(BASE, 404, "no", response.headers, response))[
            0
        ].models.retrieve("m")


def test_results_whose_row_was_interrupted_do_not_look_whole_afterwards(monkeypatch):
    def interrupt(row):
        raise KeyboardInterrupt

    results = make({**RAW, "request_counts": {"succeeded": 2}}, RAW_ROWS)[
        0
    ].messages.batches.results("b1")
    monkeypatch.setattr(claude_batches, "MessageBatchIndividualResponse", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(results)
    with pytest.raises(IncompleteResultsError, match="1 of 2 rows came"):
        list(results)


def test_results_that_were_interrupted_do_not_look_whole_afterwards(monkeypatch):
    client, opener = make({**RAW, "request_counts": {"succeeded": 2}}, RAW_ROWS)
    results = client.messages.batches.results("b1")
    blocks = iter([RAW_ROWS[: RAW_ROWS.index(b"\n") + 1]])
    monkeypatch.setattr(
        opener.responses[-1], "read1", lambda size: next(blocks, None) or interrupt()
    )

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(results)
    for _ in range(2):
        with pytest.raises(
            IncompleteResultsError,
            match="b1: 1 of 2 rows came; then: KeyboardInterrupt",
        ) as caught:
            list(results)
        assert (caught.value.expected, caught.value.received) == (2, 1)


def test_errors_of_every_kind_pickle_and_keep_their_fields():
    batch = MessageBatch(id="b")
    for error in (
        AnthropicError("a"),
        InvalidRequestsError("a"),
        WaitTimeoutError("a", batch=batch),
        APIConnectionError("a"),
        APIError("a", body={"x": 1}),
        APITimeoutError("a"),
        APIResponseValidationError("a"),
        IncompleteResultsError("a", expected=None, received=2),
        BatchMayExistError(
            "a",
            request_count=3,
            sent_at=datetime(2026, 1, 1, tzinfo=UTC),
            candidates=[batch],
        ),
    ):
        for clone in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert (type(clone), str(clone), vars(clone)) == (
                type(error),
                "a",
                vars(error),
            )
    error = APIError("a")
    assert [
        error.message,
        error.status_code,
        error.request_id,
        error.type,
        error.body,
    ] == ["a", None, None, None, None]


def test_results_of_a_running_batch_fail_at_the_call():
    client, opener = make(
        {**RAW, "results_url": None, "processing_status": "in_progress"}
    )
    with pytest.raises(AnthropicError, match="b1.*in_progress"):
        client.messages.batches.results("b1")
    assert len(opener.requests) == 1


@pytest.mark.parametrize(
    "answer", [(404, {}, api_error()), (500, {}, b""), (200, {}, b"<html>"), OSError()]
)
def test_an_error_that_is_let_go_takes_its_answer_along(answer):
    client, opener = make(answer, max_retries=0)
    with pytest.raises(APIError) as caught:
        client.messages.batches.retrieve("b1")
    left = [weakref.ref(one) for one in [caught.value, *opener.responses]]
    opener.responses.clear()
    # No cycle: the collector is off.
    del caught, answer
    assert [ref() for ref in left] == [None] * len(left)


# ---- Retries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name in ASKS if name not in ("create", "wait")]
)
@pytest.mark.parametrize(
    ("status", "should", "tries"),
    [
        (408, None, 3),
        (409, None, 3),
        (429, None, 3),
        (500, None, 3),
        (529, None, 3),
        (599, None, 3),
        (500, "odd", 3),
        (400, "true", 3),
        (404, "true", 3),
        (429, "false", 1),
        (500, "false", 1),
        (404, None, 1),
        (418, None, 1),
    ],
)
def test_a_call_that_makes_nothing_is_repeated_by_the_sdks_rule(
    name, status, should, tries
):
    client, opener = make(
        *[(status, {"x-should-retry": should} if should else {}, api_error())] * 9
    )
    with pytest.raises(APIStatusError) as caught:
        ASKS[name][0](client)
    assert (caught.value.status_code, len(opener.requests)) == (status, tries)
    assert [
        request.sent.get("x-stainless-retry-count") for request in opener.requests
    ] == [None, "1", "2"][:tries]
    assert all(request.wire == opener.requests[0].wire for request in opener.requests)


# They are two before 3.10.
def test_a_timeout_by_either_name_is_one():
    for error in (
        socket.timeout(),
        TimeoutError(),
        urllib.error.URLError(TimeoutError()),
    ):
        with pytest.raises(APITimeoutError):
            make(error, max_retries=0)[0].models.retrieve("m")


@pytest.mark.parametrize("retries", [0, 1, 5])
@pytest.mark.parametrize(
    "answer", [(429, {}, b""), ConnectionResetError(), (200, {}, b"<html>")]
)
def test_max_retries_is_how_often_a_call_is_repeated(answer, retries):
    client, opener = make(*[answer] * retries, RAW, max_retries=retries)
    assert client.with_options(timeout=1).messages.batches.retrieve("b1").id == "b1"
    client, opener = make(*[answer] * 9, max_retries=retries)
    with pytest.raises(APIError):
        client.messages.batches.retrieve("b1")
    assert len(opener.requests) == retries + 1


def test_the_pause_without_advice_doubles_up_to_eight_seconds_less_a_quarter(pauses):
    sent(
        lambda c: c.messages.batches.retrieve("b1"),
        *[(500, {}, b"")] * 7,
        RAW,
        max_retries=7,
    )
    parts = [
        seconds / longest for seconds, longest in zip(pauses, (0.5, 1, 2, 4, 8, 8, 8))
    ]
    assert 0.75 <= min(parts) < max(parts) <= 1
    assert len(pauses) == 7


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "3"}, 3, 3),
        ({"Retry-After": "0.5"}, 0.5, 0.5),
        ({"retry-after-ms": "1500"}, 1.5, 1.5),
        ({"retry-after": "3", "retry-after-ms": "10"}, 0.01, 0.01),
        ({"retry-after": "4000"}, 4000, 4000),
        ({"retry-after": "1e99"}, 4_294_967, 4_294_967),
        ({"retry-after": "2", "retry-after-ms": "x"}, 2, 2),
        ({"retry-after": "date"}, 27, 30),
        ({"retry-after": "Fri, 29 Sep 2023 16:26:57 GMT"}, 0.375, 0.5),
        *(
            ({"retry-after": text}, 0.375, 0.5)
            for text in ("0", "-1", "soon", "nan", "")
        ),
        ({"retry-after": "2", "retry-after-ms": "0"}, 0.375, 0.5),
    ],
)
def test_the_pause_is_what_the_answer_asks_for(pauses, headers, low, high):
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    headers = {
        name: date if value == "date" else value for name, value in headers.items()
    }
    sent(lambda c: c.messages.batches.retrieve("b1"), (429, headers, b""), RAW)
    (seconds,) = pauses
    assert low <= seconds <= high


# ---- The file ----------------------------------------------------------------------------------------------------

MODULE = pathlib.Path(claude_batches.__file__)
SOURCE = MODULE.read_text(encoding="utf-8")
ABOVE = SOURCE.partition("# Everything above is the client")[0]
TREE = ast.parse(SOURCE)


def test_the_file_says_what_may_be_done_with_it():
    assert "SPDX-License-Identifier: MIT-0" in SOURCE.split('"""')[0]
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", claude_batches.__version__)


def test_all_is_true():
    public = {
        name
        for name, value in vars(claude_batches).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == claude_batches.__name__
    }
    assert len(claude_batches.__all__) == len(set(claude_batches.__all__))
    assert [
        name for name in claude_batches.__all__ if not hasattr(claude_batches, name)
    ] == []
    # Main is the console script's.
    assert public - {*claude_batches.__all__, "main"} == set()


def test_the_tree_of_errors_is_that_of_the_docstring():
    parents, named = {-1: Exception}, set()
    for indent, names in re.findall(
        r"^    ([ │├└─]*)(\w+Error.*)$", claude_batches.__doc__, re.MULTILINE
    ):
        # A line without its own branch goes on with the one above.
        depth = len(indent)
        for name in re.findall(r"\w+Error\b", re.sub(r"\(.*?\)", "", names)):
            kind = getattr(claude_batches, name)
            assert (
                parents[max(level for level in parents if level < depth)]
                in kind.__bases__
            ), name
            named.add(name)
        parents = {
            **{level: base for level, base in parents.items() if level < depth},
            depth: kind,
        }
    assert named == set(re.findall(r"^class (\w+Error)\b", ABOVE, re.MULTILINE))
    assert (
        InvalidRequestsError.__mro__.count(ValueError),
        WaitTimeoutError.__mro__.count(TimeoutError),
    ) == (1, 1)


def test_only_the_standard_library_is_imported():
    library = pathlib.Path(sysconfig.get_path("stdlib")).resolve()
    nodes = [
        node
        for node in ast.walk(TREE)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    names = {
        name.partition(".")[0]
        for node in nodes
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    # The locks of POSIX and of Windows.
    for name in names - {
        *sys.builtin_module_names,
        "fcntl",
        "msvcrt",
    }:
        origin = importlib.util.find_spec(name).origin
        is_site = (
            "site-packages" in origin
            or library not in pathlib.Path(origin).resolve().parents
        )
        assert origin == "frozen" or not is_site, name


def test_every_public_class_and_function_has_a_docstring():
    kinds = (ast.FunctionDef, ast.ClassDef)
    public = [
        node
        for scope in [TREE, *TREE.body]
        if isinstance(scope, (ast.Module, ast.ClassDef))
        for node in scope.body
        if isinstance(node, kinds)
        and not node.name.startswith("_")
        and not getattr(scope, "name", "").startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_no_function_is_over_50_lines():
    assert [
        node.name
        for node in ast.walk(TREE)
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 50
    ] == []


def test_importing_is_quiet_and_loads_nothing_that_is_not_needed():
    loaded = python(MODULE.parent, "import claude_batches; print(*sys.modules)").split()
    assert "claude_batches" in loaded
    assert not {
        "typing",
        "http.server",
        "logging",
        "argparse",
        "asyncio",
        "socketserver",
    } & set(loaded)


def test_the_part_above_the_line_works_on_its_own(tmp_path):
    (tmp_path / "claude_batches.py").write_text(ABOVE, encoding="utf-8")
    with loopback({"id": "m1", "input_tokens": 3}) as (url, requests):
        printed = python(
            tmp_path,
            """
from claude_batches import *
import claude_batches
with Anthropic(api_key="k1", base_url=sys.argv[2]) as client:
    print(client.models.retrieve("m").id, client.messages.count_tokens(model="m", messages=[]).input_tokens)
    print(client.messages.batches.create(requests=[{"custom_id": "a", "params": {}}]).id)
print("logging" in sys.modules, [name for name in claude_batches.__all__ if name not in globals()])
""",
            url,
        )
    assert printed.split("\n") == ["m1 3", "m1", "False []"]
    assert [line.split()[:2] for line, _ in requests] == [
        ["GET", "/v1/models/m"],
        ["POST", C],
        ["POST", B],
    ]


# ---- Proxies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "no_proxy", "line"),
    [
        ("http://api.test", "", "GET http://api.test/v1/models/m HTTP/1.1"),
        ("http://api.test", "other.test", "GET http://api.test/v1/models/m HTTP/1.1"),
        *(
            (base_url, no_proxy, None)
            for base_url, no_proxy in (
                ("http://api.test:%d", "api.test"),
                ("http://api.test:%d", ".test,x"),
                ("http://api.test:%d", "*"),
                *(
                    (f"http://{host}:%d", "")
                    for host in ("127.0.0.1", "LocalHost", "127.1.2.3", "127.1")
                ),
            )
        ),
        ("http://127.evil.test", "", "GET http://127.evil.test/v1/models/m HTTP/1.1"),
    ],
)
def test_the_environments_proxy_is_used_but_for_loopback_and_no_proxy(
    monkeypatch, base_url, no_proxy, line
):
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **kw: resolve("127.0.0.1", *rest, **kw),
    )
    with loopback(MODEL) as (proxy, through), loopback(MODEL) as (direct, straight):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", no_proxy)
        base_url = base_url.replace("%d", str(urllib.parse.urlsplit(direct).port))
        assert (
            Anthropic(api_key="k1", base_url=base_url, max_retries=0)
            .models.retrieve("m")
            .id
            == "m1"
        )
    assert [found for found, _ in through] == ([line] if line else [])
    assert [found for found, _ in straight] == (
        [] if line else ["GET /v1/models/m HTTP/1.1"]
    )


def test_a_proxy_of_https_sees_the_host_and_not_the_key(monkeypatch):
    with loopback({}, status=502) as (proxy, through):
        monkeypatch.setenv("https_proxy", proxy.replace("//", "//user:word@"))
        with pytest.raises(APIConnectionError):
            Anthropic(
                api_key="sk-secret", base_url="https://api.test", max_retries=0
            ).models.retrieve("m")
    ((line, headers),) = through
    assert line.startswith("CONNECT api.test:443 ")
    assert "sk-secret" not in str(headers)
    assert (
        headers["Proxy-Authorization"]
        == "Basic " + base64.b64encode(b"user:word").decode()
    )


# ---- The promises on a hostile network -------------------------------------------------------------------------

KEY = "sk-ant-test-SECRET-0123456789"
BATCHES = "/v1/messages/batches"
REAL_BACKOFF = claude_batches._backoff
STARTED = time.time()
# Takes a while to make: one for all clients that speak no TLS.
UNTRUSTING = ssl.create_default_context()
# It keeps what arrived before a reset; others may lose it.
LINUX = sys.platform == "linux"

# ---- A server that can fail in every way ------------------------------------------------------------------------


class Answer(NamedTuple):
    """What the server does: read the body (or its first ``read`` bytes), send ``sent``, and end."""

    sent: bytes = b""
    # Or rst, or stall: keep silent until the test ends.
    end: str = "fin"
    read: int | None = None


def reply(
    status=200,
    body=b"{}",
    headers=(),
    *,
    framing="length",
    cut=None,
    end="fin",
    read=None,
    date=None,
):
    """Return an answer whose bytes from ``cut`` on are left out; ``framing`` is length, chunked or close."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {
        "Date": email.utils.formatdate(date or time.time(), usegmt=True),
        "Content-Type": "application/json",
        "request-id": "req_1",
        **dict(headers),
    }
    if framing == "length":
        fields.setdefault("Content-Length", str(len(body)))
    elif framing == "chunked":
        fields["Transfer-Encoding"] = "chunked"
        body = b"".join(
            b"%x\r\n%b\r\n" % (len(body[at : at + 9]), body[at : at + 9])
            for at in range(0, len(body), 9)
        )
        body += b"0\r\n\r\n"
    lines = "".join(
        f"{name}: {value}\r\n" for name, value in fields.items() if value is not None
    )
    return Answer(
        (f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode("latin-1") + body)[:cut],
        end,
        read,
    )


def refusal(status, headers=(), message="no", **more):
    """Return an error in the API's own form."""
    error = {
        "type": "error",
        "error": {"type": f"error_{status}", "message": message},
        "request_id": "req_1",
    }
    return reply(status, error, headers, **more)


def page_of_html(status, headers=()):
    """Return an error as a gateway words it."""
    return reply(
        status,
        b"<html>a gateway's page</html>",
        {"Content-Type": "text/html", **dict(headers)},
    )


class Received:
    """A request as the server gets it; its body is read when somebody asks for it."""

    def __init__(self, connection):
        self._connection, head = connection, b""
        while b"\r\n\r\n" not in head:
            block = connection.recv(65536)
            if not block:
                raise ConnectionError("the client sent no request")
            head += block
        head, _, rest = head.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.path, _ = first.split(" ")
        self.headers = {
            name.lower(): value
            for name, value in (line.split(": ", 1) for line in lines)
        }
        self.length, self.body, self.raw_head = (
            int(self.headers.get("content-length", 0)),
            bytearray(rest),
            head,
        )

    def read(self, limit=None):
        wanted = self.length if limit is None else min(limit, self.length)
        while len(self.body) < wanted:
            block = self._connection.recv(65536)
            if not block:
                raise ConnectionError("the client left during its body")
            self.body += block
        return bytes(self.body)

    def has_left(self):
        """Tell whether the client closes its connection within five seconds."""
        self._connection.settimeout(5)
        with contextlib.suppress(ConnectionError):
            return self._connection.recv(1) == b""
        return True


class Server:
    """A loopback server, a thread a connection.  ``script``: Answers in turn, the last one again and again, or a
    function of the Received that returns one."""

    def __init__(self, script, tls=None, listen=True):
        self._script, self._tls, self._over = script, tls, threading.Event()
        self.received, self.failures, self.connections = [], [], 0
        self._threads, self._listener = [], socket.socket()
        # So that 8 MB never fit in the buffers.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"
        if listen:
            self.listen()

    def listen(self):
        self._listener.listen(64)
        self._start(self._accept)

    def stop(self):
        self._over.set()
        if self._threads:
            # It wakes accept().
            with contextlib.suppress(OSError):
                socket.create_connection(self._listener.getsockname(), 1).close()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()
        assert not self.failures

    def sent(self, method, path=""):
        """Return the requests received with this method, and this path where one is given."""
        return [
            one
            for one in self.received
            if one.method == method and path in (one.path.partition("?")[0], "")
        ]

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            connection = self._listener.accept()[0]
            if self._over.is_set():
                connection.close()
                return
            self.connections += 1
            self._start(self._serve, connection)

    def _serve(self, connection):
        connection.settimeout(10)
        # Else a reset overtakes what was sent before.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            request = Received(connection)
            self.received.append(request)
            if callable(self._script):
                answer = self._script(request)
            else:
                answer = (
                    self._script.pop(0) if len(self._script) > 1 else self._script[0]
                )
            request.read(answer.read)
            connection.sendall(answer.sent)
            if answer.end == "stall":
                self._over.wait(10)
            elif answer.end == "rst":
                connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
        except OSError:
            # The client left.
            pass
        except Exception:  # noqa: BLE001
            self.failures.append(traceback.format_exc())
        finally:
            connection.close()


def batch_json(name="msgbatch_1", size=2, status="ended", created=None, **changes):
    created = dt.datetime.fromtimestamp(created or time.time(), dt.timezone.utc)
    url = (
        f"https://api.anthropic.com{BATCHES}/{name}/results"
        if status == "ended"
        else None
    )
    counts = {
        "processing": 0,
        "succeeded": size,
        "errored": 0,
        "canceled": 0,
        "expired": 0,
    }
    return {
        "id": name,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": counts,
        "created_at": created.isoformat(),
        "results_url": url,
        **changes,
    }


def rows_json(custom_ids, text="é☃😀\u2028"):
    rows = (
        {"custom_id": name, "result": {"type": "succeeded", "message": {"text": text}}}
        for name in custom_ids
    )
    return b"".join(
        json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows
    )


class FakeApi:
    """A script: the API in a few lines.  Its clock is ``skew`` seconds ahead of ours.

    ``plans`` holds for each endpoint the Answers that it gives instead of its own (None), the last again and again;
    a create whose whole body is read makes its batch all the same, unless ``makes_batches`` is off.
    """

    ROUTES = (
        ("POST", BATCHES, "create"),
        ("GET", BATCHES, "list"),
        ("GET", BATCHES + "/[^/]+", "retrieve"),
        ("POST", BATCHES + "/[^/]+/cancel", "cancel"),
        ("DELETE", BATCHES + "/[^/]+", "delete"),
        ("GET", BATCHES + "/[^/]+/results", "results"),
        ("POST", "/v1/messages/count_tokens", "count_tokens"),
        ("GET", "/v1/models", "models"),
        ("GET", "/v1/models/[^/]+", "model"),
    )

    def __init__(self, skew=0.0, **plans):
        self.skew, self.plans, self.makes_batches = skew, plans, True
        self.batches, self.counts = [batch_json(created=STARTED)], collections.Counter()

    def __call__(self, request):
        path, _, query = request.path.partition("?")
        name = next(
            (
                name
                for method, route, name in self.ROUTES
                if method == request.method and re.fullmatch(route, path)
            ),
            None,
        )
        if not name:
            return refusal(404)
        self.counts[name] += 1
        plan = self.plans.get(name, [None])
        planned = plan.pop(0) if len(plan) > 1 else plan[0]
        if planned and not (
            name == "create" and self.makes_batches and planned.read is None
        ):
            return planned(request) if callable(planned) else planned
        answer = getattr(self, name)(
            request, dict(pair.split("=") for pair in query.split("&") if pair)
        )
        return planned or reply(body=answer, date=self.now())

    def now(self):
        return time.time() + self.skew

    def create(self, request, query):
        size = len(json.loads(request.read())["requests"])
        self.batches.insert(
            0, batch_json(f"msgbatch_{len(self.batches) + 1}", size, created=self.now())
        )
        return self.batches[0]

    def list(self, request, query):
        start = (
            [batch["id"] for batch in self.batches].index(query["after_id"]) + 1
            if "after_id" in query
            else 0
        )
        rows = self.batches[start : start + int(query.get("limit", 20))]
        return {
            "data": rows,
            "has_more": start + len(rows) < len(self.batches),
            "first_id": rows[0]["id"] if rows else None,
            "last_id": rows[-1]["id"] if rows else None,
        }

    def retrieve(self, request, query):
        return self.batches[-1]

    cancel = retrieve

    def delete(self, request, query):
        return {"id": "msgbatch_1", "type": "message_batch_deleted"}

    def results(self, request, query):
        return rows_json(["a", "b"])

    def count_tokens(self, request, query):
        return {"input_tokens": 7}

    def models(self, request, query):
        return {"data": [self.model(request, query)], "has_more": False, "last_id": "m"}

    def model(self, request, query):
        return {"id": "m", "type": "model"}


# ---- Openers, clocks, clients -----------------------------------------------------------------------------------


class Response(io.BytesIO):
    """What an opener returns."""

    def __init__(self, status=200, body=b"{}", headers=()):
        super().__init__(body if isinstance(body, bytes) else json.dumps(body).encode())
        self.status, self.headers = status, dict(headers)


class Opener:
    """An opener whose every answer comes from a function of (request, timeout)."""

    def __init__(self, script):
        self._script, self.timeouts = script, []

    def open(self, request, timeout):
        self.timeouts.append(timeout)
        outcome = self._script(request, timeout)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Clock:
    """Stands for the module time: sleeping takes no time."""

    def __init__(self):
        self.now, self.wall, self.sleeps = 1000.0, time.time(), []

    def monotonic(self):
        return self.now

    def time(self):
        return self.wall

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.pass_by(seconds)

    def pass_by(self, seconds):
        self.now, self.wall = self.now + seconds, self.wall + seconds


@pytest.fixture
def serve():
    """Start servers, and stop them all at the end."""
    with contextlib.ExitStack() as servers:

        def start(script, **options):
            server = Server(script, **options)
            servers.callback(server.stop)
            return server

        yield start


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(claude_batches, "time", fake)
    return fake


def client_of(server, **options):
    own = {
        "api_key": KEY,
        "base_url": server.url,
        "timeout": 5.0,
        "ssl_context": None if server.url.startswith("https") else UNTRUSTING,
    }
    return Anthropic(**{**own, **options})


def client_through(script, **options):
    """Return a client and its opener, which answers by the script."""
    opener = Opener(script)
    return Anthropic(api_key=KEY, opener=opener, **options), opener


def requests_of(count, text="hi"):
    return [
        {"custom_id": f"r{number}", "params": {"text": text}} for number in range(count)
    ]


BIG = [{"custom_id": "big", "params": {"text": "x" * 8_000_000}}]


def shown(error):
    """Return all that a person or a log could see of an error and those chained to it."""
    words, left = [], [error]
    while left:
        one = left.pop()
        words += [str(one), repr(one), repr(one.args), str(getattr(one, "body", ""))]
        left += [chained for chained in (one.__cause__, one.__context__) if chained]
    return "\n".join(words)


def failure_of(call, *args, **options):
    """Return the AnthropicError that a call raises; no trace of the key is in it."""
    with pytest.raises(AnthropicError) as caught:
        call(*args, **options)
    assert KEY not in shown(caught.value)
    return caught.value


# ---- A batch is made once ---------------------------------------------------------------------------------------

BATCH = json.dumps(batch_json()).encode()
# Answers that break off, or are none.
TORN = {
    "dropped": Answer(),
    "reset": Answer(end="rst"),
    "cut in its status line": Answer(b"HTTP/1.1 20"),
    "cut in its headers": reply(body=BATCH, cut=60),
    "cut in its headers, reset": reply(body=BATCH, cut=60, end="rst"),
    "cut in its body": reply(body=BATCH, cut=-5),
    "cut in a chunk": reply(body=BATCH, framing="chunked", cut=-9),
    "cut between two chunks": reply(body=BATCH, framing="chunked", cut=-5),
    "cut without a length": reply(body=BATCH, framing="close", cut=-5),
    "cut in gzip": reply(
        body=gzip.compress(BATCH)[:-9], headers={"Content-Encoding": "gzip"}
    ),
    "no gzip": reply(body=BATCH, headers={"Content-Encoding": "gzip"}),
    "garbled": Answer(b"\x00\xff\x16\x03 what?\r\n\r\n"),
    "of another protocol": Answer(b"HTTP/9.9 200 OK\r\n\r\n"),
    "of an endless header": Answer(
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000 + b"\r\n\r\n{}"
    ),
    "of too many headers": Answer(
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n{}"
    ),
    "of a chunk without size": reply(
        body=b"oops\r\n", framing="close", headers={"Transfer-Encoding": "chunked"}
    ),
    "of headers that the email package cannot sort": reply(
        body=BATCH,
        headers={"Content-Type": "multipart/mixed; boundary*=a; boundary*0=b"},
    ),
    "of a negative chunk": reply(
        body=b"-5\r\nhello", framing="close", headers={"Transfer-Encoding": "chunked"}
    ),
}
STALLED = {
    "silent": Answer(end="stall"),
    "silent in its body": reply(body=BATCH, cut=-5, end="stall"),
}
# 200, but not the API's JSON.
FOREIGN = {
    "200 of html": page_of_html(200),
    "200 of nothing": reply(body=b""),
    "200 of a list": reply(body=b"[]"),
    "200 of null": reply(body=b"null"),
    "200 of no UTF-8": reply(body=b'{"id": "\xff"}'),
    "200 of a deep list": reply(body=b"[" * 50_000),
    "200 of deep objects": reply(body=b'{"a":' * 50_000),
    "204": reply(204, b"", framing="close"),
}
UNKNOWN = {
    **TORN,
    **STALLED,
    **FOREIGN,
    "200 without id": reply(body={"type": "message_batch"}),
    "200 with id null": reply(body={"id": None}),
    "200 with an empty id": reply(body={"id": ""}),
    "200 with a number as id": reply(body={"id": 5}),
    "500": refusal(500),
    "500 that says to retry": refusal(500, {"x-should-retry": "true"}),
    "504": refusal(504),
    "599": refusal(599),
    **{
        f"{status} of a gateway": page_of_html(status)
        for status in (500, 502, 503, 504, 529)
    },
    "503 of a gateway that says to retry": page_of_html(
        503, {"x-should-retry": "true"}
    ),
    "503 in JSON, but not the API's": reply(503, {"error": "down"}),
    "503 cut in its headers": refusal(503, cut=60),
    "503 cut in its body": refusal(503, cut=-5),
}


@pytest.mark.parametrize("answer", UNKNOWN.values(), ids=UNKNOWN)
def test_a_create_whose_answer_is_lost_is_not_sent_again(serve, answer):
    # A server whose clock is an hour late.
    api = FakeApi(skew=-3600, create=[answer])
    server = serve(api)
    made_at = api.now()
    options = {"timeout": 0.3} if answer.end == "stall" else {}
    error = failure_of(
        lambda: client_of(server, **options).messages.batches.create(
            requests=requests_of(3)
        )
    )
    assert len(server.sent("POST")) == api.counts["create"] == 1
    assert type(error) is BatchMayExistError and isinstance(
        error, claude_batches.APIError
    )
    assert isinstance(error.__cause__, claude_batches.APIError)
    assert error.request_count == 3
    assert abs(error.sent_at.timestamp() - made_at) < 3
    assert [batch.id for batch in error.candidates] == [
        "msgbatch_2"
    ] and "msgbatch_2" in str(error)


def test_a_lost_create_that_made_nothing_has_no_candidates_and_says_that_this_proves_nothing(
    serve,
):
    api = FakeApi(create=[Answer()])
    api.makes_batches = False
    error = failure_of(
        lambda: client_of(serve(api)).messages.batches.create(requests=requests_of(3))
    )
    assert error.candidates == [] and "proves nothing" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(),
        page_of_html(200),
        refusal(401),
        refusal(503),
        reply(302, headers={"Location": "/"}),
        reply(body={"data": [], "has_more": False}, headers={"Date": None}),
        reply(body={"data": [], "has_more": False}, headers={"Date": "soon"}),
    ],
    ids=["dropped", "html", "401", "503", "302", "undated", "misdated"],
)
def test_a_search_that_fails_leaves_candidates_none_and_is_made_once(serve, answer):
    server = serve(FakeApi(create=[Answer()], list=[answer]))
    error = failure_of(
        lambda: client_of(server).messages.batches.create(requests=requests_of(1))
    )
    assert type(error) is BatchMayExistError
    assert error.candidates is None and error.sent_at is None
    assert len(server.sent("GET")) == 1


def test_a_search_takes_no_longer_than_its_own_limit(serve, monkeypatch):
    monkeypatch.setattr(claude_batches, "SEARCH_TIMEOUT", 0.1)
    client = client_of(
        serve(FakeApi(create=[Answer()], list=[Answer(end="stall")])), timeout=600
    )
    error = failure_of(lambda: client.messages.batches.create(requests=requests_of(1)))
    assert type(error) is BatchMayExistError and error.candidates is None
    assert claude_batches.SEARCH_TIMEOUT < 1


def test_a_search_that_pages_for_ever_ends(clock):
    def script(request, timeout):
        if request.method == "POST":
            list(request.data)
            return ConnectionResetError()
        clock.pass_by(1)
        rows = [batch_json(f"b{clock.now}")]
        now = email.utils.formatdate(clock.wall, usegmt=True)
        return Response(
            body={"data": rows, "has_more": True, "last_id": rows[0]["id"]},
            headers={"Date": now},
        )

    client, opener = client_through(script)
    error = failure_of(lambda: client.messages.batches.create(requests=requests_of(1)))
    assert error.candidates is None
    looks = opener.timeouts[1:]
    assert len(looks) == 30 and all(
        timeout <= 30 - at for at, timeout in enumerate(looks)
    )


@pytest.mark.parametrize(
    "answer",
    [b'{"data": 0}', b'{"data": true}', b'{"data": [5]}', b"{}", b"[]", b"<html>"],
)
def test_whatever_the_search_finds_the_error_is_that_of_the_create(serve, answer):
    api = FakeApi()
    api.plans["create"], api.plans["list"] = [Answer()], [reply(body=answer)]
    error = failure_of(
        lambda: client_of(serve(api)).messages.batches.create(requests=requests_of(3))
    )
    assert type(error) is BatchMayExistError and error.candidates is None


@pytest.mark.parametrize(
    "elapsed",
    [(0, 0), (3600, 3600), (0, 3600), (3600, 0)],
    ids=["at once", "an hour", "an hour asleep", "an hour, the wall clock set back"],
)
def test_candidates_have_the_size_and_were_made_since_the_send(serve, clock, elapsed):
    monotonic, wall = elapsed
    sent_at = time.time()
    # Its clock tells the time of the answer.
    api = FakeApi(skew=max(elapsed))

    def lose(request):
        request.read()
        clock.now, clock.wall = clock.now + monotonic, clock.wall + wall
        return Answer()

    api.plans["create"] = [lose]
    api.makes_batches = False
    late = sent_at + max(elapsed)
    # A second page.
    api.batches = [
        batch_json("just_now", 3, created=late),
        batch_json("other_size", 4, created=late),
        batch_json("uncounted", created=late, request_counts=None),
        *(batch_json(f"filler_{number}", 9, created=late) for number in range(120)),
        batch_json("at_once", 3, created=sent_at),
        batch_json("in_the_slack", 3, created=sent_at - 50),
        batch_json("before", 3, created=sent_at - 70),
        batch_json("long_before", 3, created=sent_at - 7000),
    ]
    error = failure_of(
        lambda: client_of(serve(api)).messages.batches.create(requests=requests_of(3))
    )
    assert [batch.id for batch in error.candidates] == [
        "just_now",
        "uncounted",
        "at_once",
        "in_the_slack",
    ]
    assert abs(error.sent_at.timestamp() - sent_at) < 3


REFUSED = {
    **{
        f"{status} in the API's form": refusal(status)
        for status in (400, 401, 402, 403, 404, 405, 413, 422)
    },
    **{
        f"{status} of a gateway": page_of_html(status)
        for status in (400, 401, 403, 404, 408, 409, 413, 418, 422)
    },
    **{
        f"{status} not to be retried": refusal(status, {"x-should-retry": "false"})
        for status in (408, 409, 429, 503, 529)
    },
    **{
        f"{status} to be retried": refusal(status, {"x-should-retry": "true"})
        for status in (400, 401, 404)
    },
    **{
        f"{status}, a redirect": reply(
            status, b"", {"Location": "http://elsewhere.test/x"}
        )
        for status in (300, 301, 302, 303, 307, 308)
    },
}


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
def test_a_refused_create_is_raised_as_itself_and_not_sent_again(serve, answer):
    status = int(answer.sent[9:12])
    api = FakeApi(create=[answer])
    server = serve(api)
    error = failure_of(
        lambda: client_of(server).messages.batches.create(requests=requests_of(1))
    )
    assert type(error) is APIStatusError._by_status.get(status, APIStatusError)
    assert error.status_code == status and error.request_id == "req_1"
    # Neither a second create nor a look.
    assert len(server.received) == 1
    assert status >= 400 or "http://elsewhere.test/x" in str(error)


REPEATED = {
    **{
        f"{status} in the API's form": refusal(status)
        for status in (408, 409, 429, 503, 529)
    },
    "429 of a gateway": page_of_html(429),
    "429 to be retried": refusal(429, {"x-should-retry": "true"}),
    "503 in the API's form, gzip": reply(
        503,
        gzip.compress(b'{"type":"error","error":{"type":"api_error"}}'),
        {"Content-Encoding": "gzip"},
    ),
}


@pytest.mark.parametrize("answer", REPEATED.values(), ids=REPEATED)
def test_a_create_that_was_put_off_is_repeated(serve, answer):
    api = FakeApi(create=[answer, answer, None])
    api.makes_batches = False
    server = serve(api)
    assert (
        client_of(server).messages.batches.create(requests=requests_of(3)).id
        == "msgbatch_2"
    )
    bodies = [bytes(request.body) for request in server.sent("POST")]
    assert (
        len(bodies) == 3
        and len(set(bodies)) == 1
        and len(json.loads(bodies[0])["requests"]) == 3
    )

    api.plans["create"] = [answer]
    error = failure_of(
        lambda: client_of(server).messages.batches.create(requests=requests_of(3))
    )
    assert error.status_code == int(answer.sent[9:12]) and api.counts["create"] == 6


HALFWAY = {
    "reset": Answer(end="rst", read=100_000),
    "dropped": Answer(read=100_000),
    "500": refusal(500, read=100_000),
    "502 of a gateway": page_of_html(502)._replace(read=100_000),
    "200 of html": page_of_html(200)._replace(read=100_000),
}


@pytest.mark.parametrize("answer", HALFWAY.values(), ids=HALFWAY)
def test_a_create_whose_body_never_arrived_whole_is_repeated(serve, answer):
    api = FakeApi(create=[answer, None, answer])
    server = serve(api)
    client = client_of(server, timeout=60)
    assert client.messages.batches.create(requests=BIG).id == "msgbatch_2"
    assert [request.length == len(request.body) for request in server.received] == [
        False,
        True,
    ]

    error = failure_of(lambda: client.messages.batches.create(requests=BIG))
    assert not isinstance(error, BatchMayExistError)
    assert len(server.received) == len(server.sent("POST")) == 2 + 3


def test_a_create_whose_body_is_not_taken_in_time_is_repeated(serve, monkeypatch):
    monkeypatch.setattr(claude_batches, "REFUSAL_TIMEOUT", 0.05)
    server = serve([Answer(end="stall", read=100_000)])
    error = failure_of(
        lambda: client_of(server, timeout=0.15).messages.batches.create(requests=BIG)
    )
    server.stop()
    assert (
        type(error) is APITimeoutError
        and len(server.received) == len(server.sent("POST")) == 3
    )


def test_a_create_that_reached_nobody_is_repeated(serve, monkeypatch):
    server = serve(FakeApi(), listen=False)
    client = client_of(server)
    error = failure_of(lambda: client.messages.batches.create(requests=requests_of(1)))
    assert type(error) is APIConnectionError and server.url in str(error)
    monkeypatch.setattr(
        claude_batches, "_backoff", lambda failures: server.listen() or 0.0
    )
    assert client.messages.batches.create(requests=requests_of(1)).id == "msgbatch_2"
    assert len(server.received) == 1


def test_a_create_that_a_proxy_did_not_let_through_is_repeated_and_the_proxy_gets_no_key(
    serve, monkeypatch
):
    proxy = serve([Answer(b"HTTP/1.1 200"), Answer(b"what?\r\n\r\n"), refusal(407)])
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    client = Anthropic(api_key=KEY, base_url="https://gateway.test")
    error = failure_of(lambda: client.messages.batches.create(requests=requests_of(1)))
    assert type(error) is APIConnectionError
    assert [request.method for request in proxy.received] == ["CONNECT"] * 3
    assert not any(KEY.encode() in request.raw_head for request in proxy.received)


def test_a_loopback_base_url_needs_no_proxy(serve, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert client_of(serve(FakeApi())).models.retrieve("m").id == "m"


@pytest.mark.parametrize(
    "outcome",
    [
        ConnectionResetError(),
        http.client.RemoteDisconnected(),
        http.client.IncompleteRead(b""),
        ssl.SSLEOFError(),
        urllib.error.URLError(BrokenPipeError()),
        socket.timeout(),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "half"])
def test_what_counts_is_whether_the_body_was_read_to_its_end_whichever_exception_came(
    monkeypatch, outcome, is_whole
):
    monkeypatch.setattr(claude_batches, "BLOCK", 10)
    bodies = []

    def script(request, timeout):
        if request.method == "GET":
            return ConnectionRefusedError()
        bodies.append(
            b"".join(request.data if is_whole else itertools.islice(request.data, 3))
        )
        return outcome

    client, _ = client_through(script)
    error = failure_of(lambda: client.messages.batches.create(requests=requests_of(3)))
    assert isinstance(error, BatchMayExistError) == is_whole
    assert len(bodies) == (1 if is_whole else 3) and len(set(bodies)) == 1


# ---- A create is flat in memory and checked before a byte leaves ------------------------------------------------


@pytest.fixture
def spooled(monkeypatch, tmp_path):
    """The temporary files that were made; those on the disk are in tmp_path."""
    files = []
    make = tempfile.SpooledTemporaryFile

    def spool(*args, **kwargs):
        files.append(make(*args, **kwargs))
        return files[-1]

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", spool)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return files


def test_a_create_takes_a_generator_and_little_memory_and_goes_out_in_blocks_of_known_length(
    spooled, tmp_path
):
    sizes, lengths = [], []

    def script(request, timeout):
        assert len(spooled) == 1 and spooled[0]._rolled
        sizes.append([len(block) for block in request.data])
        lengths.append(int(request.get_header("Content-length")))
        # The retry rewinds.
        return Response(*([429, b""] if len(sizes) == 1 else [200, BATCH]))

    client, _ = client_through(script)
    tracemalloc.start()
    try:
        rows = (
            {"custom_id": f"r{number}", "params": {"text": "x" * 2000}}
            for number in range(20_000)
        )
        client.messages.batches.create(requests=rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 14_000_000
    assert (
        sizes[0] == sizes[1] and sum(sizes[0]) == lengths[0] == lengths[1] > 40_000_000
    )
    assert (
        all(64 * 1024 <= size <= 256 * 1024 for size in sizes[0][:-1])
        and sizes[0][-1] <= 256 * 1024
    )
    assert spooled[0].closed and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "outcome",
    [Response(400), ConnectionResetError(), KeyboardInterrupt(), MemoryError()],
    ids=["refused", "lost", "interrupted", "no memory"],
)
def test_the_temporary_file_is_gone_after_an_error(
    spooled, tmp_path, monkeypatch, outcome
):
    def script(request, timeout):
        if not isinstance(outcome, Response) and request.method == "POST":
            raise outcome
        return outcome

    monkeypatch.setattr(claude_batches, "SPOOL_BYTES", 10)
    client, _ = client_through(script)
    with pytest.raises((AnthropicError, KeyboardInterrupt, MemoryError)):
        client.messages.batches.create(requests=requests_of(2))
    assert spooled[0].closed and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [KeyError("mine"), OSError("mine"), ValueError("mine"), KeyboardInterrupt()],
)
def test_what_the_callers_own_iterator_raises_arrives_unchanged(
    spooled, tmp_path, error
):
    def rows():
        yield from requests_of(2)
        raise error

    client, opener = client_through(lambda request, timeout: Response(body=BATCH))
    with pytest.raises(type(error)) as caught:
        client.messages.batches.create(requests=rows())
    assert caught.value is error and not opener.timeouts
    assert spooled[0].closed and not list(tmp_path.iterdir())


GOOD = {"custom_id": "good", "params": {}}
# What is wrong with requests[1]: its parts, and a word of the rule.
BROKEN_RULES = {
    "no custom_id": ({"params": {}}, "None", "1 to 64"),
    "an empty custom_id": ({"custom_id": "", "params": {}}, "''", "1 to 64"),
    "a long custom_id": ({"custom_id": "x" * 65, "params": {}}, "x" * 65, "1 to 64"),
    "a space in custom_id": ({"custom_id": "a b", "params": {}}, "a b", "a-z"),
    "a newline after custom_id": ({"custom_id": "ab\n", "params": {}}, "ab", "a-z"),
    "another alphabet": ({"custom_id": "é٣", "params": {}}, "é٣", "a-z"),
    "a number as custom_id": ({"custom_id": 17, "params": {}}, "17", "a-z"),
    "a custom_id twice": ({"custom_id": "good", "params": {}}, "good", "unique"),
    "no params": ({"custom_id": "bad"}, "bad", "params"),
    "a list as params": ({"custom_id": "bad", "params": []}, "bad", "params"),
    "another key": (
        {"custom_id": "bad", "params": {}, "method": "POST"},
        "bad",
        "method",
    ),
    "no object": ("bad", "None", "object"),
    "NaN": ({"custom_id": "bad", "params": {"top_p": float("nan")}}, "bad", "JSON"),
    "infinity": (
        {"custom_id": "bad", "params": {"top_p": float("inf")}},
        "bad",
        "JSON",
    ),
    "a lone surrogate": (
        {"custom_id": "bad", "params": {"text": "\ud83d"}},
        "bad",
        "surrogate",
    ),
    "a lone surrogate in a key": (
        {"custom_id": "bad", "params": {"\ud83d": 1}},
        "bad",
        "surrogate",
    ),
    "bytes": ({"custom_id": "bad", "params": {"text": b"x"}}, "bad", "bytes"),
    "a file": (
        {"custom_id": "bad", "params": {"text": io.StringIO("a\nb\n")}},
        "bad",
        "StringIO",
    ),
}


@pytest.mark.parametrize(
    "request_, custom_id, rule", BROKEN_RULES.values(), ids=BROKEN_RULES
)
def test_a_bad_request_is_named_with_index_custom_id_and_rule_and_nothing_is_sent(
    request_, custom_id, rule
):
    client, opener = client_through(lambda request, timeout: Response(body=BATCH))
    error = failure_of(
        lambda: client.messages.batches.create(requests=iter([GOOD, request_, GOOD]))
    )
    assert type(error) is InvalidRequestsError and isinstance(error, ValueError)
    assert (
        "requests[1]" in str(error) and custom_id in str(error) and rule in str(error)
    )
    assert not opener.timeouts


@pytest.mark.parametrize(
    "requests",
    [[], iter(()), None, 5, {"custom_id": "a", "params": {}}, "text"],
    ids=repr,
)
def test_what_holds_no_request_is_refused_and_nothing_is_sent(requests):
    client, opener = client_through(lambda request, timeout: Response(body=BATCH))
    assert (
        type(failure_of(lambda: client.messages.batches.create(requests=requests)))
        is InvalidRequestsError
    )
    assert not opener.timeouts


@pytest.mark.parametrize(
    "extra_body", [None, {"note": "é"}], ids=["plain", "with extra_body"]
)
def test_a_batch_may_be_just_as_large_as_the_limits_and_no_larger(
    monkeypatch, extra_body
):
    requests = requests_of(4, text="é\u2028")
    size = len(
        json.dumps(
            {"requests": requests, **(extra_body or {})},
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
    )
    client, opener = client_through(
        lambda request, timeout: list(request.data) and Response(body=BATCH)
    )
    monkeypatch.setattr(claude_batches, "MAX_BATCH_BYTES", size)
    monkeypatch.setattr(claude_batches, "MAX_BATCH_REQUESTS", 4)
    assert client.messages.batches.create(requests=requests, extra_body=extra_body).id
    monkeypatch.setattr(claude_batches, "MAX_BATCH_BYTES", size - 1)
    error = failure_of(
        lambda: client.messages.batches.create(requests=requests, extra_body=extra_body)
    )
    assert "requests[3] (custom_id 'r3')" in str(
        error
    ) and f"{size - 1:,} bytes" in str(error)
    monkeypatch.setattr(claude_batches, "MAX_BATCH_BYTES", size)
    monkeypatch.setattr(claude_batches, "MAX_BATCH_REQUESTS", 3)
    error = failure_of(
        lambda: client.messages.batches.create(requests=requests, extra_body=extra_body)
    )
    assert "requests[3] (custom_id 'r3')" in str(error) and "3 requests" in str(error)
    assert len(opener.timeouts) == 1


def test_the_limits_are_the_apis():
    assert (claude_batches.MAX_BATCH_REQUESTS, claude_batches.MAX_BATCH_BYTES) == (
        100_000,
        256_000_000,
    )


def test_u2028_nul_huge_integers_and_pairs_of_surrogates_go_through(serve):
    params = {
        "text": "a\u2028b\0c😀\x7f",
        "seed": 2**200,
        "small": -(2**64),
        "nested": [{"": None}, 1e300, True],
    }
    server = serve(FakeApi())
    client_of(server).messages.batches.create(
        requests=[{"custom_id": "x" * 64, "params": params}]
    )
    assert json.loads(server.received[0].body)["requests"] == [
        {"custom_id": "x" * 64, "params": params}
    ]
    # Not escaped.
    assert "😀\x7f".encode() in server.received[0].body


@pytest.mark.parametrize(
    "spool_bytes", [10, 4096], ids=["while spooling", "at the first block"]
)
def test_no_room_for_the_requests_is_an_error_naming_folder_and_tmpdir(
    monkeypatch, tmp_path, spool_bytes
):
    folder = str(tmp_path / "missing")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.setattr(claude_batches, "SPOOL_BYTES", spool_bytes)
    client, opener = client_through(lambda request, timeout: Response(body=BATCH))
    error = failure_of(
        lambda: client.messages.batches.create(requests=requests_of(200))
    )
    assert folder in str(error) and "TMPDIR" in str(error) and not opener.timeouts


def test_a_disk_that_fills_up_is_an_error_naming_folder_and_tmpdir(
    monkeypatch, tmp_path
):
    class Full(io.BytesIO):
        def write(self, block):
            if self.tell() + len(block) > 5000:
                raise OSError(28, "No space left on device")
            return super().write(block)

        # It flushes.
        def close(self):
            super().close()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        tempfile, "SpooledTemporaryFile", lambda *args, **kwargs: Full()
    )
    client, opener = client_through(lambda request, timeout: Response(body=BATCH))
    error = failure_of(
        lambda: client.messages.batches.create(requests=requests_of(200))
    )
    assert (
        str(tmp_path) in str(error)
        and "TMPDIR" in str(error)
        and "No space" in str(error)
    )
    assert not opener.timeouts


# ---- Results are whole, or an error says how many are missing -----------------------------------------------------

IDS = [f"row_{number}" for number in range(7)]
ROWS = rows_json(IDS)
ROW_ENDS = [at + 1 for at, byte in enumerate(ROWS) if byte == 10]


def part(payload, at, framing="chunked", end="fin", headers=()):
    """Return an answer that breaks off after ``at`` bytes of its payload; ``clean`` is an end as if that were all."""
    sent = payload[:at]
    if framing == "chunked":
        sent = b"".join(
            b"%x\r\n%b\r\n" % (len(sent[i : i + 50]), sent[i : i + 50])
            for i in range(0, at, 50)
        )
        sent += b"0\r\n\r\n" if end == "clean" else b"32\r\n"[: at % 5]
    length = (
        {"Content-Length": str(at if end == "clean" else len(payload))}
        if framing == "length"
        else {}
    )
    encoding = {"Transfer-Encoding": "chunked"} if framing == "chunked" else {}
    answer = reply(
        body=sent, framing="close", headers={**length, **encoding, **dict(headers)}
    )
    return answer._replace(end="fin" if end == "clean" else end)


def results_api(*answers, size=None, **changes):
    api = FakeApi(results=list(answers))
    api.batches = [batch_json(size=len(IDS) if size is None else size, **changes)]
    return api


def taken(results):
    """Return the custom_ids of a download, and the error that ended it."""
    names = []
    try:
        for row in results:
            assert row.result.message is None or row.result.message.to_dict() == {
                "text": "é☃😀\u2028"
            }
            names.append(row.custom_id)
    except AnthropicError as error:
        assert KEY not in shown(error)
        return names, error
    return names, None


CUTS = {
    "before a row": 0,
    "at a row's end": ROW_ENDS[2],
    "before the last newline": ROW_ENDS[2] - 1,
    "inside a row": ROW_ENDS[2] + 20,
    "inside a character": ROWS.index("😀".encode(), ROW_ENDS[2]) + 2,
    "before the end": len(ROWS) - 1,
}


@pytest.mark.parametrize("end", ["fin", "rst", "clean"])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("is_gzip", [False, True], ids=["plain", "gzip"])
def test_a_cut_download_gives_each_row_once_or_says_how_many_are_missing(
    serve, framing, end, is_gzip
):
    payload = gzip.compress(ROWS) if is_gzip else ROWS
    headers = {"Content-Encoding": "gzip"} if is_gzip else {}
    cuts = (
        {
            "in the head": 5,
            "in the middle": len(payload) // 2,
            "in the end": len(payload) - 3,
        }
        if is_gzip
        else CUTS
    )
    whole = part(payload, len(payload), framing, "clean", headers)
    for where, at in cuts.items():
        cut = part(payload, at, framing, end, headers)
        server = serve(results_api(cut, whole))
        results = client_of(server).messages.batches.results("msgbatch_1")
        assert (where, *taken(results)) == (where, IDS, None)

        server = serve(results_api(cut))
        names, error = taken(client_of(server).messages.batches.results("msgbatch_1"))
        # Nothing but a newline is missing.
        if where == "before the end" and error is None:
            continue
        assert type(error) is IncompleteResultsError and isinstance(
            error, APIConnectionError
        ), where
        assert (error.expected, error.received) == (
            len(IDS),
            len(names),
        ) and f"{len(names)} of 7" in str(error)
        assert isinstance(error.__cause__, APIConnectionError)
        assert names == IDS[: len(names)]
        # All that had come was given; a reset may lose some of it.
        if not is_gzip and end != "rst":
            assert len(names) - sum(row_end <= at for row_end in ROW_ENDS) in (
                0,
                where == "before the last newline",
            )
        assert (
            len([one for one in server.received if one.path.endswith("/results")]) == 3
        )


def test_a_download_cut_at_random_gives_each_row_once(serve):
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    packed = gzip.compress(ROWS)
    for _ in range(25):
        answers = []
        for _ in range(chance.randrange(3)):
            payload, headers = chance.choice(
                [(ROWS, {}), (packed, {"Content-Encoding": "gzip"})]
            )
            answers.append(
                part(
                    payload,
                    chance.randrange(len(payload)),
                    chance.choice(["chunked", "length", "close"]),
                    chance.choice(["fin", "rst", "clean"]),
                    headers,
                )
            )
        results = client_of(
            serve(results_api(*answers, reply(body=ROWS)))
        ).messages.batches.results("msgbatch_1")
        assert taken(results) == (IDS, None)


def test_a_download_outlives_any_torn_answer_in_its_middle(serve):
    for what, answer in TORN.items():
        # They carry a batch, which is no row.
        if b'"id"' in answer.sent:
            answer = part(ROWS, 40)
        server = serve(results_api(part(ROWS, ROW_ENDS[1]), answer, reply(body=ROWS)))
        assert (
            what,
            *taken(client_of(server).messages.batches.results("msgbatch_1")),
        ) == (what, IDS, None)


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("is_gzip", [False, True], ids=["plain", "gzip"])
def test_a_new_row_resets_the_count_of_retries(serve, framing, is_gzip):
    payload, ends, packer = ROWS, ROW_ENDS, zlib.compressobj(wbits=31)
    if is_gzip:
        pieces = [
            packer.compress(row) + packer.flush(zlib.Z_SYNC_FLUSH)
            for row in ROWS.splitlines(keepends=True)
        ]
        payload, ends = (
            b"".join([*pieces, packer.flush()]),
            list(itertools.accumulate(map(len, pieces))),
        )
    headers = {"Content-Encoding": "gzip"} if is_gzip else {}
    cuts = [
        part(payload, ends[row], framing, "fin", headers)
        for row in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)
    ]
    whole = reply(body=payload, headers=headers)
    server = serve(results_api(*cuts, whole))
    assert taken(
        client_of(server, max_retries=2).messages.batches.results("msgbatch_1")
    ) == (IDS, None)
    server = serve(results_api(*cuts, whole))
    names, error = taken(
        client_of(server, max_retries=1).messages.batches.results("msgbatch_1")
    )
    assert names == IDS[:1] and type(error) is IncompleteResultsError
    assert len(server.received) == 1 + 2


def test_a_download_in_another_order_gives_each_row_once(serve):
    backwards = rows_json(reversed(IDS))
    server = serve(
        results_api(
            part(ROWS, ROW_ENDS[2]),
            part(backwards, ROW_ENDS[2]),
            part(ROWS, ROW_ENDS[5]),
            reply(body=backwards),
        )
    )
    names, error = taken(client_of(server).messages.batches.results("msgbatch_1"))
    assert (
        names == ["row_0", "row_1", "row_2", "row_6", "row_5", "row_4", "row_3"]
        and error is None
    )


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_the_download_is_final(serve, status):
    should = {"x-should-retry": "true"}
    server = serve(results_api(part(ROWS, ROW_ENDS[1]), refusal(status, should)))
    names, error = taken(client_of(server).messages.batches.results("msgbatch_1"))
    assert (
        names == IDS[:2]
        and type(error) is IncompleteResultsError
        and (error.expected, error.received) == (7, 2)
    )
    assert error.__cause__.status_code == status and len(server.received) == 1 + 2

    results = client_of(
        serve(results_api(part(ROWS, ROW_ENDS[1]), refusal(status)))
    ).messages.batches.results("b")
    # Taken again, they are still not whole.
    for rows in (2, 0):
        names, again = taken(results)
        assert len(names) == rows and type(again) is IncompleteResultsError

    server = serve(results_api(refusal(status)))
    # At the call.
    error = failure_of(lambda: client_of(server).messages.batches.results("msgbatch_1"))
    assert error.status_code == status and len(server.received) == 1 + 1


@pytest.mark.parametrize(
    "line",
    [
        b"{oops}\n",
        b"[1]\n",
        b'"a"\n',
        b'{"result": {}}\n',
        b'{"custom_id": 5}\n',
        b'{"custom_id": "\xff"}\n',
        b"[" * 100_000 + b"\n",
    ],
    ids=lambda line: repr(line[:9]),
)
def test_a_row_that_is_none_is_an_error_naming_batch_and_row(serve, line):
    server = serve(
        results_api(reply(body=ROWS[: ROW_ENDS[1]] + line + ROWS[ROW_ENDS[1] :]))
    )
    names, error = taken(client_of(server).messages.batches.results("msgbatch_1"))
    assert names == IDS[:2] and type(error) is APIResponseValidationError
    assert (
        "msgbatch_1" in str(error)
        and "after 2 good ones" in str(error)
        and len(server.received) == 2
    )


def test_gzip_in_several_members_is_undone(serve):
    packed = gzip.compress(ROWS[:100]) + gzip.compress(ROWS[100:])
    server = serve(
        results_api(
            part(packed, len(packed), "chunked", "clean", {"Content-Encoding": "gzip"})
        )
    )
    assert taken(client_of(server).messages.batches.results("msgbatch_1")) == (
        IDS,
        None,
    )
    # Each byte on its own.
    single = b"".join(b"1\r\n%c\r\n" % byte for byte in packed) + b"0\r\n\r\n"
    chunked = {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
    server = serve(results_api(reply(body=single, framing="close", headers=chunked)))
    assert taken(
        client_of(server, max_retries=0).messages.batches.results("msgbatch_1")
    ) == (IDS, None)


@pytest.mark.parametrize(
    "row", [b'{"id": "b"}', b'{"custom_id": 7}', b"[1]", b'{"custom_id": "b"} x']
)
def test_a_last_row_that_is_json_and_none_of_ours_is_no_lost_connection(serve, row):
    server = serve(results_api(reply(body=ROWS[: ROW_ENDS[5]] + row)))
    names, error = taken(client_of(server).messages.batches.results("msgbatch_1"))
    assert (
        names == IDS[:6]
        and type(error) is APIResponseValidationError
        and len(server.received) == 2
    )


def test_rows_of_nobody_are_an_error(serve):
    server = serve(results_api(reply(body=ROWS), size=5))
    _names, error = taken(client_of(server).messages.batches.results("msgbatch_1"))
    assert type(error) is APIResponseValidationError and "7 rows for 5" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"\n\r\n" + ROWS.replace(b"\n", b"\n \n"),
        ROWS.replace(b"\n", b"\r\n"),
        ROWS[:-1],
    ],
    ids=["blank lines", "CRLF", "no last newline"],
)
def test_blank_lines_crlf_and_a_missing_newline_are_forgiven(serve, body):
    assert taken(
        client_of(serve(results_api(reply(body=body)))).messages.batches.results(
            "msgbatch_1"
        )
    ) == (IDS, None)


@pytest.mark.parametrize("counts", [None, {}, {"succeeded": None}])
def test_a_batch_without_counts_ends_where_its_results_end(serve, counts):
    # Whose end shows, even at a row's end.
    for framing in ("chunked", "length"):
        server = serve(
            results_api(
                part(ROWS, ROW_ENDS[3], framing),
                reply(body=ROWS),
                request_counts=counts,
            )
        )
        assert taken(client_of(server).messages.batches.results("msgbatch_1")) == (
            IDS,
            None,
        )
    server = serve(results_api(reply(body=b""), request_counts=counts))
    names, error = taken(client_of(server).messages.batches.results("msgbatch_1"))
    assert (
        names == [] and type(error) is IncompleteResultsError and error.expected is None
    )


def test_a_row_of_20_mb_costs_as_its_length(serve):
    line = (
        json.dumps(
            {
                "custom_id": "a",
                "result": {"type": "succeeded", "note": "x" * 20_000_000},
            }
        ).encode()
        + b"\n"
    )
    started = time.perf_counter()
    # Joined anew for each block: 100 GB of copies.
    blocks = (line[at : at + 2000] for at in range(0, len(line), 2000))
    assert [row["custom_id"] for row in claude_batches.iter_json_lines(blocks)] == ["a"]
    server = serve(
        results_api(
            reply(body=gzip.compress(line, 1), headers={"Content-Encoding": "gzip"}),
            size=1,
        )
    )
    (row,) = client_of(server).messages.batches.results("msgbatch_1")
    assert len(row.result.note) == 20_000_000 and time.perf_counter() - started < 3
    assert server.received[-1].headers["accept-encoding"] == "gzip"


def test_results_are_read_one_row_at_a_time():
    class Endless:
        status, headers, length = 200, {}, None

        def __init__(self):
            self.rows = (
                rows_json([f"r{number}"], "x" * 4000) for number in range(5000)
            )

        def read(self, size):
            return next(self.rows, b"")

        def close(self):
            pass

    client, _ = client_through(
        lambda request, timeout: (
            Endless()
            if request.full_url.endswith("/results")
            else Response(body=batch_json(size=5000))
        )
    )
    tracemalloc.start()
    try:
        assert sum(1 for _ in client.messages.batches.results("msgbatch_1")) == 5000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("how", ["with", "close", "close before the first row"])
def test_leaving_a_download_closes_its_connection(serve, how):
    left = []

    def script(request):
        if not request.path.endswith("/results"):
            return reply(body=batch_json(size=7))
        request._connection.sendall(part(ROWS, ROW_ENDS[3]).sent)
        left.append(request.has_left())
        return Answer()

    server = serve(script)
    results = client_of(server).messages.batches.results("msgbatch_1")
    if how == "with":
        with results:
            assert next(results).custom_id == "row_0"
    elif how == "close":
        assert next(results).custom_id == "row_0"
        results.close()
    else:
        results.close()
    assert list(results) == []
    server.stop()
    assert left == [True]


@pytest.mark.parametrize("status", ["in_progress", "canceling"])
def test_results_before_the_end_fail_at_the_call_in_words(serve, status):
    server = serve(results_api(None, status=status, results_url=None))
    error = failure_of(lambda: client_of(server).messages.batches.results("msgbatch_1"))
    assert (
        status in str(error)
        and "msgbatch_1" in str(error)
        and len(server.received) == 1
    )


# ---- The key goes to base_url's origin and nowhere else -----------------------------------------------------------

# Name: the endpoint it is about, and the call; with the fixture clock none takes long.
CALLS = {
    "create": (
        "create",
        lambda client: client.messages.batches.create(requests=requests_of(2)),
    ),
    "retrieve": (
        "retrieve",
        lambda client: client.messages.batches.retrieve("msgbatch_1"),
    ),
    "list": ("list", lambda client: list(client.messages.batches.list())),
    "cancel": ("cancel", lambda client: client.messages.batches.cancel("msgbatch_1")),
    "delete": ("delete", lambda client: client.messages.batches.delete("msgbatch_1")),
    "results": (
        "results",
        lambda client: list(client.messages.batches.results("msgbatch_1")),
    ),
    "results, the batch": (
        "retrieve",
        lambda client: list(client.messages.batches.results("msgbatch_1")),
    ),
    "wait": (
        "retrieve",
        lambda client: client.messages.batches.wait(
            "msgbatch_1", poll_interval=20, timeout=30
        ),
    ),
    "count_tokens": (
        "count_tokens",
        lambda client: client.messages.count_tokens(model="m", messages=[]),
    ),
    "models.list": ("models", lambda client: list(client.models.list())),
    "models.retrieve": ("model", lambda client: client.models.retrieve("m")),
}
REPEATABLE = {name: CALLS[name] for name in CALLS if name not in ("create", "wait")}


@pytest.mark.parametrize("name", CALLS)
def test_no_redirect_is_followed(serve, clock, name):
    endpoint, call = CALLS[name]
    elsewhere, api = serve([reply()]), FakeApi()
    server, api.makes_batches = serve(api), False
    for tries, status in enumerate((301, 302, 303, 307, 308), 1):
        api.plans[endpoint] = [reply(status, b"", {"Location": elsewhere.url + "/new"})]
        error = failure_of(call, client_of(server))
        assert (
            type(error) is APIStatusError
            and error.status_code == status
            and elsewhere.url + "/new" in str(error)
        )
        assert elsewhere.connections == 0 and api.counts[endpoint] == tries


@pytest.mark.parametrize("prefix", ["", "/gateway/anthropic"])
@pytest.mark.parametrize(
    "path", [BATCHES + "/msgbatch_1/results", "/archive/a%2Fb;c?sig=a%2Bb&x=1?"]
)
def test_a_results_url_elsewhere_is_read_through_base_url(serve, path, prefix):
    elsewhere = serve([reply(body=ROWS)])

    def script(request):
        batch = batch_json(size=7, results_url=elsewhere.url + path)
        return reply(body=ROWS if request.path == prefix + path else batch)

    server = serve(script)
    client = client_of(server, base_url=server.url + prefix)
    assert taken(client.messages.batches.results("msgbatch_1")) == (IDS, None)
    assert [one.path for one in server.received] == [
        prefix + BATCHES + "/msgbatch_1",
        prefix + path,
    ]
    assert elsewhere.connections == 0


def test_a_cut_download_is_opened_again_through_base_url_too(serve):
    elsewhere = serve([reply(body=ROWS)])
    api = results_api(
        part(ROWS, 100),
        reply(body=ROWS),
        results_url=f"{elsewhere.url}{BATCHES}/msgbatch_1/results",
    )
    assert taken(client_of(serve(api)).messages.batches.results("msgbatch_1")) == (
        IDS,
        None,
    )
    assert elsewhere.connections == 0 and api.counts["results"] == 2


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host.test/",
        "data:text/plain,x",
        "gopher://host.test",
        "host.test",
        "//host.test",
        "http://",
        "https://user:hunter2@host.test",
        "https://hunter2@host.test",
        "https://host.test?x=1",
        "https://host.test#x",
        "https://host.test:port",
        "https://host.test /x",
        "https://[::1",
        "",
        "http://h\r\nA: b",
        f"http://{'x' * 64}.test",
    ],
)
def test_a_base_url_that_is_no_place_for_a_key_is_refused(url, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url or "file:///")
    for make in (
        lambda: Anthropic(api_key=KEY, base_url=url or "file:///"),
        lambda: Anthropic(api_key=KEY),
    ):
        error = failure_of(make)
        assert "base_url" in str(error) and "hunter2" not in str(error)


@pytest.mark.parametrize(
    "name, segment",
    [
        ("../x", "..%2Fx"),
        ("a/b", "a%2Fb"),
        ("x?y#z", "x%3Fy%23z"),
        ("a b\r\nc", "a%20b%0D%0Ac"),
        ("é", "%C3%A9"),
        ("%2e%2e", "%252e%252e"),
        ("a\\b", "a%5Cb"),
    ],
)
def test_an_id_stays_in_its_segment_of_the_path(serve, name, segment):
    server = serve([reply()])
    client = client_of(server)
    for call in (
        client.messages.batches.retrieve,
        client.messages.batches.cancel,
        client.messages.batches.delete,
        client.models.retrieve,
    ):
        call(name)
    assert [request.path for request in server.received] == [
        f"{BATCHES}/{segment}",
        f"{BATCHES}/{segment}/cancel",
        f"{BATCHES}/{segment}",
        f"/v1/models/{segment}",
    ]


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_an_id_that_would_change_the_path_is_refused(name):
    client, opener = client_through(lambda request, timeout: Response())
    batches = client.messages.batches
    for call in (
        batches.retrieve,
        batches.cancel,
        batches.delete,
        batches.results,
        batches.wait,
        client.models.retrieve,
    ):
        assert isinstance(failure_of(call, name), ValueError)
    assert not opener.timeouts


@pytest.mark.parametrize(
    "how",
    [
        "api_key",
        "auth_token",
        "x-api-key",
        "authorization",
        "extra_headers",
        "variable",
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    monkeypatch, how
):
    for tail in ("\nX: y", "\r\n\r\n" + KEY, "é", "ключ", "\0", "\udc80"):
        opener, options, extra = Opener(lambda request, timeout: Response()), {}, {}
        if how == "extra_headers":
            options, extra = (
                {"api_key": "good"},
                {"extra_headers": {"X-Api-Key": KEY + tail}},
            )
        elif how == "variable":
            monkeypatch.setattr(os, "environ", {"ANTHROPIC_API_KEY": KEY + tail})
        else:
            options = (
                {how: KEY + tail}
                if "_" in how
                else {"default_headers": {how: KEY + tail}}
            )
        client = Anthropic(opener=opener, **options)
        error = failure_of(client.models.retrieve, "m", **extra)
        assert isinstance(error, ValueError) and not opener.timeouts


def test_the_key_goes_out_as_bearer_and_is_in_no_repr(serve, caplog):
    server = serve(FakeApi(model=[page_of_html(503), None]))
    for options in (
        {"api_key": f" {KEY}\n"},
        {"api_key": None, "auth_token": KEY},
        {"api_key": "x", "default_headers": {"Authorization": f"Bearer {KEY}"}},
    ):
        client = client_of(server, **options)
        model = client.models.retrieve("m")
        assert server.received[-1].headers["authorization"] == f"Bearer {KEY}"
        for thing in (
            client,
            client.messages,
            client.messages.batches,
            client.models,
            client._opener,
            model,
            client.models.list(),
        ):
            assert KEY not in repr(thing) + str(thing)
        with client.messages.batches.results("msgbatch_1") as results:
            assert KEY not in repr(results)
    # And no key: see own_environment.
    assert "retry 1 of GET" in caplog.text


# Answers that repeat the key.
ECHOES = {
    "escaped": reply(
        401,
        b'{"type":"error","error":{"type":"a","message":"%s"}}'
        % "".join(f"\\u{ord(letter):04x}" for letter in KEY).encode(),
    ),
    "401 in the API's form": refusal(401, message=f"bad key {KEY}"),
    "500 of a gateway": reply(500, KEY.encode()),
    "redirect": reply(302, b"", {"Location": f"http://elsewhere.test/?key={KEY}"}),
    "request id in the body": reply(400, {"request_id": KEY}),
    "200 of text": reply(body=f"hello {KEY}".encode()),
    "reason": Answer(f"HTTP/1.1 403 {KEY}\r\n\r\n".encode()),
    "request id": refusal(403, {"request-id": KEY}),
    "status line": Answer(f"{KEY}\r\n\r\n".encode()),
    "chunk's size": Answer(
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode()
    ),
    "content type": reply(body=b"", headers={"Content-Type": KEY}),
    "a row": reply(body=f"hello {KEY}\n".encode()),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_error_shows_a_key_that_the_answer_repeats(serve, clock, name):
    endpoint, call = CALLS[name]
    api = FakeApi()
    server = serve(api)
    for api.plans[endpoint] in ([answer] for answer in ECHOES.values()):
        failure_of(call, client_of(server))


# ---- Waiting outlives the network -------------------------------------------------------------------------------


def polls_of(clock, script, **options):
    """Return a client whose polls are answered by a function of the seconds since the start, and its opener.

    The outcome is an exception, a status, or a batch's status with headers."""
    start = clock.now

    def answer(request, timeout):
        outcome, headers = script(clock.now - start), {}
        if isinstance(outcome, tuple):
            outcome, headers = outcome
        if isinstance(outcome, str):
            return Response(body=batch_json(status=outcome), headers=headers)
        return Response(outcome, b"", headers) if isinstance(outcome, int) else outcome

    return client_through(answer, **options)


@pytest.mark.parametrize(
    "outage",
    [
        ConnectionResetError(),
        urllib.error.URLError(ConnectionRefusedError()),
        socket.timeout(),
        408,
        409,
        429,
        500,
        502,
        503,
        504,
        529,
        urllib.error.URLError(socket.gaierror(-3, "no name")),
        http.client.RemoteDisconnected(),
        "canceling",
        http.client.BadStatusLine("x"),
        ssl.SSLEOFError(),
    ],
    ids=repr,
)
def test_a_wait_outlives_an_hour_of_outage(clock, outage):
    client, opener = polls_of(
        clock,
        lambda at: outage if 20 < at < 3620 else "in_progress" if at < 20 else "ended",
    )
    assert client.messages.batches.wait("msgbatch_1").processing_status == "ended"
    assert clock.now - 1000 > 3600 and 60 < len(opener.timeouts) < 90
    assert max(clock.sleeps) <= 60


def test_a_wait_outlives_torn_and_foreign_answers(serve):
    answers = [*TORN.values(), *FOREIGN.values()]
    server = serve([*answers, reply(body=BATCH)])
    assert (
        client_of(server).messages.batches.wait("msgbatch_1", poll_interval=0.0).id
        == "msgbatch_1"
    )
    assert len(server.received) == len(answers) + 1


def test_a_wait_forgives_404_for_thirty_seconds(clock):
    client, _ = polls_of(clock, lambda at: 404 if at < 25 else "ended")
    assert (
        client.messages.batches.wait("msgbatch_1", poll_interval=1).processing_status
        == "ended"
    )
    client, _ = polls_of(
        clock, lambda at: "in_progress" if at < 100 else 404 if at < 125 else "ended"
    )
    assert (
        client.messages.batches.wait("msgbatch_1", poll_interval=1).processing_status
        == "ended"
    )


@pytest.mark.parametrize("first_404", [0, 100])
def test_a_404_that_stays_ends_a_wait(clock, first_404):
    client, _ = polls_of(
        clock,
        lambda at: (
            "in_progress"
            if at < first_404
            else 404
            if at < first_404 + 100
            else "ended"
        ),
    )
    error = failure_of(
        lambda: client.messages.batches.wait("msgbatch_1", poll_interval=1)
    )
    assert type(error) is NotFoundError and 28 < clock.now - 1000 - first_404 < 32


@pytest.mark.parametrize(
    "status, kind",
    [(401, AuthenticationError), (403, PermissionDeniedError), (302, APIStatusError)],
)
def test_a_refusal_ends_a_wait(clock, status, kind):
    client, opener = polls_of(clock, lambda at: 500 if at < 5 else status)
    assert type(failure_of(lambda: client.messages.batches.wait("msgbatch_1"))) is kind
    assert len(opener.timeouts) == 2


def test_a_wait_that_takes_too_long_says_so_with_the_batch_and_its_id(clock):
    client, _opener = polls_of(
        clock, lambda at: "in_progress" if at < 50 else ConnectionResetError()
    )
    error = failure_of(lambda: client.messages.batches.wait("msgbatch_1", timeout=100))
    assert type(error) is WaitTimeoutError and isinstance(error, TimeoutError)
    assert (
        error.batch.processing_status == "in_progress"
        and "msgbatch_1" in str(error)
        and "100 s" in str(error)
    )
    assert clock.now - 1000 == pytest.approx(100)
    error = failure_of(lambda: client.messages.batches.wait("msgbatch_1", timeout=100))
    assert type(error) is WaitTimeoutError and error.batch is None


@pytest.mark.parametrize(
    "retry_after, poll_interval, sleeps",
    [
        ("10", None, [10.0] * 4),
        ("0.2", None, [1.0] * 4),
        ("500", None, [60.0] * 4),
        ("10", 3, [3] * 4),
        ("500", 0.5, [0.5] * 4),
        (None, 90, [90] * 4),
        (None, 0, [0] * 4),
        ("soon", 7, [7] * 4),
    ],
)
@pytest.mark.parametrize("outcome", ["in_progress", 503])
def test_a_wait_polls_at_the_interval_that_is_asked_for(
    clock, outcome, retry_after, poll_interval, sleeps
):
    headers = {} if retry_after is None else {"retry-after": retry_after}
    outcomes = iter([(outcome, headers)] * 4 + [("ended", headers)])
    client, _ = polls_of(clock, lambda at: next(outcomes))
    client.messages.batches.wait("msgbatch_1", poll_interval=poll_interval)
    assert clock.sleeps == sleeps


@pytest.mark.parametrize(
    "options",
    [
        {"poll_interval": float("nan")},
        {"poll_interval": -1},
        {"poll_interval": 1e12},
        {"poll_interval": "5"},
        {"timeout": 4294968.0},
        {"timeout": 0},
        {"timeout": float("nan")},
    ],
)
def test_a_wait_takes_no_seconds_that_no_clock_can_count(options):
    client, opener = client_through(lambda request, timeout: Response(body=BATCH))
    assert (
        type(failure_of(lambda: client.messages.batches.wait("b", **options)))
        is InvalidRequestsError
    )
    assert not opener.timeouts


@pytest.mark.parametrize(
    "date",
    ["Mon,10 Nov 2026 10.0.0.00 GMT", "Mon, 10-Nov- 10:00:00 GMT", "soon", "inf", "-1"],
)
def test_an_odd_date_asks_for_nothing(clock, date):
    outcomes = iter(
        [
            (503, {"retry-after": date}),
            ("in_progress", {"retry-after": date}),
            ("ended", {}),
        ]
    )
    client, _ = polls_of(clock, lambda at: next(outcomes))
    client.messages.batches.wait("msgbatch_1")
    assert clock.sleeps[0] >= 5


@pytest.mark.parametrize("outcome", ["in_progress", 500])
def test_a_wait_that_is_asked_for_no_interval_polls_after_five_seconds_growing_to_sixty(
    clock, outcome
):
    outcomes = iter([outcome] * 20 + ["ended"])
    client, _ = polls_of(clock, lambda at: next(outcomes))
    client.messages.batches.wait("msgbatch_1")
    assert (
        clock.sleeps[0] == 5
        and clock.sleeps[-1] == 60
        and clock.sleeps == sorted(clock.sleeps)
    )
    assert len(set(clock.sleeps)) > 4


def test_on_poll_sees_each_batch_that_came_and_its_exception_arrives(clock):
    outcomes = iter(
        ["in_progress", 500, "canceling", ConnectionResetError(), "ended", "ended"]
    )
    client, _ = polls_of(clock, lambda at: next(outcomes))
    seen = []
    client.messages.batches.wait(
        "msgbatch_1", on_poll=lambda batch: seen.append(batch.processing_status)
    )
    assert seen == ["in_progress", "canceling", "ended"]
    error = OSError("mine")

    def on_poll(batch):
        raise error

    with pytest.raises(OSError) as caught:
        client.messages.batches.wait("msgbatch_1", on_poll=on_poll)
    assert caught.value is error


@pytest.mark.parametrize(
    "options, most", [({}, 60), ({"timeout": None}, 60), ({"timeout": 20}, 20)]
)
def test_no_read_of_a_wait_takes_longer_than_a_minute_or_goes_past_the_end(
    clock, options, most
):
    def script(request, timeout):
        assert clock.now - 1000 + timeout <= 150.01
        clock.pass_by(timeout)
        return socket.timeout()

    client, opener = client_through(script, **options)
    failure_of(lambda: client.messages.batches.wait("msgbatch_1", timeout=150))
    assert clock.now - 1000 <= 150.01 and max(opener.timeouts) == most


def test_a_wait_polls_no_more_once_its_time_is_over(clock, monkeypatch):
    def monotonic():
        # Getting ready takes time, too.
        clock.now += 0 if len(opener.timeouts) == 1 else 0.001
        return clock.now

    client, opener = polls_of(clock, lambda at: "in_progress")
    monkeypatch.setattr(clock, "monotonic", monotonic)
    failure_of(lambda: client.messages.batches.wait("m", timeout=10, poll_interval=60))
    assert len(opener.timeouts) == 1


def test_the_sleep_of_a_laptop_counts_as_waiting(clock, monkeypatch):
    def sleep(seconds):
        clock.now += seconds
        # The lid was closed: the monotonic clock stood still.
        clock.wall += 7200

    monkeypatch.setattr(clock, "sleep", sleep)
    client, opener = polls_of(clock, lambda at: "in_progress")
    assert (
        type(failure_of(lambda: client.messages.batches.wait("m", timeout=3600)))
        is WaitTimeoutError
    )
    assert len(opener.timeouts) == 1


# ---- The refusal reaches the caller -------------------------------------------------------------------------------

CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg6cKoKI3i6sl8oIgN
HcYst+Z+HVReTYJkntw2K9rBPXShRANCAATDpZc3EyZXTeZGdiyHbyxpfn3/ee1y
Zkj0Eau4UFuXa2Enz5P3VbgNzwuV0H4fotQWxDkyv2s9rj4/OzjNbkMF
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBeDCCAR2gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEwMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABMOllzcTJldN5kZ2
LIdvLGl+ff957XJmSPQRq7hQW5drYSfPk/dVuA3PC5XQfh+i1BbEOTK/az2uPj87
OM1uQwWjXjBcMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYEFACos1C/dpwB/ZOS
K02xEiUE8U2fMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAOBgNVHQ8BAf8E
BAMCAoQwCgYIKoZIzj0EAwIDSQAwRgIhAMn+GipAO0JeDyEgshq7EeJMfs/vphxJ
777voFiwBvhuAiEAiWdHZgvEDulJBwcoaPeJfZH0QvLxEfhLlc5rYajbbPo=
-----END CERTIFICATE-----
"""


@pytest.fixture
def tls(tmp_path):
    """The context of a server with a self-signed certificate for localhost and 127.0.0.1, valid till 2100."""
    path = tmp_path / "localhost.pem"
    path.write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(path))
    return context


def trusting():
    return ssl.create_default_context(
        cadata=CERTIFICATE[CERTIFICATE.index("-----BEGIN CERTIFICATE") :]
    )


@pytest.mark.parametrize(
    "status, kind", [(401, AuthenticationError), (413, ContentTooLargeError)]
)
@pytest.mark.parametrize("is_html", [False, True], ids=["api", "gateway"])
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
def test_a_refusal_during_the_upload_reaches_the_caller(
    serve, tls, status, kind, is_html, is_tls
):
    answer = (
        page_of_html(status)
        if is_html
        else refusal(status, message="this one is refused")
    )
    server = serve([answer._replace(read=5000)], tls=tls if is_tls else None)
    client = client_of(server, ssl_context=trusting() if is_tls else None)
    error = failure_of(lambda: client.messages.batches.create(requests=BIG))
    if LINUX:
        assert type(error) is kind
        assert ("a gateway's page" if is_html else "this one is refused") in str(error)
        assert server.connections == 1
    else:
        assert isinstance(error, (kind, APIConnectionError))


@pytest.mark.parametrize("end", ["fin", "rst"])
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
def test_a_server_that_closes_during_the_upload_is_explained(serve, tls, is_tls, end):
    server = serve([Answer(read=5000, end=end)], tls=tls if is_tls else None)
    client = client_of(server, ssl_context=trusting() if is_tls else None)
    error = failure_of(lambda: client.messages.batches.create(requests=BIG))
    assert type(error) is APIConnectionError and server.connections == 3
    assert "closed during the upload" in str(error) and "key" in str(error)


def test_an_untrusted_certificate_is_not_tried_again_and_the_message_says_what_to_set(
    serve, tls, monkeypatch, tmp_path
):
    server = serve(FakeApi(), tls=tls)
    for name, (_, call) in CALLS.items():
        before = server.connections
        error = failure_of(call, client_of(server))
        assert type(error) is APIConnectionError and "SSL_CERT_FILE" in str(error), name
        assert server.connections == before + 1, name
    assert client_of(server, ssl_context=trusting()).models.retrieve("m").id == "m"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))
    assert client_of(server).models.retrieve("m").id == "m"


def test_a_key_goes_to_no_server_with_a_certificate_for_another_name(serve, tls):
    server = serve(FakeApi(), tls=tls)
    client = client_of(
        server,
        base_url=server.url.replace("127.0.0.1", "127.0.0.2"),
        ssl_context=trusting(),
    )
    assert type(failure_of(client.models.retrieve, "m")) is APIConnectionError
    assert not server.received


@pytest.mark.parametrize("timeout, connecting", [(600, 10), (3, 3), (None, 10)])
def test_connecting_has_its_own_timeout(serve, monkeypatch, timeout, connecting):
    timeouts, connections, connect = [], [], socket.create_connection

    def create_connection(address, timeout=None, *args):
        timeouts.append(timeout)
        connections.append(connect(address, timeout, *args))
        return connections[-1]

    server = serve(FakeApi())
    monkeypatch.setattr(socket, "create_connection", create_connection)
    client_of(server, timeout=timeout).models.retrieve("m")
    monkeypatch.undo()
    assert timeouts == [connecting] and connections[0].gettimeout() == timeout


def test_a_tls_handshake_that_is_not_answered_ends_at_the_connect_timeout(
    serve, monkeypatch
):
    monkeypatch.setattr(claude_batches, "CONNECT_TIMEOUT", 0.05)
    server = serve([Answer(end="stall")])
    client = client_of(
        server, base_url=server.url.replace("http", "https"), timeout=600
    )
    error = failure_of(lambda: client.messages.batches.create(requests=requests_of(1)))
    server.stop()
    assert type(error) is APITimeoutError and server.connections == 3


@pytest.mark.parametrize(
    "name, max_retries", [("retrieve", 0), *((name, 2) for name in REPEATABLE)]
)
def test_the_other_calls_are_repeated_after_torn_and_foreign_answers(
    serve, name, max_retries
):
    endpoint, call = REPEATABLE[name]
    value, api = call(client_of(serve(FakeApi()))), FakeApi()
    server = serve(api)
    client = client_of(server, max_retries=max_retries)
    # Rows are no JSON object of their own.
    foreign = {} if name == "results" else FOREIGN
    for what, answer in {**TORN, **foreign, "503": page_of_html(503)}.items():
        api.counts[endpoint], api.plans[endpoint] = 0, [answer]
        assert isinstance(failure_of(lambda: call(client)), claude_batches.APIError), (
            what
        )
        assert (what, api.counts[endpoint]) == (what, 1 + max_retries)
        api.plans[endpoint] = [*[answer] * max_retries, None]
        del server.received[:]
        assert call(client) == value, what
        retries = [
            one.headers.get("x-stainless-retry-count", "0") for one in server.received
        ]
        assert name.startswith("results") or retries == [
            str(number) for number in range(1 + max_retries)
        ], what


@pytest.mark.parametrize("name", REPEATABLE)
def test_the_other_calls_are_repeated_by_the_sdks_rule(serve, name):
    endpoint, call = REPEATABLE[name]
    api = FakeApi()
    server = serve(api)
    for status, should, tries in (
        *((status, None, 1) for status in (400, 401, 402, 403, 404, 413, 422)),
        (400, "true", 3),
        (429, "false", 1),
        *((status, None, 3) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
        (500, "false", 1),
    ):
        for answer in (refusal, page_of_html):
            api.counts[endpoint] = 0
            api.plans[endpoint] = [
                answer(status, {"x-should-retry": should} if should else {})
            ]
            error = failure_of(call, client_of(server))
            assert (error.status_code, api.counts[endpoint]) == (status, tries)


def test_a_timeout_is_repeated_and_told_as_one(serve):
    server = serve([Answer(end="stall")])
    error = failure_of(lambda: client_of(server, timeout=0.1).models.retrieve("m"))
    server.stop()
    assert type(error) is APITimeoutError and len(server.received) == 3


@pytest.mark.parametrize(
    "headers, slept",
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after": 20}, 20),
        ({"retry-after": -20}, 0.25),
        ({}, 0.25),
        *(({"retry-after": text}, 0.25) for text in ("-1", "0", "soon", "nan", "")),
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_create", [False, True], ids=["retrieve", "create"])
def test_a_retry_waits_as_long_as_the_answer_asks(
    clock, monkeypatch, is_create, headers, slept
):
    monkeypatch.setattr(claude_batches, "_backoff", lambda failures: 0.25)
    # As a date, so many seconds away.
    if isinstance(headers.get("retry-after"), int):
        clock.wall = float(int(clock.wall))
        headers = {
            "retry-after": email.utils.formatdate(
                clock.wall + headers["retry-after"], usegmt=True
            )
        }
    answers = iter([Response(429, b"", headers), Response(body=BATCH)])
    client, _ = client_through(lambda request, timeout: next(answers))
    if is_create:
        client.messages.batches.create(requests=requests_of(1))
    else:
        client.messages.batches.retrieve("msgbatch_1")
    assert clock.sleeps == [pytest.approx(slept)]


def test_retries_back_off_as_the_sdks():
    for failures, most in ((1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 8), (5000, 8)):
        waits = [REAL_BACKOFF(failures) for _ in range(50)]
        assert 0.75 * most <= min(waits) < max(waits) <= most


def test_logging_is_not_imported_before_a_retry():
    program = "import sys, claude_batches; assert 'logging' not in sys.modules"
    folder = os.path.dirname(os.path.abspath(claude_batches.__file__))
    command = [sys.executable, "-S", "-c", program]
    assert subprocess.run(command, cwd=folder, check=False).returncode == 0


# ---- Nothing but an AnthropicError comes out ------------------------------------------------------------------------

BROKEN = {
    **TORN,
    **FOREIGN,
    **{
        f"{status} of a gateway": page_of_html(status)
        for status in (300, 304, 400, 402, 418, 500, 599)
    },
    **{
        f"{status} in the API's form": refusal(status)
        for status in (401, 403, 404, 408, 413, 422, 429, 503, 529)
    },
    "101": reply(101, b""),
    "401 torn": refusal(401, cut=-5),
    "500 in a deep list": reply(500, b"[" * 50_000),
    "400 with an odd body": reply(400, {"error": ["x"], "request_id": 5}),
    "400 of binary": reply(400, bytes(range(256))),
    "400 of no gzip": reply(400, b"x", {"Content-Encoding": "gzip"}),
    "400 of a number": reply(400, b"1" * 10_000),
    "400 of odd types": reply(
        400, {"type": [], "error": {"type": {}, "message": [], "details": "x"}}
    ),
    "503 to be retried in the year 99999": refusal(
        503, {"retry-after": "Mon, 02 Jan 99999 00:00:00 GMT"}
    ),
    "429 to be retried on odd days": refusal(
        429, {"retry-after": "Mon, 99 Foo 2020 99:99:99 GMT"}
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_turns_every_failure_into_an_anthropic_error(serve, clock, name):
    endpoint, call = CALLS[name]
    api = FakeApi()
    server = serve(api)
    for what, answer in {**BROKEN, **STALLED}.items():
        api.plans[endpoint] = [answer]
        timeout, max_retries = (0.1, 0) if what in STALLED else (5, 1)
        try:
            failure_of(
                call, client_of(server, timeout=timeout, max_retries=max_retries)
            )
        except BaseException:
            print(f"{name}, {what}:")
            raise
    failure_of(lambda: call(client_of(serve(FakeApi(), listen=False))))


# JSON of the right kind with fields of the wrong one.
ODD = {
    "no fields": {},
    "odd counts": {"request_counts": {"succeeded": "two", "errored": -1, "more": {}}},
    **{
        f"results_url {url!r}": {"results_url": url}
        for url in (5, "//", "x y", "file:///x", "é")
    },
    "odd times": {"expires_at": 5, "ended_at": []},
    "a huge year": {"created_at": "9999-12-31T23:59:59-23:59"},
    "a status that is a list": {"processing_status": []},
    "a row without result": {"custom_id": "a"},
    "data of text": {"data": "x"},
    "data of numbers": {"data": [1]},
    "data of empty objects": {"data": [{}]},
    "an odd cursor": {"data": [{}], "has_more": True, "last_id": {"a": []}},
    "the same cursor": {"data": [{}], "has_more": True, "last_id": "m"},
    "names of methods": {"to_dict": 1, "__class__": 2},
    "a row with an odd result": {"custom_id": "a", "result": [1]},
    "counts of text": {"request_counts": "many"},
    "counts of a list": {"request_counts": [1]},
    "a number as id": {"id": 5},
    "times of numbers": {"created_at": 5},
    "times of words": {"created_at": "yesterday"},
    "results_url [": {"results_url": "http://["},
    "results_url of a surrogate": {"results_url": "\ud800"},
}


@pytest.mark.parametrize("what", ODD)
def test_odd_fields_are_no_other_exception(serve, clock, what):
    api = FakeApi()
    server = serve(api)
    for endpoint, call in CALLS.values():
        base = (
            batch_json()
            if ODD[what] and endpoint in ("retrieve", "create", "cancel")
            else {}
        )
        api.plans = {endpoint: [reply(body={**base, **ODD[what]})]}
        with contextlib.suppress(AnthropicError):
            call(client_of(server, max_retries=0))


ODD_DATES = [
    "Mon, 02 Jan 99999 00:00:00 GMT",
    "Mon, 02 Jan 99999999999999999999 00:00:00 GMT",
    "x" * 1000,
    "0",
    ",",
    "Mon, 01 Jan 2020 00:00:00 +99999999999999",
    "Mon, 01 0001",
    "Mon, 01 Jan 0100 00:00:00 GMT",
]


@pytest.mark.parametrize("what", [*ODD, *ODD_DATES])
def test_an_odd_look_for_a_lost_batch_is_no_other_exception(serve, what):
    page = {"data": [{**batch_json(), **ODD.get(what, {})}], "has_more": False}
    dates = {"Date": what} if what in ODD_DATES else {}
    api = FakeApi(create=[Answer()], list=[reply(body=page, headers=dates)])
    error = failure_of(
        lambda: client_of(serve(api)).messages.batches.create(requests=requests_of(2))
    )
    assert type(error) is BatchMayExistError


@pytest.mark.parametrize("date", ODD_DATES)
def test_an_odd_date_in_retry_after_is_no_other_exception(clock, date):
    client, _ = client_through(
        lambda request, timeout: Response(503, b"", {"retry-after": date})
    )
    for call in (
        client.models.retrieve,
        lambda name: client.messages.batches.wait(name, timeout=9),
    ):
        failure_of(call, "m")


WELL_FORMED = {
    "chunked": {"framing": "chunked"},
    "close-delimited": {"framing": "close"},
    "201": {"status": 201},
    "gzip": {"headers": {"Content-Encoding": "gzip"}},
}


@pytest.mark.parametrize("form", WELL_FORMED.values(), ids=WELL_FORMED)
@pytest.mark.parametrize("name", CALLS)
def test_every_call_reads_every_form_of_a_right_answer(serve, clock, name, form):
    call = CALLS[name][1]
    value = call(client_of(serve(FakeApi())))

    class Formed(FakeApi):
        def __call__(self, request):
            body = super().__call__(request).sent.partition(b"\r\n\r\n")[2]
            return reply(
                **{"body": gzip.compress(body) if "headers" in form else body, **form}
            )

    again = call(client_of(serve(Formed())))
    assert again == value or name == "create" and again.id == value.id


# ---- Sandbox and command line ----------------------------------------------------------------------------------

posix = pytest.mark.skipif(
    sys.platform == "win32", reason="links, signals and terminals of POSIX"
)
TLS = ssl.create_default_context()
BATCH_URL, COUNT = "/v1/messages/batches", "/v1/messages/count_tokens"
HELLO = {
    "model": "claude-opus-4-6",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "Hello"}],
}
# Params, and the word that the refusal names.
REFUSED_LATER = [
    *(
        (dict(HELLO, **{name: value}), name)
        for name, value in {
            "stream": True,
            "speed": "fast",
            "max_tokens": 0,
            "temperature": 0,
            "top_p": 1,
            "top_k": 1,
        }.items()
    ),
    ({}, "model"),
    ({"model": "m", "max_tokens": 1}, "messages"),
    ({"model": "m", "messages": []}, "max_tokens"),
    (dict(HELLO, stream=False), None),
    (dict(HELLO, temperature=None), None),
    (HELLO, None),
]


def request(custom_id, **params):
    return {"custom_id": custom_id, "params": dict(HELLO, **params)}


def write(path, *lines):
    """Write a file of lines, each bytes or an object; return its path."""
    with open(path, "wb") as file:
        file.writelines(
            (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n"
            for line in lines
        )
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def rows(raw):
    return [json.loads(line) for line in raw.splitlines()]


def lead_to(sandbox, monkeypatch):
    """Set the environment so that the client finds a sandbox; give it one."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", sandbox.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
    sandbox.client = Anthropic(max_retries=0)
    sandbox.batches = sandbox.client.messages.batches
    return sandbox


@pytest.fixture(scope="module")
def lasting():
    with Sandbox(seconds=0.05) as served:
        yield served


@pytest.fixture
def sandbox(lasting, monkeypatch):
    """A sandbox that the tests share, whose batches end at once, and an environment that leads there."""
    return lead_to(lasting, monkeypatch)


@pytest.fixture
def slow(monkeypatch):
    """A new sandbox whose batches stay in progress until a test ends them."""
    with Sandbox(seconds=60) as served:
        yield lead_to(served, monkeypatch)


@pytest.fixture
def untouched(sandbox):
    """A sandbox in which no batch may be made."""
    before = list(sandbox._batches)
    yield sandbox
    assert list(sandbox._batches) == before


def running(sandbox, *requests):
    return sandbox.batches.create(requests=requests or [request("a"), request("b")])


def end(sandbox, batch):
    """Have a running batch end now."""
    sandbox._batches[batch.id].ends = datetime.now(timezone.utc)


def ended(sandbox, *requests):
    return sandbox.batches.wait(
        running(sandbox, *requests).id, poll_interval=0.01, timeout=10
    )


def ask(sandbox, method, path, body=None, **headers):
    """Send one request without the client; return status, headers and body."""
    with contextlib.closing(
        http.client.HTTPConnection(sandbox.url.rpartition("/")[2], timeout=10)
    ) as connection:
        raw = (
            body
            if isinstance(body, bytes) or body is None
            else json.dumps(body).encode()
        )
        connection.request(
            method, path, raw, headers or {"authorization": "Bearer any"}
        )
        answer = connection.getresponse()
        return (
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
            answer.read(),
        )


def refusal_words(status, headers, raw):
    """Return type and message of an error, after a look at its form."""
    answer = json.loads(raw)
    assert (
        status >= 400
        and answer["type"] == "error"
        and answer["request_id"] == headers["request-id"]
    )
    return answer["error"]["type"], answer["error"]["message"]


@pytest.fixture
def cli(capsysbinary, monkeypatch):
    """Run the command line in this process; return exit status, output as bytes and what a person is told."""

    def run(*args, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        try:
            status = claude_batches.main(list(args))
        except SystemExit as stop:
            status = stop.code
        out, err = capsysbinary.readouterr()
        return status, out, err.decode()

    return run


def start(*args, **options):
    """Start the command line as a process."""
    streams = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    # Else readline, which pytest may import, would slip COLUMNS in.
    environment = dict(os.environ)
    return subprocess.Popen(
        [sys.executable, claude_batches.__file__, *args],
        **{**streams, "env": environment, **options},
    )


def send_signal(process, number):
    """Interrupt a process; again where the signal came just before a system call, which Python then does not end."""
    for _ in range(4):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(4)
            return


def finish(process):
    """Return exit status, output and what a person was told, once a process has ended."""
    out, err = process.communicate(timeout=20)
    return process.returncode, out, (err or b"").decode()


# ---- Sandbox ---------------------------------------------------------------------------------------------------


def test_sandbox_is_there_for_its_block_and_gone_afterwards():
    with Sandbox() as sandbox:
        assert (
            re.fullmatch(r"http://127\.0\.0\.1:\d+", sandbox.url)
            and ask(sandbox, "GET", BATCH_URL)[0] == 200
        )
    with pytest.raises(OSError):
        ask(sandbox, "GET", BATCH_URL)


@pytest.mark.parametrize(
    "method, path, body, status",
    [
        ("GET", BATCH_URL, None, 200),
        ("GET", "/v1/models", None, 200),
        ("GET", "/v1/models/claude-opus-4-6", None, 200),
        ("POST", COUNT, {"model": "m", "messages": [1]}, 200),
        ("POST", BATCH_URL, {"requests": [request("a")]}, 200),
        ("GET", "/v1/models/none", None, 404),
        ("GET", BATCH_URL + "/none", None, 404),
        ("GET", "/v2", None, 404),
        ("GET", BATCH_URL + "/none/results", None, 404),
        ("POST", BATCH_URL + "/none/cancel", None, 404),
        ("DELETE", BATCH_URL + "/none", None, 404),
        ("DELETE", BATCH_URL, None, 404),
        ("POST", "/v1/models", b"{}", 404),
        ("GET", COUNT, None, 404),
    ],
)
def test_every_answer_has_request_id_date_and_organization_and_needs_a_key(
    sandbox, method, path, body, status
):
    answer = ask(sandbox, method, path, body)
    headers = answer[1]
    assert answer[0] == status and headers["content-type"] == "application/json"
    assert (
        headers["request-id"].startswith("req_sandbox")
        and headers["anthropic-organization-id"] == "sandbox"
    )
    sent = email.utils.parsedate_to_datetime(headers["date"])
    assert abs(sent - datetime.now(timezone.utc)) < timedelta(seconds=30)
    if status == 404:
        kind, words = refusal_words(*answer)
        assert kind == "not_found_error" and "sandbox" in words
    assert ask(sandbox, method, path, body, **{"x-api-key": "key"})[0] == status
    assert (
        refusal_words(*ask(sandbox, method, path, body, accept="*/*"))[0]
        == "authentication_error"
    )


def test_a_batch_is_in_progress_and_then_ended_with_four_kinds_of_rows_in_another_order(
    slow,
):
    ids = ["a", "b-wrong", "c", "expired-d"]
    status, headers, raw = ask(
        slow,
        "POST",
        BATCH_URL,
        {
            "requests": [
                request(name, max_tokens=0 if "wrong" in name else 9) for name in ids
            ]
        },
    )
    (batch,) = rows(raw)
    assert (
        status == 200
        and int(headers["retry-after"]) > 0
        and batch["type"] == "message_batch"
    )
    assert batch["processing_status"] == "in_progress"
    assert batch["request_counts"] == {
        "processing": 4,
        "succeeded": 0,
        "errored": 0,
        "canceled": 0,
        "expired": 0,
    }
    created, expires = (
        datetime.fromisoformat(batch[name]) for name in ("created_at", "expires_at")
    )
    assert expires - created == timedelta(
        hours=24
    ) and created.utcoffset() == timedelta(0)
    assert {
        batch[name]
        for name in ("results_url", "ended_at", "cancel_initiated_at", "archived_at")
    } == {None}
    assert (
        refusal_words(*ask(slow, "GET", f"{BATCH_URL}/{batch['id']}/results"))[0]
        == "not_found_error"
    )

    end(slow, slow.batches.retrieve(batch["id"]))
    status, headers, raw = ask(slow, "GET", f"{BATCH_URL}/{batch['id']}")
    (batch,) = rows(raw)
    assert (
        "retry-after" not in headers
        and batch["processing_status"] == "ended"
        and batch["ended_at"]
    )
    assert batch["request_counts"] == {
        "processing": 0,
        "succeeded": 2,
        "errored": 1,
        "canceled": 0,
        "expired": 1,
    }
    assert batch["results_url"] == f"{slow.url}{BATCH_URL}/{batch['id']}/results"
    assert json.loads(ask(slow, "GET", BATCH_URL)[2])["data"] == [batch]
    status, headers, raw = ask(slow, "GET", f"{BATCH_URL}/{batch['id']}/results")
    assert status == 200 and headers["content-type"] == "application/x-jsonl"
    assert (
        headers["transfer-encoding"] == "chunked"
        and "content-length" not in headers
        and "request-id" in headers
    )
    assert (
        sorted(row["custom_id"] for row in rows(raw))
        == ids
        != [row["custom_id"] for row in rows(raw)]
    )
    results = {row["custom_id"]: row["result"] for row in rows(raw)}
    message, error = results["a"]["message"], results["b-wrong"]["error"]
    assert (results["a"]["type"], message["role"], message["model"]) == (
        "succeeded",
        "assistant",
        HELLO["model"],
    )
    assert (
        "sandbox" in message["content"][0]["text"]
        and message["usage"]["service_tier"] == "batch"
    )
    assert (
        results["b-wrong"]["type"] == "errored"
        and error["type"] == "error"
        and error["request_id"] is None
    )
    assert results["expired-d"] == {"type": "expired"}


def test_what_the_api_refuses_inside_params_comes_back_errored(sandbox):
    requests = [
        {"custom_id": str(number), "params": params}
        for number, (params, _) in enumerate(REFUSED_LATER)
    ]
    for row in sandbox.batches.results(ended(sandbox, *requests).id):
        word = REFUSED_LATER[int(row.custom_id)][1]
        assert row.result.type == ("errored" if word else "succeeded")
        if word:
            assert (
                row.result.error.error.type == "invalid_request_error"
                and word in row.result.error.error.message
            )
    older = sandbox.client.with_options(
        default_headers={"anthropic-version": "2023-06-01"}
    ).messages.batches
    batch = older.wait(
        older.create(requests=[request("a", temperature=1)]).id, poll_interval=0.01
    )
    assert batch.request_counts.succeeded == 1


def test_a_cancel_ends_a_batch_with_canceled_rows(slow):
    batch = running(slow, request("a"), request("expired-b"), request("c", stream=True))
    canceling, again = slow.batches.cancel(batch.id), slow.batches.cancel(batch.id)
    assert (
        canceling.processing_status == "canceling"
        and canceling.request_counts.processing == 3
    )
    assert canceling.cancel_initiated_at and again == canceling
    assert ask(slow, "GET", f"{BATCH_URL}/{batch.id}")[1]["retry-after"]
    end(slow, batch)
    batch = slow.batches.retrieve(batch.id)
    counts = batch.request_counts
    assert (
        batch.processing_status == "ended"
        and batch.ended_at >= batch.cancel_initiated_at
    )
    assert (counts.canceled, counts.errored, counts.succeeded, counts.expired) == (
        2,
        1,
        0,
        0,
    )
    assert sorted(row.result.type for row in slow.batches.results(batch.id)) == [
        "canceled",
        "canceled",
        "errored",
    ]
    # Too late, and no error.
    assert slow.batches.cancel(batch.id) == batch


def test_only_an_ended_batch_can_be_deleted_and_then_it_is_gone(slow):
    batch = running(slow)
    path = f"{BATCH_URL}/{batch.id}"
    kind, words = refusal_words(*ask(slow, "DELETE", path))
    assert kind == "invalid_request_error" and "cancel" in words
    end(slow, batch)
    assert json.loads(ask(slow, "DELETE", path)[2]) == {
        "id": batch.id,
        "type": "message_batch_deleted",
    }
    for call in (
        ("GET", path),
        ("DELETE", path),
        ("GET", path + "/results"),
        ("POST", path + "/cancel"),
    ):
        assert refusal_words(*ask(slow, *call))[0] == "not_found_error"
    nothing = {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert json.loads(ask(slow, "GET", BATCH_URL)[2]) == nothing


@pytest.mark.parametrize(
    "body, word",
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[" * 100000, "JSON"),
        (b"[]", "requests"),
        (b"{}", "requests"),
        ({"requests": []}, "requests"),
        ({"requests": {}}, "requests"),
        ({"requests": [request("a")], "more": 1}, "beside"),
        (
            {"requests": [request("a"), request("a")]},
            "requests.1: custom_id must be unique",
        ),
        *(
            ({"requests": [request(wrong)]}, "requests.0: custom_id")
            for wrong in ("", "a b", "a" * 65, "é", "a\n", 1)
        ),
        ({"requests": [{"params": {}}]}, "custom_id"),
        ({"requests": [{"custom_id": "a"}]}, "params"),
        ({"requests": [dict(request("a"), more=1)]}, "'more'"),
        ({"requests": [1]}, "object"),
        (b'{"requests":[{"custom_id":"a","params":{"x":NaN}}]}', "JSON"),
        (b'{"requests":[{"custom_id":"a","params":{"x":"\\ud800"}}]}', "surrogate"),
    ],
)
def test_a_create_that_breaks_a_rule_is_refused_whole(untouched, body, word):
    kind, words = refusal_words(*ask(untouched, "POST", BATCH_URL, body))
    assert kind == "invalid_request_error" and word in words


def test_batches_are_paged_newest_first_in_both_directions(slow):
    newest_first = [running(slow).id for _ in range(5)][::-1]

    def page(query):
        fields = json.loads(ask(slow, "GET", f"{BATCH_URL}?{query}")[2])
        ids = [batch["id"] for batch in fields["data"]]
        assert (fields["first_id"], fields["last_id"]) == (
            (ids[0], ids[-1]) if ids else (None, None)
        )
        return [newest_first.index(batch_id) for batch_id in ids], fields["has_more"]

    assert page("") == page("limit=5") == ([0, 1, 2, 3, 4], False) and page(
        "limit=2"
    ) == ([0, 1], True)
    for name, cursor, expected in [
        ("after_id", 1, ([2, 3], True)),
        ("after_id", 2, ([3, 4], False)),
        ("after_id", 4, ([], False)),
        ("before_id", 4, ([2, 3], True)),
        ("before_id", 2, ([0, 1], False)),
        ("before_id", 1, ([0], False)),
        ("before_id", 0, ([], False)),
    ]:
        assert page(f"limit=2&{name}={newest_first[cursor]}") == expected, (
            name,
            cursor,
        )
    assert [newest_first.index(batch.id) for batch in slow.batches.list(limit=2)] == [
        0,
        1,
        2,
        3,
        4,
    ]
    back = slow.batches.list(limit=2, before_id=newest_first[4])
    assert [newest_first.index(batch.id) for batch in back] == [2, 3, 0, 1]


@pytest.mark.parametrize("path", [BATCH_URL, "/v1/models"])
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "after_id=none",
        "before_id=none",
        "limit=%C2%B2",
    ],
)
def test_a_limit_or_cursor_that_cannot_be_is_a_400(sandbox, path, query):
    assert (
        refusal_words(*ask(sandbox, "GET", f"{path}?{query}"))[0]
        == "invalid_request_error"
    )


def test_models_are_listed_by_lifecycle_and_found_by_alias(sandbox):
    models = sandbox.client.models
    listed = list(models.list(limit=1))
    assert [model.created_at for model in listed] == sorted(
        (model.created_at for model in listed), reverse=True
    )
    assert "retired" not in {model.lifecycle for model in listed}
    for wanted in (["active"], ["deprecated"], ["retired"], ["active", "retired"]):
        assert {model.lifecycle for model in models.list(lifecycle=wanted)} == set(
            wanted
        )
    opus = models.retrieve("claude-opus-4-6")
    assert (opus.display_name, opus.type) == (
        "Claude Opus 4.6",
        "model",
    ) and opus.capabilities.batch.supported is True
    assert (
        opus in listed
        and models.retrieve("claude-opus-4-1").id == "claude-opus-4-1-20250805"
    )


@pytest.mark.parametrize(
    "more, refused",
    [
        ({}, None),
        ({key: {} for key in claude_batches.COUNTED[2:]}, None),
        ({"max_tokens": 1}, "max_tokens"),
        ({"stream": False}, "stream"),
        ({"metadata": {}}, "metadata"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"\ud800": 1}, "ud800"),
    ],
)
def test_count_tokens_takes_its_own_fields_and_no_other(sandbox, more, refused):
    answer = ask(
        sandbox,
        "POST",
        COUNT,
        dict({"model": "m", "messages": HELLO["messages"]}, **more),
    )
    if refused:
        kind, words = refusal_words(*answer)
        assert kind == "invalid_request_error" and refused in words
    else:
        ((name, tokens),) = rows(answer[2])[0].items()
        assert (answer[0], name) == (200, "input_tokens") and tokens > 0


def test_the_sandbox_serves_threads_and_keeps_ids_but_no_bodies(slow):
    threads = [
        threading.Thread(target=running, args=(slow, request("a", system="needle")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(
        {batch.id for batch in slow.batches.list()}
    ) == 8 and "needle" not in repr(slow._batches)


def test_a_reader_that_goes_away_is_no_news(sandbox, capfd, monkeypatch):
    batch, before = ended(sandbox), threading.active_count()
    line = b'{"custom_id":"%s"}\n' % (b"a" * 60000)
    monkeypatch.setattr(
        claude_batches._SandboxBatch, "rows", lambda batch: itertools.repeat(line)
    )
    with sandbox.batches.results(batch.id) as results:
        next(results)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert capfd.readouterr() == ("", "")


# ---- Command line: one command at a time -----------------------------------------------------------------------


def test_create_prints_the_batch_of_a_file_or_of_standard_input(slow, cli):
    path = write(
        "requests.jsonl",
        b"\xef\xbb\xbf" + json.dumps(request("a")).encode() + b"\r",
        b"\r",
        request("b"),
    )
    for name, stdin in ((path, b""), ("-", read(path))):
        status, out, err = cli("create", name, stdin=stdin)
        (batch,) = rows(out)
        assert (status, err) == (0, "") and batch == slow.batches.retrieve(
            batch["id"]
        ).to_dict()
        assert batch["request_counts"]["processing"] == 2


def test_retrieve_cancel_and_delete_print_what_the_api_answers(slow, cli):
    batch = running(slow)
    line = json.dumps(batch.to_dict(), separators=(",", ":")).encode() + b"\n"
    assert cli("retrieve", batch.id) == (0, line, "")
    status, out, err = cli("cancel", batch.id)
    assert (status, rows(out)[0]["processing_status"], err) == (0, "canceling", "")
    status, out, err = cli("delete", batch.id)
    assert (
        (status, out) == (1, b"")
        and "400" in err
        and "cancel it before" in err
        and err.count("\n") == 1
    )
    end(slow, batch)
    status, out, err = cli("delete", batch.id)
    assert (status, rows(out), err) == (
        0,
        [{"id": batch.id, "type": "message_batch_deleted"}],
        "",
    )
    status, out, err = cli("retrieve", batch.id)
    assert (
        (status, out) == (1, b"")
        and "404" in err
        and batch.id in err
        and "request id req_sandbox" in err
    )


def test_wait_prints_the_ended_batch_and_its_status_tells_whether_all_succeeded(
    sandbox, cli
):
    for expected, requests in (
        (0, [request("a")]),
        (3, [request("a"), request("b", max_tokens=0)]),
    ):
        batch = running(sandbox, *requests)
        status, out, err = cli("wait", batch.id, "--poll-interval", "0.01")
        assert status == expected and rows(out) == [
            sandbox.batches.retrieve(batch.id).to_dict()
        ]
        assert err.splitlines()[-1] == "ended: 1 succeeded" + ", 1 errored" * (
            expected == 3
        )


def test_list_shows_the_newest_in_aligned_columns_or_as_json(slow, cli, monkeypatch):
    assert cli("list") == (
        0,
        b"ID  STATUS  CREATED  REQUESTS  SUCCEEDED  ERRORED\n",
        "",
    )
    assert cli("list", "--json") == (0, b"", "")
    batches = [
        running(slow, request("a"), request("b", max_tokens=0)) for _ in range(4)
    ][::-1]
    ids = [end(slow, batch) or batch.id for batch in batches]
    status, out, err = cli("list")
    head, *lines = out.decode().splitlines()
    assert (status, err) == (0, "") and [line.split()[0] for line in lines] == ids
    for name in head.split():
        column = head.index(name)
        assert all(
            line[column - 1 : column].strip() == "" and line[column].strip()
            for line in lines
        ), name
    assert re.search(r"ended +\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ +2 +1 +1$", lines[0])
    assert rows(cli("list", "--json")[1]) == [
        slow.batches.retrieve(batch_id).to_dict() for batch_id in ids
    ]
    queries, page = [], claude_batches._sandbox_page
    # So that there are several pages.
    monkeypatch.setattr(
        claude_batches,
        "_sandbox_page",
        lambda items, query: (
            queries.append(query),
            page(items, dict(query, limit=["2"])),
        )[1],
    )
    assert [row["id"] for row in rows(cli("list", "--json", "--limit", "3")[1])] == ids[
        :3
    ] and len(queries) == 2
    assert (
        len(cli("list", "--limit", "1")[1].splitlines()) == 2
        and len(cli("list")[1].splitlines()) == 5
    )


def test_models_are_listed_in_columns_or_as_json_and_one_is_printed(sandbox, cli):
    listed = [model.to_dict() for model in sandbox.client.models.list()]
    head, *lines = cli("models")[1].decode().splitlines()
    assert head.split() == ["ID", "NAME", "LIFECYCLE", "CREATED", "BATCH"]
    assert [line.split()[0] for line in lines] == [model["id"] for model in listed]
    assert re.search(
        r"^claude-opus-4-6  +Claude Opus 4.6 +active +2026-02-04  yes$",
        "\n".join(lines),
        re.MULTILINE,
    )
    assert rows(cli("models", "--json")[1]) == listed
    assert (
        rows(cli("models", "claude-opus-4-1")[1])[0]["id"] == "claude-opus-4-1-20250805"
    )
    assert cli("models", "none")[:2] == (1, b"")


def test_results_are_printed_or_saved_byte_for_byte_whole_or_not_at_all_and_never_over_a_file(
    slow, cli, monkeypatch
):
    monkeypatch.setattr(claude_batches, "_backoff", lambda failures: 0.0)
    batch = running(slow)
    status, out, err = cli("results", batch.id, "-o", "early.jsonl")
    assert (status, out) == (1, b"") and "in_progress" in err
    end(slow, batch)
    raw = ask(slow, "GET", f"{BATCH_URL}/{batch.id}/results")[2]
    assert cli("results", batch.id) == (0, raw, "")
    assert (
        cli("results", batch.id, "-o", "out.jsonl") == (0, b"", "")
        and read("out.jsonl") == raw
    )
    status, out, err = cli("results", batch.id, "--output", "out.jsonl")
    assert (
        (status, out) == (2, b"")
        and "out.jsonl exists" in err
        and read("out.jsonl") == raw
    )
    assert cli("results", batch.id, "-o", "no/such/out.jsonl")[:2] == (1, b"")
    mixed = running(slow, request("a"), request("expired"))
    end(slow, mixed)
    assert cli("results", mixed.id)[0] == 3
    odd = running(slow, request("a"), request("b"))
    end(slow, odd)
    with monkeypatch.context() as patch:
        lines = [b'{"custom_id":"a","result":1}\n', b'{"custom_id":"b"}\n']
        patch.setattr(claude_batches._SandboxBatch, "rows", lambda batch: lines)
        assert cli("results", odd.id) == (3, b"".join(lines), "")
    whole = claude_batches._SandboxBatch.rows
    monkeypatch.setattr(
        claude_batches._SandboxBatch,
        "rows",
        lambda batch: itertools.islice(whole(batch), 1),
    )
    status, out, err = cli("results", batch.id, "-o", "torn.jsonl")
    assert (
        (status, out) == (1, b"")
        and "1 of 2" in err
        and os.listdir(".") == ["out.jsonl"]
    )
    monkeypatch.setattr(
        claude_batches._SandboxBatch,
        "rows",
        lambda batch: write("late.jsonl", b"") and whole(batch),
    )
    assert (
        cli("results", batch.id, "-o", "late.jsonl")[0] and read("late.jsonl") == b"\n"
    )
    assert sorted(os.listdir(".")) == ["late.jsonl", "out.jsonl"]


def test_count_tokens_sends_only_what_the_endpoint_takes_and_sums_up_for_a_person(
    sandbox, cli, monkeypatch
):
    bodies, count = [], Sandbox._count_tokens
    monkeypatch.setattr(
        Sandbox,
        "_count_tokens",
        lambda self, body: (bodies.append(body), count(self, body))[1],
    )
    path = write(
        "r.jsonl",
        request("a", temperature=1, stream=True, metadata={}),
        request("b", system="Be brief"),
    )
    status, out, err = cli("count-tokens", path)
    counts = dict(line.split("\t") for line in out.decode().splitlines())
    assert status == 0 and list(counts) == ["a", "b"]
    assert err == f"{sum(map(int, counts.values()))} input tokens in all\n"
    assert [set(body) for body in bodies] == [
        {"model", "messages"},
        {"model", "messages", "system"},
    ]
    assert cli("count-tokens", "-", stdin=read(path))[:2] == (status, out)


# ---- Command line: run -----------------------------------------------------------------------------------------


def test_run_does_a_whole_job_and_says_so(sandbox, cli):
    path = write("r.jsonl", request("a"), request("b"))
    status, out, err = cli("run", path, "-o", "out.jsonl", "--poll-interval", "0.01")
    (batch_id,) = set(re.findall(r"msgbatch_sandbox_\w+", err))
    assert (status, out) == (0, b"") and sorted(os.listdir(".")) == [
        "out.jsonl",
        "r.jsonl",
    ]
    assert (
        read("out.jsonl") == ask(sandbox, "GET", f"{BATCH_URL}/{batch_id}/results")[2]
    )
    assert (
        f"): batch {batch_id}\n" in err
        and f"batches: {batch_id}" in err
        and err.endswith("results: out.jsonl\n")
    )
    assert "2 requests: 2 succeeded\n" in err and re.search(
        r"20 tokens in, 24 out; 0:00:0\d elapsed", err
    )


def test_run_writes_what_failed_as_it_was_ready_to_be_run_again(sandbox, cli):
    one = (
        b'{ "params":'
        + json.dumps(dict(HELLO, stream=True)).encode()
        + b' ,"custom_id":"one"}'
    )
    fine, last = (
        json.dumps(request(custom_id)).encode() for custom_id in ("fine", "expired")
    )
    # A byte order mark, CRLF, blank lines, no newline at the end.
    with open("r.jsonl", "wb") as file:
        file.write(b"\r\n".join([b"\xef\xbb\xbf" + one, b"", fine, b"  ", last]))
    status, _, err = cli("run", "r.jsonl", "-o", "out.jsonl", "--poll-interval", "0.01")
    assert status == 3 and read("out.failed.jsonl") == one + b"\r\n" + last + b"\n"
    assert {
        row["custom_id"]: row["result"]["type"] for row in rows(read("out.jsonl"))
    } == {"one": "errored", "fine": "succeeded", "expired": "expired"}
    for words in (
        "r.jsonl:1: warning: ",
        "3 requests: ",
        "1 succeeded",
        "1 errored",
        "1 expired",
        "1 × invalid_request_error: ",
        "out.failed.jsonl",
    ):
        assert words in err
    status, _, err = cli(
        "run", "out.failed.jsonl", "-o", "again", "--poll-interval", "0.01"
    )
    assert (
        status == 3
        and len(rows(read("again"))) == 2
        and len(read("again.failed").splitlines()) == 2
    )


def test_run_in_the_sandbox_needs_no_key_and_keeps_nothing_but_the_results(cli):
    path = write("r.jsonl", request("a"), request("b"))
    status, _, err = cli(
        "run", path, "-o", "out.jsonl", "--sandbox", "--poll-interval", "0.05"
    )
    assert (
        status == 0
        and "2 requests: 2 succeeded" in err
        and len(rows(read("out.jsonl"))) == 2
    )
    assert sorted(os.listdir(".")) == ["out.jsonl", "r.jsonl"]
    write("real.jsonl.job", b"of a real run")
    status, _, err = cli("run", path, "-o", "real.jsonl", "--sandbox")
    assert (
        status == 1
        and "real.jsonl.job" in err
        and read("real.jsonl.job") == b"of a real run\n"
    )


def test_a_dry_run_prints_the_plan_without_a_key_and_sends_nothing(cli, monkeypatch):
    monkeypatch.setattr(claude_batches, "MAX_BATCH_REQUESTS", 2)
    requests = [request("a"), request("b", model="other"), request("c", stream=True)]
    bodies = [
        json.dumps({"requests": part}, separators=(",", ":"))
        for part in (requests[:2], requests[2:])
    ]
    status, out, err = cli("run", write("r.jsonl", *requests), "--dry-run")
    assert (status, out.decode()) == (
        0,
        (
            f"requests: 3\nparts: 2\nbytes: {sum(map(len, bodies))}\n"
            "models: claude-opus-4-6 (2), other (1)\nmax_tokens: 30\n"
        ),
    )
    assert (
        err.startswith("r.jsonl:3: warning: ")
        and "stream" in err
        and os.listdir(".") == ["r.jsonl"]
    )


def test_what_the_api_would_refuse_later_is_a_warning_with_its_line(cli, monkeypatch):
    for params, word in REFUSED_LATER:
        path = write(
            "r.jsonl", request("fine"), b"", {"custom_id": "a", "params": params}
        )
        status, _, err = cli("run", path, "--dry-run")
        assert status == 0 and (
            err.startswith("r.jsonl:3: warning: ") and word in err
            if word
            else err == ""
        )
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "anthropic-version: 2023-06-01")
    assert cli("run", write("r.jsonl", request("a", temperature=1)), "--dry-run")[
        ::2
    ] == (0, "")


def test_what_count_tokens_refuses_stops_a_run_with_the_apis_words(untouched, cli):
    status, out, err = cli(
        "run", write("r.jsonl", request("a", messages=[])), "-o", "out.jsonl"
    )
    assert (
        (status, out) == (2, b"")
        and "r.jsonl: " in err
        and "model and messages: Field required" in err
    )
    assert os.listdir(".") == ["r.jsonl"]


WRONG = [
    (b"{", "not JSON"),
    (b"{'a': 1}", "not JSON"),
    (b"[]", "object"),
    (b"1", "object"),
    (b"{}", "custom_id"),
    (b'{"custom_id":"a","params":{}} x', "column 31"),
    (b'{"custom_id":1,"params":{}}', "custom_id 1: "),
    (b'{"custom_id":"a b","params":{}}', "custom_id 'a b': "),
    (b'{"custom_id":"first","params":{}}', "unique"),
    (b'{"custom_id":"a"}', "params must be an object"),
    (b'{"custom_id":"a","params":[]}', "params must be an object"),
    (b'{"custom_id":"a","params":{},"more":1}', "'more'"),
    (b'{"custom_id":"a","params":{"x":NaN}}', "custom_id 'a': "),
    (b'{"custom_id":"a","params":{"x":"\\ud800"}}', "surrogate"),
    (b'"\xff"', "utf-8"),
    (b"[" * 100000, "recursion"),
]


@pytest.mark.parametrize(
    "line, words", WRONG, ids=[line[:40].decode("latin-1") for line, _ in WRONG]
)
def test_a_wrong_line_is_told_with_file_and_line_and_nothing_is_sent(
    untouched, cli, line, words
):
    path = write("r.jsonl", request("first"), b"", line)
    for args in (
        ("run", path, "-o", "out"),
        ("run", path, "--dry-run"),
        ("create", path),
        ("count-tokens", path),
    ):
        status, out, err = cli(*args)
        assert (
            (status, out) == (2, b"")
            and err.startswith("claude_batches: r.jsonl:3: ")
            and words in err
        )
        assert err.count("\n") == 1 and len(err) < 300
    for command in ("create", "count-tokens"):
        status, out, err = cli(command, "-", stdin=read(path))
        assert (status, out) == (2, b"") and err.startswith(
            "claude_batches: standard input:3: "
        )
    assert os.listdir(".") == ["r.jsonl"]


def test_a_byte_order_mark_and_a_blank_line_are_forgiven_together(cli):
    assert (
        cli("run", write("r.jsonl", b"\xef\xbb\xbf", request("a")), "--dry-run")[0] == 0
    )


@pytest.mark.parametrize("name", ["out.jsonl", "out.failed.jsonl"])
@pytest.mark.parametrize("is_link", [False, pytest.param(True, marks=posix)])
def test_run_never_starts_for_results_that_exist(untouched, cli, name, is_link):
    path = write("r.jsonl", request("a"))
    if is_link:
        os.symlink("nowhere", name)
    else:
        write(name, b"precious")
    status, out, err = cli("run", path, "-o", "out.jsonl")
    assert (status, out) == (2, b"") and f"{name} exists" in err
    assert sorted(os.listdir(".")) == sorted(["r.jsonl", name]) and (
        is_link or read(name) == b"precious\n"
    )


@pytest.mark.parametrize(
    "args, words",
    [
        ((), "COMMAND"),
        (("none",), "none"),
        (("run", "r.jsonl"), "-o RESULTS is required"),
        (("create",), "REQUESTS"),
        (("run", "-", "-o", "out"), "-: run needs a regular file"),
        (("run", ".", "-o", "out"), "regular file"),
        (("run", "none.jsonl", "-o", "out"), "none.jsonl: No such file"),
        (("run", "none.jsonl", "--dry-run"), "none.jsonl: No such file"),
        (("create", "none.jsonl"), "none.jsonl: No such file"),
        (("count-tokens", "."), ".: "),
        (("run", "empty.jsonl", "-o", "out"), "empty.jsonl: no requests"),
        (("create", "empty.jsonl"), "at least one"),
        (("list", "--limit", "0"), "--limit"),
        (("list", "--limit", "x"), "--limit"),
        (("retrieve",), "ID"),
        (("wait", "a", "--poll-interval", "-1"), "--poll-interval"),
        (("wait", "a", "--poll-interval", "nan"), "-interval"),
        (("run", "r.jsonl", "-o", "out", "--settle", "inf"), "--settle"),
        (("retrieve", ""), "non-empty"),
        (("results", ".."), "'..'"),
        (("sandbox", "--port", "x"), "--port"),
        (("sandbox", "--port", "99999"), "--port"),
        (("retrieve", "\udcff"), "id"),
    ],
)
def test_wrong_usage_is_told_and_is_exit_status_2(untouched, cli, args, words):
    write("empty.jsonl", b"", b"  ")
    status, out, err = cli(*args)
    assert (
        (status, out) == (2, b"")
        and words in err.splitlines()[-1]
        and os.listdir(".") == ["empty.jsonl"]
    )


COMMANDS = [
    ("create", "r.jsonl"),
    ("retrieve", "a"),
    ("list",),
    ("results", "a"),
    ("results", "a", "-o", "out"),
    ("cancel", "a"),
    ("delete", "a"),
    ("models",),
    ("models", "a"),
    ("count-tokens", "r.jsonl"),
    ("run", "r.jsonl", "-o", "out"),
    ("wait", "a"),
]


def test_without_a_key_every_command_names_the_variable_to_set(cli):
    write("r.jsonl", request("a"))
    for args in COMMANDS:
        status, out, err = cli(*args)
        assert (
            (status, out) == (1, b"")
            and "ANTHROPIC_API_KEY" in err.splitlines()[0]
            and err.count("\n") <= 2
        ), args
    assert os.listdir(".") == ["r.jsonl"]


def test_a_host_that_is_not_there_is_told_in_a_line_or_two(cli, monkeypatch):
    write("r.jsonl", request("a"))
    monkeypatch.setattr(claude_batches, "_backoff", lambda failures: 0.0)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
    with contextlib.closing(socket.socket()) as closed:
        # And never listens.
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv(
            "ANTHROPIC_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}"
        )
        # Wait outlives that.
        for args in COMMANDS[:-1]:
            status, out, err = cli(*args)
            assert (
                (status, out) == (1, b"")
                and "Connection error" in err
                and err.count("\n") in (1, 2)
            ), args
            assert "sk-test" not in err
    assert os.listdir(".") == ["r.jsonl"]


# ---- Command line: the process ---------------------------------------------------------------------------------


def test_the_process_keeps_output_and_progress_apart_and_exits_with_the_status(sandbox):
    path = write("r.jsonl", request("a"), request("b", max_tokens=0))
    with open(path, "rb") as file:
        status, out, err = finish(start("create", "-", stdin=file))
    assert (status, err) == (0, "")
    batch_id = rows(out)[0]["id"]
    status, out, err = finish(start("wait", batch_id, "--poll-interval", "0"))
    assert (
        status == 3
        and rows(out)[0]["id"] == batch_id
        and err.endswith("ended: 1 succeeded, 1 errored\n")
    )
    assert finish(start("--version")) == (
        0,
        b"claude_batches " + claude_batches.__version__.encode() + b"\n",
        "",
    )
    status, out, err = finish(start("retrieve", "none"))
    assert (status, out) == (1, b"") and err.startswith(
        "claude_batches: Error code: 404"
    )


@posix
@pytest.mark.parametrize(
    "args",
    [("list",), ("models", "--json"), ("count-tokens", "r.jsonl"), ("results", "ID")],
)
def test_a_closed_pipe_ends_quietly(sandbox, args):
    write("r.jsonl", request("a"), request("b"))
    reader, writer = os.pipe()
    os.close(reader)
    process = start(
        *(ended(sandbox).id if word == "ID" else word for word in args), stdout=writer
    )
    os.close(writer)
    assert finish(process)[::2] == (0, "")


@posix
@pytest.mark.parametrize("number", [1, 2])
def test_a_closed_standard_stream_is_no_traceback(sandbox, number):
    status, _, err = finish(
        start("wait", ended(sandbox).id, preexec_fn=lambda: os.close(number))
    )
    assert (status, "Traceback" in err) == (0, False)


def test_a_plan_that_the_output_cannot_encode_is_no_traceback(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    status, out, err = finish(
        start("run", write("r.jsonl", request("a", model="modèle")), "--dry-run")
    )
    assert (status, err) == (0, "") and b"requests: 1" in out


def test_a_wait_that_is_no_terminal_gets_a_line_per_change(slow):
    batch = running(slow)
    process = start("wait", batch.id, "--poll-interval", "0.01")
    assert process.stderr.readline().strip() == b"in_progress: 2 processing"
    # Several polls.
    time.sleep(0.05)
    slow.batches.cancel(batch.id)
    assert process.stderr.readline().strip() == b"canceling: 2 processing"
    end(slow, batch)
    status, _, err = finish(process)
    assert (status, err.splitlines()) == (3, ["ended: 2 canceled"])


# Windows before 3.12: a ValueError.
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"fileno": lambda: 99_999},
        {"fileno": lambda: int("x")},
        {"fileno": io.StringIO().fileno},
    ],
)
def test_the_status_line_takes_any_stream(monkeypatch, given):
    stream = io.StringIO()
    bare = argparse.Namespace(write=stream.write, flush=stream.flush, **given)
    monkeypatch.setattr(sys, "stderr", bare)
    progress = claude_batches._Progress()
    for line in ("a", "a", "b"):
        progress.status_line(line, "0:00:01")
    assert stream.getvalue() == "a\nb\n"


def test_times_are_told_in_hours_minutes_and_seconds():
    spans = [timedelta(seconds=seconds) for seconds in (-1, 0.9, 3661, 86400, 176461)]
    assert [*map(claude_batches._clock, spans)] == [
        "0:00:00",
        "0:00:00",
        "1:01:01",
        "24:00:00",
        "49:01:01",
    ]


@posix
@pytest.mark.parametrize("is_piped", [False, True])
def test_the_status_line_stands_in_one_place_and_is_no_wider_than_the_terminal(
    slow, is_piped
):
    import fcntl
    import pty
    import struct
    import termios

    batch = running(slow)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    process = start(
        "wait",
        batch.id,
        "--poll-interval",
        "0.01",
        stderr=slave,
        stdout=subprocess.PIPE if is_piped else slave,
    )
    os.close(slave)
    shown = b""
    # EIO at its end, on Linux.
    with contextlib.suppress(OSError):
        for block in iter(lambda: os.read(master, 4096), b""):
            shown += block
            if shown.count(b"in_progress") >= 5:
                end(slow, batch)
    os.close(master)
    status, out, _ = finish(process)
    live, *rest = shown.decode().split("\r\n")
    live = live.split("\r")
    assert (
        status == 0
        and rows(out if is_piped else rest.pop(0).encode())[0]["processing_status"]
        == "ended"
    )
    assert rest == [""] and live[1].startswith("in_progress: 2 processing, 0:00:0")
    assert (
        live[-1].startswith("ended: 2 succeeded, 0:00:0") and max(map(len, live)) < 60
    )


@posix
@pytest.mark.parametrize(
    "number, expected, word",
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
@pytest.mark.parametrize("command", ["wait", "run"])
def test_a_signal_tells_the_batch_that_goes_on_and_how_to_go_on_or_cancel(
    slow, command, number, expected, word
):
    path = write("my requests.jsonl", request("a"))
    args = (
        ("run", path, "-o", "out.jsonl")
        if command == "run"
        else ("wait", running(slow).id)
    )
    process = start(*args)
    next(line for line in process.stderr if b"in_progress" in line)
    send_signal(process, number)
    status, out, err = finish(process)
    (batch,) = slow.batches.list()
    assert (
        (status, out) == (expected, b"")
        and err.startswith(word)
        and "Traceback" not in err
    )
    assert (
        "billed" in err.partition(batch.id)[0]
        and batch.processing_status == "in_progress"
    )
    told = {
        line.partition(": ")[0]: shlex.split(line.partition(": ")[2])
        for line in err.splitlines()
    }
    assert told["to go on"] == ["python", claude_batches.__file__, *args]
    assert told["to cancel"] == ["python", claude_batches.__file__, "cancel", batch.id]
    assert os.path.exists("out.jsonl.job") == (command == "run") and not os.path.exists(
        "out.jsonl"
    )


def test_an_interrupted_wait_for_a_batch_that_was_too_fresh_at_first_tells_it_too(
    slow, cli, monkeypatch
):
    batch, answer, asked = running(slow), slow._respond, []

    def fresh(call, *args):
        asked.append(call)
        return answer(call + "x" * (len(asked) <= 2), *args)

    def sleep(seconds):
        if len(asked) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(slow, "_respond", fresh)
    monkeypatch.setattr(claude_batches.time, "sleep", sleep)
    status, out, err = cli("wait", batch.id)
    assert (status, out) == (
        130,
        b"",
    ) and f"to cancel: {sys.argv[0]} cancel {batch.id}" in err.replace("python ", "")


def test_an_interrupted_wait_none_of_whose_polls_came_through_tells_the_batch(
    slow, cli, monkeypatch
):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    batch = running(slow)
    monkeypatch.setattr(claude_batches.Batches, "wait", interrupt)
    status, out, err = cli("wait", batch.id)
    assert (status, out) == (130, b"") and f"billed: {batch.id}" in err


@posix
def test_one_signal_interrupts_and_what_comes_at_once_after_it_is_passed_over(clock):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for first, word in ((signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")):
        with claude_batches._signals_interrupt():
            for _ in range(2):
                with pytest.raises(KeyboardInterrupt, match=word):
                    os.kill(os.getpid(), first)
                for number in (signal.SIGINT, signal.SIGTERM):
                    os.kill(os.getpid(), number)
                # Then it is a person, who means it.
                clock.pass_by(1.1)
        assert [
            signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
        ] == before


# As sh has it for what runs in the background.
@posix
def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with claude_batches._signals_interrupt():
        os.kill(os.getpid(), signal.SIGINT)


@posix
def test_an_interrupted_run_in_the_sandbox_does_not_speak_of_bills():
    process = start(
        "run", write("r.jsonl", request("a")), "-o", "out.jsonl", "--sandbox"
    )
    next(line for line in process.stderr if b"in_progress" in line)
    send_signal(process, signal.SIGINT)
    status, out, err = finish(process)
    assert (
        (status, out, os.listdir(".")) == (130, b"", ["r.jsonl"])
        and "billed" not in err
        and "cancel" not in err
    )


@posix
def test_an_interrupted_create_says_that_the_batch_may_have_been_made(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv(
            "ANTHROPIC_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}"
        )
        process = start("create", write("r.jsonl", request("a")))
        connection, raw = server.accept()[0], b""
        while not raw.endswith(b"]}"):
            raw += connection.recv(65536)
        send_signal(process, signal.SIGINT)
        status, out, err = finish(process)
        connection.close()
    assert (
        (status, out) == (130, b"")
        and "may have been made" in err
        and "billed" in err
        and " list" in err
    )


@posix
def test_an_interrupted_results_leaves_no_file(sandbox, monkeypatch):
    batch, whole = ended(sandbox), claude_batches._SandboxBatch.rows
    opened, go_on = threading.Event(), threading.Event()

    def stalled(batch):
        yield next(whole(batch))
        opened.set()
        go_on.wait(10)

    monkeypatch.setattr(claude_batches._SandboxBatch, "rows", stalled)
    process = start("results", batch.id, "-o", "out.jsonl")
    assert opened.wait(10)
    send_signal(process, signal.SIGTERM)
    status, out, err = finish(process)
    go_on.set()
    assert (status, out, err, os.listdir(".")) == (143, b"", "terminated\n", [])


@posix
def test_the_sandbox_command_prints_two_lines_to_export_and_serves_until_interrupted(
    monkeypatch,
):
    process = start("sandbox")
    lines = [process.stdout.readline().decode().split() for _ in range(2)]
    names = dict(assignment.split("=") for _, assignment in lines)
    assert [word for word, _ in lines] == ["export"] * 2 and list(names) == [
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_API_KEY",
    ]
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert (
        Anthropic().models.retrieve("claude-opus-4-6").display_name == "Claude Opus 4.6"
    )
    status, out, err = finish(
        start("sandbox", "--port", names["ANTHROPIC_BASE_URL"].rpartition(":")[2])
    )
    assert (status, out) == (1, b"") and "in use" in err and err.count("\n") == 1
    send_signal(process, signal.SIGINT)
    assert finish(process) == (130, b"", "interrupted\n")


# More digits than Python reads, unless it is asked to.
HUGE = "9" * 5000


def test_integers_of_any_length_go_through():
    line = f'{{"custom_id":"a","params":{{"model":"m","max_tokens":1,"messages":[{{"n":{HUGE}}}]}}}}'
    status, _, err = finish(
        start("run", write("r.jsonl", line.encode()), "-o", "out", "--sandbox")
    )
    assert status == 0, err
    printed = python(
        os.path.dirname(claude_batches.__file__),
        """
import io
import claude_batches
class Opener:
    def open(self, request, timeout):
        rows = b'{"custom_id":"a","result":{"type":"succeeded","message":{"n":' + sys.argv[2].encode() + b"}}}"
        answer = io.BytesIO(rows if request.full_url.endswith("/x") else b'{"id":"b","results_url":"https://h/x"}')
        answer.status, answer.headers = 200, {}
        return answer
client = claude_batches.Anthropic(api_key="k", opener=Opener())
claude_batches.Anthropic = lambda: client
assert claude_batches.main(["results", "b"]) == 0
""",
        HUGE,
    )
    assert HUGE in printed


@pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="needs a device that is always full"
)
def test_a_create_whose_output_finds_no_room_tells_the_batch(sandbox):
    with open("/dev/full", "wb") as full:
        status, _, err = finish(
            start("create", write("r.jsonl", request("a")), stdout=full)
        )
    assert (
        status == 1
        and sandbox.batches.list(limit=1).data[0].id in err
        and "No space" in err
    )


# Whose stream has no buffer.
def test_results_are_printed_in_a_notebook_too(sandbox, monkeypatch):
    batch, shown = ended(sandbox), io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    assert claude_batches.main(["results", batch.id]) == 0
    assert [
        json.loads(line)["custom_id"] for line in shown.getvalue().splitlines()
    ] == ["b", "a"]


def test_a_stream_that_the_caller_closed_is_an_empty_one(sandbox, monkeypatch, capsys):
    for name in ("stdin", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert claude_batches.main(["create", "-"]) == 2
    # A name that only some encodings can tell.
    assert claude_batches.main(["create", "\udcff"]) == 2
    assert claude_batches.main(["list", "--limit", "9" * 9]) == 0


@posix
def test_a_file_that_goes_away_while_it_is_looked_at_costs_no_results(monkeypatch):
    def compare(one, other, shallow):
        os.rename(other, "away")
        return False

    write("rows", b"new")
    write("results", b"old")
    monkeypatch.setattr("filecmp.cmp", compare)
    with pytest.raises(OSError):
        claude_batches._publish("rows", "results")
    assert (read("rows"), read("away")) == (b"new\n", b"old\n")


def test_a_limit_that_no_list_reaches_is_wrong_usage(cli):
    status, out, err = cli("list", "--limit", "9" * 30)
    assert (status, out) == (2, b"") and "--limit" in err


def test_a_count_that_did_not_come_is_told_with_its_custom_id(
    sandbox, cli, monkeypatch
):
    monkeypatch.setattr(sandbox, "_respond", lambda *args: {"input_tokens": None})
    status, out, err = cli("count-tokens", write("r.jsonl", request("a")))
    assert (
        (status, out, err.count("\n")) == (1, b"", 1)
        and "custom_id 'a'" in err
        and "no input_tokens" in err
    )


@posix
def test_requests_that_cannot_be_read_are_a_wrong_input_file(cli):
    # Unlike a mode, it keeps root out, too.
    os.symlink("loop", "loop")
    for args in (
        ("run", "loop", "-o", "out"),
        ("run", "loop", "--dry-run"),
        ("create", "loop"),
    ):
        status, out, err = cli(*args)
        assert (status, out, os.listdir(".")) == (2, b"", ["loop"]) and "loop: " in err


def test_elsewhere_than_on_a_terminal_nothing_is_told_again_for_a_new_request_id(
    capsys,
):
    progress = claude_batches._Progress()
    for number in range(3):
        progress.status_line(f"waiting: 529 (request id req_{number}) (GET u)")
    for number in range(3):
        progress.status_line("in_progress: 2 processing", f"0:00:0{number} elapsed")
    # A second outage.
    progress.status_line("waiting: 529 (request id req_4) (GET u)")
    assert capsys.readouterr().err.splitlines() == [
        "waiting: 529 (request id req_0) (GET u)",
        "in_progress: 2 processing",
        "waiting: 529 (request id req_4) (GET u)",
    ]


# ---- The official SDK, where it is installed -------------------------------------------------------------------


def differences(theirs, ours, place):
    """Yield where ours is not theirs: what is set of each field of their models, each item, each value."""
    if hasattr(type(theirs), "model_fields"):
        for name, value in vars(theirs).items():
            if value is not None and not name.startswith("_"):
                yield from differences(
                    value, getattr(ours, name, None), f"{place}.{name}"
                )
    elif (
        isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours)
    ):
        for number, pair in enumerate(zip(theirs, ours)):
            yield from differences(*pair, f"{place}[{number}]")
    elif theirs != ours:
        yield f"{place}: {theirs!r} and {ours!r}"


def outcome(module, call):
    """Return what a call gives, or what a program can ask of its error."""
    try:
        return call()
    except module.APIStatusError as error:
        tree = [
            kind.__name__
            for kind in type(error).__mro__
            if kind.__module__.split(".")[0] == module.__name__
        ]
        return [
            *tree,
            error.status_code,
            error.type,
            error.body["error"]["message"],
            error.request_id[:12],
        ]


def examples(module, client, done, live):
    """Yield the examples of the API's documentation that only read, or are refused."""
    batches, models, hi = client.messages.batches, client.models, HELLO["messages"]
    tools = [{"name": "get_weather", "input_schema": {"type": "object"}}]
    yield lambda: batches.retrieve(done[0])
    yield lambda: list(batches.results(done[0]))
    yield lambda: [
        (row.custom_id, row.result.message.content[0].text)
        for row in batches.results(done[0])
        if row.result.type == "succeeded"
    ]
    yield lambda: [
        row.result.error.error.message
        for row in batches.results(done[0])
        if row.result.type == "errored"
    ]
    yield lambda: [batch.id for batch in batches.list(limit=2)]
    yield lambda: [batch.id for batch in batches.list(limit=2, before_id=done[0])]
    yield lambda: [
        [batch.id for batch in page.data]
        for page in batches.list(limit=2, after_id=done[-1]).iter_pages()
    ]
    for cursor in ({"after_id": done[-1]}, {"before_id": done[0]}):
        yield lambda cursor=cursor: batches.list(limit=2, **cursor)
        yield lambda cursor=cursor: batches.list(limit=2, **cursor).get_next_page()
        yield (
            lambda cursor=cursor: (
                batches.list(limit=2, **cursor).next_page_info().params == {}
            )
        )
    yield lambda: [
        *models.list(limit=2),
        *models.list(lifecycle=["retired"]),
        models.retrieve("claude-haiku-4-5"),
    ]
    yield lambda: client.messages.count_tokens(model="m", messages=hi)
    yield lambda: client.messages.count_tokens(
        model="m", messages=hi, system="s", tools=tools
    )
    yield lambda: batches.cancel(live)
    yield from (
        lambda: batches.delete(live),
        lambda: batches.results("none"),
        lambda: batches.retrieve("none"),
        lambda: batches.cancel("none"),
        lambda: models.retrieve("none"),
        lambda: batches.list(limit=0),
        lambda: client.messages.count_tokens(model="m", messages=[]),
    )


def test_what_the_official_sdk_gives_this_client_gives(slow):
    anthropic = pytest.importorskip("anthropic", minversion="2")
    theirs = anthropic.Anthropic(max_retries=0)
    # The whole workflow with each.
    for client in (theirs, slow.client):
        batches = client.messages.batches
        batch = batches.create(
            requests=[request("a"), request("b", max_tokens=0), request("expired")]
        )
        assert (
            batch.processing_status == "in_progress"
            and batches.cancel(batch.id).processing_status == "canceling"
        )
        end(slow, batch)
        assert sorted(row.result.type for row in batches.results(batch.id)) == [
            "canceled",
            "canceled",
            "errored",
        ]
        assert batches.delete(batch.id).type == "message_batch_deleted"
    done = [
        running(
            slow,
            request("a"),
            request("b", stream=True),
            request("expired"),
            request("d"),
        )
        for _ in range(5)
    ]
    live = running(slow)
    for batch in done:
        end(slow, batch)
    slow.batches.cancel(live.id)
    ids = [batch.id for batch in done]
    pairs = zip(
        examples(anthropic, theirs, ids, live.id),
        examples(claude_batches, slow.client, ids, live.id),
    )
    for number, (one, other) in enumerate(pairs):
        assert not list(
            differences(
                outcome(anthropic, one),
                outcome(claude_batches, other),
                f"example {number}",
            )
        )


# ---- The job ---------------------------------------------------------------------------------------------------


# ---- An API that remembers what was made, in another process ----------------------------------------------------

# The API's clock runs so much faster: a settle of 0.8 seconds, although Date has whole
# ones.
SPEED, SETTLE = (
    20,
    "16",
)


def row(custom_id):
    """Return the line of results of a request, in an unusual spacing: rows are kept byte for byte."""
    kind = {"err": "errored", "exp": "expired", "can": "canceled", "tin": "tiny"}.get(
        custom_id[:3], "succeeded"
    )
    rest = {
        "succeeded": ' ,"message":{"content":[{"type":"text","text":"é\u2028 \\u00e9"}],'
        '"usage":{"input_tokens":3,"output_tokens":2}}',
        "errored": ',"error":{"type":"error","error":{"type":"api_error","message":"no luck"},"request_id":null}',
    }.get(kind, "")
    kind = "succeeded" if kind == "tiny" else kind
    return (
        f'{{"custom_id": "{custom_id}",  "result":{{"type":"{kind}"{rest}}}}}\n'
    ).encode()


def serve_job(speed):
    """Serve the API below /NAME for each NAME, and /NAME/_ to set faults and to see what was made.

    A fault is a list [word, ...], taken by the next request of its kind (create, list, retrieve, results, count, or "*"
    for any): close (no answer), make (make the batch, then no answer), hold SECONDS (make it, answer late),
    slow SECONDS [SECONDS] (make it late, then, some time later, no answer),
    late SECONDS (no answer, make it later), twin IDS (no answer; somebody else makes a batch), both IDS (the same, and
    ours is made, after it), hide IDS (the same, ours shows once the other's results were read), crowd N (make it, then
    N other ones),
    status CODE TYPE MESSAGE DETAILS HEADERS, made CODE (make it, then that status), cut BYTES, stall BYTES.
    """
    import hashlib
    import json
    import sys
    import threading
    import time
    from datetime import datetime, timezone
    from email.utils import formatdate
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    begun, spaces, lock = time.time(), {}, threading.RLock()

    def now():
        return begun + (time.time() - begun) * speed

    class Space:
        def __init__(self):
            self.batches, self.faults, self.log = [], {}, []
            self.settings = {"organization": "org_1", "runs": 0.02, "queue": 10**9}

        def add(self, requests, created=None, ours=True, length=0, **more):
            made = {
                "id": f"msgbatch_{len(self.batches):03}",
                "ids": [one["custom_id"] for one in requests],
                "ours": ours,
                "digest": hashlib.sha256(
                    json.dumps(requests, sort_keys=True).encode()
                ).hexdigest(),
                "length": length,
                "created": created or now(),
                "ends": time.time() + self.settings["runs"],
                "archived": False,
                "lost": False,
                "hidden": None,
                "read": False,
                **more,
            }
            self.batches.append(made)
            return made

        def other(self, ids, **more):
            return self.add([{"custom_id": one} for one in ids], ours=False, **more)

        def show(self, made, base):
            has_ended = time.time() >= made["ends"] and self.settings["runs"] < 1000
            n, when = (
                len(made["ids"]),
                datetime.fromtimestamp(made["created"], timezone.utc).isoformat(),
            )
            url = f"https://elsewhere.example/v1/messages/batches/{made['id']}/results"
            return {
                "id": made["id"],
                "type": "message_batch",
                "created_at": when,
                "expires_at": when,
                "processing_status": "ended" if has_ended else "in_progress",
                "archived_at": when if made["archived"] else None,
                "results_url": url if has_ended and not made["archived"] else None,
                "request_counts": {
                    "processing": 0 if has_ended else n,
                    "succeeded": n if has_ended else 0,
                },
            }

    class Handler(BaseHTTPRequestHandler):
        protocol_version, wbufsize = "HTTP/1.1", -1

        def log_message(self, *args):
            pass

        def date_time_string(self, timestamp=None):
            return formatdate(int(now()), usegmt=True)

        def reply(self, answer, status=200, headers=()):
            raw = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in [
                ("Content-Length", len(raw)),
                ("Connection", "close"),
                ("request-id", "req_1"),
                ("anthropic-organization-id", self.space.settings["organization"]),
                *headers,
            ]:
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(raw)
            self.close_connection = True

        def fail(
            self,
            status,
            kind="api_error",
            message="the test says so",
            details=None,
            headers=(),
        ):
            error = {"type": kind, "message": message, "details": details}
            self.reply(
                {"type": "error", "error": error, "request_id": "req_1"},
                status,
                headers,
            )

        def do_GET(self):
            self.close_connection = True
            name, _, path = self.path[1:].partition("/")
            with lock:
                self.space = spaces.setdefault(name, Space())
            path, _, query = path.partition("?")
            self.query = dict(pair.split("=") for pair in query.split("&") if pair)
            words = path.split("/")[3:]
            kind = (
                "count"
                if words == []
                else "create"
                if self.command == "POST"
                else "results"
                if words[-1] == "results"
                else "retrieve"
                if len(words) == 1
                else "list"
            )
            kind = (
                "control"
                if path == "_"
                else "count"
                if path.endswith("count_tokens")
                else kind
            )
            if path.endswith("batches"):
                kind = "create" if self.command == "POST" else "list"
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            # A kill on the way: it never arrived whole.
            if len(body) < length:
                return
            if kind == "control":
                return self.control(json.loads(body))
            with lock:
                self.space.log.append(kind)
                queue = self.space.faults.get("*") or self.space.faults.get(kind)
                fault = (queue.pop(0) if queue else None) or ["none"]
            if fault[0] == "close":
                return None
            if fault[0] == "status":
                return self.fail(*fault[1:])
            getattr(self, kind)(
                fault,
                words[-1] if kind == "retrieve" else words[0] if words else None,
                body,
            )

        do_POST = do_GET

        def control(self, order):
            with lock:
                self.space.faults.update(order.get("faults", {}))
                self.space.settings.update(order.get("settings", {}))
                for one in order.get("insert", ()):
                    self.space.other(one["ids"], created=now() + one["after"])
                for one, changes in order.get("change", {}).items():
                    next(
                        made for made in self.space.batches if made["id"] == one
                    ).update(changes)
                if "runs" in order.get("settings", {}):
                    for made in self.space.batches:
                        made["ends"] = 0
                self.reply({"batches": self.space.batches, "log": self.space.log})

        def count(self, fault, _, body):
            self.reply({"input_tokens": 5})

        def create(self, fault, _, body):
            word, more = fault[0], fault[1:]
            requests, made = json.loads(body)["requests"], None
            if word == "slow":
                time.sleep(more[0])
                more = more[1:]
            with lock:
                running = sum(
                    len(one["ids"]) for one in self.space.batches if not one["read"]
                )
                if running + len(requests) > self.space.settings["queue"]:
                    return self.fail(
                        429,
                        "rate_limit_error",
                        "the queue is full",
                        None,
                        [("retry-after-ms", "30")],
                    )
                if word in ("twin", "both", "hide"):
                    other = self.space.other(more[0])
                if word == "late":
                    threading.Timer(
                        more[0], self.space.add, [requests], {"length": len(body)}
                    ).start()
                elif word != "twin":
                    made = self.space.add(
                        requests,
                        length=len(body),
                        hidden=other["id"] if word == "hide" else None,
                    )
                if word == "crowd":
                    for i in range(more[0]):
                        self.space.other(["x"])
                answer = made and self.space.show(made, self.space)
            if word == "hold" or (word == "slow" and more):
                time.sleep(more[0])
            if word == "made":
                self.fail(more[0])
            elif word in ("none", "hold"):
                self.reply(answer)

        def list(self, fault, _, body):
            with lock:
                shown = [
                    one
                    for one in self.space.batches
                    if not one["hidden"] and not one["lost"]
                ]
                shown.sort(key=lambda one: one["created"], reverse=True)
                limit, after = (
                    int(self.query.get("limit", 20)),
                    self.query.get("after_id"),
                )
                start = [one["id"] for one in shown].index(after) + 1 if after else 0
                page = [
                    self.space.show(one, self.space)
                    for one in shown[start : start + limit]
                ]
            self.reply(
                {
                    "data": page,
                    "has_more": len(shown) > start + limit,
                    "first_id": page[0]["id"] if page else None,
                    "last_id": page[-1]["id"] if page else None,
                }
            )

        def find(self, wanted):
            with lock:
                return next(
                    (
                        one
                        for one in self.space.batches
                        if one["id"] == wanted and not one["lost"]
                    ),
                    None,
                )

        def retrieve(self, fault, wanted, body):
            made = self.find(wanted)
            if not made:
                return self.fail(404, "not_found_error")
            self.reply(self.space.show(made, self.space), 200, [("Retry-After", "10")])

        def results(self, fault, wanted, body):
            made = self.find(wanted)
            with lock:
                made["read"] = True
                for one in self.space.batches:
                    one["hidden"] = None if one["hidden"] == wanted else one["hidden"]
            raw = b"".join(map(row, reversed(made["ids"])))
            end = fault[1] if fault[0] in ("cut", "stall") else len(raw)
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            size = 1 << 16 if len(raw) > 1 << 20 else 1000
            for start in range(0, min(end, len(raw)), size):
                chunk = raw[start : min(start + size, end)]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            if fault[0] == "none":
                self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
            if fault[0] == "stall":
                with lock:
                    self.space.log.append("stalled")
                self.connection.settimeout(20)
                # Until the other side is dead.
                self.connection.recv(1)

    class Server(ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 100

        def handle_error(self, job_request, address):
            # A client was killed.
            pass

    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # It ends with the tests.
    sys.stdin.read()


def work():
    """Run the command line with small parts and short sleeps, and be killed, or find no room, at the step asked for."""
    import json
    import os
    import signal
    import sys

    config = json.loads(sys.argv[1])
    sys.path.insert(0, config["folder"])
    # Compiled once, and not beside the module.
    sys.pycache_prefix, sys.dont_write_bytecode = (
        config["cache"],
        False,
    )
    import claude_batches as module

    module.POLL_LEAST = module.POLL_FIRST = module.POLL_LONGEST = 0.02
    module._backoff = lambda failures: 0.01
    for name, value in config["patch"].items():
        setattr(module, name, value)
    module.Anthropic.__init__.__kwdefaults__["timeout"] = config["timeout"]
    steps = [0]

    def watched(name):
        real = getattr(os, name)

        # What changes the folder: the journal's writes, and the finish.
        def step(
            *args,
        ):
            if os.path.dirname(os.path.abspath(args[-1])) != config["beside"]:
                return real(*args)
            steps[0] += 1
            if config["kill"] == [steps[0], "before"]:
                os.kill(os.getpid(), signal.SIGKILL)
            if steps[0] == config["full"]:
                raise OSError(28, "No space left on device", args[-1])
            real(*args)
            if config["kill"] == [steps[0], "after"]:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, name, step)

    for name in ("replace", "link", "unlink"):
        watched(name)
    # Between the first look at the files and the lock: until the file is gone.
    if config["pause"]:
        real_locked = module._locked

        def locked(path):
            import time

            os.rename(config["pause"], config["pause"] + ".seen")
            while os.path.exists(config["pause"] + ".seen"):
                time.sleep(0.01)
            return real_locked(path)

        module._locked = locked
    sys.argv[:2] = [module.__file__]
    code = module.main(sys.argv[1:])
    if config["report"]:
        with (
            open("/proc/self/status") if sys.platform == "linux" else open(os.devnull)
        ) as file:
            # Less what exec inherits.
            peak = [
                int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM")
            ]
        if not peak:
            import resource

            peak = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)]
        print(json.dumps({"steps": steps[0], "peak": peak[0]}))
    sys.exit(code)


def is_foreign(name):
    return name.upper().startswith("ANTHROPIC_") or name.lower().endswith("_proxy")


@contextlib.contextmanager
def serving(speed):
    source = "\n".join(map(inspect.getsource, (row, serve_job)))
    with subprocess.Popen(
        [sys.executable, "-c", f"{source}\nserve_job({speed})"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()


@pytest.fixture(scope="module")
def api():
    with serving(SPEED) as url:
        yield url


def control(url, **order):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        url + "/_", json.dumps(order).encode()
    ) as answer:
        return json.load(answer)


class Case:
    """A job in a folder of its own, at an API of its own."""

    names = itertools.count()

    def __init__(self, api, folder, ids=None, parts=3, size=20, **order):
        self.folder, self.url = (
            os.path.join(str(folder), f"job{next(self.names)}"),
            f"{api}/{next(self.names)}",
        )
        os.mkdir(self.folder)
        self.ids = ids or [f"request-{i}" for i in range(parts * size)]
        self.requests, self.results, self.failed, self.journal, self.rows = (
            os.path.join(self.folder, name)
            for name in (
                "requests.jsonl",
                "results.jsonl",
                "results.failed.jsonl",
                "results.jsonl.job",
                "results.jsonl.part",
            )
        )
        with open(self.requests, "w") as file:
            line = (
                json.dumps(
                    job_request(
                        "tiny-id" if self.ids[0].startswith("tiny") else "an-id"
                    )
                )
                + "\n"
            )
            start, end = line.split("tiny-id" if "tiny-id" in line else "an-id")
            file.writelines(start + custom_id + end for custom_id in self.ids)
        self.patch = {"MAX_BATCH_REQUESTS": size}
        self.control(**order)

    def control(self, **order):
        return control(self.url, **order)

    def start(
        self,
        *words,
        kill=None,
        full=None,
        report=False,
        url=None,
        timeout=600.0,
        pause=None,
        **patch,
    ):
        folder = os.path.dirname(os.path.abspath(claude_batches.__file__))
        cache = os.path.join(os.path.dirname(self.folder), "..", "cache")
        config = {
            "folder": folder,
            "cache": cache,
            "patch": {**self.patch, **patch},
            "kill": kill,
            "full": full,
            "report": report,
            "timeout": timeout,
            "beside": self.folder,
            "pause": pause,
        }
        arguments = [
            "run",
            self.requests,
            "-o",
            self.results,
            "--settle",
            SETTLE,
            "--poll-interval",
            "0.02",
            *words,
        ]
        own = {
            name: value for name, value in os.environ.items() if not is_foreign(name)
        }
        environment = {
            **own,
            "ANTHROPIC_BASE_URL": url or self.url,
            "ANTHROPIC_API_KEY": "k",
            "PYTHONUTF8": "1",
        }
        command = [
            sys.executable,
            "-c",
            inspect.getsource(work) + "\nwork()",
            json.dumps(config),
            *arguments,
        ]
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )

    def run(self, *words, **options):
        return self.end(self.start(*words, **options))

    @staticmethod
    def end(process):
        with process:
            try:
                out, err = process.communicate(timeout=60)
            finally:
                # One that hangs fails its test alone.
                process.kill()
        assert "Traceback" not in err, err
        return process.returncode, err + out

    def until(self, done):
        """Wait until ``done`` is true of what the API has seen, and return that."""
        for _ in range(2000):
            state = self.control()
            if done(state):
                return state
            time.sleep(0.01)
        raise AssertionError(f"it does not come: {state}")

    def is_done(self):
        return os.path.exists(self.results) and not os.path.exists(self.journal)

    def made(self):
        return [one for one in self.control()["batches"] if one["ours"]]

    def check(self, failed=(), times=1):
        """Each request was made once, as equal JSON; RESULTS has each row once; nothing else is left."""
        with open(self.results, "rb") as file:
            assert sorted(file) == sorted(map(row, self.ids))
        assert sorted(one for made in self.made() for one in made["ids"]) == sorted(
            times * self.ids
        )
        assert sorted(os.listdir(self.folder)) == sorted(
            os.path.basename(path)
            for path in [self.requests, self.results] + [self.failed] * bool(failed)
        )
        with open(self.requests, "rb") as file:
            requests = [
                json.loads(line.decode("utf-8-sig")) for line in file if line.strip()
            ]
        place = {one["custom_id"]: i for i, one in enumerate(requests)}
        for made in self.made():
            part = requests[place[made["ids"][0]] :][: len(made["ids"])]
            assert (
                made["digest"]
                == hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
            )


def job_request(custom_id):
    tiny = {"model": "m", "max_tokens": 9, "messages": []}
    told = {
        **tiny,
        "model": "claude-opus-4-6",
        "messages": [{"role": "user", "content": "é"}],
    }
    return {
        "custom_id": custom_id,
        "params": tiny if custom_id.startswith("tiny") else told,
    }


@pytest.fixture
def case(api, tmp_path):
    if sys.platform == "win32":
        pytest.skip("these tests kill")
    return lambda *args, **options: Case(api, tmp_path, *args, **options)


@pytest.fixture(scope="module")
def large(api, tmp_path_factory):
    """A job of 250,000 tiny requests, at work while the other tests are."""
    job = Case(
        api,
        tmp_path_factory.mktemp("large"),
        ids=[f"tiny-{i}" for i in range(250_000)],
        size=100_000,
    )
    with job.start(report=True) as process:
        yield job, process
        process.kill()


def all_of(function, *arguments):
    """Call a function for each of the arguments, several at a time."""
    with ThreadPoolExecutor(6) as pool:
        return list(pool.map(function, *arguments))


def expect(outcome, code, *words):
    assert outcome[0] == code, outcome[1]
    for word in words:
        assert word in outcome[1], outcome[1]
    return outcome[1]


# ---- Kills ------------------------------------------------------------------------------------------------------


def test_a_job_without_incidents_makes_each_part_once(case):
    job = case(
        ids=[f"{kind}-{i}" for kind in ("ok", "err", "exp", "can") for i in range(12)]
    )
    text = expect(
        job.run(),
        3,
        "12 succeeded",
        "12 errored",
        "12 × api_error: no luck",
        "36 tokens in, 24 out",
    )
    assert (
        "msgbatch_002" in text
        and "(adopted)" not in text
        and job.results in text
        and job.failed in text
    )
    job.check(failed=True)
    assert [len(made["ids"]) for made in job.made()] == [20, 20, 8]


def test_killed_at_each_change_of_the_folder_the_job_ends_as_if_nothing_had_happened(
    case,
):
    def new():
        return case(
            ids=["err-0"] + [f"request-{i}" for i in range(39)],
            faults={"create": [None, ["make"]]},
        )

    def finish(job):
        # Else it was the very last step.
        if not job.is_done():
            expect(job.run(), 3)
        job.check(failed=True)

    def killed(n):
        job = new()
        # Before the step of that number.
        if n:
            assert job.end(job.start(kill=[n, "before"]))[0] == -signal.SIGKILL
        else:  # one job, run after run
            for step in itertools.cycle((2, 3, 4, 5)):
                code, _text = job.end(job.start(kill=[step, "after"]))
                if code != -signal.SIGKILL or not os.path.exists(job.journal):
                    break
        finish(job)

    calm = new()
    steps = json.loads(calm.run(report=True)[1].splitlines()[-1])["steps"]
    calm.check(failed=True)
    assert steps >= 14
    all_of(killed, range(steps + 1))


def kill_at_random(case, seed, kills, signals):
    dice = random.Random(seed)
    faults = [
        None,
        None,
        ["make"],
        ["made", 500],
        ["status", 503, "overloaded_error"],
        ["close"],
        ["late", 0.1],
    ]
    creates = [["make"]] + [dice.choice(faults) for _ in range(6)]
    cuts = [dice.choice([None, ["cut", dice.randrange(3000)]]) for _ in range(6)]
    job = case(
        faults={"create": creates, "results": cuts},
        settings={"runs": dice.choice([0.02, 0.2])},
    )
    done = 0
    while done < kills:
        process = job.start()
        try:
            process.wait(dice.uniform(0.1, 0.4))
        except subprocess.TimeoutExpired:
            process.send_signal(dice.choice(signals))
        code, text = job.end(process) if process.poll() != 0 else (0, "")
        if code == 0:
            break
        assert code in (-signal.SIGKILL, -signal.SIGTERM, 130, 143), text
        done += 1
        # Killed after the very last step.
        if job.is_done():
            break
    if not job.is_done():
        expect(job.run(), 0)
    job.check()
    return done


def test_killed_at_random_moments_the_job_ends_as_if_nothing_had_happened(case):
    # 200 take some minutes.
    seed, kills = (
        random.randrange(10**6),
        int(os.environ.get("CLAUDE_BATCHES_KILLS") or 0),
    )
    print(f"seed {seed}")
    signals = (
        [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM] if kills else [signal.SIGKILL]
    )
    done = all_of(
        lambda n: kill_at_random(case, seed + n, 10 if kills else 5, signals),
        range(max(kills // 10, 4)),
    )
    print(f"{sum(done)} kills over {len(done)} jobs")


@pytest.mark.parametrize(
    "cut, stall", [(3000, 5000), (0, 100), (8191, 8192), (9000, 32000)]
)
def test_killed_while_rows_come_in_none_is_lost_or_doubled(case, cut, stall):
    job = case(parts=1, size=300, faults={"results": [["cut", cut], ["stall", stall]]})
    process = job.start(SYNC_BYTES=500)
    # Then rows are in the file that are not noted yet.
    behind = stall > 20_000
    job.until(
        lambda state: (
            "stalled" in state["log"]
            and (not behind or os.path.getsize(job.rows) > cut)
        )
    )
    process.kill()
    assert job.end(process)[0] == -signal.SIGKILL
    with open(job.journal) as file:
        noted = json.load(file)["collected"]
    assert cut - 1500 < noted <= max(cut, stall)
    with open(job.rows, "ab") as file:
        # As a power cut may leave it, behind what is noted.
        file.write(row("request-299")[:50])
    expect(job.run(), 0)
    job.check()


def test_a_batch_id_is_printed_before_it_is_written_down(case):
    job = case(parts=1)
    # After: begun, sending, closing.
    code, text = job.end(job.start(kill=[4, "before"]))
    assert code == -signal.SIGKILL and "msgbatch_000" in text
    with open(job.journal) as file:
        assert "msgbatch_000" not in file.read()
    expect(job.run(), 0, "msgbatch_000 (adopted)")
    job.check()


def test_a_journal_that_cannot_be_written_stops_the_run_and_loses_nothing(case):
    def full(n):
        job = case(parts=2)
        expect(job.end(job.start(full=n)), 1, "No space left", "run again")
        expect(job.run(), 0)
        job.check()

    # 10 is the hard link, which a rename replaces.
    all_of(full, [*range(2, 10), 11, 12])


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupted_it_tells_the_batches_and_how_to_go_on(case, name, code):
    job = case(settings={"runs": 1000})
    process = job.start()
    job.until(lambda state: state["log"].count("retrieve") > 6)
    send_signal(process, getattr(signal, name))
    text = expect(
        job.end(process),
        code,
        "billed",
        "to go on: ",
        f"run {job.requests} -o {job.results}",
    )
    for batch in ("msgbatch_000", "msgbatch_001", "msgbatch_002"):
        assert f"cancel {batch}" in text
    job.control(settings={"runs": 0})
    expect(job.run(), 0)
    job.check()


def test_interrupted_while_it_checks_the_requests_again_it_tells_the_batches_too(
    case, cli, monkeypatch
):
    def interrupt(self):
        raise KeyboardInterrupt

    job = begun(case)
    monkeypatch.setattr(claude_batches.Job, "plan", interrupt)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", job.url)
    status, _out, err = cli("run", job.requests, "-o", job.results)
    assert status == 130 and "billed: msgbatch_000, msgbatch_001, msgbatch_002" in err


# ---- Plan -------------------------------------------------------------------------------------------------------


def test_a_part_is_filled_to_its_last_byte_and_the_bytes_are_those_that_are_sent(case):
    job = case(size=100, parts=1, ids=[f"r-{i:02}" for i in range(10)])
    sent = claude_batches._encode_json(job_request("r-00"))
    for size, spare, sizes in ((5, 0, [5, 5]), (5, -1, [4, 4, 2]), (9, 0, [9, 1])):
        limit = len(b'{"requests":[]}') + size * (len(sent) + 1) - 1 + spare
        fresh = case(size=100, ids=job.ids)
        planned = fresh.run("--dry-run", MAX_BATCH_BYTES=limit)[1]
        expect(fresh.run(MAX_BATCH_BYTES=limit), 0)
        fresh.check()
        made = fresh.made()
        assert [len(one["ids"]) for one in made] == sizes and max(
            one["length"] for one in made
        ) <= limit
        assert (
            f"parts: {len(sizes)}\nbytes: {sum(one['length'] for one in made):,}\n"
            in planned
        )
    expect(
        job.run(MAX_BATCH_BYTES=len(sent) + 14), 2, f"{job.requests}:1: more than the"
    )
    assert os.listdir(job.folder) == ["requests.jsonl"]


def test_what_is_sent_is_equal_json_and_failed_requests_are_written_as_they_were(case):
    odd = [
        '\ufeff{"custom_id":"err-1", "params" : {"x":12345678901234567890123,"y":[1.0,1e-7,-0.0,1E5,0.1]}}\r\n',
        "\r\n",
        '{"params":{"t":"\u2028\\u2028\\ud83d\\ude00\u00e9\\u0000\\/","u":{},"v":null},"custom_id":"ok-1"}\n',
        "  \n",
        ' {"custom_id":"exp-1","params":{"t":"\u2029\x7f","a":true}} \n',
        '{"custom_id":"can-1","params":{"a":[[]]}}',
    ]
    job = case(ids=["err-1", "ok-1", "exp-1", "can-1"], size=2)
    with open(job.requests, "w", encoding="utf-8", newline="") as file:
        file.writelines(odd)
    expect(job.run(), 3, "warning", f"{job.requests}:1", job.failed)
    job.check(failed=True)
    with open(job.failed, encoding="utf-8", newline="") as file:
        assert file.read() == "".join((odd[0][1:], odd[4], odd[5] + "\n"))
    expect(job.run(), 2, "exists, and is not overwritten")
    again = case(ids=["err-1", "exp-1", "can-1"], size=2)
    os.replace(job.failed, again.requests)
    expect(again.run(), 3)
    again.check(failed=True)


@pytest.mark.parametrize(
    "bad, words",
    [
        ('{"custom_id":"a b","params":{}}', "custom_id must be"),
        ("{", "not JSON"),
        ("[]", "an object"),
        ('{"custom_id":"request-0","params":{}}', "unique"),
        ('{"custom_id":"z","params":{"x":NaN}}', ""),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_sent(case, bad, words):
    job = case()
    with open(job.requests, "a") as file:
        file.write(bad + "\n")
    expect(job.run(), 2, f"{job.requests}:61: ", words)
    assert os.listdir(job.folder) == ["requests.jsonl"] and job.control()["log"] == []


def test_a_first_request_that_the_api_refuses_stops_the_job_and_another_failure_of_the_trial_does_not(
    case,
):
    refusal = [["status", 400, "invalid_request_error", "model: no such model"]]
    job = case(faults={"count": [*refusal, ["status", 403]]})
    expect(job.run(), 2, "model: no such model")
    assert os.listdir(job.folder) == ["requests.jsonl"] and job.control()["log"] == [
        "count"
    ]
    expect(job.run(), 0, "could not be tried")
    job.check()


# ---- Journal, lock and files -------------------------------------------------------------------------------------


def begun(case, **options):
    """Return a job that was killed while its batches run."""
    job = case(settings={"runs": 1000}, **options)
    process = job.start()
    job.until(lambda state: state["log"].count("retrieve") > 3)
    process.kill()
    job.end(process)
    job.control(settings={"runs": 0})
    return job


def test_going_on_with_changed_requests_another_api_or_another_organization_is_refused(
    case,
):
    job, other = begun(case), case()
    with open(job.requests, "rb+") as file:
        content = file.read()
        file.seek(0)
        file.write(content.replace(b"opus", b"OPUS", 1))
    log = job.control()["log"]
    expect(job.run(), 1, "has changed")
    assert job.control()["log"] == log
    with open(job.requests, "wb") as file:
        file.write(content)
    expect(job.run(url=other.url), 1, "The run began at", other.url)
    job.control(settings={"organization": "org_2"})
    expect(job.run(), 1, "org_1", "org_2")
    job.control(settings={"organization": "org_1"})
    expect(job.run(), 0)
    job.check()


def test_requests_that_change_during_the_run_never_leave_whole(case):
    later = ["status", 503, "overloaded_error", "", None, [["retry-after-ms", "1000"]]]
    # No ended part makes room meanwhile.
    job = case(faults={"create": [None, later]}, settings={"runs": 1000})
    process = job.start()
    job.until(lambda state: state["log"].count("create") == 2)
    with open(job.requests) as file:
        before = file.read()
    with open(job.requests, "w") as file:
        file.write(before.replace('"max_tokens": 9', '"max_tokens": 8'))
    expect(job.end(process), 1, "has changed", "msgbatch_000")
    assert len(job.made()) == 1
    with open(job.requests, "w") as file:
        file.write(before)
    job.control(settings={"runs": 0})
    expect(job.run(), 0)
    job.check()


def test_a_second_run_at_the_same_time_is_refused_and_the_first_goes_on(case):
    job = case(settings={"runs": 1000})
    first = job.start()
    job.until(lambda state: "retrieve" in state["log"])
    expect(job.run(), 1, "Another run is at work")
    job.control(settings={"runs": 0})
    expect(job.end(first), 0)
    job.check()


def test_a_second_run_that_comes_as_the_first_one_ends_sends_nothing(case):
    job = begun(case)
    gate = job.folder + ".gate"
    open(gate, "w").close()
    second = job.start(pause=gate)
    # It has seen the journal, and is before the lock.
    job.until(lambda state: os.path.exists(gate + ".seen"))
    expect(job.run(), 0)
    os.unlink(gate + ".seen")
    assert job.end(second)[0] in (1, 2)
    job.check()


@posix
@pytest.mark.parametrize("begins", [False, True])
def test_a_lock_on_a_file_that_is_gone_is_none(monkeypatch, begins):
    import fcntl

    # The other run, just now; and perhaps a third one begins.
    def ended(file, how, real=fcntl.flock):
        os.unlink("rows")
        if begins:
            write("rows", b"")
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", ended)
    ended_run = pytest.raises(claude_batches.JobError, match="has just ended")
    with ended_run, claude_batches._locked("rows"):
        pass


def test_a_journal_that_is_none_is_refused_in_words(case):
    def refused(content):
        job = case(parts=1)
        with open(job.journal, "wb") as file:
            file.write(content)
        expect(job.run(), 1, f"{job.journal} is not the journal of a run")
        assert job.control()["log"] == []
        os.unlink(job.journal)
        return job

    jobs = all_of(
        refused,
        [
            b"",
            b"{}",
            b"[]",
            b"null",
            b"{",
            b"\xff\xfe",
            b'{"parts": [1]}',
            b'{"parts": []}',
        ],
    )
    expect(jobs[0].run(), 0)
    jobs[0].check()


def test_lines_that_are_added_between_the_requests_are_a_change(case):
    job = begun(case)
    with open(job.requests, "rb+") as file:
        content = file.read()
        file.seek(0)
        file.write(b"\n" + content)
    expect(job.run(), 1, "has changed")


@pytest.mark.parametrize("step, name", [(6, "rows"), (7, "results"), (8, "results")])
def test_a_finish_takes_no_other_rows_than_those_that_the_journal_counts(
    case, step, name
):
    job = case(parts=1)
    # Link, unlink of the rows, of the journal.
    assert job.end(job.start(kill=[step, "before"]))[0] == -signal.SIGKILL
    path, is_linked = getattr(job, name), step == 7
    with open(path, "rb+") as file:
        whole = file.read()
        file.truncate(len(whole) - 10)
    expect(job.run(), 1, "has not the rows", "put it back")
    with open(path, "rb+") as file:
        file.write(whole)
    expect(job.run(), 0)
    assert not is_linked or not os.path.exists(job.rows)
    job.check()


def test_rows_without_their_journal_are_refused_and_kept(case):
    job = case(parts=1)
    with open(job.rows, "wb") as file:
        file.write(b"paid for")
    expect(job.run(), 1, f"{job.rows} is of a run without its journal; move it away")
    with open(job.rows, "rb") as file:
        assert file.read() == b"paid for"


def test_a_folder_that_cannot_be_written_is_told(case):
    job = case(parts=1)
    good, job.results = (
        job.results,
        os.path.join(job.folder, "missing", "results.jsonl"),
    )
    expect(job.run(), 1, job.results)
    job.results = good
    # Root may write everywhere.
    if os.geteuid():
        os.chmod(job.folder, 0o500)
        expect(job.run(), 1, "Permission denied")
    assert job.control()["log"] == []


@pytest.mark.parametrize("name", ["results", "failed"])
def test_a_file_of_somebody_else_is_never_overwritten(case, name):
    job = case(
        parts=1, size=4, ids=["err-1", "ok-1", "ok-2", "can-1"], settings={"runs": 1000}
    )
    path = getattr(job, name)

    def put():
        with open(path, "w") as file:
            file.write("of somebody else")

    def kept():
        with open(path) as file:
            assert file.read() == "of somebody else"

    put()
    # At the start.
    expect(job.run(), 2, f"{path} exists, and is not overwritten")
    kept()
    assert job.control()["log"] == []
    os.unlink(path)
    process = job.start()
    job.until(lambda state: "retrieve" in state["log"])
    # During the run.
    put()
    job.control(settings={"runs": 0})
    expect(job.end(process), 2, f"{path} exists, and is not overwritten")
    kept()
    assert job.run()[0] in (1, 2)
    kept()
    os.unlink(path)
    expect(job.run(), 3)
    job.check(failed=True)


def test_going_on_is_refused_where_results_appeared_meanwhile(case):
    job = begun(case)
    with open(job.results, "w"):
        log = job.control()["log"]
    expect(job.run(), 2, f"{job.results} exists, and is not overwritten")
    assert job.control()["log"] == log
    os.unlink(job.results)
    expect(job.run(), 0)
    job.check()


def test_a_row_that_no_request_asked_for_stops_the_run(case):
    job = begun(case, parts=1)
    job.control(change={"msgbatch_000": {"ids": OTHERS}})
    expect(job.run(), 1, "msgbatch_000", "'other-", "not in part 1 of 1")
    assert not os.path.exists(job.results) and not os.path.getsize(job.rows)


def test_the_sandbox_does_not_touch_a_real_journal(case):
    job = begun(case)
    with open(job.journal, "rb") as file:
        before = file.read()
    expect(job.run("--sandbox"), 1, job.journal)
    with open(job.journal, "rb") as file:
        assert file.read() == before
    expect(job.run(), 0)
    job.check()


# ---- Send: whose batch is it? ------------------------------------------------------------------------------------

OTHERS = [f"other-{i}" for i in range(20)]


def test_a_batch_whose_answer_was_lost_is_adopted(case):
    def lost(fault):
        job = case(faults={"create": [None, fault]})
        expect(job.run(timeout=0.7), 0, "msgbatch_001 (adopted)")
        job.check()

    all_of(
        lost,
        [
            ["hold", 1.5],
            ["make"],
            ["made", 500],
            ["made", 502],
            ["late", 0.2],
            ["crowd", 130],
        ],
    )


@posix
def test_killed_while_a_late_answer_is_waited_for_the_run_finds_the_batch(tmp_path):
    with serving(1) as url:
        job = Case(url, tmp_path, parts=1, faults={"create": [["slow", 2.5, 20]]})
        process = job.start("--settle", "0")
        job.until(lambda state: state["batches"])
        process.kill()
        job.end(process)
        expect(job.run("--settle", "0"), 0, "msgbatch_000 (adopted)")
        job.check()


@posix
def test_an_interrupted_create_whose_answer_is_awaited_may_have_made_a_batch(case):
    job = case(parts=1, faults={"create": [["hold", 20]]})
    process = job.start()
    job.until(lambda state: state["batches"])
    process.send_signal(signal.SIGINT)
    expect(
        job.end(process),
        130,
        "part 1 of 1 (20 requests): its batch may exist, and be billed",
        "to go on: ",
    )
    expect(job.run(), 0, "msgbatch_000 (adopted)")
    job.check()


def test_adopt_answers_no_question_that_was_not_asked(case):
    job = case(parts=2, faults={"create": [["make"]]})
    expect(
        job.run("--adopt", "none"),
        0,
        "--adopt none: not used",
        "msgbatch_000 (adopted)",
    )
    job.check()


def test_a_doubt_is_settled_before_anything_else_is_sent(case):
    later = [
        ["status", 429, "rate_limit_error", "", None, [["retry-after-ms", "50"]]]
    ] * 20
    job = case(parts=2, faults={"create": [["twin", OTHERS], *later]})
    text = expect(job.run(), 0, "not ours")
    assert text.index("part 1 of 2 (20 requests): batch msgbatch_001") < text.index(
        "part 2 of 2 (20 requests): batch"
    )
    job.check()


@posix
def test_a_batch_that_is_made_late_while_its_answer_is_waited_for_is_adopted(tmp_path):
    with serving(1) as url:
        job = Case(url, tmp_path, parts=1, faults={"create": [["slow", 2.5]]})
        expect(job.run("--settle", "0"), 0, "msgbatch_000 (adopted)")
        job.check()


def test_a_batch_that_never_came_of_a_lost_create_is_sent_again_once_it_is_settled(
    case,
):
    def lost(fault):
        # Of that size, out of the window.
        others = [
            {"ids": OTHERS, "after": -60},
            {"ids": OTHERS, "after": 600},
        ]
        job, begin = (
            case(parts=1, faults={"create": [fault]}, insert=others),
            time.monotonic(),
        )
        text = expect(job.run(), 0, "looking whether its batch was made")
        assert time.monotonic() - begin >= float(SETTLE) / SPEED
        assert "adopted" not in text and "not ours" not in text
        job.check()

    all_of(lost, [["close"], ["status", 500], ["status", 502]])


@pytest.mark.parametrize("word, made", [("ours", 1), ("theirs", 1), ("none", 2)])
def test_of_several_candidates_the_run_takes_the_one_that_it_is_told(case, word, made):
    job = case(parts=2, faults={"create": [["both", OTHERS]]})
    expect(job.run(), 1, "--adopt", "msgbatch_000", "msgbatch_001")
    expect(job.run(), 1, "--adopt", "msgbatch_000", "msgbatch_001")
    told = {"ours": "msgbatch_001", "theirs": "msgbatch_000"}.get(word, word)
    expect(job.run("--adopt", told), 0)
    assert [one["ids"][0] for one in job.made()].count("request-0") == made
    assert [one["ids"][0] for one in job.made()].count("request-20") == 1
    with open(job.results, "rb") as file:
        assert sorted(file) == sorted(map(row, job.ids))


def test_the_same_word_answers_a_new_question(case):
    job = case(parts=1, faults={"create": [["both", OTHERS], ["both", OTHERS]]})
    for words, code in (((), 1), (("--adopt", "none"), 1), (("--adopt", "none"), 0)):
        text = expect(job.run(*words), code)
        assert ("--adopt none" in text) == bool(code)
    assert len(job.made()) == 3


def test_a_list_that_breaks_the_apis_rules_stops_the_run_and_is_not_waited_for(case):
    job = case(
        parts=1,
        faults={"create": [["make"]], "list": [None, None, None, ["status", 200]]},
    )
    expect(job.run(), 1, "not a list of objects")
    expect(job.run(), 0, "msgbatch_000 (adopted)")
    job.check()


def test_adopt_takes_no_batch_of_another_size(case):
    job = case(
        parts=1,
        faults={"create": [["both", OTHERS]]},
        insert=[{"ids": ["x"], "after": -60}],
    )
    expect(job.run(), 1)
    expect(job.run("--adopt", "msgbatch_000"), 1, "has 1 requests")
    expect(job.run("--adopt", "msgbatch_999"), 1, "404")
    expect(job.run("--adopt", "msgbatch_002"), 0)
    job.check()


def test_adopt_takes_no_batch_of_another_part(case):
    job = case(
        parts=2, faults={"create": [None, ["both", OTHERS]]}, settings={"runs": 30}
    )
    expect(job.run(), 1, "msgbatch_001", "msgbatch_002")
    expect(
        job.run("--adopt", "msgbatch_000"), 1, "msgbatch_000 is that of another part"
    )
    job.control(settings={"runs": 0})
    expect(job.run("--adopt", "msgbatch_002"), 0, "msgbatch_002 (adopted)")
    job.check()


def test_a_batch_that_is_there_after_all_is_not_paid_again(case):
    job = begun(case)
    job.control(change={"msgbatch_001": {"lost": True}})
    expect(job.run(NOT_FOUND_SECONDS=0.1), 1, "msgbatch_001", "--adopt none")
    job.control(change={"msgbatch_001": {"lost": False}})
    expect(job.run("--adopt", "none"), 0)
    job.check()


def test_a_job_that_stopped_is_run_again_in_the_same_process(monkeypatch, tmp_path):
    def hide(*_):
        hidden.update(sandbox._batches)
        sandbox._batches.clear()

    monkeypatch.setattr(claude_batches, "NOT_FOUND_SECONDS", 0.0)
    requests, results, hidden = (
        tmp_path / "requests.jsonl",
        tmp_path / "results.jsonl",
        {},
    )
    requests.write_text(json.dumps(job_request("a")))
    progress = argparse.Namespace(message=print, status_line=print, batches=hide)
    with Sandbox(seconds=0.3) as sandbox:
        client = Anthropic(base_url=sandbox.url, api_key="sandbox")
        job = claude_batches.Job(
            client, str(requests), str(results), progress=progress, poll_interval=0.01
        )
        with pytest.raises(claude_batches.JobError, match="the API knows it no longer"):
            job.run()
        sandbox._batches.update(hidden)
        progress.batches = print
        assert job.run() is True and len(results.read_bytes().splitlines()) == 1


@pytest.mark.parametrize("parts, word", [(2, "msgbatch_001"), (1, "none")])
def test_the_same_words_again_after_a_kill_do_not_answer_another_doubt(
    case, parts, word
):
    # No part but the first has the twin's size.
    ids = [f"request-{i}" for i in range(20 if parts == 1 else 30)]
    job = case(ids=ids, faults={"create": [["both", OTHERS], ["hold", 20]]})
    expect(job.run(), 1, "--adopt")
    process = job.start("--adopt", word)
    made = job.until(lambda state: sum(one["ours"] for one in state["batches"]) == 2)[
        "batches"
    ]
    process.kill()
    assert job.end(process)[0] == -signal.SIGKILL
    job.run("--adopt", word)
    # Nothing was sent again.
    assert len(job.control()["batches"]) == len(made)
    if word != "none":
        job.check()


def test_rows_that_the_journal_counts_and_the_file_has_lost_are_told(case):
    job = case(parts=1)
    job.end(job.start(kill=[4, "before"]))
    with open(job.journal) as file:
        journal = json.load(file)
    with open(job.journal, "w") as file:
        json.dump(dict(journal, collected=10), file)
    expect(job.run(), 1, "lost rows")


def test_the_same_words_again_do_not_answer_for_the_next_part(case):
    ids = [f"request-{i}" for i in range(30)]
    job = case(ids=ids, faults={"create": [["both", OTHERS], None, ["hold", 20]]})
    expect(job.run(), 1, "--adopt")
    process = job.start("--adopt", "none")
    made = job.until(lambda state: sum(one["ours"] for one in state["batches"]) == 3)[
        "batches"
    ]
    process.kill()
    assert job.end(process)[0] == -signal.SIGKILL
    job.run("--adopt", "none")
    assert len(job.control()["batches"]) == len(made)


def test_a_question_that_another_one_followed_is_answered_no_more(case):
    job = case(parts=2, settings={"queue": 20, "runs": 1000})
    process = job.start(NOT_FOUND_SECONDS=0.1)
    # The second part finds no room.
    job.until(lambda state: state["log"].count("create") > 1)
    job.control(change={"msgbatch_000": {"lost": True}})
    expect(job.end(process), 1, "msgbatch_000", "--adopt")
    job.control(
        change={"msgbatch_000": {"lost": False}},
        settings={"queue": 10**9},
        faults={"create": [["both", OTHERS]]},
    )
    expect(job.run(), 1, "msgbatch_002, msgbatch_001", "--adopt")
    job.control(change={"msgbatch_000": {"lost": True}}, settings={"runs": 0})
    expect(
        job.run("--adopt", "none", NOT_FOUND_SECONDS=0.1), 1, "msgbatch_000", "--adopt"
    )
    assert len([made for made in job.made() if made["ids"] == job.ids[:20]]) == 1


def test_a_question_about_a_batch_that_is_there_again_is_answered_no_more(case):
    job = begun(case, parts=1)
    job.control(change={"msgbatch_000": {"lost": True}}, settings={"runs": 1000})
    expect(job.run(NOT_FOUND_SECONDS=0.1), 1, "msgbatch_000", "--adopt")
    job.control(change={"msgbatch_000": {"lost": False, "ends": time.time() + 1000}})
    with job.start() as process:
        for line in process.stderr:
            if "in_progress" in line:
                break
        process.kill()
    job.control(change={"msgbatch_000": {"lost": True}}, settings={"runs": 0})
    expect(
        job.run("--adopt", "none", NOT_FOUND_SECONDS=0.1), 1, "msgbatch_000", "--adopt"
    )
    assert len(job.made()) == 1


@pytest.mark.parametrize("word", ["twin", "hide"])
def test_an_adopted_batch_of_somebody_else_is_refuted_at_download(case, word):
    job = case(parts=2, faults={"create": [[word, ["request-3"] + OTHERS[1:]]]})
    text = expect(job.run(), 0, "it is not ours")
    # Once refuted, not considered again.
    assert text.count("batch msgbatch_000\n") == 1
    job.check()
    # Our own, that showed up meanwhile, is adopted then.
    if word == "hide":
        assert "msgbatch_001 (adopted)" in text


def test_after_an_answer_nothing_is_waited_for_where_a_batch_is_lost_and_another_one_is_refuted(
    case,
):
    job = begun(case, parts=1, insert=[{"ids": OTHERS, "after": -60}])
    job.control(change={"msgbatch_001": {"lost": True}})
    expect(job.run(NOT_FOUND_SECONDS=0.1), 1, "msgbatch_001", "--adopt none")
    result = job.run("--adopt", "msgbatch_000", "--settle", "0", NOT_FOUND_SECONDS=0.1)
    assert "looking" not in expect(result, 0, "not ours", "batch msgbatch_002")
    job.check(times=2)


def test_a_kill_right_after_a_refutation_keeps_it(case):
    def killed(n):
        job = case(parts=1, faults={"create": [["twin", OTHERS]]})
        job.end(job.start(kill=[n, "after"]))
        expect(job.run(), 0)
        job.check()

    all_of(killed, range(4, 8))


def test_a_full_queue_is_waited_out_while_ended_parts_are_collected(case):
    # Here a batch leaves the queue when its results are read.
    job = case(settings={"queue": 30, "runs": 0.2})
    text = expect(job.run(), 0, "the queue is full")
    # Told once, and not in turn with what is running.
    assert text.count("the queue is full") == 1
    # What was refused is in no doubt.
    assert "looking" not in text
    assert text.index("part 1 of 3 (20 requests): 20 results") < text.index(
        "part 2 of 3 (20 requests): batch"
    )
    job.check()
    job = case(
        faults={
            "create": [
                [
                    "status",
                    429,
                    "rate_limit_error",
                    "",
                    None,
                    [["retry-after-ms", "20"]],
                ]
            ]
            * 5
        }
    )
    expect(job.run(), 0)
    job.check()


def test_a_refused_create_is_not_repeated_before_the_server_asks_for_it(case):
    later = ["status", 503, "overloaded_error", "", None, [["retry-after-ms", "1200"]]]
    job = case(parts=2, faults={"create": [None, later]}, settings={"runs": 1000})
    process = job.start()
    job.until(lambda state: state["log"].count("create") >= 2)
    begin = time.monotonic()
    state = job.until(lambda state: state["log"].count("create") >= 3)
    # And the others are polled meanwhile.
    assert time.monotonic() - begin > 0.5 and state["log"].count("retrieve") > 3
    job.control(settings={"runs": 0})
    expect(job.end(process), 0)
    job.check()


def test_a_spend_limit_stops_the_run_which_can_go_on_later(case):
    limit = [
        "status",
        429,
        "rate_limit_error",
        "limit reached",
        {"error_code": "enforced_spend_limit_reached"},
    ]
    job = case(faults={"create": [None, limit]})
    expect(job.run(), 1, "limit reached", "until the limit is raised", "msgbatch_000")
    assert os.path.exists(job.journal) and len(job.made()) == 1
    expect(job.run(), 0)
    job.check()


def test_a_key_that_is_refused_stops_the_run_which_can_go_on_with_a_good_one(case):
    def refused(kind):
        job = case(
            faults={
                kind: [None, ["status", 401, "authentication_error", "invalid key"]]
            }
        )
        expect(job.run(), 1, "401", "invalid key")
        expect(job.run(), 0)
        job.check()

    all_of(refused, ["create", "retrieve", "results", "list"])


# ---- Wait and collect ---------------------------------------------------------------------------------------------


def test_before_the_first_answer_an_outage_is_told_at_once(case):
    job = case(faults={"*": [["close"]] * 3})
    expect(job.run(), 1, "Connection error")
    assert os.listdir(job.folder) == ["requests.jsonl"]
    expect(job.run(url="http://127.0.0.1:9"), 1, "Connection error")
    job.control(faults={"*": []})
    expect(job.run(), 0)
    job.check()


def test_an_outage_in_any_step_is_outlived(case):
    def outage(n):
        job = case(
            parts=2, faults={"*": [None] * n + (faults if n % 2 else [["close"]] * 25)}
        )
        expect(job.run(), 0)
        job.check()

    faults = [
        ["status", 503, "overloaded_error"],
        ["status", 502],
        ["close"],
        ["status", 529],
        ["status", 500],
    ]
    all_of(outage, range(2, 16))


def test_an_outage_right_after_the_very_first_answer_is_outlived(case):
    # The first answer is of count_tokens.
    job = case(parts=1, faults={"list": [["close"]] * 3})
    expect(job.run(), 0)
    job.check()


def test_results_that_are_cut_many_times_come_whole(case):
    job = case(
        parts=2, size=100, faults={"results": [["cut", 200 * i] for i in range(1, 40)]}
    )
    expect(job.run(), 0)
    job.check()


def test_a_fresh_batch_may_be_unknown_for_a_while_and_one_that_stays_so_stops_the_run(
    case,
):
    job = case(faults={"retrieve": [["status", 404, "not_found_error"]] * 7})
    expect(job.run(), 0)
    job.check()
    job = begun(case)
    job.control(change={"msgbatch_001": {"lost": True}})
    expect(
        job.run(NOT_FOUND_SECONDS=0.1),
        1,
        "msgbatch_001",
        "gives no results",
        "--adopt none",
    )
    assert len(job.made()) == 3 and os.path.exists(job.journal)
    text = expect(job.run("--adopt", "none", NOT_FOUND_SECONDS=0.1), 0)
    assert [one["ids"][0] for one in job.made()].count(
        "request-20"
    ) == 2 and "(adopted)" not in text
    with open(job.results, "rb") as file:
        assert sorted(file) == sorted(map(row, job.ids))


def test_archived_results_stop_the_run_unless_it_is_told_to_send_the_part_again(case):
    job = begun(case, parts=2)
    job.control(change={"msgbatch_000": {"archived": True}})
    expect(job.run(), 1, "msgbatch_000", "archived", "--adopt none")
    expect(job.run("--adopt", "none"), 0)
    assert len(job.made()) == 3


def test_a_batch_that_is_gone_after_some_of_its_rows_came_is_sent_again_and_no_row_is_lost(
    case,
):
    job = case(
        parts=3,
        faults={"results": [["cut", 1500], ["stall", 0]]},
        settings={"runs": 0.1},
    )
    process = job.start(SYNC_BYTES=500)
    job.until(lambda state: "stalled" in state["log"])
    process.kill()
    job.end(process)
    with open(job.journal) as file, open(job.rows) as rows:
        number = job.ids.index(json.loads(next(rows))["custom_id"]) // 20
        gone = json.load(file)["parts"][number]["batch_id"]
    others = [made["id"] for made in job.made() if made["id"] != gone]
    job.control(
        change={gone: {"lost": True}},
        settings={"runs": 0.05},
        faults={
            "create": [
                [
                    "status",
                    429,
                    "rate_limit_error",
                    "",
                    None,
                    [["retry-after-ms", "20"]],
                ]
            ]
            * 4
        },
    )
    expect(job.run(NOT_FOUND_SECONDS=0.1), 1, gone, "--adopt none")
    expect(job.run("--adopt", "none", NOT_FOUND_SECONDS=0.1), 0, *others)
    with open(job.results, "rb") as file:
        assert sorted(file) == sorted(map(row, job.ids))


def test_the_summary_names_no_batch_adopted_that_was_made_instead_of_an_adopted_one(
    case,
):
    job = case(parts=1, faults={"create": [["make"]]}, settings={"runs": 1000})
    process = job.start()
    job.until(lambda state: "retrieve" in state["log"])
    process.kill()
    job.end(process)
    job.control(change={"msgbatch_000": {"lost": True}}, settings={"runs": 0})
    expect(job.run(NOT_FOUND_SECONDS=0.1), 1, "--adopt none")
    text = expect(job.run("--adopt", "none", NOT_FOUND_SECONDS=0.1), 0, "msgbatch_001")
    assert "adopted" not in text


def test_250_000_requests_go_out_in_three_parts_within_flat_memory(large):
    job, process = large
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert [len(made["ids"]) for made in job.made()] == [100_000, 100_000, 50_000]
    with open(job.results, "rb") as file:
        rows = file.readlines()
    assert len(rows) == 250_000 and set(rows) == set(map(row, job.ids))
    peak = json.loads(out)["peak"]
    print(f"peak {peak:.0f} MB")
    assert peak < 160


@pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="needs a device that is always full"
)
def test_output_that_finds_no_room_is_told_once_and_is_exit_status_1():
    with open("/dev/full", "wb") as full:
        command = [
            sys.executable,
            claude_batches.__file__,
            "run",
            write("r.jsonl", request("a")),
            "--dry-run",
        ]
        process = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, timeout=20, check=False
        )
    assert (
        process.returncode == 1
        and process.stderr.count(b"\n") == 1
        and b"No space" in process.stderr
    )


@posix
@pytest.mark.parametrize(
    "result",
    [
        "null",
        "1",
        "{}",
        '{"type":"errored","error":"no"}',
        '{"type":"errored","error":{"type":"error","error":"no"}}',
        '{"type":"expired","message":"no"}',
        '{"type":"errored","message":{"usage":"no"}}',
        '{"type":"errored","message":{"usage":{"input_tokens":"no","output_tokens":"no"}}}',
    ],
)
def test_an_odd_row_ends_no_job(monkeypatch, result):
    line = b'{"custom_id":"a","result":%s}\n' % result.encode()
    monkeypatch.setattr(
        Sandbox.__init__, "__kwdefaults__", {"port": 0, "seconds": 0.01}
    )
    monkeypatch.setattr(claude_batches._SandboxBatch, "rows", lambda _: iter([line]))
    assert (
        claude_batches.main(
            ["run", write("r.jsonl", request("a")), "-o", "out.jsonl", "--sandbox"]
        )
        == 3
    )
    with open("out.jsonl", "rb") as file:
        assert file.read() == line


def test_counts_that_are_null_are_no_traceback(capsys):
    batch = {
        "id": "b",
        "processing_status": "in_progress",
        "request_counts": {"processing": 1, "errored": None},
    }
    claude_batches._Progress().batches([claude_batches.MessageBatch(batch, {})])
    assert capsys.readouterr().err == "in_progress: 1 processing\n"


def test_a_try_that_finds_no_connection_after_one_that_was_refused_is_repeated():
    tries = []

    class RefusedThenGone:
        def open(self, request, timeout):
            tries.append(request)
            if len(tries) == 2:
                raise ConnectionRefusedError("nobody listens")
            assert b"".join(request.data).endswith(b"]}")
            body = io.BytesIO(b'{"id": "b1"}')
            return urllib.response.addinfourl(
                body, email.message.Message(), "", 200 if len(tries) == 3 else 429
            )

    client = Anthropic(api_key="k", opener=RefusedThenGone())
    assert client.messages.batches.create(requests=[request("a")]).id == "b1"
    assert len(tries) == 3


def test_a_body_that_went_out_whole_is_never_forgotten_in_the_same_try():
    tries = []

    class SendsTwice:
        def open(self, request, timeout):
            if request.get_method() == "POST":
                tries.append(b"".join(request.data))
                # Again, and the connection breaks.
                next(iter(request.data))
            raise ConnectionResetError

    error = failure_of(
        lambda: Anthropic(api_key=KEY, opener=SendsTwice()).messages.batches.create(
            requests=[GOOD]
        )
    )
    assert type(error) is BatchMayExistError and len(tries) == 1


def test_a_body_whose_last_byte_was_handed_over_has_gone_out():
    tries = []

    # By a signal, say, whose handler raises when the last byte has gone out.
    class Interrupted:
        def open(self, request, timeout):
            if request.get_method() == "POST":
                tries.append(b"")
                for block in request.data:
                    tries[-1] += block
                    if tries[-1].endswith(b"]}"):
                        break
            raise TimeoutError

    error = failure_of(
        lambda: Anthropic(api_key=KEY, opener=Interrupted()).messages.batches.create(
            requests=[GOOD]
        )
    )
    assert (
        type(error) is BatchMayExistError and type(error.__cause__) is APITimeoutError
    )
    assert [json.loads(body) for body in tries] == [{"requests": [GOOD]}]


def test_an_opener_may_be_empty():
    class Empty(CannedOpener):
        def __len__(self):
            return 0

    opener = Empty([MODEL])
    assert Anthropic(api_key="k1", opener=opener).models.retrieve("m").id == "m1"


def test_interim_answers_are_passed_over(serve):
    hints = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    )
    server = serve(
        [
            answer._replace(sent=hints + answer.sent)
            for answer in (reply(body=BATCH), refusal(404))
        ]
    )
    batch = client_of(server).messages.batches.create(requests=[GOOD])
    assert (batch.id, batch._request_id, batch._headers.get("link")) == (
        "msgbatch_1",
        "req_1",
        None,
    )
    assert (
        type(failure_of(lambda: client_of(server).models.retrieve("m")))
        is NotFoundError
    )


@pytest.mark.parametrize(
    "credential", [KEY + " ", f"Bearer  {KEY}\t", f"Bearer\t{KEY}"]
)
def test_a_key_is_hidden_however_it_is_written(serve, credential):
    for answer in ECHOES.values():
        client = client_of(
            serve([answer]), api_key=None, default_headers={"x-api-key": credential}
        )
        error = failure_of(client.models.retrieve, "m")
        # What http.client notes on an error, too.
        while error:
            assert KEY not in str(vars(error))
            error = error.__cause__ or error.__context__


def test_an_error_that_the_caller_is_handling_is_left_alone():
    client, error = make(OSError(), max_retries=0)[0], KeyError("k1-0123456789")
    client.api_key = error.key = "k1-0123456789"
    try:
        raise error
    except KeyError:
        with pytest.raises(APIConnectionError):
            client.models.retrieve("m")
    assert (error.key, error.args) == ("k1-0123456789", ("k1-0123456789",))


def test_a_key_is_hidden_in_all_that_is_chained():
    def script(request, timeout):
        try:
            raise http.client.BadStatusLine(KEY)
        except http.client.BadStatusLine:
            raise ConnectionAbortedError("closed") from OSError("reset")

    failure_of(client_through(script, max_retries=0)[0].models.list)


def test_the_hook_of_the_job_is_no_option_of_a_create():
    with pytest.raises(TypeError, match="before_last_block"):
        make(RAW)[0].messages.batches.create(requests=REQUESTS, before_last_block=print)


# ---- The real API ----------------------------------------------------------------------------------------------

# The fixture takes it away.
LIVE_KEY = os.environ.get("ANTHROPIC_API_KEY")


@pytest.mark.skipif(
    os.environ.get("CLAUDE_BATCHES_LIVE") != "1",
    reason="CLAUDE_BATCHES_LIVE=1 asks the real API",
)
def test_the_real_api_takes_three_small_requests_and_gives_three_results(monkeypatch):
    monkeypatch.setattr(claude_batches, "time", time)
    client = Anthropic(api_key=LIVE_KEY)
    model = next(
        model for model in client.models.list() if model.capabilities.batch.supported
    ).id
    params = {
        "model": model,
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    fields = {name: params[name] for name in ("model", "messages")}
    assert client.messages.count_tokens(**fields).input_tokens > 0
    batch = client.messages.batches.create(
        requests=({"custom_id": f"r{i}", "params": params} for i in range(3))
    )
    assert batch.id in [
        listed.id for listed in client.messages.batches.list(limit=20).data
    ]
    batch = client.messages.batches.wait(batch.id, timeout=3600)
    rows = {
        row.custom_id: row.result.type
        for row in client.messages.batches.results(batch.id)
    }
    assert rows == dict.fromkeys(("r0", "r1", "r2"), "succeeded")
    assert client.messages.batches.delete(batch.id).id == batch.id
