"""Batch norm while it trains, with the scales that the machine can hold.

Behind a convolution with the weights ``scale[c] * code`` a batch norm multiplies channel ``c`` by ``gain[c] / deviation[c]``. Folded, the
channel's weights have the scale ``scale[c] * gain[c] / deviation[c]``; the machine has one multiplier for a layer and a shift of 0..15
for each channel, so these numbers must be powers of two of each other. The gain is therefore not the learned one but the number next to
it that makes the product a power of two; the learned one gets the gradient (a straight-through estimator). What the machine cannot do is
so part of the training, and folding changes nothing.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tercel.sw.quantize.scheme import MAX_SHIFT

_SMALLEST = 2.0**-60
_DEAD = 2.0**-50
"""Channels of zeros have scales below, which say nothing: what is constant in such a channel has the learned gain."""
_HOLD = 0.65
"""An exponent moves only when the wanted scale is this far from its power of two, in octaves: at 0.5 it would swing to and fro."""


def nearest_exponents(wanted: Tensor, previous: Tensor | None = None) -> Tensor:
    """Exponents of the powers of two next to ``wanted`` ``[outputs]``, none more than 15 below the largest; whole numbers in float32.

    An exponent of ``previous`` stays while ``wanted`` is within ``2**-0.65 .. 2**0.65`` of its power of two.
    """
    logarithms = wanted.detach().clamp(min=_SMALLEST).log2()
    exponents = logarithms.round()
    if previous is not None:
        exponents = torch.where((logarithms - previous).abs() <= _HOLD, previous, exponents)
    return exponents.clamp(min=exponents.max() - MAX_SHIFT)


def round_bias(bias: Tensor, scales: Tensor, input_scale: Tensor) -> Tensor:
    """``bias`` ``[outputs]`` in whole units of ``input_scale * scales``, in which the machine adds it; the gradient passes straight."""
    units = (input_scale * scales.detach()).clamp(min=_SMALLEST)
    return bias + (torch.round(bias / units) * units - bias).detach()


class ShiftNorm(nn.Module):
    """A batch norm over channels (dimension 1) behind a layer with quantized weights.

    Statistics are those of ``nn.BatchNorm2d``: of the batch in training, running ones in evaluation.

    Parameters
    ----------
    weight, bias, running_mean, running_var
        ``[channels]``, to start from; None for a gain of 1 or a bias of 0 that are not learned. ``weight`` is taken without its sign.
    momentum, eps
        As in ``nn.BatchNorm2d``.
    """

    running_mean: Tensor
    running_var: Tensor
    exponents: Tensor

    def __init__(
        self, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor, *, momentum: float, eps: float
    ) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        for name, value, default in (("weight", weight, 1.0), ("bias", bias, 0.0)):
            if value is None:
                self.register_buffer(name, torch.full_like(running_mean, default))
            else:
                self.register_parameter(name, nn.Parameter((value.abs() if name == "weight" else value).detach().clone()))
        for name, value in (("running_mean", running_mean), ("running_var", running_var)):
            self.register_buffer(name, value.detach().clone())
        self.register_buffer("exponents", torch.zeros_like(running_mean))

    @property
    def factors(self) -> Tensor:
        """What the learned gain and the running variance multiply each channel by, ``[channels]``; not negative."""
        return self.get_gain().detach() / self._deviations()

    def get_gain(self) -> Tensor:
        """The learned gain ``[channels]``, without its sign."""
        assert isinstance(self.weight, Tensor)
        return self.weight.abs()

    def choose_exponents(self, scales: Tensor, *, hold: bool = True) -> None:
        """Set the folded scales to the powers of two next to ``scales * factors``; with ``hold``, those set before resist."""
        with torch.no_grad():
            self.exponents.copy_(nearest_exponents(scales * self.factors, self.exponents if hold else None))

    def forward(self, values: Tensor, scales: Tensor, input_scale: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Normalise ``values`` ``[batch, channels, ...]``, outputs of a layer.

        ``scales`` ``[channels]`` are those of its weights, ``bias`` ``[channels]`` is its own. With ``input_scale``, that of its input,
        the norm's bias is moved so that the folded one comes to whole units of the sums, which are coarse with few bits.
        """
        if self.training:
            self.choose_exponents(scales)
        learned = self.get_gain()
        gain = torch.exp2(self.exponents) * self._deviations() / scales.detach()
        gain = torch.where(scales > _DEAD, gain, learned)
        gain = learned + (gain - learned).detach()
        assert isinstance(self.bias, Tensor)
        offset = self.bias
        if input_scale is not None:
            powers, folded = self.folded(scales, torch.zeros_like(scales) if bias is None else bias)
            offset = offset + (round_bias(folded, powers, input_scale) - folded).detach().to(offset.dtype)
        return functional.batch_norm(values, self.running_mean, self.running_var, gain, offset, self.training, self.momentum, self.eps)

    def folded(self, scales: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and bias of the layer that computes the same as one with ``scales`` and ``bias`` and this norm; all ``[channels]``."""
        powers = torch.exp2(self.exponents)
        assert isinstance(self.bias, Tensor)
        factors = torch.where(scales > _DEAD, powers / scales, self.factors)
        return powers, (bias - self.running_mean).double() * factors.double() + self.bias.double()

    def _deviations(self) -> Tensor:
        return (self.running_var + self.eps).sqrt()


class ShiftScales(nn.Module):
    """Moves the scales of a layer without a batch norm to powers of two.

    Parameters
    ----------
    outputs
        Channels of the layer.
    """

    exponents: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("exponents", torch.zeros(outputs))

    @property
    def factors(self) -> Tensor:
        """What stands in for a norm's: 1 for each channel."""
        return torch.ones_like(self.exponents)

    def choose_exponents(self, scales: Tensor, *, hold: bool = True) -> None:
        """Set the powers of two next to ``scales``; with ``hold``, those set before resist."""
        with torch.no_grad():
            self.exponents.copy_(nearest_exponents(scales, self.exponents if hold else None))

    def powers(self) -> Tensor:
        """The scales ``[outputs]``."""
        return torch.exp2(self.exponents)

    def forward(self, weight: Tensor, scales: Tensor) -> Tensor:
        """``weight`` ``[outputs, ...]`` made of codes times ``scales`` as codes times powers of two; the gradient passes straight."""
        if self.training:
            self.choose_exponents(scales)
        factors = (torch.exp2(self.exponents) / scales).detach()
        return weight * factors.reshape(-1, *[1] * (weight.dim() - 1))

    def folded(self, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and bias ``[outputs]`` of the layer."""
        return torch.exp2(self.exponents), bias.double()
