"""Builds the native tests with each sanitizer and runs them; neither torch nor the installed package is used.

What the package's own build does (compiler, instruction sets of each file, ninja) is taken from setup.py.
"""

from __future__ import annotations

import importlib.util
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FLAGS = "-O2 -g -std=c++17 -Wall -Wextra -Wno-unused-parameter -D_GLIBCXX_ASSERTIONS -fno-omit-frame-pointer -pthread"
SANITIZERS = {
    "address": "-fsanitize=address,undefined -fno-sanitize-recover=all -D_GLIBCXX_SANITIZE_VECTOR",
    "thread": "-fsanitize=thread",
}


def main() -> None:
    """Build and run; the first failure ends it."""
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    sources = [*sorted(ROOT.glob("csrc/cpu/*.cpp")), *sorted(ROOT.glob("tests/native/*.cpp"))]
    for name, sanitizer in SANITIZERS.items():
        rules = f"""
rule cpp
  command = {setup.cpp_compiler()} {FLAGS} {sanitizer} $flags -I{ROOT}/csrc -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
rule link
  command = {setup.cpp_compiler()} {sanitizer} -pthread $in -o $out
"""
        work = ROOT / "build" / "test-native" / name
        setup.build_library(rules, sources, "", work / "run", work)
        print(f"{name} sanitizer: {sanitizer}", flush=True)
        start = time.monotonic()
        subprocess.run([work / "run"], check=True)
        print(f"passed in {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
