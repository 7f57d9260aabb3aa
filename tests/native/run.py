"""Builds the native tests with each sanitizer and runs them; neither torch nor the installed package is used.

What the package's own build does (compiler, instruction sets of each file, ninja) is taken from setup.py. With --arm,
for 64-bit Arm and under an emulator, where compiler and emulator are there.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FLAGS = "-O2 -g -std=c++17 -Wall -Wextra -Wno-unused-parameter -D_GLIBCXX_ASSERTIONS -fno-omit-frame-pointer -pthread"
SANITIZERS = {
    "address": "-fsanitize=address,undefined -fno-sanitize-recover=all -D_GLIBCXX_SANITIZE_VECTOR",
    "thread": "-fsanitize=thread",
}
ARM = {"arm": "-fsanitize=undefined -fno-sanitize-recover=all -DADSQ_EMULATED"}
ARM_COMPILER, EMULATOR, ARM_LIBRARIES = "aarch64-linux-gnu-g++", "qemu-aarch64", "/usr/aarch64-linux-gnu"


def main() -> None:
    """Build and run; the first failure ends it."""
    sanitizers, emulator = SANITIZERS, []
    if "--arm" in sys.argv[1:]:
        missing = [tool for tool in (ARM_COMPILER, EMULATOR) if shutil.which(tool) is None]
        if missing:
            print(f"skipped: no {' and no '.join(missing)} (Debian: apt install g++-aarch64-linux-gnu qemu-user)")
            return
        os.environ["CXX"] = ARM_COMPILER
        sanitizers, emulator = ARM, [EMULATOR, "-L", ARM_LIBRARIES]
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    sources = [*sorted(ROOT.glob("csrc/cpu/*.cpp")), *sorted(ROOT.glob("tests/native/*.cpp"))]
    for name, sanitizer in sanitizers.items():
        rules = f"""
rule cpp
  command = {setup.cpp_compiler()} {FLAGS} {sanitizer} $flags -I{ROOT}/csrc -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
rule link
  command = {setup.cpp_compiler()} {sanitizer} -pthread $in -o $out
"""
        work = ROOT / "build" / "test-native" / name
        setup.build_library(rules, sources, "", work / "run", work)
        print(f"{name}: {sanitizer}", flush=True)
        start = time.monotonic()
        subprocess.run([*emulator, work / "run"], check=True)
        print(f"passed in {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
