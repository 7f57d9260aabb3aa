"""What all commands of `adsq.cli` share: how they are registered, print, and end in an error of one line."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

app = typer.Typer(
    help="Learn and search binary codes of images.",
    epilog="Exit codes: 0 done, 1 input or machine not as needed, 2 wrong use, 3 a defect of adsq, 130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out, err = Console(), Console(stderr=True)

_debug = False
_several = int(os.environ.get("WORLD_SIZE", "1")) > 1
_rank = int(os.environ.get("RANK", "0")) if _several else 0
# Under torchrun the end of a process ends the others. What all find is said by rank 0 while the others wait so long;
# what another finds is said by it, after as long, while those that only lost touch with it wait twice as long.
_SECONDS = 3.0


def command(example: str, together: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose help ends with an example and whose errors are one line.

    Under `torchrun` all processes run it, `together`, or rank 0 alone does.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> None:
            if _rank > 0 and not together:
                return
            out.quiet = _rank > 0
            try:
                function(*args, **options)
            except KeyboardInterrupt:
                if _rank == 0:
                    err.print("stopped; files written so far are whole")
                raise typer.Exit(130) from None
            except (ValueError, OSError, ArithmeticError, ImportError, NotImplementedError) as error:
                if _rank > 0:
                    time.sleep(_SECONDS)
                if _debug:
                    raise
                _say("error", str(error))
                raise typer.Exit(1) from None
            except Exception as error:
                if isinstance(error, typer.Exit):
                    raise
                if _several:  # as likely as not, another process has ended
                    time.sleep(2 * _SECONDS)
                if _debug:
                    raise
                _say("defect", f"{type(error).__name__}: {error}")
                err.print("Please report it with the traceback that --debug shows.")
                raise typer.Exit(3) from None

        return app.command(epilog=f"Example: {example}")(run)

    return register


def _say(kind: str, text: str) -> None:
    of_rank = f"rank {_rank}: " if _rank > 0 else ""
    err.print(f"[red]{kind}:[/red] {of_rank}{escape(text)}", soft_wrap=True)


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    global _debug
    _debug = debug
