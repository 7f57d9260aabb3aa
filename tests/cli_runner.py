"""Runs commands of the command line in the process of a test."""

from __future__ import annotations

import re

from typer.testing import CliRunner

from adsq.cli import app


def adsq(*arguments: object, code: int = 0) -> str:
    """Run a command and return what it printed: all of it, or its errors where it is to fail."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return re.sub(r"\s+", " ", result.stderr if code == 1 else result.output)
