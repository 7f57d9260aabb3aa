"""Counting and ranking on the GPU: the kernels in the emulator, and the ops on a GPU, equal the CPU's results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emulation import BUILDS, ORDERS
from torch import Tensor

from adsq.kernels import hamming_average_precision, hamming_range, hamming_relevance_histogram
from search_cases import DTYPES, random_codes, random_labels

WIDTHS = (1, 5, 8, 31, 32, 33, 48, 64, 96, 100, 128, 200, 256, 300)
# Races do not depend on widths, but each number of words has a kernel of its own.
CASES = [*(("address", width) for width in WIDTHS), *(("thread", width) for width in (5, 64, 96, 128, 256, 300))]
KINDS = ("random", "equal", "two", "few", "sorted")
MASKS = ("without", "none", "all", "one", "half")
ELEMENTS = [
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
]  # of csrc/element.h
GARBAGE = 0xA5


class Case:
    """Two sides and the way they are searched, drawn by a seed."""

    def __init__(self, build: str, seed: int, num_bits: int, q: int | None = None, n: int | None = None):
        thread = build == "thread"  # which takes long to make threads
        self.generator = np.random.default_rng(seed)
        self.num_bits, self.seed, self.kind = num_bits, seed, self.one_of(*KINDS)
        self.queries = self.codes(self.one_of(0, 1, 2, *(() if thread else (5,))) if q is None else q, seed)
        sizes = (33, 65) if thread else (0, 1, 31, 32, 33, 65, 513)
        self.database = self.codes(self.one_of(*sizes) if n is None else n, seed + 1)
        self.order = self.one_of(*ORDERS)
        self.options = {"query_shift": self.one_of(0, 1, 4), "shift": self.one_of(0, 1, 2, 4, 8)}
        self.splits: int | None = None  # any number, and any number of batches

    def one_of(self, *choices):
        return choices[self.generator.integers(len(choices))]

    def codes(self, rows: int, seed: int) -> Tensor:
        codes = random_codes(rows, self.num_bits, seed, {"equal": 1, "two": 2, "few": 20}.get(self.kind))
        return codes[torch.from_numpy(np.lexsort(codes.numpy().T))] if self.kind == "sorted" and rows else codes

    def mask(self, kind: str) -> Tensor | None:
        rows = len(self.database)
        mask = torch.zeros(rows, dtype=torch.bool)
        mask[{"none": 0, "one": rows // 2}.get(kind, 0) : {"none": 0, "one": rows // 2 + 1}.get(kind, rows)] = True
        mask[::2] &= kind != "half"
        return None if kind == "without" else mask

    def run(self, emulator, build: str, task: str, tables: int, columns: int, arrays: list[Tensor], **options) -> bytes:
        """Run a task of tests/cuda_emulator/ranking.cpp."""
        q, n = len(self.queries), len(self.database)
        splits = self.splits or self.one_of(1, 3, 256)
        sizes = {"table_rows": splits * q, "codes_a_split": max(1, n // splits), "threads": self.one_of(32, 64, 256)}
        if self.splits is None and self.one_of(False, False, True):  # several batches of queries
            sizes["table_bytes"] = 8 * tables * columns * self.one_of(1, 2)
        if build == "thread":
            sizes |= {"blocks": 2, "threads": 64}
        sizes |= {"queries": q, "codes": n, "width": self.queries.shape[1], **self.options, **options}
        settings = [f"{name}={value}" for name, value in sizes.items()]
        data = b"".join(
            array.contiguous().view(torch.uint8).numpy().tobytes()
            for array in (self.queries, self.database, *arrays)
            if array.numel()
        )
        return emulator.output("ranking", build, task, *settings, order=self.order, data=data)


def split(output: bytes, *parts: tuple[type, int]) -> list[np.ndarray]:
    """Take arrays of these types and lengths from the output, all of it; a length of -1 is what is left."""
    arrays = []
    for dtype, count in parts:
        arrays.append(np.frombuffer(output, dtype, count))
        output = output[arrays[-1].nbytes :]
    assert not output
    return arrays


def check_neighbours(emulator, build, case, k, *, masks="without", ids=None, listed=None):
    """Hold the k nearest of the listed queries (all by default) to the CPU's; what is not listed stays as it was."""
    options = {"k": k, "mask": int(masks != "without"), "ids": int(ids is not None)}
    if listed is not None:
        options["listed"] = len(listed)
    mask, rows = case.mask(masks), None if listed is None else torch.tensor(listed, dtype=torch.int32)
    allowed = None if mask is None else 2 * mask.to(torch.uint8)  # as torch takes it, 2 is true as well
    arrays = [array for array in (allowed, rows, ids) if array is not None]
    size, columns = len(case.queries) * k, 8 * case.queries.shape[1] + 1
    found = split(
        case.run(emulator, build, "neighbours", 1, columns, arrays, **options), (np.int32, size), (np.int64, size)
    )
    expected = torch.ops.adsq.hamming_topk(case.queries, case.database, k, mask, ids)
    for array, wanted in zip(found, expected, strict=True):
        wanted = wanted.numpy().copy()
        for row in set(range(len(case.queries))) - set(range(len(case.queries)) if listed is None else listed):
            wanted[row : row + 1].view(np.uint8)[:] = GARBAGE
        np.testing.assert_array_equal(array, wanted.flatten())


def check_range(emulator, build, case, radius, *, ids=None):
    """Hold all codes within a radius to the CPU's."""
    expected = torch.ops.adsq.hamming_range(case.queries, case.database, radius, ids)
    columns = min(radius, 8 * case.queries.shape[1]) + 1
    options = {"radius": radius, "ids": int(ids is not None)}
    output = case.run(emulator, build, "range", 1, columns, [] if ids is None else [ids], **options)
    total = len(expected[1])
    found = split(output, (np.int64, len(case.queries) + 1), (np.int32, total), (np.int64, total))
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, wanted.numpy())


def check_ranking(emulator, build, case, labels, num_bits, k):
    """Hold histogram and average precision to the CPU's; bits from num_bits on count for the latter."""
    arguments = case.queries, case.database, *labels
    elements = [ELEMENTS.index(str(side.dtype).removeprefix("torch.").replace("bool", "uint8")) for side in labels]
    options = {"label_ids": int(labels[0].dim() == 1), "query_element": elements[0], "element": elements[1]}
    if labels[0].dim() == 2:
        options["classes"] = labels[0].shape[1]
    q, size = len(case.queries), len(case.queries) * (num_bits + 1)
    output = case.run(emulator, build, "histogram", 2, num_bits + 1, list(labels), **options, bits=num_bits)
    for found, counts in zip(
        split(output, (np.int64, size), (np.int64, size)),
        hamming_relevance_histogram(*arguments, num_bits),
        strict=True,
    ):
        np.testing.assert_array_equal(found, counts.numpy().flatten())
    for ties in ("index", "expected"):
        expected, count = hamming_average_precision(*arguments, k=k, ties=ties)
        more = options | {"k": k, "expected": int(ties == "expected")}
        output = case.run(emulator, build, "precision", 2, 8 * case.queries.shape[1] + 1, list(labels), **more)
        found, num_relevant = split(output, (np.float64, q), (np.int64, q))
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12, atol=0, err_msg=ties)
        np.testing.assert_array_equal(num_relevant, count.numpy())


@pytest.mark.parametrize(("build", "num_bits"), CASES)
def test_neighbours(emulator, build, num_bits):
    for seed in range(4 if build == "address" else 1):
        case = Case(build, 1000 * num_bits + seed, num_bits)
        n = len(case.database)
        ids = case.one_of(None, torch.arange(n) * 3 + 2**40)
        check_neighbours(emulator, build, case, case.one_of(1, max(1, n), n + 3), masks=case.one_of(*MASKS), ids=ids)


@pytest.mark.parametrize(("build", "num_bits"), CASES)
def test_range(emulator, build, num_bits):
    for seed in range(2 if build == "address" else 1):
        case = Case(build, 1000 * num_bits + 100 + seed, num_bits)
        ids = case.one_of(None, torch.arange(len(case.database)) * 3 + 2**40)
        check_range(emulator, build, case, case.one_of(0, num_bits // 2, num_bits // 2 + 2, 5000), ids=ids)


@pytest.mark.parametrize(("build", "num_bits"), CASES)
def test_ranking(emulator, build, num_bits):
    length = (num_bits + 7) // 8 * 8  # with pad bits, which the histogram does not read
    for seed in range(2 if build == "address" else 1):
        more = {"q": 2, "n": 513} if seed == 1 else {}
        case = Case(build, 1000 * num_bits + 200 + seed, length, **more)
        kind = ("ids", *DTYPES)[WIDTHS.index(num_bits) % 11]
        classes = case.one_of(1, 5, 64, 65, 130)
        labels = [random_labels(len(side), kind, classes, i) for i, side in enumerate((case.queries, case.database))]
        check_ranking(emulator, build, case, labels, num_bits, case.one_of(1, 40, 600))


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(("num_bits", "n"), [(1024, 65), (4096, 70)])
def test_long_codes(emulator, build, num_bits, n):
    case = Case(build, num_bits, num_bits, q=2, n=n)
    check_neighbours(emulator, build, case, n + 3)
    if num_bits == 1024 or build == "address":
        check_range(emulator, build, case, num_bits // 2)
        check_ranking(emulator, build, case, [random_labels(rows, "ids", 3, rows) for rows in (2, n)], num_bits - 3, n)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("listed", [[], [3], [4, 1], [0, 1, 2, 3, 4]])
def test_only_listed_queries_are_taken(emulator, build, listed):
    for seed in range(1 if build == "thread" else 4):
        check_neighbours(
            emulator, build, Case(build, seed, 33, q=5, n=100 if build == "thread" else 300), 40, listed=listed
        )


def test_no_classes_and_labels_of_two_dtypes(emulator):
    case = Case("address", 0, 16, q=3, n=65)
    check_ranking(emulator, "address", case, [torch.ones(3, 0), torch.ones(65, 0)], 16, 65)
    labels = [random_labels(3, "float16", 70, 0), random_labels(65, "int16", 70, 1)]
    check_ranking(emulator, "address", case, labels, 16, 65)


CHUNKS = [*(("address", n) for n in (127, 128, 129, 384, 385, 511, 512, 513, 640, 641, 1100)), ("thread", 513)]


@pytest.mark.parametrize(("build", "n"), CHUNKS)
def test_chunks_that_are_sorted(emulator, build, n):
    """Codes around the number that a warp sorts at a time, in one split and in several; all, some or few are found."""
    for seed, splits in enumerate((1, 2) if build == "thread" else (1, 2, 3, 7)):
        case = Case(build, 100 * n + seed, (48, 64, 33, 8, 300)[(n + seed) % 5], q=1, n=n)
        case.splits = splits
        check_neighbours(emulator, build, case, case.one_of(1, n // 3, n, n + 3), masks=case.one_of(*MASKS))
        check_range(emulator, build, case, case.num_bits * case.one_of(1, 2, 4) // 4)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_each_kind(emulator, kind):
    """All at one distance, at two, at many; sorted by distance, so that a chunk holds runs."""
    for num_bits in (48, 128):
        case = Case("address", 7, num_bits, q=1, n=1111)
        case.kind, case.splits = kind, 2
        case.queries, case.database = case.codes(1, 8), case.codes(1111, 9)
        if kind == "sorted":
            distances = torch.ops.adsq.hamming_topk(case.queries, case.database, 1111, None, None)[1][0]
            case.database = case.database[distances.flip(0)]
        check_neighbours(emulator, "address", case, 1111)


@pytest.mark.parametrize(
    ("build", "splits"),
    [*(("address", splits) for splits in (63, 64, 65, 128, 129, 1000)), ("thread", 65), ("thread", 129)],
)
def test_many_splits_of_few_queries(emulator, build, splits):
    """Around as many as are summed up in parts; with 1,000 of them, some are left without codes."""
    n = 300 if build == "thread" else min(33 * splits + 5, 9000)
    for q in (1,) if build == "thread" else (1, 2):
        case = Case(build, splits + q, 16 if q == 1 else 50, q=q, n=n)
        case.splits = splits
        check_neighbours(emulator, build, case, n // 2 + 1, masks=case.one_of(*MASKS))
        check_range(emulator, build, case, case.num_bits // 2)
        labels = [random_labels(rows, "ids", 3, rows) for rows in (q, n)]
        check_ranking(emulator, build, case, labels, case.num_bits, n // 2)


@pytest.mark.parametrize("splits", [1, 3, 100])
def test_places_of_more_than_32_bits(emulator, splits):
    """The way that they take, with few codes."""
    for num_bits in (24, 300):
        case = Case("address", splits, num_bits, q=2, n=3333)
        case.splits = splits
        case.options["near_codes"] = 0
        check_neighbours(emulator, "address", case, 2000)
        check_range(emulator, "address", case, num_bits // 2)
        labels = [random_labels(rows, "ids", 3, rows) for rows in (2, 3333)]
        check_ranking(emulator, "address", case, labels, num_bits, 1000)


@pytest.mark.parametrize("found", [0, 3, 700])
def test_codes_found_far_apart(emulator, found):
    """A chunk comes from a window of 2^19 codes at most."""
    case = Case("plain", found, 64, q=1, n=0)
    case.database = (~case.queries).repeat(1_200_000, 1)
    case.database[torch.linspace(0, 1_199_999, found).long()] = case.queries
    case.splits, case.order = 1, "forward"
    check_range(emulator, "plain", case, 1)


@pytest.mark.parametrize("q", [1, 1000, 10**6])
@pytest.mark.parametrize("n", [0, 10**6, 2**31 + 1, 2**36])
@pytest.mark.parametrize(("width", "tables"), [(8, 1), (512, 2)])
def test_sizes_of_tables(emulator, q, n, width, tables):
    """Tables of 64 MB at most, and splits in which counters of 32 bits cannot overflow."""
    output = emulator.output(
        "ranking", "plain", "sizes", f"queries={q}", f"codes={n}", f"width={width}", f"tables={tables}"
    )
    table_rows, batch_rows, splits, columns = np.frombuffer(output, np.int64).tolist()
    least = max(1, -(-n // 2**31))
    assert batch_rows >= 1 and least <= splits <= 4096 and columns == 8 * width + 1
    assert table_rows // batch_rows >= least
    assert 8 * tables * table_rows * columns <= 64 << 20
    assert splits == least or n // splits >= 256, "splits are too short"


GPU_SIZES = ((1, 100_003), (7, 20_000), (300, 5_000), (0, 10), (3, 0), (2, 1))


@pytest.mark.gpu
@pytest.mark.parametrize("num_bits", (*WIDTHS, 1024, 4096))
def test_range_on_the_gpu(num_bits):
    for q, n in GPU_SIZES:
        for distinct in (None, 20):
            sides = [random_codes(rows, num_bits, seed, distinct) for seed, rows in enumerate((q, n))]
            for radius in (0, num_bits // 2 - num_bits // 8, num_bits):
                found = hamming_range(*(side.cuda() for side in sides), radius)
                for a, b in zip(found, hamming_range(*sides, radius), strict=True):
                    assert torch.equal(a.cpu(), b)


@pytest.mark.gpu
@pytest.mark.parametrize("num_bits", (*WIDTHS, 1024, 4096))
def test_ranking_on_the_gpu(num_bits):
    for i, (q, n) in enumerate(GPU_SIZES):
        kind = ("ids", *DTYPES)[(i + num_bits) % 11]
        codes = [random_codes(rows, (num_bits + 7) // 8 * 8, seed, 1000) for seed, rows in enumerate((q, n))]
        arguments = *codes, *(random_labels(rows, kind, 70, seed) for seed, rows in enumerate((q, n)))
        on_gpu = [tensor.cuda() for tensor in arguments]
        for a, b in zip(
            hamming_relevance_histogram(*on_gpu, num_bits),
            hamming_relevance_histogram(*arguments, num_bits),
            strict=True,
        ):
            assert torch.equal(a.cpu(), b)
        for ties in ("index", "expected"):
            for k in (None, 100):
                found, count = hamming_average_precision(*on_gpu, k=k, ties=ties)
                expected, expected_count = hamming_average_precision(*arguments, k=k, ties=ties)
                torch.testing.assert_close(found.cpu(), expected, rtol=1e-12, atol=0)
                assert torch.equal(count.cpu(), expected_count)


@pytest.mark.gpu
def test_ranking_in_a_cuda_graph():
    sides = [random_codes(rows, 48, seed).cuda() for seed, rows in enumerate((20, 3000))]
    labels = [random_labels(rows, "ids", 10, seed).cuda() for seed, rows in enumerate((20, 3000))]

    def run():
        measures = [hamming_average_precision(*sides, *labels, ties=ties) for ties in ("index", "expected")]
        return [*hamming_relevance_histogram(*sides, *labels), *(part for measure in measures for part in measure)]

    run()  # loads the kernels
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    sides[0].copy_(random_codes(20, 48, 7))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(found, run(), strict=True))
