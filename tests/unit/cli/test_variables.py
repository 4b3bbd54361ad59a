"""Variables that are set for a block only."""

from __future__ import annotations

import os

import pytest

from distill.processes.variables import variable

NAME = "PAIRDISTILL_TEST_VARIABLE"


@pytest.mark.parametrize("before", [None, "", "before"])
def test_a_variable_is_as_before_whatever_happens_in_the_block(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv(NAME, raising=False)
    if before is not None:
        monkeypatch.setenv(NAME, before)
    with pytest.raises(KeyError), variable(NAME, "within"):
        assert os.environ[NAME] == "within"
        raise KeyError
    assert os.environ.get(NAME) == before
