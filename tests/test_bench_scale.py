"""bench_scale.py on few codes: it compares before it times, and writes tables and a picture."""

from __future__ import annotations

from pathlib import Path

import bench_scale
import numpy as np
import pytest
import race
import scale_report
from bench_scale import Search

from adsq import HammingIndex

pytest.importorskip("numpy", minversion="2", reason="bench/ counts bits with numpy 2")


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "ROUNDS", (2, 2))
    monkeypatch.setattr(race, "TURN", 1e-9)


def test_tables_and_picture(tmp_path: Path) -> None:
    searches = [Search(1, k=3), Search(20, k=3), Search(20, radius=2)]
    done: list[int] = []
    record = {"machine": race.machine(1, None, []), "tables": [], "growth": []}
    for data in ("random", "2 % flips"):
        codes = bench_scale.make_codes(data, 5000)
        record["tables"].append(bench_scale.measure_cells(data, *codes, searches, 0.0, lambda: done.append(1)))
        record["growth"] += [bench_scale.measure_growth(data, count, 0.0) for count in (500, 5000)]
    record["map"] = bench_scale.measure_map(5000, tmp_path, 0.0)
    assert len(done) == 6
    assert [table["auto"] for table in record["tables"]] == ["FlatRows", "DistinctRows"]
    readme = tmp_path / "README.md"
    readme.write_text("<!-- scale:begin -->\n<!-- scale:end -->\n")
    scale_report.write_readme(readme, record)
    text = readme.read_text()
    for line in ("| 1 query, k = 3 |", "| 20 queries, radius 2 |", "of 6 searches", "5,000 codes in a mapped file"):
        assert line in text, line
    scale_report.draw(record, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 10_000


def test_auto_is_compared_with_the_best_forced_way() -> None:
    seconds = {"scan": [2.0, 2.0], "hash": [1.0, 1.0], "distinct": [4.0, 4.0], "distinct hash": [3.0, 3.0]}
    assert scale_report.loss({"seconds": seconds | {"auto": [1.5, 1.5]}}) == 1.5


def test_a_wrong_result_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, queries = bench_scale.make_codes("random", 300)
    ways = bench_scale.Ways(codes, ["scan", "hash"])
    search = HammingIndex.search

    def wrong(self: HammingIndex, *arguments: object, method: str, **others: object) -> object:
        distances, ids = search(self, *arguments, method=method, **others)  # type: ignore[arg-type]
        return distances, ids + (method == "hash")

    monkeypatch.setattr(HammingIndex, "search", wrong)
    with pytest.raises(ValueError, match="hash, Search"):
        bench_scale.measure(ways, queries, Search(5, k=2), 0.0)


def test_codes_are_as_far_from_their_centres_as_said() -> None:
    codes, queries = bench_scale.make_codes("5 % flips", 400)
    assert codes.shape == (400, 8)
    assert queries.shape == (1000, 8)
    distances = np.bitwise_count(codes[:, None] ^ queries).sum(2)
    same = distances[distances < 16]  # of one centre: 9.5 % of 64 bits differ, by two flips; of two, half
    assert 5.5 < same.mean() < 6.7
    assert 0.009 < len(same) / distances.size < 0.011
