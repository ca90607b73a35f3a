"""Measure claude_batches.py against the official SDK and the bare standard library.

Usage::

    python .ci/benchmark.py            some four minutes
    python .ci/benchmark.py --quick    small sizes, about one minute

The output is Markdown.  Everything happens in a temporary folder and on loopback.  The
SDK is installed from PyPI into a virtual environment whose Python runs all contenders.
Each measurement is a process of its own, so its peak memory is its own; contenders take
turns, and what is shown are medians.  A bad ratio is shown like a good one.  Linux or
macOS.
"""

import http.server
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import venv
from pathlib import Path
from typing import ClassVar

QUICK = "--quick" in sys.argv
ROUNDS, IMPORT_ROUNDS = (3, 9) if QUICK else (5, 15)
ROWS = (1_000, 10_000) if QUICK else (10_000, 100_000)  # of about 1 KB
REQUESTS = 5_000 if QUICK else 100_000  # of about 2 KB
JOB = 6_000 if QUICK else 60_000  # requests of about 2 KB, results of about 1 KB
SOURCE = Path(__file__).resolve().parent.parent / "claude_batches.py"

# ---- The contenders: programs of their own, given the server's URL and a count -------

START = """
import sys, time
url, count = sys.argv[1], int(sys.argv[2])
start = time.perf_counter()
"""
END = """
seconds = time.perf_counter() - start
import json, resource
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
CLIENT = """
from MODULE import Anthropic
client = Anthropic(api_key="benchmark", base_url=url, max_retries=0)
"""
CLIENT_RESULTS = """
import MODULE
start = time.perf_counter()
client = MODULE.Anthropic(api_key="benchmark", base_url=url, max_retries=0)
rows = characters = 0
for row in client.messages.batches.results(f"rows_{count}"):
    rows += 1
    characters += len(row.custom_id) + len(row.result.message.content[0].text)
assert rows == count
"""
BARE_RESULTS = """
import json, urllib.request
start = time.perf_counter()
lines = urllib.request.urlopen(f"{url}/v1/messages/batches/rows_{count}/results")
rows = characters = 0
for line in lines:
    row = json.loads(line)
    rows += 1
    characters += len(row["custom_id"]) + len(row["result"]["message"]["content"][0]["text"])
assert rows == count
"""
MAKE_REQUESTS = """
def requests():
    for index in range(count):
        messages = [{"role": "user", "content": f"{index:06d} " + "Tell me more, s’il vous plaît. " * 57}]
        params = {"model": "claude-opus-4-6", "max_tokens": 1024, "messages": messages}
        yield {"custom_id": f"request-{index:06d}", "params": params}
"""
CLIENT_CREATE = (
    MAKE_REQUESTS
    + """
import MODULE
start = time.perf_counter()
client = MODULE.Anthropic(api_key="benchmark", base_url=url, max_retries=0)
client.messages.batches.create(requests=requests())
"""
)
BARE_CREATE = (
    MAKE_REQUESTS
    + """
import http.client, json, urllib.parse
def encoded(request):
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode() + b","
start = time.perf_counter()
connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)
connection.putrequest("POST", "/v1/messages/batches")
length = len(encoded(next(requests()))) * count  # all are equally long
connection.putheader("Content-Length", str(length))
connection.endheaders()
for request in requests():
    connection.send(encoded(request))
assert connection.getresponse().status == 200
"""
)

# A whole job, whose seconds are those of the CPU: REQUESTS is written before.
WRITE_REQUESTS = (
    MAKE_REQUESTS
    + """
import json, os
path = f"requests-{os.getpid()}.jsonl"
with open(path, "w", encoding="utf-8") as file:
    for request in requests():
        file.write(json.dumps(request, ensure_ascii=False) + "\\n")
"""
)
CLIENT_JOB = (
    WRITE_REQUESTS
    + """
os.environ.update(ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY="benchmark")
time.perf_counter = time.process_time
start = time.perf_counter()
import claude_batches
assert claude_batches.main(["run", path, "-o", path + ".results"]) == 0
"""
)
DECODE_JOB = (
    WRITE_REQUESTS
    + """
import urllib.request
results = urllib.request.urlopen(f"{url}/v1/messages/batches/rows_{count}/results")
lines = results.readlines()
time.perf_counter = time.process_time
start = time.perf_counter()
with open(path, "rb") as file:
    for line in file:
        json.loads(line)
for line in lines:
    json.loads(line)
"""
)

OURS, SDK, BARE, DECODE = (
    "claude_batches",
    "anthropic",
    "standard library",
    "json.loads alone",
)
PROGRAMS = {
    "import": {
        OURS: CLIENT,
        SDK: CLIENT,
        BARE: "import urllib.request, json, dataclasses",
    },
    "results": {
        OURS: CLIENT_RESULTS,
        SDK: CLIENT_RESULTS,
        BARE: BARE_RESULTS,
    },
    "create": {OURS: CLIENT_CREATE, SDK: CLIENT_CREATE, BARE: BARE_CREATE},
    "job": {OURS: CLIENT_JOB, DECODE: DECODE_JOB},
}

# ---- The server: a process of its own, faster than any client ------------------------


def result_row(index):
    text = (
        f"Answer {index}: "
        + 'the quick brown fox jumps over the lazy dog — and says "why not?"\n' * 8
    )
    message = {
        "model": "claude-opus-4-6",
        "id": f"msg_{index:024d}",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 1000 + index % 1000,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 0,
                "ephemeral_1h_input_tokens": 0,
            },
            "output_tokens": 120 + index % 100,
            "service_tier": "batch",
            "inference_geo": "global",
        },
    }
    row = {
        "custom_id": f"request-{index:06d}",
        "result": {"type": "succeeded", "message": message},
    }
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def chunked(body, size=32 * 1024):
    blocks = (body[start : start + size] for start in range(0, len(body), size))
    return (
        b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks)
        + b"0\r\n\r\n"
    )


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    results: ClassVar = {}  # by batch id, ready to be sent

    def do_GET(self):
        batch_id = self.path.partition("?")[0].split("/")[4:5]
        if not batch_id:
            self.answer(b'{"data": [], "has_more": false}')
        elif self.path.endswith("/results"):
            self.answer(self.results[batch_id[0]], "Transfer-Encoding", "chunked")
        else:
            self.answer_batch(batch_id[0], int(batch_id[0].partition("_")[2]))

    def do_POST(self):
        left, block = (
            int(self.headers["Content-Length"]),
            memoryview(bytearray(1 << 20)),
        )
        requests, tail, name = 0, b"", b'"custom_id"'
        while left:
            size = self.rfile.readinto(block[:left])
            part = tail + block[:size]
            requests += part.count(name)
            # The name may be cut between two reads.
            tail = part[1 - len(name) :]
            left -= size
        if self.path.endswith("/count_tokens"):
            self.answer(b'{"input_tokens": 1}')
        else:
            self.answer_batch(f"rows_{requests}", requests)

    def answer_batch(self, batch_id, count):
        body = json.dumps(
            {
                "id": batch_id,
                "type": "message_batch",
                "processing_status": "ended",
                "request_counts": {
                    "processing": 0,
                    "succeeded": count,
                    "errored": 0,
                    "canceled": 0,
                    "expired": 0,
                },
                "created_at": "2026-11-01T12:00:00+00:00",
                "expires_at": "2026-11-02T12:00:00+00:00",
                "ended_at": "2026-11-01T12:30:00+00:00",
                "cancel_initiated_at": None,
                "archived_at": None,
                "results_url": f"http://{self.headers['Host']}/v1/messages/batches/{batch_id}/results",
            }
        ).encode()
        self.answer(body)

    def answer(self, body, *framing):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header(*(framing or ("Content-Length", str(len(body)))))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def serve():  # until standard input ends, as it does when the benchmark is gone
    for count in (*ROWS, JOB):
        Handler.results[f"rows_{count}"] = chunked(
            b"".join(map(result_row, range(count)))
        )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


# ---- Measuring -----------------------------------------------------------------------


def environment():
    """Return a plain environment: bytecode is written, no proxy and no key is set."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "ANTHROPIC"))
        and not name.lower().endswith("_proxy")
    }


def run(python, folder, url, kind, count, contender):
    """Return the seconds and the peak bytes of one program.

    The shell is not for its language: a child's ru_maxrss begins with the memory of the
    process that it was split from, and a shell is smaller than this one.
    """
    program = START + PROGRAMS[kind][contender].replace("MODULE", contender) + END
    command = [
        "sh",
        "-c",
        '"$@"; exit $?',
        "sh",
        python,
        "-c",
        program,
        url,
        str(count),
    ]
    output = subprocess.run(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, check=True
    ).stdout
    seconds, peak = json.loads(output)
    return seconds, peak * (1 if sys.platform == "darwin" else 1024)


def measure(*where):
    """Return {(kind, count, contender): (seconds, bytes)}, medians over all rounds."""
    samples = {}
    plan = [
        ("import", 0, IMPORT_ROUNDS),
        *(("results", count, ROUNDS) for count in ROWS),
        ("create", REQUESTS, ROUNDS),
        ("job", JOB, ROUNDS),
    ]
    for kind, count, rounds in plan:
        for contender in PROGRAMS[kind]:  # to warm up, so that all bytecode is there
            run(
                *where, kind, count if kind == "job" else min(count, ROWS[0]), contender
            )
        for number in range(rounds):
            print(
                f"{kind} {count or ''}: round {number + 1} of {rounds}", file=sys.stderr
            )
            for contender in PROGRAMS[kind]:
                samples.setdefault((kind, count, contender), []).append(
                    run(*where, kind, count, contender)
                )
    return {
        key: tuple(map(statistics.median, zip(*values)))
        for key, values in samples.items()
    }


def table(medians, sdk_version):
    """Yield the lines of a table of all contenders."""
    yield f"| | claude_batches | SDK {sdk_version} | standard library | SDK ÷ ours | ours ÷ standard library |"
    yield "|---|---:|---:|---:|---:|---:|"
    labels = {
        "import": "import and client",
        "results": "{:,} results of 1 KB",
        "create": "create {:,} of 2 KB",
    }
    for kind, count in dict.fromkeys(key[:2] for key in medians if key[0] != "job"):
        for index, what, unit, scale in (
            (0, "time", "ms", 1e3),
            (1, "peak memory", "MB", 1e-6),
        ):
            ours, sdk, bare = cells = [
                medians[kind, count, contender][index]
                for contender in (OURS, SDK, BARE)
            ]
            shown = " | ".join(f"{cell * scale:,.0f} {unit}" for cell in cells)
            yield f"| {labels[kind].format(count)}: {what} | {shown} | {sdk / ours:.1f} | {ours / bare:.2f} |"
            if (kind, index) == ("results", 0):
                yield f"| … rows a second | {' | '.join(f'{count / cell:,.0f}' for cell in cells)} | | |"


def promises(medians):
    """Yield what is promised, what was measured, and the bound."""

    def ratio(kind, count, over, under):
        return medians[kind, count, over][0] / medians[kind, count, under][0]

    yield (
        "import and client ÷ standard library's imports",
        ratio("import", 0, OURS, BARE),
        "<=",
        1.3,
    )
    for count in ROWS:
        yield (
            f"{count:,} results, SDK ÷ ours",
            ratio("results", count, SDK, OURS),
            ">=",
            4,
        )
        yield (
            f"{count:,} results ÷ standard library",
            ratio("results", count, OURS, BARE),
            "<=",
            1.3,
        )
    yield (
        f"{ROWS[-1]:,} results, peak MB",
        medians["results", ROWS[-1], OURS][1] / 1e6,
        "<=",
        50,
    )
    yield "create, SDK ÷ ours", ratio("create", REQUESTS, SDK, OURS), ">=", 1.5
    yield "create, peak MB", medians["create", REQUESTS, OURS][1] / 1e6, "<=", 50
    job = f"run of {JOB:,} requests"
    yield f"{job}, CPU ÷ json.loads alone", ratio("job", JOB, OURS, DECODE), "<=", 3.5
    yield f"{job}, peak MB", medians["job", JOB, OURS][1] / 1e6, "<=", 60


def main():
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(SOURCE, folder)
        python = os.path.join(folder, "venv", "bin", "python")
        venv.create(os.path.join(folder, "venv"), with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "anthropic"],
            stdout=sys.stderr,
            check=True,
        )
        ask = [python, "-c", "import anthropic; print(anthropic.__version__)"]
        sdk_version = subprocess.check_output(
            ask, env=environment(), universal_newlines=True
        ).strip()
        server = [sys.executable, __file__, "--serve", *sys.argv[1:]]
        with subprocess.Popen(
            server, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            medians = measure(
                python, folder, f"http://127.0.0.1:{int(process.stdout.readline())}"
            )
    print(
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs; "
        f"all on loopback; medians of {ROUNDS} runs, of the import {IMPORT_ROUNDS}.\n"
    )
    print("\n".join(table(medians, sdk_version)))
    print("\n| promise | measured | bound | kept |\n|---|---:|---:|---|")
    for text, measured, sign, bound in promises(medians):
        kept = measured <= bound if sign == "<=" else measured >= bound
        print(
            f"| {text} | {measured:.2f} | {sign} {bound} | {'yes' if kept else '**no**'} |"
        )


if __name__ == "__main__":
    serve() if "--serve" in sys.argv else main()
