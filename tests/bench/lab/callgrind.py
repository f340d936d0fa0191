"""Reads callgrind's output: what each function costs by itself and with all that it calls."""

import collections
import html
import re

#: Standard library and runtime names say little with their generic parameters.
_HASH = re.compile(r"::h[0-9a-f]{16}$")
_COST = re.compile(r"^(?:\+|-|\*|0x)?[0-9a-f]*\*? (\d+)")


class Profile:
    """Instructions by function. Profiles can be subtracted and divided."""

    def __init__(self, own, inclusive):
        self.own = own
        self.inclusive = inclusive

    @property
    def total(self):
        return sum(self.own.values())

    def __sub__(self, other):
        return self._merge(other, lambda mine, theirs: mine - theirs)

    def __truediv__(self, number):
        return self._merge(self, lambda mine, _: mine / number)

    def _merge(self, other, operation):
        def merged(mine, theirs):
            return collections.Counter({
                name: operation(mine.get(name, 0), theirs.get(name, 0)) for name in {*mine, *theirs}})
        return Profile(merged(self.own, other.own), merged(self.inclusive, other.inclusive))

    def table(self, rows):
        """The functions that cost most by themselves."""
        lines = [f"  {'own':>8} {'with calls':>10}  function"]
        for name, own in self.own.most_common(rows):
            lines.append(f"  {own:8,.0f} {self.inclusive[name]:10,.0f}  {shorten(name, 110)}")
        return "\n".join(lines)


def read(path):
    """Parses an output file of callgrind 3 with one event."""
    own, inclusive, names = collections.Counter(), collections.Counter(), {}
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
                # Recursion would count twice.
                if called != function:
                    inclusive[function] += cost
            elif function and line[0] in "+-*0123456789":
                cost = _cost(line)
                own[function] += cost
                inclusive[function] += cost
            elif line.startswith("totals:"):
                break
    return Profile(own, inclusive)


def _cost(line):
    return int(line.split()[-1])


def shorten(name, length):
    """A function's name without hash and generic parameters."""
    name = _HASH.sub("", name)
    for old, new in (("<impl ", "<"), ("core::", ""), ("alloc::", ""), ("std::", "")):
        name = name.replace(old, new)
    while (plain := re.sub(r"<[^<>]*>", "", name)) != name and len(name) > length:
        name = plain
    return name if len(name) <= length else name[: length - 1] + "…"
