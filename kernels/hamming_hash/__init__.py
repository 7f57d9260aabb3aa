"""Exact search by several hash tables. `adsq.HammingIndex` uses it; see README.md in this folder."""

from adsq.kernels.hamming_hash import op

__all__ = ["op"]
