"""The benchmark of the GPU, rehearsed on the CPU: nothing wrong is timed, the roofline is right, the table whole."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu
import gpu_cases
import gpu_report
import pytest
import torch
from loss_cases import PAIR_CASES
from torch import Tensor

from adsq import kernels

CPU = torch.device("cpu")
LIMITS = gpu.Limits(budget=0, slow=10, patience=60, compiling=60)
OURS, EAGER, COMPILED = gpu_report.ENTRANTS
TOPK = gpu_cases.topk_case(2000, 48, 3, 10)
PAIR = gpu_cases.pair_case(PAIR_CASES[0])


@pytest.mark.slow
def test_rehearsal_of_the_whole_script(tmp_path: Path) -> None:
    # Apart from this process: numbers of threads are set for all that follows.
    options = ["--device=cpu", "--quick", "--no-compile", "--budget=0", "--tests=passed", f"--root={tmp_path}"]
    done = subprocess.run([sys.executable, gpu.__file__, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = tmp_path / "bench" / "results"
    text, record = (results / "gpu-cpu.md").read_text(), json.loads((results / "gpu-cpu.json").read_text())
    assert done.stdout == text
    assert text.startswith(f"| {' | '.join(gpu_report.HEADER)} |\n")
    assert {row["family"] for row in record["cases"]} == set(gpu_cases.FAMILIES)
    assert [row["case"] for row in record["cases"]] == [str(case) for case in gpu_cases.cases(quick=True)]
    for row in record["cases"]:
        assert row["wrong"] == {} and set(row["seconds"]) == {OURS, EAGER} == set(row["peak_bytes"])
        assert text.count(f"| CPU | {row['case']} | ") == 1 and row["case"].split(":")[0] in record["uses"]
    assert "Rehearsal" in text and "GPU tests: passed" in text

    record["cases"][0]["seconds"] = record["cases"][-1]["seconds"] = {OURS: [77.0, 77.0]}
    (results / "gpu-cpu.json").write_text(json.dumps(record))
    again = subprocess.run([sys.executable, gpu.__file__, *options, "--only=codes"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-3000:]
    measured = json.loads((results / "gpu-cpu.json").read_text())["cases"]
    assert [row["case"] for row in measured] == [row["case"] for row in record["cases"]]
    assert measured[0]["seconds"] != {OURS: [77.0, 77.0]} == measured[-1]["seconds"]


def test_a_rehearsal_writes_nothing_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setattr(gpu, "cases", lambda quick: [TOPK])
    monkeypatch.setattr(kernels, "hamming_topk", off_by_one(kernels.hamming_topk))
    with pytest.raises(SystemExit, match="adsq is wrong in: hamming_topk: 2,000 x 48"):
        gpu.main(["--device=cpu", "--no-compile", "--budget=0"])
    assert "| differs |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def off_by_one(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    def wrong(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        distances, indices = function(*arguments, **options)
        indices[-1, -1] += 1
        return distances, indices

    return wrong


def scaled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments, **options: function(*arguments, **options) * (1 + 1e-4)


def full(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(*arguments: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    return wrong


def broken(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("illegal memory access")

    return wrong


def endless(function: Callable[..., Any]) -> Callable[..., Any]:
    pauses = iter([100])

    def wrong(*arguments: Any, **options: Any) -> Any:
        with contextlib.suppress(Exception):  # as torch.compile does: patience has to be over all the same
            time.sleep(next(pauses))
        return function(*arguments, **options)

    return wrong


@pytest.mark.parametrize(
    ("case", "damage", "said"),
    [
        (TOPK, off_by_one, "differs"),
        (PAIR, scaled, "differs"),
        (TOPK, full, "out of memory"),
        (TOPK, broken, "fails: RuntimeError"),
        (TOPK, endless, "cut after 2 s"),
    ],
)
@pytest.mark.parametrize("who", [OURS, EAGER])
def test_what_is_wrong_is_named_and_not_timed(
    monkeypatch: pytest.MonkeyPatch, case: gpu_cases.Case, damage: Callable, said: str, who: str
) -> None:
    place, oracle = (kernels, "plain") if who == OURS else (sys.modules[case.plain.__module__], "ours")
    right = getattr(case, oracle)
    monkeypatch.setattr(place, case.function, damage(getattr(place, case.function)))
    monkeypatch.setattr(gpu, "oracle", lambda case, device: right)
    row = gpu.measure(case, CPU, replace(LIMITS, patience=2 if damage is endless else 60), compiled=False)
    other = EAGER if who == OURS else OURS
    assert row["wrong"] == {who: said}
    assert set(row["seconds"]) == set(row["peak_bytes"]) == {other}
    (line,) = gpu_report.rows({"cases": [row | {"roofline": (0.001, "memory")}], "uses": {}})
    cells = dict(zip(gpu_report.HEADER, line, strict=True))
    assert cells[f"{who}, ms"] == said and cells[f"{who}, MB"] == "-"
    assert cells["torch.compile, ms"] == "-" and cells[f"{other}, ms"] not in ("-", said)
    assert (cells["of the roofline"] == "-") == (who == OURS)


def test_a_slow_call_is_timed_once() -> None:
    row = gpu.measure(TOPK, CPU, replace(LIMITS, slow=0), compiled=False)
    assert {name: len(seconds) for name, seconds in row["seconds"].items()} == {OURS: 1, EAGER: 1}
    (line,) = gpu_report.rows({"cases": [row], "uses": {"hamming_topk": "CUDA C++"}})
    assert line[2] == "CUDA C++" and line[3].startswith("~") and line[4].startswith("~")


def test_inputs_that_do_not_fit() -> None:
    row = gpu.measure(replace(TOPK, inputs=full(TOPK.inputs)), CPU, LIMITS, compiled=False)
    assert row["wrong"] == {OURS: "out of memory", EAGER: "out of memory"} and row["seconds"] == {}
    assert row["case"] in gpu_report.rows({"cases": [row], "uses": {}})[0]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("case", [TOPK, gpu_cases.quantization_case((64, 48, 2))], ids=str)
def test_torch_compile_takes_part(case: gpu_cases.Case) -> None:
    row = gpu.measure(case, CPU, LIMITS, compiled=True)
    assert COMPILED in row["seconds"], row["wrong"]
    assert len(row["seconds"][COMPILED]) >= 5


def test_agreement_is_by_the_rule_of_tolerance() -> None:
    exact = (torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([3, 4]))

    def off(error: float) -> tuple[Tensor, Tensor]:
        return (exact[0] + error).float(), exact[1]

    assert gpu_cases.agrees(off(0.19), exact, plain=off(0.1))
    assert not gpu_cases.agrees(off(0.21), exact, plain=off(0.1))
    assert gpu_cases.agrees(off(2e-7), exact, plain=off(0))  # a rounding of the largest
    assert gpu_cases.agrees(off(3e-5), exact) and not gpu_cases.agrees(off(5e-5), exact)
    assert not gpu_cases.agrees(off(float("nan")), exact, plain=off(0.1))
    assert not gpu_cases.agrees((off(0)[0], exact[1] + 1), exact, plain=off(0))
    assert not gpu_cases.agrees((off(0)[0], exact[1][:1]), exact, plain=off(0))
    assert not gpu_cases.agrees(off(0)[:1], exact, plain=off(0))
    assert not gpu_cases.agrees((exact[1], exact[1]), exact, plain=off(0))
    wide = exact[0] * (1 + 1e-11), exact[1]  # both float64: a mean of precisions
    assert not gpu_cases.agrees(wide, exact) and gpu_cases.agrees(exact, exact)


@pytest.mark.parametrize("case", [PAIR, gpu_cases.quantization_case((64, 48, 2))], ids=str)
def test_losses_leave_their_inputs_as_they_were(case: gpu_cases.Case) -> None:
    inputs = case.inputs(CPU)
    wide = gpu_cases.on_cpu(inputs, wide=True)
    assert {x.dtype for x in wide if x.requires_grad} == {torch.float64} and gpu_cases.on_cpu(inputs, wide=False)
    for tensors in (inputs, wide):
        found = case.run(case.ours, tensors)
        assert found[-1].dtype == tensors[0].dtype and all(x.grad is None for x in tensors)


def test_times_and_shares_by_hand() -> None:
    row = {"case": "pack_codes: x", "device": "G", "wrong": {}, "peak_bytes": {OURS: 3_000_000}}
    row |= {"seconds": {OURS: [0.002, 0.001, 0.9], EAGER: [0.03]}, "roofline": (0.001, "memory")}
    (line,) = gpu_report.rows({"cases": [row], "uses": {"pack_codes": "CUDA C++"}})
    expected = ["G", "pack_codes: x", "CUDA C++", "2.0", "~30", "-", "1.0 (memory)", "0.5", "3.0", "-", "-"]
    assert line == expected and len(line) == len(gpu_report.HEADER)


def test_the_inputs_of_calls_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = TOPK.plain
    monkeypatch.setattr(
        kernels, "hamming_topk", lambda q, d, **rest: (seen.append(d.data_ptr()), plain(q, d, **rest))[1]
    )
    row = gpu.measure(TOPK, CPU, LIMITS, compiled=False)
    assert row["copies"] == 88  # of 12,018 bytes, for 1 MiB
    assert len(set(seen)) == min(88, len(seen) - 1)  # the check and the first turn see the first


@pytest.mark.gpu
def test_rehearsal_on_a_gpu(tmp_path: Path) -> None:
    options = ["--quick", "--budget=0", "--compiling=3", f"--root={tmp_path}"]
    done = subprocess.run([sys.executable, gpu.__file__, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (tmp_path / "bench" / "results").glob("gpu-*.json")
    record = json.loads(results.read_text())
    assert record["device"] == torch.cuda.get_device_name() and record["ceilings"]["moved"] > 1e10
    for row in record["cases"]:
        assert row["wrong"].keys() <= {COMPILED} and row["seconds"].keys() >= {OURS, EAGER} and row["roofline"]


def test_work_by_hand() -> None:
    found = {str(case): case for case in gpu_cases.cases()}
    search = found["hamming_topk: 1,000,000 x 64 bits, 1,000 queries, k = 100"]
    assert (search.counted, search.multiplied) == (2 * 10**9, 0)
    assert found["hamming_topk: 54,000 x 48 bits, 1,000 queries, k = 54,000"].counted == 108_000_000
    assert found["hamming_relevance_histogram: 59,000 x 48 bits, 1,000 queries"].counted == 118_000_000
    loss = found["pairwise_similarity_loss: 256 x 59,000, 48 bits, ids of 10"]
    assert (loss.counted, loss.multiplied) == (0, 6 * 256 * 59_000 * 48)
    moved = [
        (TOPK, 2003 * 6 + 3 * 10 * 12),
        (gpu_cases.codes_case("pack_codes", 100, 20), 100 * (80 + 3)),
        (PAIR, 2 * 64 * (48 * 4 * 2 + 8) + 4),
        (gpu_cases.quantization_case((64, 48, 2)), 64 * 48 * 4 * 5 + 4),
    ]
    for case, expected in moved:
        assert gpu.measure(case, CPU, LIMITS, compiled=False)["work"]["moved"] == expected, str(case)
