"""Definition of ops without overhead, and the way of losses whose kernels make their gradients in forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def plain_op(name: str, mutates: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Define an op that autograd does not see: a decorator for the function that runs where nothing native does.

    As `torch.library.custom_op`, without its step through Python for autograd at each call, which takes longer than
    searching a small database does. The fake kernel is registered with `torch.library.register_fake`. The function
    itself stays at hand as `__wrapped__`. `mutates` names the arguments that it may write to.
    """

    def define(function: Callable[..., Any]) -> Any:
        schema = torch.library.infer_schema(function, mutates_args=mutates)
        torch.library.define(name, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(name, "CompositeExplicitAutograd", function)
        namespace, _, op = name.partition("::")
        overload = getattr(getattr(torch.ops, namespace), op).default
        overload.__wrapped__ = function
        return overload

    return define


def fused_loss(
    name: str,
    compute: Callable[..., tuple[tuple[Tensor, ...], Sequence[Tensor | None]]],
    backward: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    constants: Sequence[Tensor | None] = (),
) -> tuple[Tensor, ...]:
    """Call a kernel that makes a loss and its gradients in one pass.

    Eager calls take this way in place of the op's registered autograd, which takes several times longer than a small
    loss does, and keeps a second copy of the gradients.

    Args:
        name: The public function, for messages.
        compute: Takes inputs and constants; returns (outputs, of which the first is the loss, a gradient or None an
            input).
        backward: Multiplies gradients by the incoming one: (grad, inputs, gradients) -> gradients, whose own derivative
            raises.
        inputs: What the loss can be differentiated by.
        constants: Other tensors it depends on, or None.

    Returns:
        The outputs.
    """
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"{name} does not run under torch.func: use the reference of the same name, plain differentiable PyTorch"
        )
    outputs: Any = _FusedLoss.apply(compute, backward, len(inputs), *inputs, *constants)
    return outputs


class _FusedLoss(torch.autograd.Function):
    """Hands the gradients of the forward pass out once; going back through a graph a second time makes them again."""

    @staticmethod
    def forward(ctx: Any, compute: Any, backward: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            outputs, ctx.gradients = compute(*tensors)
        ctx.compute, ctx.backward_op = compute, backward
        ctx.dtypes = [x.dtype for x in tensors[:count] if x is not None]
        ctx.save_for_backward(*tensors)
        if len(outputs) > 1:
            ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Any, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # saved tensors refuse what was changed in place, or a graph that is gone
            with torch._C._AutoDispatchBelowAutograd():
                gradients = ctx.compute(*ctx.saved_tensors)[1]
        wanted = [i for i, gradient in enumerate(gradients) if gradient is not None]
        made = [gradients[i] for i in wanted]
        if torch.is_grad_enabled():  # create_graph: the derivative of `backward` says that there is none
            made = ctx.backward_op(grad, [ctx.saved_tensors[i] for i in wanted], made)
        elif type(grad) is not Tensor or not grad.is_cpu or grad.item() != 1:  # a tensor that is traced has no value
            torch._foreach_mul_(made, grad)
        result: list[Any] = [None] * len(ctx.needs_input_grad)
        for i, gradient in zip(wanted, made, strict=True):
            dtype = ctx.dtypes[i]
            result[3 + i] = gradient if gradient.dtype is dtype else gradient.to(dtype)
        return tuple(result)
