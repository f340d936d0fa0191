"""The work that is compared, and how: every server in turn, round after round, medians."""

import datetime
import statistics
import sys

import servers
from machine import Failed, describe
from peers import others

USERS = 10_000

#: name: what it is called; shape, order, connections of the load; servers; bars as (server, must, aim).
WORK = {
    "v1": ("hit, `/v1/vardata`, 1 KiB, 64 connections", "v1", "zipf", 64,
           {"bare": (1.15, 1.05), "nginx": (0.60, None), "varnish": (0.40, None), "pingora": (0.40, None),
            "envoy": (0.25, None), "haproxy": (None, None)}),
    "v1-1": ("the same, 1 connection", "v1", "zipf", 1,
             {"bare": (1.2, 1.1), "nginx": (None, None), "varnish": (None, None), "pingora": (None, None),
              "envoy": (None, None), "haproxy": (None, None)}),
    "sdk": ("hit, `/sdk/v2/vardata`, user header of 200 bytes", "sdk", "zipf", 64,
            {"bare": (1.2, 1.1), "nginx": (None, None)}),
    "sdk4k": ("hit, `/sdk/v2/vardata`, user header of 4 KiB", "sdk4k", "zipf", 64,
              {"bare": (1.2, 1.1), "nginx": (None, None)}),
    "post": ("hit, POST `/sdk/v2/vardata`", "post", "zipf", 64, {"bare": (None, None)}),
    "spelled": ("hit, every request spelled anew (canonical hit)", "spelled", "zipf", 64, {"bare": (None, None)}),
    "flags": ("hit, `/sdk/v2/flags`, 40 KiB", "flags", "zipf", 64, {"nginx": (1.1, 1.0), "bare-flags": (None, None)}),
    "miss": ("miss, forwarded and stored", "v1", "each", 64,
             {"nginx-plain": (1.5, 1.0), "nginx": (None, None)}),
    "local": ("local evaluation, 20 flags, user header of 200 bytes", "sdk", "zipf", 64,
              {"bare": (3.5, 2.5)}),
    "local-person": ("the same, user of 19 properties", "person", "zipf", 64, {"bare": (None, None)}),
}

#: Which flagside does the work, where it is not the one in front of the origin.
FLAGSIDE = {"local": "flagside-flags20", "local-person": "flagside-flags20"}


def measure(program, peers, origin, load, only, every_peer, n_rounds, seconds):
    """All figures of `WORK`."""
    # The users of all kinds of work, one after the other, are more than a sidecar's default budget; so are the misses.
    ours = servers.flagside(program, origin, "--set", "cache.max_bytes=512MiB")
    running = {"bare": servers.bare(peers, "vardata"), "bare-flags": servers.bare(peers, "flags"),
               "flagside": ours, "flagside-flags20": servers.local(program, "flags20")}
    running |= others(origin, every_peer)
    figures = {"date": f"{datetime.datetime.now():%Y-%m-%d}", "machine": describe(), "work": {},
               "rounds": n_rounds, "seconds": seconds, "bench": "side-by-side",
               "versions": {name: server.version for name, server in running.items() if hasattr(server, "version")}}
    figures["versions"]["flagside"] = servers.version(program, "--version")
    try:
        for server in running.values():
            server.start()
        for name in WORK if only is None else only:
            figures["work"][name] = compare(name, running, origin, load, n_rounds, seconds)
    finally:
        for server in running.values():
            server.stop()
    return figures


def compare(name, running, origin, load, n_rounds, seconds):
    """One kind of work, on all servers that have a bar or a column for it."""
    title, shape, order, connections, bars = WORK[name]
    ours = FLAGSIDE.get(name, "flagside")
    names = [peer for peer in bars if peer.removesuffix("-plain") in running] + [ours]
    taken = {peer: [] for peer in names}
    rates, asked_upstream, requests = {peer: [] for peer in names}, dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    if order != "each" and not name.startswith("local"):
        for peer in names:
            if not peer.startswith("bare"):
                load.fill(running[peer], "sdk" if shape == "spelled" else shape, 1 if shape == "flags" else USERS)
    bytes_of = {}
    for number in range(n_rounds):
        print(f"{name}: round {number + 1} of {n_rounds}", file=sys.stderr, flush=True)
        for peer in names:
            server = running[peer.removesuffix("-plain")]
            port = server.plain_port if peer.endswith("-plain") else None
            before, counted = server.cpu_seconds(), origin.count()
            if order == "each":
                told = load.misses(server, port, seconds=seconds, connections=connections)
            else:
                told = load.run(server, shape, port, order=order, users=1 if shape == "flags" else USERS,
                                seconds=seconds, connections=connections)
            taken[peer].append((server.cpu_seconds() - before) / told["requests"] * 1e6)
            rates[peer].append(told["requests"] / told["seconds"])
            asked_upstream[peer] += origin.count() - counted
            requests[peer] += told["requests"]
            bytes_of[peer] = told["answer_bytes"]
    if order != "each" and asked_upstream[ours]:
        raise Failed(f"{name}: {asked_upstream[ours]} requests were no hits")
    return {
        "title": title, "ours": ours, "bars": bars,
        "servers": {peer: {
            "cpu_us": statistics.median(taken[peer]), "cpu_us_rounds": taken[peer],
            "requests_per_second": statistics.median(rates[peer]), "answer_bytes": bytes_of[peer],
            "requests": requests[peer], "asked_upstream": asked_upstream[peer],
        } for peer in names},
    }
