"""A PReLU with learned shifts before and after."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class RPReLU(nn.Module):
    """``prelu(x + shift_in) + shift_out``, all of them learned for each channel.

    Slopes below zero are taken as 0, so that the function never falls: then it and the thresholds behind it become thresholds on whole
    numbers.

    Parameters
    ----------
    channels
        Of the input, ``[batch, channels, height, width]``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_in = nn.Parameter(torch.zeros(channels, 1, 1))
        self.slope = nn.Parameter(torch.full((channels,), 0.25))
        self.shift_out = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return functional.prelu(x + self.shift_in, self.slope.clamp(min=0)) + self.shift_out
