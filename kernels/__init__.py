"""Kernels for binary codes: packing, exact Hamming search and ranking, and the losses that train codes.

Every function here has a plain PyTorch reference of the same name in its family's `reference.py`, which it equals.
What runs underneath (C++, CUDA, Triton or PyTorch) depends on the machine: `adsq info` tells.
"""

if __name__ != "adsq.kernels":
    raise ImportError(
        f"this package is installed as adsq.kernels, not as {__name__!r}: import adsq.kernels, or leave this folder"
    )

from adsq.kernels import _extension
from adsq.kernels import hamming_hash as hamming_hash  # for its ops, which are there before the libraries
from adsq.kernels.codes import pack_codes, unpack_codes
from adsq.kernels.distinct_codes import distinct_codes
from adsq.kernels.hamming_ranking import hamming_average_precision, hamming_relevance_histogram
from adsq.kernels.hamming_topk import hamming_range, hamming_topk
from adsq.kernels.pairwise_similarity import (
    mean_pairwise_similarity,
    pairwise_similarity,
    pairwise_similarity_loss,
)
from adsq.kernels.sign_quantization import sign_quantization_loss

_extension.load_libraries()
implementations = _extension.implementations

__all__ = [
    "distinct_codes",
    "hamming_average_precision",
    "hamming_range",
    "hamming_relevance_histogram",
    "hamming_topk",
    "implementations",
    "mean_pairwise_similarity",
    "pack_codes",
    "pairwise_similarity",
    "pairwise_similarity_loss",
    "sign_quantization_loss",
    "unpack_codes",
]
