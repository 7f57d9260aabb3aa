"""Argument checks that all families share. Each message names the argument, what was expected and what came."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

MAX_BITS = 4096
MAX_NEIGHBOURS = 2**40
# What entries of codes and of label rows may be; the latter also bool.
ENTRIES = (
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)


def check_tensor(value: object, name: str) -> None:
    """Refuse anything but a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")


def check_matrix(value: Tensor, name: str, shape: str) -> None:
    """Refuse anything but a two-dimensional tensor. `shape` is how the message spells it, such as "[N, K]"."""
    check_tensor(value, name)
    if value.dim() != 2:
        raise ValueError(f"{name}: expected shape {shape}, got {list(value.shape)}")


def check_float(value: Tensor, name: str) -> None:
    """Refuse dtypes that carry no gradient."""
    if value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"{name}: expected float16, bfloat16, float32 or float64, got {value.dtype}")


def check_same(value: Tensor, name: str, other: Tensor, other_name: str, *, dtype: bool = True) -> None:
    """Refuse a tensor on another device, or of another dtype, than its partner."""
    if value.device != other.device:
        raise ValueError(f"{name}: expected the device of {other_name}, {other.device}, got {value.device}")
    if dtype and value.dtype != other.dtype:
        raise TypeError(f"{name}: expected the dtype of {other_name}, {other.dtype}, got {value.dtype}")


def check_int(value: object, name: str, low: int, high: int | None = None) -> int:
    """Return `value` as an int in low..high, or refuse it. Bools are refused: they are mistakes here."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    bound = f"at least {low}" if high is None else f"from {low} to {high}"
    if number is None:
        raise TypeError(f"{name}: expected an integer {bound}, got {value!r}")
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name}: expected an integer {bound}, got {number}")
    return number


def check_choice(value: object, name: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")


def check_k(k: object) -> int:
    """Return how many neighbours of each query are wanted, or refuse it. More than there are codes may be wanted."""
    number = check_int(k, "k", 1)  # the usual mistake is to be told no more than this
    return number if number <= MAX_NEIGHBOURS else check_int(number, "k", 1, MAX_NEIGHBOURS)


def check_num_bits(num_bits: int, name: str = "num_bits") -> int:
    """Return a code length, 1 to 4096, or refuse it."""
    return check_int(num_bits, name, 1, MAX_BITS)


def check_packed(packed: Tensor, name: str, num_bits: int | None = None) -> None:
    """Refuse anything but packed codes, uint8 [N, ceil(num_bits / 8)]."""
    check_matrix(packed, name, "[N, ceil(num_bits / 8)]")
    if packed.dtype != torch.uint8:
        raise TypeError(f"{name}: expected packed codes of dtype torch.uint8 (see pack_codes), got {packed.dtype}")
    width = packed.shape[1]
    if num_bits is not None and width != (num_bits + 7) // 8:
        raise ValueError(f"{name}: expected {(num_bits + 7) // 8} bytes a code for {num_bits} bits, got {width}")
    if not 1 <= width <= MAX_BITS // 8:
        raise ValueError(f"{name}: expected 1 to {MAX_BITS // 8} bytes a code, got {width}")


def check_pad_bits(packed: Tensor, name: str, num_bits: int) -> None:
    """Refuse set pad bits, which would count in every distance. Looks at the data: not for use inside kernels."""
    used = num_bits % 8
    if used and packed.shape[0] and int(packed.select(1, -1).max()) >> used:  # the quickest way to say it
        row = int((packed[:, -1] >> used).nonzero()[0])
        raise ValueError(f"{name}: expected zero bits from bit {num_bits} on, got others in row {row}")


def check_packed_pair(queries: Tensor, database: Tensor) -> None:
    """Refuse queries and database that cannot be compared."""
    check_packed(queries, "queries")
    check_packed(database, "database")
    check_same(database, "database", queries, "queries")
    if queries.shape[1] != database.shape[1]:
        raise ValueError(f"database: expected {queries.shape[1]} bytes a code as in queries, got {database.shape[1]}")


def check_out(
    out: object, shape: tuple[int, int], device: torch.device, inputs: tuple[Tensor | None, ...]
) -> tuple[Tensor, Tensor]:
    """Return the tensors that distances and indices of neighbours are written to, or refuse them.

    Args:
        out: What the caller gave: distances int32 and indices int64, both of the shape.
        shape: [Q, k].
        device: Where they must be.
        inputs: What is read meanwhile, so must not lie in the same memory.
    """
    if not isinstance(out, tuple | list):
        raise TypeError(f"out: expected a pair of tensors, (distances, indices), got {type(out).__name__}")
    if len(out) != 2:
        raise ValueError(f"out: expected two tensors, (distances, indices), got {len(out)}")
    for name, tensor, dtype in zip(("out[0]", "out[1]"), out, (torch.int32, torch.int64), strict=True):
        check_tensor(tensor, name)
        if tensor.dtype != dtype:
            raise TypeError(f"{name}: expected dtype {dtype}, got {tensor.dtype}")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
        if tensor.device != device:
            raise ValueError(f"{name}: expected device {device}, got {tensor.device}")
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: expected a contiguous tensor")
    distances, indices = out
    # A tensor that is traced, and any other of a class of its own, has no address.
    if not torch.compiler.is_compiling() and type(distances) is type(indices) is Tensor:
        for name, tensor, others in (("out[0]", distances, (indices, *inputs)), ("out[1]", indices, inputs)):
            if tensor.data_ptr() % tensor.element_size():
                raise ValueError(f"{name}: expected an address that is a multiple of {tensor.element_size()} bytes")
            if any(other is not None and _share_memory(tensor, other) for other in others):
                raise ValueError(f"{name}: expected memory of its own, got some of another argument")
    return distances, indices


def _share_memory(a: Tensor, b: Tensor) -> bool:
    """Whether the memory between the first and the last element of two tensors overlaps."""
    if a.device != b.device or a.numel() == 0 or b.numel() == 0:
        return False
    (a_begin, a_end), (b_begin, b_end) = _extent(a), _extent(b)
    return a_begin < b_end and b_begin < a_end


def _extent(tensor: Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def check_labels(labels: Tensor, name: str, rows: int, rows_of: str) -> None:
    """Refuse anything but class ids, int64 [N], or one row of labels an image, [N, C], on `rows` images."""
    check_tensor(labels, name)
    if labels.dim() not in (1, 2):
        raise ValueError(f"{name}: expected class ids [N] or label rows [N, C], got shape {list(labels.shape)}")
    if labels.dim() == 1 and labels.dtype != torch.int64:
        raise TypeError(f"{name}: expected class ids of dtype torch.int64, got {labels.dtype}")
    if labels.dtype not in (torch.bool, *ENTRIES):
        raise TypeError(f"{name}: expected bool, uint8, int8 to int64 or float label rows, got {labels.dtype}")
    if labels.shape[0] != rows:
        raise ValueError(f"{name}: expected {rows} rows, one for each row of {rows_of}, got {labels.shape[0]}")


def check_label_pair(labels: Tensor, name: str, other: Tensor, other_name: str) -> None:
    """Refuse two sets of labels that cannot be compared: ids against rows, or rows over other classes."""
    check_same(other, other_name, labels, name, dtype=False)
    if labels.dim() != other.dim():
        raise ValueError(f"{other_name}: expected {labels.dim()} dimensions as in {name}, got {other.dim()}")
    if labels.dim() == 2 and labels.shape[1] != other.shape[1]:
        raise ValueError(f"{other_name}: expected {labels.shape[1]} classes as in {name}, got {other.shape[1]}")


def check_reduction(reduction: object) -> bool:
    """Return whether the reduction is the mean (else the sum), or refuse it."""
    check_choice(reduction, "reduction", ("mean", "sum"))
    return reduction == "mean"


def autocast_to_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, return half tensors as float32, as PyTorch does for its own losses; else as they are."""
    if not tensors or not torch.is_autocast_enabled(tensors[0].device.type):
        return tensors
    return tuple(t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors)
