"""Builds and runs the programs of tests/cuda_emulator."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
HERE = ROOT / "tests/cuda_emulator"
BUILDS = {"plain": "", "address": "address,undefined", "thread": "thread"}
ORDERS = ["forward", "reverse", "warp", "random:1", "random:2"]
FLAGS = ["-std=c++17", "-O1", "-g", "-fno-strict-aliasing", "-Wall", "-Wno-unknown-pragmas", f"-I{ROOT}/csrc"]
OUTCOMES = {0: "right", 1: "wrong", 3: "refused", 4: "address", 5: "race"}
ENVIRONMENT = {
    "ASAN_OPTIONS": "exitcode=4",
    "UBSAN_OPTIONS": "exitcode=4",
    "TSAN_OPTIONS": "exitcode=5:halt_on_error=1",
}


class Emulator:
    """Builds the programs of tests/cuda_emulator when they are first asked for, and runs them.

    Several processes may share a folder: each program is built by one of them, while others wait.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.compile("scheduler", "", "-c")  # the runtime itself: without sanitizers
        self.compile("checks", "", "-c")

    def compile(self, name: str, build: str, *more: str | Path) -> Path:
        target = self.folder / f"{name}-{build or 'runtime'}"
        with target.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                sanitize = [f"-fsanitize={BUILDS[build]}", "-fno-sanitize-recover=all"] if BUILDS.get(build) else []
                subprocess.run(["g++", *FLAGS, *sanitize, HERE / f"{name}.cpp", *more, "-o", target], check=True)
        return target

    def run(self, name: str, build: str, *arguments: object, order: str = "forward", data: bytes = b""):
        runtime = [self.folder / "scheduler-runtime", self.folder / "checks-runtime"]
        command = [self.compile(name, build, *runtime), *map(str, arguments)]
        environment = os.environ | ENVIRONMENT | {"ADSQ_EMULATOR_ORDER": order}
        # For those that hang: with ThreadSanitizer the longest takes a minute on a slow machine.
        return subprocess.run(command, input=data, capture_output=True, env=environment, timeout=300)

    def output(self, *arguments: object, **options) -> bytes:
        done = self.run(*arguments, **options)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


def report(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return what the emulator said when it refused to go on."""
    assert OUTCOMES[done.returncode] == "refused", done.stderr.decode()
    return done.stderr.decode()
