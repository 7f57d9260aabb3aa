"""What hamming_topk and hamming_range refuse, and the choice of their C++ variant."""

from __future__ import annotations

import pytest
import torch

from adsq.kernels import (
    _extension,
    hamming_average_precision,
    hamming_range,
    hamming_relevance_histogram,
    hamming_topk,
    implementations,
)
from search_cases import OPS, random_codes, using

CODES = random_codes(4, 24, 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((CODES.numpy(), CODES, 1), TypeError, "queries: expected a torch.Tensor, got ndarray"),
        ((CODES.long(), CODES, 1), TypeError, "queries: expected packed codes of dtype torch.uint8"),
        (
            (CODES, CODES[0], 1),
            ValueError,
            r"database: expected shape \[N, ceil\(num_bits / 8\)\], got \[3\]",
        ),
        ((CODES, CODES[:, :2], 1), ValueError, "database: expected 3 bytes a code as in queries, got 2"),
        ((CODES[:, :0], CODES[:, :0], 1), ValueError, "queries: expected 1 to 512 bytes a code, got 0"),
        ((CODES, CODES.to("meta"), 1), ValueError, "database: expected the device of queries, cpu, got meta"),
    ],
)
def test_bad_codes_are_refused(arguments: tuple, error: type[Exception], message: str) -> None:
    for function in (hamming_topk, hamming_range):
        with pytest.raises(error, match=message):
            function(*arguments)


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (0, ValueError, "k: expected an integer at least 1, got 0"),
        (-3, ValueError, "k: expected an integer at least 1, got -3"),
        (2.0, TypeError, r"k: expected an integer at least 1, got 2\.0"),
        (True, TypeError, "k: expected an integer at least 1, got True"),
    ],
)
def test_bad_k_is_refused(k: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hamming_topk(CODES, CODES, k)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([True] * 4, TypeError, "mask: expected a torch.Tensor, got list"),
        (torch.ones(4), TypeError, "mask: expected dtype torch.bool, got torch.float32"),
        (
            torch.ones(3, dtype=torch.bool),
            ValueError,
            r"mask: expected shape \[4\], one entry a database code, got \[3\]",
        ),
        (torch.ones(4, 1, dtype=torch.bool), ValueError, r"mask: expected shape \[4\]"),
        (
            torch.ones(4, dtype=torch.bool, device="meta"),
            ValueError,
            "mask: expected the device of database, cpu",
        ),
    ],
)
def test_bad_mask_is_refused(mask: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hamming_topk(CODES, CODES, 1, mask=mask)  # type: ignore[arg-type]


def test_bad_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="radius: expected an integer at least 0, got -1"):
        hamming_range(CODES, CODES, -1)
    with pytest.raises(TypeError, match=r"radius: expected an integer at least 0, got 1\.5"):
        hamming_range(CODES, CODES, 1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", _extension.simd_variants())
def test_the_variant_in_use_is_named(variant: str) -> None:
    with using(variant):
        uses = {entry.op: entry.uses for entry in implementations() if entry.device == "CPU"}
    assert {name: uses[name] for name in OPS} == dict.fromkeys(OPS, f"C++ ({variant})")


@pytest.mark.skipif(not _extension.simd_variants(), reason="the C++ library is not in use")
def test_without_a_choice_the_best_variant_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        monkeypatch.delenv("ADSQ_SIMD", raising=False) if value is None else monkeypatch.setenv("ADSQ_SIMD", value)
        uses = {entry.op: entry.uses for entry in implementations() if entry.device == "CPU"}
        assert uses["hamming_topk"] == f"C++ ({_extension.simd_variants()[0]})"


@pytest.mark.skipif(not _extension.simd_variants(), reason="the C++ library is not in use")
@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("sse9", "ADSQ_SIMD: expected generic, avx2, avx512bw or avx512, got sse9"),
        ("AVX2", "ADSQ_SIMD: expected generic, avx2, avx512bw or avx512, got AVX2"),
        *(
            (name, f"ADSQ_SIMD: this machine or build cannot run {name}")
            for name in ("avx2", "avx512bw", "avx512")
            if name not in _extension.simd_variants()
        ),
    ],
)
def test_a_variant_that_cannot_run_is_refused(variant: str, message: str) -> None:
    labels = torch.arange(4)
    calls = (
        lambda: hamming_topk(CODES, CODES, 1),
        lambda: hamming_range(CODES, CODES, 1),
        lambda: hamming_average_precision(CODES, CODES, labels, labels),
        lambda: hamming_relevance_histogram(CODES, CODES, labels, labels),
        implementations,
    )
    with using(variant):
        for call in calls:
            with pytest.raises((ValueError, RuntimeError), match=message):
                call()
