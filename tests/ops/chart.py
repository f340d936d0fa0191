#!/usr/bin/env python3
"""Runs the chart cases: renders each one with every helm, and looks at what came out.

    tests/ops/chart.py --helm HELM [--helm HELM …] [--program FLAGSIDE] [--custom FILE] [NAME …]

A case of chart_cases/*.yaml has `name`; `values`, or `set` as for `helm --set`; `release` (r), `namespace` (flags),
`kube` (1.33; objects are then checked for this version alone, else for all), `apis`; and either `fails`, a pattern of the error, or `expect`, a list of

    {kind, name, path, equals | matches | exists | absent | length}     `path` as spec.replicas, items by number
    {kind, name, count: N}                                              how many objects there are
    {notes: PATTERN}                                                    what `helm install` would print

A `name` may be left out where there is one object of the kind. Whatever a case expects: all objects pass the strict
schemas of Kubernetes and the rules of kube.py, keys (values that begin with SENTINEL) are in Secrets alone, every
helm renders the same, flagside accepts the configuration and the template of sidecars, and where a case `serves` the
injector starts and answers as the webhook says. Custom resources go to --custom, a JSON line each.

Needs PyYAML and kubernetes-validate.
"""

import argparse
import base64
import concurrent.futures
import copy
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile

import yaml

import kube

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/flagside"
CASES = pathlib.Path(__file__).resolve().parent / "chart_cases"
# With a field that there is not: what the schemas must notice, or they look at nothing.
NO_DEPLOYMENT = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "no"}, "spec": {"port": 80}}
RECOMMENDED = {"name", "instance", "version", "component", "part-of", "managed-by"}


class Failed(Exception):
    """What a case found wrong, one a line."""


def render(helm, case, directory):
    """Exit code, standard output and standard error of `helm template`."""
    values = directory / "values.yaml"
    values.write_text(yaml.safe_dump(case.get("values", {})))
    command = [helm, "template", case.get("release", "r"), str(case.get("chart", CHART)), "--values", str(values)]
    command += ["--namespace", case.get("namespace", "flags"), "--kube-version", case.get("kube", "1.33")]
    for api in case.get("apis", []):
        command += ["--api-versions", api]
    for assignment in case.get("set", []):
        command += ["--set", assignment]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def notes_of(helm, case, directory):
    """The text that an installation ends with: NOTES.txt rendered as if it were an object of the chart."""
    copy = directory / "notes"
    if not copy.exists():
        subprocess.run(["cp", "-r", str(CHART), str(copy)], check=True)
        text = (copy / "templates/NOTES.txt").read_text()
        (copy / "templates/_notes.tpl").write_text('{{- define "notes" }}' + text + "{{- end }}")
        (copy / "templates/zz-notes.yaml").write_text(
            'apiVersion: v1\nkind: Notes\nmetadata: {name: notes}\ntext: |\n{{ include "notes" . | indent 2 }}\n')
    _, out, err = render(helm, {**case, "chart": copy}, directory)
    texts = [thing["text"] for thing in yaml.safe_load_all(out) if thing and thing["kind"] == "Notes"]
    if not texts:
        raise Failed(f"NOTES.txt cannot be rendered: {err}")
    return texts[0]


def find(value, path):
    """The value at a.b.0.c, or None. A part in brackets may have dots: metadata.annotations.[a.b/c]."""
    for part in re.findall(r"\[([^]]*)\]|([^.\[\]]+)", path):
        part = part[0] or part[1]
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            return None
    return value


def expectation_problem(things, expected):
    """What is wrong, or None."""
    chosen = [t for t in things if t["kind"] == expected["kind"]]
    if "name" in expected:
        chosen = [t for t in chosen if t["metadata"]["name"] == expected["name"]]
    if "count" in expected:
        return None if len(chosen) == expected["count"] else f"{len(chosen)} objects: {[kube.title(t) for t in chosen]}"
    if len(chosen) != 1:
        return f"{len(chosen)} objects like that in {[kube.title(t) for t in things]}"
    value = find(chosen[0], expected["path"])
    checks = {
        "equals": lambda wanted: value == wanted,
        "matches": lambda wanted: isinstance(value, str) and re.search(wanted, value),
        "lacks": lambda wanted: isinstance(value, str) and not re.search(wanted, value),
        "exists": lambda _: value is not None,
        "absent": lambda _: value is None,
        "length": lambda wanted: value is not None and len(value) == wanted,
    }
    [(check, wanted)] = [(name, expected[name]) for name in checks if name in expected]
    return None if checks[check](wanted) else f"got {value!r}"


def common_problems(things, case):
    """What must hold for every case."""
    versions = [case.get("validate", case["kube"])] if "kube" in case else kube.VERSIONS
    waived = re.compile(case.get("waives", r"(?!)"))
    for thing in things:
        yield from kube.schema_problems(thing, versions)
        if thing["metadata"].get("labels", {}).get("extra"):
            continue  # the user's own object
        yield from (problem for problem in kube.rule_problems(thing) if not waived.search(problem))
        labels = thing["metadata"].get("labels", {})
        missing = {name for name in RECOMMENDED if not labels.get(f"app.kubernetes.io/{name}")}
        if missing or "helm.sh/chart" not in labels:
            yield f"{kube.title(thing)}: lacks recommended labels {sorted(missing)}"
        if thing["kind"] == "Deployment":
            selector = thing["spec"]["selector"]["matchLabels"].keys()
            if selector != {"app.kubernetes.io/name", "app.kubernetes.io/instance"}:
                yield f"{kube.title(thing)}: selects by {sorted(selector)}, which may change"
        if thing["kind"] not in ("Secret", "Namespace") and "SENTINEL" in json.dumps(thing):
            yield f"{kube.title(thing)}: shows a key"
        if thing["kind"] in ("Ingress", "HTTPRoute") and re.search(r'"admin"|3547', json.dumps(thing["spec"])):
            yield f"{kube.title(thing)}: publishes the admin port"
        is_outside = thing["kind"] == "Service" and thing["spec"]["type"] != "ClusterIP"
        if is_outside and any(port["name"] == "admin" for port in thing["spec"]["ports"]):
            yield f"{kube.title(thing)}: publishes the admin port"
    names = [(t["kind"], t["metadata"].get("namespace"), t["metadata"]["name"]) for t in things]
    yield from (f"{name} is there twice" for name in {n for n in names if names.count(n) > 1})
    yield from selection_problems(things)


def selection_problems(things):
    """Services, monitors, budgets and policies select the pods of exactly one workload."""
    pods = [kube.pod_of(t)[1].get("labels", {}) for t in things if t["kind"] == "Deployment"]
    for thing in things:
        spec = thing.get("spec", {})
        if thing["metadata"].get("labels", {}).get("extra"):
            continue
        selector = {
            "Service": lambda: spec["selector"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
            "ServiceMonitor": lambda: spec["selector"]["matchLabels"],
        }.get(thing["kind"])
        if selector and sum(selector().items() <= labels.items() for labels in pods) != 1:
            yield f"{kube.title(thing)}: selects the pods of none or several of {len(pods)} workloads"


def config_problems(program, things, directory):
    """What flagside says to the configuration that the chart made of the values."""
    for thing in things:
        text = thing.get("data", {}).get("flagside.yaml") or thing.get("stringData", {}).get("flagside.yaml")
        if text is None or thing["metadata"].get("labels", {}).get("extra"):
            continue
        # Mounted files stand in the working directory here.
        text = text.replace("/run/secrets/flagside", str(directory))
        (directory / "deployment-keys").write_text("client-1234567890\n")
        (directory / "deployment-keys").chmod(0o600)
        (directory / "flagside.yaml").write_text(text)
        done = subprocess.run([program, "check", "--config", str(directory / "flagside.yaml")],
                              capture_output=True, text=True, check=False, env={})
        if done.returncode != 0:
            yield f"{kube.title(thing)}: flagside refuses it: {done.stderr.strip()}"


def template_problems(program, things, directory):
    """What `flagside inject` says to the template of the injector, and whether the pod that it makes would be taken."""
    for thing in things:
        text = thing.get("data", {}).get("template.yaml") if thing["kind"] == "ConfigMap" else None
        if text is None:
            continue
        (directory / "template.yaml").write_text(text)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"},
               "spec": {"containers": [{"name": "app", "image": "app"}]}}
        done = subprocess.run([program, "inject", "--template", str(directory / "template.yaml")], input=json.dumps(pod),
                              capture_output=True, text=True, check=False, env={})
        if done.returncode != 0:
            yield f"{kube.title(thing)}: flagside inject refuses it: {done.stderr.strip()}"
            continue
        spec = yaml.safe_load(done.stdout)
        if "flagside" not in [c["name"] for c in kube.containers(spec["spec"])]:
            yield f"{kube.title(thing)}: no sidecar in {done.stdout}"
        yield from kube.schema_problems(spec, ["1.37"])


def webhook_problems(program, things, directory):
    """Starts the injector as its Deployment says, and asks it as the API server would by what the webhook says."""
    [workload] = [t for t in things if t["kind"] == "Deployment" and t["metadata"]["name"].endswith("-injector")]
    [secret] = [t for t in things if t["kind"] == "Secret"]
    [template] = [t for t in things if t["kind"] == "ConfigMap" and "template.yaml" in t["data"]]
    [hook] = [t for t in things if t["kind"] == "MutatingWebhookConfiguration"]
    for name, content in secret["data"].items():
        (directory / name).write_bytes(base64.b64decode(content))
    (directory / "template.yaml").write_text(template["data"]["template.yaml"])
    # The files are mounted elsewhere, and ports are those that are free here.
    arguments = []
    for argument in workload["spec"]["template"]["spec"]["containers"][0]["args"]:
        argument = re.sub(r"/(etc|run/secrets)/flagside-injector", str(directory), argument)
        arguments.append(re.sub(r"listen=.*", "listen=127.0.0.1:0", argument))
    client = hook["webhooks"][0]["clientConfig"]
    host = f"{client['service']['name']}.{client['service']['namespace']}.svc"
    context = ssl.create_default_context(cadata=base64.b64decode(client["caBundle"]).decode())
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
        "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": "shop",
        "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": {"containers": [{"name": "app", "image": "app"}]}}}}
    with subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={}) as server:
        try:
            first = server.stdout.readline()
            if "listen.webhook" not in first:
                yield f"{kube.title(workload)}: the injector does not start: {first}"
                return
            port = int(json.loads(first)["listen.webhook"].rpartition(":")[2])
            for namespace, is_wanted in (("shop", True), ("istio-system", False), ("flags", False)):
                review["request"]["namespace"] = namespace
                with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
                    with context.wrap_socket(plain, server_hostname=host) as secure:
                        body = json.dumps(review)
                        secure.sendall(f"POST {client['service']['path']} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                                       f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
                        answer = secure.makefile("rb").read().partition(b"\r\n\r\n")[2]
                response = json.loads(answer)["response"]
                if not response["allowed"] or ("patch" in response) != is_wanted:
                    yield f"{kube.title(workload)}: a pod of {namespace} gets {response}"
        finally:
            server.kill()


def normal(things):
    """Objects without what is new each time: certificates."""
    return json.loads(re.sub(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]*", "PEM", json.dumps(things)))


def certificate_problems(things, directory):
    """A certificate made by helm is one for the webhook's Service, signed by what the API server is told to trust."""
    secrets = [t for t in things if t["kind"] == "Secret" and t.get("type") == "kubernetes.io/tls"]
    hooks = [t for t in things if t["kind"] == "MutatingWebhookConfiguration"]
    for secret in secrets:
        files = {}
        for name in ("tls.crt", "ca.crt"):
            files[name] = directory / name
            files[name].write_bytes(base64.b64decode(secret["data"][name]))
        for entry in hooks[0]["webhooks"]:
            if entry["clientConfig"]["caBundle"] != secret["data"]["ca.crt"]:
                yield f"{kube.title(hooks[0])}: trusts another certificate than the Secret's"
            service = entry["clientConfig"]["service"]
            host = f"{service['name']}.{service['namespace']}.svc"
            verify = ["openssl", "verify", "-CAfile", str(files["ca.crt"]), "-verify_hostname", host, "-purpose",
                      "sslserver", str(files["tls.crt"])]
            done = subprocess.run(verify, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                yield f"{kube.title(secret)}: {done.stdout}{done.stderr}"


def null_cases():
    """A case for every value, in which it is taken away: either that renders well, or the message says what is missing."""
    on = {"enabled": True}
    everything = {
        # Helm's own certificate would take longer to make than all the rest.
        "injector": {**on, "certificate": {"source": "cert-manager"}}, "networkPolicy": on, "autoscaling": on, "ingress": {**on, "hosts": [{"host": "a"}]},
        "httpRoute": {**on, "parentRefs": [{"name": "a"}]},
        "monitoring": {"ignoreCapabilities": True, "serviceMonitor": on, "podMonitor": on, "prometheusRule": on, "dashboard": on},
    }

    def below(value, path=()):
        if path:
            yield path
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from below(inner, (*path, name))

    for path in below(yaml.safe_load((CHART / "values.yaml").read_text())):
        values = copy.deepcopy(everything)
        place = values
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = None
        yield {"name": f"without {'.'.join(path)}", "values": values, "kube": "1.33", "waives": "", "is_null": True}


def run_case(case, options, directory):
    """Raises Failed; returns the objects."""
    results = []
    # What one helm makes of nothing, the other does too.
    for helm in options.helm[-1:] if case.get("is_null") else options.helm:
        code, out, err = render(helm, case, directory)
        if case.get("is_null") and code != 0 and re.search("values don't meet|execution error", err):
            return []
        if "fails" in case:
            if code == 0:
                raise Failed(f"{helm} renders it")
            if not re.search(case["fails"], err):
                raise Failed(f"{helm} says {err.strip()!r}, not {case['fails']!r}")
            continue
        if code != 0:
            raise Failed(f"{helm}: {err.strip()}")
        results.append([thing for thing in yaml.safe_load_all(out) if thing])
    if "fails" in case:
        return []
    things = results[0]
    problems = list(common_problems(things, case))
    if any(normal(sorted(other, key=kube.title)) != normal(sorted(things, key=kube.title)) for other in results[1:]):
        problems.append(f"{' and '.join(options.helm)} render different objects")
    problems += certificate_problems(things, directory)
    if options.program:
        problems += config_problems(options.program, things, directory)
        if "inject" in options.commands:
            problems += template_problems(options.program, things, directory)
        if "injector" in options.commands and case.get("serves"):
            problems += webhook_problems(options.program, things, directory)
    notes = None
    for expected in case.get("expect", []):
        if "notes" in expected:
            notes = notes or notes_of(options.helm[-1], case, directory)
            problem = None if re.search(expected["notes"], notes) else f"got {notes!r}"
        else:
            problem = expectation_problem(things, expected)
        if problem:
            problems.append(f"{expected}: {problem}")
    if problems:
        raise Failed("\n".join(problems))
    return things


def outcome(case, options):
    """The case, its objects, and what was wrong or None."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            return case, run_case(case, options, pathlib.Path(directory)), None
        except Failed as problem:
            return case, [], str(problem)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--helm", action="append", required=True)
    parser.add_argument("--program")
    parser.add_argument("--custom", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    options.commands = []
    if options.program:
        text = subprocess.run([options.program, "help"], capture_output=True, text=True, check=True).stdout
        options.commands = re.findall(r"^  ([a-z-]+) {2,}", text, re.M)
    cases = [case for file in sorted(CASES.glob("*.yaml")) for case in yaml.safe_load(file.read_text())]
    if options.names:
        cases = [case for case in cases if case["name"] in options.names]
    failed, refused, custom = 0, 0, {}
    if not options.names:
        cases += null_cases()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for case, things, problem in pool.map(lambda case: outcome(case, options), cases):
            if problem:
                failed += 1
                print(f"FAILED {case['name']}\n    " + problem.replace("\n", "\n    "))
            refused += "fails" in case
            custom.update({json.dumps(thing, sort_keys=True): None for thing in things if kube.is_custom(thing)})
    if not list(kube.schema_problems(NO_DEPLOYMENT, kube.VERSIONS)):
        failed += 1
        print("FAILED the schemas of Kubernetes accept everything")
    if options.custom:
        options.custom.write_text("".join(line + "\n" for line in custom))
    print(f"chart: {len(cases) - failed} cases passed ({refused} of them values that are refused), {failed} failed")
    sys.exit(1 if failed or not cases else 0)


main()
