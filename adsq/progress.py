"""Progress bars, shown on the error stream where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from adsq.distributed import rank
from adsq.training import Trainer

console = Console(stderr=True)


class _Bar(Progress):
    """A bar, and a line of text under it that may be as wide as the terminal."""

    line = ""

    def __init__(self, *columns: TextColumn) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            *columns,
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal or rank() > 0,
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        """Return the bar and the line."""
        yield self.make_tasks_table(self.tasks)
        if self.line:
            yield Text(self.line, style="dim", no_wrap=True, overflow="ellipsis")


@contextmanager
def training_bar(trainer: Trainer) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Show a bar with images/s, the time left and the terms of the loss; yields `after_step` for `Trainer.fit`."""
    total = trainer.config.epochs * trainer.steps_per_epoch
    with _Bar(TextColumn("{task.fields[rate]}")) as bar:
        task = bar.add_task("training", total=total, completed=trainer.epoch * trainer.steps_per_epoch, rate="")

        def after_step(step: int, terms: dict[str, float]) -> None:
            speed = bar.tasks[task].speed
            of_f = (
                f"{name[2:].removesuffix('_guidance')} {value:.2f}" for name, value in terms.items() if name[:2] == "f_"
            )
            bar.line = f"loss {sum(terms.values()):.3f}  F: {', '.join(of_f)}" if terms else ""
            epoch = min(trainer.epoch + 1, trainer.config.epochs)
            rate = f"{speed * trainer.config.batch_size:,.0f} images/s" if speed else ""
            bar.update(task, completed=step, description=f"epoch {epoch}/{trainer.config.epochs}", rate=rate)

        yield after_step


@contextmanager
def row_bar(description: str, rows: int) -> Iterator[Callable[[int], None]]:
    """Show a bar; yields a function that is told how many rows are done."""
    with _Bar() as bar:
        task = bar.add_task(description, total=rows)
        yield lambda done: bar.update(task, completed=done)


def batch_bar(description: str, batches: int) -> Callable[[Iterator[Tensor]], Iterator[Tensor]]:
    """Return a wrapper of an iterator over batches that shows a bar."""

    def wrap(steps: Iterator[Tensor]) -> Iterator[Tensor]:
        with _Bar() as bar:
            yield from bar.track(steps, total=batches, description=description)

    return wrap
