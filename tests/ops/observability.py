#!/usr/bin/env python3
"""Metrics, rules, alerts and dashboard, held against a real Prometheus that scrapes the running program.

    tests/ops/observability.py [PROGRAM]        PROGRAM: target/debug/flagside

Needs prometheus and promtool (Debian: prometheus), openssl, and the Python packages PyYAML 6.0.3, kubernetes-validate
1.37.0 and jsonpatch 1.47 (for the injector of injection.py). Everything stays on loopback; takes about a minute.
"""

import contextlib
import http.client
import itertools
import json
import math
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

import yaml

import injection
import support
from support import Handler, ROOT, check, free_port, serve, wait_for

PLACE = ROOT / "deploy/observability"
SEED = 20260202
BUDGET = 1500
CARDINALITY_REQUESTS = 5000

# Panels that show nothing in a healthy run of a minute, and why.
EXPECTED_EMPTY = {}

KEYWORDS = set(
    "by on and or unless without ignoring group_left group_right bool offset sum max min count avg rate increase changes "
    "histogram_quantile time vector".split()
)


def golden():
    """Types and labels by metric name, of metrics.txt."""
    names = {}
    for line in (PLACE / "metrics.txt").read_text().splitlines():
        name, kind, *labels = line.split(" ")
        names[name] = (kind, labels[0].split(",") if labels else [])
    return names


def metrics_of(expression):
    """The names of metrics in an expression of PromQL."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]', " ", expression)
    bare = re.sub(r"\b(by|on|ignoring|without)\s*\([^)]*\)", " ", bare)
    words = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare))
    return {word for word in words if word not in KEYWORDS and not re.fullmatch(r"[eE]\d*", word)}


def family_of(name, known):
    for suffix in ("", "_bucket", "_sum", "_count"):
        if name.endswith(suffix) and name[: len(name) - len(suffix)] in known:
            return name[: len(name) - len(suffix)]
    return None


def promtool(*arguments, text=None):
    done = subprocess.run(["promtool", *map(str, arguments)], input=text, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


# Rules, tests, runbook

def check_rules():
    code, said = promtool("check", "rules", PLACE / "rules.yaml")
    check(code == 0, f"promtool check rules: {said}")
    code, said = promtool("test", "rules", PLACE / "rules_test.yaml")
    check(code == 0, f"promtool test rules: {said[:2000]}")
    rules = [rule for group in yaml.safe_load((PLACE / "rules.yaml").read_text())["groups"] for rule in group["rules"]]
    known = set(golden()) | {"up"}
    records = {rule["record"] for rule in rules if "record" in rule}
    for rule in rules:
        for name in metrics_of(rule["expr"]):
            check(name in records or family_of(name, known), f"{rule.get('alert') or rule['record']}: no metric {name}")
    tests = yaml.safe_load((PLACE / "rules_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    runbook = (ROOT / "docs/runbook.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", runbook, re.M | re.S))
    alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
    for name, rule in alerts.items():
        fired = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == name]
        check(True in fired and False in fired, f"{name} has a firing and a quiet test")
        check(set(rule["annotations"]) == {"summary", "description", "runbook_url"}, f"{name}: annotations")
        check(rule["annotations"]["runbook_url"].endswith(f"#{name.lower()}"), f"{name}: runbook_url")
        section = sections.get(name, "")
        for part in ("**Meaning**", "**Impact**", "**First look**", "**Fix**"):
            check(part in section, f"runbook: {name}: {part}")
        commands = section.count("\n", section.find("```sh\n") + 6, section.find("```\n", section.find("```sh\n") + 6))
        check(commands == 3, f"runbook: {name}: three commands, not {commands}")
    check(set(sections) == set(alerts), f"runbook and alerts: {set(sections) ^ set(alerts)}")
    for name in re.findall(r"\b(?:flagside|process)_[a-z_]*[a-z]\b(?![(|])", runbook):
        check(family_of(name, known), f"runbook: no metric {name}")


# The dashboard's file

def expanded(expression):
    for name in ("$__rate_interval", "$__range", "$__interval"):
        expression = expression.replace(name, "5m")
    return re.sub(r"\$\w+|\$\{\w+\}", ".+", expression)


def check_dashboard_file(dashboard, directory):
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    check(len(set(ids)) == len(ids), "ids of panels are unique")
    check(dashboard["uid"] and len(dashboard["uid"]) <= 40, "the dashboard has a uid")
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    check(variables == {"datasource", "namespace", "job", "instance"}, f"variables: {variables}")
    places = {panel["id"]: panel["gridPos"] for panel in panels}
    for (one, a), (other, b) in itertools.combinations(places.items(), 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        check(apart, f"panels {one} and {other} overlap")
    known, rules = set(golden()), []
    for panel in panels:
        place = panel["gridPos"]
        check(place["x"] + place["w"] <= 24, f"{panel['title']}: wider than the grid")
        if panel["type"] == "row":
            continue
        check(panel["datasource"]["uid"] == "${datasource}", f"{panel['title']}: data source by variable")
        check(panel["title"] and panel["fieldConfig"]["defaults"].get("unit"), f"{panel['title']}: title and unit")
        for target in panel["targets"]:
            for variable in ("$job", "$namespace", "$instance"):
                check(variable in target["expr"], f"{panel['title']}: {variable} in its expression")
            for name in metrics_of(target["expr"]):
                check(family_of(name, known), f"{panel['title']}: no metric {name}")
            rules.append({"record": f"panel:{len(rules)}", "expr": expanded(target["expr"])})
    file = pathlib.Path(directory) / "dashboard-rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    code, said = promtool("check", "rules", file)
    check(code == 0, f"expressions of the dashboard: {said[:1500]}")
    shown = {family_of(name, known) for rule in rules for name in metrics_of(rule["expr"])}
    print(f"dashboard: {len(rules)} expressions, metrics that it does not show: {', '.join(sorted(known - shown))}")


# A running flagside under traffic

class Cloud(Handler):
    """Amplitude's answers, or 503 while it is down."""

    down = threading.Event()
    flags = (ROOT / "src/command/demo/flags.json").read_bytes()

    def answer(self):
        self.body()
        status, body = 200, b'{"theme":{"key":"dark","value":"dark"}}'
        if self.down.is_set():
            status, body = 503, b"down"
        elif "/flags" in self.path:
            body = self.flags
        elif "bad-key" in (self.headers.get("authorization") or ""):
            status, body = 401, b"{}"
        elif "vardata" not in self.path:
            status, body = 404, b"{}"
        self.reply(status, body)

    do_GET = do_POST = do_HEAD = do_OPTIONS = do_PUT = answer


class Asker:
    """One connection, opened again when flagside closes it."""

    def __init__(self, port):
        self.port, self.connection = port, None

    def ask(self, method, path, headers, body=None):
        for attempt in range(2):
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
            try:
                self.connection.request(method, path, body, headers)
                answer = self.connection.getresponse()
                answer.read()
                if answer.getheader("connection") == "close":
                    self.close()
                return answer.status
            except (http.client.HTTPException, OSError):
                self.close()
                if attempt:
                    raise

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


KEY = {"Authorization": "Api-Key server-observability"}
FEATBIT = {"Authorization": "gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w", "Content-Type": "application/json"}


def usual_traffic(port, stop):
    """What SDKs ask: few users, again and again, and now and then a new one."""
    dice, asker = random.Random(SEED), Asker(port)
    while not stop.is_set():
        user = dice.choice(["ada", "bob", "eve", f"new-{dice.random()}"])
        with contextlib.suppress(OSError, http.client.HTTPException):
            asker.ask("GET", f"/v1/vardata?user_id={user}", KEY)
            asker.ask("POST", "/v1/vardata", KEY, json.dumps({"user_id": user, "device_id": "d"}))
            asker.ask("GET", "/sdk/v2/flags", KEY)
        stop.wait(0.05)
    asker.close()


def random_request(dice):
    word = lambda: "".join(dice.choices("abcdefghijklmnopqrstuvwxyz0123456789-_.~%/é", k=dice.randint(1, 20)))
    path = dice.choice(["/v1/vardata", "/v1/flags", "/sdk/v2/flags", "/sdk/v2/vardata", "/v1/" + word(), "/sdk/" + word(),
                        "/" + word(), "/web/" + word(), "/sdk/v1/cohort/" + word(), "/status"])
    names = ["user_id", "flag_keys", "context", urllib.parse.quote(word())]
    query = "&".join(f"{dice.choice(names)}={urllib.parse.quote(word())}" for _ in range(dice.randint(0, 3)))
    headers = {"Authorization": dice.choice(["Api-Key " + urllib.parse.quote(word()), KEY["Authorization"], "Bearer x", "Api-Key bad-key"]),
               "X-Amp-Exp-" + re.sub("[^a-z]", "", word()) + "x": urllib.parse.quote(word()), "User-Agent": urllib.parse.quote(word())}
    method = dice.choice(["GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "BREW"])
    body = json.dumps({word(): word()}) if method in ("POST", "PUT") else None
    return method, urllib.parse.quote(path, safe="/%") + ("?" + query if query else ""), headers, body


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def series(text):
    return sorted(line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#"))


def check_cardinality(port, admin):
    dice, asker = random.Random(SEED), Asker(port)
    counts = [series(scrape(admin))]
    for number in range(1, CARDINALITY_REQUESTS + 1):
        asker.ask(*random_request(dice))
        if number % (CARDINALITY_REQUESTS // 2) == 0:
            counts.append(series(scrape(admin)))
    asker.close()
    check(counts[0] == counts[1] == counts[2], f"series appear with traffic: {[len(count) for count in counts]}")
    check(len(counts[2]) <= BUDGET, f"{len(counts[2])} series, budget {BUDGET}")
    print(f"cardinality: {len(counts[2])} series before and after {CARDINALITY_REQUESTS} random requests")


def check_exposition(texts):
    """promtool takes each; together they have the names, types and labels of metrics.txt and no others."""
    found = {}
    for text in texts:
        code, said = promtool("check", "metrics", text=text)
        check(code == 0, f"promtool check metrics: {said[:600]}")
        kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)", text, re.M))
        for name, kind in kinds.items():
            sample = re.search(rf"^{name}(?:_bucket)?(?:\{{(.*)\}})? ", text, re.M)
            labels = re.findall(r'(\w+)="', sample.group(1) or "") if sample else []
            found[name] = (kind, [label for label in labels if label != "le"])
    wanted = golden()
    for name in sorted(set(found) | set(wanted)):
        check(found.get(name) == wanted.get(name), f"{name}: exposed {found.get(name)}, metrics.txt {wanted.get(name)}")


class Prometheus:
    def __init__(self, directory, targets):
        self.port = free_port()
        directory = pathlib.Path(directory)
        # Quicker than in production, so that a minute is enough.
        rules = (PLACE / "rules.yaml").read_text().replace("interval: 30s", "interval: 2s")
        (directory / "rules.yaml").write_text(rules)
        scrapes = [{"job_name": f"flagside-{name}", "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "shop"}}]}
                   for name, port in targets.items()]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(
            {"global": {"scrape_interval": "1s", "evaluation_interval": "2s"}, "rule_files": ["rules.yaml"], "scrape_configs": scrapes}))
        self.log = open(directory / "prometheus.log", "w")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={directory}/prometheus.yml", f"--web.listen-address=127.0.0.1:{self.port}",
             f"--storage.tsdb.path={directory}/tsdb", "--log.level=warn"], stdout=self.log, stderr=subprocess.STDOUT)

    def get(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def query(self, expression):
        """The values of an expression that are numbers."""
        data = self.get("query", query=expression)
        if data is None:
            return []
        result = [data["result"]] if data["resultType"] == "scalar" else [sample["value"] for sample in data["result"]]
        return [float(value) for _, value in result if not math.isnan(float(value))]

    def up(self):
        data = self.get("targets") or {"activeTargets": []}
        return [target["health"] for target in data["activeTargets"]]


def check_live(prometheus, dashboard):
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    check(len(rules) == 21, f"{len(rules)} rules are loaded")
    for rule in rules:
        check(rule["health"] == "ok", f"rule {rule['name']}: {rule.get('lastError')}")
        if rule["type"] == "recording":
            check(prometheus.query(rule["name"]), f"the recording rule {rule['name']} gives nothing")
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    for panel in panels:
        for target in panel["targets"]:
            empty = not prometheus.query(expanded(target["expr"]))
            expected = panel["title"] in EXPECTED_EMPTY
            check(empty == expected, f"panel {panel['title']}: {'no data' if empty else 'data'} for {expanded(target['expr'])}")
    check(prometheus.query('flagside_http_responses_total{source="local"} > 0'), "answers were computed locally")
    print(f"live: {len(panels)} panels, {len(EXPECTED_EMPTY)} expected to be empty, {len(rules)} rules")


def run(program, directory, dashboard):
    cloud = serve(Cloud)
    port, admin = free_port(), free_port()
    log = open(pathlib.Path(directory) / "flagside.log", "w")
    flagside = subprocess.Popen(
        [program, "--upstream", f"http://127.0.0.1:{cloud.server_port}", "--listen", f"127.0.0.1:{port}",
         "--admin-listen", f"127.0.0.1:{admin}", "--set", "cache.fresh_for=1s", "--set", "sync.flags_interval=1s",
         "--set", "upstream.circuit.open_for=500ms", "--log-format", "json"], stdout=log, stderr=subprocess.STDOUT)
    of_featbit, featbit_admin = free_port(), free_port()
    featbit = subprocess.Popen(
        [program, "--featbit-upstream", f"http://127.0.0.1:{cloud.server_port}", "--listen", f"127.0.0.1:{of_featbit}",
         "--admin-listen", f"127.0.0.1:{featbit_admin}", "--log-format", "json"], stdout=log, stderr=subprocess.STDOUT)
    webhook = injection.Injector(program, directory)
    started = [featbit]
    try:
        wait_for("flagside listens", lambda: Asker(port).ask("GET", "/v1/vardata?user_id=first", KEY) == 200)
        insight = json.dumps([{"user": {"keyId": "ada"}, "variations": []}])
        wait_for("flagside takes insights", lambda: Asker(of_featbit).ask("POST", "/api/public/insight/track", FEATBIT, insight) == 200)
        prometheus = Prometheus(directory, {"proxy": admin, "featbit": featbit_admin, "injector": webhook.admin_port})
        started.append(prometheus.process)
        stop = threading.Event()
        threading.Thread(target=usual_traffic, args=(port, stop), daemon=True).start()
        wait_for("all targets are up", lambda: prometheus.up() == ["up", "up", "up"], 30)
        check_cardinality(port, admin)
        pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
        for namespace in ("default", "kube-system"):
            webhook.review(pod, namespace)
        webhook.post(b"{")
        Cloud.down.set()
        time.sleep(5)
        Cloud.down.clear()
        for namespace in ("default", "kube-system"):
            webhook.review(pod, namespace)
        webhook.post(b"{")
        time.sleep(6)
        check_exposition([scrape(admin), scrape(featbit_admin), scrape(webhook.admin_port)])
        check_live(prometheus, dashboard)
        stop.set()
    finally:
        for process in [flagside, webhook.process, *started]:
            process.send_signal(signal.SIGTERM)
        for process in [flagside, webhook.process, *started]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
            if process.poll() is None:
                process.kill()
        cloud.shutdown()


def main():
    program = support.program()
    dashboard = json.loads((PLACE / "dashboard.json").read_text())
    with tempfile.TemporaryDirectory() as directory:
        check_rules()
        check_dashboard_file(dashboard, directory)
        run(program, directory, dashboard)
    return support.finish("observability", f" (seed {SEED})")


if __name__ == "__main__":
    sys.exit(main())
