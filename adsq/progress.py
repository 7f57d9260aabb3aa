"""Progress bars, shown on the error stream where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from adsq.training import Trainer

console = Console(stderr=True)


def _bar(*columns: TextColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def training_bar(trainer: Trainer) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Show a bar with the terms of the loss, images/s and the time left; yields `after_step` for `Trainer.fit`."""
    total = trainer.config.epochs * trainer.steps_per_epoch
    with _bar(TextColumn("{task.fields[numbers]}")) as bar:
        task = bar.add_task("training", total=total, completed=trainer.epoch * trainer.steps_per_epoch, numbers="")

        def after_step(step: int, terms: dict[str, float]) -> None:
            speed = bar.tasks[task].speed
            rate = f"{speed * trainer.config.batch_size:,.0f} images/s " if speed else ""
            losses = " ".join(
                f"{name.replace('_', ' ')} {value:.3f}" for name, value in terms.items() if name[0] == "f"
            )
            epoch = min(trainer.epoch + 1, trainer.config.epochs)
            description = f"epoch {epoch}/{trainer.config.epochs}"
            bar.update(task, completed=step, description=description, numbers=f"{rate}[dim]{losses}[/dim]")

        yield after_step


def encoding_bar(description: str, batches: int) -> Callable[[Iterator[Tensor]], Iterator[Tensor]]:
    """Return a wrapper of an iterator over batches that shows a bar."""

    def wrap(steps: Iterator[Tensor]) -> Iterator[Tensor]:
        with _bar() as bar:
            yield from bar.track(steps, total=batches, description=description)

    return wrap
