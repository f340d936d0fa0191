#!/usr/bin/env python3
"""Traces: W3C context through the running program, and spans in a real OTLP receiver.

    tests/ops/traces.py [PROGRAM]        PROGRAM: target/debug/flagside

Needs the Python package rotel 0.0.1a15, whose receiver prints the spans it gets; beside it a receiver of a few lines
that answers as it is told. Everything stays on loopback.
"""

import contextlib
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import rotel

import support
from support import Handler, ROOT, check, free_port, serve, wait_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
KEY = {"Authorization": "Api-Key server-traces"}


class Cloud(Handler):
    """Amplitude's answers; remembers the headers of evaluations."""

    seen = []
    down = threading.Event()
    flags = (ROOT / "src/command/demo/flags.json").read_bytes()

    def answer(self):
        self.body()
        is_flags = "/flags" in self.path
        if not is_flags:
            Cloud.seen.append({name.lower(): value for name, value in self.headers.items()})
        status = 503 if self.down.is_set() else 200
        self.reply(status, self.flags if is_flags else b'{"theme":{"key":"dark","value":"dark"}}')

    do_GET = do_POST = answer


class Receiver(Handler):
    """An OTLP receiver that answers as it is told."""

    got = []
    status = 200
    pause = 0.0

    def do_POST(self):
        self.got.append((self.path, dict(self.headers.items()), self.body()))
        time.sleep(Receiver.pause)
        self.reply(Receiver.status)


@contextlib.contextmanager
def flagside(program, cloud, **variables):
    port, admin = free_port(), free_port()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [program, "--upstream", f"http://127.0.0.1:{cloud}", "--listen", f"127.0.0.1:{port}",
             "--admin-listen", f"127.0.0.1:{admin}", "--set", "sync.flags_interval=1s", "--log-format", "json"],
            env={"PATH": "/usr/bin:/bin", **variables}, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for("flagside listens", lambda: get(admin, "/startupz")[0] == 200)
            yield port, admin
        finally:
            process.send_signal(signal.SIGTERM)
            check(process.wait(timeout=40) == 0, "flagside stops cleanly")
            log.seek(0)
            for line in log.read().splitlines():
                check("secret-header" not in line, f"a header of the receiver in the log: {line}")


def get(port, path, headers=None, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, dict(answer.headers.items()), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers.items()), b""
    except OSError:
        return 0, {}, b""


def spans_total(admin, result):
    text = get(admin, "/metrics")[2].decode()
    return float(re.search(rf'^flagside_trace_spans_total{{result="{result}"}} (\S+)', text, re.M).group(1))


def parent(flags="01"):
    return f"00-{TRACE}-{CALLER}-{flags}"


def check_passing_on(program, cloud):
    """Without an endpoint: what can be read is passed on as it is, the rest is not; nobody else ever sees it."""
    with flagside(program, cloud) as (port, _):
        cases = [
            ({"traceparent": parent(), "tracestate": "a=b", "baggage": "c=d"}, (parent(), "a=b", "c=d")),
            ({"traceparent": parent("00"), "tracestate": "a=b"}, (parent("00"), "a=b", None)),
            ({"traceparent": "00-zz-b-01", "tracestate": "a=b"}, (None, None, None)),
            ({"traceparent": parent().upper()}, (None, None, None)),
            ({"traceparent": f"01-{TRACE}-{CALLER}-01-more"}, (f"01-{TRACE}-{CALLER}-01-more", None, None)),
            ({"traceparent": parent(), "tracestate": "a=" + "b" * 511}, (parent(), None, None)),
        ]
        for number, (headers, wanted) in enumerate(cases):
            Cloud.seen.clear()
            status, answered, _ = get(port, f"/v1/vardata?user_id=pass-{number}", KEY | headers)
            seen = Cloud.seen[-1] if Cloud.seen else {}
            got = tuple(seen.get(name) for name in ("traceparent", "tracestate", "baggage"))
            check(status == 200 and got == wanted, f"{headers}: passed on {got}, not {wanted}")
            check(not any("trace" in name.lower() for name in answered), f"an answer with trace headers: {answered}")
        _, answered, _ = get(port, "/v1/vardata?user_id=pass-0", KEY)
        check("hit" in answered.get("Cache-Status", answered.get("cache-status", "")), f"no hit: {answered}")
        check(not any("trace" in name.lower() for name in answered), f"a stored answer with trace headers: {answered}")


def check_receiver(program, cloud):
    """Spans of a miss, a hit, a local evaluation and a passed-through request, as rotel prints them."""
    port = free_port()
    agent = pathlib.Path(rotel.__file__).parent / "rotel-agent"
    with tempfile.TemporaryFile("w+") as log:
        receiver = subprocess.Popen(
            [agent, "start", "--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}",
             "--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"],
            stdout=log, stderr=subprocess.STDOUT)

        def printed():
            log.seek(0)
            return log.read()

        try:
            wait_for("rotel listens", lambda: get(port, "/")[0] != 0)
            variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_SERVICE_NAME": "flags-of-shop",
                         "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test", "OTEL_BSP_SCHEDULE_DELAY": "100"}
            with flagside(program, cloud, **variables) as (data, admin):
                Cloud.seen.clear()
                for _ in range(2):
                    get(data, "/v1/vardata?user_id=rotel", KEY | {"traceparent": parent()})
                outbound = Cloud.seen[0]["traceparent"]
                check(outbound.startswith(f"00-{TRACE}-") and CALLER not in outbound, f"outbound context: {outbound}")
                get(data, "/v1/vardata?user_id=unsampled", KEY | {"traceparent": parent("00").replace("4bf9", "aaaa")})
                get(data, "/v1/vardata?user_id=none", KEY)
                get(data, "/v1/unknown", KEY | {"traceparent": parent()})
                time.sleep(1.5)  # flags are synced
                Cloud.down.set()
                get(data, "/v1/vardata?user_id=local", KEY | {"traceparent": parent()})
                Cloud.down.clear()
                wait_for("spans arrive", lambda: "evaluate" in printed() and "passthrough" in printed())
                wait_for("spans are counted", lambda: spans_total(admin, "exported") >= 8, 5)
                check(spans_total(admin, "failed") == 0 and spans_total(admin, "dropped") == 0, "no span is lost")
            text = printed()
        finally:
            receiver.send_signal(signal.SIGTERM)
            receiver.wait(timeout=15)
    for wanted in (TRACE, CALLER, outbound.split("-")[2], "GET vardata_v1", "upstream", "cache", "evaluate", "flags-of-shop",
                   "deployment.environment", "flagside.source", "http.response.status_code", "flagside.environment"):
        check(wanted in text, f"rotel did not print {wanted}")
    for unwanted in ("aaaa2f35", "user_id", "rotel\"", "server-traces"):
        check(unwanted not in text, f"rotel printed {unwanted}")


def check_receiver_in_trouble(program, cloud):
    """A receiver that fails or is slow costs requests nothing; headers and path are as configured."""
    port = serve(Receiver).server_port
    variables = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{port}/own/path", "OTEL_TRACES_SAMPLER": "always_on",
                 "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20secret-header", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with flagside(program, cloud, **variables) as (data, admin):
        get(data, "/v1/vardata?user_id=a", KEY)
        wait_for("spans arrive", lambda: Receiver.got)
        path, headers, body = Receiver.got[0]
        check(path == "/own/path", f"path {path}")
        check(headers.get("content-type") == "application/x-protobuf", f"headers {headers}")
        check(headers.get("authorization") == "Bearer secret-header", "the header of the receiver")
        check(b"flagside" in body and b"GET vardata_v1" in body, "the body")
        Receiver.status = 503
        get(data, "/v1/vardata?user_id=a", KEY)
        wait_for("failures are counted", lambda: spans_total(admin, "failed") > 0)
        Receiver.status, Receiver.pause = 200, 3.0
        began = time.monotonic()
        for _ in range(3000):
            status, _, _ = get(data, "/v1/vardata?user_id=a", KEY)
            if time.monotonic() - began > 20:
                break
        check(status == 200, "answers while the receiver hangs")
        check(spans_total(admin, "dropped") > 0, "overflow is counted")
        Receiver.pause = 0.0


def check_off(program, cloud):
    """Nothing is exported when the variables say so."""
    quiet = type("Quiet", (Receiver,), {"got": []})
    port = serve(quiet).server_port
    for variables in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_SAMPLER": "always_off"}):
        with flagside(program, cloud, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}", **variables) as (data, admin):
            get(data, "/v1/vardata?user_id=a", KEY | {"traceparent": parent()})
            check(spans_total(admin, "exported") == 0, f"{variables}")
    check(not quiet.got, f"nothing was sent: {quiet.got}")


def main():
    program = support.program()
    cloud = serve(Cloud).server_port
    check_passing_on(program, cloud)
    check_receiver(program, cloud)
    check_receiver_in_trouble(program, cloud)
    check_off(program, cloud)
    return support.finish("traces")


if __name__ == "__main__":
    sys.exit(main())
