#!/usr/bin/env python3
"""An upstream for the container checks: Amplitude's routes as far as they are asked here, on 127.0.0.1.

    tests/ops/upstream.py PORT

The user's id decides how an answer comes: `slow-3-x` after three seconds, `never-x` not at all, `big-x` with 4 KiB;
others at once. Flags are an empty list. `/sdk/stream/…` sends an event each 100 ms for ever.
"""

import base64
import http.server
import json
import sys
import threading
import time
import urllib.parse


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path)
        if path.path.endswith("/vardata"):
            self.vardata(self.user(path.query))
        elif path.path.endswith("/flags"):
            self.reply([])
        elif path.path.startswith("/sdk/stream"):
            self.stream()
        else:
            self.reply({}, 404)

    do_POST = do_GET

    def user(self, query):
        """The user's id, from the query or the header of the SDKs."""
        header = self.headers.get("X-Amp-Exp-User")
        if header:
            return json.loads(base64.b64decode(header + "=="))["user_id"]
        return urllib.parse.parse_qs(query).get("user_id", [""])[0]

    def vardata(self, user):
        kind, _, rest = user.partition("-")
        if kind == "never":
            time.sleep(100)
        if kind == "slow":
            time.sleep(float(rest.split("-")[0]))
        padding = "x" * 4096 if kind == "big" else ""
        self.reply({"flag": {"key": "on", "value": user, "payload": padding}})

    def reply(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        while True:
            self.wfile.write(b"data: []\n\n")
            time.sleep(0.1)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def handle_error(self, *_):
        """A client that went away is no news."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1])), Upstream)
    threading.Thread(target=server.serve_forever).start()
