"""What a run is refused before it trains."""

from __future__ import annotations

import pytest
import torch
from command_line import refused
from run_processes import fit

from experiments.cli import main


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_precision_of_matrix_products_is_a_setting(precision, tmp_path):
    before = torch.get_float32_matmul_precision()
    main(["check", *fit(tmp_path / "a", matmul_precision=precision)[1:]])
    assert torch.get_float32_matmul_precision() == precision
    torch.set_float32_matmul_precision(before)


def test_an_unknown_precision_of_matrix_products_is_refused(tmp_path, capsys):
    line = refused(capsys, *fit(tmp_path / "a", matmul_precision="tf32"))
    assert "matmul_precision: got tf32, allowed: one of highest, high, medium" in line
