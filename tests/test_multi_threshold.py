"""The operator that counts thresholds, by itself and in captured programs."""

import io

import pytest
import torch
from torch import Tensor, nn

from tercel.sw.multi_threshold import multi_threshold


def test_counts_per_tensor_and_per_channel() -> None:
    x = torch.tensor([[0.0, 1.0, 2.0], [1.5, -1.0, 0.5]])
    assert multi_threshold(x, torch.tensor([0.5, 1.0])).tolist() == [[0, 1, 2], [2, 0, 0]]
    table = torch.tensor([[0.0, 1.0], [-2.0, float("inf")], [0.5, -float("inf")]])
    codes = multi_threshold(x, table)
    assert codes.dtype == torch.uint8
    assert codes.tolist() == [[0, 1, 2], [2, 1, 1]]


def test_a_value_on_a_threshold_does_not_pass_it() -> None:
    assert multi_threshold(torch.full((1, 1), 0.25), torch.tensor([0.25])).item() == 0


@pytest.mark.parametrize(
    ("x", "thresholds", "text"),
    [
        (torch.zeros(4), torch.zeros(3), r"x must have at least 2 dimensions, not 1 \(batch and channels come first\)"),
        (torch.zeros(1, 4, 2, 2), torch.zeros(16), r"thresholds must be of shape \(1..15,\) or \(4, 1..15\), not \(16,\) "),
        (torch.zeros(1, 4, 2, 2), torch.zeros(3, 5), r"thresholds must be of shape \(1..15,\) or \(4, 1..15\), not \(3, 5\) \(one row a "),
        (torch.zeros(1, 4), torch.zeros(1, 4, 1), r"thresholds must be of shape \(1..15,\) or \(4, 1..15\), not \(1, 4, 1\) "),
    ],
)
def test_shapes_are_checked(x: Tensor, thresholds: Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        multi_threshold(x, thresholds)


def test_a_program_with_it_is_captured_saved_and_loaded() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.tensor([[0.1, 0.2], [0.3, 0.4]]))

        def forward(self, x: Tensor) -> Tensor:
            assert isinstance(self.table, Tensor)
            return multi_threshold(x, self.table).float()

    torch.library.opcheck(multi_threshold, (torch.randn(2, 2, 3), torch.randn(2, 5)))
    x = torch.rand(3, 2, 4, 4)
    program = torch.export.export(Counts(), (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    torch.testing.assert_close(loaded.module()(x[:2]), Counts()(x[:2]))
