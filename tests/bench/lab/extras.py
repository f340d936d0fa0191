"""What is measured of flagside by itself: memory, start, growth, a second worker; and times at a fixed rate."""

import statistics
import sys
import time

import machine
import servers
from machine import Failed

#: After which the allocator has given back what starting took.
REST_SECONDS = 3

#: Enough for 1 KiB bodies, their entries and their places in the memo.
BYTES_PER_ENTRY = 2_600


def measure(program, peers, origin, load, n_grown):
    """`single` rows of the table and `latency`."""
    note("memory and growth")
    single = [idle(program, origin), *filled(program, origin, load, n_grown)]
    note("start")
    single += starts(program, origin)
    note("a second worker")
    single.append(two_workers(program, origin, load))
    note("2,000 requests/s")
    return {"single": single, "latency": latency(program, peers, origin, load)}


def note(what):
    print(what, file=sys.stderr, flush=True)


def idle(program, origin):
    """Resident memory as started by default, without any request but the first, once it has come to rest."""
    server = servers.flagside(program, origin, workers=2, cpus=machine.BOTH_CPUS)
    server.start()
    try:
        time.sleep(REST_SECONDS)
        return {"title": "idle, resident, 2 workers", "value": server.resident_mib(), "unit": "MiB",
                "must": 10, "aim": 6}
    finally:
        server.stop()


def filled(program, origin, load, n_grown):
    """Memory with 100,000 entries, and what a hit costs with 1,000 and with `n_grown`."""
    small = servers.flagside(program, origin, name="flagside-1000")
    big = servers.flagside(program, origin, "--set", f"cache.max_bytes={max(n_grown, 100_000) * BYTES_PER_ENTRY}",
                           name="flagside-grown")
    small.start()
    try:
        big.start()
        load.fill(small, "v1", 1_000)
        load.fill(big, "v1", 100_000)
        rows = [{"title": f"100,000 entries of 1 KiB, distinct bodies, resident (budget {100_000 * BYTES_PER_ENTRY / 2**20:.0f} MiB)",
                 "value": big.resident_mib(), "unit": "MiB", "must": 170, "aim": 140}]
        if n_grown > 100_000:
            rows[0]["title"] = rows[0]["title"].replace(f"{100_000 * BYTES_PER_ENTRY / 2**20:.0f}",
                                                        f"{n_grown * BYTES_PER_ENTRY / 2**20:.0f}")
            load.fill(big, "v1", n_grown)
            rows.append({"title": f"{n_grown:,} entries, resident", "value": big.resident_mib(), "unit": "MiB"})
        before = origin.count()
        load.fill(big, "v1", n_grown)
        if missing := origin.count() - before:
            raise Failed(f"{missing} of {n_grown} entries were not there")
        for order in ("zipf", "uniform"):
            costs = {1_000: [], n_grown: []}
            for _ in range(5):
                for server, users in ((small, 1_000), (big, n_grown)):
                    costs[users].append(cost(server, load, users, order))
            few, many = (statistics.median(costs[users]) for users in (1_000, n_grown))
            row = {"title": f"hit with {n_grown:,} entries against 1,000, {order}", "value": many / few, "unit": "×",
                   "digits": 2, "against": f"{many:.2f} µs, {few:.2f} µs"}
            if order == "zipf" and n_grown >= 1_000_000:
                row["must"] = 1.3
            rows.append(row)
        return rows
    finally:
        small.stop()
        big.stop()


def cost(server, load, users, order="zipf", connections=64, seconds=0.8):
    before = server.cpu_seconds()
    told = load.run(server, "v1", users=users, order=order, connections=connections, seconds=seconds)
    return (server.cpu_seconds() - before) / told["requests"] * 1e6


def starts(program, origin):
    """From the start of the process to the end of the first answer, the least disturbed of nine."""
    def least(make):
        times = []
        for _ in range(9):
            server = make()
            try:
                times.append(server.start() * 1000)
            finally:
                server.stop()
        return times
    rows = []
    for title, make, must, aim in (
            ("start to first answer", lambda: servers.flagside(program, origin), 20, 10),
            ("the same, computed from a flags file of 5 MB", lambda: servers.local(program, "flags5m"), 50, 30)):
        times = least(make)
        rows.append({"title": title, "value": statistics.median(times), "unit": "ms", "must": must, "aim": aim,
                     "against": f"least {min(times):.1f} ms"})
    return rows


def two_workers(program, origin, load):
    """Processor time of a hit where two workers share the load, on both processors."""
    costs = {1: [], 2: []}
    running = {n: servers.flagside(program, origin, workers=n, cpus=machine.BOTH_CPUS, name=f"flagside-{n}")
               for n in costs}
    try:
        for server in running.values():
            server.start()
            for _ in range(3):  # each worker has a memo of its own
                load.fill(server, "v1", 10_000)
        for _ in range(5):
            for n, server in running.items():
                costs[n].append(cost(server, load, 10_000))
    finally:
        for server in running.values():
            server.stop()
    one, two = (statistics.median(costs[n]) for n in (1, 2))
    return {"title": "hit with 2 workers against 1, both unpinned", "value": two / one, "unit": "×", "digits": 2,
            "against": f"{two:.2f} µs, {one:.2f} µs"}


def latency(program, peers, origin, load):
    """Times of hits at 2,000 requests/s, from when each fell due; medians of five rounds."""
    nginx = servers.Configured("nginx-rate", machine.need("nginx", "nginx-light"), ["-c", "{config}"], origin,
                               template="nginx")
    running = {"bare": servers.bare(peers, "vardata"), "nginx": nginx, "flagside": servers.flagside(program, origin)}
    rounds = {name: [] for name in running}
    try:
        for name, server in running.items():
            server.start()
            load.fill(server, "v1", 10_000)
        for _ in range(5):
            for name, server in running.items():
                rounds[name].append(load.run(server, "v1", connections=16, rate=2_000, seconds=1))
    finally:
        for server in running.values():
            server.stop()
    return {name: {quantile: statistics.median(told[quantile] for told in reports) for quantile in ("p50_us", "p99_us")}
            for name, reports in rounds.items()}
