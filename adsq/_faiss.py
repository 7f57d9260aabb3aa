"""Flat binary indexes of FAISS, which is imported only when somebody asks for one."""

from __future__ import annotations

from typing import Any

import numpy as np


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "FAISS is not installed, and from_faiss and to_faiss need it: pip install faiss-cpu"
        ) from error
    return faiss


def read(index: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return copies of the codes, uint8 [N, d / 8], and of the ids, int64 [N], which only an IDMap has."""
    faiss = _faiss()
    # What an IDMap holds comes typed as the base class.
    flat = faiss.downcast_IndexBinary(index) if isinstance(index, faiss.IndexBinary) else index
    what, ids = type(flat).__name__, None
    if isinstance(flat, faiss.IndexBinaryIDMap):  # IndexBinaryIDMap2 is one, with a table for its reconstruct
        ids = faiss.vector_to_array(flat.id_map)
        flat = faiss.downcast_IndexBinary(flat.index)
        what += f" over {type(flat).__name__}"
    if not isinstance(flat, faiss.IndexBinaryFlat):
        raise TypeError(f"index: expected a faiss.IndexBinaryFlat, or an IndexBinaryIDMap over one, got {what}")
    return faiss.vector_to_array(flat.xb).reshape(flat.ntotal, flat.code_size), ids


def write(codes: np.ndarray, ids: np.ndarray) -> Any:
    """Return a FAISS index of codes, uint8 [N, B], and ids, int64 [N], ascending and not negative."""
    faiss = _faiss()
    flat = faiss.IndexBinaryFlat(8 * codes.shape[1])
    if len(ids) == 0 or ids[-1] == len(ids) - 1:  # the ids are 0..N-1
        flat.add(codes)
        return flat
    index = faiss.IndexBinaryIDMap(flat)
    index.own_fields = True  # it deletes the flat one, and so Python must not
    flat.this.disown()
    index.add_with_ids(codes, ids)
    return index
