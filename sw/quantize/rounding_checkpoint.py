"""Finished blocks of a run that learns rounding, in a folder: an interrupted run goes on behind the last of them.

``run.json`` says what the run is about; ``block-<number>.safetensors`` hold weights, their scales and biases of one block each.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.quantize.prepared_graph import WeightedLayer

_DESCRIPTION = "run.json"
_TOLERANCE = 0.02
"""Of activation scales; their ends are found in steps of 1/64."""


def digest(tensors: Iterable[Tensor]) -> str:
    """Of values and shapes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def _same(one: object, other: object) -> bool:
    """Equal, or lists of numbers that are nearly: another number of threads sums in another order."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other) and all(isinstance(x, float) for x in (*one, *other)):
        return all(math.isclose(first, second, rel_tol=_TOLERANCE) for first, second in zip(one, other, strict=True))
    return one == other


def describe(layers: Sequence[WeightedLayer], images: Sequence[Tensor], *, steps: int) -> dict[str, object]:
    """All that the learned rounding depends on, by what a user calls it. Weight scales must be chosen."""
    observers = [layer.weight_observer for layer in layers]
    return {
        "model": digest([tensor for layer in layers for tensor in (layer.weight, layer.bias)]),
        "calibration": digest(images),
        "scheme": sorted({watched.scheme.name for watched in observers}),
        "bits": [watched.bits for watched in observers],
        "weight scales": digest([watched.calculate_qparams()[0] for watched in observers]),
        "activation scales": [layer.activation.scale_and_zero_point[0] for layer in layers],
        "rounding_steps": steps,
    }


class RoundingCheckpoint:
    """A folder of finished blocks.

    Parameters
    ----------
    folder
        Made if it is missing.
    description
        Of the run, from :func:`describe`.

    Raises :class:`~tercel.sw.quantize.errors.QuantizeError` for a folder that holds another run or cannot be written.
    """

    def __init__(self, folder: Path, description: Mapping[str, object]) -> None:
        self._folder = folder
        path = folder / _DESCRIPTION
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):
                _write_text(path, json.dumps(description))
            text = path.read_text() if path.is_file() else None
        except OSError as error:
            raise QuantizeError(f"checkpoint {folder} cannot be read and written: {error.strerror} (give another folder)") from error
        if text is None:
            raise QuantizeError(f"checkpoint {folder} must be a new folder or hold learned rounding, but holds other files "
                                "(give another folder)")  # fmt: skip
        try:
            stored = json.loads(text)
        except ValueError:
            raise QuantizeError(f"checkpoint {folder} is damaged: {_DESCRIPTION} is not JSON (delete the folder)") from None
        known = stored if isinstance(stored, dict) else {}
        other = [name for name, value in description.items() if not _same(known.get(name), value)]
        if other:
            raise QuantizeError(f"checkpoint {folder} is of another run: {', '.join(other)} differ (give another folder, or delete it)")

    def _path(self, number: int) -> Path:
        return self._folder / f"block-{number:03d}.safetensors"

    def save(self, number: int, layers: Sequence[WeightedLayer]) -> None:
        """Write a block's layers; the file is there when it is complete."""
        tensors = {}
        for index, layer in enumerate(layers):
            scales = layer.weight_observer.calculate_qparams()[0]
            for name, value in (("weight", layer.weight), ("scales", scales), ("bias", layer.bias)):
                tensors[f"{index}.{name}"] = value.contiguous()
        partial = self._path(number).with_suffix(".partial")
        save_file(tensors, partial)
        partial.replace(self._path(number))

    def load(self, number: int, layers: Sequence[WeightedLayer]) -> bool:
        """Give a block's layers what was written for them; False if the block was not finished.

        Raises :class:`~tercel.sw.quantize.errors.QuantizeError` for a damaged file.
        """
        path = self._path(number)
        if not path.is_file():
            return False
        try:
            tensors = load_file(path)
            for index, layer in enumerate(layers):
                layer.replace_weight(tensors[f"{index}.weight"].reshape(layer.weight.shape))
                layer.weight_observer.replace(tensors[f"{index}.scales"].reshape(layer.bias.shape))
                layer.replace_bias(tensors[f"{index}.bias"].reshape(layer.bias.shape))
        except (SafetensorError, KeyError, RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise QuantizeError(f"checkpoint {path} is damaged: {reason} (delete the file, its block is learned again)") from error
        return True


def _write_text(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
