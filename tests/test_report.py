import base64
import html
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adsq import report
from adsq.report import curves, grid, statistics

RIGHT, WRONG = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
MAGENTA = (255, 0, 255)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(path: Path, colour: tuple[int, int, int]) -> int:
    return int((pixels(path) == colour).all(axis=-1).sum())


def magenta(*shape: int) -> np.ndarray:
    images = np.zeros((*shape, 3, 12, 12), np.uint8)
    images[..., :, :, :] = np.array(MAGENTA, np.uint8)[:, None, None]
    return images


def random_codes(rows: int, num_bits: int, seed: int = 0) -> np.ndarray:
    bits = np.random.default_rng(seed).integers(0, 2, (rows, num_bits), dtype=np.uint8)
    return np.packbits(bits, axis=1, bitorder="little")


def draw_grid(path: Path, relevant: np.ndarray | None, distances: np.ndarray, **options: object) -> None:
    rows, k = distances.shape
    queries = np.zeros((rows, 1, 12, 12), np.uint8)
    report.retrieval_grid(path, queries, None, magenta(rows, k), distances, relevant, **options)  # type: ignore


def test_right_and_wrong_neighbours_are_framed_in_their_colour(tmp_path: Path) -> None:
    distances = np.ones((2, 4), np.int32)
    relevant = np.zeros((2, 4), bool)
    frames = []
    for right in (0, 3, 8):
        relevant.flat[:right] = True
        draw_grid(tmp_path / "grid.png", relevant, distances)
        frames.append((count(tmp_path / "grid.png", RIGHT), count(tmp_path / "grid.png", WRONG)))
    rights, wrongs = zip(*frames, strict=True)
    assert rights[0] < rights[1] < rights[2]
    assert wrongs[0] > wrongs[1] > wrongs[2]
    draw_grid(tmp_path / "grid.png", None, distances)
    assert count(tmp_path / "grid.png", RIGHT) == count(tmp_path / "grid.png", WRONG) == 0


def test_the_marks_differ_without_colour(tmp_path: Path) -> None:
    distances = np.ones((1, 1), np.int32)
    gray = []
    for relevant in (True, False):
        draw_grid(tmp_path / "grid.png", np.array([[relevant]]), distances)
        gray.append(pixels(tmp_path / "grid.png").min(axis=-1) < 250)  # ink or paper
    assert (gray[0] != gray[1]).sum() > 10


def test_missing_neighbours_leave_blank_cells(tmp_path: Path) -> None:
    distances = np.array([[0, 3], [1, 2]], np.int32)
    draw_grid(tmp_path / "full.png", None, distances)
    distances[:, 1] = 2147483647
    draw_grid(tmp_path / "half.png", None, distances)
    full, half = count(tmp_path / "full.png", MAGENTA), count(tmp_path / "half.png", MAGENTA)
    assert full > 50_000
    assert abs(half - full / 2) < full / 50
    assert pixels(tmp_path / "full.png").shape == pixels(tmp_path / "half.png").shape


@pytest.mark.parametrize(("height", "width"), [(8, 8), (40, 60), (90, 30), (1, 300), (400, 500)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_shape(tmp_path: Path, height: int, width: int, channels: int) -> None:
    images = torch.randint(0, 256, (2, 3, channels, height, width), dtype=torch.uint8)
    before = images.clone()
    report.retrieval_grid(
        tmp_path / "grid.png",
        images[:, 0],
        torch.tensor([0, 1]),
        images,
        torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.int32),
        torch.tensor([[True, False, True], [False, False, True]]),
        neighbour_labels=torch.tensor([[0, 1, 0], [0, 0, 1]]),
        class_names=["a class with a very long name indeed", r"$\x_{$"],
        title="A long title that must be wrapped, " * 6,
    )
    picture = pixels(tmp_path / "grid.png")
    assert (picture[:10] == 255).all()
    assert (picture[:, -10:] == 255).all()
    assert torch.equal(images, before)


def test_names_of_one_and_several_labels() -> None:
    classes = ["sky", "a class with a very long name", "sea"]
    for labels, name in [([1, 0, 0], "sky"), ([1, 0, 1], "sky +1"), ([0, 0, 0], ""), ([0, 1, 1], "a class wit… +1")]:
        assert grid._name(np.array(labels), "labels", classes) == name
    assert grid._name(np.int64(2), "labels", classes) == "sea"
    assert grid._name(np.int64(1), "labels", classes) == "a class with a…"
    assert grid._name(np.int64(7), "labels", None) == "7"
    for label in (3, -1):
        with pytest.raises(ValueError, match=f"labels: expected class ids below 3, got {label}"):
            grid._name(np.int64(label), "labels", classes)


def test_padding_needs_no_label_in_range(tmp_path: Path) -> None:
    distances = np.array([[1, 2147483647]], np.int32)
    draw_grid(tmp_path / "grid.png", None, distances, neighbour_labels=np.array([[0, -1]]), class_names=["only this"])
    assert count(tmp_path / "grid.png", MAGENTA) > 10_000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query_images": np.zeros((2, 1, 8, 8))}, TypeError, "query_images: expected dtype uint8, got float64"),
        ({"query_images": np.zeros((2, 2, 8, 8), np.uint8)}, ValueError, "query_images: expected shape"),
        ({"query_images": np.zeros((3, 1, 8, 8), np.uint8)}, ValueError, "query_images: expected shape"),
        ({"neighbour_images": np.zeros((2, 1, 8, 8), np.uint8)}, ValueError, "neighbour_images: expected shape"),
        ({"neighbour_distances": np.zeros((0, 3), np.int32)}, ValueError, "neighbour_distances: expected shape"),
        ({"neighbour_distances": np.zeros(2, np.int32)}, ValueError, "neighbour_distances: expected shape"),
        ({"relevant": np.zeros((2, 2), bool)}, ValueError, "relevant: expected bool"),
        ({"relevant": np.zeros((2, 3), int)}, ValueError, "relevant: expected bool"),
        ({"query_labels": np.zeros(3, int)}, ValueError, "query_labels: expected shape"),
    ],
)
def test_bad_grids_write_nothing(tmp_path: Path, change: dict, error: type, message: str) -> None:
    arguments = {
        "query_images": np.zeros((2, 1, 8, 8), np.uint8),
        "query_labels": np.zeros(2, int),
        "neighbour_images": np.zeros((2, 3, 1, 8, 8), np.uint8),
        "neighbour_distances": np.zeros((2, 3), np.int32),
        "relevant": np.zeros((2, 3), bool),
    }
    report.retrieval_grid(tmp_path / "good.png", **arguments)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        report.retrieval_grid(tmp_path / "bad.png", **{**arguments, **change})
    assert [path.name for path in tmp_path.iterdir()] == ["good.png"]


def test_pr_curves(tmp_path: Path) -> None:
    recall, precision = np.array([0.0, 0.5, 1.0]), np.array([np.nan, 1 + 1e-7, 0.3])
    report.pr_curve(tmp_path / "one.png", {"32 bits": (recall, precision)})
    assert count(tmp_path / "one.png", RIGHT) > 100
    assert count(tmp_path / "one.png", WRONG) == 0
    many = {f"{i} $\\x_{{$ bits": (torch.tensor([0.0, 1.0]), torch.tensor([1.0, i / 20])) for i in range(12)}
    report.pr_curve(tmp_path / "many.png", many, title=r"$\x_{$")
    assert count(tmp_path / "many.png", WRONG) > 100
    for bad, message in [
        ({}, "curves: expected at least one"),
        ({"a": (recall, precision[:2])}, r"curves\['a'\]: expected two of shape"),
        ({"a": (recall * 100, recall)}, r"curves\['a'\]: expected recall in 0..1"),
        ({"a": (recall, recall - 1)}, r"curves\['a'\]: expected precision in 0..1"),
    ]:
        with pytest.raises(ValueError, match=message):
            report.pr_curve(tmp_path / "bad.png", bad)


def test_precision_curves(tmp_path: Path) -> None:
    n, precision = np.array([1, 20, 1000]), np.array([1.0, 0.9, 0.3])
    report.precision_curve(tmp_path / "one.png", {"32 bits": (n, precision)})
    report.precision_curve(tmp_path / "short.png", {"32 bits": (n / 100, precision)})
    assert count(tmp_path / "one.png", RIGHT) > 100
    assert not np.array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "short.png")), "the axis tells n"
    for bad, message in [
        ({"a": (n, n)}, r"curves\['a'\]: expected precision in 0..1"),
        ({"a": (-n, precision)}, r"curves\['a'\]: expected n in 0..inf"),
    ]:
        with pytest.raises(ValueError, match=message):
            report.precision_curve(tmp_path / "bad.png", bad)


def test_statistics_equal_a_direct_computation(tmp_path: Path) -> None:
    codes = random_codes(300, 13)
    codes[:, 0] |= 1  # bit 0 is constant
    codes[:40] = codes[0]
    signs = np.unpackbits(codes, axis=1, bitorder="little")[:, :13].astype(float)
    found = report.code_statistics(tmp_path / "codes.png", codes, 13, labels=np.arange(300) % 3)
    correlation = np.corrcoef(signs[:, 1:].T)[np.triu_indices(12, 1)]
    distinct, sizes = np.unique(codes, axis=0, return_counts=True)
    assert found["num_codes"] == found["counted_codes"] == 300
    assert found["num_bits"] == 13
    assert found["distinct_codes"] == len(distinct)
    assert found["largest_bucket"] == sizes.max() >= 40
    assert found["constant_bits"] == 1
    assert found["mean_imbalance"] == pytest.approx(np.abs(signs.mean(axis=0) - 0.5).mean())
    assert found["mean_correlation"] == pytest.approx(np.abs(correlation).mean(), abs=1e-5)
    assert count(tmp_path / "codes.png", WRONG) > 100


@pytest.mark.parametrize(("num_bits", "rows"), [(1, 1), (8, 2), (33, 40), (600, 40)])
def test_statistics_of_any_size(tmp_path: Path, num_bits: int, rows: int) -> None:
    found = report.code_statistics(tmp_path / "a.png", torch.from_numpy(random_codes(rows, num_bits)), num_bits)
    assert found["num_codes"] == found["distinct_codes"] == rows
    assert pixels(tmp_path / "a.png").std() > 0


def test_statistics_of_collapsed_codes(tmp_path: Path) -> None:
    found = report.code_statistics(tmp_path / "a.png", np.zeros((9, 2), np.uint8), 13)
    assert (found["distinct_codes"], found["largest_bucket"], found["constant_bits"]) == (1, 9, 13)
    assert found["mean_imbalance"] == 0.5
    assert found["mean_correlation"] is None


def test_large_sets_are_sampled_with_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(5000, 16)
    for name, most in (("_COUNTED_ROWS", 900), ("_UNPACKED_ROWS", 500), ("_MOST_PAIRS", 1000), ("_CHUNK", 300)):
        monkeypatch.setattr(statistics, name, most)
    labels = (random_codes(5000, 8, 1)[:, :1] >> np.arange(4)) & 1
    found = report.code_statistics(tmp_path / "a.png", codes, 16, labels=labels)
    assert 850 <= found["counted_codes"] <= 900  # type: ignore[operator]
    assert found == report.code_statistics(tmp_path / "b.png", torch.from_numpy(codes), 16, labels=labels)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_samples_and_pairs() -> None:
    random = np.random.default_rng(0)
    for total, most in [(10, 10), (10, 7), (1001, 1000), (10**6, 50), (1, 5)]:
        rows = statistics._sample(total, most, random)
        assert (np.diff(rows) > 0).all()
        assert 0 <= rows.min() <= rows.max() < total
        assert most // 2 <= len(rows) <= most or len(rows) == total
    for rows, pairs in [(1, 0), (2, 1), (100, 4950), (3000, 200_000)]:
        first, second = statistics._pairs(rows, random)
        assert len(first) == len(second) == pairs
        assert (first != second).all()
    codes = random_codes(40, 33)
    first, second = statistics._pairs(40, random)
    expected = np.unpackbits(codes[first] ^ codes[second], axis=1).sum(axis=1)
    assert np.array_equal(statistics._distances(codes, first, second), expected)
    labels = random_codes(40, 8).view(np.uint8) >> np.arange(5) & 1
    shared = statistics._share_label(labels, first, second)
    assert np.array_equal(shared, (labels @ labels.T)[first, second] > 0)
    ids = np.arange(40) % 4
    assert np.array_equal(statistics._share_label(ids, first, second), (ids[:, None] == ids)[first, second])


def test_bad_codes_are_refused(tmp_path: Path) -> None:
    codes = random_codes(5, 16)
    for packed, num_bits, labels, error, message in [
        (codes, 32, None, ValueError, "codes: expected 4 bytes"),
        (codes, 0, None, ValueError, "num_bits"),
        (codes[:0], 16, None, ValueError, "codes: expected at least one row"),
        (codes.astype(np.int64), 16, None, TypeError, "codes: expected packed codes"),
        (codes, 16, np.zeros(4, int), ValueError, "labels: expected 5 rows"),
    ]:
        with pytest.raises(error, match=message):
            report.code_statistics(tmp_path / "a.png", packed, num_bits, labels=labels)
    assert not list(tmp_path.iterdir())


def test_training_curves_group_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(curves, "save", lambda figure, path: drawn.append(figure))
    records = [
        {"epoch": 3, "step": 30, "f_pair": 0.5, "f_sign_loss": 0.25, "net": {"a": 1, "b": 2}, "bit_mean": 1, "x": None},
        {"epoch": 4, "step": 40, "f_pair": 0.4, "f_sign_loss": float("nan"), "map": 0.75, "note": "x", "resumed": True},
    ]
    report.training_curves(tmp_path / "a.png", records)
    panels = {
        axes.get_title(loc="left"): {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
        for axes in drawn[0].axes
    }
    assert panels == {
        "f": {"pair": [[3, 0.5], [4, 0.4]], "sign_loss": [[3, 0.25]]},
        "net": {"a": [[3, 1]], "b": [[3, 2]]},
        "bit_mean": {"mean": [[3, 1]]},
        "map": {"map": [[4, 0.75]]},
    }
    assert [len(axes.get_legend().get_texts()) if axes.get_legend() else 0 for axes in drawn[0].axes] == [2, 2, 0, 0]


def test_training_curves(tmp_path: Path) -> None:
    report.training_curves(
        tmp_path / "a.png", [{r"$\x_{$": 1 / (i + 1), "b": {r"$\x_{$": 1, "y": i}} for i in range(50)], title=r"$\x_{$"
    )
    assert count(tmp_path / "a.png", RIGHT) > 100
    for empty in ([], [{}], [{"epoch": 1, "step": 2}], [{"loss": float("nan"), "text": "x"}]):
        with pytest.raises(ValueError, match="metrics: expected at least one"):
            report.training_curves(tmp_path / "b.png", empty)


def test_the_page_holds_everything_and_escapes_it(tmp_path: Path) -> None:
    evil = "<script>alert('1')</script> & \"x\""
    report.pr_curve(tmp_path / "a.png", {evil: (np.array([0.0, 1.0]), np.array([1.0, 0.5]))}, title=evil)
    picture = tmp_path / "a.png"
    page = tmp_path / "page.html"
    report.html_page(page, evil, [(evil, evil), ("mAP", 0.5)], [(evil, [evil, "n"], [[evil, 3]])], [(evil, picture)])
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count(html.escape(evil)) == 9
    assert "<dd>0.5</dd>" in text
    assert "<td>3</td>" in text
    assert not re.search(r"https?:|url\(|@import", text)
    (source,) = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    assert base64.b64decode(source) == picture.read_bytes()
    picture.unlink()  # the page needs no other file
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_an_empty_page_and_bad_pages(tmp_path: Path) -> None:
    report.html_page(tmp_path / "page.html", "Nothing", [], [], [])
    old = (tmp_path / "page.html").read_bytes()
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"pictures: expected a PNG file, got .*text\.png"):
        report.html_page(tmp_path / "page.html", "x", [], [], [("a", tmp_path / "text.png")])
    with pytest.raises(FileNotFoundError, match="missing"):
        report.html_page(tmp_path / "page.html", "x", [], [], [("a", tmp_path / "missing.png")])
    with pytest.raises(ValueError, match="tables: expected 2 cells a row in 't', got 1"):
        report.html_page(tmp_path / "page.html", "x", [], [("t", ["a", "b"], [[1]])], [])
    assert (tmp_path / "page.html").read_bytes() == old


def test_no_global_state_of_matplotlib_is_touched(tmp_path: Path) -> None:
    script = f"""
import sys, matplotlib, numpy as np
before = list(dict.items(matplotlib.rcParams))  # plain look-ups would import pyplot
from adsq import report
line = np.array([0.0, 1.0])
report.pr_curve({str(tmp_path / "a.png")!r}, {{"a": (line, line)}})
report.code_statistics({str(tmp_path / "b.png")!r}, np.zeros((3, 1), np.uint8), 8)
report.retrieval_grid({str(tmp_path / "c.png")!r}, np.zeros((1, 1, 4, 4), np.uint8), None,
    np.zeros((1, 1, 1, 4, 4), np.uint8), np.zeros((1, 1), np.int32), None)
assert "matplotlib.pyplot" not in sys.modules
assert list(dict.items(matplotlib.rcParams)) == before
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert len(list(tmp_path.iterdir())) == 3
