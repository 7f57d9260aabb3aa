"""What training watches: loss terms, and the health of the codes."""

from __future__ import annotations

import torch
from torch import Tensor

from adsq.kernels import pack_codes


class NonFiniteLossError(ArithmeticError):
    """A term of the loss became NaN or infinite; the message names the step and the term."""


class TermLog:
    """Collects the terms of each step on the device and reads them in groups.

    Args:
        steps_done: Number of the last step before the first that is noted.
        steps_a_read: Reading waits for the GPU, so it is done this often. A non-finite term is named with its own step
            all the same.
    """

    def __init__(self, steps_done: int, steps_a_read: int) -> None:
        self.step = steps_done
        self._steps_a_read = steps_a_read
        self.latest: dict[str, float] = {}
        self._unread: list[tuple[int, dict[str, Tensor]]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, terms: dict[str, Tensor], new_step: bool = True) -> None:
        """Note the terms of a step."""
        self.step += new_step
        self._unread.append((self.step, terms))
        if len(self._unread) >= self._steps_a_read:
            self.read()

    def read(self) -> None:
        """Wait for the terms noted so far. Raises NonFiniteLossError for the first that is NaN or infinite."""
        unread, self._unread = self._unread, []
        flat = [term for _, terms in unread for term in terms.values()]
        values = iter(torch.stack(flat).tolist() if flat else [])
        for step, terms in unread:
            for name in terms:
                value = next(values)
                if not abs(value) < float("inf"):
                    raise NonFiniteLossError(f"step {step}: {name} is {value}; a lower peak_lr or float32 may help")
                self.latest[name] = value
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Return the mean of each term so far."""
        self.read()
        return {name: total / self._counts[name] for name, total in self._sums.items()}


def code_statistics(codes: Tensor, relaxed: list[Tensor]) -> dict[str, float]:
    """Return how healthy codes are: a model that collapses shows here first.

    Args:
        codes: Shared codes B of +1 and -1, [n, K].
        relaxed: Relaxed codes of the ImgNets, [n, K] each.

    Returns:
        "distinct_codes"; "bit_imbalance", the largest |mean| of a bit (1: a constant bit); "constant_bits";
        "saturation", the mean |u| of the relaxed codes (1: they are binary).
    """
    means = codes.mean(dim=0).abs()
    return {
        "distinct_codes": len(torch.unique(pack_codes(codes), dim=0)),
        "bit_imbalance": float(means.max()),
        "constant_bits": int((means == 1).sum()),
        "saturation": float(torch.stack([u.abs().mean() for u in relaxed]).mean()),
    }


def collapse_warning(statistics: dict[str, float], label_rows: int, num_bits: int) -> str | None:
    """Say in a line what is wrong when codes collapse, None while they are healthy.

    Args:
        statistics: What `code_statistics` returned.
        label_rows: How many distinct sets of labels the images have; codes should tell these apart.
        num_bits: Code length K.
    """
    if statistics["distinct_codes"] < min(label_rows, 2 ** min(num_bits, 62)):
        return f"codes collapse: {statistics['distinct_codes']} distinct codes for {label_rows} distinct sets of labels"
    if statistics["constant_bits"] > num_bits // 2:
        return f"codes collapse: {statistics['constant_bits']} of {num_bits} bits are constant"
    return None
