"""The servers of a run and the load on them."""

import http.client
import json
import os
import shutil
import string
import subprocess
import time

import machine
from machine import Failed, SCRATCH

CONF = machine.ROOT / "tests" / "bench" / "lab" / "conf"
KEY = "Api-Key server-0123456789abcdef0123456789abcdef"


class Server:
    """A program that answers on a port of loopback."""

    def __init__(self, name, command, cpus=None, probe="/v1/vardata?user_id=probe", **options):
        self.name = name
        self.port = machine.free_port()
        self.command = [str(part).replace("{port}", str(self.port)) for part in command]
        self.cpus = cpus or machine.SERVER_CPUS
        self.probe = probe
        self.options = options
        self.process = None

    def start(self, patience=30.0):
        """Starts it and waits for its first answer; the seconds that took."""
        began = time.perf_counter()
        self.process = machine.spawn(self.command, self.cpus, f"{self.name}.log", **self.options)
        while not self.answers():
            if self.process.poll() is not None or time.perf_counter() - began > patience:
                self.stop()
                raise Failed(f"{self.name} does not answer: {self.complaints()}")
            time.sleep(0.0002)
        return time.perf_counter() - began

    def complaints(self):
        """The end of what it wrote to its output, and to an error log of its own."""
        logs = (SCRATCH / f"{self.name}.log", SCRATCH / self.name / "error.log")
        return "\n".join(log.read_text(errors="replace")[-2000:] for log in logs if log.exists())

    def answers(self):
        try:
            return self.get(self.probe)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path, timeout=5):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Authorization": KEY})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def stop(self):
        if self.process:
            machine.stop(self.process)
            self.process = None

    def cpu_seconds(self):
        return machine.cpu_seconds(self.process.pid)

    def resident_mib(self):
        return machine.resident_mib(self.process.pid)


class Origin(Server):
    """Upstream's stand-in."""

    def __init__(self, peers):
        command = [peers / "origin", "{port}", SCRATCH / "vardata.json", SCRATCH / "flags.json"]
        super().__init__("origin", command, machine.LOAD_CPUS, probe="/count")

    def count(self):
        """Vardata requests that reached it."""
        return int(self.get("/count")[1])


def bare(peers, body):
    return Server(f"bare-{body}", [peers / "bare", "{port}", SCRATCH / f"{body}.json"])


def flagside(program, origin, *settings, name="flagside", cpus=None, workers=1, wrapper=()):
    """flagside as it is shipped; a stored response is fresh for the whole run, as with its peers."""
    command = [*wrapper, program, "run", "--listen", "127.0.0.1:{port}", "--admin-listen", "127.0.0.1:0",
               "--set", f"workers={workers}", "--set", "cache.fresh_for=1h"]
    if origin:
        command += ["--upstream", f"http://127.0.0.1:{origin.port}"]
    command += settings
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("FLAGSIDE_", "AMPLITUDE_"))}
    return Server(name, command, cpus, env=clean)


def local(program, flags, **options):
    """flagside that computes every answer from a file of flags; there is no upstream."""
    config = SCRATCH / f"{flags}.config.json"
    config.write_text(json.dumps({"environments": [
        {"evaluation": "local", "bootstrap_file": str(SCRATCH / f"{flags}.json"), "urls": "none"}]}))
    return flagside(program, None, "--config", str(config), name=f"flagside-{flags}", **options)


class Configured(Server):
    """A peer with a configuration of its own, written from lab/conf; `{config}` and `{place}` in its arguments."""

    def __init__(self, name, program, arguments, origin, template=None):
        super().__init__(name, [])
        place = SCRATCH / name
        place.mkdir()
        template = next(CONF.glob(f"{template or name}.*"))
        self.plain_port = machine.free_port()
        (place / template.name).write_text(string.Template(template.read_text()).safe_substitute(
            port=self.port, plain_port=self.plain_port, origin=origin.port, place=place,
            files_kept=min(200_000, machine.open_files() - 5_000)))
        fill = {"{config}": str(place / template.name), "{place}": str(place), "{port}": str(self.port)}
        self.command = [str(program)]
        for argument in arguments:
            for mark, value in fill.items():
                argument = argument.replace(mark, value)
            self.command.append(argument)


class Load:
    """The load generator."""

    def __init__(self, peers):
        self.program = peers / "load"
        self.fresh = 10_000_000

    def run(self, server, shape, port=None, **options):
        """Asks; what the generator reported. Every answer must have been a complete 200."""
        command = [self.program, str(port or server.port), "--shape", shape]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        with machine.pinned(machine.LOAD_CPUS):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
        if done.returncode != 0:
            raise Failed(f"load on {server.name}: {done.stderr}")
        report = json.loads(done.stdout)
        if report["failed"]:
            failed = f"{server.name} failed {report['failed']} of {report['requests']} requests ({shape})"
            raise Failed(f"{failed}\n{server.complaints()}")
        return report

    def fill(self, server, shape, users):
        """Every user once."""
        return self.run(server, shape, order="each", users=users, requests=users, connections=8)

    def misses(self, server, port=None, **options):
        """Users that nobody has seen."""
        report = self.run(server, "v1", port, order="each", first=self.fresh, **options)
        self.fresh += report["requests"]
        return report


def version(program, *arguments):
    """The line in which a program names its version."""
    done = subprocess.run([str(program), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = [line.strip() for line in done.stdout.splitlines() if any(c.isdigit() for c in line)]
    return lines[0].replace(str(program), "").strip() if lines else "?"


def clean_scratch():
    shutil.rmtree(SCRATCH, ignore_errors=True)
