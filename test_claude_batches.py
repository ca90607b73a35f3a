"""The promises of claude_batches.py, a test each.  They need pytest and loopback."""

from __future__ import annotations

import ast
import base64
import collections
import concurrent.futures
import contextlib
import copy
import dataclasses
import email.message
import email.utils
import functools
import gc
import gzip
import http.client
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
import tempfile
import threading
import time
import traceback
import tracemalloc
import types
import urllib.error
import urllib.parse
import urllib.request
import weakref
import zlib
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

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
    PermissionDeniedError,
    Sandbox,
    WaitTimeoutError,
    iter_json_lines,
)

# ---- Tools -------------------------------------------------------------------------
# Every test has a clock on which waiting takes no time.  Two things stand for the API:
# the Sandbox when all goes well, and a Server, which is a Sandbox behind faults.  An
# Opener stands for urllib where urllib is the subject.

KEY = "sk-ant-api03-a-key-that-nobody-may-see"
BATCHES, COUNT, MODELS = (
    "/v1/messages/batches",
    "/v1/messages/count_tokens",
    "/v1/models",
)
BASE, UTC = "https://api.test", timezone.utc
MODULE = pathlib.Path(claude_batches.__file__)
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
# Making a context takes a while: one serves all clients that speak no TLS.
NO_TLS = ssl.create_default_context()


class Clock:
    """The module time, as claude_batches sees it: sleeping takes no time."""

    def __init__(self):
        self.now, self.wall, self.sleeps = 1000.0, time.time(), []

    def monotonic(self):
        return self.now

    def time(self):
        return self.wall

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.pass_by(seconds)

    def pass_by(self, seconds, wall=None):
        self.now += seconds
        self.wall += seconds if wall is None else wall


@pytest.fixture(autouse=True)
def clock(monkeypatch, tmp_path, caplog):
    """Nothing of the developer's reaches a test, no pause takes time, no log has the key."""
    for name in list(os.environ):
        is_proxy = name.upper().endswith("_PROXY")
        if is_proxy or name.upper().startswith(("ANTHROPIC_", "SSL_CERT", "COLUMNS")):
            monkeypatch.delenv(name)
    # Output that was not written would not be missed.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    monkeypatch.chdir(tmp_path)
    create = ssl.create_default_context

    def create_default_context(*args, **options):
        is_plain = not args and not options and "SSL_CERT_FILE" not in os.environ
        return NO_TLS if is_plain else create(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", create_default_context)
    fake = Clock()
    monkeypatch.setattr(claude_batches, "time", fake)
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    # Where it is ignored, a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    caplog.set_level(logging.DEBUG)
    # If it ran in the parse of a deep list, finalizers would meet the recursion limit,
    # which ends Python 3.8.
    gc.disable()
    yield fake
    gc.enable()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert KEY not in caplog.text


# ---- Responses ---------------------------------------------------------------------


class Fault(NamedTuple):
    """What goes wrong with one request; the default is nothing.

    ``response``: bytes to send instead of the Sandbox's response.  ``cut``: only so many
    of its bytes are sent.  ``end``: fin, rst, or stall: silent until the test ends.
    ``read``: only so many bytes of the body are read.  ``work``: whether the Sandbox does
    the work before: True, False, or seconds after which it does.  ``date``: seconds by
    which the clock of the Date header is ahead.  ``changes``: of the JSON.
    """

    response: Any = None
    cut: Any = None
    end: str = "fin"
    read: Any = None
    work: Any = True
    date: float = 0.0
    changes: Any = ()


def wire(status=200, body=b"{}", headers=(), *, framing="length"):
    """Return the bytes of a response; ``framing``: length, chunked or close."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    fields = {
        "Date": email.utils.formatdate(usegmt=True),
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
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode("latin-1") + body


def reply(status=200, body=b"{}", headers=(), *, framing="length", work=False, **fault):
    """Return the fault of a response that is sent instead of the Sandbox's."""
    return Fault(wire(status, body, headers, framing=framing), work=work, **fault)


def api_error(message="no", error_type="x_error", **more):
    """Return the JSON of an error in the API's own form."""
    error = {"type": error_type, "message": message, **more}
    return {"type": "error", "error": error, "request_id": "req_body"}


def refusal(status, headers=(), message="no", work=False, **fault):
    """Return the fault of an error in the API's own form."""
    body = api_error(message, f"error_{status}")
    return reply(status, body, headers, work=work, **fault)


def html(status, headers=(), **fault):
    """Return the fault of an error as a gateway words it."""
    headers = {"Content-Type": "text/html", **dict(headers)}
    return reply(status, b"<html>a gateway's page</html>", headers, **fault)


def batch_json(batch_id="msgbatch_1", size=2, status="ended", **changes):
    names = ("processing", "succeeded", "errored", "canceled", "expired")
    is_ended = status == "ended"
    return {
        "id": batch_id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": {
            **dict.fromkeys(names, 0),
            "succeeded" if is_ended else "processing": size,
        },
        "created_at": datetime.now(UTC).isoformat(),
        "results_url": f"{BASE}{BATCHES}/{batch_id}/results" if is_ended else None,
        **changes,
    }


def rows_json(custom_ids, text="é☃😀\u2028"):
    """Return the lines of results of requests that succeeded."""
    rows = (
        {"custom_id": one, "result": {"type": "succeeded", "message": {"text": text}}}
        for one in custom_ids
    )
    return b"".join(
        json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows
    )


def page_json(*ids, more=False, **fields):
    cursors = {"first_id": ids[0], "last_id": ids[-1]} if ids else {}
    rows = [{"id": one} for one in ids]
    return {"data": rows, "has_more": more, **cursors, **fields}


# ---- The server --------------------------------------------------------------------


class Received:
    """A request as the server gets it; its body is read when somebody asks for it."""

    def __init__(self, connection):
        self._connection, head = connection, b""
        while b"\r\n\r\n" not in head:
            head += self._block()
        self.head, _, rest = head.partition(b"\r\n\r\n")
        first, *lines = self.head.decode("latin-1").split("\r\n")
        self.method, self.path, _ = first.split(" ")
        fields = (line.split(": ", 1) for line in lines)
        self.headers = {name.lower(): value for name, value in fields}
        self.length = int(self.headers.get("content-length", 0))
        self.body = bytearray(rest)

    def _block(self):
        block = self._connection.recv(65536)
        if not block:
            raise ConnectionError("the client left during its request")
        return block

    def read(self, limit=None):
        wanted = self.length if limit is None else min(limit, self.length)
        while len(self.body) < wanted:
            self.body += self._block()
        return bytes(self.body)

    def has_left(self):
        """Tell whether the client closes its connection within five seconds."""
        self._connection.settimeout(5)
        with contextlib.suppress(ConnectionError):
            return self._connection.recv(1) == b""
        return True


class Server:
    """A Sandbox behind faults, on a socket of its own.

    ``faults``: by the name of a call an iterable of Faults, one for each request; None,
    and what comes after its end, is no fault; it may be itertools.repeat(fault).
    ``sandbox``: what does the work; it has one ended batch, ``batch_id``, of ``a``, ``b``.
    ``received``: the requests so far; ``hidden``: ids that the list does not show (yet).
    """

    ROUTES = (
        ("POST", BATCHES, "create"),
        ("GET", BATCHES, "list"),
        ("GET", BATCHES + "/[^/]+", "retrieve"),
        ("POST", BATCHES + "/[^/]+/cancel", "cancel"),
        ("DELETE", BATCHES + "/[^/]+", "delete"),
        ("GET", ".*/results", "results"),
        ("POST", COUNT, "count_tokens"),
        ("GET", MODELS, "models.list"),
        ("GET", MODELS + "/[^/]+", "models.retrieve"),
    )

    def __init__(self, *, seconds=0.0, tls=None, is_listening=True, **faults):
        self.faults = {name: iter(one) for name, one in faults.items()}
        self.received, self.hidden, self.connections = [], set(), 0
        self._errors, self._tls, self._over = [], tls, threading.Event()
        self._threads, self._listener = [], socket.socket()
        # So that a body of 8 MB never fits in the buffers.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self._listener.bind(("127.0.0.1", 0))
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sandbox = Sandbox(seconds=seconds)
        self.sandbox.__enter__()
        self.api = Anthropic(api_key="sandbox", base_url=self.sandbox.url)
        made = self.api.messages.batches.create(requests=requests_of("a", "b"))
        self.batch_id = made.id
        if is_listening:
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
        # It waits for its thread, which nobody else needs to do.
        threading.Thread(target=self.sandbox.__exit__, daemon=True).start()
        assert not self._errors

    def named(self, name):
        """Return the requests received of a call."""
        return [one for one in self.received if one.name == name]

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
            self._respond(connection, Received(connection))
        except OSError:
            # The client left.
            pass
        except BaseException:
            self._errors.append(traceback.format_exc())
            raise
        finally:
            connection.close()

    def _respond(self, connection, request):
        path = request.path.partition("?")[0]
        names = [
            name
            for method, route, name in self.ROUTES
            if method == request.method and re.fullmatch(route, path)
        ]
        request.name = names[0] if names else None
        self.received.append(request)
        fault = next(self.faults.get(request.name, iter(())), None) or Fault()
        if callable(fault):
            fault = fault(request) or Fault()
        request.read(fault.read)
        response = fault.response
        if fault.work is True:
            done = self._work(request, fault)
            response = done if response is None else response
        elif fault.work is not False:
            threading.Timer(fault.work, self._work, (request, fault)).start()
        connection.sendall((response or b"")[: fault.cut])
        if fault.end == "stall":
            self._over.wait(10)
        elif fault.end == "rst":
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _work(self, request, fault):
        """Have the Sandbox do the work; return its response, changed as the fault says."""
        host = self.sandbox.url.rpartition("/")[2]
        with contextlib.closing(http.client.HTTPConnection(host, timeout=10)) as there:
            names = ("authorization", "x-api-key", "anthropic-version")
            kept = {
                one: request.headers[one] for one in names if one in request.headers
            }
            there.request(request.method, request.path, bytes(request.body), kept)
            response = there.getresponse()
            headers, body = dict(response.getheaders()), response.read()
        del headers["transfer-encoding"]
        if headers["content-type"] == "application/json":
            fields = json.loads(body)
            if request.name == "list" and "data" in fields:
                shown = [one for one in fields["data"] if one["id"] not in self.hidden]
                fields["data"] = shown
            body = {**fields, **dict(fault.changes)}
        headers["Date"] = email.utils.formatdate(time.time() + fault.date, usegmt=True)
        return wire(response.status, body, headers)


@pytest.fixture
def serve():
    """Start servers, and stop them all at the end."""
    with contextlib.ExitStack() as servers:

        def start(**options):
            server = Server(**options)
            servers.callback(server.stop)
            return server

        yield start


# ---- The opener --------------------------------------------------------------------


class Response(io.BytesIO):
    """What an opener returns: status, headers, and the body as a file."""

    def __init__(self, status=200, body=b"{}", headers=()):
        super().__init__(body if isinstance(body, bytes) else json.dumps(body).encode())
        self.status, self.headers = status, email.message.Message()
        fields = {"Content-Type": "application/json", "Request-Id": "req_1"}
        for name, value in {**fields, **dict(headers)}.items():
            self.headers[name] = value


class Opener:
    """An opener that gives responses in their order, and notes the requests.

    A response: JSON, bytes, (status, body, headers…), an exception to raise, or a function
    of the request that returns one of these; after the last one there is none.
    A request has ``wire`` [method, path, query, body], ``sent`` headers and ``seconds``.
    """

    def __init__(self, *responses):
        self.left, self.requests, self.responses = iter(responses), [], []

    def open(self, request, timeout=None):
        url, data = urllib.parse.urlsplit(request.full_url), request.data
        is_body = data is not None and not isinstance(data, bytes)
        body = b"".join(data) if is_body else data
        request.wire = [request.get_method(), url.path, url.query, body]
        request.sent = {name.lower(): text for name, text in request.header_items()}
        request.seconds = timeout
        self.requests.append(request)
        response = next(self.left)
        if callable(response):
            response = response(request)
        if isinstance(response, BaseException):
            raise response
        if not isinstance(response, Response):
            is_tuple = isinstance(response, tuple)
            response = Response(*response if is_tuple else (200, response))
        self.responses.append(response)
        return response


def client_through(*responses, **options):
    """Return a client and the opener that gives it the responses."""
    opener = Opener(*responses)
    own = {"api_key": KEY, "base_url": BASE, "opener": opener}
    return Anthropic(**{**own, **options}), opener


def sent(call, *responses, **options):
    """Return the requests of one call, which takes all the responses."""
    client, opener = client_through(*responses, **options)
    call(client)
    assert next(opener.left, None) is None
    return opener.requests


def client_of(server, **options):
    """Return a client of a Server or a Sandbox."""
    own = {"api_key": KEY, "base_url": server.url, "timeout": 5.0}
    return Anthropic(**{**own, **options})


# ---- Requests, calls and errors ----------------------------------------------------

HELLO = {
    "model": "claude-opus-4-6",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "Hello"}],
}


def request_of(custom_id, **params):
    return {"custom_id": custom_id, "params": {**HELLO, **params}}


def requests_of(*custom_ids):
    return [request_of(custom_id) for custom_id in custom_ids]


# Larger than the buffers of a connection.
BIG = [request_of("big", text="x" * 8_000_000)]
ENDED = batch_json()
ROWS = rows_json(["a", "b"])
MODEL = {"id": "m", "type": "model", "created_at": "2026-01-02T03:04:05Z"}


class Call(NamedTuple):
    """One of the public calls: what it is, and what goes over the wire.

    ``run``: a function of the client and an id.  ``wires``: [method, path, query, body]
    of each request, {} standing for the id.  ``bodies``: JSON or bytes of each response.
    ``names``: those of the requests, by which a Server knows its faults.
    """

    run: Any
    wires: list
    bodies: list
    names: list


MESSAGES = [{"role": "user", "content": "\u00e4"}]
COUNT_BODY = b'{"messages":[{"role":"user","content":"\xc3\xa4"}],"model":"m"}'
ODD_REQUESTS = [{"custom_id": "a", "params": {"text": "\u00e4\u2028\u0000"}}]
ODD_BODY = (
    b'{"requests":[{"custom_id":"a","params":{"text":"\xc3\xa4\xe2\x80\xa8\\u0000"}}]}'
)
ONE = BATCHES + "/{}"
# Every public call that sends requests; what goes over the wire is what the official SDK
# was seen to send.
CALLS = {
    "create": Call(
        lambda c, id, **kw: c.messages.batches.create(
            requests=iter(ODD_REQUESTS), **kw
        ),
        [["POST", BATCHES, "", ODD_BODY]],
        [ENDED],
        ["create"],
    ),
    "retrieve": Call(
        lambda c, id, **kw: c.messages.batches.retrieve(id, **kw),
        [["GET", ONE, "", None]],
        [ENDED],
        ["retrieve"],
    ),
    "list": Call(
        lambda c, id, **kw: list(c.messages.batches.list(**kw)),
        [["GET", BATCHES, "", None]],
        [page_json("1")],
        ["list"],
    ),
    "cancel": Call(
        lambda c, id, **kw: c.messages.batches.cancel(id, **kw),
        [["POST", ONE + "/cancel", "", None]],
        [ENDED],
        ["cancel"],
    ),
    "delete": Call(
        lambda c, id, **kw: c.messages.batches.delete(id, **kw),
        [["DELETE", ONE, "", None]],
        [{"id": "msgbatch_1", "type": "message_batch_deleted"}],
        ["delete"],
    ),
    "results": Call(
        lambda c, id, **kw: list(c.messages.batches.results(id, **kw)),
        [["GET", ONE, "", None], ["GET", ONE + "/results", "", None]],
        [ENDED, ROWS],
        ["retrieve", "results"],
    ),
    "wait": Call(
        lambda c, id, **kw: c.messages.batches.wait(id, **{"timeout": 30, **kw}),
        [["GET", ONE, "", None]] * 2,
        [batch_json(status="canceling"), ENDED],
        ["retrieve"],
    ),
    "count_tokens": Call(
        lambda c, id, **kw: c.messages.count_tokens(
            model="m", messages=iter(MESSAGES), **kw
        ),
        [["POST", COUNT, "", COUNT_BODY]],
        [{"input_tokens": 3}],
        ["count_tokens"],
    ),
    "models.list": Call(
        lambda c, id, **kw: list(c.models.list(**kw)),
        [["GET", MODELS, "", None]],
        [page_json("m")],
        ["models.list"],
    ),
    "models.retrieve": Call(
        lambda c, id, **kw: c.models.retrieve("claude-opus-4-6", **kw),
        [["GET", MODELS + "/claude-opus-4-6", "", None]],
        [MODEL],
        ["models.retrieve"],
    ),
}
# Each request that a call makes, as (call, place of the request in it).
REQUESTS_OF_CALLS = [
    (name, place) for name, call in CALLS.items() for place in range(len(call.names))
]


def shown(error):
    """Return all that a person or a log could see of an error and those chained to it."""
    texts, left = [], [error]
    while left:
        one = left.pop()
        texts += [str(one), repr(one), repr(one.args), str(vars(one))]
        left += [chained for chained in (one.__cause__, one.__context__) if chained]
    return "\n".join(texts)


def failure_of(call, *args, **options):
    """Return the AnthropicError that a call raises; no trace of the key is in it."""
    with pytest.raises(AnthropicError) as caught:
        call(*args, **options)
    assert KEY not in shown(caught.value)
    return caught.value


# ---- Files, commands and processes -------------------------------------------------


def write(path, *lines):
    """Write a file of lines, each bytes or an object; return its path."""
    with open(path, "wb") as file:
        for line in lines:
            raw = line if isinstance(line, bytes) else json.dumps(line).encode()
            file.write(raw + b"\n")
    return path


def read(path):
    return pathlib.Path(path).read_bytes()


def rows(raw):
    return [json.loads(line) for line in raw.splitlines()]


def lead_to(served, monkeypatch):
    """Set the environment so that the client finds a Sandbox or a Server."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", served.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    return served


@pytest.fixture(scope="session")
def lasting():
    with Sandbox(seconds=0.0) as served:
        yield served


@pytest.fixture
def sandbox(lasting, monkeypatch):
    """A sandbox that the tests share, in which a batch ends at once; .batches is a client's."""
    lasting.batches = client_of(lasting).messages.batches
    return lead_to(lasting, monkeypatch)


@pytest.fixture
def slow(monkeypatch):
    """A sandbox of its own, in which a batch runs until a test calls end()."""
    with Sandbox(seconds=3600) as served:
        served.batches = client_of(served).messages.batches
        yield lead_to(served, monkeypatch)


@pytest.fixture
def untouched(sandbox):
    """A sandbox in which no batch may be made."""
    before = [batch.id for batch in sandbox.batches.list(limit=1000)]
    yield sandbox
    assert [batch.id for batch in sandbox.batches.list(limit=1000)] == before


def end(sandbox, batch):
    """Have a running batch end now."""
    sandbox._batches[batch.id].ends = datetime.now(UTC)


def ask(served, method, path, body=None, **headers):
    """Send one request without the client; return status, headers and body."""
    host = served.url.rpartition("/")[2]
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = headers or {"authorization": "Bearer any"}
    with contextlib.closing(http.client.HTTPConnection(host, timeout=10)) as connection:
        connection.request(method, path, raw, headers)
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return response.status, fields, response.read()


@pytest.fixture
def cli(capsysbinary, monkeypatch):
    """Run the command line in this process; return status, output, and what a person sees."""

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
    streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    # Else readline, which pytest may import, would slip COLUMNS in.
    streams.update(stdin=subprocess.DEVNULL, env=dict(os.environ))
    return subprocess.Popen(
        [sys.executable, str(MODULE), *args], **{**streams, **options}
    )


def finish(process):
    """Return status, output, and what a person saw, once a process has ended."""
    out, err = process.communicate(timeout=20)
    return process.returncode, out, (err or b"").decode()


def python(folder, code, *argv):
    """Run code in a new interpreter, modules of the folder first; return what it prints."""
    path = (
        "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, sys.argv[1])\n"
    )
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", path + code]
    command += [str(folder), *argv]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


# ---- The wire ----------------------------------------------------------------------


def sent_by(name, client_options=(), **options):
    """Return the requests of a call of the table."""
    call = CALLS[name]
    return sent(
        lambda client: call.run(client, "msgbatch_1", **options),
        *call.bodies,
        **dict(client_options),
    )


@pytest.mark.parametrize("name", CALLS)
def test_a_call_sends_what_the_sdk_sends(name):
    requests = sent_by(name)
    wires = [
        [method, path.format("msgbatch_1"), query, body]
        for method, path, query, body in CALLS[name].wires
    ]
    assert [request.wire for request in requests] == wires
    for request in requests:
        is_download = request.wire[1].endswith("/results")
        has_type = request.wire[0] != "GET"
        expected = {
            "authorization": f"Bearer {KEY}",
            "anthropic-version": "2026-10-21",
            "accept": f"application/{'binary' if is_download else 'json'}",
            "content-type": "application/json" if has_type else None,
        }
        assert {one: request.sent.get(one) for one in expected} == expected
        assert request.full_url.startswith(BASE + "/")
        assert request.sent["user-agent"].startswith("claude-batches/")
        # A wait has 30 seconds here.
        assert request.seconds == 600.0 or name == "wait"


@pytest.mark.parametrize("name", CALLS)
def test_every_call_takes_the_common_options(name):
    profile = "up" if name in ("create", "count_tokens") else None
    requests = sent_by(
        name,
        extra_headers={"X-Custom": "1"},
        extra_query={"q": [1, True]},
        timeout=30,
        workspace_id="ws",
        **({"user_profile_id": profile} if profile else {}),
    )
    for request in requests:
        assert request.sent["anthropic-workspace-id"] == "ws"
        assert request.seconds <= 30
    assert requests[-1].sent["x-custom"] == "1"
    assert requests[-1].sent.get("anthropic-user-profile-id") == profile
    assert requests[-1].wire[2] == "q%5B%5D=1&q%5B%5D=true"


def test_extra_headers_and_query_of_results_belong_to_the_download():
    url = "https://elsewhere.test/v2/%41%2F/x y?sig=a%2Fb&c=d"
    options = {"extra_headers": {"X-Custom": "1"}, "extra_query": {"q": 1}}
    run = CALLS["results"].run
    requests = sent(
        lambda c: run(c, "b1", **options), batch_json(results_url=url), ROWS
    )
    assert [request.full_url for request in requests] == [
        f"{BASE}{BATCHES}/b1",
        f"{BASE}/v2/%41%2F/x%20y?sig=a%2Fb&c=d&q=1",
    ]
    assert [request.sent.get("x-custom") for request in requests] == [None, "1"]


@pytest.mark.parametrize(
    ("name", "options", "body"),
    [
        (
            "create",
            {"extra_body": {"z": iter([1, None])}},
            ODD_BODY[:-1] + b',"z":[1,null]}',
        ),
        ("cancel", {"extra_body": {"a": 1}}, b'{"a":1}'),
        ("retrieve", {"extra_body": {"a": 1}}, None),
        (
            "count_tokens",
            {"system": None, "extra_body": {"tools": []}},
            COUNT_BODY[:-1] + b',"system":null,"tools":[]}',
        ),
    ],
    ids=["create", "cancel", "retrieve", "count_tokens"],
)
def test_arguments_go_into_the_body_as_by_the_sdk(name, options, body):
    assert sent_by(name, **options)[0].wire[2:] == ["", body]


@pytest.mark.parametrize(
    ("name", "default", "options", "query"),
    [
        (
            "list",
            {},
            {"after_id": "a b", "before_id": None, "limit": 5},
            "after_id=a b&limit=5",
        ),
        ("list", {}, {"before_id": "x/ä"}, "before_id=x/ä"),
        (
            "models.list",
            {},
            {"limit": 2, "lifecycle": ["active", "retired"]},
            "limit=2&lifecycle[]=active&lifecycle[]=retired",
        ),
        ("models.list", {}, {"after_id": "x", "lifecycle": []}, "after_id=x"),
        ("models.list", {"lifecycle": ["active"]}, {}, "lifecycle[]=active"),
        # An argument wins over the client's, extra_query over both.
        (
            "list",
            {"a": 1, "b": 2, "limit": 1},
            {"limit": 5, "extra_query": {"a": 3}},
            "a=3&b=2&limit=5",
        ),
        ("list", {"limit": 1}, {"limit": 2, "extra_query": {"limit": None}}, ""),
    ],
)
def test_arguments_go_into_the_query_as_by_the_sdk(name, default, options, query):
    (request,) = sent_by(name, {"default_query": default}, **options)
    assert request.wire[2] == urllib.parse.quote(query, safe="=&")


@pytest.mark.parametrize(
    ("query", "wire"),
    [
        ({"a": True, "b": False, "c": None}, "a=true&b=false"),
        ({"a": (1, None, "x")}, "a[]=1&a[]=x"),
        ({"a": {"x": 1, "y": 2}.keys()}, "a[]=x&a[]=y"),
        ({"a": {"x": 1}}, "a[x]=1"),
        ({"a": "x y+z&=/?#%ä~"}, "a=x%20y%2Bz%26%3D%2F%3F%23%25%C3%A4~"),
        ({"a": "", "b": []}, "a="),
        ({"a b": 1.5}, "a%20b=1.5"),
    ],
)
def test_a_query_is_written_as_by_the_sdk(query, wire):
    (default,) = sent_by("retrieve", {"default_query": query})
    (extra,) = sent_by("list", extra_query=query)
    wire = wire.replace("[", "%5B").replace("]", "%5D")
    assert (default.wire[2], extra.wire[2]) == (wire, wire)


DAY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (DAY, "2026-01-02T03:04:05+00:00"),
        (DAY.date(), "2026-01-02"),
        (types.MappingProxyType({"a": None}), {"a": None}),
        ((1, 2), [1, 2]),
        ({1}, [1]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        (iter([1]), [1]),
        # An object of a response may go into the next request.
        (MessageBatch(created_at=DAY), {"created_at": "2026-01-02T03:04:05Z"}),
        (claude_batches.Usage(speed=[OpenObject(n=1)]), {"speed": [{"n": 1}]}),
    ],
)
def test_a_value_that_json_does_not_know_goes_out_as_by_the_sdk(value, wire):
    requests = [{"custom_id": "a", "params": {"x": value}}]
    (request,) = sent(lambda c: c.messages.batches.create(requests=requests), ENDED)
    assert json.loads(request.wire[3])["requests"][0]["params"] == {"x": wire}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (BASE, BASE),
        (BASE + "/", BASE),
        (BASE + "/gw/", BASE + "/gw"),
        (BASE + ":8080/a%20b", BASE + ":8080/a%20b"),
        ("http://[::1]:80", "http://[::1]:80"),
        # As http.client asks behind a proxy.
        ("HTTP://Host/Path", "http://Host/Path"),
    ],
)
def test_a_base_url_may_have_a_port_and_a_path(given, kept):
    (request,) = sent_by("models.list", {"base_url": given})
    assert request.full_url == kept + MODELS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("base_url", one) for one in ("https://ä", "http\u017f://h", "", 5)),
        *(("timeout", one) for one in (0, -1, float("nan"), "5")),
        *(("max_retries", one) for one in (-1, None, 1.5)),
        ("auth_token", "t"),
    ],
)
def test_an_argument_that_cannot_work_is_refused(name, value):
    error = failure_of(Anthropic, api_key=KEY, **{name: value})
    assert type(error) is InvalidRequestsError
    assert name in str(error)


# ---- Credentials and headers -------------------------------------------------------


def credential_in(monkeypatch, key, token, lines, options):
    """Return the credentials that a client sends in an environment, a line each."""
    names = ("API_KEY", "AUTH_TOKEN", "CUSTOM_HEADERS")
    for name, value in zip(names, (key, token, lines)):
        monkeypatch.setenv("ANTHROPIC_" + name, value)
    options = {"api_key": None, **options}
    client = Anthropic(**options)
    assert client.copy().api_key == client.api_key
    (request,) = sent_by("retrieve", options)
    # An opener that follows redirects would take these along.
    assert not {"Authorization", "X-api-key"} & request.headers.keys()
    names = ("authorization", "x-api-key")
    return [f"{one}: {request.sent[one]}" for one in names if one in request.sent]


# An empty variable is an unset one.
@pytest.mark.parametrize(
    ("key", "token", "options", "expected"),
    [
        ("k", "t", {"api_key": "own"}, "Bearer own"),
        ("k", "t", {"auth_token": "own"}, "Bearer own"),
        ("k", "t", {}, "Bearer k"),
        ("", "t", {}, "Bearer t"),
        # White space around a key goes.
        (" \n", " t\r\n", {}, "Bearer t"),
        ("\tk \n", "", {}, "Bearer k"),
        ("", "", {"api_key": " own\n"}, "Bearer own"),
    ],
)
def test_the_credential_is_the_argument_else_the_key_else_the_token(
    monkeypatch, key, token, options, expected
):
    found = credential_in(monkeypatch, key, token, "", options)
    assert found == [f"authorization: {expected}"]


@pytest.mark.parametrize(
    ("key", "lines", "headers", "expected"),
    [
        ("", "Authorization: Bearer x", {}, ["authorization: Bearer x"]),
        ("k", "authorization: Bearer x", {}, ["authorization: Bearer x"]),
        ("", "X-Api-Key: x", {}, ["x-api-key: x"]),
        ("", "", {"AUTHORIZATION": "Basic x"}, ["authorization: Basic x"]),
        ("", "", {"X-Api-Key": "x"}, ["x-api-key: x"]),
        ("k", "", {"X-API-KEY": "x"}, ["authorization: Bearer k", "x-api-key: x"]),
        # The caller wants none to be sent.
        ("k", "", {"Authorization": None}, []),
        ("k", "", {"Authorization": None, "X-Api-Key": "x"}, ["x-api-key: x"]),
    ],
)
def test_a_header_may_be_the_credential(monkeypatch, key, lines, headers, expected):
    options = {"default_headers": headers}
    assert credential_in(monkeypatch, key, "", lines, options) == expected


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("", {}),
        ("k", {"api_key": ""}),
        ("", {"default_headers": {"x-api-key": ""}}),
        ("k", {"default_headers": {"Authorization": ""}}),
    ],
)
def test_without_a_credential_the_first_request_names_the_variable(
    monkeypatch, key, options
):
    error = failure_of(credential_in, monkeypatch, key, " ", "", options)
    assert "ANTHROPIC_API_KEY" in str(error)


@pytest.mark.parametrize("headers", [{"A": KEY + "\n"}, {"A B": KEY}, {"": KEY}])
def test_a_header_that_cannot_be_sent_is_refused_without_being_shown(headers):
    client, opener = client_through(default_headers=headers)
    error = failure_of(client.models.list)
    assert type(error) is InvalidRequestsError
    assert "header" in str(error)
    assert opener.requests == []


def test_a_retry_is_logged_at_debug_level_and_shows_no_query(caplog):
    client, _ = client_through((500, api_error()), (401, api_error("bad key")))
    error = failure_of(client.models.retrieve, "m", extra_query={"q": "private"})
    assert "bad key" in str(error)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("claude_batches", logging.DEBUG)
    assert re.search(f"500.*GET {BASE}{MODELS}/m", record.getMessage())
    assert "private" not in caplog.text + shown(error)


@pytest.mark.parametrize(
    ("variable", "options", "base_url"),
    [
        (BASE + "/env/", {}, BASE + "/env"),
        (BASE + "/env/", {"base_url": "https://own.test"}, "https://own.test"),
        ("", {}, "https://api.anthropic.com"),
    ],
)
def test_base_url_is_the_argument_else_the_variable(
    monkeypatch, variable, options, base_url
):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", variable)
    assert Anthropic(api_key=KEY, **options).base_url == base_url


def test_headers_of_a_call_win_over_the_clients_and_these_over_the_variables(
    monkeypatch,
):
    lines = "A: env: x\nno header\n B :env \r\nC: env\nD: env\nE: env"
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", lines)
    default = {"c": "client", "d": "client", "E": None, "F": "client"}
    extra = {"D": "call", "f": None}
    (request,) = sent_by("retrieve", {"default_headers": default}, extra_headers=extra)
    found = [request.sent.get(name) for name in "abcdef"]
    assert found == ["env: x", "env", "client", "call", None, None]


@pytest.mark.parametrize(
    ("name", "value", "wire"),
    [
        ("Accept", "text/x", "text/x"),
        ("Accept", None, None),
        ("ANTHROPIC-VERSION", "2023-06-01", "2023-06-01"),
        ("Anthropic-Version", None, None),
        ("content-type", "text/x", "text/x"),
        ("Authorization", None, None),
        ("anthropic-beta", "a,b", "a,b"),
        ("X-Custom", "", ""),
        ("X-Custom", 5, "5"),
        # UTF-8, because http.client sends Latin-1.
        ("X-Custom", "ä", "Ã¤"),
        ("Anthropic-Workspace-Id", "w", "w"),
    ],
)
def test_a_header_of_the_caller_wins_and_none_leaves_it_out(name, value, wire):
    headers = {name: value}
    (default,) = sent_by("create", {"default_headers": headers})
    (extra,) = sent_by("create", extra_headers=headers, workspace_id="x")
    for request in (default, extra):
        assert request.sent.get(name.lower()) == wire


def test_none_leaves_a_header_out_that_urllib_would_add(serve):
    server = serve(count_tokens=[reply(body={"input_tokens": 3})])
    client = client_of(server, default_headers={"Content-Type": None})
    assert client.messages.count_tokens(model="m", messages=[]).input_tokens == 3
    assert "content-type" not in server.received[0].headers


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"timeout": 3}, {"seconds": 3}),
        ({"timeout": None}, {"seconds": None}),
        ({"auth_token": "t9"}, {"authorization": "Bearer t9"}),
        ({"api_key": "k9"}, {"authorization": "Bearer k9"}),
        ({"api_key": None, "auth_token": "t9"}, {"authorization": "Bearer t9"}),
        ({"default_query": {"b": 2, "c": 3}}, {"query": "a=1&b=2&c=3"}),
        ({"default_headers": {"X-CUSTOM": None}}, {"x-custom": None}),
        ({"default_headers": {"x-new": "n"}}, {"x-new": "n"}),
        ({"base_url": "https://two.test/gw"}, {"url": f"https://two.test/gw{MODELS}"}),
        # None is no change of these.
        ({"base_url": None, "api_key": None, "auth_token": None}, {}),
    ],
)
def test_with_options_changes_what_it_names_and_keeps_the_rest(changes, expected):
    options = {"default_headers": {"X-Custom": "d"}, "default_query": {"a": 1, "b": 1}}
    client, opener = client_through(page_json(), page_json(), timeout=7, **options)
    with client.with_options(**changes) as changed:
        changed.models.list()
    client.models.list()
    found = []
    for request in opener.requests:
        url, _, query = request.full_url.partition("?")
        fields = {"url": url, "query": query, "seconds": request.seconds}
        found.append({**fields, **request.sent})
    first, second = found
    changed = {one for one in {**first, **second} if first.get(one) != second.get(one)}
    assert {one: first.get(one) for one in changed} == expected
    assert (second["x-custom"], second["query"]) == ("d", "a=1&b=1")
    assert (second["url"], second["seconds"]) == (BASE + MODELS, 7)


# ---- Pages -------------------------------------------------------------------------

THREE_PAGES = [
    page_json("1", "2", more=True, new=1),
    page_json("3", more=True),
    page_json("4"),
]


@pytest.mark.parametrize(
    ("options", "queries"),
    [
        ({"limit": 2}, "limit=2 after_id=2&limit=2 after_id=3&limit=2"),
        ({"before_id": "9"}, "before_id=9 before_id=1 before_id=3"),
        (
            {"before_id": "9", "after_id": "0"},
            "after_id=0&before_id=9 after_id=0&before_id=1 after_id=0&before_id=3",
        ),
        ({"extra_query": {"q": 1}}, "q=1 after_id=2&q=1 after_id=3&q=1"),
        ({"extra_query": {"before_id": "9"}}, "before_id=9 before_id=1 before_id=3"),
        ({"extra_query": {"after_id": "0"}}, "after_id=0 after_id=2 after_id=3"),
    ],
)
def test_iterating_goes_through_all_pages_in_the_direction_asked_for(options, queries):
    client, opener = client_through(*THREE_PAGES)
    batches = client.messages.batches.list(workspace_id="w", **options)
    assert "".join(batch.id for batch in batches) == "1234"
    asked = ["&".join(sorted(one.wire[2].split("&"))) for one in opener.requests]
    assert asked == queries.split()
    spaces = [request.sent["anthropic-workspace-id"] for request in opener.requests]
    assert spaces == ["w"] * 3


@pytest.mark.parametrize(
    ("pages", "ids"),
    [
        # Without has_more an empty page is the last one.
        (
            [
                {"data": [{"id": "1"}], "last_id": "1"},
                page_json("2", more=None),
                {"data": None},
            ],
            "12",
        ),
        ([page_json(more=True, last_id="x")], ""),
        # There is no way on without a cursor.
        ([page_json("1", more=True, last_id=None)], "1"),
    ],
)
def test_a_list_ends_where_nothing_says_that_it_goes_on(pages, ids):
    client, opener = client_through(*pages)
    assert "".join(batch.id for batch in client.messages.batches.list()) == ids
    assert len(opener.requests) == len(pages)


def test_iter_pages_fetches_a_page_when_it_is_reached():
    client, opener = client_through(*THREE_PAGES)
    pages = client.models.list(lifecycle=["active"]).iter_pages()
    found = [(page.last_id, len(opener.requests)) for page in pages]
    assert found == [("2", 1), ("3", 2), ("4", 3)]
    for request in opener.requests:
        assert request.wire[2].count("lifecycle%5B%5D=active") == 1


def test_pages_can_be_turned_by_hand():
    client, _ = client_through(*THREE_PAGES)
    first = client.messages.batches.list(before_id="9")
    second = first.get_next_page()
    third = second.get_next_page()
    cursors = [page.next_page_info().params for page in (first, second)]
    assert cursors == [{"before_id": "1"}, {"before_id": "3"}]
    assert (first.has_more, first.first_id, first.last_id) == (True, "1", "2")
    assert (first.new, first._request_id) == (1, "req_1")
    ways = [page.has_next_page() for page in (first, second, third)]
    assert ways == [True, True, False]
    assert type(third.data[0]) is MessageBatch
    assert third.to_dict() == THREE_PAGES[2]
    with pytest.raises(RuntimeError, match="has_next_page"):
        third.get_next_page()


@pytest.mark.parametrize("options", [{}, {"before_id": "z"}])
@pytest.mark.parametrize("cursors", ["AAAAAAAA", "ABABABAB", "XABCABCA", "XY"])
def test_a_cursor_that_repeats_ends_with_an_error(cursors, options):
    pages = [page_json(cursor, more=True) for cursor in cursors]
    # A cursor that is not a text.
    pages.append({**pages[0], "first_id": 5, "last_id": 5})
    client, opener = client_through(*pages * 2)
    error = failure_of(lambda: list(client.messages.batches.list(**options)))
    assert type(error) is APIResponseValidationError
    assert len(opener.requests) <= len(set(cursors)) + 1
    page = client_through(*pages)[0].messages.batches.list(**options)
    with pytest.raises(APIResponseValidationError):
        while True:
            page = page.get_next_page()


# ---- JSON Lines --------------------------------------------------------------------

ODD_VALUES = [{"a": "x\u2028y\u2029\u0085z"}, [1, "ä"], "😀", {"last": None}]
ODD_LINES = (
    '\r\n{"a": "x\u2028y\u2029\u0085z"}\r\n\n  \n[1, "ä"]\n"😀"\r\n{"last": null}'
).encode()


def test_lines_are_the_same_wherever_the_blocks_are_cut():
    for cut in range(len(ODD_LINES)):
        head, tail = ODD_LINES[:cut], ODD_LINES[cut:]
        for blocks in ([head, b"", tail], [head, tail[:1], tail[1:] + b"\n"]):
            assert list(iter_json_lines(blocks)) == ODD_VALUES
    single_bytes = (bytes([byte]) for byte in ODD_LINES)
    for blocks in (single_bytes, io.BytesIO(ODD_LINES)):
        assert list(iter_json_lines(blocks)) == ODD_VALUES


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"{}\n\n{]\n{}", 3),
        (b"{}\r\n{} {}\r\n", 2),
        (b'"\xff"\n', 1),
        (b"{}\n{", 2),
        (b"[" * 100_000, 1),
    ],
    ids=["syntax", "two values", "no UTF-8", "torn", "deep"],
)
def test_a_line_that_is_not_json_is_named(text, number):
    error = failure_of(lambda: list(iter_json_lines([text[:3], text[3:]])))
    assert type(error) is APIResponseValidationError
    assert f"line {number} " in str(error)


# ---- Errors ------------------------------------------------------------------------

ERROR_CLASSES = {
    400: "BadRequest",
    401: "Authentication",
    402: "PaymentRequired",
    403: "PermissionDenied",
    404: "NotFound",
    405: "APIStatus",
    408: "RequestTimeout",
    409: "Conflict",
    413: "ContentTooLarge",
    418: "APIStatus",
    422: "UnprocessableEntity",
    429: "RateLimit",
    500: "InternalServer",
    502: "InternalServer",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
    529: "Overloaded",
    599: "InternalServer",
}


def status_error(*response):
    """Return the error of a retrieve that gets a response."""
    client, opener = client_through(response, max_retries=0)
    error = failure_of(client.messages.batches.retrieve, "b1")
    assert opener.responses[0].closed
    return error


def assert_is_copied(error):
    """Check that pickle and copy keep an error whole."""
    for clone in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(clone), str(clone)) == (type(error), str(error))
        assert vars(clone) == vars(error)


@pytest.mark.parametrize("status", ERROR_CLASSES)
def test_an_error_has_the_class_of_its_status_and_all_that_the_response_tells(status):
    body = api_error("what is wrong", "some_error", details={"error_code": "c"})
    error = status_error(status, body, {"Retry-After": "7"})
    assert type(error).__name__ == ERROR_CLASSES[status] + "Error"
    assert isinstance(error, APIStatusError)
    assert isinstance(error, InternalServerError) == (status >= 500)
    expected = {
        "status_code": status,
        "request_id": "req_1",
        "type": "some_error",
        "body": body,
        "api_message": "what is wrong",
        "details": {"error_code": "c"},
        "error_code": "c",
        "message": str(error),
    }
    assert {name: getattr(error, name) for name in expected} == expected
    assert error.headers["retry-after"] == "7"
    parts = (str(status), "some_error", "what is wrong", "req_1", BATCHES + "/b1")
    assert [part for part in parts if part not in str(error)] == []
    assert_is_copied(error)


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"<html>\n<b>large</b></html>", "<html>\n<b>large</b></html>"),
        (b"", ""),
        (b"\xff", "\ufffd"),
        (b"[1]", [1]),
        (b"null", None),
        (b'{"error": "text"}', {"error": "text"}),
        (b'{"error": {"details": "no"}}', {"error": {"details": "no"}}),
        (b'{"error": {"type": 5}}', {"error": {"type": 5}}),
        (b'{"type": "error", "error": null}', {"type": "error", "error": None}),
        (b"[" * 100_000, "[" * 100_000),
    ],
    ids=itertools.count(),
)
def test_the_body_of_an_error_may_be_anything(raw, body):
    error = status_error(413, raw, {"Content-Type": "text/html"})
    assert type(error) is ContentTooLargeError
    assert (error.body, error.request_id) == (body, "req_1")
    assert re.search("413.*req_1", str(error))
    assert len(str(error)) < 500
    assert ("large" in str(error)) == (b"large" in raw)


def test_the_request_id_is_that_of_the_body_where_no_header_has_one():
    assert status_error(404, api_error(), {"Request-Id": ""}).request_id == "req_body"


def test_an_http_error_that_the_opener_raises_is_a_response():
    response = Response(404, api_error())
    raised = urllib.error.HTTPError(BASE, 404, "no", response.headers, response)
    client, _ = client_through(raised)
    error = failure_of(client.models.retrieve, "m")
    assert (type(error), error.type) == (NotFoundError, "x_error")


ERROR_NAMES = [name for name in claude_batches.__all__ if name.endswith("Error")]


@pytest.mark.parametrize("name", ERROR_NAMES)
def test_every_error_can_be_pickled_and_copied(name):
    fields = {"body": {"x": 1}, "candidates": [MessageBatch(id="b")], "sent_at": DAY}
    error = getattr(claude_batches, name)("a", **fields)
    assert (str(error), error.body) == ("a", {"x": 1})
    assert_is_copied(error)


def test_what_no_response_told_is_none():
    error = APIError("a")
    assert error.message == "a"
    names = ("status_code", "request_id", "type", "body")
    assert {getattr(error, name) for name in names} == {None}


@pytest.mark.parametrize(
    "response",
    [(404, api_error()), b"<html>", OSError()],
    ids=["404", "no JSON", "lost"],
)
def test_an_error_that_is_let_go_takes_its_response_along(response):
    client, opener = client_through(response, max_retries=0)
    with pytest.raises(APIError) as caught:
        client.messages.batches.retrieve("b1")
    left = [weakref.ref(one) for one in [caught.value, *opener.responses]]
    opener.responses.clear()
    # The garbage collector is off, so that a cycle would keep them.
    del caught, response
    assert [one() for one in left] == [None] * len(left)


# ---- Retries -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "should_retry", "tries"),
    [
        *((one, "", 3) for one in (408, 409, 429, 500, 502, 503, 504, 529, 599)),
        *((one, "", 1) for one in (400, 401, 402, 403, 404, 413, 418, 422)),
        (500, "odd", 3),
        (400, "true", 3),
        (404, "true", 3),
        (429, "false", 1),
        (500, "false", 1),
    ],
)
def test_a_call_that_makes_nothing_is_retried_by_the_sdks_rule(
    status, should_retry, tries
):
    response = (status, api_error(), {"x-should-retry": should_retry})
    for name, place in REQUESTS_OF_CALLS:
        # A create and a wait have rules of their own; results ignore 404 for a while.
        if name in ("create", "wait") or (name == "results" and status == 404):
            continue
        call = CALLS[name]
        client, opener = client_through(*call.bodies[:place], *[response] * 9)
        assert failure_of(call.run, client, "b1").status_code == status
        requests = opener.requests[place:]
        assert [one.wire for one in requests] == [requests[0].wire] * tries
        retries = [one.sent.get("x-stainless-retry-count") for one in requests]
        assert retries == [None, "1", "2"][:tries]


# The first two are two classes before Python 3.10.
@pytest.mark.parametrize(
    "error",
    [socket.timeout(), TimeoutError(), urllib.error.URLError(TimeoutError())],
)
def test_a_timeout_is_one_under_each_of_its_names(error):
    client, _ = client_through(error, max_retries=0)
    assert type(failure_of(client.models.list)) is APITimeoutError


@pytest.mark.parametrize("retries", [0, 1, 5])
@pytest.mark.parametrize(
    "response",
    [(429, b""), ConnectionResetError(), b"<html>"],
    ids=["429", "lost", "no JSON"],
)
def test_max_retries_is_how_often_a_call_is_retried(response, retries):
    client, opener = client_through(*[response] * 9, max_retries=retries)
    failure_of(client.with_options(timeout=1).models.list)
    assert len(opener.requests) == retries + 1


def test_the_pause_doubles_up_to_eight_seconds_less_a_quarter_at_most(clock):
    responses = [(500, b"")] * 7
    sent(lambda c: c.models.list(), *responses, page_json(), max_retries=7)
    longest = (0.5, 1, 2, 4, 8, 8, 8)
    assert len(clock.sleeps) == len(longest)
    parts = [seconds / most for seconds, most in zip(clock.sleeps, longest)]
    assert 0.75 <= min(parts) < max(parts) <= 1


@pytest.mark.parametrize(
    ("retry_after", "milliseconds", "low", "high"),
    [
        ("3", "", 3, 3),
        ("0.5", "", 0.5, 0.5),
        ("", "1500", 1.5, 1.5),
        ("3", "10", 0.01, 0.01),
        ("2", "x", 2, 2),
        ("4000", "", 4000, 4000),
        # As long as a system can sleep.
        ("1e99", "", 1e6, 1e7),
        ("in 30 seconds", "", 27, 30),
        # Else it is the client's own pause.
        *((text, "", 0.375, 0.5) for text in ("0", "-1", "soon", "nan", "")),
        ("Fri, 29 Sep 2023 16:26:57 GMT", "", 0.375, 0.5),
        ("2", "0", 0.375, 0.5),
    ],
)
def test_the_pause_is_what_the_response_asks_for(
    clock, retry_after, milliseconds, low, high
):
    if retry_after == "in 30 seconds":
        retry_after = email.utils.formatdate(clock.time() + 30, usegmt=True)
    headers = {"Retry-After": retry_after, "Retry-After-Ms": milliseconds}
    sent(lambda c: c.models.list(), (500, b"", headers), page_json())
    (seconds,) = clock.sleeps
    assert low <= seconds <= high


# ---- The file ----------------------------------------------------------------------

SOURCE = MODULE.read_text(encoding="utf-8")
ABOVE = SOURCE.partition("# Everything above is the client")[0]
TREE = ast.parse(SOURCE)


def test_the_file_says_what_may_be_done_with_it():
    assert "SPDX-License-Identifier: MIT-0" in SOURCE.split('"""')[0]
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", claude_batches.__version__)


def test_all_names_what_is_public():
    public = {
        name
        for name, value in vars(claude_batches).items()
        if getattr(value, "__module__", "") == "claude_batches" and name[0] != "_"
    }
    names = claude_batches.__all__
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(claude_batches, name)] == []
    # The console script needs main.
    assert public - {*names, "main"} == set()


def test_the_tree_of_errors_is_that_of_the_docstring():
    path, named = [Exception], set()
    lines = re.findall(
        r"^    ([ │├└─]*)(\w+Error.*)$", claude_batches.__doc__, re.MULTILINE
    )
    for indent, line in lines:
        depth = len(indent) // 4 + 1
        for name in set(re.findall(r"\w+Error\b", line)) & set(ERROR_NAMES):
            cls = getattr(claude_batches, name)
            assert path[depth - 1] in cls.__bases__
            path[depth:] = [cls]
            named.add(name)
    # JobError is what the command line tells.
    assert set(ERROR_NAMES) - named <= {"JobError"}
    assert issubclass(InvalidRequestsError, ValueError)
    assert issubclass(WaitTimeoutError, TimeoutError)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs stdlib_module_names")
def test_only_the_standard_library_is_imported():
    names = set()
    for node in ast.walk(TREE):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            name = getattr(node, "module", None) or node.names[0].name
            names.add(name.partition(".")[0])
    # The second one is imported by type checkers only.
    assert names - {*sys.stdlib_module_names, "typing_extensions"} == set()


def public_in(scope):
    """Return the public classes and functions of a module or class."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    nodes = [node for node in scope.body if isinstance(node, kinds)]
    return [node for node in nodes if not node.name.startswith("_")]


def test_every_public_class_and_function_has_a_docstring():
    nodes = public_in(TREE)
    for node in nodes[:]:
        if isinstance(node, ast.ClassDef):
            nodes += public_in(node)
    assert [node.name for node in nodes if not ast.get_docstring(node)] == []


def test_importing_is_quiet_and_loads_nothing_that_is_not_needed():
    loaded = python(MODULE.parent, "import claude_batches; print(*sys.modules)").split()
    assert "claude_batches" in loaded
    heavy = {"http.server", "logging", "argparse", "asyncio", "socketserver"}
    assert heavy & set(loaded) == set()


def test_the_part_above_the_line_works_on_its_own(tmp_path, serve):
    (tmp_path / "claude_batches.py").write_text(ABOVE, encoding="utf-8")
    code = """
from claude_batches import *
import claude_batches
requests = [{"custom_id": "a", "params": {}}]
with Anthropic(api_key="k", base_url=sys.argv[2]) as client:
    model = client.models.retrieve("claude-opus-4-6").id
    messages = [{"role": "user", "content": "Hello"}]
    count = client.messages.count_tokens(model=model, messages=messages)
    print(model, count.input_tokens > 0)
    batch = client.messages.batches.create(requests=requests)
    client.messages.batches.wait(batch.id, poll_interval=0.01)
    print([row.custom_id for row in client.messages.batches.results(batch.id)])
print("logging" in sys.modules, set(claude_batches.__all__) - set(globals()))
"""
    printed = python(tmp_path, code, serve().url)
    assert printed.splitlines() == ["claude-opus-4-6 True", "['a']", "False set()"]


# ---- Proxies -----------------------------------------------------------------------

# Hosts, the variable no_proxy, and whether a request goes through the proxy.
PROXIED = [
    ("api.test", "", True),
    ("api.test", "other.test", True),
    ("127.evil.test", "", True),
    *(("api.test", one, False) for one in ("api.test", ".test,x", "*")),
    *((one, "", False) for one in ("127.0.0.1", "LocalHost", "127.1.2.3", "127.1")),
]


def test_the_environments_proxy_is_used_but_for_loopback_and_no_proxy(
    monkeypatch, serve
):
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _, *rest, **kw: resolve("127.0.0.1", *rest, **kw)
    )
    # It is both the proxy and the host.
    server = serve()
    replies = itertools.repeat(reply(body=MODEL))
    server.faults = {None: replies, "models.retrieve": replies}
    monkeypatch.setenv("http_proxy", server.url)
    for host, no_proxy, is_through in PROXIED:
        monkeypatch.setenv("no_proxy", no_proxy)
        base_url = server.url.replace("127.0.0.1", host)
        client_of(server, base_url=base_url, max_retries=0).models.retrieve("m")
        place = base_url.lower() if is_through else ""
        assert server.received[-1].path == f"{place}{MODELS}/m"


def test_a_proxy_of_https_sees_the_host_and_no_key_and_errors_no_password(
    monkeypatch, serve
):
    server = serve()
    server.faults[None] = iter([reply(502)])
    monkeypatch.setenv("https_proxy", server.url.replace("//", "//user:word@"))
    client = Anthropic(api_key=KEY, base_url=BASE, max_retries=0)
    error = failure_of(client.models.list)
    assert type(error) is APIConnectionError and "word" not in shown(error)
    assert server.url in str(error)
    (request,) = server.received
    assert (request.method, request.path) == ("CONNECT", "api.test:443")
    assert KEY.encode() not in request.head
    credential = base64.b64encode(b"user:word").decode()
    assert request.headers["proxy-authorization"] == f"Basic {credential}"


# ---- Objects -----------------------------------------------------------------------

COUNTS = {"processing": 0, "succeeded": 1, "errored": 1, "canceled": 0, "expired": 0}
BATCH = {
    "id": "b1",
    "type": "message_batch",
    "processing_status": "ended",
    "request_counts": COUNTS,
    "created_at": "2026-08-19T14:44:51.493319Z",
    "ended_at": None,
    "a field of tomorrow": {"n": [1]},
}
USAGE = {
    "input_tokens": 1,
    "service_tier": "batch",
    "server_tool_use": {"web_search_requests": 1},
    "cache_creation": {"ephemeral_5m_input_tokens": 5},
    "output_tokens_details": {"thinking_tokens": 7},
}
BLOCKS = [
    {"type": "text", "text": "hä \u2028", "citations": [{"start_char_index": 3}]},
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "redacted_thinking", "data": "d"},
    {"type": "tool_use", "id": "t1", "name": "look", "input": {"q": {"deep": None}}},
    {"type": "web_search_tool_result", "content": [{"url": "u"}], "input": {"x": {}}},
    {"type": "a block of tomorrow", "payload": {"n": 1}},
]
MESSAGE = {
    "id": "msg_1",
    "role": "assistant",
    "content": BLOCKS,
    "stop_reason": "a reason of tomorrow",
    "stop_details": {"type": "refusal", "category": None},
    "container": {"id": "c1", "expires_at": "2026-08-19T14:44:51Z"},
    "usage": USAGE,
}
DETAILS = {"error_code": "x", "more": [{"y": 1}]}
ERROR = {"type": "invalid_request_error", "message": "no", "details": DETAILS}
ERROR_RESPONSE = {"type": "error", "error": ERROR, "request_id": None}
SUCCEEDED = {"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}}
ERRORED = {"custom_id": "b", "result": {"type": "errored", "error": ERROR_RESPONSE}}
EXPIRED = {"custom_id": "c", "result": {"type": "expired"}}
ODD_ROW = {
    "custom_id": "d",
    "result": {"type": "a result of tomorrow", "why": {"x": 1}},
}
MODEL_INFO = {**MODEL, "capabilities": {"batch": {"supported": True}, "effort": {}}}


def taken(cls, fields):
    """Return an object as a call returns it."""
    fields = json.loads(json.dumps(fields))
    name = {MessageBatch: "retrieve", ModelInfo: "models.retrieve"}.get(cls)
    if cls is MessageBatchIndividualResponse:
        body = json.dumps(fields).encode() + b"\n"
        client, _ = client_through(batch_json(request_counts=None), body)
        return next(client.messages.batches.results("b1"))
    client, _ = client_through(fields)
    return CALLS[name or "count_tokens"].run(client, "b1")


OBJECTS = pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (MessageBatch, BATCH),
        (ModelInfo, MODEL_INFO),
        (MessageTokensCount, {"input_tokens": 3}),
        (MessageBatchIndividualResponse, SUCCEEDED),
        (MessageBatchIndividualResponse, ERRORED),
        (MessageBatchIndividualResponse, EXPIRED),
        (MessageBatchIndividualResponse, ODD_ROW),
    ],
    ids=["batch", "model", "tokens", "succeeded", "errored", "expired", "odd"],
)
MOMENT = datetime(2026, 8, 19, 14, 44, 51, tzinfo=UTC)
MISSING = AttributeError


def read_path(obj, path):
    for name in path.split("."):
        obj = obj[int(name)] if name.isdigit() else getattr(obj, name)
    return obj


@pytest.mark.parametrize(
    ("fields", "path", "value"),
    [
        (BATCH, "request_counts.succeeded", 1),
        (BATCH, "created_at", MOMENT.replace(microsecond=493319)),
        # Declared, but not there: what the SDK leaves out, and what gateways do.
        (BATCH, "cancel_initiated_at", None),
        (BATCH, "expires_at", None),
        (BATCH, "a field of tomorrow", {"n": [1]}),
        (BATCH, "none_such", MISSING),
        (MODEL_INFO, "capabilities.batch.supported", True),
        (MODEL_INFO, "retires_at", None),
        (MODEL_INFO, "capabilities.none_such", MISSING),
        (ERRORED, "result.error.type", "error"),
        (ERRORED, "result.error.request_id", None),
        (ERRORED, "result.error.message", MISSING),
        (ERRORED, "result.error.error.type", "invalid_request_error"),
        (ERRORED, "result.error.error.message", "no"),
        (ERRORED, "result.error.error.details.more.0.y", 1),
        (ERRORED, "result.error.error.request_id", MISSING),
        (ERRORED, "result.message", MISSING),
        (EXPIRED, "result.error", MISSING),
        (ODD_ROW, "result.type", "a result of tomorrow"),
        (ODD_ROW, "result.why.x", 1),
        (SUCCEEDED, "result.error", MISSING),
        (SUCCEEDED, "result.message.container.id", "c1"),
        (SUCCEEDED, "result.message.container.expires_at", MOMENT),
        (SUCCEEDED, "result.message.stop_details.type", "refusal"),
        (SUCCEEDED, "result.message.stop_reason", "a reason of tomorrow"),
        (SUCCEEDED, "result.message.model", None),
        (SUCCEEDED, "result.message.usage.output_tokens", None),
        (SUCCEEDED, "result.message.usage.inference_geo", None),
        (SUCCEEDED, "result.message.usage.server_tool_use.web_search_requests", 1),
        (SUCCEEDED, "result.message.usage.cache_creation.ephemeral_5m_input_tokens", 5),
        (SUCCEEDED, "result.message.usage.cache_creation.none_such", MISSING),
        (SUCCEEDED, "result.message.usage.output_tokens_details.thinking_tokens", 7),
        (SUCCEEDED, "result.message.content.0.text", "hä \u2028"),
        (SUCCEEDED, "result.message.content.0.citations.0.start_char_index", 3),
        (SUCCEEDED, "result.message.content.0.name", MISSING),
        (SUCCEEDED, "result.message.content.1.thinking", "hm"),
        (SUCCEEDED, "result.message.content.2.data", "d"),
        (SUCCEEDED, "result.message.content.3.input", {"q": {"deep": None}}),
        (SUCCEEDED, "result.message.content.3.caller", None),
        (SUCCEEDED, "result.message.content.4.content.0.url", "u"),
        (SUCCEEDED, "result.message.content.4.input", {"x": {}}),
        (SUCCEEDED, "result.message.content.5.payload", {"n": 1}),
        (SUCCEEDED, "result.message.content.5.text", MISSING),
    ],
)
def test_a_field_is_read_by_attribute_and_a_missing_one_as_declared(
    fields, path, value
):
    by_key = {"result": MessageBatchIndividualResponse, "display_name": ModelInfo}
    cls = ModelInfo if fields is MODEL_INFO else MessageBatch
    for key in by_key.keys() & fields.keys():
        cls = by_key[key]
    obj = taken(cls, fields)
    if value is MISSING:
        with pytest.raises(AttributeError):
            read_path(obj, path)
    else:
        found = read_path(obj, path)
        assert (type(found), found) == (type(value), value)


def test_results_and_content_blocks_have_the_classes_of_the_sdk():
    row = taken(MessageBatchIndividualResponse, SUCCEEDED)
    names = [type(block).__name__ for block in row.result.message.content]
    assert names == [
        "TextBlock",
        "ThinkingBlock",
        "RedactedThinkingBlock",
        "ToolUseBlock",
        "OtherContentBlock",
        "OtherContentBlock",
    ]
    for fields, name in (
        (SUCCEEDED, "MessageBatchSucceededResult"),
        (ERRORED, "MessageBatchErroredResult"),
        (EXPIRED, "MessageBatchExpiredResult"),
        (
            {"custom_id": "a", "result": {"type": "canceled"}},
            "MessageBatchCanceledResult",
        ),
        (ODD_ROW, "OpenObject"),
    ):
        row = taken(MessageBatchIndividualResponse, fields)
        assert type(row.result).__name__ == name
        assert isinstance(row.result, getattr(claude_batches, name))


@OBJECTS
def test_an_object_gives_its_json_back_in_every_way_of_the_sdk(cls, fields):
    obj = taken(cls, fields)
    for found in (obj.to_dict(), obj.model_dump(mode="json", exclude_unset=True)):
        assert json.dumps(found) == json.dumps(fields)
        found.clear()
    assert json.loads(obj.to_json()) == fields == json.loads(obj.to_json(indent=None))
    assert "\n" in obj.to_json() and "\n" not in obj.to_json(indent=None)
    whole = json.loads(obj.model_dump_json(indent=2))
    assert {**whole, **fields} == {**whole, **obj.to_dict()}
    without = obj.model_dump(mode="json", exclude_none=True)
    assert None not in without.values()
    assert without == json.loads(obj.model_dump_json(exclude_none=True))
    assert dict(obj) == {**obj.model_dump(), **vars(obj)}


def test_a_dump_keeps_times_and_names_declared_fields_that_are_missing():
    batch = taken(MessageBatch, BATCH)
    dumped = batch.model_dump()
    assert dumped["created_at"] == batch.created_at
    assert dumped["results_url"] is None and "results_url" not in batch.to_dict()
    assert dumped["request_counts"] == COUNTS == batch.request_counts.model_dump()
    came = batch.to_dict(mode="python")["created_at"]
    assert dict(batch)["created_at"] == came == batch.created_at
    row = taken(MessageBatchIndividualResponse, SUCCEEDED)
    free = row.model_dump(exclude_none=True)["result"]["message"]["content"][3]["input"]
    # Nulls of free JSON are no fields.
    assert free == {"q": {"deep": None}}
    east = MessageBatch(created_at=MOMENT.astimezone(timezone(timedelta(hours=1))))
    assert east.to_dict()["created_at"] == "2026-08-19T15:44:51+01:00"


@OBJECTS
def test_objects_compare_print_pickle_and_copy(cls, fields):
    obj, other = taken(cls, fields), taken(cls, fields)
    for clone in (pickle.loads(pickle.dumps(obj)), copy.deepcopy(obj), copy.copy(obj)):
        assert (type(clone), clone, clone._request_id) == (cls, other, obj._request_id)
        assert clone.to_dict() == fields
    assert obj == other and obj != cls() and obj != fields
    is_row = cls is MessageBatchIndividualResponse
    assert obj._request_id == (None if is_row else "req_1")
    assert repr(obj).startswith(f"{cls.__name__}({next(iter(fields))}=")


def test_objects_are_dataclasses_that_a_test_can_make():
    for name in claude_batches.__all__:
        cls = getattr(claude_batches, name)
        is_record = isinstance(cls, type) and hasattr(cls, "to_dict")
        if is_record and name not in ("Page", "OpenObject", "OtherContentBlock"):
            assert dataclasses.is_dataclass(cls), name
            assert {getattr(cls(), one.name) for one in dataclasses.fields(cls)} == {
                None
            }
    made = MessageBatch(id="b", processing_status="ended")
    assert (made.id, made.archived_at, made._request_id) == ("b", None, None)
    assert "archived_at" in dir(made)
    assert dataclasses.replace(made, id="c").id == "c"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-08-19T14:44:51.493319+00:00", (14, 44, 51, 493319)),
        ("2026-08-19T14:44:51Z", (14, 44, 51)),
        ("2026-08-19T14:44:51", (14, 44, 51)),
        ("2026-08-19t14:44:51.4z", (14, 44, 51, 400000)),
        ("2026-08-19 14:44:51.493Z", (14, 44, 51, 493000)),
        ("2026-08-19T14:44:51.493319999Z", (14, 44, 51, 493319)),
        ("2026-08-19T14:44:51.493-02:30", (17, 14, 51, 493000)),
        # What is no time stays what it is.
        ("2026-13-19T14:44:51Z", None),
        ("2026-08-19", None),
        ("2026-08-19T14:44:51Z\n", None),
        ("", None),
        (5, None),
        ([], None),
    ],
)
def test_times_are_aware_datetimes_in_every_form_of_the_wire(text, moment):
    batch = taken(MessageBatch, {"id": "b", "created_at": text, "archived_at": text})
    expected = text if moment is None else datetime(2026, 8, 19, *moment, tzinfo=UTC)
    assert batch.created_at == batch.archived_at == expected


ODD_FIELDS = [
    {"request_counts": "many", "created_at": {}},
    {"request_counts": {"succeeded": "two", "errored": -1, "more": {}}},
    dict.fromkeys(
        ("to_dict", "__class__", "__dict__", "_headers", "_nested", "type"), 1
    ),
    {"result": 5},
    {"result": {"type": ["succeeded"]}},
    {"result": {"type": "succeeded", "message": [{}, 1]}},
    {"result": {"type": "succeeded", "message": {"content": {"type": 1}, "usage": []}}},
    {"result": {"type": "succeeded", "message": {"content": [None, "x", [{}]]}}},
    {"result": {"type": "errored", "error": {"error": "text"}}},
]


@pytest.mark.parametrize("fields", ODD_FIELDS, ids=range(len(ODD_FIELDS)))
def test_fields_of_any_form_pass_through(fields):
    is_row = "result" in fields
    cls = MessageBatchIndividualResponse if is_row else MessageBatch
    fields = {"custom_id": "a", "id": "b", **fields}
    obj = taken(cls, fields)
    assert json.loads(claude_batches._encode_json(obj)) == fields
    assert type(obj).to_dict(obj) == fields and repr(obj)


def test_types_of_requests_are_constructors_of_dicts():
    params = claude_batches.MessageCreateParamsNonStreaming(**HELLO)
    request = claude_batches.Request(custom_id="a", params=params)
    assert request == request_of("a") and type(request) is dict


# ---- Habits of SDK programs ----------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_every_call_takes_betas_and_extra_headers_win_over_them(name):
    call = CALLS[name]
    options = {"default_headers": {"anthropic-beta": "default"}}
    for extra, expected in (({}, "a,b"), ({"Anthropic-Beta": "own"}, "own")):

        def run(client, extra=extra):
            call.run(client.beta, "b1", betas=["a", "b"], extra_headers=extra)

        requests = sent(run, *call.bodies, **options)
        assert requests[-1].sent["anthropic-beta"] == expected


def test_betas_are_a_list_of_names():
    client, opener = client_through()
    for betas in ("output-300k", iter(["output-300k"])):
        error = failure_of(client.models.list, betas=betas)
        assert isinstance(error, ValueError) and not opener.requests


def test_the_client_is_its_own_beta_and_copy_is_with_options():
    client, _ = client_through(page_json("b1"))
    assert [one.id for one in client.beta.messages.batches.list()] == ["b1"]
    assert client.copy(timeout=3).timeout == 3
    # A mock with spec=Anthropic has them, too.
    assert {"messages", "models"} <= set(dir(Anthropic))


def test_an_error_has_the_response_that_sdk_programs_ask_for():
    client, _ = client_through((429, api_error(), {"Retry-After": "7"}), max_retries=0)
    error = failure_of(client.models.list)
    assert error.response.status_code == 429
    headers = error.response.headers
    assert headers["retry-after"] == headers.get("Retry-After") == "7"


@pytest.mark.parametrize("read_timeout", [3, None])
def test_a_timeout_object_counts_as_its_read(read_timeout):
    timeout = types.SimpleNamespace(read=read_timeout, connect=1)
    (request,) = sent(lambda c: c.models.list(timeout=timeout), page_json())
    assert request.seconds == read_timeout
    client, _ = client_through(timeout=timeout)
    assert client.timeout == read_timeout
    bad = types.SimpleNamespace(read=-1)
    assert isinstance(failure_of(client.models.list, timeout=bad), ValueError)


@pytest.mark.parametrize("value", [None, "7"])
def test_the_callers_retry_count_wins(value):
    client, opener = client_through((500, b""), (500, b""), page_json())
    client.models.list(extra_headers={"X-Stainless-Retry-Count": value})
    found = [one.sent.get("x-stainless-retry-count") for one in opener.requests]
    assert found == [value] * 3


def test_the_caller_does_not_choose_the_headers_of_the_connection():
    framing = {"Host": "evil.test", "content-length": "1", "Transfer-Encoding": "x"}
    client, opener = client_through(ENDED, default_headers=framing)
    client.messages.batches.create(requests=requests_of("a"), extra_headers=framing)
    (request,) = opener.requests
    assert request.sent["content-length"] == str(len(request.wire[3]))
    assert not {"host", "transfer-encoding"} & set(request.sent)


@pytest.mark.parametrize(
    ("value", "query"),
    [
        (DAY, "q=2026-01-02T03%3A04%3A05%2B00%3A00"),
        (DAY.date(), "q=2026-01-02"),
        ((one for one in ["x", "y"]), "q%5B%5D=x&q%5B%5D=y"),
        (map(str, [1, 2]), "q%5B%5D=1&q%5B%5D=2"),
    ],
    ids=["time", "day", "generator", "map"],
)
def test_times_and_iterables_in_a_query(value, query):
    (request,) = sent(lambda c: c.models.list(extra_query={"q": value}), page_json())
    assert request.wire[2] == query


def test_an_iterator_in_the_query_of_a_list_holds_for_all_pages():
    pages = page_json("1", more=True), page_json("2")
    lifecycle = (one for one in ["active"])
    requests = sent(lambda c: list(c.models.list(lifecycle=lifecycle)), *pages)
    assert all("lifecycle%5B%5D=active" in one.wire[2] for one in requests)
    assert len(requests) == 2


def test_a_field_of_a_page_hides_no_method():
    names = ("iter_pages", "has_next_page", "get_next_page", "next_page_info")
    names += ("_queries", "_fetch", "__class__", "_request_id", "to_dict")
    first = page_json("1", more=True, **dict.fromkeys(names, 1))
    client, _ = client_through(first, page_json("2"))
    page = client.messages.batches.list()
    assert [one.id for one in page] == ["1", "2"]
    assert page._request_id == "req_1"


# ---- A response is what was asked for ------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {**api_error("the words"), "id": "b", "input_tokens": 1},
        {},
        {"id": "", "input_tokens": "3"},
    ],
    ids=["error", "nothing", "odd"],
)
@pytest.mark.parametrize("name, place", REQUESTS_OF_CALLS)
def test_a_2xx_that_is_not_what_was_asked_for_is_an_error_that_quotes_it(
    name, place, body
):
    call = CALLS[name]
    if call.names[place] == "results":
        return
    bodies = [*call.bodies[:place], *[body] * 9]
    client, _ = client_through(*bodies)
    error = failure_of(call.run, client, "b1")
    is_create = name == "create"
    assert type(error) is (
        BatchMayExistError if is_create else APIResponseValidationError
    )
    quoted = json.dumps(body)[1:-1]
    assert quoted in str(error)


@pytest.mark.parametrize("packing", [None, "gzip"])
def test_a_response_that_is_too_long_is_an_error(monkeypatch, packing):
    monkeypatch.setattr(claude_batches, "MAX_RESPONSE_BYTES", 100_000)
    body = b'{"id": "b", "more": "' + b"x" * 1_000_000 + b'"}'
    response = Response(body=gzip.compress(body) if packing else body)
    if packing:
        response.headers["Content-Encoding"] = packing
    client, _ = client_through(response, max_retries=0)
    error = failure_of(client.messages.batches.retrieve, "b")
    assert type(error) is APIConnectionError and "100,000 bytes" in str(error)


@pytest.mark.parametrize(
    "more",
    [
        {"type": "error"},
        {"error": {}},
        {"data": [{}]},
        {"data": [{"id": []}]},
        {"data": [{"id": "a", "type": "error"}]},
    ],
    ids=itertools.count(),
)
def test_a_list_that_is_an_error_is_no_empty_list(more):
    body = {**page_json(), **more}
    client, _ = client_through(
        ConnectionResetError(), (200, body, {"Date": email.utils.formatdate()})
    )
    error = failure_of(client.messages.batches.create, requests=requests_of("a"))
    assert type(error) is BatchMayExistError and error.candidates is None


def test_what_is_nested_too_deep_stays_as_it_came():
    # Python 3.13 reads what is nested deeper than functions may call each other.
    depth = 1500 if sys.version_info >= (3, 13) else 600
    deep = '{"a":' * depth + "1" + "}" * depth
    client, _ = client_through(b'{"id": "m", "capabilities": %b}' % deep.encode())
    assert client.models.retrieve("m").id == "m"


def test_an_encoding_that_nobody_asked_for_is_named():
    response = (200, zlib.compress(b"{}"), {"Content-Encoding": "deflate"})
    client, _ = client_through(response, max_retries=0)
    assert "deflate" in str(failure_of(client.messages.batches.retrieve, "b"))


class Trickle(Response):
    """A response of which each byte takes a second of the clock."""

    def __init__(self, clock):
        super().__init__(body=b" " * 1000)
        self._clock = clock

    def read1(self, size):
        self._clock.pass_by(1)
        return super().read(1)


def test_a_body_that_trickles_ends_at_the_timeout_of_wait_and_of_the_search(clock):
    client, _ = client_through(*[lambda _: Trickle(clock)] * 9)
    started = clock.now
    error = failure_of(client.messages.batches.wait, "b", timeout=7)
    assert type(error) is WaitTimeoutError
    assert 7 <= clock.now - started <= 9
    client, _ = client_through(ConnectionResetError(), lambda _: Trickle(clock))
    started = clock.now
    error = failure_of(client.messages.batches.create, requests=requests_of("a"))
    assert type(error) is BatchMayExistError and error.candidates is None
    assert 30 <= clock.now - started <= 32


def test_a_body_that_stops_ends_at_the_timeout_of_wait(serve, monkeypatch):
    monkeypatch.setattr(claude_batches, "time", time)
    stalled = Fault(wire(body=ENDED), cut=-5, end="stall", work=False)
    server = serve(retrieve=itertools.repeat(stalled))
    started = time.monotonic()
    error = failure_of(client_of(server).messages.batches.wait, "b", timeout=0.2)
    assert type(error) is WaitTimeoutError
    assert time.monotonic() - started < 3


# ---- Replicas that lag behind --------------------------------------------------------

NOT_FOUND = (404, api_error(error_type="not_found_error"), {"x-should-retry": "false"})
RUNNING = batch_json(status="in_progress")


@pytest.mark.parametrize("running", [0, 5])
def test_wait_ignores_404s_until_30_seconds_after_the_first_one(clock, running):
    wait = client_through(*[RUNNING] * running, NOT_FOUND, NOT_FOUND, ENDED)[0]
    assert wait.messages.batches.wait("b").id == ENDED["id"]
    client, opener = client_through(*[RUNNING] * running, *[NOT_FOUND] * 99)
    started = clock.now
    error = failure_of(client.messages.batches.wait, "b")
    assert type(error) is NotFoundError
    assert 30 <= clock.now - started - 10 * running <= 36
    assert 6 <= len(opener.requests) - running <= 20


def test_a_wait_for_a_batch_that_is_not_found_ends_at_its_timeout(clock):
    client, _ = client_through(*[NOT_FOUND] * 9)
    started = clock.now
    error = failure_of(client.messages.batches.wait, "b", timeout=1)
    assert type(error) is WaitTimeoutError and clock.now - started < 2


def test_a_404_among_good_polls_is_ignored_each_time(clock):
    for other in (RUNNING, (503, b"")):
        client, _ = client_through(*[other, NOT_FOUND] * 9, ENDED)
        wait = client.messages.batches.wait
        assert wait("b", poll_interval=35).id == ENDED["id"]


@pytest.mark.parametrize("place", ["the batch", "the results", "in the middle"])
def test_results_ignore_404s_for_30_seconds(clock, place):
    # The 404s leave the ordinary retries as they are.
    half, odd = ROWS[:-20], [NOT_FOUND, NOT_FOUND, ConnectionResetError()]
    bodies = {
        "the batch": ([], [ENDED, ROWS]),
        "the results": ([ENDED], [ROWS]),
        "in the middle": ([ENDED, half], [ROWS]),
    }
    before, after = bodies[place]
    client, _ = client_through(*before, *odd, *after)
    rows_there = list(client.messages.batches.results("b"))
    assert [row.custom_id for row in rows_there] == ["a", "b"]
    client, _ = client_through(*before, *[NOT_FOUND] * 99)
    started = clock.now
    error = failure_of(lambda: list(client.messages.batches.results("b")))
    is_cut = place == "in the middle"
    assert type(error) is (IncompleteResultsError if is_cut else NotFoundError)
    assert 29 < clock.now - started <= 40


@pytest.mark.parametrize(
    "more", [{"total": 3}, {"total": "3", "x": None}, {"errored": 1.0}]
)
def test_only_the_five_declared_counts_count(more):
    counts = {"request_counts": {"succeeded": 1, "errored": 1, **more}}
    client, _ = client_through({**ENDED, **counts}, ROWS)
    assert len(list(client.messages.batches.results("b"))) == 2
    found = page_json("x")
    found["data"] = [{**batch_json("x"), **counts}]
    lost = ConnectionResetError()
    client, _ = client_through(lost, (200, found, {"Date": email.utils.formatdate()}))
    error = failure_of(client.messages.batches.create, requests=requests_of("a", "b"))
    assert [batch.id for batch in error.candidates] == ["x"]


def test_a_poll_waits_as_the_response_asks_or_ten_seconds(clock):
    asked = ("20", 20), ("0.1", 1), ("99999", 60), ("", 10)
    for header, seconds in asked:
        client, _ = client_through((200, RUNNING, {"Retry-After": header}), ENDED)
        clock.sleeps.clear()
        client.messages.batches.wait("b")
        assert clock.sleeps == [seconds]


# ---- Transport -----------------------------------------------------------------------


def test_a_key_in_the_path_of_results_is_masked():
    url = f"{BASE}/results/{KEY}"
    client, _ = client_through({**ENDED, "results_url": url}, (403, api_error()))
    assert "***" in str(failure_of(client.messages.batches.results, "b"))


@pytest.mark.parametrize(
    ("variables", "is_through"),
    [
        ({"ALL_PROXY": True}, True),
        ({"all_proxy": True}, True),
        ({"ALL_PROXY": True, "NO_PROXY": "api.test"}, False),
        ({"ALL_PROXY": "http://other.test:1", "HTTP_PROXY": True}, True),
    ],
    ids=["upper", "lower", "no proxy", "other one"],
)
def test_all_proxy_is_used_where_no_other_proxy_is_set(
    serve, monkeypatch, variables, is_through
):
    proxy = serve()
    proxy.faults[None] = itertools.repeat(reply(body=page_json()))
    for name, value in variables.items():
        monkeypatch.setenv(name, proxy.url if value is True else value)
    options = {"api_key": KEY, "base_url": "http://api.test", "max_retries": 0}
    # The name of the host is only resolved if no proxy is used.
    monkeypatch.setattr(socket, "getaddrinfo", no_host_but("127.0.0.1"))
    client = Anthropic(**options)
    if is_through:
        assert client.models.list().data == []
    else:
        failure_of(client.models.list)
    assert len(proxy.received) == is_through


def no_host_but(name, resolve=socket.getaddrinfo):
    def getaddrinfo(host, *args, **options):
        if host != name:
            raise socket.gaierror(f"no {host}")
        return resolve(host, *args, **options)

    return getaddrinfo


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "SOCKS4"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_socks_proxy_is_refused_in_words(monkeypatch, variable, scheme):
    monkeypatch.setenv(variable, f"{scheme}://user:word@proxy.test:1080")
    error = failure_of(Anthropic(api_key=KEY).models.list)
    assert "SOCKS" in str(error) and "proxy.test:1080" in str(error)
    assert "word" not in shown(error)


def test_a_proxy_that_is_no_url_ends_a_wait(clock, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:80/path")
    batches = Anthropic(api_key=KEY).messages.batches
    assert "80/path" in str(failure_of(batches.wait, "b", timeout=99))


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="needs TCP_KEEPIDLE")
def test_the_system_probes_a_connection_that_is_silent_for_a_minute(serve, monkeypatch):
    found = []
    request = http.client.HTTPConnection.request

    def note(self, *args, **kwargs):
        request(self, *args, **kwargs)
        found.append(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        found.append(self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))

    monkeypatch.setattr(http.client.HTTPConnection, "request", note)
    client_of(serve()).models.list()
    assert found[0] and found[1] == 60


@pytest.mark.parametrize(
    ("code", "variables", "words"),
    [
        (62, {}, "base_url"),
        (89, {}, "VERIFY_X509_STRICT"),
        (20, {"SSL_CERT_FILE": "no/such/file"}, "no/such/file"),
        (20, {}, "SSL_CERT_FILE"),
    ],
    ids=["host name", "strict", "no file", "own CA"],
)
def test_a_certificate_that_fails_says_what_to_do(monkeypatch, code, variables, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    paths = types.SimpleNamespace(cafile="/some/file", capath=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    cause = ssl.SSLCertVerificationError("certificate verify failed")
    cause.verify_code, cause.verify_message = code, "it fails"
    client, opener = client_through(urllib.error.URLError(cause))
    error = failure_of(client.models.list)
    assert words in str(error) and len(opener.requests) == 1


@pytest.mark.parametrize(
    ("platform", "words"), [("linux", "ca-certificates"), ("darwin", "Install Cert")]
)
def test_a_machine_without_ca_certificates_is_told(monkeypatch, platform, words):
    monkeypatch.setattr(sys, "platform", platform)
    paths = types.SimpleNamespace(cafile=None, capath=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    cause = ssl.SSLCertVerificationError("certificate verify failed")
    cause.verify_code, cause.verify_message = 20, "no issuer"
    client, _ = client_through(urllib.error.URLError(cause))
    assert words in str(failure_of(client.models.list))


# ---- Waiting is told -----------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("create", "r.jsonl"),
        ("retrieve", "b"),
        ("list",),
        ("results", "b"),
        ("cancel", "b"),
        ("delete", "b"),
        ("models",),
        ("count-tokens", "r.jsonl"),
        ("wait", "b"),
    ],
    ids=" ".join,
)
def test_a_command_tells_what_failed_and_until_when_it_waits(cli, serve, command):
    faults = {
        name: [refusal(429, {"retry-after": "30"})] for _, _, name in Server.ROUTES
    }
    server = serve(**faults)
    write("r.jsonl", request_of("a"))
    with pytest.MonkeyPatch.context() as patch:
        lead_to(server, patch)
        arguments = [server.batch_id if one == "b" else one for one in command]
        status, _, err = cli(*arguments)
    assert status == 0
    assert re.search(r"waiting until \d\d:\d\d:\d\d: .*429", err)


def test_a_lone_surrogate_in_a_response_hides_no_id(cli, serve, monkeypatch):
    changed = Fault(changes={"more": "\ud800"})
    lead_to(serve(create=[changed]), monkeypatch)
    status, out, _ = cli("create", write("r.jsonl", request_of("a")))
    assert status == 0
    assert json.loads(out)["id"].startswith("msgbatch_") and b"\\ud800" in out


# ---- Broken responses --------------------------------------------------------------


def raw(response, **fault):
    """Return the fault of bytes that are sent instead of the Sandbox's response."""
    return Fault(response, work=False, **fault)


def packed(body):
    """Return a body, JSON or bytes, in gzip."""
    return gzip.compress(body if isinstance(body, bytes) else json.dumps(body).encode())


GZIPPED = {"Content-Encoding": "gzip"}
CHUNKED = {"framing": "close", "headers": {"Transfer-Encoding": "chunked"}}
SPLIT_BOUNDARY = {"Content-Type": "multipart/mixed; boundary*=a; boundary*0=b"}
# Responses that break off, or are none.
TORN = {
    "dropped": raw(b""),
    "reset": raw(b"", end="rst"),
    "cut in its status line": raw(b"HTTP/1.1 20"),
    "cut in its headers": reply(body=ENDED, cut=60),
    "cut in its headers, reset": reply(body=ENDED, cut=60, end="rst"),
    "cut in its body": reply(body=ENDED, cut=-5),
    "cut in a chunk": reply(body=ENDED, framing="chunked", cut=-9),
    "cut between two chunks": reply(body=ENDED, framing="chunked", cut=-5),
    "cut without a length": reply(body=ENDED, framing="close", cut=-5),
    "cut in gzip": reply(body=packed(ENDED)[:-9], headers=GZIPPED),
    "no gzip": reply(body=ENDED, headers=GZIPPED),
    "garbled": raw(b"\x00\xff\x16\x03 what?\r\n\r\n"),
    "of another protocol": raw(b"HTTP/9.9 200 OK\r\n\r\n"),
    "of an endless header": raw(
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000 + b"\r\n\r\n{}"
    ),
    "of too many headers": raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n{}"),
    "of a chunk without size": reply(body=b"oops\r\n", **CHUNKED),
    "of a negative chunk": reply(body=b"-5\r\nhello", **CHUNKED),
    # The email package raises a TypeError for it.
    "of a split boundary": reply(body=ENDED, headers=SPLIT_BOUNDARY),
}
STALLED = {
    "silent": raw(b"", end="stall"),
    "silent in its body": reply(body=ENDED, cut=-5, end="stall"),
}
# 200, but not the API's JSON.
FOREIGN = {
    "200 of html": html(200),
    "200 of nothing": reply(body=b""),
    "200 of a list": reply(body=b"[]"),
    "200 of null": reply(body=b"null"),
    "200 of no UTF-8": reply(body=b'{"id": "\xff"}'),
    "200 of a deep list": reply(body=b"[" * 50_000),
    "200 of deep objects": reply(body=b'{"a":' * 50_000),
    "204": reply(204, b"", framing="close"),
}
DROPPED = TORN["dropped"]


# ---- A batch is made once ----------------------------------------------------------

THREE = requests_of("a", "b", "c")


def create(client, requests=THREE, **options):
    return client.messages.batches.create(requests=requests, **options)


REFUSED, RETRIED, MAY_EXIST = "refused", "retried", "may exist"
FORMS = [
    ("of the API", refusal, {}),
    ("of the API, not to be retried", refusal, {"x-should-retry": "false"}),
    ("of a gateway", html, {}),
    ("of a gateway, to be retried", html, {"x-should-retry": "true"}),
]
# What the status of a response to a create means, in each of the FORMS.
STATUSES = {
    (REFUSED, REFUSED, REFUSED, REFUSED): [
        *(300, 301, 302, 307, 308),
        *(400, 401, 402, 403, 404, 405, 412, 413, 418, 422, 431),
    ],
    (RETRIED, REFUSED, RETRIED, RETRIED): [429],
    (RETRIED, REFUSED, MAY_EXIST, MAY_EXIST): [503, 529],
    # Gateways give up with one of the first six after the API has made the batch.
    (MAY_EXIST, MAY_EXIST, MAY_EXIST, MAY_EXIST): [
        *(303, 408, 409, 425, 460, 499),
        *(500, 501, 502, 504, 599),
    ],
}
HALF = 100_000
# What the server does with a create, and what that means.
CREATES = {
    **{what: (fault, MAY_EXIST) for what, fault in {**TORN, **STALLED}.items()},
    **{what: (fault, MAY_EXIST) for what, fault in FOREIGN.items()},
    "200 without id": (reply(body={"type": "message_batch"}), MAY_EXIST),
    **{
        f"200, id {one!r}": (reply(body={"id": one}), MAY_EXIST)
        for one in (None, "", 5)
    },
    "503 in JSON, but not the API's": (reply(503, {"error": "down"}), MAY_EXIST),
    "503 cut in its headers": (refusal(503, cut=60), MAY_EXIST),
    "503 cut in its body": (refusal(503, cut=-5), MAY_EXIST),
    "503, change_outcome_unknown": (
        reply(503, api_error(details={"error_code": "change_outcome_unknown"})),
        MAY_EXIST,
    ),
    "200 with an error": (reply(body=api_error()), MAY_EXIST),
    "503 of the API, gzip": (reply(503, packed(api_error()), GZIPPED), RETRIED),
    # The server reads a part of the body only.
    "half, dropped": (raw(b"", read=HALF), RETRIED),
    "half, reset": (raw(b"", read=HALF, end="rst"), RETRIED),
    "half, 500 of the API": (refusal(500, read=HALF), RETRIED),
    "half, 502 of a gateway": (html(502, read=HALF), RETRIED),
    "half, 408 of the API": (refusal(408, read=HALF), RETRIED),
    "half, 200 of html": (html(200, read=HALF), RETRIED),
}
for outcomes, statuses in STATUSES.items():
    for (form, make, headers), outcome in zip(FORMS, outcomes):
        for status in statuses:
            CREATES[f"{status} {form}"] = (make(status, headers), outcome)


def creates_that_are(outcome):
    chosen = {
        what: fault for what, (fault, meaning) in CREATES.items() if meaning == outcome
    }
    return pytest.mark.parametrize("fault", chosen.values(), ids=chosen)


def ids_of(server):
    """Return the ids of the batches that exist, the newest first."""
    return [batch.id for batch in server.api.messages.batches.list()]


@creates_that_are(MAY_EXIST)
def test_a_create_whose_response_is_lost_is_not_sent_again(serve, fault):
    server = serve(create=itertools.repeat(fault._replace(work=True)))
    timeout = 0.3 if fault.end == "stall" else 5.0
    error = failure_of(create, client_of(server, timeout=timeout))
    assert len(server.named("create")) == 1
    assert type(error) is BatchMayExistError
    assert isinstance(error.__cause__, APIError)
    assert error.request_count == 3
    [candidate] = error.candidates
    assert ids_of(server) == [candidate.id, server.batch_id]
    assert candidate.id in str(error)


@creates_that_are(REFUSED)
def test_a_refused_create_is_raised_as_itself_and_not_sent_again(serve, fault):
    server = serve(create=itertools.repeat(fault))
    error = failure_of(create, client_of(server))
    assert isinstance(error, APIStatusError)
    assert error.status_code == int(fault.response[9:12])
    assert error.request_id == "req_1"
    # Neither a second create nor a look.
    assert len(server.received) == 1


@creates_that_are(RETRIED)
def test_a_create_that_made_no_batch_is_retried(serve, fault):
    requests = BIG if fault.read else THREE
    server = serve(create=[fault, fault])
    client = client_of(server, timeout=60)
    batch = create(client, requests)
    assert ids_of(server) == [batch.id, server.batch_id]
    assert json.loads(server.received[2].body) == {"requests": requests}

    server.faults["create"] = itertools.repeat(fault)
    error = failure_of(create, client, requests)
    assert not isinstance(error, BatchMayExistError)
    assert fault.read or error.status_code == int(fault.response[9:12])
    assert len(server.received) == len(server.named("create")) == 6


def test_a_create_whose_body_is_not_taken_in_time_is_retried(serve, monkeypatch):
    monkeypatch.setattr(claude_batches, "REFUSAL_TIMEOUT", 0.01)
    server = serve(create=itertools.repeat(raw(b"", read=HALF, end="stall")))
    error = failure_of(create, client_of(server, timeout=0.1), BIG)
    assert type(error) is APITimeoutError
    assert len(server.received) == len(server.named("create")) == 3


def test_a_create_that_reached_nobody_is_retried(serve, clock, monkeypatch):
    server = serve(is_listening=False)
    error = failure_of(create, client_of(server))
    assert type(error) is APIConnectionError
    assert server.url in str(error)
    monkeypatch.setattr(clock, "sleep", lambda seconds: server.listen())
    batch = create(client_of(server))
    assert ids_of(server) == [batch.id, server.batch_id]
    assert len(server.received) == 1


def test_a_create_that_no_proxy_let_through_is_retried_and_shows_no_key(
    serve, monkeypatch
):
    proxy = serve()
    proxy.faults[None] = iter([raw(b"HTTP/1.1 200"), raw(b"what?\r\n\r\n"), html(407)])
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    error = failure_of(create, Anthropic(api_key=KEY, base_url="https://gateway.test"))
    assert type(error) is APIConnectionError
    assert [request.method for request in proxy.received] == ["CONNECT"] * 3
    assert KEY.encode() not in b"".join(request.head for request in proxy.received)


class Upload:
    """An opener for creates; ``steps``: how it takes the body, and what comes then.

    A body is taken by a function of the request; an exception or a Response comes then.
    """

    def __init__(self, *steps):
        self.steps, self.taken = iter(steps), []

    def open(self, request, timeout=None):
        if request.data is None:
            raise ConnectionRefusedError
        take, outcome = next(self.steps)
        self.taken.append(take(request))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def whole(request):
    return b"".join(request.data)


def whole_and_again(request):
    body = whole(request)
    next(iter(request.data))
    return body


def but_for(count):
    """Return a function that takes the body but for so many bytes, or a block more."""

    def take(request):
        size = int(request.get_header("Content-length")) - count
        blocks, taken = iter(request.data), b""
        while len(taken) < size:
            taken += next(blocks)
        return taken

    return take


# How a body is taken, and whether a batch may exist.
TAKES = {
    "a part": (but_for(100), False),
    "all but the last byte": (but_for(1), False),
    # By a signal, say, whose handler raises when the last byte has gone out.
    "the last byte, not the end": (but_for(0), True),
    "the whole": (whole, True),
    "the whole, then a part": (whole_and_again, True),
}
LOST = [
    ConnectionResetError(),
    http.client.RemoteDisconnected(),
    http.client.IncompleteRead(b""),
    ssl.SSLEOFError(),
    urllib.error.URLError(BrokenPipeError()),
    socket.timeout(),
]


@pytest.mark.parametrize(("take", "may_exist"), TAKES.values(), ids=TAKES)
@pytest.mark.parametrize("lost", LOST)
def test_a_batch_may_exist_once_the_last_byte_was_taken_whichever_error_comes(
    monkeypatch, take, may_exist, lost
):
    monkeypatch.setattr(claude_batches, "BLOCK", 10)
    upload = Upload(*[(take, lost)] * 3)
    error = failure_of(create, Anthropic(api_key=KEY, opener=upload))
    assert (type(error) is BatchMayExistError) == may_exist
    assert len(upload.taken) == (1 if may_exist else 3)
    assert len(set(upload.taken)) == 1


def test_an_attempt_that_finds_no_connection_after_a_refused_one_is_retried(clock):
    refused = (whole, Response(429, headers={"Retry-After": "7"}))
    nobody = (lambda request: b"", ConnectionRefusedError())
    upload = Upload(refused, nobody, (whole, Response(200, ENDED)))
    batch = create(Anthropic(api_key=KEY, opener=upload))
    assert batch.id == ENDED["id"]
    assert upload.taken[0] == upload.taken[2]
    assert clock.sleeps[0] == 7


# ---- The look for a batch that may exist -------------------------------------------


def test_a_look_that_finds_nothing_says_that_this_proves_nothing(serve):
    error = failure_of(create, client_of(serve(create=[DROPPED])))
    assert error.candidates == []
    assert "proves nothing" in str(error)


FAILED_LOOKS = [
    DROPPED,
    html(200),
    refusal(401),
    refusal(503),
    reply(302, headers={"Location": "/"}),
    reply(body=page_json(), headers={"Date": None}),
    reply(body=page_json(), headers={"Date": "soon"}),
    reply(body={}),
    reply(body=b"[]"),
    *(reply(body={"data": data}) for data in (0, True, [5])),
]


@pytest.mark.parametrize("fault", FAILED_LOOKS)
def test_a_look_that_fails_leaves_candidates_none_and_is_made_once(serve, fault):
    server = serve(create=[DROPPED], list=itertools.repeat(fault))
    error = failure_of(create, client_of(server))
    assert type(error) is BatchMayExistError
    assert error.candidates is None
    assert error.sent_at is None
    assert len(server.named("list")) == 1


def http_date(seconds):
    return {"Date": email.utils.formatdate(seconds, usegmt=True)}


def test_a_look_that_pages_for_ever_ends_within_thirty_seconds(clock):
    def page(request):
        clock.pass_by(1)
        return 200, page_json(f"b{clock.now}", more=True), http_date(clock.wall)

    client, opener = client_through(ConnectionResetError(), *[page] * 99)
    assert failure_of(create, client, timeout=600).candidates is None
    looks = [request.seconds for request in opener.requests[1:]]
    assert 1 < len(looks) <= 30
    assert [at for at, seconds in enumerate(looks) if seconds > 30 - at] == []


@pytest.mark.parametrize(
    ("monotonic", "wall"),
    [(0, 0), (3600, 3600), (0, 3600), (3600, 0)],
    ids=["at once", "an hour", "an hour asleep", "an hour, the wall clock set back"],
)
def test_candidates_have_the_size_and_were_made_since_the_send(clock, monotonic, wall):
    # By the server's clock, which is some days late.
    sent_at = datetime.fromtimestamp(int(time.time()) - 200_000, UTC)
    date = http_date(sent_at.timestamp() + max(monotonic, wall))

    def lose(request):
        clock.pass_by(monotonic, wall)
        return ConnectionResetError()

    def batch(name, size, seconds):
        created_at = sent_at + timedelta(seconds=seconds)
        return batch_json(name, size, created_at=created_at.isoformat())

    def page(*batches):
        last_id = batches[-1]["id"]
        return 200, {"data": batches, "has_more": True, "last_id": last_id}, date

    first = page({"id": "of_no_size"}, batch("other_size", 4, 0), batch("ours", 3, 0))
    # The list goes on, but nothing behind it can be ours.
    second = page(batch("in_the_slack", 3, -50), batch("before", 3, -70))
    client, _ = client_through(lose, first, second)
    error = failure_of(create, client)
    found = [candidate.id for candidate in error.candidates]
    assert found == ["of_no_size", "ours", "in_the_slack"]
    assert abs(error.sent_at - sent_at) < timedelta(seconds=1)


# ---- A create is flat in memory and checked before a byte leaves -------------------


@pytest.fixture
def spooled(monkeypatch, tmp_path):
    """The temporary files that were made; at the end all must be gone."""
    files, make = [], tempfile.SpooledTemporaryFile

    def spool(*args, **options):
        files.append(make(*args, **options))
        return files[-1]

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", spool)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield files
    assert [file.closed for file in files] == [True]
    assert os.listdir(tmp_path) == []


def test_a_create_is_flat_in_memory_and_goes_out_in_blocks_of_known_length(spooled):
    def sizes(request):
        return [int(request.get_header("Content-length")), *map(len, request.data)]

    rows = (request_of(f"r{number}", text="x" * 4000) for number in range(5000))
    # The retry rewinds.
    upload = Upload((sizes, Response(429)), (sizes, Response(200, ENDED)))
    tracemalloc.start()
    try:
        create(Anthropic(api_key=KEY, opener=upload), rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    first, second = upload.taken
    assert first == second
    length, *blocks = first
    assert sum(blocks) == length > 20_000_000
    assert peak < 10_000_000
    assert max(blocks) <= 256 * 1024
    # The last block goes out in two, so that its last byte is known to have gone.
    assert min(blocks[:-2]) >= 64 * 1024


@pytest.mark.parametrize(
    "outcome",
    [(400,), ConnectionResetError(), KeyboardInterrupt(), MemoryError()],
    ids=["refused", "lost", "interrupted", "no memory"],
)
def test_the_temporary_file_is_gone_after_an_error(spooled, monkeypatch, outcome):
    monkeypatch.setattr(claude_batches, "SPOOL_BYTES", 10)
    # The second exception is for the look.
    client, _ = client_through(outcome, ConnectionResetError())
    with pytest.raises((AnthropicError, KeyboardInterrupt, MemoryError)):
        create(client)


OWN_ERRORS = [
    KeyError("mine"),
    OSError("mine"),
    ValueError("mine"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", OWN_ERRORS)
def test_what_the_callers_own_iterator_raises_arrives_unchanged(spooled, error):
    def rows():
        yield from THREE
        raise error

    client, opener = client_through()
    with pytest.raises(type(error)) as caught:
        create(client, rows())
    assert caught.value is error
    assert opener.requests == []


def failure_unsent(requests, *parts):
    """Return the error of a create that sends nothing; it names the parts."""
    client, opener = client_through()
    error = failure_of(create, client, requests)
    assert opener.requests == []
    assert [part for part in parts if part not in str(error)] == []
    return error


GOOD = {"custom_id": "good", "params": {}}


def holding(value):
    return {"custom_id": "bad", "params": {"text": value}}


# What is wrong with a request, and a word of the rule.
RULES = [
    ("text", "object"),
    ({"params": {}}, "custom_id"),
    # The last but one is of another alphabet.
    *(
        ({"custom_id": custom_id, "params": {}}, "64")
        for custom_id in ("", "x" * 65, "a b", "ab\n", "é٣", 17)
    ),
    (GOOD, "unique"),
    ({"custom_id": "bad"}, "params"),
    ({"custom_id": "bad", "params": []}, "params"),
    ({**GOOD, "custom_id": "bad", "method": "POST"}, "method"),
    (holding(float("nan")), "JSON"),
    (holding(float("inf")), "JSON"),
    (holding("\ud83d"), "surrogate"),
    (holding({"\ud83d": 1}), "surrogate"),
    (holding(b"x"), "bytes"),
    (holding(io.StringIO("a\nb\n")), "StringIO"),
]


@pytest.mark.parametrize(("wrong", "rule"), RULES)
def test_a_wrong_request_is_named_with_index_id_and_rule_and_nothing_is_sent(
    wrong, rule
):
    is_object = isinstance(wrong, dict)
    custom_id = str(wrong.get("custom_id", "")).strip() if is_object else ""
    error = failure_unsent(iter([GOOD, wrong, GOOD]), "requests[1]", custom_id, rule)
    assert type(error) is InvalidRequestsError
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("requests", [[], iter(()), None, 5, GOOD, "text"], ids=repr)
def test_what_holds_no_request_is_refused_and_nothing_is_sent(requests):
    assert type(failure_unsent(requests)) is InvalidRequestsError


@pytest.mark.parametrize("extra_body", [None, {"note": "é"}], ids=["plain", "extra"])
def test_a_batch_may_be_just_as_large_as_the_limits_and_no_larger(
    monkeypatch, extra_body
):
    requests = [request_of(one, text="é\u2028") for one in "abcd"]
    client, opener = client_through(ENDED, ENDED)
    create(client, requests, extra_body=extra_body)
    size = len(opener.requests[0].wire[3])
    limits = [("MAX_BATCH_BYTES", size, "bytes"), ("MAX_BATCH_REQUESTS", 4, "requests")]
    for limit, most, unit in limits:
        monkeypatch.setattr(claude_batches, limit, most - 1)
        error = failure_of(create, client, requests, extra_body=extra_body)
        assert "requests[3] (custom_id 'd')" in str(error)
        assert f"{most - 1:,} {unit}" in str(error)
        monkeypatch.setattr(claude_batches, limit, most)
    create(client, requests, extra_body=extra_body)


def test_the_limits_are_the_apis():
    assert claude_batches.MAX_BATCH_REQUESTS == 100_000
    assert claude_batches.MAX_BATCH_BYTES == 256_000_000


def test_u2028_nul_huge_integers_and_pairs_of_surrogates_go_through():
    params = {"text": "a\u2028b\0c😀\x7f", "seed": [2**200, -(2**64), 1e300]}
    requests = [{"custom_id": "x" * 64, "params": params}]
    [request] = sent(lambda client: create(client, requests), ENDED)
    assert json.loads(request.wire[3]) == {"requests": requests}


class FullFile:
    """A temporary file on a disk without room; its close() flushes."""

    def fail(self, *args):
        raise OSError(28, "No space left on device")

    write = close = fail


def test_a_disk_that_is_full_is_an_error_naming_folder_and_tmpdir(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda **_: FullFile())
    failure_unsent(THREE, str(tmp_path), "TMPDIR", "No space")


def test_a_missing_temporary_folder_is_an_error_naming_folder_and_tmpdir(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "missing")
    monkeypatch.setattr(claude_batches, "SPOOL_BYTES", 10)
    failure_unsent(THREE, "missing", "TMPDIR")


def test_a_create_takes_no_option_that_it_does_not_have():
    client, opener = client_through()
    # It is the job's own.
    with pytest.raises(TypeError, match="before_last_block"):
        create(client, before_last_block=print)
    assert opener.requests == []


# ---- The refusal reaches the caller ------------------------------------------------

CERTIFICATE = """\
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
PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg6cKoKI3i6sl8oIgN
HcYst+Z+HVReTYJkntw2K9rBPXShRANCAATDpZc3EyZXTeZGdiyHbyxpfn3/ee1y
Zkj0Eau4UFuXa2Enz5P3VbgNzwuV0H4fotQWxDkyv2s9rj4/OzjNbkMF
-----END PRIVATE KEY-----
"""


@pytest.fixture
def tls(tmp_path):
    """Options of a server that speaks TLS.

    Its certificate, localhost.pem, is self-signed, for localhost and 127.0.0.1, and
    valid until 2100.
    """
    path = tmp_path / "localhost.pem"
    path.write_text(PRIVATE_KEY + CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(path))
    return {"tls": context}


@pytest.fixture(params=[False, True], ids=["tcp", "tls"])
def tcp_or_tls(request, tls):
    return tls if request.param else {}


def trusting(server, **options):
    """Return a client that trusts the certificate."""
    context = ssl.create_default_context(cadata=CERTIFICATE)
    return client_of(server, ssl_context=context, **options)


def test_with_options_may_change_what_is_trusted(serve, tls):
    server = serve(**tls)
    context = trusting(server).ssl_context
    client = client_of(server, max_retries=0)
    failure_of(client.models.list)
    assert client.with_options(ssl_context=context).models.list().data


@pytest.mark.parametrize("form", [refusal, html])
@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationError), (413, ContentTooLargeError)]
)
def test_a_refusal_during_the_upload_reaches_the_caller(
    serve, tcp_or_tls, form, status, kind
):
    server = serve(create=[form(status, read=5000)] * 3, **tcp_or_tls)
    error = failure_of(create, trusting(server), BIG)
    if sys.platform == "linux":
        assert type(error) is kind
        assert error.body
        assert server.connections == 1
    else:
        # Other systems may have thrown the response away.
        assert isinstance(error, (kind, APIConnectionError))


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_a_server_that_closes_during_the_upload_is_explained(serve, tcp_or_tls, end):
    server = serve(create=[raw(b"", read=5000, end=end)] * 3, **tcp_or_tls)
    error = failure_of(create, trusting(server), BIG)
    assert type(error) is APIConnectionError
    assert server.connections == 3
    assert "closed during the upload" in str(error)
    assert "key" in str(error)


def test_an_untrusted_certificate_is_final_and_the_message_says_what_to_set(
    serve, tls, monkeypatch
):
    server = serve(**tls)
    for number, call in enumerate(CALLS.values(), 1):
        error = failure_of(call.run, client_of(server), server.batch_id)
        assert type(error) is APIConnectionError
        assert "SSL_CERT_FILE" in str(error)
        assert server.connections == number
    assert create(trusting(server)).id
    monkeypatch.setenv("SSL_CERT_FILE", "localhost.pem")
    assert create(client_of(server)).id


def test_a_key_goes_to_no_server_with_a_certificate_for_another_name(serve, tls):
    server = serve(**tls)
    client = trusting(server, base_url=server.url.replace("127.0.0.1", "127.0.0.2"))
    assert type(failure_of(client.models.retrieve, "m")) is APIConnectionError
    assert server.received == []


@pytest.mark.parametrize(
    ("timeout", "connecting"), [(600, 10), (3, 3), (None, 10)], ids=repr
)
def test_connecting_has_its_own_timeout(serve, monkeypatch, timeout, connecting):
    made, connect = [], socket.create_connection

    def create_connection(address, timeout=None, *args):
        connection = connect(address, timeout, *args)
        made.append((timeout, connection))
        return connection

    server = serve(**{"models.retrieve": [reply(body=MODEL)]})
    with monkeypatch.context() as patch:
        patch.setattr(socket, "create_connection", create_connection)
        client_of(server, timeout=timeout).models.retrieve("m")
    [(first_timeout, connection)] = made
    assert (first_timeout, connection.gettimeout()) == (connecting, timeout)


def test_a_tls_handshake_without_response_ends_at_the_timeout_of_connecting(
    serve, monkeypatch
):
    monkeypatch.setattr(claude_batches, "CONNECT_TIMEOUT", 0.05)
    server = serve()
    url = server.url.replace("http", "https")
    error = failure_of(create, client_of(server, base_url=url, timeout=600))
    assert type(error) is APITimeoutError
    assert server.connections == 3


def test_interim_responses_are_passed_over(serve):
    early = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 199 New\r\n\r\n"
    faults = [raw(early + wire(body=ENDED)), raw(early + wire(404))]
    client = client_of(serve(create=faults))
    batch = create(client)
    assert (batch.id, batch._request_id) == (ENDED["id"], "req_1")
    assert type(failure_of(create, client)) is NotFoundError


# ---- Retries of the other calls ----------------------------------------------------

# wait() has a rule of its own.
OTHER_REQUESTS = [
    (name, place) for name, place in REQUESTS_OF_CALLS if name not in ("create", "wait")
]


def well(body):
    return reply(body=body)


def faults_of(name, place=0, broken=(), good=well):
    """Return the faults of a call: one request gets broken responses before good ones."""
    call, faults = CALLS[name], {}
    for request, body in zip(reversed(call.names), reversed(call.bodies)):
        faults[request] = itertools.repeat(good(body))
    faults[call.names[place]] = itertools.chain(broken, faults[call.names[place]])
    return faults


@pytest.mark.parametrize(("name", "place"), OTHER_REQUESTS)
def test_the_other_calls_are_retried_after_torn_and_foreign_responses(
    serve, name, place
):
    call, request = CALLS[name], CALLS[name].names[place]
    server = serve()
    client = client_of(server)
    server.faults = faults_of(name)
    value = call.run(client, "msgbatch_1")
    # Rows are no JSON object of their own.
    foreign = {} if request == "results" else FOREIGN
    for what, fault in {**TORN, **foreign, "503": html(503)}.items():
        print(what)
        server.faults = faults_of(name, place, [fault] * 5)
        server.received.clear()
        assert isinstance(failure_of(call.run, client, "msgbatch_1"), APIError)
        assert len(server.named(request)) == 3
        # Two are left.
        assert call.run(client, "msgbatch_1") == value
        assert len(server.named(request)) == 6


def test_a_timeout_is_retried_and_told_as_one(serve):
    server = serve(**{"models.retrieve": [STALLED["silent"]] * 3})
    error = failure_of(client_of(server, timeout=0.05).models.retrieve, "m")
    assert type(error) is APITimeoutError
    assert len(server.received) == 3


# ---- Nothing but an AnthropicError comes out ---------------------------------------

ERROR_STATUSES = (400, 401, 402, 403, 404, 408, 413, 418, 422, 429, 500, 503, 529, 599)
ODD_ERROR = {"type": [], "error": {"type": {}, "message": [], "details": "x"}}
FAILURES = {
    **TORN,
    **FOREIGN,
    **STALLED,
    **{
        f"{form.__name__} {status}": form(status)
        for form in (refusal, html)
        for status in (300, 304, *ERROR_STATUSES)
    },
    "101": reply(101, b""),
    "401 torn": refusal(401, cut=-5),
    "500 in a deep list": reply(500, b"[" * 50_000),
    "400 with an odd body": reply(400, {"error": ["x"], "request_id": 5}),
    "400 of binary": reply(400, bytes(range(256))),
    "400 of no gzip": reply(400, b"x", GZIPPED),
    "400 of a number": reply(400, b"1" * 10_000),
    "400 of odd types": reply(400, ODD_ERROR),
}


@pytest.mark.parametrize(("name", "place"), REQUESTS_OF_CALLS)
def test_every_call_turns_every_failure_into_an_anthropic_error(serve, name, place):
    server = serve()
    client = client_of(server, timeout=0.1, max_retries=1)
    for what, fault in FAILURES.items():
        print(what)
        server.faults = faults_of(name, place, itertools.repeat(fault))
        failure_of(CALLS[name].run, client, "msgbatch_1")
    nobody = serve(is_listening=False)
    failure_of(CALLS[name].run, client_of(nobody), "msgbatch_1")


# JSON of the right kind with fields of the wrong one.
ODD_URLS = (5, "//", "x y", "file:///x", "é", "http://[", "\ud800")
ODD_JSON = [
    {},
    {"request_counts": {"succeeded": "two", "errored": -1, "more": {}}},
    {"request_counts": "many"},
    {"request_counts": [1]},
    *({"results_url": url} for url in ODD_URLS),
    {"expires_at": 5, "ended_at": [], "created_at": 5},
    {"created_at": "yesterday"},
    {"created_at": "9999-12-31T23:59:59-23:59"},
    {"processing_status": []},
    {"id": 5},
    {"to_dict": 1, "__class__": 2},
    {"data": "x"},
    {"data": [1]},
    {"data": [{}]},
    {"data": [{}], "has_more": True, "last_id": {"a": []}},
    {"data": [{}], "has_more": True, "last_id": "m"},
    {"custom_id": "a"},
    {"custom_id": "a", "result": [1]},
]


@pytest.mark.parametrize("odd", ODD_JSON)
def test_odd_fields_are_no_other_exception(odd):
    for name, place in REQUESTS_OF_CALLS:
        print(name, place)
        bodies = CALLS[name].bodies
        # Where there are fields, they are odd ones of a batch.
        is_batch = odd and bodies[place] is ENDED
        response = {**ENDED, **odd} if is_batch else odd
        client, _ = client_through(*bodies[:place], *[response] * 99, max_retries=0)
        with contextlib.suppress(AnthropicError):
            CALLS[name].run(client, "msgbatch_1")
    page = {"data": [{**ENDED, **odd}], "has_more": False}
    look = (200, page, http_date(None))
    client, _ = client_through(ConnectionResetError(), look)
    assert type(failure_of(create, client)) is BatchMayExistError


ODD_DATES = [
    "Mon, 02 Jan 99999 00:00:00 GMT",
    "Mon, 02 Jan 99999999999999999999 00:00:00 GMT",
    "Mon, 99 Foo 2020 99:99:99 GMT",
    "Mon, 01 Jan 2020 00:00:00 +99999999999999",
    "Mon, 01 Jan 0100 00:00:00 GMT",
    "Mon, 01 0001",
    pytest.param("x" * 1000, id="1000 times x"),
    "0",
    ",",
]


@pytest.mark.parametrize("date", ODD_DATES)
def test_an_odd_date_is_no_other_exception(date):
    for name in ("models.retrieve", "wait"):
        client, _ = client_through(*[(503, b"", {"retry-after": date})] * 99)
        failure_of(CALLS[name].run, client, "msgbatch_1")
    look = (200, page_json("b"), {"Date": date})
    client, _ = client_through(ConnectionResetError(), look)
    assert type(failure_of(create, client)) is BatchMayExistError


WELL_FORMED = {
    "chunked": lambda body: reply(body=body, framing="chunked"),
    "delimited by the close": lambda body: reply(body=body, framing="close"),
    "201": lambda body: reply(201, body),
    "gzip": lambda body: reply(body=packed(body), headers=GZIPPED),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_reads_every_form_of_a_right_response(serve, name):
    server = serve()
    server.faults = faults_of(name)
    value = CALLS[name].run(client_of(server), "msgbatch_1")
    for what, form in WELL_FORMED.items():
        print(what)
        server.faults = faults_of(name, good=form)
        assert CALLS[name].run(client_of(server), "msgbatch_1") == value


# ---- Results are whole, or an error says how many are missing ----------------------

ROW_IDS = [f"row_{number}" for number in range(7)]
LINES = rows_json(ROW_IDS)
ROW_ENDS = list(itertools.accumulate(map(len, LINES.splitlines(keepends=True))))
PACKED = gzip.compress(LINES)
PACKINGS = [(bytes, {}), (gzip.compress, GZIPPED)]
WHOLE = reply(body=LINES)
FRAMINGS, ENDS = ("chunked", "length", "close"), ("fin", "rst", "clean")


def part(payload, at, framing="chunked", end="fin"):
    """Return the fault of results that end after ``at`` bytes of the payload.

    ``end``: as that of a Fault, or clean: as if that were all.
    """
    body, cut = payload[:at], None
    if end != "clean" and framing == "length":
        body, cut = payload, at - len(payload)
    elif end != "clean" and framing == "chunked":
        # The last chunk, which is empty, tells the end.
        cut = -5
    headers = GZIPPED if payload is PACKED else {}
    return reply(200, body, headers, framing=framing, cut=cut, end=end)


def serve_results(serve, *faults, **changes):
    """Start a server of one ended batch; the faults are those of its results."""
    batch = reply(body=batch_json(size=7, **changes))
    return serve(retrieve=itertools.repeat(batch), results=faults)


def download(client):
    """Return the custom_ids of a download, and the error that ended it."""
    results, custom_ids = client.messages.batches.results("msgbatch_1"), []
    try:
        for row in results:
            assert row.result.message.to_dict() == {"text": "é☃😀\u2028"}
            custom_ids.append(row.custom_id)
    except AnthropicError as error:
        # What is taken again is not whole either.
        assert failure_of(list, results) is error
        return custom_ids, error
    return custom_ids, None


def download_through(*responses, max_retries=2, **changes):
    """Do the same with an opener that has exactly these responses for the results."""
    batch = batch_json(size=7, **changes)
    client, opener = client_through(batch, *responses, max_retries=max_retries)
    outcome = download(client)
    assert next(opener.left, None) is None
    return outcome


# Where the results end, and how many rows have come before.
CUTS = {
    "before a row": (LINES, 0, 0),
    "at a row's end": (LINES, ROW_ENDS[2], 3),
    "before a newline": (LINES, ROW_ENDS[2] - 1, 2),
    "inside a row": (LINES, ROW_ENDS[2] + 20, 3),
    "inside a character": (LINES, LINES.index("😀".encode(), ROW_ENDS[2]) + 2, 3),
    "in the head of gzip": (PACKED, 5, 0),
    "in the middle of gzip": (PACKED, len(PACKED) // 2, 0),
    "in the end of gzip": (PACKED, len(PACKED) - 3, 6),
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("payload, at, complete", CUTS.values(), ids=CUTS)
def test_a_cut_download_gives_each_row_once_or_says_how_many_are_missing(
    serve, payload, at, complete, framing
):
    server = serve_results(serve)
    for end in ENDS:
        cut = part(payload, at, framing, end)
        server.faults["results"] = iter([cut, WHOLE])
        assert download(client_of(server)) == (ROW_IDS, None)

        server.faults["results"] = iter([cut, cut, cut, WHOLE])
        custom_ids, error = download(client_of(server))
        assert next(server.faults["results"]) is WHOLE
        assert type(error) is IncompleteResultsError
        assert isinstance(error.__cause__, APIConnectionError)
        count = len(custom_ids)
        assert (error.expected, error.received) == (7, count)
        assert f"{count} of 7" in str(error)
        assert custom_ids == ROW_IDS[:count]
        # A reset may lose some of what had come.
        assert count >= complete or end == "rst"
        assert server.received[-1].headers["accept-encoding"] == "gzip"


# Responses that break off, or are none: of a batch, which is no row either.
BROKEN = {
    **TORN,
    "cut before a last newline": part(LINES, len(LINES) - 1),
    "cut in gzip": part(PACKED, -9, end="clean"),
}


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN)
def test_a_download_outlives_any_broken_response_in_its_middle(serve, fault):
    server = serve_results(serve, part(LINES, ROW_ENDS[1]), fault, WHOLE)
    assert download(client_of(server)) == (ROW_IDS, None)


@pytest.mark.parametrize("counts", [None, {}, {"succeeded": None}], ids=str)
def test_the_results_of_a_batch_without_counts_end_where_the_response_ends(
    serve, counts
):
    cuts = part(LINES, ROW_ENDS[3]), part(LINES, ROW_ENDS[3], "length")
    server = serve_results(serve, *cuts, WHOLE, request_counts=counts)
    assert download(client_of(server)) == (ROW_IDS, None)
    # A torn row is a row that is missing.
    torn = LINES[:-20], b"\n" + LINES
    assert download_through(*torn, request_counts=counts) == (ROW_IDS, None)
    # It has one request at least.
    custom_ids, error = download_through(b"", b"", b"", request_counts=counts)
    assert (custom_ids, type(error)) == ([], IncompleteResultsError)
    assert error.expected is None


@pytest.mark.parametrize("pack, headers", PACKINGS, ids=["plain", "gzip"])
def test_a_new_row_resets_the_count_of_retries(pack, headers):
    cuts, body = [], b""
    for line in LINES.splitlines(keepends=True):
        body += pack(line)
        cuts += [(200, body, headers)] * 2
    assert download_through(*cuts[:-1], max_retries=2) == (ROW_IDS, None)
    custom_ids, error = download_through(*cuts[:2], max_retries=1)
    assert (custom_ids, type(error)) == (ROW_IDS[:1], IncompleteResultsError)


def test_a_download_in_another_order_gives_each_row_once():
    backwards = rows_json(reversed(ROW_IDS))
    cuts = LINES[: ROW_ENDS[2]], backwards[: ROW_ENDS[2]]
    custom_ids, error = download_through(*cuts, LINES)
    assert (custom_ids, error) == ([*ROW_IDS[:3], *ROW_IDS[:2:-1]], None)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_of_the_download_is_final(status):
    refused = status, api_error(), {"x-should-retry": "true"}
    custom_ids, error = download_through(LINES[: ROW_ENDS[1]], refused)
    assert (custom_ids, type(error)) == (ROW_IDS[:2], IncompleteResultsError)
    assert error.__cause__.status_code == status

    client, _ = client_through(ENDED, (status, api_error()))
    error = failure_of(client.messages.batches.results, "msgbatch_1")
    assert error.status_code == status


@pytest.mark.parametrize(
    "complete, line",
    [
        (2, b"{oops}\n"),
        (2, b"[1]\n"),
        (2, b'"a"\n'),
        (2, b'{"result": {}}\n'),
        (2, b'{"custom_id": 5}\n'),
        (2, b'{"custom_id": "\xff"}\n'),
        pytest.param(2, b"[" * 100_000 + b"\n", id="deep"),
        (6, b'{"id": "b"}\n'),
        # What the API sends in place of a row.
        (1, json.dumps(api_error("overloaded")).encode() + b"\n"),
    ],
    ids=itertools.count(),
)
def test_a_row_that_cannot_be_read_counts_as_missing_and_hides_no_other(complete, line):
    end, next_end = [*ROW_ENDS, len(LINES)][complete - 1 : complete + 1]
    body = LINES[:end] + line + LINES[next_end:]
    custom_ids, error = download_through(body, body, body)
    assert custom_ids == ROW_IDS[:complete] + ROW_IDS[complete + 1 :]
    assert type(error) is IncompleteResultsError
    assert (error.expected, error.received) == (7, 6)
    assert re.search(f"msgbatch_1.*6 of 7.*after {complete} good", str(error))
    assert b"overloaded" not in line or "overloaded" in str(error)
    # A row that can be read in the next download is no longer missing.
    assert download_through(body, LINES)[1] is None


def test_more_rows_than_requests_are_an_error():
    _, error = download_through(LINES, request_counts={"succeeded": 5})
    assert type(error) is APIResponseValidationError
    assert "7 rows for 5" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"\n\r\n" + LINES.replace(b"\n", b"\n \n"),
        LINES.replace(b"\n", b"\r\n"),
        LINES[:-1],
    ],
    ids=["blank lines", "CRLF", "no last newline"],
)
def test_blank_lines_crlf_and_a_missing_newline_are_forgiven(body):
    assert download_through(body, max_retries=0) == (ROW_IDS, None)


def test_a_row_of_20_mb_costs_as_its_length():
    row = {"custom_id": "a", "result": {"note": "x" * 20_000_000}}
    line = json.dumps(row).encode()
    packed = gzip.compress(line, 1)
    started = time.process_time()
    # Joined anew for each block, they would be 100 GB of copies.
    blocks = (line[at : at + 2000] for at in range(0, len(line), 2000))
    assert list(iter_json_lines(blocks)) == [row]
    client, _ = client_through(batch_json(size=1), (200, packed, GZIPPED))
    (whole,) = client.messages.batches.results("msgbatch_1")
    assert len(whole.result.note) == 20_000_000
    assert time.process_time() - started < 3


@pytest.mark.parametrize("pack, headers", PACKINGS, ids=["plain", "gzip"])
def test_results_are_read_one_row_at_a_time(pack, headers):
    body = pack(rows_json(map(str, range(3000)), "x" * 4000))
    client, _ = client_through(batch_json(size=3000), (200, body, headers))
    results = client.messages.batches.results("msgbatch_1")
    tracemalloc.start()
    try:
        assert sum(1 for _ in results) == 3000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("leaving", [contextlib.closing, lambda results: results])
def test_leaving_a_download_closes_its_connection(serve, leaving, count):
    server = serve_results(serve, part(LINES, ROW_ENDS[3], end="stall"))
    results = client_of(server).messages.batches.results("msgbatch_1")
    with leaving(results):
        custom_ids = [row.custom_id for row in itertools.islice(results, count)]
    assert custom_ids == ROW_IDS[:count]
    assert list(results) == []
    assert server.named("results")[0].has_left()


@pytest.mark.parametrize("status", ["in_progress", "canceling"])
def test_results_of_a_running_batch_fail_at_the_call_in_words(status):
    client, _ = client_through(batch_json(status=status))
    error = failure_of(client.messages.batches.results, "msgbatch_1")
    assert re.search(f"msgbatch_1.*{status}", str(error))


def raise_interrupt(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["in a read", "in a row"])
def test_results_that_were_interrupted_do_not_look_whole_afterwards(place, monkeypatch):
    client, opener = client_through(ENDED, ROWS)
    results = iter(client.messages.batches.results("msgbatch_1"))
    if place == "in a read":
        reads = iter([lambda: ROWS.splitlines(keepends=True)[0], raise_interrupt])
        monkeypatch.setattr(opener.responses[-1], "read1", lambda _: next(reads)())
    else:
        monkeypatch.setattr(claude_batches, "_from_json", raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(results)
    for _ in range(2):
        error = failure_of(list, results)
        assert type(error) is IncompleteResultsError
        assert (error.expected, error.received) == (2, 1)
        assert re.search("1 of 2 rows.*KeyboardInterrupt", str(error))


# ---- The key goes to base_url's origin and nowhere else ----------------------------


@pytest.mark.parametrize("name, place", REQUESTS_OF_CALLS)
def test_no_redirect_is_followed(serve, name, place):
    server, call = serve(), CALLS[name]
    # Another origin, at which the server would notice a request.
    target = server.url.replace("127.0.0.1", "localhost") + "/new"
    for status in (301, 302, 303, 307, 308):
        redirect = reply(status, b"", {"Location": target})
        server.faults[call.names[place]] = iter([redirect])
        error = failure_of(call.run, client_of(server), server.batch_id)
        # Behind a 303 a batch may have been made.
        may_exist = name == "create" and status == 303
        assert type(error) is BatchMayExistError if may_exist else APIStatusError
        assert may_exist or error.status_code == status
        assert target in str(error)
    assert not server.named(None)


@pytest.mark.parametrize("prefix", ["", "/gateway/anthropic"])
@pytest.mark.parametrize(
    "path",
    [
        f"{BATCHES}/msgbatch_1/results",
        "/archive/a%2Fb;c?sig=a%2Bb&x=1?",
    ],
)
def test_results_are_read_and_read_again_through_base_url(path, prefix):
    for place in ("https://elsewhere.test", BASE + prefix):
        batch = batch_json(results_url=place + path)
        base_url = BASE + prefix
        client, opener = client_through(batch, ROWS[:9], ROWS, base_url=base_url)
        assert download(client) == (["a", "b"], None)
        paths = [f"{BATCHES}/msgbatch_1", path, path]
        urls = [request.full_url for request in opener.requests]
        assert urls == [base_url + one for one in paths]


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
        "https://host.test/v1/",
        "https://host.test/v1/messages",
        "https://[::1",
        "https://host.test:0",
        "https://host.test:65536",
        "http://h\r\nA: b",
        pytest.param(f"http://{'x' * 64}.test", id="long label"),
    ],
)
def test_a_base_url_that_is_no_place_for_a_key_is_refused(url, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    for options in ({"base_url": url}, {}):
        error = failure_of(Anthropic, api_key=KEY, **options)
        assert "base_url" in str(error)
        assert "hunter2" not in shown(error)


NAMES_WITH_ID = "retrieve", "cancel", "delete", "results", "wait"
CALLS_WITH_ID = [CALLS[name] for name in NAMES_WITH_ID]
CALLS_WITH_ID.append(
    CALLS["models.retrieve"]._replace(
        run=lambda c, id: c.models.retrieve(id),
        wires=[["GET", MODELS + "/{}", "", None]],
    )
)


@pytest.mark.parametrize(
    "identifier, segment",
    [
        ("../x", "..%2Fx"),
        ("a/b", "a%2Fb"),
        ("x?y#z", "x%3Fy%23z"),
        ("a b\r\nc", "a%20b%0D%0Ac"),
        ("é", "%C3%A9"),
        ("%2e%2e", "%252e%252e"),
        ("a:b@c!$&'()*,;=~+...", "a:b@c!$&'()*,;=~+..."),
        ('\\[]{}"<>^`|', "%5C%5B%5D%7B%7D%22%3C%3E%5E%60%7C"),
        ("...", "..."),
        (5, "5"),
    ],
)
def test_an_id_stays_in_its_segment_of_the_path(identifier, segment):
    for call in CALLS_WITH_ID:
        client, opener = client_through(*call.bodies)
        call.run(client, identifier)
        path = call.wires[0][1]
        assert opener.requests[0].wire[1] == path.format(segment)


@pytest.mark.parametrize("identifier", ["", None, ".", "..", "..;a", ";x"])
def test_an_id_that_would_change_the_path_is_refused(identifier):
    for call in CALLS_WITH_ID:
        # It has no response, so that a request would be another error.
        client, _ = client_through()
        error = failure_of(call.run, client, identifier)
        assert isinstance(error, ValueError)
        assert re.search("`(message_batch|model)_id`", str(error))
        assert identifier or "non-empty value" in str(error)


@pytest.mark.parametrize(
    "tail", ["\nX: y", "\r\n\r\n" + KEY, "é", "ключ", "\0", "\udc80"], ids=ascii
)
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    tail, monkeypatch
):
    key = KEY + tail
    monkeypatch.setattr(os, "environ", {"ANTHROPIC_API_KEY": key})
    ways = [
        {"api_key": key},
        {"api_key": None},
        {"api_key": None, "auth_token": key},
        {"default_headers": {"x-api-key": key}},
        {"default_headers": {"authorization": key}},
    ]
    for options in ways:
        client, _ = client_through(**options)
        assert isinstance(failure_of(client.models.retrieve, "m"), ValueError)
    client, _ = client_through()
    headers = {"X-Api-Key": key}
    error = failure_of(client.models.retrieve, "m", extra_headers=headers)
    assert isinstance(error, ValueError)


def test_a_key_with_quotes_around_it_is_refused_in_words(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", f'"{KEY}”')
    error = failure_of(Anthropic)
    assert "without quotes" in str(error) and KEY not in shown(error)


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": f" {KEY}\n"},
        {"api_key": None, "auth_token": KEY},
        {"api_key": "x", "default_headers": {"Authorization": f"Bearer {KEY}"}},
    ],
    ids=["api_key", "auth_token", "header"],
)
def test_the_key_goes_out_as_bearer_and_is_in_no_repr_or_log(serve, options, caplog):
    server = serve(**{"models.list": [html(503)]})
    client = client_of(server, **options)
    batches, page = client.messages.batches, client.models.list()
    with batches.results(server.batch_id) as results:
        things = client, client.messages, batches, client.models, page, results
        assert KEY not in repr(things)
    sent = {request.headers["authorization"] for request in server.received}
    assert sent == {f"Bearer {KEY}"}
    # The fixture clock looks for the key in what was logged.
    assert "retry" in caplog.text


ESCAPED_KEY = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
# Responses that repeat the key.
ECHOES = [
    reply(401, b'{"error":{"type":"a","message":"%s"}}' % ESCAPED_KEY.encode()),
    refusal(401, message=f"bad key {KEY}"),
    refusal(403, {"request-id": KEY}),
    reply(500, KEY.encode()),
    reply(302, b"", {"Location": f"http://elsewhere.test/?key={KEY}"}),
    reply(400, {"request_id": KEY}),
    reply(200, ["hello", KEY]),
    reply(200, f"hello {KEY}\n".encode()),
    reply(200, {"type": "error", "error": {"message": KEY}}),
    reply(200, {"id": 5, "data": KEY}),
    reply(200, b"", {"Content-Type": KEY}),
    reply(200, f"{KEY}\r\n".encode(), {"Transfer-Encoding": "chunked"}),
    Fault(f"HTTP/1.1 403 {KEY}\r\n\r\n".encode(), work=False),
    Fault(f"{KEY}\r\n\r\n".encode(), work=False),
]
# The key, as a caller may write it in a header.
WRITTEN_KEYS = [KEY + " ", f"Bearer  {KEY}\t", f"Bearer\t{KEY}"]


@pytest.mark.parametrize(
    "name, place, written",
    [
        *((*one, KEY) for one in REQUESTS_OF_CALLS),
        *(("models.retrieve", 0, one) for one in WRITTEN_KEYS),
    ],
)
def test_no_error_shows_a_key_that_the_response_repeats(serve, name, place, written):
    server = serve()
    for echo in ECHOES:
        server.faults[CALLS[name].names[place]] = itertools.repeat(echo)
        client = client_of(server, api_key=None, default_headers={"x-api-key": written})
        failure_of(CALLS[name].run, client, server.batch_id)


def test_a_key_is_hidden_in_the_form_that_json_gives_it():
    key = 'sk-other"\\x'
    body = {"type": "error", "error": {"type": "t", "message": f"no {key}"}}
    headers = {"x-api-key": key}
    client, _ = client_through((401, body), body, default_headers=headers)
    for _ in range(2):
        assert "sk-other" not in shown(failure_of(client.models.list))


def test_a_key_is_hidden_in_all_that_is_chained():
    def fail(request):
        try:
            raise http.client.BadStatusLine(KEY)
        except http.client.BadStatusLine:
            raise ConnectionAbortedError("closed") from OSError("reset")

    failure_of(client_through(fail, max_retries=0)[0].models.list)


def test_an_error_that_the_caller_is_handling_is_left_alone():
    client, _ = client_through(OSError(), max_retries=0)
    error = KeyError(KEY)
    error.key = KEY
    try:
        raise error
    except KeyError:
        with pytest.raises(APIConnectionError):
            client.models.retrieve("m")
    assert (error.key, error.args) == (KEY, (KEY,))


# ---- Waiting outlives the network --------------------------------------------------

EVER = float("inf")


def poll(outcome, headers=()):
    """Return an opener's response, by a batch's status, an HTTP status or an error."""
    if isinstance(outcome, str):
        return 200, batch_json(status=outcome), headers
    if isinstance(outcome, int):
        return outcome, b"", headers
    return outcome


def batches_through(clock, *phases, **options):
    """Return client.messages.batches, and its opener.

    A phase: seconds since now, and the outcome of the polls before.
    """
    client, opener = client_through(**options)
    start = clock.now

    def respond(request):
        for end, outcome in phases:
            if clock.now - start < end:
                return poll(outcome)

    opener.left = itertools.repeat(respond)
    return client.messages.batches, opener


@pytest.mark.parametrize(
    "outage",
    [
        ConnectionResetError(),
        urllib.error.URLError(ConnectionRefusedError()),
        urllib.error.URLError(socket.gaierror(-3, "no name")),
        http.client.RemoteDisconnected(),
        http.client.BadStatusLine("x"),
        ssl.SSLEOFError(),
        socket.timeout(),
        408,
        409,
        429,
        500,
        502,
        503,
        504,
        529,
        "canceling",
    ],
    ids=repr,
)
def test_a_wait_outlives_an_hour_of_outage(clock, outage):
    phases = (20, "in_progress"), (3620, outage), (EVER, "ended")
    batches, _ = batches_through(clock, *phases)
    assert batches.wait("msgbatch_1").processing_status == "ended"
    assert 1 <= min(clock.sleeps) <= max(clock.sleeps) <= 60


# Bodies that are not the API's JSON.
NOT_OBJECTS = (
    b"<html>",
    b"",
    b"[]",
    b"null",
    b'{"id": "\xff"}',
    b"[" * 50_000,
    b'{"a":' * 50_000,
)


def test_a_wait_outlives_broken_and_foreign_responses(serve):
    faults = [*BROKEN.values(), reply(204, b"", framing="close")]
    faults += [reply(body=body) for body in NOT_OBJECTS]
    server = serve(retrieve=faults)
    batch = client_of(server).messages.batches.wait(server.batch_id)
    assert batch.id == server.batch_id
    assert len(server.received) == len(faults) + 1


@pytest.mark.parametrize("first", [0, 100])
def test_a_wait_forgives_404_for_thirty_seconds_and_not_longer(clock, first):
    running = first, "in_progress"
    batches, _ = batches_through(clock, running, (first + 25, 404), (EVER, "ended"))
    batch = batches.wait("msgbatch_1", poll_interval=1)
    assert batch.processing_status == "ended"

    start = clock.now
    gone = first + 100, 404
    batches, _ = batches_through(clock, running, gone, (EVER, "ended"))
    error = failure_of(batches.wait, "msgbatch_1", poll_interval=1)
    assert type(error) is NotFoundError
    assert 28 < clock.now - start - first < 32


@pytest.mark.parametrize(
    "status, kind",
    [
        (302, APIStatusError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
    ],
)
def test_a_refusal_ends_a_wait(clock, status, kind):
    refused = 50, status
    batches, opener = batches_through(clock, (5, 500), refused, (EVER, "ended"))
    assert type(failure_of(batches.wait, "msgbatch_1")) is kind
    assert len(opener.requests) == 2


def test_a_wait_that_takes_too_long_says_so_with_the_batch_and_its_id(clock):
    lost = 100, ConnectionResetError()
    too_late = EVER, "ended"
    batches, _ = batches_through(clock, (50, "in_progress"), lost, too_late)
    error = failure_of(batches.wait, "msgbatch_1", timeout=100)
    assert type(error) is WaitTimeoutError
    assert isinstance(error, TimeoutError)
    assert error.batch.processing_status == "in_progress"
    assert re.search("msgbatch_1.*100 s", str(error))
    assert clock.now - 1000 == pytest.approx(100)
    batches, _ = batches_through(clock, lost, too_late)
    assert failure_of(batches.wait, "msgbatch_1", timeout=100).batch is None


@pytest.mark.parametrize("outcome", ["in_progress", 503])
@pytest.mark.parametrize(
    "retry_after, poll_interval, least, most",
    [
        ("10", None, 10, 10),
        ("0.2", None, 1, 1),
        ("500", None, 60, 60),
        ("10", 3, 3, 3),
        ("500", 0.5, 0.5, 0.5),
        (None, 90, 90, 90),
        (None, 0, 0, 0),
        ("soon", 7, 7, 7),
        # Nothing is asked for.
        (None, None, 10, 10),
        ("soon", None, 10, 10),
        ("inf", None, 60, 60),
        ("-1", None, 10, 10),
        ("Mon,10 Nov 2026 10.0.0.00 GMT", None, 10, 10),
        ("Mon, 10-Nov- 10:00:00 GMT", None, 10, 10),
    ],
)
def test_a_wait_polls_at_the_interval_that_is_asked_for(
    clock, outcome, retry_after, poll_interval, least, most
):
    headers = {"retry-after": retry_after} if retry_after else {}
    client, _ = client_through(*[poll(outcome, headers)] * 20, ENDED)
    client.messages.batches.wait("msgbatch_1", poll_interval=poll_interval)
    assert len(clock.sleeps) == 20
    assert least <= min(clock.sleeps) <= max(clock.sleeps) <= most


NO_SECONDS = float("nan"), -1, 4294968.0, "5"


@pytest.mark.parametrize(
    "name, seconds",
    [
        *itertools.product(["poll_interval", "timeout"], NO_SECONDS),
        ("timeout", 0),
    ],
)
def test_a_wait_takes_no_seconds_that_no_clock_can_count(name, seconds):
    client, _ = client_through()
    error = failure_of(client.messages.batches.wait, "msgbatch_1", **{name: seconds})
    assert type(error) is InvalidRequestsError


def test_on_poll_sees_each_batch_that_came_and_its_exception_arrives():
    outcomes = "in_progress", 500, "canceling", ConnectionResetError(), "ended", "ended"
    client, _ = client_through(*map(poll, outcomes))
    seen, error = [], OSError("mine")
    client.messages.batches.wait("msgbatch_1", on_poll=seen.append)
    statuses = [batch.processing_status for batch in seen]
    assert statuses == ["in_progress", "canceling", "ended"]

    def on_poll(batch):
        raise error

    with pytest.raises(OSError) as caught:
        client.messages.batches.wait("msgbatch_1", on_poll=on_poll)
    assert caught.value is error


@pytest.mark.parametrize(
    "options, most",
    [
        ({}, 60),
        ({"timeout": None}, 60),
        ({"timeout": 20}, 20),
    ],
)
def test_no_read_of_a_wait_takes_longer_than_a_minute_or_goes_past_the_end(
    clock, options, most
):
    def time_out(request):
        clock.pass_by(request.seconds)
        return socket.timeout()

    client, opener = client_through(**options)
    opener.left = itertools.repeat(time_out)
    error = failure_of(client.messages.batches.wait, "msgbatch_1", timeout=150)
    assert type(error) is WaitTimeoutError
    assert clock.now - 1000 <= 150.01
    assert max(request.seconds for request in opener.requests) == most


def test_the_sleep_of_a_laptop_counts_as_waiting(clock, monkeypatch):
    # The lid was closed: the monotonic clock stood still.
    monkeypatch.setattr(clock, "sleep", lambda seconds: clock.pass_by(seconds, 7200))
    batches, opener = batches_through(clock, (EVER, "in_progress"))
    error = failure_of(batches.wait, "m", timeout=3600)
    assert type(error) is WaitTimeoutError
    assert len(opener.requests) == 1


# ---- A batch is made once: the job -------------------------------------------------
# Most jobs run in this process, on the clock on which waiting takes no time; those that
# are killed run in another one.  A part has two requests.

# The batch is made, and the response lost; it is never made.
LOST, GONE = Fault(b""), Fault(b"", work=False)
IDS = ("r0", "r1", "r2", "r3")
RUN = ("run", "r.jsonl", "-o", "out.jsonl")
SLOWLY = ("--poll-interval", "1000")
# Runs the command line with small parts, and with a kill at the n-th change of the folder.
WORK = """
import json, os, signal, sys
config = json.loads(sys.argv.pop(1))
sys.argv[0] = config["module"]
sys.path.insert(0, os.path.dirname(config["module"]))
import claude_batches as module
vars(module).update(config["set"])
count = 0

def watch(name):
    real = getattr(os, name)

    def step(*args):
        global count
        count += 1
        if config["at"] == [count, "before"]:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args)
        if config["at"] == [count, "after"]:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, name, step)

for name in ("replace", "link", "unlink"):
    watch(name)
status = module.main(sys.argv[1:])
print(count)
if sys.platform == "linux":
    print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
sys.exit(status)
"""


class Case:
    """A job at a Server, or at a Sandbox."""

    def __init__(self, server, folder, ids=IDS, cli=None):
        self.server, self.folder, self.ids, self._cli = server, folder, ids, cli
        self.sandbox = getattr(server, "sandbox", server)
        self._before = set(self.sandbox._batches)
        # Files of other jobs that share the folder are none of this one's.
        self.folder.mkdir(exist_ok=True)
        write(self.folder / "r.jsonl", *requests_of(*ids))

    def run(self, *words, status=0):
        """Run the job in this process; return what a person sees."""
        got, _, err = self._cli(*RUN, *words)
        assert got == status, err
        return err

    def start(self, *words, at=None, **settings):
        """Run the job in another process."""
        small = {"MAX_BATCH_REQUESTS": 2, "POLL_MIN": 0.02, "POLL_MAX": 0.02}
        small.update(POLL_DEFAULT=0.02, **settings)
        config = {"module": str(MODULE), "at": at, "set": small}
        quick = ["--settle", "0.3", "--poll-interval", "0.02"]
        variables = {"ANTHROPIC_BASE_URL": self.server.url, "ANTHROPIC_API_KEY": KEY}
        return subprocess.Popen(
            [sys.executable, "-c", WORK, json.dumps(config), *RUN, *quick, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env={**os.environ, **variables, "PYTHONUTF8": "1"},
        )

    def end(self, *words, **options):
        """Run the job in another process to its end."""
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=120)
        assert b"Traceback" not in err, err
        return process.returncode, out.split(), err.decode()

    def creates(self, *faults):
        """Have the next creates end so."""
        self.server.faults["create"] = iter(faults)

    def batches(self):
        """Return the ids of the batches that were made since, oldest first."""
        return [one for one in self.sandbox._batches if one not in self._before]

    def parts(self):
        """Return the custom_ids of those batches that are the job's."""
        made = [
            [custom_id for custom_id, *_ in self.sandbox._batches[one].requests]
            for one in self.batches()
        ]
        return [part for part in made if part[0] in self.ids]

    def other(self, *custom_ids):
        """Have somebody else make a batch, and return its id."""
        requests = requests_of(*custom_ids)
        return client_of(self.sandbox).messages.batches.create(requests=requests).id

    def release(self, *batch_ids):
        """Have these batches end, or all, and those to come."""
        for batch_id in batch_ids or self.batches():
            self.sandbox._batches[batch_id].ends = datetime.now(UTC)
        if not batch_ids:
            self.sandbox._seconds = timedelta(0)

    def until(self, done):
        """Wait until something is true of a job in another process."""
        for _ in range(1000):
            if done():
                return
            time.sleep(0.01)
        raise AssertionError("it does not come")

    def is_done(self):
        journal = self.folder / "out.jsonl.job"
        return (self.folder / "out.jsonl").exists() and not journal.exists()

    def check(self, times=1, failed=False):
        """Each part was made once, each row came once, and nothing else is left."""
        made = [one for part in self.parts() for one in part]
        assert sorted(made) == sorted(times * list(self.ids))
        got = [row["custom_id"] for row in rows(read(self.folder / "out.jsonl"))]
        assert sorted(got) == sorted(self.ids)
        names = {"out.jsonl", "r.jsonl"} | ({"out.failed.jsonl"} if failed else set())
        assert set(os.listdir(self.folder)) == names


@pytest.fixture
def case(serve, cli, clock, monkeypatch, tmp_path):
    """Return a function that makes a Case; its at(seconds, action) does something later."""
    events = []

    def sleep(seconds):
        assert len(clock.sleeps) < 3000, "it never ends"
        clock.sleeps.append(seconds)
        clock.pass_by(seconds)
        for event in [one for one in events if one[0] <= clock.now]:
            events.remove(event)
            event[1]()

    def make(ids=IDS, seconds=0.0, **faults):
        server = lead_to(serve(seconds=seconds, **faults), monkeypatch)
        job = Case(server, tmp_path, ids, cli)
        job.at = lambda later, action: events.append((clock.now + later, action))
        job.clock = clock
        return job

    monkeypatch.setattr(clock, "sleep", sleep)
    monkeypatch.setattr(claude_batches, "MAX_BATCH_REQUESTS", 2)
    return make


def all_of(function, values):
    """Call a function for each of the values, some at a time."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return list(pool.map(function, values))


def hide(job):
    """Take all batches off the list."""
    job.server.hidden = set(job.sandbox._batches)


def then(action, fault=None):
    """Return a fault, and something that happens once the request was read."""

    def act(request):
        request.read()
        action()
        return fault or Fault()

    return act


def on(batch_id, fault):
    """Return faults of the requests about one batch, now and later."""

    def choose(request):
        return fault if batch_id in request.path else Fault()

    return itertools.repeat(choose)


def begun(case, *words, ids=IDS):
    """Return a job whose batches are running, and their ids."""
    job = case(ids=ids, seconds=3600)
    job.run("--no-wait", *words, status=4)
    return job, job.batches()


def journal():
    return json.loads(read("out.jsonl.job"))


def result(custom_id, kind="succeeded", **fields):
    return {"custom_id": custom_id, "result": {"type": kind, **fields}}


def message(stop="end_turn", model="m", **usage):
    return {"model": model, "stop_reason": stop, "usage": usage}


def failing(error_type):
    return {"type": "error", "error": {"type": error_type, "message": "no luck"}}


# ---- The job: planned --------------------------------------------------------------

SPACED_LINES = (
    b'\xef\xbb\xbf{"custom_id":"r0", "params" : {"x":[1.0,1e-7,12345678901234567890]}}\r',
    b"\r",
    '{"params":{"t":"\u2028\\u2028\\ud83d\\ude00é\\u0000\\/"},"custom_id":"r1"}'.encode(),
    b"  ",
    b' {"custom_id":"r2","params":{"custom_id":"r1"}}\t',
    b'{"custom_id":"r3","params":{"a":[[]]}}',
)


def test_a_job_sends_the_bytes_of_its_lines_and_keeps_those_of_the_rows(case):
    job = case()
    write("r.jsonl", *SPACED_LINES)
    raw = []

    def results(request):
        at = job.batches().index(request.path.split("/")[-2])
        first, second = f"r{2 * at}", f"r{2 * at + 1}"
        raw.append(
            f'{{"custom_id": "{second}",  "result":{{"type":"succeeded","x":"é\u2028"}}}}\n'
            f'{{"result":{{"type":"expired"}},"custom_id":"{first}"}}\n'.encode()
        )
        return reply(body=raw[-1])

    job.server.faults["results"] = itertools.repeat(results)
    seen = job.run("--no-check", status=3)
    lines = [line.lstrip(b"\xef\xbb\xbf").strip(b" \t\r") for line in SPACED_LINES]
    lines = [line for line in lines if line]
    bodies = [request.read() for request in job.server.named("create")]
    assert bodies == [
        b'{"requests":[%b]}' % b",".join(lines[at : at + 2]) for at in (0, 2)
    ]
    assert read("out.jsonl") == b"".join(raw)
    assert read("out.failed.jsonl") == lines[0] + b"\n" + lines[2] + b"\n"
    assert "r.jsonl:1: warning" in seen and "taken over" not in seen
    assert all(batch_id in seen for batch_id in job.batches())
    job.check(failed=True)


def test_a_part_is_filled_to_its_last_byte(case, monkeypatch, cli):
    size = len(json.dumps(request_of("r0")))
    for spare, sizes in ((0, [2, 2]), (-1, [1, 1, 1, 1])):
        job = case()
        limit = len(b'{"requests":[]}') + 2 * size + 1 + spare
        monkeypatch.setattr(claude_batches, "MAX_BATCH_BYTES", limit)
        planned = cli(*RUN, "--dry-run")[1].decode()
        job.run()
        assert [len(part) for part in job.parts()] == sizes
        total = sum(request.length for request in job.server.named("create"))
        assert f"parts: {len(sizes)}\nbytes: {total:,}\n" in planned
        os.unlink("out.jsonl")
    monkeypatch.setattr(claude_batches, "MAX_BATCH_BYTES", size + 14)
    assert "r.jsonl:1: more than the" in job.run(status=2)


REFUSED = reply(400, api_error("max_tokens", "invalid_request_error"))
LIMITED = api_error("hold", "invalid_request_error", details={"error_code": "held"})


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (REFUSED, 2),
        (reply(400, LIMITED), 0),
        (reply(400, api_error("hm", "other_error")), 0),
        (html(400), 0),
        (refusal(403), 0),
        (refusal(404), 0),
    ],
    ids=["invalid", "limit", "other", "gateway", "403", "404"],
)
def test_only_a_first_request_that_the_api_calls_invalid_stops_a_job(
    case, fault, status
):
    job = case(count_tokens=[fault])
    seen = job.run(status=status)
    if status:
        assert "max_tokens" in seen and "--no-check" in seen
        assert os.listdir() == ["r.jsonl"] and len(job.server.received) == 1
        job.run("--no-check")
        assert len(job.server.named("count_tokens")) == 1
    else:
        assert "could not be checked" in seen
    job.check()


def test_betas_go_to_each_create_and_are_noted(case):
    job, _ = begun(case, "--beta", "b1", "--beta", "b2")
    for name in ("count_tokens", "create"):
        for request in job.server.named(name):
            assert request.headers["anthropic-beta"].split(",") == ["b1", "b2"]
    assert "b1" in job.run("--beta", "b1", "--no-wait", status=1)
    assert len(job.server.named("create")) == 2


LONG = "x" * 240
NAMES = {
    "long": ("r.jsonl", LONG + ".jsonl", "too long"),
    "stdout": ("r.jsonl", "-", "-o -"),
    "folder": ("r.jsonl", os.path.join("missing", "out"), "missing"),
    "slash": ("r.jsonl", "new/", "no folder"),
    "itself": ("r.jsonl", "r.jsonl", "r.jsonl"),
    "journal": ("out.job", "out", "name another"),
    "tmp": ("out.job.tmp", "out", "name another"),
    "part": ("out.part", "out", "name another"),
    "failed": ("out.failed.jsonl.tmp", "out.jsonl", "name another"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_with_which_a_job_could_not_end_is_refused_at_the_start(case, cli, name):
    requests, results, words = NAMES[name]
    job = case()
    os.rename("r.jsonl", requests)
    before = read(requests)
    status, _, err = cli("run", requests, "-o", results)
    assert (status, words in err) == (2, True), err
    assert os.listdir() == [requests] and read(requests) == before
    assert not job.server.received


def test_a_file_that_another_program_holds_is_waited_for_on_windows(monkeypatch):
    held = [PermissionError("held")] * 9

    def replace(source, target):
        if held:
            raise held.pop()

    monkeypatch.setattr(sys, "platform", "win32")
    claude_batches._while_held(replace, "a", "b")
    assert not held


def test_nothing_is_overwritten_at_the_start_or_at_the_end(case):
    for name in ("out.jsonl", "out.failed.jsonl"):
        job = case(ids=("expired0", "r1"))
        write(name, b"another's")
        assert f"{name} exists" in job.run(status=2)
        assert not job.server.received
        os.unlink(name)
        # It comes during the run.
        put = functools.partial(write, name, b"another's")
        job.server.faults["results"] = iter([then(put)])
        assert f"{name} exists" in job.run(status=2)
        assert f"{name} exists" in job.run(status=2)
        assert read(name) == b"another's\n"
        os.unlink(name)
        job.run(status=3)
        job.check(failed=True)
        os.unlink("out.jsonl")
        os.unlink("out.failed.jsonl")


# ---- The job: the journal ----------------------------------------------------------


def test_a_changed_journal_is_refused_in_words_or_the_change_is_harmless(case):
    job, _ = begun(case)
    whole = read("out.jsonl.job")
    # Each kind of value, and some of all places.
    places = {match.start() for match in re.finditer(rb"created|: \S", whole)}
    places = sorted({*places, *range(0, len(whole), 99)})
    for place in places:
        for new in (whole[place] ^ 1, 0xFF):
            changed = whole[:place] + bytes([new]) + whole[place + 1 :]
            pathlib.Path("out.jsonl.job").write_bytes(changed)
            status, _, err = job._cli(*RUN, "--no-wait", "--no-check")
            assert status == 4 or (status == 1 and "journal" in err)
            is_space = whole[place] in b" \n"
            assert status == 1 or is_space or json.loads(changed) == json.loads(whole)
    assert len(job.server.named("create")) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"format": 2}',
        b'{"parts": [1]}',
    ],
)
def test_a_journal_that_is_none_is_refused_and_kept(case, content):
    job = case()
    pathlib.Path("out.jsonl.job").write_bytes(content)
    seen = job.run(status=1)
    assert "out.jsonl.job is" in seen and "move" in seen
    assert read("out.jsonl.job") == content and not job.server.received


def test_a_journal_of_the_first_edition_says_how_to_end_that_job(case):
    job = case()
    write("out.jsonl.job", {"digest": "x", "parts": [{"state": "sending"}]})
    seen = job.run(status=1)
    assert "earlier version" in seen
    assert not job.server.received


def test_a_journal_can_be_read_by_a_person_and_holds_no_key(case):
    begun(case)
    assert [part["state"] for part in journal()["parts"]] == ["created", "created"]
    assert read("out.jsonl.job").count(b"\n") > 20
    assert KEY.encode() not in read("out.jsonl.job")


def changed_requests(job, monkeypatch):
    write("r.jsonl", *requests_of("r0", "r4", "r2", "r3"))


def blank_line(job, monkeypatch):
    write("r.jsonl", b"", *requests_of(*IDS))


def other_api(job, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", job.sandbox.url)


def other_organization(job, monkeypatch):
    headers = {"anthropic-organization-id": "org_2"}
    job.server.faults["list"] = iter([reply(body=page_json(), headers=headers)])


def other_results(job, monkeypatch):
    write("out.jsonl", b"another's")


def other_version(job, monkeypatch):
    monkeypatch.setattr(claude_batches, "JOURNAL_FORMAT", 99)


def lost_rows(job, monkeypatch):
    os.truncate("out.jsonl.part", 10)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (changed_requests, 1, "has changed"),
        (blank_line, 1, "has changed"),
        (other_api, 1, "base_url"),
        (other_organization, 1, "org_2"),
        (other_results, 2, "exists"),
        (lost_rows, 1, "lost rows"),
        (other_version, 1, "another version"),
    ],
)
def test_a_run_that_does_not_belong_to_its_journal_is_refused(
    case, monkeypatch, change, status, words
):
    job, ids = begun(case)
    job.release(ids[0])
    job.run("--no-wait", status=4)
    kept = {name: read(name) for name in ("r.jsonl", "out.jsonl.part")}
    with monkeypatch.context() as patch:
        change(job, patch)
        assert words in job.run(status=status)
    for name, content in kept.items():
        pathlib.Path(name).write_bytes(content)
    with contextlib.suppress(FileNotFoundError):
        os.unlink("out.jsonl")
    job.release()
    job.run()
    job.check()


def test_requests_that_change_during_a_run_never_leave_whole(case):
    job = case(list=[None, then(lambda: changed_requests(None, None))])
    assert "has changed" in job.run(status=1)
    write("r.jsonl", *requests_of(*IDS))
    job.run()
    job.check()


def test_rows_without_their_journal_are_refused_and_kept(case):
    job = case()
    write("out.jsonl.part", b"paid for")
    assert "without its journal" in job.run(status=1)
    assert read("out.jsonl.part") == b"paid for\n"


def test_the_sandbox_does_not_touch_the_journal_of_a_real_run(case):
    job, _ = begun(case)
    before = read("out.jsonl.job")
    assert "out.jsonl.job" in job.run("--sandbox", status=1)
    assert read("out.jsonl.job") == before


# ---- The job: in doubt -------------------------------------------------------------


def gateway(status):
    """The API makes the batch, and a gateway says something else."""
    return lambda job: reply(status, api_error(), work=True)


def late(job):
    """The batch is made 100 seconds later."""

    def create(request):
        job.at(100, lambda: job.server._work(request, Fault()))
        return GONE

    return create


def lagging(job):
    """The batch is made, and shows in the list 100 seconds later."""
    known, end = set(job.sandbox._batches), job.clock.now + 100

    class Hidden:
        def __contains__(self, batch_id):
            return batch_id not in known and job.clock.now < end

    job.server.hidden = Hidden()
    return LOST


def amid(ours, *others):
    """Others make batches at that time, of these custom_ids."""

    def prepare(job):
        def create(request):
            for one in others:
                job.other(*one)
            return LOST if ours else GONE

        return create

    return prepare


def sizeless(job):
    """The list does not tell how many requests a batch has."""

    def hide(match):
        return b'"request_counts":null'.ljust(len(match.group()))

    def listed(request):
        raw = job.server._work(request, Fault())
        raw = re.sub(rb'"request_counts": ?{.*?}', hide, raw)
        return Fault(raw, work=False)

    job.server.faults["list"] = itertools.repeat(listed)
    return amid(True, STRANGERS, ("x",))(job)


def crowd(job):
    """Others make so many batches that ours is not on the first page of the list."""

    def create(request):
        request.read()
        job.server._work(request, Fault())
        for _ in range(101):
            job.other("x")
        return GONE

    return create


def date_off(seconds):
    """The clock of the API is ahead."""

    def prepare(job):
        def listed(request):
            return Fault(job.server._work(request, Fault(date=seconds)), work=False)

        job.server.faults["list"] = itertools.repeat(listed)
        return LOST

    return prepare


STRANGERS = ("x", "y")


DOUBTS = {
    "lost": (lambda job: LOST, True),
    "reset": (lambda job: LOST._replace(end="rst"), True),
    "torn": (lambda job: Fault(cut=40), True),
    "no id": (lambda job: Fault(changes={"id": None}), True),
    **{str(one): (gateway(one), True) for one in (303, 408, 409, 425, 460, 499, 500)},
    "503": (lambda job: html(503, work=True), True),
    "late": (late, True),
    "lagging": (lagging, True),
    "ahead": (date_off(4000), True),
    "stranger": (amid(True, STRANGERS), True),
    "strangers": (amid(True, STRANGERS, ("x",), ("z", "w")), True),
    "sizeless": (sizeless, True),
    "crowd": (crowd, True),
    "gone": (lambda job: GONE, False),
    "refused": (lambda job: html(502), False),
    "only a stranger": (amid(False, STRANGERS), False),
    "only strangers": (amid(False, STRANGERS, ("z", "w")), False),
}


@pytest.mark.parametrize("is_stopped", [False, True], ids=["go on", "stop"])
@pytest.mark.parametrize("doubt", DOUBTS)
def test_a_part_in_doubt_is_taken_over_or_sent_again(case, doubt, is_stopped):
    prepare, is_taken_over = DOUBTS[doubt]
    job = case()
    job.creates(prepare(job))
    if is_stopped:
        job.at(1, interrupt)
        job.run(status=130)
    begin = job.clock.now
    seen = job.run()
    assert bool(re.search("batches: .*taken over", seen)) == is_taken_over
    assert is_stopped or begin + 600 > job.clock.now >= begin + 300
    job.check()


def interrupt():
    raise KeyboardInterrupt


def test_a_part_that_is_sent_again_is_looked_for_again(case):
    job = case()
    job.creates(amid(False, STRANGERS)(job), None, LOST)
    job.run()
    job.check()


def test_nothing_else_is_sent_in_doubt_and_what_has_ended_is_collected(case):
    job = case(ids=[*IDS, "r4", "r5"])
    job.creates(None, LOST)
    seen = job.run()
    steps = [
        "part 1 of 3 (2 requests): 2 results",
        "part 3 of 3 (2 requests): batch",
        "taken over",
    ]
    places = [seen.index(step) for step in steps]
    assert places == sorted(places)
    assert seen.index("looking") < places[1]
    job.check()


def test_the_journal_says_closing_before_the_last_block_goes_out(case):
    states = []

    job = case(create=[then(lambda: states.append(journal()["parts"][0]))])
    job.run()
    assert states[0]["state"] == "closing"
    assert states[0]["noted"] == [job.server.batch_id]
    job.check()


def test_without_a_list_nothing_is_sent(case):
    job = case(list=[None, html(502), html(502), html(502), refusal(401)])
    job.run(status=1)
    assert not job.server.named("create")
    job.run()
    job.check()


def test_a_batch_that_is_made_after_settle_is_none_of_ours_and_settle_may_be_0(case):
    job = case(create=[late(case())])
    job.run("--settle", "0")
    assert len(job.parts()) == 2


def test_of_two_batches_with_all_our_ids_a_person_takes_one(case):
    job = case()
    job.creates(amid(True, ("r0", "r1"))(job))
    seen = job.run(status=1)
    twin, ours, last = job.batches()
    assert f"--disown {twin}" in seen and f"--disown {ours}" in seen
    # The rest was sent and collected before the question.
    assert "part 2 of 2 (2 requests): 2 results" in seen
    assert "no question" in job.run("--disown", last, status=2)
    # The question did not say that giving up both pays again.
    job.run("--disown", twin, "--disown", ours, status=2)
    assert f"{ours} (taken over)" in job.run("--disown", twin)
    assert len(job.batches()) == 3


def test_a_batch_with_some_of_our_ids_is_a_question_and_may_be_disowned(case):
    job = case()
    # When it is sent again, that is in doubt, too.
    job.creates(amid(False, ("r0", "x"))(job), None, GONE)
    seen = job.run(status=1)
    assert "1 of its rows" in seen and "pay again" in seen
    other = job.batches()[0]
    assert other in job.run(status=1)
    # It has no further effect.
    job.run("--disown", other, "--disown", other)
    assert len(job.parts()) == 3


def test_a_candidate_that_cannot_be_read_is_a_question(case):
    job = case()
    job.creates(amid(True, STRANGERS)(job))

    def choose(request):
        return refusal(404) if job.batches()[0] in request.path else Fault()

    job.server.faults["results"] = itertools.repeat(choose)
    seen = job.run(status=1)
    stranger, ours, _ = job.batches()
    assert f"--disown {stranger}" in seen and "pay again" not in seen
    assert f"{ours} (taken over)" in job.run("--disown", stranger)
    job.check()


def test_a_list_without_the_noted_batches_is_a_question(case):
    job = case(create=[then(lambda: hide(job), GONE)])
    seen = job.run(status=1)
    assert f"--disown {job.server.batch_id}" in seen and "paid" in seen
    assert job.server.batch_id in job.run(status=1)
    job.run("--disown", job.server.batch_id)
    job.check()


def test_a_batch_that_is_older_than_what_was_noted_is_no_candidate(case):
    job = case(ids=IDS[:2])
    # An earlier run of the same file made it; it is not on the first page.
    old = job.other(*job.ids)
    job.sandbox._batches[old].created_at -= timedelta(1)
    job._before |= {old, job.other("x", "y")}
    job.server.hidden = {old, job.server.batch_id}
    job.creates(then(job.server.hidden.clear, GONE))
    assert "taken over" not in job.run()
    job.check()


def test_two_clocks_of_the_api_may_differ_by_a_second(case):
    job = case()
    job.sandbox._batches.clear()

    def late(request):
        request.read()
        job.server._work(request, Fault())
        job.sandbox._batches[job.batches()[1]].created_at -= timedelta(seconds=1)
        return GONE

    job.creates(None, late)
    assert "taken over" in job.run()
    job.check()


def test_what_has_ended_is_collected_before_a_refusal_ends_the_run(case):
    job = case(create=itertools.chain([None], itertools.repeat(refusal(413))))
    job.run(status=1)
    assert journal()["parts"][0]["state"] == "collected"


def test_a_question_is_told_beside_a_refusal(case):
    creates = itertools.chain([None], itertools.repeat(refusal(413)))
    job = case(create=creates, retrieve=itertools.repeat(refusal(404)))
    assert "--disown" in job.run(status=1)


def test_a_replica_that_lags_behind_the_last_poll_is_no_question(case):
    lag = Fault(changes={"processing_status": "in_progress", "results_url": None})
    job = case(retrieve=[None, lag])
    assert "waiting" in job.run()
    job.check()


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_stranger_on_a_list_that_is_cut_off_is_not_the_only_candidate(case, is_gone):
    def cut_off():
        hide(job)
        stranger = job.other("x", "y")
        if is_gone:
            job.server.faults["results"] = on(stranger, refusal(404))

    job = case(ids=IDS[:2], create=[LOST])
    job.at(1, cut_off)
    job.at(400, lambda: job.server.hidden.clear())
    words = ()
    if is_gone:
        words = ("--disown", re.search("--disown ([^ ]+)", job.run(status=1))[1])
    assert "taken over" in job.run(*words)
    job.check()


def test_a_first_batch_ever_that_was_not_made_is_sent_again(case):
    # A gateway may leave out what the list says of its end.
    job = case(list=itertools.repeat(Fault(changes={"has_more": None})))
    job.sandbox._batches.clear()
    job.creates(GONE)
    job.run()
    job.check()


# ---- The job: created and collected ------------------------------------------------


def deleted(job, batch_id):
    client_of(job.sandbox).messages.batches.delete(batch_id)


def with_results(fault):
    def change(job, batch_id):
        job.server.faults["results"] = on(batch_id, fault)

    return change


def changed(**changes):
    def change(job, batch_id):
        job.server.faults["retrieve"] = on(batch_id, Fault(changes=changes))

    return change


def counted(number, *custom_ids):
    """The batch itself says that it has so many rows, and has these."""

    def change(job, batch_id):
        changed(request_counts={"succeeded": number})(job, batch_id)
        with_results(reply(body=rows_json(custom_ids)))(job, batch_id)

    return change


UNUSABLE = {
    "fewer": counted(1, "r0"),
    "others": counted(3, "r0", "r1", "x"),
    "deleted": deleted,
    "archived": changed(results_url=None, archived_at="2026-01-01T00:00:00Z"),
    "no url": changed(results_url=7),
    "404": with_results(refusal(404)),
    "400": with_results(refusal(400)),
    "410": with_results(refusal(410)),
    "strange": with_results(reply(body=rows_json(["r0", "x"]))),
    "missing": with_results(reply(body=rows_json(["r0"]))),
    "unreadable": with_results(reply(body=rows_json(["r0"]) + b"{\n")),
    "more": with_results(reply(body=rows_json(["r0", "r1", "x"]))),
    "foreign": with_results(
        reply(body=b"<html>", headers={"Content-Type": "text/html"})
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("words", [(), ("--no-wait",)])
def test_a_part_without_results_holds_up_no_other_and_may_be_given_up(
    case, name, words
):
    job, (first, *others) = begun(case, ids=[*IDS, "r4", "r5"])
    job.release()
    UNUSABLE[name](job, first)
    seen = job.run(*words, status=1)
    assert seen.count("2 results") == 2
    assert f"--disown {first}" in seen and "pay again" in seen
    assert f"results {first}" in seen
    job.server.faults.clear()
    assert "no question" in job.run("--disown", others[0], status=2)
    assert first not in job.run("--disown", first).splitlines()[-2]
    parts = [part for part in job.parts() if part[0] != "r0"]
    assert parts == [["r2", "r3"], ["r4", "r5"]]
    assert len(rows(read("out.jsonl"))) == 6


@pytest.mark.parametrize("has_ended", [True, False])
def test_an_id_that_a_question_named_once_gives_up_nothing_that_came_back(
    case, has_ended
):
    job, (first, _) = begun(case)
    if has_ended:
        job.release(first)
    job.server.faults["retrieve"] = on(first, refusal(404))
    job.run("--no-wait", status=1)
    job.server.faults.clear()
    job.run("--no-wait", status=4)
    job.run("--disown", first, status=2)
    job.release()
    job.run()
    job.check()


def test_a_taken_over_part_is_collected_once_while_others_run(case):
    def slow():
        job.sandbox._seconds = timedelta(hours=1)

    job = case(create=[LOST, then(slow)])
    job.at(400, job.release)
    job.run()
    job.check()


def test_a_disowned_batch_is_no_sign_that_the_list_works(case):
    job = case(ids=IDS[:2])
    job.sandbox._batches.clear()
    job.creates(amid(False, ("r0", "x"))(job))
    job.run(status=1)
    other = job.batches()[0]

    def hide():
        job.server.hidden = {other}

    job.creates(then(hide, GONE))
    job.run("--disown", other)
    assert job.parts() == [["r0", "x"], ["r0", "r1"]]


def hidden_at_the_second_create(case):
    """Return a job whose second part is in doubt, and whose list has become empty."""
    job = case(seconds=3600)
    job.creates(None, then(lambda: hide(job), GONE))
    job.run("--no-wait", status=4)
    return job


def test_a_question_that_a_look_has_answered_is_not_open_any_more(case):
    job = hidden_at_the_second_create(case)
    job.run("--no-wait", status=1)
    job.server.hidden.clear()
    job.creates(GONE)
    job.run("--no-wait", status=4)
    assert "no question" in job.run("--disown", job.server.batch_id, status=2)


def test_a_batch_that_is_taken_over_is_collected_at_once(case):
    job = case(ids=IDS[:2], create=[LOST])
    job.run("--no-wait", status=4)
    job.run("--no-wait")
    job.check()


def test_an_answer_about_a_part_in_doubt_gives_up_no_other_part(case):
    job = hidden_at_the_second_create(case)
    (own,) = job.batches()
    job.release()
    job.server.faults["results"] = on(own, refusal(404))
    job.run("--no-wait", status=1)
    job.run("--disown", own, "--disown", job.server.batch_id, status=1)
    assert job.parts() == [["r0", "r1"], ["r2", "r3"]]


def test_a_batch_that_was_disowned_as_a_noted_one_can_be_given_up_as_a_parts_own(
    case,
):
    job = hidden_at_the_second_create(case)
    job.run("--no-wait", status=1)
    own, words = job.batches()[0], ("--disown", job.server.batch_id)
    job.run("--disown", own, *words, "--no-wait", status=4)
    job.release()
    deleted(job, own)
    assert job.run(*words, status=1).count("--disown") == 1
    job.run("--disown", own)
    job.check()


@pytest.mark.parametrize("name", ["create", "list", "retrieve", "results"])
@pytest.mark.parametrize(
    "faults",
    [
        [refusal(503), refusal(529), refusal(429, {"retry-after": "1"})] * 5,
        [GONE] * 9,
        [Fault(cut=450)] * 5,
    ],
    ids=["busy", "lost", "torn"],
)
def test_an_outage_after_the_first_response_is_outlived(case, name, faults):
    if name == "create":
        # Elsewhere are the creates that may have made a batch.
        faults = [one._replace(read=0, response=b"", work=False) for one in faults]
    job = case(**{name: [None, *faults]})
    job.run()
    job.check()


@pytest.mark.parametrize("name", ["retrieve", "results"])
def test_a_batch_may_be_unknown_for_a_while(case, name):
    job = case(**{name: [refusal(404)] * 3})
    job.run()
    job.check()


def test_a_candidate_that_runs_is_waited_for_while_another_one_is_read(case):
    job = case()
    job.creates(amid(True, STRANGERS)(job))

    def prolong():
        stranger = job.sandbox._batches[job.batches()[0]]
        stranger.ends += timedelta(hours=1)

    job.at(200, prolong)
    job.at(5000, job.release)
    job.run(*SLOWLY)
    job.check()


def test_responses_to_some_polls_that_are_no_batches_are_no_question(case):
    job = case(ids=IDS[:2], seconds=3600, retrieve=[reply(), None] * 4)
    job.run("--no-wait", status=4)
    job.at(5000, job.release)
    job.run(*SLOWLY)
    job.check()


def test_a_question_about_a_part_in_doubt_lets_the_others_end(case):
    job = case(ids=[*IDS, "r4", "r5"], seconds=3600)
    job.creates(None, then(lambda: hide(job), GONE))
    job.at(5000, job.release)
    seen = job.run(*SLOWLY, status=1)
    assert "part 1 of 3 (2 requests): 2 results" in seen and "--disown" in seen
    assert len(job.batches()) == 1


@pytest.mark.parametrize("name", ["create", "list", "retrieve", "results"])
@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_key_that_is_refused_stops_a_run_that_can_go_on(case, name, status):
    job = case(**{name: [None, refusal(status)]})
    seen = job.run(status=1)
    assert "error_40" in seen and "disown" not in seen
    job.run()
    job.check()


def test_a_create_for_which_there_is_no_address_stops_the_run(case):
    job = case(create=[refusal(404)])
    job.run(status=1)
    job.run()
    job.check()


def test_before_the_first_response_an_error_is_told_after_the_retries(case):
    faults = [GONE] * 3
    job = case(count_tokens=faults, list=faults)
    assert "Connection error" in job.run(status=1)
    assert os.listdir() == ["r.jsonl"]
    assert len(job.server.received) == 6
    job.run()
    job.check()


def test_a_full_queue_is_waited_out_while_what_has_ended_is_collected(case):
    full = refusal(429, {"retry-after": "3000"}, "the queue is full")
    job = case(create=[None, full, full, full])
    seen = job.run()
    assert seen.index("2 results") < seen.index("part 2 of 2 (2 requests): batch")
    # What was refused is in no doubt, and what was collected has made room.
    assert "looking" not in seen and job.clock.now < 8000
    job.check()


def test_a_refused_create_is_not_sent_again_before_the_server_asks_for_it(case):
    full, times = refusal(429, {"retry-after": "3000"}), []
    job = case(seconds=3600)
    note = then(lambda: times.append(job.clock.now))
    job.creates(None, *[full] * 9, note)
    begin = job.clock.now
    job.at(40_000, job.release)
    job.run(*SLOWLY)
    assert times[0] >= begin + 9 * 3000
    assert len(job.server.named("retrieve")) > 9
    job.check()


def test_a_spend_limit_stops_the_run_which_can_go_on_later(case):
    details = {"error_code": "enforced_spend_limit_reached"}
    limit = api_error("limit", "rate_limit_error", details=details)
    job = case(create=[None, *[reply(429, limit)] * 3])
    seen = job.run(status=1)
    assert "limit is raised" in seen and job.batches()[0] in seen
    job.run()
    job.check()


def test_without_waiting_a_job_is_done_run_by_run(case):
    full = refusal(429, {"retry-after": "3000"})
    job = case(create=[None, full, full, full, GONE], seconds=3600)
    job.run("--no-wait", status=4)
    begin = job.clock.now
    # The second part is in doubt after this run.
    job.run("--no-wait", status=4)
    assert job.clock.now < begin + 300
    # Settle is waited for, else cron would never end a doubt.
    job.run("--no-wait", status=4)
    assert job.clock.now >= begin + 300
    job.release(job.batches()[0])
    assert "2 results" in job.run("--no-wait", status=4)
    job.release()
    job.run("--no-wait")
    job.check()


# ---- The job: finish ---------------------------------------------------------------


SUMS = (
    result("r0", message=message(input_tokens=1, output_tokens=2)),
    result("r1", message=message("max_tokens", "n", cache_read_input_tokens=1005)),
    result("r2", "errored", error=failing("invalid_request_error")),
    result("r3", "errored", error=failing("api_error")),
)


def with_rows(job, *results):
    """Have the batches give these rows."""

    def choose(request):
        made = job.sandbox._batches[request.path.split("/")[-2]].requests
        own = {custom_id for custom_id, *_ in made}
        lines = [json.dumps(one) for one in results if one["custom_id"] in own]
        return reply(body="\n".join([*lines, ""]).encode())

    job.server.faults["results"] = itertools.repeat(choose)


def test_the_summary_counts_rows_tokens_stops_and_failures(case):
    job = case()
    with_rows(job, *SUMS)
    seen = job.run(status=3)
    for words in (
        "4 requests: 2 succeeded, 2 errored",
        "1 × api_error: no luck",
        "worth running again: 1; failing again as they are: 1",
        "1 stopped by max_tokens",
        "tokens of m: 1 in, 0 cache write, 0 cache read, 2 out",
        "tokens of n: 0 in, 0 cache write, 1,005 cache read, 0 out",
        "out.failed.jsonl",
    ):
        assert words in seen
    assert "end_turn" not in seen
    failed = rows(read("out.failed.jsonl"))
    assert [one["custom_id"] for one in failed] == ["r2", "r3"]
    job.check(failed=True)


def test_a_summary_of_many_kinds_stays_small(case, monkeypatch):
    ids = [f"r{number}" for number in range(8)]
    job = case(ids=ids)
    monkeypatch.setattr(claude_batches, "MAX_NAMES", 3)
    many = [message(one, one, input_tokens=1) for one in ids]
    with_rows(job, *[result(one, message=each) for one, each in zip(ids, many)])
    seen = job.run()
    assert seen.count("tokens of") == 4
    assert "tokens of others: 5 in" in seen and "5 stopped by others" in seen


ODD_RESULTS = (
    None,
    1,
    {},
    [],
    {"type": []},
    {"type": "errored", "error": "no"},
    {"type": "errored", "error": {"type": "error", "error": "no"}},
    {"type": "errored", "error": {"error": {"type": [], "message": {}}}},
    {"type": "expired", "message": "no"},
    {"type": "errored", "message": {"usage": "no"}},
    {"type": "succeeded", "message": message([], [], input_tokens="1")},
    {"type": "succeeded", "message": message({}, {}, input_tokens=10**5000)},
    {"type": "succeeded", "message": []},
)


def test_an_odd_row_ends_no_job(case):
    ids = [f"r{number}" for number in range(len(ODD_RESULTS))]
    job = case(ids=ids)
    odd = [{"custom_id": one, "result": each} for one, each in zip(ids, ODD_RESULTS)]
    with_rows(job, *odd)
    job.run(status=3)
    job.check(failed=True)


def test_what_the_api_will_refuse_is_a_warning_before_a_byte_leaves(case, cli):
    case()
    params = [{"stream": True}, {"betas": ["x"]}, {"timeout": 3}, {"extra_body": {}}]
    params += [{"extra_headers": {}}, {"extra_query": {}}, {"top_p": 1.0}]
    lines = [request_of(f"r{at}", **one) for at, one in enumerate(params)]
    write("r.jsonl", *lines, *[request_of(f"s{at}", top_k=1) for at in range(20)])
    status, _, seen = cli(*RUN, "--dry-run")
    assert status == 0 and "7 more warnings" in seen
    for number, one in enumerate(params, 1):
        assert re.search(f"r.jsonl:{number}: warning: .*{next(iter(one))}", seen)


def failing_at(number, failed):
    """Return a function to put before a change of the folder; the n-th one fails."""
    count = itertools.count(1)

    def before(real, *args):
        if next(count) == number:
            failed.append(real)
            raise OSError(28, "No space left on device", args[-1])
        real(*args)

    return before


@pytest.mark.parametrize("number", range(1, 16))
def test_a_disk_that_is_full_stops_a_run_and_loses_nothing(case, monkeypatch, number):
    job = case(ids=("expired0", *IDS[1:]), create=[None, LOST])
    failed = []
    before = failing_at(number, failed)
    with monkeypatch.context() as patch:
        for name in ("replace", "link", "unlink"):
            step = functools.partial(before, getattr(os, name))
            patch.setattr(os, name, step)
        status, _, seen = job._cli(*RUN)
    # Where no link can be made, a rename does.
    assert status == (3 if failed in ([], [os.link]) else 1)
    assert status == 3 or "No space left" in seen
    if not job.is_done():
        job.run(status=3)
    job.check(failed=True)


def test_a_finish_takes_no_other_rows_than_those_that_were_collected(case, monkeypatch):
    job = case()
    remove = os.unlink

    def unlink(path):
        if path.endswith(".job"):
            raise OSError(5, "it is held")
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        job.run(status=1)
    whole = read("out.jsonl")
    for damaged in (whole[:-10], whole.replace(b"custom_id", b"kustom_id")):
        pathlib.Path("out.jsonl").write_bytes(damaged)
        assert "does not have the rows" in job.run(status=1)
    pathlib.Path("out.jsonl").write_bytes(whole)
    job.run()
    job.check()


# ---- The job: kills ----------------------------------------------------------------


def doubted(serve, folder, ids=("expired0", *IDS[1:]), **options):
    """Return a job of which a response is lost."""
    return Case(serve(create=[None, LOST], **options), folder, ids)


@posix
def test_killed_at_each_change_of_the_folder_a_job_ends_as_if_nothing_had_happened(
    serve, tmp_path
):
    calm = doubted(serve, tmp_path / "calm")
    status, out, _ = calm.end()
    calm.check(failed=True)
    assert status == 3 and int(out[0]) >= 12

    def killed(at):
        job = doubted(serve, tmp_path / "_".join(map(str, at)))
        assert job.end(at=at)[0] == -signal.SIGKILL
        if not job.is_done():
            assert job.end()[0] == 3
        job.check(failed=True)

    moments = range(1, int(out[0]) + 1)
    all_of(killed, [[number, "before"] for number in moments])
    # The last change is the end.
    all_of(killed, [[number, "after"] for number in moments[:2]])


def test_killed_at_random_moments_a_job_ends_as_if_nothing_had_happened(
    serve, tmp_path
):
    # CLAUDE_BATCHES_KILLS=200 takes some minutes.
    kills = int(os.environ.get("CLAUDE_BATCHES_KILLS") or 8)
    seed = random.randrange(10**6)
    print(f"seed {seed}")

    def kill(number):
        dice = random.Random(seed + number)
        creates = [None, LOST, refusal(503), reply(409, work=True)]
        creates += [Fault(b"", work=0.1), Fault(date=3600), GONE]
        cuts = [dice.choice([None, Fault(cut=dice.randrange(900))]) for _ in range(6)]
        faults = {"create": [dice.choice(creates) for _ in range(6)], "results": cuts}
        server = serve(seconds=dice.choice([0, 0.2]), **faults)
        job = Case(server, tmp_path / str(number), [f"r{at}" for at in range(6)])
        for _ in range(2):
            process = job.start()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(dice.uniform(0.1, 0.7))
            process.kill()
            finish(process)
            job.other("x", "y")
        if not job.is_done():
            assert job.end()[0] == 0
        job.check()

    all_of(kill, range(max(kills // 2, 1)))


def test_killed_while_rows_come_in_none_is_lost_or_doubled(serve, tmp_path):
    stall = Fault(cut=700, end="stall")
    job = Case(serve(results=[None, stall]), tmp_path)
    process = job.start()
    job.until(lambda: len(job.server.named("results")) == 2)
    process.kill()
    finish(process)
    with open("out.jsonl.part", "ab") as file:
        # As a power cut may leave it.
        file.write(b'{"custom_id":"r3"')
    assert job.end()[0] == 0
    job.check()


@posix
def test_a_batch_id_is_printed_before_it_is_written_down(serve, tmp_path):
    job = Case(serve(), tmp_path)
    # After the new journal and closing.
    _, _, seen = job.end(at=[3, "before"])
    assert job.batches()[0] in seen
    assert job.batches()[0].encode() not in read("out.jsonl.job")


@posix
def test_an_interrupted_create_may_have_made_a_batch(serve, tmp_path):
    job = Case(serve(create=[LOST._replace(end="stall")]), tmp_path)
    process = job.start()
    job.until(job.batches)
    process.send_signal(signal.SIGINT)
    status, _, seen = finish(process)
    assert status == 130 and "part 1 of 2 (2 requests): its batch may exist" in seen
    assert "taken over" in job.end()[2]
    job.check()


def test_of_two_runs_at_once_one_is_refused(serve, tmp_path):
    job = Case(serve(seconds=3600), tmp_path)
    first = job.start()
    job.until(lambda: job.server.named("retrieve"))
    status, _, seen = job.end()
    assert status == 1 and "Another run is at work" in seen
    job.release()
    assert finish(first)[0] == 0
    job.check()


@posix
@pytest.mark.parametrize("begins", [False, True])
def test_a_lock_on_a_file_that_is_gone_is_none(case, monkeypatch, begins):
    import fcntl

    real = fcntl.flock

    def ended(file, how):
        os.unlink("out.jsonl.part")
        if begins:
            write("out.jsonl.part")
        real(file, how)

    job = case()
    monkeypatch.setattr(fcntl, "flock", ended)
    assert "has just ended" in job.run(status=1)
    assert not job.server.received


@posix
def test_250_000_requests_go_out_in_three_parts_within_flat_memory(tmp_path):
    # That they fail costs more memory, and their rows less time.
    ids = [f"expired{number}" for number in range(250_000)]
    with Sandbox(seconds=0.0) as sandbox:
        job = Case(sandbox, tmp_path, ids)
        status, out, _ = job.end("--no-check", MAX_BATCH_REQUESTS=100_000)
        assert status == 3
        assert [len(part) for part in job.parts()] == [100_000, 100_000, 50_000]
        job.check(failed=True)
    assert len(out) < 2 or int(out[1]) < 120 * 1024


def test_interrupted_before_it_goes_on_a_run_tells_the_batches_too(case, monkeypatch):
    job, ids = begun(case)
    monkeypatch.setattr(claude_batches.Job, "plan", lambda job: interrupt())
    seen = job.run(status=130)
    assert f"billed: {', '.join(ids)}" in seen


def test_a_job_that_stopped_can_be_run_again_in_the_same_process(case):
    server = case(results=[None, *[Fault(cut=500)] * 3, refusal(401)]).server
    progress = types.SimpleNamespace(
        message=print, waiting=print, batches=print, again=print, command=print
    )
    job = claude_batches.Job(
        client_of(server), "r.jsonl", "out.jsonl", progress=progress
    )
    failure_of(job.run)
    assert len(job.open_batches) == 1
    assert job.run() == 0
    assert len(rows(read("out.jsonl"))) == 4


# ---- Sandbox -----------------------------------------------------------------------


def new_batch(served, *requests):
    return served.batches.create(requests=requests or requests_of("a", "b"))


def ended_batch(served, *requests):
    """Return the id of a batch that has ended in a sandbox."""
    batch = new_batch(served, *requests)
    end(served, batch)
    return batch.id


def check_refusal(response, error_type="invalid_request_error", word=""):
    """Check an error response, which has the API's own form."""
    status, headers, raw = response
    body = json.loads(raw)
    assert status >= 400
    assert body["type"] == "error"
    assert body["request_id"] == headers["request-id"]
    assert body["error"]["type"] == error_type
    assert word in body["error"]["message"]


def files():
    return sorted(os.listdir("."))


def newest(served):
    """Return the batch of a sandbox that was made last."""
    return served.batches.list(limit=1).data[0]


def types_of(results):
    """Return what became of each request, by its custom_id."""
    return {row.custom_id: row.result.type for row in results}


def results_in(raw):
    """Return the results of rows by their custom_id."""
    return {row["custom_id"]: row["result"] for row in rows(raw)}


def json_line(value):
    """Return the line that a command prints of an object."""
    fields = value if isinstance(value, dict) else value.to_dict()
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def test_the_sandbox_lives_as_long_as_its_block():
    with Sandbox() as served:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", served.url)
        assert ask(served, "GET", BATCHES)[0] == 200
    with pytest.raises(OSError):
        ask(served, "GET", BATCHES)


FOUND = [
    "GET /v1/messages/batches",
    "POST /v1/messages/batches",
    "POST /v1/messages/count_tokens",
    "GET /v1/models",
    "GET /v1/models/claude-opus-4-6",
]
NOT_THERE = [
    "GET /v1/messages/batches/none",
    "GET /v1/messages/batches/none/results",
    "POST /v1/messages/batches/none/cancel",
    "DELETE /v1/messages/batches/none",
    "GET /v1/models/none",
    # Methods and paths that the API has not.
    "DELETE /v1/messages/batches",
    "GET /v1/messages/count_tokens",
    "POST /v1/models",
    "GET /v2",
]
BODIES = {
    BATCHES: {"requests": requests_of("a")},
    COUNT: {"model": "m", "messages": [1]},
}


@pytest.mark.parametrize("call", FOUND + NOT_THERE)
def test_the_sandbox_sends_the_headers_of_the_api_and_needs_a_key(sandbox, call):
    method, path = call.split()
    request = (sandbox, method, path, BODIES.get(path) if method == "POST" else None)
    status, headers, _ = response = ask(*request)
    if call in FOUND:
        assert status == 200
    else:
        assert status == 404
        check_refusal(response, "not_found_error", "sandbox")
    assert headers["content-type"] == "application/json"
    assert headers["request-id"].startswith("req_sandbox")
    assert headers["anthropic-organization-id"] == "sandbox"
    sent_at = email.utils.parsedate_to_datetime(headers["date"])
    assert abs(sent_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert ask(*request, **{"x-api-key": "key"})[0] == status
    unsigned = ask(*request, accept="*/*")
    assert unsigned[0] == 401
    check_refusal(unsigned, "authentication_error", "sandbox")


OUTCOMES = {"a": "succeeded", "expired-b": "expired", "c": "errored"}
CANCELED = {"a": "canceled", "expired-b": "canceled", "c": "errored"}


@pytest.mark.parametrize("outcomes", [OUTCOMES, CANCELED], ids=["ended", "canceled"])
def test_a_batch_is_in_progress_until_it_has_ended(slow, outcomes):
    requests = [*requests_of("a", "expired-b"), request_of("c", stream=True)]
    batch, status = new_batch(slow, *requests), "in_progress"
    path = f"{BATCHES}/{batch.id}"
    none = dict.fromkeys(batch.request_counts.to_dict(), 0)
    if outcomes is CANCELED:
        batch, status = slow.batches.cancel(batch.id), "canceling"
        assert batch.cancel_initiated_at >= batch.created_at
        assert slow.batches.cancel(batch.id) == batch
    assert batch.processing_status == status
    assert batch.request_counts.to_dict() == {**none, "processing": 3}
    assert batch.results_url is batch.ended_at is batch.archived_at is None
    assert int(ask(slow, "GET", path)[1]["retry-after"]) > 0
    check_refusal(ask(slow, "GET", path + "/results"), "not_found_error")

    end(slow, batch)
    batch = slow.batches.retrieve(batch.id)
    counts = collections.Counter(outcomes.values())
    assert batch.processing_status == "ended"
    assert batch.request_counts.to_dict() == {**none, **counts}
    assert batch.results_url == f"{slow.url}{path}/results"
    assert "retry-after" not in ask(slow, "GET", path)[1]
    # A cancel that comes too late is no error.
    assert slow.batches.cancel(batch.id) == batch
    types = types_of(slow.batches.results(batch.id))
    assert types == outcomes
    # The API promises no order.
    assert list(types) != list(outcomes)


def test_results_of_the_sandbox_are_rows_as_the_api_sends_them(slow):
    batch_id = ended_batch(slow, request_of("a"), request_of("b", stream=True))
    _, headers, raw = ask(slow, "GET", f"{BATCHES}/{batch_id}/results")
    assert headers["content-type"] == "application/x-jsonl"
    assert headers["transfer-encoding"] == "chunked"
    results = results_in(raw)
    message, error = results["a"]["message"], results["b"]["error"]
    assert (message["role"], message["model"]) == ("assistant", HELLO["model"])
    assert "sandbox" in message["content"][0]["text"]
    assert message["usage"]["service_tier"] == "batch"
    assert (error["type"], error["request_id"]) == ("error", None)


def test_only_an_ended_batch_can_be_deleted_and_then_it_is_gone(slow):
    batch = new_batch(slow)
    path = f"{BATCHES}/{batch.id}"
    check_refusal(ask(slow, "DELETE", path))
    end(slow, batch)
    deleted = {"id": batch.id, "type": "message_batch_deleted"}
    assert json.loads(ask(slow, "DELETE", path)[2]) == deleted
    for call in ("GET {}", "DELETE {}", "GET {}/results", "POST {}/cancel"):
        response = ask(slow, *call.format(path).split())
        check_refusal(response, "not_found_error")
    nothing = {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert json.loads(ask(slow, "GET", BATCHES)[2]) == nothing


# Requests that break a rule, each after one whose custom_id is "first", and a word of
# the rule.
WRONG_REQUESTS = [
    (b"{", "JSON"),
    (b"{'a': 1}", "JSON"),
    (b"[" * 100000, ""),
    (b"[]", "object"),
    (b"1", "object"),
    (b"{}", "custom_id"),
    (b'{"params":{}}', "custom_id"),
    (b'{"custom_id":1,"params":{}}', "custom_id"),
    (b'{"custom_id":"","params":{}}', "custom_id"),
    (b'{"custom_id":"a b","params":{}}', "custom_id"),
    (b'{"custom_id":"a\\n","params":{}}', "custom_id"),
    (b'{"custom_id":"\xc3\xa9","params":{}}', "custom_id"),
    (b'{"custom_id":"%b","params":{}}' % (b"a" * 65), "custom_id"),
    (b'{"custom_id":"first","params":{}}', "unique"),
    (b'{"custom_id":"a"}', "params"),
    (b'{"custom_id":"a","params":[]}', "params"),
    (b'{"custom_id":"a","params":{},"more":1}', "'more'"),
    (b'{"custom_id":"a","params":{"x":NaN}}', "JSON"),
    (b'{"custom_id":"a","params":{"x":"\\ud800"}}', "surrogate"),
]


# Bodies of a create.
WRONG_BODIES = [
    (b"", "JSON"),
    (b"[]", "requests"),
    (b"{}", "requests"),
    (b'{"requests":[]}', "requests"),
    (b'{"requests":{}}', "requests"),
    (b'{"requests":[{"custom_id":"a","params":{}}],"more":1}', "requests"),
]
WRONG_BODIES += [
    (b'{"requests":[{"custom_id":"first","params":{}},%b]}' % one, word)
    for one, word in WRONG_REQUESTS
]


@pytest.mark.parametrize("body, word", WRONG_BODIES, ids=itertools.count())
def test_the_sandbox_refuses_a_create_that_breaks_a_rule(untouched, body, word):
    check_refusal(ask(untouched, "POST", BATCHES, body), word=word)


# Of five batches, newest first: the query, in which {1} is the id of that at place 1;
# the places on the page; whether there are more.
@pytest.mark.parametrize(
    "query, places, has_more",
    [
        ("", "01234", False),
        ("limit=5", "01234", False),
        ("limit=2", "01", True),
        ("limit=2&after_id={1}", "23", True),
        ("limit=2&after_id={2}", "34", False),
        ("limit=2&after_id={4}", "", False),
        ("limit=2&before_id={4}", "23", True),
        ("limit=2&before_id={2}", "01", False),
        ("limit=2&before_id={1}", "0", False),
        ("limit=2&before_id={0}", "", False),
    ],
)
def test_the_sandbox_pages_newest_first(slow, query, places, has_more):
    newest = [new_batch(slow).id for _ in range(5)][::-1]
    page = json.loads(ask(slow, "GET", f"{BATCHES}?{query.format(*newest)}")[2])
    ids = [newest[int(place)] for place in places]
    assert [batch["id"] for batch in page["data"]] == ids
    assert page["has_more"] is has_more
    ids = ids or [None]
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[-1])


@pytest.mark.parametrize("path", [BATCHES, MODELS])
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        # A digit that is none: a superscript two.
        "limit=%C2%B2",
        "after_id=none",
        "before_id=none",
    ],
)
def test_a_limit_or_cursor_that_cannot_be_is_refused(sandbox, path, query):
    response = ask(sandbox, "GET", f"{path}?{query}")
    check_refusal(response)


def test_models_are_listed_by_lifecycle_and_found_by_alias(sandbox):
    models = client_of(sandbox).models
    listed = list(models.list(limit=1))
    assert {model.lifecycle for model in listed} == {"active", "deprecated"}
    for wanted in (["active"], ["retired"], ["active", "retired"]):
        lifecycles = {model.lifecycle for model in models.list(lifecycle=wanted)}
        assert lifecycles == set(wanted)
    opus = models.retrieve("claude-opus-4-6")
    assert opus in listed
    assert models.retrieve("claude-opus-4-1").id == "claude-opus-4-1-20250805"


def test_count_tokens_takes_what_the_api_takes(sandbox):
    names = "system tools tool_choice thinking cache_control output_config speed"
    body = {**BODIES[COUNT], **dict.fromkeys(names.split())}
    count = json.loads(ask(sandbox, "POST", COUNT, body)[2])
    assert list(count) == ["input_tokens"]
    assert count["input_tokens"] > 0


@pytest.mark.parametrize(
    "change",
    [
        '{"max_tokens": 1}',
        '{"stream": false}',
        '{"metadata": {}}',
        '{"model": null}',
        '{"messages": []}',
        '{"\\ud800": 1}',
    ],
)
def test_count_tokens_takes_nothing_else(sandbox, change):
    body = {**BODIES[COUNT], **json.loads(change)}
    check_refusal(
        ask(sandbox, "POST", COUNT, body), word=re.search(r"\w+", change).group()
    )


def test_the_sandbox_serves_several_at_a_time_and_keeps_no_bodies(slow):
    # A client that is silent keeps nobody waiting.
    with socket.create_connection(urllib.parse.urlsplit(slow.url).netloc.split(":")):
        new_batch(slow, request_of("a", system="needle"))
    assert "needle" not in repr(slow._batches)


# ---- Command line: one command at a time -------------------------------------------


def check(outcome, status, *words, out=b""):
    """Check what a command printed; return what a person sees, which has these words.

    ``out``: its output; None for any.
    """
    assert outcome[0] == status, outcome
    assert out in (None, outcome[1])
    for word in words:
        assert word in outcome[2]
    assert "Traceback" not in outcome[2]
    assert KEY not in outcome[2]
    return outcome[2]


@pytest.fixture
def sh(cli):
    """Run a command as it is typed, and check what it printed."""

    def run(command, *expected, out=b"", stdin=b""):
        outcome = cli(*shlex.split(command), stdin=stdin)
        return check(outcome, *expected, out=out)

    return run


@pytest.fixture
def served(serve, monkeypatch):
    """Start a Server to which the environment leads."""
    return lambda **options: lead_to(serve(**options), monkeypatch)


@pytest.fixture
def one_request():
    return write("r.jsonl", request_of("a"))


def make_file(request):
    """Be the fault of a request during which RESULTS appears."""
    write("out.jsonl", b"precious")
    return Fault()


def test_create_prints_the_batch_of_a_file_or_of_standard_input(slow, sh):
    first, second = (json.dumps(one).encode() for one in requests_of("a", "b"))
    write("r.jsonl", b"\xef\xbb\xbf" + first + b"\r", b"\r", second)
    for command in ("create r.jsonl", "create -"):
        assert sh(command, 0, out=None, stdin=read("r.jsonl")) == ""
        assert newest(slow).request_counts.processing == 2
    assert len(slow.batches.list().data) == 2


def test_retrieve_cancel_and_delete_print_the_response(slow, cli, sh):
    batch = new_batch(slow)
    sh(f"retrieve {batch.id}", 0, out=json_line(batch))
    status, out, _ = cli("cancel", batch.id + " ")
    assert (status, rows(out)[0]["processing_status"]) == (0, "canceling")
    sh(f"delete {batch.id}", 1, "400", "cancel it before")
    end(slow, batch)
    deleted = {"id": batch.id, "type": "message_batch_deleted"}
    sh(f"delete {batch.id}", 0, out=json_line(deleted))
    words = "404", batch.id, "request id req_sandbox", "is the id one of"
    err = sh(f"retrieve {batch.id}", 1, *words)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "max_tokens, expected, counts",
    [(9, 0, "2 succeeded"), (0, 3, "1 succeeded, 1 errored")],
)
def test_the_status_of_wait_and_results_tells_whether_all_succeeded(
    sandbox, sh, max_tokens, expected, counts
):
    batch = new_batch(sandbox, request_of("a"), request_of("b", max_tokens=max_tokens))
    out = json_line(sandbox.batches.retrieve(batch.id))
    err = sh(f"wait {batch.id} --poll-interval 0.01", expected, out=out)
    assert err.splitlines()[-1] == f"ended: {counts}"
    sh(f"results {batch.id}", expected, out=None)


def words_at(line):
    """Return the columns in which a word begins."""
    return {match.start() for match in re.finditer(r"\S+", line)}


def test_list_prints_aligned_columns_or_json(slow, cli, sh):
    sh("list", 0, out=b"ID  STATUS  CREATED  REQUESTS  SUCCEEDED  ERRORED\n")
    sh("list --json", 0)
    requests = [request_of("a"), request_of("b", max_tokens=0)]
    ids = [ended_batch(slow, *requests) for _ in range(3)][::-1]
    head, *lines = cli("list")[1].decode().splitlines()
    pattern = r"(\w+)  ended +\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ +2 +1 +1"
    assert [re.fullmatch(pattern, line).group(1) for line in lines] == ids
    assert all(words_at(head) <= words_at(line) for line in lines)
    batches = map(slow.batches.retrieve, ids)
    sh("list --json", 0, out=b"".join(map(json_line, batches)))


def test_control_characters_of_a_response_are_visible_in_a_table(served, cli):
    page = {"data": [batch_json(id="b\x1b[2J")], "has_more": False}
    served(list=[reply(body=page)])
    assert cli("list")[1].splitlines()[1].startswith(b"b\\x1b[2J  ended")


@pytest.mark.parametrize("limit, pages", [(1, 1), (2, 1), (3, 2), (9, 2)])
def test_list_fetches_the_pages_that_its_limit_needs(served, cli, limit, pages):
    bodies = (page_json("4", "3", more=True), page_json("2", "1"))
    server = served(list=[reply(body=body) for body in bodies])
    out = cli("list", "--json", "--limit", str(limit))[1]
    assert [row["id"] for row in rows(out)] == list("4321")[:limit]
    assert len(server.named("list")) == pages


def test_models_are_listed_in_columns_or_as_json_and_one_is_printed(sandbox, cli, sh):
    models = client_of(sandbox).models
    out = b"".join(map(json_line, models.list()))
    sh("models --json", 0, out=out)
    head, *lines = cli("models")[1].decode().splitlines()
    assert head.split() == ["ID", "NAME", "LIFECYCLE", "CREATED", "BATCH"]
    assert [line.split()[0] for line in lines] == [row["id"] for row in rows(out)]
    pattern = r"claude-opus-4-6  +Claude Opus 4.6 +active +2026-02-04  yes"
    assert any(re.fullmatch(pattern, line) for line in lines)
    one = json_line(models.retrieve("claude-opus-4-1"))
    sh("models claude-opus-4-1", 0, out=one)
    sh("models none", 1, "404")


def test_results_are_printed_or_saved_byte_for_byte(slow, sh):
    batch = new_batch(slow)
    sh(f"results {batch.id} -o early.jsonl", 1, "in_progress")
    end(slow, batch)
    raw = ask(slow, "GET", f"{BATCHES}/{batch.id}/results")[2]
    sh(f"results {batch.id} -o -", 0, out=raw)
    sh(f"results {batch.id} -o out.jsonl", 0)
    sh(f"results {batch.id} --output out.jsonl", 2, "out.jsonl exists")
    sh(f"results {batch.id} -o no/such/out.jsonl", 2, "no folder")
    assert read("out.jsonl") == raw
    assert files() == ["out.jsonl"]


def test_odd_results_are_printed_as_they_came(served, sh):
    raw = b'{"custom_id":"a","result":1}\n{ "custom_id":"b" }\n'
    server = served(results=[reply(body=raw)])
    sh(f"results {server.batch_id}", 3, out=raw)


def test_results_that_stay_torn_leave_no_file(served, sh):
    server = served(results=itertools.repeat(reply(body=rows_json(["a"]))))
    sh(f"results {server.batch_id} -o out.jsonl", 1, "1 of 2")
    assert files() == []


def test_results_never_replace_a_file_that_appeared_meanwhile(served, sh):
    server = served(results=[make_file])
    sh(f"results {server.batch_id} -o out.jsonl", 2, "exists")
    assert files() == ["out.jsonl"]
    assert read("out.jsonl") == b"precious\n"


def test_count_tokens_sends_what_the_endpoint_takes_and_sums_up(served, cli, sh):
    server = served()
    more = {"temperature": 1, "stream": True, "metadata": {}}
    write("r.jsonl", request_of("a", **more), request_of("b", system="Be brief"))
    status, out, err = cli("count-tokens", "r.jsonl")
    counts = dict(line.split("\t") for line in out.decode().splitlines())
    assert (status, list(counts)) == (0, ["a", "b"])
    assert f"{sum(map(int, counts.values()))} input tokens" in err
    names = [set(json.loads(one.body)) for one in server.named("count_tokens")]
    assert names == [{"model", "messages"}, {"model", "messages", "system"}]
    sh("count-tokens -", 0, out=out, stdin=read("r.jsonl"))


def test_a_count_that_is_missing_is_an_error(served, sh, one_request):
    served(count_tokens=[Fault(changes={"input_tokens": None})])
    err = sh("count-tokens r.jsonl", 1, "custom_id 'a'", "input_tokens")
    assert err.count("\n") == 1


# ---- Command line: run -------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Have a batch of run --sandbox end at once."""
    defaults = {"port": 0, "seconds": 0.0}
    monkeypatch.setattr(Sandbox.__init__, "__kwdefaults__", defaults)


def test_run_does_a_whole_job_and_reports_it(sandbox, sh):
    write("r.jsonl", *requests_of("a", "b"))
    words = (
        "2 requests: 2 succeeded\n",
        "tokens of claude-opus-4-6: 20 in, 0 cache write, 0 cache read, 24 out",
        "results: out.jsonl",
    )
    err = sh("run r.jsonl -o out.jsonl --poll-interval 0.01", 0, *words)
    batch = newest(sandbox)
    assert set(re.findall(r"msgbatch_sandbox_\w+", err)) == {batch.id}
    assert f"batches: {batch.id}" in err
    assert re.search(r"0:00:0\d elapsed", err)
    assert files() == ["out.jsonl", "r.jsonl"]
    raw = ask(sandbox, "GET", f"{BATCHES}/{batch.id}/results")[2]
    assert read("out.jsonl") == raw


def test_run_writes_what_failed_as_it_was_ready_to_be_run_again(sandbox, sh):
    params = json.dumps({**HELLO, "stream": True}).encode()
    one = b'{ "params":%b ,"custom_id":"one"}' % params
    fine, last = (json.dumps(one).encode() for one in requests_of("fine", "expired"))
    # A byte order mark, CRLF, blank lines, no newline at the end.
    lines = [b"\xef\xbb\xbf" + one, b"", fine, b"  ", last]
    pathlib.Path("r.jsonl").write_bytes(b"\r\n".join(lines))
    words = ("3 requests: ", "1 succeeded", "1 errored", "1 expired")
    more = ("r.jsonl:1: warning: ", "1 × invalid_request_error: ", "out.failed.jsonl")
    sh("run r.jsonl -o out.jsonl", 3, *words, *more)
    assert read("out.failed.jsonl") == one + b"\n" + last + b"\n"
    results = results_in(read("out.jsonl"))
    types = [results[name]["type"] for name in ("one", "fine", "expired")]
    assert types == ["errored", "succeeded", "expired"]
    sh("run out.failed.jsonl -o again", 3, "2 requests")
    assert read("again.failed") == read("out.failed.jsonl")


def test_run_in_the_sandbox_needs_no_key_and_keeps_only_the_results(
    quick, sh, one_request
):
    sh("run r.jsonl -o out.jsonl --sandbox", 0, "1 request: 1 succeeded")
    assert list(results_in(read("out.jsonl"))) == ["a"]
    assert files() == ["out.jsonl", "r.jsonl"]
    write("real.jsonl.job", b"of a real run")
    sh("run r.jsonl -o real.jsonl --sandbox", 1, "real.jsonl.job")
    assert read("real.jsonl.job") == b"of a real run\n"


def test_a_dry_run_prints_the_plan_without_a_key_and_sends_nothing(sh, monkeypatch):
    monkeypatch.setattr(claude_batches, "MAX_BATCH_REQUESTS", 2)
    requests = requests_of("a", "b", "c")
    requests[1]["params"] = {**HELLO, "model": "other"}
    write("r.jsonl", *requests)
    # The lines are sent as they are: their newlines make room for commas.
    size = sum(len(json.dumps(one)) + 1 for one in requests)
    size += len('{"requests":[]}') * 2 - 2
    plan = (
        f"requests: 3\nparts: 2\nbytes: {size}\n"
        "models: claude-opus-4-6 (2), other (1)\nmax_tokens: 30\n"
    )
    assert sh("run r.jsonl --dry-run", 0, out=plan.encode()) == ""
    assert files() == ["r.jsonl"]


# What of params the API refuses once it has taken the batch, and what it takes.
REFUSED_LATER = [
    '{"stream": true}',
    '{"speed": "fast"}',
    '{"max_tokens": 0}',
    '{"temperature": 0}',
    '{"top_p": 1}',
    '{"top_k": 1}',
    '{"model": null}',
    '{"max_tokens": null}',
    '{"messages": null}',
    '{"messages": [{"role": "assistant", "content": [{"type": "document"}]}]}',
    '{"messages": [{"role": "user", "content": [{"type": "text", "citations": [1]}]}]}',
    '{"billing_policy": {"bill_to": "user_profile"}}',
]
TAKEN = [
    '{"stream": false}',
    '{"temperature": null}',
    '{"system": "s"}',
    '{"messages": [1, {"role": "user", "content": [1, {"type": "document"}]}]}',
    '{"messages": [{"role": "assistant", "content": [{"type": "text"}]}]}',
]


@pytest.mark.parametrize("changes", REFUSED_LATER + TAKEN)
def test_what_the_api_refuses_later_is_a_warning_and_comes_back_errored(
    sandbox, sh, changes
):
    last = request_of("b", **json.loads(changes))
    write("r.jsonl", request_of("a"), b"", last)
    is_refused = changes in REFUSED_LATER
    err = sh("run r.jsonl -o out.jsonl", 3 if is_refused else 0)
    result = results_in(read("out.jsonl"))["b"]
    if is_refused:
        (name,) = json.loads(changes)
        assert err.startswith("r.jsonl:3: warning: ")
        assert name in err.splitlines()[0]
        assert result["error"]["error"]["type"] == "invalid_request_error"
        assert name in result["error"]["error"]["message"]
    else:
        assert "warning" not in err
        assert result["type"] == "succeeded"


def test_the_older_version_of_the_api_takes_a_temperature(sandbox, sh, monkeypatch):
    older = "anthropic-version: 2023-06-01"
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", older)
    write("r.jsonl", request_of("a", temperature=1))
    assert "warning" not in sh("run r.jsonl -o out.jsonl", 0)


def test_what_count_tokens_refuses_stops_a_run_in_the_words_of_the_api(untouched, sh):
    write("r.jsonl", request_of("a", messages=[]))
    sh("run r.jsonl -o out.jsonl", 2, "--no-check", "messages: Field required")
    assert files() == ["r.jsonl"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.failed.jsonl"])
@pytest.mark.parametrize("is_link", [False, pytest.param(True, marks=posix)])
def test_run_does_not_start_where_results_exist(
    untouched, sh, one_request, name, is_link
):
    if is_link:
        os.symlink("nowhere", name)
    else:
        write(name, b"precious")
    sh("run r.jsonl -o out.jsonl", 2, f"{name} exists")
    assert files() == [name, "r.jsonl"]
    assert is_link or read(name) == b"precious\n"


# ---- Command line: wrong input -----------------------------------------------------

# What the message about a line of a file says beyond the rule.
WRONG_LINES = [
    (b'{"custom_id":"a","params":{}} x', "column 31"),
    (b'"\xff"', "utf-8"),
    (b'{"custom_id":"a b","params":{}}', "custom_id 'a b': "),
    (b'{"custom_id":"a","params":{"x":NaN}}', "NaN"),
    (b'{"custom_id":"z","params":{"x":"\\uDe00"}}', "surrogate"),
    (b'{"custom_id":"z","params":{"x":"\xed\xa0\xbd"}}', "utf-8"),
    (b'{"custom_id":"z","params":{},"params":{}}', "twice"),
    # The API may read the first one, and this file the last.
    (b'{"custom_id":"z","params":{},"custom_\\u0069d":"y"}', "twice"),
    (b'{"custom_id":"z","params":{}}\x0b', "column"),
    (b'{"custom_id":"z","params":{}}\xc2\xa0', "column"),
]


@pytest.mark.parametrize(
    "line, word", WRONG_REQUESTS + WRONG_LINES, ids=itertools.count()
)
def test_a_wrong_line_is_named_and_nothing_is_sent(untouched, sh, line, word):
    write("r.jsonl", request_of("first"), b"", line)
    for command in (
        "run r.jsonl -o out",
        "run r.jsonl --dry-run",
        "create r.jsonl",
        "count-tokens r.jsonl",
        "create -",
        "count-tokens -",
    ):
        name = "standard input" if command.endswith("-") else "r.jsonl"
        err = sh(command, 2, word, stdin=read("r.jsonl"))
        assert err.startswith(f"claude_batches: {name}:3: ")
        assert err.count("\n") == 1
        assert len(err) < 300
    assert files() == ["r.jsonl"]


# A quotation mark inside an argument of a hint.
QUOTE = '\\"' if sys.platform == "win32" else '"'


def test_a_hint_about_standard_input_names_a_file_to_be_made_of_it(sh):
    sh("create -", 2, "FILE > FILE.jsonl", stdin=b"[]")


# What the message says about a file of another form.
WRONG_FILES = [
    (b"city,country\nOslo,Norway", "CSV"),
    (b'[\n  {"custom_id":"a"', ".[]"),
    (b'{"requests":[{"custom_id":"a","params":{}}]}', ".requests[]"),
    (b'{\n  "custom_id":"a"', "[inputs"),
    (b'{"custom_id":"a', "the next line"),
    (b'{"custom_id":"a","method":"POST","url":"/v1","body":{}}', f"model: {QUOTE}cl"),
    ('{"custom_id":"a"}'.encode("utf-16"), "utf8"),
    ('{"custom_id":"a"}'.encode("utf-16-le"), "utf8"),
    ('  {"custom_id":"é",,'.encode(), "column 20"),
    (b'\xef\xbb\xbf {"custom_id":"\xc3\xa9\xff', "column 17"),
]


@pytest.mark.parametrize("content, word", WRONG_FILES, ids=itertools.count())
def test_a_file_of_another_form_is_told_what_it_is_and_how_to_convert_it(
    untouched, sh, content, word
):
    write("r.jsonl", content)
    err = sh("run r.jsonl -o out", 2, "r.jsonl:1: ", word)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "command, word",
    [
        ("", "COMMAND"),
        ("none", "none"),
        ("run r.jsonl", "-o RESULTS is required"),
        ("run - -o out", "-: run needs a regular file"),
        ("run . -o out", "regular file"),
        ("run none.jsonl -o out", "none.jsonl: No such file"),
        ("run empty.jsonl -o out", "empty.jsonl: no requests"),
        ("run empty.jsonl -o .", ". exists and is a folder"),
        ("run r.jsonl -o out --settle inf", "--settle"),
        # A hint would say an abbreviated --disown again.
        ("run r.jsonl -o out --dis ID", "--dis"),
        ("run r.jsonl -o out --sandbox --no-wait", "--no-wait"),
        ("create", "REQUESTS"),
        ("create none.jsonl", "none.jsonl: No such file"),
        ("create empty.jsonl", "at least one"),
        ("count-tokens .", ".: "),
        ("count-tokens empty.jsonl", "no requests"),
        ("results a -o ''", "empty"),
        ("list --limit 0", "--limit"),
        # A limit that no list reaches, and no slice takes.
        ("list --limit 999999999999999999999999999999", "--limit"),
        ("retrieve", "ID"),
        ("retrieve ''", "non-empty"),
        ("retrieve \udcff", "id"),
        ("results ..", "'..'"),
        ("wait a --poll-interval -1", "--poll-interval"),
        ("sandbox --port 99999", "--port"),
        # A link to itself: unlike a mode, it keeps root out, too.
        pytest.param("run loop -o out", "loop: ", marks=posix),
        pytest.param("create loop", "loop: ", marks=posix),
    ],
    ids=itertools.count(),
)
def test_wrong_usage_and_files_that_cannot_be_read_are_exit_status_2(
    untouched, sh, command, word
):
    write("empty.jsonl", b"", b"  ")
    if "loop" in command:
        os.symlink("loop", "loop")
    before = files()
    assert word in sh(command, 2).splitlines()[-1]
    assert files() == before


@pytest.mark.parametrize("word", ["ANTHROPIC_API_KEY", "Connection error"])
@pytest.mark.parametrize(
    "command",
    [
        "create r.jsonl",
        "retrieve a",
        "list",
        "results a",
        "results a -o out",
        "cancel a",
        "delete a",
        "models",
        "models a",
        "count-tokens r.jsonl",
        "run r.jsonl -o out",
        "wait a",
    ],
)
def test_without_a_key_or_a_host_every_command_says_so_in_a_line_or_two(
    served, sh, one_request, command, word
):
    if word == "Connection error":
        served(is_listening=False)
    err = sh(command, 1)
    assert word in err.splitlines()[0]
    assert err.count("\n") <= 2
    assert files() == ["r.jsonl"]


# ---- Command line: what a person sees while it waits -------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"fileno": lambda: 99_999},
        # A ValueError, as Windows before 3.12 raises it.
        {"fileno": lambda: int("x")},
    ],
    ids=itertools.count(),
)
def test_the_status_line_takes_any_stream(sandbox, sh, monkeypatch, more):
    stream = io.StringIO()
    bare = types.SimpleNamespace(write=stream.write, flush=stream.flush, **more)
    monkeypatch.setattr(sys, "stderr", bare)
    sh(f"wait {new_batch(sandbox).id}", 0, out=None)
    assert stream.getvalue() == "ended: 2 succeeded\n"


def test_elsewhere_than_on_a_terminal_a_line_is_printed_per_change(
    served, sh, one_request
):
    # A count may be null.
    body = batch_json(request_counts={"processing": 1, "errored": None})
    progress, canceling = (
        reply(body={**body, "processing_status": status})
        for status in ("in_progress", "canceling")
    )
    # One outage under two request ids, and another one.
    first, same, other = (refusal(529, {"request-id": f"req_{n}"}) for n in range(3))
    # Each poll has two retries.
    outage, another = [first] * 3 + [same] * 3, [other] * 3
    faults = [progress, *outage, progress, progress, *another, canceling]
    server = served(retrieve=faults)
    lines = sh("run r.jsonl -o out", 0).splitlines()[1:6]
    counts = ["in_progress", "in_progress", "canceling"]
    assert lines[::2] == [f"{one}: 1 processing" for one in counts]
    assert ("req_0" in lines[1], "req_2" in lines[3]) == (True, True)
    assert len(server.named("retrieve")) > len(faults)


@posix
def test_a_log_in_a_file_has_times(one_request):
    with open("log", "wb") as log:
        finish(start("run", one_request, "-o", "out", "--sandbox", stderr=log))
    assert re.match(rb"[\d-]{10} [\d:]{8} part 1 of 1 \(1 request\)", read("log"))


@posix
@pytest.mark.parametrize("is_piped", [False, True])
def test_the_status_line_keeps_to_its_place_on_a_terminal(slow, is_piped):
    import fcntl
    import pty
    import termios

    def resize(columns):
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    batch = new_batch(slow)
    master, slave = pty.openpty()
    resize(80)
    stdout = subprocess.PIPE if is_piped else slave
    args = ("wait", batch.id, "--poll-interval", "0.01")
    process = start(*args, stderr=slave, stdout=stdout)
    os.close(slave)
    shown = b""
    # The end is EIO on Linux.
    with contextlib.suppress(OSError):
        for block in iter(lambda: os.read(master, 4096), b""):
            shown += block
            if shown.count(b"in_progress") >= 5:
                resize(62)
                end(slow, batch)
    os.close(master)
    status, out, _ = finish(process)
    line, *rest = shown.split(b"\r\n")
    printed = out if is_piped else rest.pop(0)
    assert (status, rest) == (0, [b""])
    assert rows(printed)[0]["processing_status"] == "ended"
    states = line.decode().split("\r")
    assert states[1].startswith("in_progress: 2 processing, 0:00:0")
    assert states[-1].startswith("ended: 2 succeeded, 0:00:0")
    # The last line is shorter, but hides all of the one before.
    assert max(map(len, states)) < 80 and len(states[-1]) == 61


# ---- Command line: streams ---------------------------------------------------------


def test_the_version_is_printed(sh):
    version = f"claude_batches {claude_batches.__version__}\n"
    sh("--version", 0, out=version.encode())


@posix
@pytest.mark.parametrize(
    "command", ["list", "models --json", "count-tokens r.jsonl", "results {}"]
)
def test_a_closed_pipe_ends_quietly(sandbox, one_request, command):
    reader, writer = os.pipe()
    os.close(reader)
    args = command.format(new_batch(sandbox).id).split()
    process = start(*args, stdout=writer)
    os.close(writer)
    assert finish(process)[::2] == (0, "")


@posix
@pytest.mark.parametrize("number, status", [(1, 1), (2, 0)])
def test_a_standard_stream_that_is_closed_hides_no_batch(
    sandbox, one_request, number, status
):
    process = start("create", one_request, preexec_fn=lambda: os.close(number))
    outcome = finish(process)
    assert newest(sandbox).id in str(outcome)
    check(outcome, status, out=None)


def test_a_standard_stream_that_is_none_is_an_empty_one(sandbox, sh, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    # A name that only some encodings can print.
    sh("create \udcff", 2)
    sh("list --limit 999999999", 0, out=None)
    monkeypatch.setattr(sys, "stdin", None)
    assert claude_batches.main(["create", "-"]) == 2


def test_results_are_printed_in_a_notebook_too(sandbox, sh, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    sh(f"results {new_batch(sandbox).id}", 0)
    assert list(results_in(stream.getvalue())) == ["b", "a"]


def test_an_output_that_cannot_encode_a_plan_is_no_error(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    path = write("r.jsonl", request_of("a", model="modèle"))
    status, out, err = finish(start("run", path, "--dry-run"))
    assert (status, err) == (0, "")
    assert b"requests: 1" in out


def test_integers_of_any_length_go_through(quick, served, sh):
    # More digits than Python reads, unless it is asked to.
    huge = b"9" * 5000
    limit_digits = getattr(sys, "set_int_max_str_digits", abs)
    line = b'{"custom_id":"a","params":{"model":"m","max_tokens":1,"messages":[%b]}}'
    write("r.jsonl", line % huge)
    limit_digits(4300)
    sh("run r.jsonl -o out --sandbox", 0)
    raw = b'{"custom_id":"a","result":{"type":"succeeded","message":{"n":%b}}}\n' % huge
    batch = reply(body=batch_json(size=1))
    served(retrieve=[batch], results=[reply(body=raw)])
    limit_digits(4300)
    sh("results msgbatch_1", 0, out=raw)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["create r.jsonl", "run r.jsonl --dry-run"])
def test_output_that_finds_no_room_is_an_error_and_hides_no_batch(
    sandbox, one_request, command
):
    with open("/dev/full", "wb") as file:
        status, _, err = finish(start(*command.split(), stdout=file))
    assert (status, err.count("No space")) == (1, 1)
    if command.startswith("create"):
        # Who does not see the id pays again.
        assert newest(sandbox).id in err
    else:
        assert err.count("\n") == 1


# ---- Command line: signals ---------------------------------------------------------

SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


def send_signal(process, number):
    """Interrupt a process, again where Python was just before a system call."""
    for _ in range(4):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(4)
            return


def interrupt_in_progress(process, number):
    """Interrupt a process once it has seen that its batch is in progress."""
    next(line for line in process.stderr if b"in_progress" in line)
    send_signal(process, number)
    return finish(process)


@posix
@pytest.mark.parametrize("number, status, word", SIGNALS)
@pytest.mark.parametrize("command", ["wait", "run"])
def test_a_signal_names_the_batch_and_how_to_go_on_or_cancel(
    slow, command, number, status, word
):
    if command == "run":
        path = write("my requests.jsonl", request_of("a"))
        args = ["run", path, "-o", "out.jsonl"]
    else:
        args = ["wait", new_batch(slow).id]
    outcome = interrupt_in_progress(start(*args), number)
    (batch,) = slow.batches.list()
    err = check(outcome, status, f"billed: {batch.id}")
    assert err.startswith(word)
    assert batch.processing_status == "in_progress"
    named = dict(line.split(": ", 1) for line in err.splitlines()[1:])
    own = [str(MODULE), *args]
    assert shlex.split(named["to go on"])[-len(own) :] == own
    own = [str(MODULE), "cancel", batch.id]
    assert shlex.split(named["to cancel"])[-3:] == own
    assert os.path.exists("out.jsonl.job") == (command == "run")
    assert not os.path.exists("out.jsonl")


# The faults of retrieve until the wait is interrupted.
@pytest.mark.parametrize(
    "faults",
    [
        # The batch is so fresh that it is not found at first.
        [refusal(404), refusal(404), None],
        # No poll after the first request comes through.
        [None, refusal(500)],
    ],
    ids=["fresh", "outage"],
)
def test_an_interrupted_wait_names_the_batch(served, sh, clock, monkeypatch, faults):
    def interrupt(seconds):
        if len(server.received) >= len(faults):
            raise KeyboardInterrupt

    server = served(seconds=3600, retrieve=faults)
    monkeypatch.setattr(clock, "sleep", interrupt)
    batch_id = server.batch_id
    err = sh(f"wait {batch_id}", 130, f"billed: {batch_id}", f"cancel {batch_id}")
    assert err.startswith("not found yet; it is looked for until 30 s") == bool(
        faults[0]
    )


# Where an object of http.client is half made, it complains as it goes.
@pytest.mark.filterwarnings("ignore")
def test_an_interrupt_is_never_lost(sandbox):
    def interrupt(frame, event, arg):
        # Python runs the handler of a signal where a function begins.
        if next(calls, None) is None:
            sys.settrace(None)
            raise KeyboardInterrupt

    client = client_of(sandbox)
    # The first call of a process imports more.
    client.models.list()
    for count in range(0, 300, 6):
        calls = iter(range(count))
        with pytest.raises(KeyboardInterrupt):
            sys.settrace(interrupt)
            client.models.list()


@pytest.mark.parametrize("pause", [0.9, 1.1])
def test_signals_within_a_second_of_the_first_are_ignored(
    slow, sh, clock, monkeypatch, pause
):
    def interrupt(seconds):
        signal.raise_signal(signal.SIGINT)

    class Stream(io.StringIO):
        """A stream during whose first line more signals come, after a pause."""

        def write(self, text):
            if "interrupted" in text:
                clock.pass_by(pause)
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(clock, "sleep", interrupt)
    monkeypatch.setattr(sys, "stderr", Stream())
    handlers = [signal.getsignal(number) for number, _, _ in SIGNALS]
    batch, is_ignored = new_batch(slow), False
    # After more than a second it is a person, who means it.
    with contextlib.suppress(KeyboardInterrupt):
        sh(f"wait {batch.id}", 130)
        is_ignored = True
    assert is_ignored == (pause < 1)
    assert [signal.getsignal(number) for number, _, _ in SIGNALS] == handlers


@posix
def test_a_signal_that_is_ignored_stays_ignored(slow, sh, clock, monkeypatch):
    def interrupt(seconds):
        os.kill(os.getpid(), signal.SIGINT)
        end(slow, batch)

    batch = new_batch(slow)
    # As sh has it for what runs in the background.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    monkeypatch.setattr(clock, "sleep", interrupt)
    sh(f"wait {batch.id}", 0, out=None)


@posix
def test_an_interrupted_run_in_the_sandbox_is_not_billed(one_request):
    process = start("run", one_request, "-o", "out.jsonl", "--sandbox")
    err = check(interrupt_in_progress(process, signal.SIGINT), 130)
    assert "billed" not in err
    assert "cancel" not in err
    assert files() == ["r.jsonl"]


# The command whose response does not come, or not wholly.
@posix
@pytest.mark.parametrize("command", ["create r.jsonl", "results {} -o out.jsonl"])
def test_an_interrupted_command_leaves_no_file_and_says_what_may_exist(
    served, one_request, command
):
    def stall(request):
        request.read()
        arrived.set()
        return Fault(cut=600 if request.name == "results" else 0, end="stall")

    arrived = threading.Event()
    server = served(create=[stall], results=[stall])
    process = start(*command.format(server.batch_id).split())
    assert arrived.wait(10)
    send_signal(process, signal.SIGTERM)
    if command.startswith("create"):
        check(finish(process), 143, "terminated", "may ", "billed", " list")
    else:
        assert check(finish(process), 143) == "terminated\n"
    assert files() == ["r.jsonl"]


def test_the_sandbox_command_prints_what_to_export_and_serves(sh, monkeypatch):
    process = start("sandbox")
    word = "set" if sys.platform == "win32" else "export"
    for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"):
        line = process.stdout.readline().decode().strip()
        assert line.startswith(f"{word} {name}=")
        monkeypatch.setenv(name, line.partition("=")[2])
    assert Anthropic().models.retrieve("claude-opus-4-6").type == "model"
    port = os.environ["ANTHROPIC_BASE_URL"].rpartition(":")[2]
    # Windows lets two servers have the same port.
    if word == "export":
        assert sh(f"sandbox --port {port}", 1, "in use").count("\n") == 1
        send_signal(process, signal.SIGINT)
        assert check(finish(process), 130) == "interrupted\n"
    process.kill()
    finish(process)


# ---- The official SDK, where it is installed ---------------------------------------

# What the documentation of the API shows, of what only reads or is refused.  ``done``:
# the ids of ended batches; ``live``: the id of one that is canceling.
EXAMPLES = [
    "batches.retrieve(done[0])",
    "list(batches.results(done[0]))",
    "[batch.id for batch in batches.list(limit=2)]",
    "[batch.id for batch in batches.list(limit=2, before_id=done[0])]",
    "[page.data for page in batches.list(limit=2, after_id=done[-1]).iter_pages()]",
    "batches.list(limit=2, after_id=done[-1])",
    "batches.list(limit=2, after_id=done[-1]).get_next_page()",
    "batches.list(limit=2, after_id=done[-1]).next_page_info().params == {}",
    "batches.list(limit=2, before_id=done[0])",
    "batches.list(limit=2, before_id=done[0]).get_next_page()",
    "batches.list(limit=2, before_id=done[0]).next_page_info().params == {}",
    "[*models.list(limit=2), *models.list(lifecycle=['retired'])]",
    "models.retrieve('claude-haiku-4-5')",
    "count_tokens(model='m', messages=[1])",
    "count_tokens(model='m', messages=[1], system='s', tools=[{'name': 't'}])",
    "count_tokens(model='m', messages=[])",
    "batches.cancel(live)",
    "batches.delete(live)",
    "batches.results('none')",
    "batches.retrieve('none')",
    "batches.cancel('none')",
    "batches.list(limit=0)",
    "models.retrieve('none')",
]


def differences(theirs, ours, place):
    """Yield where ours is not theirs: of models each field that is set, each item."""
    if hasattr(type(theirs), "model_fields"):
        for name, value in vars(theirs).items():
            if value is not None and not name.startswith("_"):
                own = getattr(ours, name, None)
                yield from differences(value, own, f"{place}.{name}")
    elif isinstance(theirs, list) and isinstance(ours, list):
        for number, pair in enumerate(itertools.zip_longest(theirs, ours)):
            yield from differences(*pair, f"{place}[{number}]")
    elif theirs != ours:
        yield f"{place}: {theirs!r} and {ours!r}"


def outcome_of(module, client, example, ids):
    """Return what an example gives, or what a program can ask of its error."""
    messages, models = client.messages, client.models
    names = {"batches": messages.batches, "count_tokens": messages.count_tokens}
    try:
        return eval(example, {**names, "models": models, **ids})
    except module.APIStatusError as error:
        names = [one.__name__ for one in type(error).__mro__]
        message, request_id = error.body["error"]["message"], error.request_id[:12]
        return [*names, error.status_code, error.type, message, request_id]


def test_what_the_official_sdk_gives_this_client_gives(slow):
    sdk = pytest.importorskip("anthropic", minversion="2")
    pairs = [(sdk, sdk.Anthropic()), (claude_batches, Anthropic())]
    # The whole workflow with each.
    for _, client in pairs:
        batches = client.messages.batches
        batch = batches.create(requests=requests_of("a", "b"))
        assert batch.processing_status == "in_progress"
        assert batches.cancel(batch.id).processing_status == "canceling"
        end(slow, batch)
        assert set(types_of(batches.results(batch.id)).values()) == {"canceled"}
        assert batches.delete(batch.id).type == "message_batch_deleted"
    requests = [*requests_of("a", "expired", "d"), request_of("b", stream=True)]
    ids = {"done": [ended_batch(slow, *requests) for _ in range(5)]}
    ids["live"] = new_batch(slow).id
    slow.batches.cancel(ids["live"])
    for example in EXAMPLES:
        theirs, ours = (outcome_of(*pair, example, ids) for pair in pairs)
        assert not list(differences(theirs, ours, example))


# ---- The real API ------------------------------------------------------------------

# The fixture takes it away.
LIVE_KEY = os.environ.get("ANTHROPIC_API_KEY")


@pytest.mark.skipif(
    os.environ.get("CLAUDE_BATCHES_LIVE") != "1",
    reason="CLAUDE_BATCHES_LIVE=1 asks the real API",
)
def test_the_real_api_gives_a_result_for_each_of_three_requests(monkeypatch):
    monkeypatch.setattr(claude_batches, "time", time)
    client = Anthropic(api_key=LIVE_KEY)
    batches = client.messages.batches
    model = client.models.list().data[0].id
    requests = [request_of(name, model=model, max_tokens=5) for name in "abc"]
    batch = batches.create(requests=requests)
    batches.wait(batch.id, timeout=3600)
    outcomes = types_of(batches.results(batch.id))
    assert outcomes == dict.fromkeys("abc", "succeeded")
    assert batches.delete(batch.id).id == batch.id
