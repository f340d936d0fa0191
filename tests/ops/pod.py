#!/usr/bin/env python3
"""Runs the image as Kubernetes would: runc, an unprivileged user, one network namespace with the application.

    tests/ops/pod.py --rootfs DIR --config FILE [NAME …]

DIR and FILE are what `umoci unpack` made of the image. What the kubelet does for a pod is done here step by step: start
the sidecar, wait for its start-up probe, start the application, stop the application, stop the sidecar. Needs root,
runc, iproute2, Node.js, and the kernel's network namespaces and memory cgroup; without one of these it says so and
checks nothing. All traffic stays in the namespace, but for probes over its one link.
"""

import argparse
import contextlib
import copy
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
NAME = f"flagside-ops-{os.getpid()}"
# Of the block for benchmarks of devices (RFC 2544), which is nobody's address.
OUTSIDE, INSIDE = (f"198.18.{os.getpid() % 250}.{host}" for host in (1, 2))
UPSTREAM_PORT = 8080
USER = 65532
MEMORY = 64 << 20
KEY = "client-0123456789abcdef"
SECCOMP = pathlib.Path("/usr/share/containers/seccomp.json")
CGROUPS = pathlib.Path("/sys/fs/cgroup")


class Failed(Exception):
    """A check did not hold."""


def wanted(holds, what):
    if not holds:
        raise Failed(what)


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def missing_feature():
    """Why this machine cannot run the checks, or None."""
    if os.geteuid() != 0:
        return "root is needed"
    for program in ("runc", "ip", "node"):
        if not shutil.which(program):
            return f"{program} is missing"
    if not SECCOMP.exists():
        return f"{SECCOMP} is missing (Debian: golang-github-containers-common)"
    if not (CGROUPS / "memory/memory.limit_in_bytes").exists() and "memory" not in controllers():
        return "the kernel has no memory cgroup"
    done = subprocess.run(["ip", "netns", "add", NAME], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"no network namespace can be made: {done.stderr.strip()}"
    return None


def controllers():
    file = CGROUPS / "cgroup.controllers"
    return file.read_text().split() if file.exists() else []


def seccomp():
    """The profile that container engines use, for a process without capabilities, as runc wants it."""
    profile = json.loads(SECCOMP.read_text())
    calls = []
    for call in profile["syscalls"]:
        only, never = call.get("includes", {}), call.get("excludes", {})
        arches = only.get("arches")
        if only.get("caps") or (arches and "amd64" not in arches) or "amd64" in (never.get("arches") or []):
            continue
        calls.append({k: call[k] for k in ("names", "action", "args", "errnoRet") if call.get(k)})
    plain = {"defaultAction": profile["defaultAction"], "syscalls": calls}
    if "defaultErrnoRet" in profile:
        plain["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return {**plain, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}


class Pod:
    """A network namespace with an upstream in it, and a link by which probes come in."""

    def __init__(self, directory, rootfs, config):
        self.directory, self.rootfs, self.config = directory, rootfs, config
        self.count = 0
        link = f"fso{os.getpid() % 100000}"
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", NAME)
        run("ip", "address", "add", f"{OUTSIDE}/30", "dev", link)
        run("ip", "link", "set", link, "up")
        for command in (f"address add {INSIDE}/30 dev eth0", "link set eth0 up", "link set lo up"):
            run("ip", "-n", NAME, *command.split())
        (directory / "hosts").write_text("127.0.0.1 localhost\n127.0.0.1 upstream.test\n")
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1 ndots:5\n")
        self.upstream = None

    def start_upstream(self):
        self.upstream = self.inside(sys.executable, HERE / "upstream.py", UPSTREAM_PORT)
        eventually(lambda: self.succeeds("http://127.0.0.1:8080/v1/flags"), "the upstream starts", 10)

    def stop_upstream(self):
        if self.upstream:
            self.upstream.kill()
            self.upstream.wait()
            self.upstream = None

    def inside(self, *command, **options):
        """Starts a process of the application's container: the pod's network, nothing else of it."""
        options.setdefault("stdout", subprocess.DEVNULL)
        return subprocess.Popen(["ip", "netns", "exec", NAME, *map(str, command)], text=True, **options)

    def ask(self, url, *options):
        """Status and body of a request from the application's container."""
        command = ["curl", "--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code}",
                   "--header", f"Authorization: Api-Key {KEY}", *options, url]
        done = subprocess.run(["ip", "netns", "exec", NAME, *command], capture_output=True, text=True, check=False)
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body

    def succeeds(self, url):
        return self.ask(url)[0] == 200

    def sidecar(self, *arguments, env=(), command="run"):
        self.count += 1
        return Container(self, f"{NAME}-{self.count}", [command, *arguments], dict(env))

    def close(self):
        self.stop_upstream()
        subprocess.run(["ip", "netns", "delete", NAME], check=False)


class Container:
    """The image in runc, with what the manifests of deploy/kubernetes say about it."""

    def __init__(self, pod, name, arguments, env):
        self.pod, self.name = pod, name
        self.runc = ["runc", "--root", str(pod.directory / "runc")]
        self.groups = [CGROUPS / "memory" / NAME / name] if (CGROUPS / "memory").exists() else [CGROUPS / NAME / name]
        self.groups[0].mkdir(parents=True, exist_ok=True)
        bundle = pod.directory / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self.specification(arguments, env)))
        self.log = bundle / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*self.runc, "run", "--bundle", str(bundle), name], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL)

    def specification(self, arguments, env):
        config = copy.deepcopy(self.pod.config)
        process = config["process"]
        wanted(process["user"]["uid"] == USER and process["user"]["gid"] == USER, f"the image's user: {process['user']}")
        wanted(process["args"] == ["/flagside", "run"], f"the image runs {process['args']}")
        process["args"] = ["/flagside", *arguments]
        variables = {"FLAGSIDE_LISTEN__ADMIN": "0.0.0.0:3547", "FLAGSIDE_LOG__LEVEL": "debug",
                     **({} if arguments[0] != "run" else {"FLAGSIDE_ENVIRONMENTS__0__NAME": "pod"}), **env}
        process["env"] += [f"{name}={value}" for name, value in variables.items()]
        process["terminal"] = False
        process["noNewPrivileges"] = True
        process["capabilities"] = {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")}
        process.pop("rlimits", None)
        config["root"] = {"path": str(self.pod.rootfs), "readonly": True}
        config["hostname"] = "pod"
        config["mounts"] = [m for m in config["mounts"] if m["type"] not in ("cgroup", "sysfs")]
        for name in ("hosts", "resolv.conf"):
            config["mounts"].append(bind(self.pod.directory / name, f"/etc/{name}"))
        # As an engine shows it: its own group is the root of all.
        config["mounts"].append(bind(self.groups[0], "/sys/fs/cgroup" + ("/memory" if self.is_v1() else "")))
        linux = config["linux"]
        linux["cgroupsPath"] = f"/{NAME}/{self.name}"
        linux["namespaces"] = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]
        linux["namespaces"].append({"type": "network", "path": f"/run/netns/{NAME}"})
        linux["resources"] = {"memory": {"limit": MEMORY, "swap": MEMORY}, "pids": {"limit": 64}}
        linux["seccomp"] = seccomp()
        return config

    @staticmethod
    def is_v1():
        return (CGROUPS / "memory").exists()

    def pid(self):
        """The process on this machine."""
        return json.loads(run(*self.runc, "state", self.name))["pid"]

    def exec(self, *command):
        """The exit code of a command in the container, as exec probes and hooks run it."""
        return subprocess.run([*self.runc, "exec", self.name, *command], capture_output=True, check=False).returncode

    def signal(self, name="TERM"):
        run(*self.runc, "kill", self.name, name)

    def exit_code(self, seconds):
        """Waits for its end."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"still running after {seconds} s; {self.tail()}") from None

    def tail(self):
        return "the last of its log:\n" + "".join(self.log.read_text().splitlines(keepends=True)[-8:])

    def memory(self):
        """Most that it used, and how often it was killed or held up for it."""
        group = self.groups[0]
        if self.is_v1():
            control = dict(line.split() for line in (group / "memory.oom_control").read_text().splitlines())
            return int((group / "memory.max_usage_in_bytes").read_text()), int(control["oom_kill"])
        events = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
        return int((group / "memory.peak").read_text()), int(events["oom_kill"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.CalledProcessError):
                self.signal("KILL")
            self.process.wait(10)
        with contextlib.suppress(OSError):
            self.groups[0].rmdir()


def bind(source, target):
    return {"destination": target, "type": "bind", "source": str(source), "options": ["bind", "ro", "nosuid", "nodev"]}


def probe(path):
    """The status that the kubelet would get, from outside of the pod; 0 without connection."""
    connection = http.client.HTTPConnection(INSIDE, 3547, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def eventually(condition, what, seconds):
    """Waits until it holds, and says how long that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


def ready(container, seconds=10):
    """What a start-up probe waits for."""
    try:
        return eventually(lambda: probe("/readyz") == 200, "ready", seconds)
    except Failed as problem:
        raise Failed(f"{problem}; {container.tail()}") from None


URL = "http://127.0.0.1:3546/v1/vardata?user_id="
TO_UPSTREAM = ("--upstream", f"http://upstream.test:{UPSTREAM_PORT}")


def rights(pod):
    """An unprivileged process that can write nowhere, and sees its memory limit."""
    with pod.sidecar(*TO_UPSTREAM) as sidecar:
        ready(sidecar)
        facts = dict(re.findall(r"^(\w+):\s*(.*)$", pathlib.Path(f"/proc/{sidecar.pid()}/status").read_text(), re.M))
        for name, value in {"CapBnd": "0" * 16, "CapEff": "0" * 16, "CapPrm": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}.items():
            wanted(facts[name] == value, f"{name} is {facts[name]}")
        wanted(facts["Uid"].split() == [str(USER)] * 4, f"Uid is {facts['Uid']}")
        wanted(facts["Gid"].split() == [str(USER)] * 4, f"Gid is {facts['Gid']}")
        mounts = pathlib.Path(f"/proc/{sidecar.pid()}/mounts").read_text()
        # Of what a process could write to, only /dev/shm and the like remain.
        writable = [line.split()[1] for line in mounts.splitlines() if "ro" not in line.split()[3].split(",")]
        outside_dev = [place for place in writable if not re.match(r"/(dev|proc)(/|$)", place)]
        wanted(not outside_dev, f"writable: {outside_dev}")
        wanted(pod.succeeds(URL + "ada"), "an answer")
        status = json.loads(http_get("/status"))
        wanted(status["memory_limit_bytes"] == MEMORY, f"memory limit seen: {status['memory_limit_bytes']}")
        held = [os.readlink(link) for link in pathlib.Path(f"/proc/{sidecar.pid()}/fd").iterdir()]
        files = [path for path in held if path.startswith("/") and not path.startswith("/dev/")]
        wanted(all(path.endswith("/log") for path in files), f"open files: {files}")


def http_get(path):
    connection = http.client.HTTPConnection(INSIDE, 3547, timeout=5)
    connection.request("GET", path)
    return connection.getresponse().read()


def reachable(pod):
    """The application reaches it over loopback, the outside only its admin port; names come from the hosts file."""
    with pod.sidecar(*TO_UPSTREAM) as sidecar:
        ready(sidecar)
        wanted(pod.succeeds(URL + "ada"), "an answer over loopback, of an upstream that is known by name")
        for path in ("/healthz", "/readyz", "/startupz", "/metrics", "/status"):
            wanted(probe(path) == 200, f"{path} from outside: {probe(path)}")
        with socket.socket() as outside:
            outside.settimeout(2)
            wanted(outside.connect_ex((INSIDE, 3546)) != 0, "the data port is closed to the outside")
    with pod.sidecar("--upstream", "http://no.such.name.test:1") as sidecar:
        ready(sidecar)
        status, body = pod.ask(URL + "ada")
        wanted(status == 503, f"a name that nobody knows: {status} {body}")


def start_order(pod):
    """The application starts when the start-up probe succeeds, and its first question is answered."""
    with pod.sidecar(*TO_UPSTREAM, env={"FLAGSIDE_DEPLOYMENT_KEYS": KEY}.items()) as sidecar:
        took = ready(sidecar, 5)
        wanted(pod.succeeds(URL + "first"), "the application's first answer")
        wanted(sidecar.exec("/flagside", "probe", "ready", "--wait", "30s") == 0, "postStart of the legacy sidecar")
        wanted(sidecar.exec("/flagside", "probe", "live") == 0, "an exec probe")
        has_sleep = "sleep" in run(pod.rootfs / "flagside", "help")
        if has_sleep:
            began = time.monotonic()
            wanted(sidecar.exec("/flagside", "sleep", "1") == 0, "preStop of the legacy sidecar")
            wanted(time.monotonic() - began >= 1, "preStop waits")
        else:
            print("   (flagside sleep does not exist yet: preStop not checked)")
        print(f"   ready {took:.2f} s after its start")


def upstream_down(pod):
    """An upstream that is down delays the application by readiness.deadline, and never blocks it."""
    pod.stop_upstream()
    env = {"FLAGSIDE_DEPLOYMENT_KEYS": KEY, "FLAGSIDE_READINESS__DEADLINE": "2s"}
    with pod.sidecar(*TO_UPSTREAM, env=env.items()) as sidecar:
        eventually(lambda: probe("/healthz") == 200, "alive", 5)
        wanted(probe("/readyz") == 503, "not ready before the deadline")
        took = ready(sidecar, 4)
        wanted(pod.ask(URL + "ada")[0] == 503, "nothing to answer with yet")
        pod.start_upstream()
        wanted(probe("/readyz") == 200, "still ready")
        eventually(lambda: pod.succeeds(URL + "ada"), "an answer, now that upstream is there", 10)
        print(f"   ready {took:.1f} s after its start, without upstream")


def drain(pod, delay):
    """SIGTERM under load: every request that was sent before is answered, exit 0 within the drain time."""
    # Without local evaluation slow answers are waited for.
    env = {"FLAGSIDE_DRAIN__DELAY": delay, "FLAGSIDE_DRAIN__TIMEOUT": "10s", "FLAGSIDE_ENVIRONMENTS__0__EVALUATION": "off"}
    with pod.sidecar(*TO_UPSTREAM, env=env.items()) as sidecar:
        ready(sidecar)
        load = pod.inside("node", HERE / "load.mjs", 3546, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        time.sleep(3)
        signalled = time.time()
        sidecar.signal()
        if delay != "0s":
            eventually(lambda: probe("/readyz") == 503, "unready at once", 0.5)
            wanted(pod.succeeds(URL + "late"), "new connections are answered during drain.delay")
        code = sidecar.exit_code(12)
        took = time.time() - signalled
        out, _ = load.communicate("end\n", timeout=30)
        seen = json.loads(out)
        early = [f for f in seen["failed"] if f["sentAt"] < signalled * 1000]
        wanted(not early, f"{len(early)} requests that were sent before SIGTERM failed: {early[:3]}")
        wanted(code == 0, f"exit code {code}; {sidecar.tail()}")
        wanted(all(n > 0 for n in seen["completed"].values()), f"load of every kind: {seen['completed']}")
        if delay != "0s":
            until = (signalled + float(delay.rstrip("s"))) * 1000
            # A stream that crosses GOAWAY is refused by the client itself, and safe to send again (RFC 9113, 8.7).
            cut = [f for f in seen["failed"] if f["sentAt"] < until and "REFUSED_STREAM" not in f["problem"]]
            wanted(not cut, f"{len(cut)} requests failed during drain.delay: {cut[:3]}")
        print(f"   exit 0 after {took:.2f} s; answered: {seen['completed']}; sent too late: {len(seen['failed'])}")


def second_signal(pod):
    """A second signal ends it at once."""
    with pod.sidecar(*TO_UPSTREAM, env={"FLAGSIDE_ENVIRONMENTS__0__EVALUATION": "off"}.items()) as sidecar:
        ready(sidecar)
        client = pod.inside("curl", "--silent", "--max-time", "20", "--header", f"Authorization: Api-Key {KEY}", URL + "never-x")
        time.sleep(0.5)
        sidecar.signal()
        time.sleep(0.5)
        wanted(sidecar.process.poll() is None, f"waits for the request in flight; {sidecar.tail()}")
        sidecar.signal()
        began = time.monotonic()
        code = sidecar.exit_code(3)
        wanted(code == 130, f"exit code {code}; {sidecar.tail()}")
        print(f"   exit 130 {time.monotonic() - began:.2f} s after the second signal")
        client.kill()
        client.wait()


def drain_times_out(pod):
    """Requests that take longer than drain.timeout are given up: exit 124."""
    with pod.sidecar(*TO_UPSTREAM, env={"FLAGSIDE_DRAIN__TIMEOUT": "1s", "FLAGSIDE_ENVIRONMENTS__0__EVALUATION": "off"}.items()) as sidecar:
        ready(sidecar)
        client = pod.inside("curl", "--silent", "--max-time", "20", "--header", f"Authorization: Api-Key {KEY}", URL + "never-y")
        time.sleep(0.5)
        sidecar.signal("INT")
        code = sidecar.exit_code(4)
        wanted(code == 124, f"exit code {code}; {sidecar.tail()}")
        client.kill()
        client.wait()


def job(pod):
    """A Job with a native sidecar completes: the application ends, then the kubelet ends the sidecar."""
    with pod.sidecar(*TO_UPSTREAM) as sidecar:
        ready(sidecar)
        script = f"for n in 1 2 3 4 5; do curl --silent --fail --header 'Authorization: Api-Key {KEY}' '{URL}'job-$n || exit 1; done"
        application = pod.inside("sh", "-c", script)
        wanted(application.wait(20) == 0, "the job's own work")
        wanted(sidecar.process.poll() is None, "the sidecar is there to its end")
        began = time.monotonic()
        sidecar.signal()
        wanted(sidecar.exit_code(2) == 0, "exit code 0 within the two seconds that a sidecar may be left")
        print(f"   the sidecar ended {time.monotonic() - began:.2f} s after the job")


def memory_limit(pod):
    """A cache that fills up stays within the memory limit."""
    with pod.sidecar(*TO_UPSTREAM) as sidecar:
        ready(sidecar)
        fill = pod.inside("node", HERE / "fill.mjs", 3546, 4500, stdout=subprocess.PIPE)
        out, _ = fill.communicate(timeout=120)
        wanted(fill.returncode == 0, f"the load itself: {out}")
        status = json.loads(http_get("/status"))
        [cache] = [c for c in status["cache"] if c["name"] == "vardata"] or status["cache"][:1]
        wanted(cache["weight_bytes"] > cache["max_bytes"] / 2, f"the cache is full enough: {cache}")
        most, kills = sidecar.memory()
        wanted(kills == 0, f"killed {kills} times for its memory")
        wanted(most < MEMORY, f"used {most} bytes of {MEMORY}: the limit was hit")
        resident = int(re.search(r"^VmRSS:\s*(\d+)", pathlib.Path(f"/proc/{sidecar.pid()}/status").read_text(), re.M)[1])
        print(f"   {out.strip()}; cache {cache['weight_bytes'] >> 20} of {cache['max_bytes'] >> 20} MiB; "
              f"resident {resident >> 10} MiB, most {most >> 20} of {MEMORY >> 20} MiB")
        sidecar.signal()
        wanted(sidecar.exit_code(10) == 0, "exit code 0")


CHECKS = {
    "rights": rights,
    "reachable": reachable,
    "start-order": start_order,
    "upstream-down": upstream_down,
    "drain": lambda pod: drain(pod, "0s"),
    "drain-delay": lambda pod: drain(pod, "2s"),
    "second-signal": second_signal,
    "drain-times-out": drain_times_out,
    "job": job,
    "memory-limit": memory_limit,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rootfs", required=True, type=pathlib.Path)
    parser.add_argument("--config", required=True, type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    unable = missing_feature()
    if unable:
        print(f"SKIPPED pod: {unable}")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = options.names or list(CHECKS)
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        pod = Pod(pathlib.Path(directory), options.rootfs.resolve(), json.loads(options.config.read_text()))
        try:
            for name in names:
                began = time.monotonic()
                if not pod.upstream:
                    pod.start_upstream()
                try:
                    CHECKS[name](pod)
                    print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
                except Failed as problem:
                    failed += 1
                    print(f"FAILED {name}: {problem}", flush=True)
        finally:
            pod.close()
    print(f"pod: {len(names) - failed} checks passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
