"""Definition of ops that have no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def integer_op(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Define an op whose results are integers: a decorator for the function that runs where nothing native does.

    As `torch.library.custom_op`, without its step through Python for autograd at each call, which takes longer than
    searching a small database does. The fake kernel is registered with `torch.library.register_fake`. The function
    itself stays at hand as `__wrapped__`.
    """

    def define(function: Callable[..., Any]) -> Any:
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(name, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(name, "CompositeExplicitAutograd", function)
        namespace, _, op = name.partition("::")
        overload = getattr(getattr(torch.ops, namespace), op).default
        overload.__wrapped__ = function
        return overload

    return define
