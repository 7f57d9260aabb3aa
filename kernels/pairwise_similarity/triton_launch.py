"""The ops on CUDA tensors, by the kernels of `triton_kernel.py`. Imported at the first such call, as Triton is.

The functions answer NotImplemented to what they leave to the PyTorch body of the op. Nothing here waits for the GPU.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn.functional import normalize, pad

from adsq.kernels.pairwise_similarity.triton_kernel import (
    pairwise_similarity_fwd_kernel,
    pairwise_similarity_loss_fwd_kernel,
)

MAX_BITS = 1024  # the products are made again for every 64 columns of a gradient
BLOCK_K = 64  # columns of a gradient a program makes
PROGRAMS = 4  # a processor of the GPU, where the rows of A alone make fewer; two to three are resident
# TRITON_INTERPRET=1 runs the kernels on CPU tensors; it multiplies bfloat16 wrongly
INTERPRETED = not isinstance(pairwise_similarity_fwd_kernel, triton.JITFunction)

_EXACT_IN_FLOAT16 = (torch.bool, torch.int8, torch.uint8, torch.float16)


class Tile(NamedTuple):
    """What a program takes of the pairs at a time, and with what."""

    rows_a: int
    rows_b: int
    warps: int
    stages: int  # of loads ahead
    registers: int | None  # a thread at most; None leaves it to the assembler


# Where four warps multiply 64 rows together. HOPPER is the fastest of eight on an H100 with float32 although a
# few registers are spilled. On Blackwell, the assembler would rather spill than use what is there.
HOPPER, BLACKWELL = Tile(64, 64, 4, 1, None), Tile(64, 32, 4, 1, 255)
OTHER = Tile(32, 32, 4, 1, None)  # each warp multiplies on its own, and holds its operands in registers


class _Labels(NamedTuple):
    """Labels of both sides as the kernels read them."""

    kind: str
    labels: tuple[Tensor, Tensor]  # class ids [N], or rows [N, C] with C a multiple of `block`
    norms: tuple[Tensor, Tensor]  # [N], for the kind "scaled"
    block: int


def _prepare(labels: tuple[Tensor, Tensor], kind: str) -> _Labels:
    """Make rows float16 where that is exact, else float32 as the PyTorch version does."""
    if labels[0].dim() == 1:
        return _Labels("ids", (labels[0].contiguous(), labels[1].contiguous()), labels, 16)
    narrow = all(rows.dtype in _EXACT_IN_FLOAT16 for rows in labels)
    u, v = (rows.to(torch.float16 if narrow else torch.float32) for rows in labels)
    norms = u, v
    if kind == "cosine" and narrow:
        kind = "scaled"
        norms = 1 / u.float().norm(dim=1).clamp(min=1e-12), 1 / v.float().norm(dim=1).clamp(min=1e-12)
    elif kind == "cosine":
        u, v = normalize(u, dim=1, eps=1e-12), normalize(v, dim=1, eps=1e-12)
    block = 32 if u.shape[1] > 16 else 16
    margin = (0, -u.shape[1] % block)  # whole vectors, and no edge to look for
    return _Labels(kind, (pad(u, margin).contiguous(), pad(v, margin).contiguous()), norms, block)


def _is_covered(tensor: Tensor) -> bool:
    """Whether there is a row, and a device with the instructions used."""
    return tensor.shape[0] > 0 and (INTERPRETED or _capability(tensor.device) >= (8, 0))


@functools.cache  # what is asked at each call would take longer than a small kernel
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _tile(device: torch.device) -> Tile:
    major = 9 if INTERPRETED else _capability(device)[0]
    return {9: HOPPER, 10: BLACKWELL, 11: BLACKWELL}.get(major, OTHER)


def _splits(rows_a: int, rows_b: int, bits: int, tile: Tile, device: torch.device) -> int:
    """Into how many parts B falls, so that few rows of A fill the GPU. Never depends on which gradients are wanted."""
    processors = 2 if INTERPRETED else _processors(device)
    programs = _ceil(rows_a, tile.rows_a) * _ceil(max(bits, 1), BLOCK_K)
    tiles = _ceil(rows_b, tile.rows_b)
    return _ceil(tiles, _ceil(tiles, max(1, min(tiles, PROGRAMS * processors // programs))))


def _ceil(count: int, size: int) -> int:
    return -(-count // size)  # triton.cdiv takes microseconds on the host


def _run(
    codes: tuple[Tensor, Tensor],
    labels: _Labels,
    column_weights: Tensor | None,
    parameters: Tensor,
    form: str,
    exclude_diagonal: bool,
    mean: bool,
    needs: tuple[bool, bool, bool],
    tf32: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Return float64 sums, [1] or [3] (loss, its derivatives by scale and bias), and the two gradients, some empty."""
    rows, bits = (codes[0].shape[0], codes[1].shape[0]), codes[0].shape[1]
    weights = None if column_weights is None else column_weights.float().contiguous()
    rows_counted = mean * (rows[0] - exclude_diagonal)  # the diagonal holds every column once
    if weights is None:
        factor, total = 1 / max(1, rows_counted * rows[1]), parameters
    else:
        factor, total = float(rows_counted), weights.sum(dtype=torch.float64)
    tile = _tile(codes[0].device)
    block_k = max(16, min(BLOCK_K, 1 << max(0, bits - 1).bit_length()))
    options = dict(
        FORM=form,
        KIND=labels.kind,
        EXCLUDE_DIAGONAL=exclude_diagonal,
        TF32=tf32,
        WIDE=INTERPRETED,
        BLOCK_A=tile.rows_a,
        BLOCK_B=tile.rows_b,
        BLOCK_C=labels.block,
        BLOCK_K=block_k,
        STEP_K=block_k if bits <= block_k else 16 if bits % 16 else 32,  # rows out of line take more registers
        ONE_STEP=0 < bits <= block_k,
        num_warps=tile.warps,
        num_stages=tile.stages,
        maxnreg=tile.registers,
    )
    sums, gradients = parameters, []
    for a, b in ((0, 1), (1, 0)):  # u against v, then v against u
        with_loss = a == 0
        if not with_loss and not needs[1]:
            gradients.append(codes[1].new_empty(0, dtype=torch.float32))
            continue
        splits = _splits(rows[a], rows[b], bits, tile, codes[a].device)
        grid = _ceil(rows[a], tile.rows_a), splits, _ceil(bits, block_k) if needs[a] else 1
        shape = () if splits == 1 else (splits,)
        parts = codes[a].new_empty((*shape, rows[a], bits) if needs[a] else 0, dtype=torch.float32)
        if with_loss:
            sums = parts.new_empty(3 if needs[2] else 1, grid[0] * splits, dtype=torch.float64)
        pairwise_similarity_loss_fwd_kernel[grid](
            *(codes[a], codes[b], labels.labels[a], labels.labels[b], labels.norms[a], labels.norms[b]),
            *(
                parameters if weights is None else weights,
                factor,
                total,
                parameters,
                parts,
                sums,
                rows[a],
                rows[b],
                bits,
                labels.labels[a].shape[1:].numel(),
            ),
            _ceil(_ceil(rows[b], tile.rows_b), splits),
            WEIGHTS_OF="none" if weights is None else "ba"[a],
            LOSS=with_loss,
            PARAMETERS=with_loss and needs[2],
            GRADIENTS=needs[a],
            **options,
        )
        gradients.append(parts.sum(0) if needs[a] and splits > 1 else parts)
    return sums.sum(1), gradients


def pairwise_similarity(labels_u: Tensor, labels_v: Tensor, kind: str) -> Tensor:
    """As the op of this name in `op.py`."""
    n, m = labels_u.shape[0], labels_v.shape[0]
    if not (_is_covered(labels_u) and _is_covered(labels_v)):
        return NotImplemented
    with torch.cuda.device_of(labels_u):
        kind, labels, norms, block = _prepare((labels_u, labels_v), kind)
        similarity = labels_u.new_empty((n, m), dtype=torch.float32)
        tile = _tile(labels_u.device)
        pairwise_similarity_fwd_kernel[(_ceil(n, tile.rows_a) * _ceil(m, tile.rows_b),)](
            *(*labels, *norms, similarity, n, m, labels[0].shape[1:].numel()),
            **dict(KIND=kind, BLOCK_A=tile.rows_a, BLOCK_B=tile.rows_b, BLOCK_C=block, WIDE=INTERPRETED),
            num_warps=tile.warps,
        )
    return similarity


def mean_pairwise_similarity(labels_u: Tensor, labels_v: Tensor, column_weights: Tensor | None, kind: str) -> Tensor:
    """As the op of this name in `op.py`."""
    if not (_is_covered(labels_u) and _is_covered(labels_v)):
        return NotImplemented
    with torch.cuda.device_of(labels_u):
        u, v = (labels.new_empty((labels.shape[0], 0), dtype=torch.float16) for labels in (labels_u, labels_v))
        unused = torch.empty(4, device=labels_u.device)
        sums, _ = _run(
            *((u, v), _prepare((labels_u, labels_v), kind), column_weights, unused, "similarity", False, True),
            *((False, False, False), False),
        )
    return sums[0].float()


def pairwise_similarity_loss(
    u: Tensor,
    v: Tensor,
    labels_u: Tensor,
    labels_v: Tensor,
    column_weights: Tensor | None,
    parameters: Tensor,
    similarity: str,
    form: str,
    exclude_diagonal: bool,
    mean: bool,
    needs_u: bool,
    needs_v: bool,
    needs_parameters: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As the op of this name in `op.py`. Products in tf32 if PyTorch may use it for its own."""
    if not (_is_covered(u) and _is_covered(v)) or u.dtype == torch.float64 or not 0 < u.shape[1] <= MAX_BITS:
        return NotImplemented
    tf32 = u.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    with torch.cuda.device_of(u):
        labels = _prepare((labels_u, labels_v), similarity)
        sums, gradients = _run(
            (u.contiguous(), v.contiguous()),
            labels,
            column_weights,
            parameters.float().contiguous(),
            form,
            exclude_diagonal,
            mean,
            (needs_u, needs_v, needs_parameters),
            tf32,
        )
        by_parameters = pad(sums[1:], (0, 2)).float() if needs_parameters else parameters.new_empty(0)
    return sums[0].float(), gradients[0], gradients[1], by_parameters
