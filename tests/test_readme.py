"""The README's Python examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_examples_are_found():
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("example", EXAMPLES, ids=["whole way", "kernels"])
def test_example_runs(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    if "result" in names:
        assert "nearest to the first query" in capsys.readouterr().out
        assert (tmp_path / "digits.adsq").exists()
    else:
        assert names["distances"].shape == (5, 3) and (names["distances"][:, 0] == 0).all()
