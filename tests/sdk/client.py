"""What the published Python SDK answers: one JSON request per line on standard input, one reply per line."""

import json
import logging
import sys
import time

from amplitude_experiment import LocalEvaluationClient, LocalEvaluationConfig
from amplitude_experiment import RemoteEvaluationClient, RemoteEvaluationConfig, User
from amplitude_experiment.cohort.cohort_sync_config import CohortSyncConfig
from amplitude_experiment.remote.fetch_options import FetchOptions

logging.getLogger("Amplitude").setLevel(logging.CRITICAL)
# Not through `Experiment`, which has one client for each key, whatever its URL.
clients = {}


def said(variants):
    """Variants as plain values, in no class of the SDK's."""
    if variants is None:
        return None
    return {
        key: {"key": one.key, "value": one.value, "payload": one.payload, "metadata": one.metadata}
        for key, one in variants.items()
    }


def remote(url, key):
    """The client of this URL and key; one that never asks twice."""
    name = ("remote", url, key)
    if name not in clients:
        config = RemoteEvaluationConfig(server_url=url, fetch_retries=0)
        clients[name] = RemoteEvaluationClient(key, config)
    return clients[name]


def local(url, key, stream, cohorts):
    """A client for local evaluation, started."""
    name = ("local", url, key, stream, cohorts)
    if name not in clients:
        sync = CohortSyncConfig("api", "secret:with:colons", cohort_server_url=url) if cohorts else None
        config = LocalEvaluationConfig(
            server_url=url,
            stream_server_url=url,
            stream_updates=stream,
            flag_config_polling_interval_millis=200,
            cohort_sync_config=sync,
        )
        clients[name] = LocalEvaluationClient(key, config)
        clients[name].start()
    return clients[name]


def answer(request):
    """The reply to one request."""
    user = User(**request["user"])
    url, key = request["url"], request["key"]
    if request["how"] == "local":
        client = local(url, key, request.get("stream", False), request.get("cohorts", False))
        return said(client.evaluate_v2(user))
    options = FetchOptions(**request["options"]) if "options" in request else None
    return said(remote(url, key).fetch_v2(user, options))


for line in sys.stdin:
    began = time.monotonic()
    try:
        reply = {"variants": answer(json.loads(line))}
    except Exception as error:  # The checks say what was expected.
        reply = {"error": f"{type(error).__name__}: {error}"}
    reply["took"] = (time.monotonic() - began) * 1000
    print(json.dumps(reply), flush=True)
