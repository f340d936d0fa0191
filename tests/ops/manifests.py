#!/usr/bin/env python3
"""Checks deploy/kubernetes and the manifests that documents show.

    tests/ops/manifests.py --kubectl KUBECTL [--kubectl …] [--program FLAGSIDE]

Every object passes the strict schemas of all versions and the rules of kube.py, flagside accepts every configuration,
and the two sidecars differ in nothing but what makes them native or legacy. Needs PyYAML and kubernetes-validate.
"""

import argparse
import copy
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

import kube

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def objects(text):
    return [thing for thing in yaml.safe_load_all(text) if thing]


def sources(kubectls):
    """(where, objects) of every manifest."""
    for file in sorted(KUBERNETES.glob("*.yaml")):
        yield file.name, objects(file.read_text())
    for folder in sorted(file.parent for file in KUBERNETES.glob("**/kustomization.yaml")):
        built = [subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout
                 for kubectl in kubectls]
        if len(set(built)) != 1:
            yield f"{folder.name}: the kubectls build different objects", []
        yield str(folder.relative_to(KUBERNETES)), objects(built[0])
    for page in DOCUMENTS:
        for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.M | re.S):
            if re.search(r"^apiVersion: [^{]*$", block, re.M) and "kustomize.config" not in block:
                yield page.name, objects(block)


def config_problems(things, program):
    for thing in things:
        for name, text in thing.get("data", {}).items() if thing["kind"] == "ConfigMap" else ():
            if not name.endswith(".yaml"):
                continue
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                # A key file is not here, and what it would hold is not the question.
                file.write(re.sub(r"^\s*deployment_keys_file:.*\n", "", text, flags=re.M))
                file.flush()
                done = subprocess.run([program, "check", "--config", file.name], capture_output=True, text=True, check=False,
                                      env={})
            if done.returncode != 0 or "warning" in done.stderr:
                yield f"{kube.title(thing)}: {done.stderr.strip()}"


def sidecar_problems():
    """The native and the legacy sidecar, side by side."""
    pods = {}
    for kind in ("native", "legacy"):
        [workload] = [t for t in objects((KUBERNETES / f"sidecar-{kind}.yaml").read_text()) if t["kind"] == "Deployment"]
        pods[kind] = copy.deepcopy(workload["spec"]["template"]["spec"])
    native, legacy = pods["native"]["initContainers"][0], pods["legacy"]["containers"][0]
    if native["name"] != "flagside" or legacy["name"] != "flagside":
        yield "flagside is not the first container"
    if native.pop("restartPolicy", None) != "Always" or "lifecycle" in native:
        yield "the native sidecar is not one"
    if set(legacy.pop("lifecycle", {})) != {"postStart", "preStop"}:
        yield "the legacy sidecar has no hooks"
    if native != legacy:
        yield "the sidecars differ in more than what makes them native or legacy"
    if "readinessProbe" in native:
        yield "a sidecar's readiness would count for the whole pod"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubectl", action="append", required=True)
    parser.add_argument("--program")
    options = parser.parse_args()
    problems, count = list(sidecar_problems()), 0
    for where, things in sources(options.kubectl):
        if not things:
            problems.append(where)
        for thing in things:
            count += 1
            found = [*kube.schema_problems(thing, kube.VERSIONS), *kube.rule_problems(thing)]
            problems += [f"{where}: {problem}" for problem in found]
        if options.program:
            problems += [f"{where}: {problem}" for problem in config_problems(things, options.program)]
    for problem in problems:
        print(f"FAILED {problem}")
    print(f"manifests: {count} objects, {len(problems)} failed")
    sys.exit(1 if problems or not count else 0)


main()
