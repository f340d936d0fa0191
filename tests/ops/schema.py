#!/usr/bin/env python3
"""The JSON Schema of the configuration, held against a real validator and against the program itself.

    tests/ops/schema.py [PROGRAM]        PROGRAM: target/debug/flagside

Needs the Python packages jsonschema 4.25.1 and PyYAML 6.0.3. Every case of schema_cases.yaml is a configuration
file; the schema must take it or refuse it at the place the case names, and `flagside check` must agree.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import jsonschema
import yaml

import support
from support import ROOT, check

HERE = pathlib.Path(__file__).resolve().parent


def place(error):
    """The path of an error as flagside writes it: environments[0].urls.eval."""
    text = ""
    for step in error.absolute_path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    if error.validator == "additionalProperties":
        name = re.search(r"'([^']*)' (?:was|were) unexpected", error.message).group(1)
        text += f".{name}" if text else name
    return text


def leaves(error):
    """The innermost reasons of an error."""
    inner = [leaf for cause in error.context or [] for leaf in leaves(cause)]
    return [error] + inner


def judge(program, text):
    """Whether the program takes the file, and what it says."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(
            [program, "check", "--config", file.name],
            capture_output=True, text=True, timeout=30, env={"LOG_LEVEL": "info", "PATH": "/usr/bin:/bin"},
        )
    return done.returncode == 0, done.stdout + done.stderr


def main():
    program = support.program()
    printed = subprocess.run([program, "schema"], capture_output=True, text=True, check=True).stdout
    check(printed == (ROOT / "flagside.schema.json").read_text(), "flagside.schema.json is not what flagside schema prints")
    schema = json.loads(printed)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    cases = yaml.safe_load((HERE / "schema_cases.yaml").read_text())
    for case in cases:
        name, text = case["name"], case["file"]
        wanted = case.get("refused")
        errors = [leaf for error in validator.iter_errors(yaml.safe_load(text)) for leaf in leaves(error)]
        places = {place(error) for error in errors}
        if wanted is None:
            check(not errors, f"{name}: the schema refuses {sorted(places)}: {[error.message[:200] for error in errors[:1]]}")
        else:
            check(wanted in places, f"{name}: the schema should refuse {wanted}, it refuses {sorted(places)}")
        taken, said = judge(program, text)
        verdict = "takes" if taken else "refuses"
        check(taken == (wanted is None), f"{name}: flagside check {verdict} it: {said.strip()[:300]}")
    return support.finish("schema", f" ({len(cases)} files)")


if __name__ == "__main__":
    sys.exit(main())
