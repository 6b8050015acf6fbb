"""The authors' published code on small random models: our code gives its numbers."""

import pytest

from tests.conftest import GOLDEN
from tests.tools import check_golden


@pytest.mark.parametrize("part", check_golden.CHECKS)
def test_fixtures(part, capsys):
    assert check_golden.main([str(GOLDEN), "--only", part]) == 0, capsys.readouterr().out
