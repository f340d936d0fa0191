#!/usr/bin/env python3
"""The sidecar in manifests and at admission, held against Kubernetes' own schemas.

    tests/ops/injection.py [PROGRAM]        PROGRAM: target/debug/flagside

Needs the Python packages kubernetes-validate 1.37.0, jsonpatch 1.47 and PyYAML 6.0.3, and the program openssl.
A real `flagside injector` answers over TLS; its patches are applied by jsonpatch and the pods validated strictly;
`flagside inject` must come to the same pods. Everything stays on loopback.
"""

import base64
import copy
import http.client
import json
import pathlib
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import jsonpatch
import kubernetes_validate
import yaml

import support
from support import check, free_port, wait_for

NAME = "flagside-injector.flagside-system.svc"
RANDOM_PODS = 200
SEED = 20260101


def certificate(directory, name, days):
    """A CA of its own and a certificate for the Service's name, as a chart makes them."""
    run = lambda *args: subprocess.run(["openssl", *args], check=True, capture_output=True)
    ca_key, ca = directory / f"{name}-ca.key", directory / f"{name}-ca.crt"
    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
        "-subj", "/CN=test ca", "-keyout", str(ca_key), "-out", str(ca))
    key, request = directory / f"{name}.key", directory / f"{name}.csr"
    run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={NAME}",
        "-keyout", str(key), "-out", str(request))
    extensions = directory / f"{name}.ext"
    extensions.write_text(f"subjectAltName=DNS:{NAME}\n")
    chain = directory / f"{name}.crt"
    run("x509", "-req", "-in", str(request), "-CA", str(ca), "-CAkey", str(ca_key), "-CAcreateserial",
        "-days", str(days), "-extfile", str(extensions), "-out", str(chain))
    return ca.read_text(), chain.read_text(), key.read_text()


class Injector:
    """A running webhook and how to ask it, as the API server does: by the Service's name, with its CA bundle."""

    def __init__(self, program, directory, template="", *options):
        self.directory = pathlib.Path(directory)
        self.port, self.admin_port = free_port(), free_port()
        self.ca, chain, key = certificate(self.directory, "first", 20)
        self.chain_file, self.key_file = self.directory / "tls.crt", self.directory / "tls.key"
        self.chain_file.write_text(chain)
        self.key_file.write_text(key)
        (self.directory / "template.yaml").write_text(template)
        self.log = open(self.directory / "log", "w+")
        self.process = subprocess.Popen(
            [program, "injector", "--listen", f"127.0.0.1:{self.port}", "--admin-listen", f"127.0.0.1:{self.admin_port}",
             "--cert", self.chain_file, "--key", self.key_file, "--template", self.directory / "template.yaml",
             "--exclude-namespace", "flagside-system", "--drain-delay", "1s", *options],
            stdout=self.log, stderr=subprocess.STDOUT,
        )
        wait_for("the injector is ready", lambda: self.admin("/readyz")[0] == 200)

    def admin(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, line):
        for known in self.admin("/metrics")[1].splitlines():
            if known.startswith(line + " "):
                return float(known.rsplit(" ", 1)[1])
        return None

    def connect(self, ca=None, version=None):
        context = ssl.create_default_context(cadata=ca or self.ca)
        if version:
            context.minimum_version = context.maximum_version = version
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = http.client.HTTPSConnection(NAME, timeout=10)
        connection.sock = context.wrap_socket(raw, server_hostname=NAME)
        return connection

    def post(self, body, connection=None, method="POST"):
        own = connection is None
        connection = connection or self.connect()
        connection.request(method, "/inject?timeout=5s", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        headers = dict(answer.getheaders())
        if own:
            connection.close()
        return answer.status, text, headers

    def review(self, pod, namespace="default", connection=None, **changes):
        request = {
            "uid": f"{random.getrandbits(64):016x}",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE", "namespace": namespace, "object": pod, "oldObject": None, "dryRun": False,
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        } | changes
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
        status, text, _ = self.post(body, connection)
        if status != 200:
            check(False, f"status {status}: {text[:200]}")
            return {"allowed": None}
        review = json.loads(text)
        response = review["response"]
        check(review["kind"] == "AdmissionReview" and review["apiVersion"] == "admission.k8s.io/v1", "kind of the answer")
        check(response["uid"] == request["uid"], "uid of the answer")
        check(response["allowed"] is True, "a pod is always allowed")
        check(all(len(w.encode()) <= 256 for w in response.get("warnings", [])), "length of warnings")
        return response

    def stop(self, wanted=0):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=40)
        check(code == wanted, f"exit code {code}, not {wanted}")
        self.log.seek(0)
        return self.log.read()


def patched(pod, response):
    patch = json.loads(base64.b64decode(response["patch"]))
    check(response["patchType"] == "JSONPatch", "type of the patch")
    check(all(step["op"] == "add" for step in patch), "a patch only adds")
    return jsonpatch.apply_patch(pod, patch)


def validate(pod, what, version="1.37"):
    try:
        kubernetes_validate.validate(pod, version, strict=True)
        check(True, what)
    except Exception as error:  # whatever the validator raises is a finding
        check(False, f"{what}: {str(error)[:300]}\n{json.dumps(pod)[:600]}")


def sidecar(pod):
    every = pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
    return [container for container in every if container["name"] == "flagside"]


def random_pod(dice):
    """A pod as the API server may send it: any optional part may be missing or empty."""
    maybe = lambda value, chance=0.5: value if dice.random() < chance else None

    def container(name):
        made = {
            "name": name, "image": f"example/{name}:{dice.randint(1, 9)}",
            "command": maybe(["sh", "-c", "echo 'a: b' # c"]),
            "env": maybe(dice.choice([[], [{"name": "A", "value": "1"}], [{"name": "AMPLITUDE_SERVER_URL", "value": "own"}]])),
            "ports": maybe([{"containerPort": dice.choice([80, 8080, 9090])}]),
            "resources": maybe({"limits": {"cpu": "1", "memory": "1Gi"}}),
            "volumeMounts": maybe([{"name": "data", "mountPath": "/data"}], 0.3),
        }
        return {key: value for key, value in made.items() if value is not None}

    annotations = {}
    if dice.random() < 0.4:
        annotations["note"] = "line\nline: \"quoted\" é"
    for name, values in {
        "config": ["my-config"], "secret": ["keys.v2"], "log-level": ["debug"], "cpu-request": ["20m", "0.1"],
        "memory-request": ["64Mi"], "memory-limit": ["256Mi", "1Gi"], "port": ["4546"], "admin-port": ["4547"],
        "set-env": ["B=http://127.0.0.1:{port}/x", "C,D={admin-port}"], "native": ["true", "false"],
    }.items():
        if dice.random() < 0.15:
            annotations[f"flagside.io/{name}"] = dice.choice(values)
    spec = {
        "containers": [container(f"app-{n}") for n in range(dice.randint(1, 4))],
        "initContainers": maybe(dice.choice([[], [container("init")]])),
        "volumes": dice.choice([None, [], [{"name": "data", "emptyDir": {}}], [{"name": "flagside-keys", "emptyDir": {}}]]),
        "securityContext": maybe(dice.choice([{}, {"fsGroup": 1000}])),
        "nodeSelector": maybe({"kubernetes.io/os": "linux"}, 0.2),
        "restartPolicy": maybe(dice.choice(["Always", "Never"])),
        "serviceAccountName": maybe("default"),
    }
    metadata = {
        dice.choice(["name", "generateName"]): "web-",
        "labels": maybe(dice.choice([{}, {"app": "web", "a/b~c": "1"}])),
        "annotations": annotations or maybe({}),
    }
    strip = lambda map_: {key: value for key, value in map_.items() if value is not None}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": strip(metadata), "spec": strip(spec)}


def in_manifest(program, pod, template):
    """The pod after `flagside inject` of a Deployment with it, and the text."""
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {k: pod[k] for k in ("metadata", "spec")}},
    }
    text = yaml.safe_dump(deployment, sort_keys=False)
    done = subprocess.run([program, "inject", "--template", template], input=text, capture_output=True, text=True, timeout=30)
    check(done.returncode == 0, f"inject: {done.stderr}")
    again = subprocess.run([program, "inject", "--template", template], input=done.stdout, capture_output=True, text=True, timeout=30)
    check(again.stdout == done.stdout, "injecting twice is injecting once")
    whole = yaml.safe_load(done.stdout)["spec"]["template"]
    return {"apiVersion": "v1", "kind": "Pod", **whole}


def without_status(pod):
    pod = copy.deepcopy(pod)
    pod["metadata"].get("annotations", {}).pop("flagside.io/status", None)
    return pod


def check_random_pods(program, injector):
    dice = random.Random(SEED)
    connection = injector.connect()
    for number in range(RANDOM_PODS):
        pod = random_pod(dice)
        response = injector.review(pod, connection=connection)
        if "patch" not in response:
            check(False, f"random pod {number} was left alone: {response}")
            continue
        after = patched(pod, response)
        validate(after, f"random pod {number}")
        check(len(sidecar(after)) == 1, f"random pod {number} has one sidecar")
        again = injector.review(after, connection=connection)
        check("patch" not in again, f"random pod {number} is not injected twice")
        if number % 5 == 0:
            manifest = in_manifest(program, pod, injector.directory / "template.yaml")
            check(without_status(manifest) == without_status(after), f"random pod {number}: manifest and webhook agree")
    connection.close()


def check_versions(injector):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
    for version in ("1.29", "1.31", "1.33", "1.35", "1.37"):
        validate(patched(pod, injector.review(pod)), f"Kubernetes {version}", version)
    legacy = copy.deepcopy(pod)
    legacy["metadata"]["annotations"] = {"flagside.io/native": "false"}
    after = patched(legacy, injector.review(legacy))
    validate(after, "legacy in 1.27", "1.27")
    check(after["spec"]["containers"][0]["name"] == "flagside", "the legacy sidecar comes first")
    wanted = ["runAsNonRoot", "runAsUser", "readOnlyRootFilesystem", "allowPrivilegeEscalation", "capabilities", "seccompProfile"]
    check(all(key in after["spec"]["containers"][0]["securityContext"] for key in wanted), "six security fields")


def check_skips(injector):
    base = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}

    def pod(**changes):
        made = copy.deepcopy(base)
        for path, value in changes.items():
            *parents, last = path.split("__")
            here = made
            for parent in parents:
                here = here.setdefault(parent, {})
            here[last] = value
        return made

    note = lambda name, value: pod(metadata__annotations={f"flagside.io/{name}": value})
    cases = [
        ("disabled", note("inject", "disabled"), "default"),
        ("disabled", pod(metadata__labels={"flagside.io/inject": "false"}), "default"),
        ("already_injected", pod(spec__initContainers=[{"name": "flagside"}]), "default"),
        ("already_injected", note("status", "{}"), "default"),
        ("host_network", pod(spec__hostNetwork=True), "default"),
        ("windows", pod(spec__nodeSelector={"kubernetes.io/os": "windows"}), "default"),
        ("windows", pod(spec__os={"name": "windows"}), "default"),
        ("port_conflict", pod(spec__containers=[{"name": "a", "ports": [{"containerPort": 3547}]}]), "default"),
        ("bad_annotation", note("port", "80"), "default"),
        ("bad_annotation", note("memory-limit", "16Mi"), "default"),
        ("bad_annotation", note("image", "own"), "default"),
        ("excluded_namespace", base, "kube-system"),
        ("excluded_namespace", base, "flagside-system"),
    ]
    for reason, made, namespace in cases:
        line = f'flagside_injector_admissions_total{{result="skipped",reason="{reason}"}}'
        before = injector.metric(line)
        response = injector.review(made, namespace)
        check("patch" not in response, f"{reason}: no patch")
        check(injector.metric(line) == before + 1, f"{reason} is counted: {made}")
        loud = reason in ("host_network", "port_conflict", "bad_annotation")
        check(bool(response.get("warnings")) == loud, f"{reason}: warnings {response.get('warnings')}")


def check_refusals(injector):
    for body, wanted in [(b"", 400), (b"{", 400), (b"[]", 400), (b'{"kind":"AdmissionReview"}', 400)]:
        check(injector.post(body)[0] == wanted, f"{body!r} is refused")
    check(injector.post(b"", method="GET")[0] == 405, "GET is refused")
    # A body that is too large may be refused while it is still being sent.
    try:
        status = injector.post(b" " * (3 * 1024 * 1024 + 1))[0]
    except OSError:
        status = 413
    check(status == 413, f"too large: {status}")
    line = 'flagside_injector_admissions_total{result="failed",reason="too_large"}'
    check(injector.metric(line) == 1, "too large is counted")
    big = {"metadata": {"name": "a", "annotations": {"x": "y" * (2 * 1024 * 1024)}},
           "spec": {"containers": [{"name": "a", "image": "b"}]}}
    check("patch" in injector.review(big), "2 MiB are taken")
    response = injector.review(big, operation="UPDATE")
    check("patch" not in response and response.get("warnings"), "an update is left alone, loudly")


def check_tls(injector):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        connection = injector.connect(version=version)
        check(connection.sock.version() in ("TLSv1.2", "TLSv1.3"), f"{version}")
        connection.close()
    old = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{injector.port}", "-servername", NAME, "-tls1_1",
                          "-cipher", "ALL:@SECLEVEL=0"], input=b"", capture_output=True, timeout=20)
    check(old.returncode != 0, "TLS 1.1 is refused")


def check_certificate_change(injector):
    """A new pair is taken while a connection goes on; a broken one is not."""
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
    gauge = 'flagside_tls_certificate_not_after_timestamp_seconds{name="injector"}'
    first = injector.metric(gauge)
    check(abs(first - time.time() - 20 * 86400) < 7200, f"end of the first certificate: {first}")
    kept = injector.connect()
    injector.review(pod, connection=kept)
    injector.chain_file.write_text("not a certificate")
    time.sleep(5)
    check("patch" in injector.review(pod), "a broken certificate changes nothing")
    ca, chain, key = certificate(injector.directory, "second", 25)
    injector.chain_file.write_text(chain)
    injector.key_file.write_text(key)
    wait_for("the new certificate is in use", lambda: injector.metric(gauge) > first, 15)
    check("patch" in injector.review(pod, connection=kept), "the connection of before goes on")
    kept.close()
    old_ca, injector.ca = injector.ca, ca
    check("patch" in injector.review(pod), "the new CA verifies")
    try:
        injector.connect(ca=old_ca)
        check(False, "the old certificate is still shown")
    except ssl.SSLCertVerificationError:
        check(True, "")


def check_drain(injector):
    """During the drain requests are still answered, readiness says no, and connections are told to close."""
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
    kept = injector.connect()
    injector.review(pod, connection=kept)
    result = {}
    stopping = threading.Thread(target=lambda: result.update(log=injector.stop()))
    stopping.start()
    wait_for("unready while draining", lambda: injector.admin("/readyz")[0] == 503, 5)
    body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "resource": {"group": "", "resource": "pods"}, "operation": "CREATE", "object": pod}})
    status, _, headers = injector.post(body, kept)
    headers = {name.lower(): value for name, value in headers.items()}
    check(status == 200 and headers.get("connection") == "close", f"answered while draining: {status} {headers}")
    stopping.join()
    check("every request was finished" in result["log"], f"log: {result['log'][-300:]}")
    check(all(line.startswith("{") for line in result["log"].splitlines()), "log lines are JSON")


def check_metrics(injector):
    text = injector.admin("/metrics")[1]
    names = set(re.findall(r"^# TYPE (\S+)", text, re.M))
    for name in ("flagside_injector_admissions_total", "flagside_injector_admission_duration_seconds",
                 "flagside_tls_certificate_not_after_timestamp_seconds", "flagside_build_info", "process_open_fds"):
        check(name in names, f"metric {name}")
    check(injector.metric('flagside_injector_admission_duration_seconds_count{result="injected"}') > RANDOM_PODS, "durations")
    for path in ("/healthz", "/readyz", "/startupz", "/status"):
        check(injector.admin(path)[0] == 200, path)


def main():
    program = support.program()
    template = "image: registry.example.com/flagside:1.0.0\nset-env: [AMPLITUDE_SERVER_URL]\n"
    with tempfile.TemporaryDirectory() as directory:
        injector = Injector(program, directory, template, "--log-format", "json")
        try:
            check_versions(injector)
            check_random_pods(program, injector)
            check_skips(injector)
            check_refusals(injector)
            check_tls(injector)
            check_metrics(injector)
            check_certificate_change(injector)
            check_drain(injector)
        finally:
            if injector.process.poll() is None:
                injector.process.kill()
    return support.finish("injection", f" (seed {SEED})")


if __name__ == "__main__":
    sys.exit(main())
