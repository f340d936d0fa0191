#!/usr/bin/env python3
"""Traces: W3C context through the running program, and spans in a real OTLP receiver.

    tests/ops/traces.py [PROGRAM]        PROGRAM: target/debug/flagside

Needs the Python package rotel 0.0.1a15, whose receiver prints the spans it gets; beside it a receiver of a few lines
that answers as it is told. Everything stays on loopback.
"""

import base64
import contextlib
import json
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
import uuid

import rotel

import support
from support import Handler, ROOT, check, free_port, serve, wait_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
KEY = {"Authorization": "Api-Key server-traces"}
EVALUATE = "/api/public/featureflag/evaluate"


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


class Featbit(Handler):
    """A FeatBit evaluation server that polls and evaluations can be asked of."""

    seen = []
    down = threading.Event()
    data = json.loads((ROOT / "src/command/demo/featbit.json").read_bytes())
    verdict = b'[{"key":"theme","variation":{"id":"d","type":"string","value":"dark","matchReason":"default","sendToExperiment":false}}]'

    @classmethod
    def secret(cls):
        """A secret of the environment that the data are of (FB 2.1)."""
        environment = uuid.UUID(cls.data["data"]["featureFlags"][0]["envId"])
        digits = base64.b64encode(environment.bytes_le, b"-_").decode().rstrip("=")
        return "A" * 22 + digits

    def do_GET(self):
        if "/server/latest-all" in self.path:
            self.reply(200, json.dumps(self.data).encode())
        else:
            self.reply(404)

    def do_POST(self):
        self.body()
        Featbit.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.reply(503 if self.down.is_set() else 200, self.verdict)


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
def flagside(program, upstream, **variables):
    """The program with these arguments for its upstream; ports of data and admin."""
    port, admin = free_port(), free_port()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [program, *upstream, "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin}",
             "--set", "sync.flags_interval=1s", "--set", "sync.featbit_poll_interval=1s", "--log-format", "json"],
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


class Rotel:
    """The real receiver, and what it has printed."""

    def __init__(self, port, log):
        self.variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_SERVICE_NAME": "flags-of-shop",
                          "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test", "OTEL_BSP_SCHEDULE_DELAY": "100"}
        self.log = log

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def spans(self):
        """The spans, each with its fields and attributes by name."""
        parts = re.split(r"^(?=Span #|ResourceSpans #)", self.text(), flags=re.M)
        line = re.compile(r"^ +(?:-> )?([\w. ]+?) *: (?:\w+\((.*)\)|(.*))$", re.M)
        return [{name: inside or plain for name, inside, plain in line.findall(part)} for part in parts if part.startswith("Span #")]

    def only(self, what, **wanted):
        """The one span with these fields; {} if there is none or more."""
        found = [span for span in self.spans() if all(span.get(name.replace("_", " ")) == value for name, value in wanted.items())]
        check(len(found) == 1, f"{what}: {len(found)} spans like {wanted}")
        return found[0] if len(found) == 1 else {}


@contextlib.contextmanager
def rotel_agent():
    port = free_port()
    agent = pathlib.Path(rotel.__file__).parent / "rotel-agent"
    with tempfile.TemporaryFile("w+") as log:
        receiver = subprocess.Popen(
            [agent, "start", "--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}",
             "--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"],
            stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for("rotel listens", lambda: get(port, "/")[0] != 0)
            yield Rotel(port, log)
        finally:
            receiver.send_signal(signal.SIGTERM)
            receiver.wait(timeout=15)


def get(port, path, headers=None, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, dict(answer.headers.items()), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers.items()), b""
    except OSError:
        return 0, {}, b""


def metric(admin, family, **labels):
    """The sum of a family's children with these labels."""
    lines = re.findall(rf"^{family}\{{(.*)\}} (\S+)$", get(admin, "/metrics")[2].decode(), re.M)
    return sum(float(value) for names, value in lines if all(f'{name}="{text}"' in names for name, text in labels.items()))


def spans_total(admin, result):
    return metric(admin, "flagside_trace_spans_total", result=result)


def wait_for_flags(admin):
    wait_for("flags are synced", lambda: metric(admin, "flagside_sync_runs_total", result="changed") > 0)


def parent(flags="01"):
    return f"00-{TRACE}-{CALLER}-{flags}"


def check_passing_on(program, upstream):
    """Without an endpoint: what can be read is passed on as it is, the rest is not; nobody else ever sees it."""
    with flagside(program, upstream) as (port, _):
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


def check_receiver(program, upstream):
    """Spans of a miss, a hit, a local evaluation and a passed-through request, as rotel prints them."""
    with rotel_agent() as receiver:
        with flagside(program, upstream, **receiver.variables) as (data, admin):
            Cloud.seen.clear()
            for _ in range(2):
                get(data, "/v1/vardata?user_id=rotel", KEY | {"traceparent": parent()})
            outbound = Cloud.seen[0]["traceparent"]
            check(outbound.startswith(f"00-{TRACE}-") and CALLER not in outbound, f"outbound context: {outbound}")
            get(data, "/v1/vardata?user_id=unsampled", KEY | {"traceparent": parent("00").replace("4bf9", "aaaa")})
            get(data, "/v1/vardata?user_id=none", KEY)
            get(data, "/v1/unknown", KEY | {"traceparent": parent()})
            wait_for_flags(admin)
            Cloud.down.set()
            get(data, "/v1/vardata?user_id=local", KEY | {"traceparent": parent()})
            Cloud.down.clear()
            wait_for("spans arrive", lambda: "evaluate" in receiver.text() and "passthrough" in receiver.text())
            wait_for("spans are counted", lambda: spans_total(admin, "exported") >= 8, 5)
            check(spans_total(admin, "failed") == 0 and spans_total(admin, "dropped") == 0, "no span is lost")
        text = receiver.text()
    for wanted in (TRACE, CALLER, outbound.split("-")[2], "GET vardata_v1", "upstream", "cache", "evaluate", "flags-of-shop",
                   "deployment.environment", "flagside.source", "http.response.status_code", "flagside.environment"):
        check(wanted in text, f"rotel did not print {wanted}")
    for unwanted in ("aaaa2f35", "user_id", "rotel\"", "server-traces"):
        check(unwanted not in text, f"rotel printed {unwanted}")


def check_featbit(program):
    """FeatBit's evaluations: one that upstream answers and one that is made here because it fails."""
    port = serve(Featbit).server_port
    upstream = ["--featbit-upstream", f"http://127.0.0.1:{port}"]
    ask = {"Authorization": Featbit.secret(), "Content-Type": "application/json"}
    forwarded, local = "a" * 31 + "1", "a" * 31 + "2"
    with rotel_agent() as receiver:
        with flagside(program, upstream, FLAGSIDE_FEATBIT_SECRET=Featbit.secret(), **receiver.variables) as (data, admin):
            wait_for_flags(admin)
            for trace in (forwarded, local):
                if trace == local:
                    Featbit.down.set()
                traced = ask | {"traceparent": f"00-{trace}-{CALLER}-01"}
                status, _, body = get(data, EVALUATE, traced, b'{"user":{"keyId":"%s"}}' % trace.encode())
                check(status == 200 and (body == Featbit.verdict) == (trace == forwarded), f"{trace}: {status} {body}")
            wait_for("spans are counted", lambda: spans_total(admin, "exported") >= 5, 5)
        for trace, source, status in ((forwarded, "miss", "200"), (local, "local", "503")):
            served = receiver.only(source, Trace_ID=trace, Kind="SPAN_KIND_SERVER")
            check(served.get("Parent ID") == CALLER and served.get("Name") == "POST fb_evaluate", f"{source}: {served}")
            check(served.get("flagside.source") == source and served.get("http.response.status_code") == "200", f"{source}: {served}")
            asked = receiver.only(source, Trace_ID=trace, Kind="SPAN_KIND_CLIENT")
            wanted = {"Parent ID": served.get("ID"), "Name": "upstream", "http.request.method": "POST",
                      "server.address": f"127.0.0.1:{port}", "flagside.environment": "featbit", "http.response.status_code": status}
            check(wanted.items() <= asked.items(), f"{source}: upstream's span is {asked}, not {wanted}")
            context = f"00-{trace}-{asked.get('ID')}-01"
            check(any(seen.get("traceparent") == context for seen in Featbit.seen), f"{source}: upstream did not get {context}")
        evaluated = receiver.only("evaluation", Name="evaluate")
        wanted = {"Trace ID": local, "Parent ID": served.get("ID"), "Kind": "SPAN_KIND_INTERNAL", "flagside.environment": "featbit"}
        check(wanted.items() <= evaluated.items(), f"the evaluation's span is {evaluated}, not {wanted}")
        check(Featbit.secret() not in receiver.text() and "keyId" not in receiver.text(), "a secret or a user in a span")


def check_receiver_in_trouble(program, upstream):
    """A receiver that fails or is slow costs requests nothing; headers and path are as configured."""
    port = serve(Receiver).server_port
    variables = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{port}/own/path", "OTEL_TRACES_SAMPLER": "always_on",
                 "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20secret-header", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with flagside(program, upstream, **variables) as (data, admin):
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


def check_off(program, upstream):
    """Nothing is exported when the variables say so."""
    quiet = type("Quiet", (Receiver,), {"got": []})
    port = serve(quiet).server_port
    for variables in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_SAMPLER": "always_off"}):
        with flagside(program, upstream, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}", **variables) as (data, admin):
            get(data, "/v1/vardata?user_id=a", KEY | {"traceparent": parent()})
            check(spans_total(admin, "exported") == 0, f"{variables}")
    check(not quiet.got, f"nothing was sent: {quiet.got}")


def main():
    program = support.program()
    upstream = ["--upstream", f"http://127.0.0.1:{serve(Cloud).server_port}"]
    check_passing_on(program, upstream)
    check_receiver(program, upstream)
    check_featbit(program)
    check_receiver_in_trouble(program, upstream)
    check_off(program, upstream)
    return support.finish("traces")


if __name__ == "__main__":
    sys.exit(main())
