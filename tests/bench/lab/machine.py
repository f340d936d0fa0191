"""What the benches ask the machine: processor time, memory, processors to pin to, programs to install."""

import contextlib
import os
import resource
import pathlib
import shutil
import signal
import socket
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
#: Everything a run writes; nginx keeps its cache files here, so it is memory where there is any.
SCRATCH = pathlib.Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp") / f"flagside-bench-{os.getpid()}"

_ALLOWED = sorted(os.sched_getaffinity(0))
#: The server has one processor for itself, load and origin share another.
SERVER_CPUS = {_ALLOWED[0]}
LOAD_CPUS = {_ALLOWED[-1]}
BOTH_CPUS = SERVER_CPUS | LOAD_CPUS

_TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """Something that makes the figures worthless, in words for the reader."""


def cpu_seconds(pid):
    """User and system time of a process and its children so far."""
    ticks = 0
    for member in _family(pid):
        fields = _stat(member)
        if fields:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def resident_mib(pid):
    """Resident memory (VmRSS, files mapped included) of a process and its children."""
    kib = 0
    for member in _family(pid):
        with open(f"/proc/{member}/status") as status:
            kib += sum(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return kib / 1024


def _stat(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()
    except OSError:
        return None


def _family(pid):
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(entry)):
            parents.setdefault(int(fields[1]), []).append(int(entry))
    members = [pid]
    for member in members:
        members += parents.get(member, [])
    return members


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def pinned(cpus):
    """What is started meanwhile runs on `cpus`: affinity is inherited."""
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, _ALLOWED)


def open_files():
    """How many files a program that is started here may have open: all that this user may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def spawn(command, cpus, log, **options):
    """Starts a program on `cpus`, its output in SCRATCH/`log`."""
    with pinned(cpus), open(SCRATCH / log, "ab") as output:
        return subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, **options)


def stop(process):
    """Ends a program that `spawn` started, and its children."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)  # the session of its own that it was given
    except ProcessLookupError:
        pass
    process.wait()


def need(command, package):
    """The path of a program, from Debian's `package` if it is not there yet."""
    path = find(command)
    if path is None and os.getuid() == 0 and shutil.which("apt-get"):
        print(f"installing {package} for {command}", flush=True)
        for step in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run(["apt-get", "-qq", *step], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"), check=False)
        path = find(command)
    if path is None:
        raise Failed(f"{command} is missing: install it first (on Debian: apt-get install {package})")
    return path


def find(command):
    return shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin")


def cargo(*arguments, target=TARGET):
    """Builds; shows what cargo says only if it fails."""
    command = ["cargo", "build", "--quiet", "--locked", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ, CARGO_TARGET_DIR=str(target)))
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)} failed")


def flagside(profile="release"):
    """The program to measure: FLAGSIDE_BIN, or a build of this tree."""
    if given := os.environ.get("FLAGSIDE_BIN"):
        return pathlib.Path(given)
    cargo("--bin", "flagside", "--profile", profile)
    return TARGET / profile / "flagside"


def peers():
    """The folder of `bare`, `origin` and `load`."""
    cargo("--release", "--manifest-path", str(ROOT / "tests/bench/peers/Cargo.toml"), target=TARGET / "peers")
    return TARGET / "peers" / "release"


def describe():
    """One line about processor, kernel and load."""
    model = "unknown processor"
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), model)
    return (f"{len(_ALLOWED)} processors ({model}), Linux {os.uname().release}, "
            f"load average {os.getloadavg()[0]:.1f}")
