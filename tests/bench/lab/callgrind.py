"""Reads callgrind's output: what each function costs by itself, with all that it calls, and who calls whom."""

import collections
import re

#: Where instructions are spent, by the first pattern that a function's name matches.
PARTS = [
    ("server: connections, reading and writing", re.compile(r"flagside::server")),
    ("key: raw parts, canonical form, hash", re.compile(r"flagside::key|siphash|foldhash")),
    ("cache: memo, store, freshness", re.compile(r"flagside::cache|moka|crossbeam|hashbrown")),
    ("api: routing and answers", re.compile(r"flagside::api")),
    ("engine and JSON", re.compile(r"flagside::evaluate|serde_json")),
    ("metrics and log", re.compile(r"flagside::(metrics|telemetry)|prometheus|tracing")),
    ("upstream", re.compile(r"flagside::(upstream|run|sync|store)")),
    ("HTTP: hyper, http, httparse", re.compile(r"hyper|httparse|^<?http::|http_body|h2::")),
    ("runtime: tokio, mio", re.compile(r"tokio|mio::|socket2")),
    ("memory: allocation", re.compile(r"malloc|free|realloc|calloc|unlink_chunk|__rust_alloc|__rdl")),
    ("memory: copies and comparisons", re.compile(r"mem(cpy|move|cmp|set|chr)|bytes::")),
    ("clock", re.compile(r"clock_gettime|vdso|Timespec|time::")),
    ("the rest", re.compile("")),
]

#: Standard library and runtime names say little with their generic parameters.
_HASH = re.compile(r"::h[0-9a-f]{16}$")


class Profile:
    """Instructions by function. Profiles can be subtracted and divided."""

    def __init__(self, own=(), calls=()):
        self.own = collections.Counter(own)
        #: What a caller spends in a callee, by (caller, callee).
        self.calls = collections.Counter(calls)

    @property
    def total(self):
        return sum(self.own.values())

    def __sub__(self, other):
        return self._merge(other, lambda mine, theirs: mine - theirs)

    def __truediv__(self, number):
        return self._merge(self, lambda mine, _: mine / number)

    def _merge(self, other, operation):
        def merged(mine, theirs):
            return {name: operation(mine[name], theirs[name]) for name in {*mine, *theirs}}
        return Profile(merged(self.own, other.own), merged(self.calls, other.calls))

    def inclusive(self):
        """Instructions of each function with all that it calls."""
        costs = collections.Counter(self.own)
        for (caller, _), cost in self.calls.items():
            costs[caller] += cost
        return costs

    def parts(self):
        """Own instructions by `PARTS`, without those that spend next to nothing."""
        costs = collections.Counter()
        for function, own in self.own.items():
            costs[next(part for part, pattern in PARTS if pattern.search(function))] += own
        return [(part, costs[part]) for part, _ in PARTS if costs[part] >= self.total / 200]

    def table(self, rows):
        """The parts, and the functions that cost most by themselves."""
        lines = [f"  {cost:8,.0f} {cost / self.total:6.1%}  {part}" for part, cost in self.parts()]
        lines += ["", f"  {'own':>8} {'with calls':>10}  function"]
        inclusive = self.inclusive()
        for name, own in self.own.most_common(rows):
            lines.append(f"  {own:8,.0f} {inclusive[name]:10,.0f}  {shorten(name, 110)}")
        return "\n".join(lines)


def read(path):
    """Parses an output file of callgrind 3 with one event."""
    profile, names = Profile(), {}
    function = called = None
    with open(path, errors="replace") as lines:
        for line in lines:
            if line.startswith(("fn=", "cfn=")):
                kind, _, rest = line.rstrip("\n").partition("=")
                number, _, name = rest.partition(" ")
                name = names.setdefault(number, name)
                if kind == "fn":
                    function = name
                else:
                    called = name
            elif line.startswith("calls="):
                cost = _cost(next(lines))
                # A function that calls itself would count twice.
                if called != function:
                    profile.calls[function, called] += cost
            elif function and line[0] in "+-*0123456789":
                profile.own[function] += _cost(line)
            elif line.startswith("totals:"):
                break
    return profile


def _cost(line):
    return int(line.split()[-1])


def shorten(name, length):
    """A function's name without hash, and without generic parameters where it is long."""
    name = _HASH.sub("", name)
    for old, new in (("<impl ", "<"), ("core::", ""), ("alloc::", ""), ("std::", ""), ("::{{closure}}", "")):
        name = name.replace(old, new)
    while len(name) > length and (plain := re.sub(r"<[^<>]*>", "", name)) != name:
        name = plain
    return name if len(name) <= length else name[: length - 1] + "…"
