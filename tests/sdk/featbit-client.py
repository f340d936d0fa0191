"""What FeatBit's published Python SDK answers: one JSON request per line on standard input, one reply per line."""

import json
import logging
import sys
import time

from fbclient.client import FBClient
from fbclient.config import Config

logging.disable(logging.CRITICAL)
clients = {}


def client(url, secret):
    """The client of this URL, which streams."""
    if url not in clients:
        config = Config(
            secret,
            event_url=url,
            streaming_url=url.replace("http", "ws", 1),
            streaming_first_retry_delay=0.1,
            events_flush_interval=0.2,
        )
        clients[url] = FBClient(config, start_wait=5.0)
    return clients[url]


def text(value):
    """A value as the server holds it: the SDK has made it a boolean, number or object."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def answer(request):
    """The reply to one request."""
    asked = client(request["url"], request["secret"])
    if request.get("flush"):
        asked.flush()
    user = {"key": request["user"]["keyId"], "name": request["user"]["name"], **request["user"]["custom"]}
    values = {key: text(asked.variation(key, user, default="none")) for key in request["keys"]}
    return {"ready": asked.initialize, "values": values}


for line in sys.stdin:
    began = time.monotonic()
    try:
        reply = answer(json.loads(line))
    except Exception as error:  # The checks say what was expected.
        reply = {"error": f"{type(error).__name__}: {error}"}
    reply["took"] = (time.monotonic() - began) * 1000
    print(json.dumps(reply), flush=True)
