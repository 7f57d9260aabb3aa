"""Kernels for binary codes: packing, exact Hamming search and ranking, and the losses that train codes.

Every function here has a plain PyTorch reference of the same name in its family's `reference.py`, which it equals.
What runs underneath (C++, CUDA, Triton or PyTorch) depends on the machine: `adsq info` tells.
"""

if __name__ != "adsq.kernels":
    raise ImportError(
        f"this package is installed as adsq.kernels, not as {__name__!r}: run from another folder, or import adsq.kernels"
    )

from adsq.kernels import _extension
from adsq.kernels.codes import pack_codes, unpack_codes

_extension.load_libraries()

__all__ = [
    "pack_codes",
    "unpack_codes",
]
