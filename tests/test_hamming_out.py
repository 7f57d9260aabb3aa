"""Searches that write into memory of the caller: hamming_topk and HammingIndex.search with out=."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from adsq import HammingIndex
from adsq.kernels import _extension, distinct_codes, hamming_topk
from adsq.kernels.distinct_codes import op as distinct_op
from adsq.kernels.hamming_topk import op
from search_cases import FAST_VARIANTS, VARIANTS, assert_equal, brute_topk, random_codes, using

GARBAGE = -7
Q, N, K = 4, 30, 5
CODES = random_codes(N, 24, 0, 12)


def garbage(q: int, k: int, guard: int = 0) -> tuple[Tensor, Tensor]:
    """Memory [q, k] for results, with `guard` elements before and after."""
    whole = [torch.full((q * k + 2 * guard,), GARBAGE, dtype=dtype) for dtype in (torch.int32, torch.int64)]
    return whole[0][guard : guard + q * k].view(q, k), whole[1][guard : guard + q * k].view(q, k)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("q", "n"), [(0, 70), (1, 0), (1, 700), (3, 700), (30, 700)])
def test_the_same_as_without(q: int, n: int, masked: bool, threads: int) -> None:
    torch.set_num_threads(threads)
    queries, database = random_codes(q, 37, 0), random_codes(n, 37, 1, 300)
    mask = torch.arange(n) % 3 > 0 if masked else None
    for k in (1, 9, n // 2 + 1, n + 3):
        expected = brute_topk(queries, database, k, mask)
        for variant in VARIANTS:
            with using(variant):
                out = garbage(q, k)
                for _ in range(2):  # the second time over the results of the first, of other queries
                    found = hamming_topk(queries, database, k, mask=mask, out=out)
                    assert found[0] is out[0] and found[1] is out[1]
                    assert_equal(found, expected, variant)
                    hamming_topk(~queries, database, k, out=out)


@pytest.mark.parametrize("k", [1, 600, 20_000, 20_003])
def test_nothing_else_is_written(k: int) -> None:
    """Large results are written past the caches, in vectors: the memory here begins between two of those."""
    queries, database = random_codes(3, 16, 0), random_codes(20_000, 16, 1)
    expected = brute_topk(queries, database, k)
    for variant in FAST_VARIANTS:
        for guard in (1, 3, 8):
            out = garbage(3, k, guard)
            with using(variant):
                assert_equal(hamming_topk(queries, database, k, out=out), expected, variant)
            for tensor in out:
                whole = tensor.new_empty(0).set_(tensor.untyped_storage())
                assert (whole[:guard] == GARBAGE).all() and (whole[-guard:] == GARBAGE).all()


def test_long_rows_at_any_address() -> None:
    """Rows that pass the caches are written in whole lines, wherever they begin, and one while the next is sorted."""
    n = 16_401
    queries, database = random_codes(5, 48, 0), random_codes(n, 48, 1)
    mask = torch.arange(n) % 9000 > 0
    expected = [brute_topk(queries, database, n + 3, allowed) for allowed in (None, mask)]
    for guard in (1, 5, 16):
        for variant in FAST_VARIANTS:
            for threads in (1, 2, 7):
                torch.set_num_threads(threads)
                for k in (16_384, 16_391, n + 3):
                    for some, (distances, indices) in zip((None, mask), expected, strict=True):
                        out = garbage(5, k, guard)
                        with using(variant):
                            hamming_topk(queries, database, k, mask=some, out=out)
                        assert_equal(out, (distances[:, :k], indices[:, :k]), (variant, threads, k, guard))


@pytest.mark.skipif(not _extension.simd_variants(), reason="the C++ library is not in use")
def test_native_kernels_make_no_tensors_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bodies of the ops search into new tensors and copy them."""
    monkeypatch.setattr(op, "hamming_topk", None)
    monkeypatch.setattr(distinct_op, "distinct_topk", None)
    for distinct in (False, True):
        index = HammingIndex(24, distinct)
        index.add(CODES)
        index.search(CODES[:Q], K, out=garbage(Q, K))
        with pytest.raises(TypeError):
            index.search(CODES[:Q], K)


@pytest.mark.parametrize("distinct", [False, True, "auto"])
@pytest.mark.parametrize("ids", [None, range(3, 3 + 7 * N, 7)])
@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("q", [Q, 40])
def test_index(distinct: Any, ids: range | None, filtered: bool, q: int) -> None:
    index = HammingIndex(24, distinct)
    index.add(CODES, ids)
    queries = random_codes(q, 24, 2)
    filter_ids = [*(ids or range(N))][::2] if filtered else None
    for k in (K, N, N + 4):
        expected = index.search(queries, k, filter_ids)
        out = garbage(q, k)
        arrays = tuple(tensor.numpy() for tensor in garbage(q, k))
        for _ in range(2):
            found = index.search(queries, k, filter_ids, out=out)
            assert found[0] is out[0] and found[1] is out[1]
            assert all(map(torch.equal, found, expected))
            found_arrays = index.search(queries.numpy(), k, filter_ids, out=arrays)
            assert found_arrays[0] is arrays[0] and found_arrays[1] is arrays[1]
            np.testing.assert_equal(found_arrays, [tensor.numpy() for tensor in expected])
            index.search(~queries, k, out=out)
        if not filtered:
            found = index.search(queries, k, out=out, method="hash")
            assert found[0] is out[0] and all(map(torch.equal, found, expected))


def test_results_that_come_elsewhere_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU that is asked in numpy."""
    monkeypatch.setattr(op, "topk", lambda *arguments: op.hamming_topk(*arguments[:-1]))
    index = HammingIndex(24)
    index.add(CODES)
    out = garbage(Q, K)
    assert index.search(CODES[:Q], K, out=out)[0] is out[0]
    assert_equal(out, brute_topk(CODES[:Q], CODES, K))


@pytest.mark.gpu
def test_index_on_a_gpu() -> None:
    index = HammingIndex(24)
    index.add(CODES)
    expected = index.search(CODES[:Q], N + 1)
    index.to("cuda")
    out = tuple(tensor.cuda() for tensor in garbage(Q, N + 1))
    arrays = tuple(tensor.numpy() for tensor in garbage(Q, N + 1))
    assert index.search(CODES[:Q].cuda(), N + 1, out=out)[0] is out[0]
    assert index.search(CODES[:Q].numpy(), N + 1, out=arrays)[1] is arrays[1]
    for tensor, on_gpu, array in zip(expected, out, arrays, strict=True):
        assert torch.equal(on_gpu.cpu(), tensor)
        np.testing.assert_array_equal(array, tensor.numpy())


D, I = torch.zeros(Q, K, dtype=torch.int32), torch.zeros(Q, K, dtype=torch.int64)  # noqa: E741
ROOM = torch.zeros(3 * Q * K, dtype=torch.int64)
BYTES = torch.zeros(9 * Q * K, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (D, TypeError, r"out: expected a pair of tensors, \(distances, indices\), got Tensor"),
        ((D, I, I), ValueError, "out: expected two tensors, .*, got 3"),
        ((None, I), TypeError, r"out\[0\]: expected a torch.Tensor, got NoneType"),
        ((D, I.numpy()), TypeError, r"out\[1\]: expected a torch.Tensor, got ndarray"),
        ((I, D), TypeError, r"out\[0\]: expected dtype torch.int32, got torch.int64"),
        ((D, D.clone()), TypeError, r"out\[1\]: expected dtype torch.int64, got torch.int32"),
        ((D.float().requires_grad_(), I), TypeError, r"out\[0\]: expected dtype torch.int32, got torch.float32"),
        ((D[:3], I), ValueError, r"out\[0\]: expected shape \[4, 5\], got \[3, 5\]"),
        ((D, I[0]), ValueError, r"out\[1\]: expected shape \[4, 5\], got \[5\]"),
        ((D, I.to("meta")), ValueError, r"out\[1\]: expected device cpu, got meta"),
        ((D.T.contiguous().T, I), ValueError, r"out\[0\]: expected a contiguous tensor"),
        ((D, I[:1].expand(Q, K)), ValueError, r"out\[1\]: expected a contiguous tensor"),
        ((D.to_sparse(), I), ValueError, r"out\[0\]: expected a contiguous tensor"),
        ((D, BYTES[1 : 1 + 8 * Q * K].numpy().view(np.int64)), TypeError, r"out\[1\]: expected a torch.Tensor"),
        (
            (D, torch.from_numpy(BYTES[1 : 1 + 8 * Q * K].numpy().view(np.int64)).view(Q, K)),
            ValueError,
            r"out\[1\]: expected an address that is a multiple of 8 bytes",
        ),
        (
            (ROOM.view(torch.int32)[2 * Q * K - 1 : 3 * Q * K - 1].view(Q, K), ROOM[: Q * K].view(Q, K)),
            ValueError,
            r"out\[0\]: expected memory of its own",
        ),
    ],
)
def test_refused(out: Any, error: type[Exception], message: str) -> None:
    index = HammingIndex(24)
    index.add(CODES)
    calls = (
        lambda: hamming_topk(CODES[:Q], CODES, K, out=out),
        lambda: index.search(CODES[:Q], K, out=out),
    )
    for call in calls:
        with pytest.raises(error, match=message):
            call()


def test_memory_side_by_side_is_taken() -> None:
    distances, indices = ROOM.view(torch.int32)[2 * Q * K : 3 * Q * K].view(Q, K), ROOM[: Q * K].view(Q, K)
    found = hamming_topk(CODES[:Q], CODES, K, out=(distances, indices))
    assert_equal(found, brute_topk(CODES[:Q], CODES, K))


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_memory_of_an_input_is_refused(argument: int) -> None:
    arguments = [random_codes(8, 40, 0), random_codes(200, 40, 1), torch.ones(200, dtype=torch.bool)]
    before = [tensor.clone() for tensor in arguments]
    place = arguments[argument].view(torch.uint8).view(-1)[:32].view(torch.int32).view(8, 1)
    for other in (arguments, [tensor.expand(2, *tensor.shape)[1] for tensor in arguments]):
        with pytest.raises(ValueError, match=r"out\[0\]: expected memory of its own, got some of another argument"):
            hamming_topk(other[0], other[1], 1, mask=other[2], out=(place, torch.zeros(8, 1, dtype=torch.int64)))
    assert all(map(torch.equal, arguments, before))


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


D_ARRAY, I_ARRAY = np.zeros((Q, K), np.int32), np.zeros((Q, K), np.int64)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (D_ARRAY, TypeError, "out: expected a pair .*, got ndarray"),
        ((D_ARRAY,), ValueError, "out: expected two tensors, .*, got 1"),
        ((D_ARRAY, I), TypeError, r"out\[1\]: expected a numpy array, as queries are, got Tensor"),
        ((D_ARRAY, None), TypeError, r"out\[1\]: expected a numpy array, as queries are, got NoneType"),
        ((D_ARRAY.astype(">i4"), I_ARRAY), TypeError, r"out\[0\]: expected dtype int32, got >i4"),
        ((D_ARRAY, I_ARRAY.astype("u8")), TypeError, r"out\[1\]: expected dtype int64, got uint64"),
        ((D_ARRAY, D_ARRAY.copy()), TypeError, r"out\[1\]: expected dtype torch.int64, got torch.int32"),
        ((D_ARRAY, I_ARRAY[:2]), ValueError, r"out\[1\]: expected shape \[4, 5\], got \[2, 5\]"),
        ((read_only(D_ARRAY.copy()), I_ARRAY), ValueError, r"out\[0\]: expected a contiguous, aligned and writeable"),
        ((D_ARRAY, np.asfortranarray(I_ARRAY)), ValueError, r"out\[1\]: expected a contiguous, aligned and writeable"),
        ((D_ARRAY[::-1], I_ARRAY), ValueError, r"out\[0\]: expected a contiguous, aligned and writeable"),
        (
            (D_ARRAY, BYTES[1 : 1 + 8 * Q * K].numpy().view(np.int64).reshape(Q, K)),
            ValueError,
            r"out\[1\]: expected a contiguous, aligned and writeable",
        ),
        (
            (ROOM.numpy().view(np.int32)[: Q * K].reshape(Q, K), ROOM.numpy()[: Q * K].reshape(Q, K)),
            ValueError,
            r"out\[0\]: expected memory of its own",
        ),
    ],
)
def test_refused_arrays(out: Any, error: type[Exception], message: str) -> None:
    index = HammingIndex(24)
    index.add(CODES)
    with pytest.raises(error, match=message):
        index.search(CODES[:Q].numpy(), K, out=out)


def test_opcheck() -> None:
    mask, ids = torch.arange(N) % 2 == 0, torch.arange(N) * 3
    first, numbers = distinct_codes(CODES)
    lists = distinct_op.distinct_rows(numbers, len(first))
    for k in (1, N + 2):
        out = garbage(Q, k)
        torch.library.opcheck(op.hamming_topk_out, (CODES[:Q], CODES, None, None, *out))
        torch.library.opcheck(op.hamming_topk_out, (CODES[:Q], CODES, mask, ids, *out))
        torch.library.opcheck(distinct_op.distinct_topk_out, (CODES[:Q], CODES[first], *lists, ids, *out))


@pytest.mark.skipif(not _extension.simd_variants(), reason="the C++ library is not in use")
@pytest.mark.parametrize(
    ("distances", "indices"),
    [(D[:3], I), (D[:, :0], I[:, :0]), (D, I[:, :4]), (I, D), (D.T.contiguous().T, I), (D[0], I[0])],
)
def test_native_ops_refuse_what_does_not_fit(distances: Tensor, indices: Tensor) -> None:
    """Called directly, without the checks of the public functions."""
    first, numbers = distinct_codes(CODES)
    lists = distinct_op.distinct_rows(numbers, len(first))
    with pytest.raises(RuntimeError, match=r"distances|indices"):
        op.hamming_topk_out(CODES[:Q], CODES, None, None, distances, indices)
    with pytest.raises(RuntimeError, match=r"distances|indices"):
        distinct_op.distinct_topk_out(CODES[:Q], CODES[first], *lists, None, distances, indices)


def test_autograd_sees_the_change() -> None:
    """A gradient that would be wrong, since what it needs was overwritten, is refused."""
    out = garbage(Q, K)
    hamming_topk(CODES[:Q], CODES, K, out=out)
    weights = torch.ones(Q, N, requires_grad=True)
    loss = weights.gather(1, out[1]).sum()
    hamming_topk(~CODES[:Q], CODES, K, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(dynamic: bool) -> None:
    torch._dynamo.reset()

    def search(queries: Tensor, k: int, distances: Tensor, indices: Tensor) -> Tensor:
        before = indices + 1
        return hamming_topk(queries, CODES, k, out=(distances, indices))[1] + before

    compiled = torch.compile(search, fullgraph=True, dynamic=dynamic)
    for q, k in ((Q, K), (3, K), (3, N + 2)):
        expected, out = brute_topk(CODES[:q], CODES, k), garbage(q, k)
        np.testing.assert_array_equal(compiled(CODES[:q], k, *out).numpy(), expected[1] + GARBAGE + 1)
        assert_equal(out, expected)


@pytest.mark.filterwarnings("error")
def test_fake_tensors() -> None:
    with FakeTensorMode():
        codes = torch.empty(70, 3, dtype=torch.uint8)
        out = torch.empty(70, 9, dtype=torch.int32), torch.empty(70, 9, dtype=torch.int64)
        assert hamming_topk(codes, codes, 9, out=out)[1] is out[1]
