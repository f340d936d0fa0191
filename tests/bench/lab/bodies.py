"""What upstream answers in a bench: variants of 1 KiB, flags of 40 KiB, and flags for the engine."""

import json

from machine import ROOT, SCRATCH

VECTORS = ROOT / "tests" / "vectors" / "engines"
#: The origin writes something else here for each user.
MARK = "0123456789abcdef"


def write():
    """Writes the files below SCRATCH that servers and origin are started with."""
    flags = json.loads((VECTORS / "flags.json").read_text())
    _put("vardata.json", _variants())
    _put("flags.json", _up_to(flags, 40 * 1024))
    _put("flags20.json", flags[:20])
    _put("flags5m.json", _many(flags, 5_000_000))


def _put(name, value):
    (SCRATCH / name).write_text(json.dumps(value, separators=(",", ":")))


def _size(value):
    return len(json.dumps(value, separators=(",", ":")))


def _variants():
    """20 variants in exactly 1 KiB."""
    variants = {}
    for number in range(20):
        variants[f"flag-{number:02}"] = {"key": "on"} if number % 3 else {"key": "treatment", "expKey": "exp-1"}
    variants["flag-01"]["metadata"] = {"evaluationId": MARK, "note": ""}
    variants["flag-01"]["metadata"]["note"] = "." * (1024 - _size(variants))
    assert _size(variants) == 1024
    return variants


def _up_to(flags, size):
    taken = []
    for flag in flags:
        taken.append(flag)
        if _size(taken) >= size:
            break
    return taken


def _many(flags, size):
    """Copies of the flags under other names, dependencies included, until they fill `size` bytes."""
    text = json.dumps(flags, separators=(",", ":"))
    copies = []
    for number in range(size // len(text) + 1):
        renamed = text.replace('"flag-', f'"f{number}-').replace('"holdout-', f'"h{number}-')
        copies += json.loads(renamed)
    return copies
