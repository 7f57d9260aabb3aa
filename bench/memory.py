"""Memory that a call takes on the CPU."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_extra_memory(function: Callable[[], object]) -> int:
    """Return the most bytes that one call of `function` holds at a time beyond what was there before.

    All that goes through PyTorch's CPU allocator counts: results while they are held, and tensors that C++ code makes.
    Not counted is what C++ code allocates for itself: in adsq, kilobytes for a call.
    """
    function()  # what is made once and kept, such as compiled code, is not counted
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        kept = function()
    del kept
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
