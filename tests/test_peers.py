"""The table of other libraries: its check refuses wrong results, and table and picture tell what was measured."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from adsq import HammingIndex

pytest.importorskip("numpy", minversion="2", reason="bench/ counts bits with numpy 2")
ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


codes, report = load("peers_codes"), load("peers_report")


def nearest(queries: np.ndarray, database: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.unpackbits(part, axis=1) for part in (queries, database))
    distances = (a[:, None] != b).sum(axis=2)
    ids = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, ids, 1), ids


def test_check_takes_the_nearest_codes_in_any_order_of_ties() -> None:
    database, queries = codes.make_codes("two values", 40, 3, 16)
    distances, ids = nearest(queries, database, 10)
    codes.check("x", (torch.from_numpy(distances).int(), ids), queries, database, distances, by_id=True)
    others = ids[:, ::-1]  # all at one distance: there are only two
    assert (distances == distances[:, :1]).all()
    codes.check("x", (distances, others), queries, database, distances, by_id=False)
    with pytest.raises(ValueError, match="x: ties are not ordered by id"):
        codes.check("x", (distances, others), queries, database, distances, by_id=True)


def farther(distances: np.ndarray, ids: np.ndarray, all_ids: np.ndarray) -> None:
    ids[1, -1] = all_ids[1, -1]


def twice(distances: np.ndarray, ids: np.ndarray, all_ids: np.ndarray) -> None:
    distances[1, 1], ids[1, 1] = distances[1, 0], ids[1, 0]


def missing(distances: np.ndarray, ids: np.ndarray, all_ids: np.ndarray) -> None:
    ids[1, -1] = -1


def not_nearest(distances: np.ndarray, ids: np.ndarray, all_ids: np.ndarray) -> None:
    ids[:] = all_ids[:, -5:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (farther, "a distance is not that of the id"),
        (twice, "an id is returned twice"),
        (missing, "ids are missing"),
        (not_nearest, "not those of the nearest"),
    ],
)
def test_check_refuses(damage: Callable, message: str) -> None:
    database, queries = codes.make_codes("random", 50, 4, 32)
    all_distances, all_ids = nearest(queries, database, 50)
    distances, ids = all_distances[:, :5].copy(), all_ids[:, :5].copy()
    codes.check("x", (distances, ids), queries, database, distances, by_id=True)
    damage(distances, ids, all_ids)
    if damage is not_nearest:  # and whoever gave the expected distances is wrong in the same way
        distances = all_distances[:, -5:]
    with pytest.raises(ValueError, match=f"x: .*{message}"):
        codes.check("x", (distances, ids), queries, database, distances, by_id=False)
    with pytest.raises(ValueError, match="not those expected"):
        codes.check("x", (distances, ids), queries, database, distances + 1, by_id=False)


def test_kinds_of_codes() -> None:
    made = {
        kind: codes.make_codes(kind, 3000, 5, 48)
        for kind in ("random", "clustered", "sorted", "all equal", "two values")
    }
    for database, queries in made.values():
        assert (database.shape, queries.shape, database.dtype) == ((3000, 6), (5, 6), np.uint8)
    distinct = {kind: len(np.unique(database, axis=0)) for kind, (database, _) in made.items()}
    assert (distinct["random"], distinct["all equal"], distinct["two values"]) == (3000, 1, 2)
    as_bytes = [code.tobytes() for code in made["sorted"][0]]
    assert as_bytes == sorted(code.tobytes() for code in made["random"][0])
    database, queries = made["clustered"]
    assert nearest(queries, database, 1)[0].max() < 8 < nearest(*made["random"][::-1], 1)[0].min() < 24


def measured(threads: int = 1) -> dict[str, Any]:
    facts = {
        "cpu": "Some CPU",
        "features": ["avx2"],
        "threads": threads,
        "pinned_to": None,
        "versions": ["adsq 1 (avx2)"],
    }
    sizes = {"codes": 1_000_000, "bits": 64, "queries": 1, "k": 10, "data": "random", "skipped": {}}
    few = {"adsq": [2, 1, 9], "FAISS heap": [7, 1, 9], "FAISS counting": [6, 7, 5], "numpy": [1.97, 1, 3]}
    many = {"adsq": [1.0], "adsq function": [0.5], "adsq AVX2": [2.0], "FAISS heap": [40.0], "usearch": [3000.0]}
    other = [
        {"adsq": [1.0], "FAISS heap": [3.0], "FAISS counting": [2.5]},
        {"adsq": [4.0], "FAISS heap": [1.0]},
        {"adsq": [1.0]},
    ]
    ranking = {"adsq": [1.0], "numpy": [30.0]}
    if threads > 1:
        for seconds in (few, many, ranking):
            seconds["adsq, 1 thread"] = [1.7 * np.median(seconds["adsq"])]
    cases = [
        {**sizes, "seconds": few},
        {
            **sizes,
            "codes": 54_000,
            "queries": 1000,
            "k": 54_000,
            "skipped": {"torch": "about 99 s a call"},
            "seconds": many,
        },
        {**sizes, "data": "sorted", "seconds": other[0]},
        {**sizes, "data": "all equal", "seconds": other[1]},
        {**sizes, "data": "all equal", "codes": 100_000, "seconds": other[2]},
    ]
    ranking = {"codes": 59_000, "bits": 48, "queries": 1000, "classes": 10, "seconds": ranking}
    return {"machine": facts, "limit": 30.0, "cases": cases, "ranking": ranking}


def test_rows_are_ratios_of_medians() -> None:
    header, *body = report.rows(measured())
    assert header == ["search", "FAISS heap", "FAISS counting", "usearch", "numpy", "torch"]
    assert body == [
        ["1M x 64 bits, 1 query, k = 10", "3.5", "3.0", "-", "0.98", "-"],
        ["54k x 64 bits, 1,000 queries, full ranking", "40", "-", "3,000", "-", "-"],
        ["54k x 64 bits, 1,000 queries, full ranking, `hamming_topk`", "80", "-", "6,000", "-", "-"],
        ["54k x 64 bits, 1,000 queries, full ranking, adsq held to AVX2", "20", "-", "1,500", "-", "-"],
        ["59k x 48 bits, 1,000 queries, mAP@all", "-", "-", "-", "30", "-"],
    ]
    with_threads = report.rows(measured(threads=2))
    assert [row[-1] for row in with_threads] == ["2 threads vs 1", "1.7", "1.7", "-", "-", "1.7"]
    assert [row[:-1] for row in with_threads[1:]] == body


def test_text_names_the_machine_and_the_worst_of_other_data() -> None:
    text = " ".join(report.markdown(measured()).split())
    assert "Machine: Some CPU (avx2), 1 thread; adsq 1 (avx2)." in text
    assert "more than 30 s a call" in text
    worst, best = "0.25 (all equal, 1M x 64 bits, 1 query, k = 10)", "2.5 times as long (sorted, 1M x 64 bits"
    assert f"(sorted, all equal), FAISS's faster variant takes {worst} to {best}" in text
    record = measured()
    record["cases"] = record["cases"][:2]
    assert "not random" not in report.markdown(record)


def test_readme_changes_between_the_markers_only(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        report.write_readme(readme, measured())
        text = readme.read_text()
        assert text.startswith(f"before\n{BEGIN}\n![")
        assert text.endswith(f"adsq 1 (avx2).\n{END}\nafter\n")
        assert "| 3.5 | 3.0 |" in text
        assert "old" not in text
    for broken in ("", BEGIN, END + BEGIN, 2 * (BEGIN + END)):
        readme.write_text(broken)
        with pytest.raises(ValueError, match=r"README\.md: expected <!-- peers:begin --> and"):
            report.write_readme(readme, measured())
        assert readme.read_text() == broken


def test_the_readme_of_the_project_has_the_markers(tmp_path: Path) -> None:
    shutil.copy(ROOT / "README.md", tmp_path)
    report.write_readme(tmp_path / "README.md", measured())


def test_bars_grow_with_the_speed_up(tmp_path: Path) -> None:
    def bars() -> list[int]:
        report.draw(record, tmp_path / "peers.png")
        with Image.open(tmp_path / "peers.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        lengths = (pixels == (0x00, 0x72, 0xB2)).all(axis=2).sum(axis=1)
        starts = np.flatnonzero((lengths[1:] > 0) & (lengths[:-1] == 0)) + 5
        assert (pixels == (0xD5, 0x5E, 0x00)).all(axis=2).any()  # mAP, over numpy
        return lengths[starts].tolist()

    record = measured()
    first, plain, function, avx2 = bars()
    assert first < avx2 < plain < function
    record["cases"][0]["seconds"]["adsq"] = [0.01]
    assert np.argmax(bars()) == 0


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("faiss")
    pytest.importorskip("usearch")
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module("peers")


def test_entrants_take_turns_under_their_own_setting(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("race"), "TURN", 1e-12)
    monkeypatch.setenv("ADSQ_SIMD", "generic")
    seen: list[tuple] = []
    entrants = [
        peers.Entrant(
            name, lambda name=name: seen.append((name, torch.get_num_threads(), os.environ.get("ADSQ_SIMD"))), *rest
        )
        for name, *rest in (("a", 1, None), ("b", 2, "avx2"))
    ]
    seconds = peers.race(entrants, budget=0)
    assert seen == [("a", 1, None), ("b", 2, "avx2")] * 6
    assert {name: len(times) for name, times in seconds.items()} == {"a": 5, "b": 5}
    assert len(peers.race(entrants, budget=1000)["a"]) == 55


def test_a_peer_over_the_limit_is_named_and_left_out(peers: ModuleType) -> None:
    case = peers.Case(300, 32, 4, 3, peers=("FAISS heap",))
    assert set(peers.measure(case, 1, 0, 100.0)["seconds"]) == {"adsq", "FAISS heap"}
    assert set(peers.measure(case, 2, 0, 100.0)["seconds"]) == {"adsq", "adsq, 1 thread", "FAISS heap"}
    record = peers.measure(case, 1, 0, 0.0)
    assert set(record["seconds"]) == {"adsq"}
    assert record["skipped"] == {"FAISS heap": "about 0 s a call"}


def test_memory_is_reused(peers: ModuleType) -> None:
    database, queries = codes.make_codes("random", 300, 4, 32)
    expected = nearest(queries, database, 300)[0]
    assert set(peers.REUSING) == {"adsq", "FAISS heap", "FAISS counting"}
    for builder in peers.REUSING.values():
        search = builder(database, 32, 1)
        first = search(~queries, 300)
        again = search(queries, 300)
        assert again[0] is first[0] and again[1] is first[1]
        np.testing.assert_array_equal(again[0], expected)


def test_quick_run_and_redraw(peers: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    index = HammingIndex(16)
    index.add(codes.make_codes("clustered", 1300, 1, 16)[0], range(7, 1307))
    index.save(tmp_path / "index.adsq")
    # Apart from this process: threads are set for all that follows.
    command = [sys.executable, peers.__file__, "--quick", "--data", "--budget=0", f"--root={tmp_path}"]
    command.append(f"--trained={tmp_path / 'index.adsq'}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "bench" / "results" / "peers.json"
    record = json.loads(results.read_text())
    assert {case["data"] for case in record["cases"]} == {"random", "clustered", "sorted", "trained"}
    assert [case["codes"] for case in record["cases"] if case["data"] == "trained"] == [300, 300, 1236, 1299]
    *compared, reused = (case for case in record["cases"] if case["data"] == "random")
    assert all({"adsq", *report.PEERS} <= set(case["seconds"]) and not case["reuse"] for case in compared)
    assert reused["reuse"] and set(reused["seconds"]) == {"adsq", "FAISS heap", "FAISS counting"}
    assert "108 x 48 bits, 20 queries, full ranking, memory reused |" in readme.read_text()
    assert "2k x 64 bits, 20 queries, k = 10, `hamming_topk` |" in readme.read_text()

    (tmp_path / "docs" / "peers.png").unlink()
    record["cases"][0]["seconds"] |= {"adsq": [1.0], "torch": [77.0]}
    results.write_text(json.dumps(record))
    peers.main(redraw=True, root=tmp_path)
    assert "| 77 |" in readme.read_text()
    assert (tmp_path / "docs" / "peers.png").exists()


def test_bad_options_are_refused(peers: ModuleType) -> None:
    with pytest.raises(typer.BadParameter, match="tiny sizes are not to be published"):
        peers.main(quick=True)
    with pytest.raises(typer.BadParameter, match="--threads 1"):
        peers.main(cpu=0, threads=2)
