"""What a training step of ADSQ costs, and what the fused losses save: a part of bench/study/README.md.

    PYTHONPATH=bench python bench/study/training_step.py --root FOLDER_OF_IDX_FILES

Trains as fashion_mnist.py does, and changes every few steps between the fused kernels and the same losses as blocked
PyTorch, so that both see the same machine. Then the profiler tells where the time of a step goes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch
from blocked import blocked_pytorch
from fashion_mnist import BITS, STEP, machine
from torch.profiler import ProfilerActivity, profile

from adsq import data
from adsq.files import write_text
from adsq.networks import ADSQ, ModelConfig
from adsq.objective import ObjectiveConfig
from adsq.training import Trainer, TrainingConfig

TURN = 6  # steps between two changes; the first of them is not counted
# Part of a step -> what the names of its operators hold; the first that fits counts.
PARTS = {
    "losses (adsq)": ("adsq::", "_FusedLoss"),
    "convolutions": ("convolution",),
    "pooling": ("max_pool",),
    "batch norm": ("batch_norm",),
    "linear layers": ("addmm", "aten::mm"),
    "optimizer": ("adam", "Adam"),
    "indexing": ("index",),
    "activations": ("threshold", "clamp_min", "relu", "tanh"),
    "filling and copying": ("fill_", "copy", "empty", "zero"),
}


def make_trainer(root: Path, epochs: int) -> Trainer:
    """Return the trainer of the study."""
    dataset = data.load("fashion-mnist", root=root)
    split = data.make_split(dataset, "fashion-mnist-100-500", 0)
    torch.manual_seed(0)
    model = ADSQ(ModelConfig(BITS, dataset.num_classes, dataset.image_shape))
    config = TrainingConfig.default(ObjectiveConfig.name, epochs=epochs)
    return Trainer(model, dataset, split.training, ObjectiveConfig(), config)


def step_times(root: Path, epochs: int) -> dict[str, list[float]]:
    """Return the seconds of steps with the fused kernels, and with blocked PyTorch."""
    seconds: dict[str, list[float]] = defaultdict(list)
    clock = [time.perf_counter()]
    blocked = blocked_pytorch()

    def after_step(step: int, terms: dict[str, float]) -> None:
        nonlocal blocked
        now = time.perf_counter()
        turn, place = divmod(step - 1, TURN)
        if place > 0:
            seconds["blocked PyTorch" if turn % 2 else "fused kernels"].append(now - clock[0])
        if place == TURN - 1:
            if turn % 2:
                blocked.__exit__(None, None, None)
            else:
                blocked = blocked_pytorch()
                blocked.__enter__()
        clock[0] = time.perf_counter()

    try:
        make_trainer(root, epochs).fit(after_step=after_step)
    finally:
        blocked.__exit__(None, None, None)
    return seconds


def shares(root: Path) -> dict[str, float]:
    """Return which share of the time within operators each part takes, by the profiler, over 50 steps."""
    trainer = make_trainer(root, 2)
    profiler = profile(activities=[ProfilerActivity.CPU])

    def after_step(step: int, terms: dict[str, float]) -> None:
        if step == trainer.steps_per_epoch + 10:  # not in the first epoch
            profiler.start()
        if step == trainer.steps_per_epoch + 60:
            profiler.stop()

    trainer.fit(after_step=after_step)
    found: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        part = next((part for part, names in PARTS.items() if any(name in event.key for name in names)), "others")
        found[part] += event.self_cpu_time_total
    return {part: time / sum(found.values()) for part, time in found.items()}


def main() -> None:
    """Measure, and write the record that fashion_mnist.py makes its README from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the idx files")
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds = step_times(arguments.root, arguments.epochs)
    record = {
        "machine": machine(),
        "milliseconds": {name: round(1e3 * statistics.median(times), 2) for name, times in seconds.items()},
        "quartiles": {
            name: [round(1e3 * q, 2) for q in statistics.quantiles(times, n=4)[::2]] for name, times in seconds.items()
        },
        "shares": {name: round(share, 3) for name, share in shares(arguments.root).items()},
    }
    STEP.parent.mkdir(exist_ok=True)
    write_text(STEP, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
