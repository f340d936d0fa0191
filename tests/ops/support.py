"""What the checks of a running program share: counting what holds, free ports, waiting, and servers on loopback."""

import http.server
import pathlib
import socket
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

failures = []
checks = 0


def program():
    """The program to check: the first argument, or the debug build."""
    return sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/debug/flagside")


def check(holds, what):
    global checks
    checks += 1
    if not holds:
        failures.append(what)
        print(f"FAILED {what}")


def finish(stage, note=""):
    """Says how many checks there were, and returns the exit code; a stage without checks has failed."""
    print(f"{stage}: {checks} checks, {len(failures)} failures{note}")
    return 1 if failures or not checks else 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, holds, seconds=10):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.05)
    check(False, f"{what}: not within {seconds} s")
    return False


class Handler(http.server.BaseHTTPRequestHandler):
    """Reads whole requests and answers with whole bodies; subclasses say what."""

    protocol_version = "HTTP/1.1"

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def reply(self, status, body=b"", content_type="application/json"):
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        """Clients that go away are part of the test."""


def serve(handler):
    """A server in a thread of its own; its `server_port` is free."""
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
