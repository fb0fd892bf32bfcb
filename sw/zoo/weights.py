"""Trained parameters from files into a network, whatever published form they are in. Importing this does not import torch."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".pth", ".pt", ".safetensors")
_SHOWN = 3
_COUNTER = ".num_batches_tracked"
_GRID = ".weight_scale"


class WeightsError(ValueError):
    """A file that cannot be read or does not fit the network. The message names the file, what differs and a way out."""


def load_weights(model: "nn.Module", path: str | Path) -> None:
    """Fill ``model`` with the tensors of a ``.pth``, ``.pt`` or ``.safetensors`` file.

    The file may hold batch norms already folded (a convolution's weight and bias; the network's own batch norm then becomes the
    identity that adds the bias), 8-bit codes with one scale per output channel (``<layer>.weight`` and ``<layer>.weight_scale``),
    MobileNet V1 under Keras's layer names, or tensors below one key ``state_dict`` or ``model`` or one prefix ``module.``.

    Raises :class:`WeightsError` for another kind of file, for values that are NaN or infinite, and for names or shapes that differ from
    the network's: one error with all counts and the first of each. ``model`` is unchanged then.
    """
    import torch

    path = Path(path)
    tensors = read_tensors(path)
    for convert in (_without_prefix, _from_grid, _from_keras):
        tensors = convert(tensors)
    tensors = _with_identity_norms(tensors, model)
    expected = model.state_dict()
    tensors.update({name: value for name, value in expected.items() if name.endswith(_COUNTER) and name not in tensors})
    _check_names(path, tensors, expected)
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            raise WeightsError(f"{path.name}: {name} has {count} of {value.numel()} values NaN or infinite (train or export it again)")
    model.load_state_dict(tensors)


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """All tensors of a file by name. Raises :class:`WeightsError` for a file that is not a flat collection of tensors."""
    import safetensors
    import safetensors.torch
    import torch

    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path.name}: weights must be one of {', '.join(SUFFIXES)} (save model.state_dict() with torch.save)")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file (give the path of the weights)")
    try:
        held = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path.name}: not a whole safetensors file: {error} (download or save it again)") from None
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:120]
        raise WeightsError(f"{path.name}: cannot be read as tensors: {reason} (save model.state_dict(), not the module)") from None
    for key in ("state_dict", "model"):
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
    if not isinstance(held, dict) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise WeightsError(f"{path.name}: holds no plain dictionary of tensors (save model.state_dict())")
    return dict(held)


def _without_prefix(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Drop the ``module.`` that data-parallel training puts before every name."""
    if tensors and all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _from_grid(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Codes times scales where a file holds 8-bit codes."""
    result = {}
    for name, value in tensors.items():
        if name.endswith(_GRID):
            continue
        scale = tensors.get(name.removesuffix(".weight") + _GRID) if name.endswith(".weight") else None
        result[name] = value if scale is None else value.float() * scale.reshape(-1, *[1] * (value.dim() - 1))
    return result


def _from_keras(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """MobileNet V1's names in Keras (``conv_dw_3_bn.weight``) to the zoo's (``features.3.conv.0.1.weight``)."""
    if "conv_preds.weight" not in tensors:
        return tensors
    result = {}
    for name, value in tensors.items():
        layer, _, parameter = name.rpartition(".")
        found = re.fullmatch(r"conv(?:_(dw|pw)_(\d+)|1)(_bn)?", layer)
        if found:
            kind, number, norm = found.groups()
            stem = "features.0" if kind is None else f"features.{number}.conv.{0 if kind == 'dw' else 1}"
            layer = f"{stem}.{1 if norm else 0}"
        elif layer == "conv_preds":
            layer = "classifier.1"
        result[f"{layer}.{parameter}"] = value.flatten(1) if layer == "classifier.1" and value.dim() == 4 else value
    return result


def _with_identity_norms(tensors: "dict[str, Tensor]", model: "nn.Module") -> "dict[str, Tensor]":
    """Where a file has a bias for a convolution that has none here, move it into the batch norm that follows, an identity otherwise.

    The variance is 1 - eps, so that the square root of variance + eps is 1 to the last bit and folding gives back the file's weights.
    """
    import torch
    from torch import nn

    result = dict(tensors)
    conv: tuple[str, nn.Conv2d] | None = None
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and conv is not None:
            bias = f"{conv[0]}.bias"
            if bias in tensors and conv[1].bias is None and f"{name}.running_var" not in tensors:
                shift = result.pop(bias)
                result[f"{name}.weight"] = torch.ones_like(shift)
                result[f"{name}.bias"] = shift
                result[f"{name}.running_mean"] = torch.zeros_like(shift)
                result[f"{name}.running_var"] = torch.full_like(shift, 1 - module.eps)
        if isinstance(module, nn.Conv2d):
            conv = (name, module)
        elif not list(module.children()):
            conv = None
    return result


def _check_names(path: Path, tensors: "dict[str, Tensor]", expected: "dict[str, Tensor]") -> None:
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    shaped = [
        f"{name} is {tuple(value.shape)}, not {tuple(expected[name].shape)}"
        for name, value in tensors.items()
        if name in expected and value.shape != expected[name].shape
    ]
    problems = [_listed(kind, names) for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shaped))]
    if any(problems):
        way_out = "build the network with the width and classes of the weights" if shaped else "choose the network that the weights are of"
        raise WeightsError(f"{path.name} does not fit the network: {'; '.join(filter(None, problems))} ({way_out})")


def _listed(kind: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}" if names else ""
