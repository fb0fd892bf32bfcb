"""One row of the table of trained networks: train, convert, count what the integers get right."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import tercel
from benchmarks.training_methods import Method
from benchmarks.training_sizes import SIZES, Images, Size
from tercel.hw.config import BASE
from tercel.sim.tensors import input_codes
from tercel.sw.graph.reference import run_reference
from tercel.sw.image_format import ImageFormat
from tercel.sw.images import normalize
from tercel.sw.importer import import_exported
from tercel.sw.training import learned_bits, parameter_groups, regularizer, settle_bits, zero_shares
from tercel.sw.zoo.network import ImageNetwork

_BATCH = 64
_FLOAT_RATE, _RATE = 4e-3, 2e-3
_DECAY = 1e-4
_WIDTH_PENALTY = 1e-2
"""Of a level of a layer, in units of the cross-entropy."""
_CALIBRATION = 128
_EXAMPLE = 64
_AT_ONCE = 250
"""Images that are counted at a time."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Everything that a row's figure depends on."""

    size: str
    network: str
    method: str
    seed: int
    code: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finished measurement.

    Attributes
    ----------
    correct, total
        Test images that the integer network, or the float one, gets right, and all.
    prepared
        Those that the network with rounding modules got right before it was converted; None where there was none.
    bits
        Mean width of the weights in inner layers.
    zeros
        Share of weights that are zero, in inner layers.
    widths
        Bits of each layer that training left.
    seconds
        Time of one core.
    """

    identity: Identity
    correct: int
    total: int
    prepared: int | None = None
    bits: float = 32.0
    zeros: float = 0.0
    widths: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def make_network(identity: Identity) -> ImageNetwork:
    """A network with its seed's first parameters."""
    size = SIZES[identity.size]
    torch.manual_seed(identity.seed)
    return size.networks[identity.network](size.image_format)


def tensors(images: np.ndarray[Any, np.dtype[np.uint8]], *, image_format: ImageFormat) -> Tensor:
    """Normalized images ``[n, channels, height, width]`` of ``[n, height, width]`` or ``[n, height, width, channels]``."""
    return torch.from_numpy(normalize(images if images.ndim == 4 else images[..., None], image_format=image_format))


def train(model: nn.Module, data: tuple[Tensor, Tensor], *, epochs: int, lr: float, seed: int, penalty: float = 0.0) -> None:
    """Fit a network with Adam at a rate that falls as a cosine; images are mirrored at random.

    With a ``penalty`` for widths these are learned in the first half.
    """
    images, labels = data
    random = torch.Generator().manual_seed(seed)
    steps = len(labels) // _BATCH
    groups = parameter_groups(model, lr=lr, weight_decay=_DECAY)
    optimizer = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=epochs * steps, pct_start=0.1)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=random)
        for step in range(steps):
            if penalty and 2 * (epoch * steps + step) >= epochs * steps:
                settle_bits(model)
                penalty = 0.0
            chosen = order[step * _BATCH : (step + 1) * _BATCH]
            mirrored = torch.rand(_BATCH, 1, 1, 1, generator=random) < 0.5
            batch = images[chosen]
            loss = functional.cross_entropy(model(torch.where(mirrored, batch.flip(3), batch)), labels[chosen])
            if penalty:
                loss = loss + penalty * regularizer(model)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def count_float(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Images that a network in floating point gets right."""
    model.eval()
    found = [model(images[start : start + _AT_ONCE]).argmax(1) for start in range(0, len(labels), _AT_ONCE)]
    return int((torch.cat(found) == labels).sum())


def count_integers(program: torch.export.ExportedProgram, images: Tensor, labels: Tensor) -> int:
    """Images that the integers of the machine get right; of equal outputs the first counts."""
    graph = import_exported(program, config=BASE).graph
    right = 0
    for start in range(0, len(labels), _AT_ONCE):
        codes = run_reference(graph, input_codes(graph, images[start : start + _AT_ONCE].numpy()))[graph.outputs[0]]
        predicted = codes.reshape(len(codes), -1).argmax(axis=1)
        right += int((predicted == labels[start : start + _AT_ONCE].numpy()).sum())
    return right


def layer_patterns(model: nn.Module, *, bits: int) -> dict[str, int]:
    """Widths of all layers with weights: 8 for the first, the last and depthwise ones."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    edges = (next(iter(layers)), next(reversed(layers)))
    return {name: 8 if name in edges or (isinstance(module, nn.Conv2d) and module.groups > 1) else bits for name, module in layers.items()}


def spread_bits(widths: Mapping[str, int], *, average: float, sizes: Mapping[str, int]) -> dict[str, int]:
    """Widths that differ by one bit at most, and whose mean over the weights is nearest to ``average``: wider ones in front.

    ``widths`` names the layers; those of 8 bits keep them.
    """
    inner = [name for name, width in widths.items() if width < 8]
    total = sum(sizes[name] for name in inner)
    low = int(average)
    spread = dict(widths) | dict.fromkeys(inner, low)
    missing = (average - low) * total
    for name in inner:
        if sizes[name] > 2 * missing:
            break
        spread[name] = low + 1
        missing -= sizes[name]
    return spread


def mean_bits(widths: Mapping[str, int], *, inner: Mapping[str, int], sizes: Mapping[str, int]) -> float:
    """Mean width over the weights of the layers that ``inner`` gives less than 8 bits."""
    names = [name for name, width in inner.items() if width < 8]
    return sum(widths[name] * sizes[name] for name in names) / sum(sizes[name] for name in names)


def measure_row(identity: Identity, method: Method, *, data: Path | None, folder: Path, like: Row | None = None) -> Row:
    """One row. The float network of the same seed is read from ``folder``, where its own row leaves it."""
    torch.set_num_threads(1)
    size = SIZES[identity.size]
    images = size.read(data)
    started = time.process_time()
    row = _measure(identity, method, size, images, folder=folder, like=like)
    return Row(**{**vars(row), "seconds": time.process_time() - started})


def float_file(identity: Identity, folder: Path) -> Path:
    """Where the float network of a row's network and seed lies."""
    return folder / f"{identity.size}-{identity.network}-{identity.seed}-{identity.code}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Data:
    """Normalized images ``[n, channels, height, width]`` and classes ``[n]``."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def normalized_data(size: Size, images: Images) -> Data:
    """What a size trains on, shuffled once, and all that it tests on."""
    order = np.random.default_rng(0).permutation(len(images.train))[: size.images]
    return Data(
        train=tensors(images.train[order], image_format=size.image_format),
        train_labels=torch.from_numpy(images.train_labels[order].astype(np.int64)),
        test=tensors(images.test, image_format=size.image_format),
        test_labels=torch.from_numpy(images.test_labels.astype(np.int64)),
    )


def train_float(identity: Identity, data: Data, *, file: Path) -> ImageNetwork:
    """The float network of a row's seed, trained, and left in ``file``."""
    model = make_network(identity)
    train(model, (data.train, data.train_labels), epochs=SIZES[identity.size].float_epochs, lr=_FLOAT_RATE, seed=identity.seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    return model


def read_float(identity: Identity, *, file: Path) -> ImageNetwork:
    """What :func:`train_float` left."""
    model = make_network(identity)
    model.load_state_dict(load_file(file))
    model.eval()
    return model


def train_rounded(identity: Identity, method: Method, model: ImageNetwork, data: Data, *, widths: Mapping[str, int]) -> nn.Module:
    """``model`` with the modules of a training method, trained further."""
    prepared = tercel.prepare(model, example=data.train[:_EXAMPLE], scheme=method.training_scheme(), bits=widths)
    penalty = _WIDTH_PENALTY if method.scheme == "cpq_dropbits" else 0.0
    torch.manual_seed(identity.seed)
    epochs = SIZES[identity.size].epochs
    train(prepared, (data.train, data.train_labels), epochs=epochs, lr=_RATE, seed=identity.seed, penalty=penalty)
    return prepared


def _measure(identity: Identity, method: Method, size: Size, images: Images, *, folder: Path, like: Row | None) -> Row:
    data, file = normalized_data(size, images), float_file(identity, folder)
    test = data.test, data.test_labels
    if method.way == "float":
        return Row(identity=identity, correct=count_float(train_float(identity, data, file=file), *test), total=len(test[1]))
    model = read_float(identity, file=file)
    widths = layer_patterns(model, bits=method.bits)
    sizes = {name: module.weight.numel() for name, module in model.named_modules() if name in widths}
    if method.way != "training":
        return _after_training(identity, method, model, data.train, test, widths=widths)
    trained_widths = widths if like is None else spread_bits(widths, average=like.bits, sizes=sizes)
    prepared = train_rounded(identity, method, model, data, widths=trained_widths)
    final = learned_bits(prepared)
    zeros = zero_shares(prepared)
    inner = [name for name, width in widths.items() if width < 8]
    return Row(
        identity=identity,
        correct=count_integers(tercel.convert(prepared), *test),
        total=len(test[1]),
        prepared=count_float(prepared, *test),
        bits=mean_bits(final, inner=widths, sizes=sizes),
        zeros=sum(zeros[name] * sizes[name] for name in inner) / sum(sizes[name] for name in inner),
        widths={name: final[name] for name in inner},
    )


def _after_training(
    identity: Identity, method: Method, model: ImageNetwork, x: Tensor, test: tuple[Tensor, Tensor], *, widths: dict[str, int]
) -> Row:
    """Quantized without training: from the running statistics of batch norms alone, or from some images."""
    # A shortcut that widens is a convolution with ones, which ternary weights would weaken.
    patterns = widths | {name: 8 for name, _ in model.named_modules() if name.endswith("shortcut")}
    free: dict[str, Any] = {"calibration": None, "example": x[:1], "input_range": model.image_format.range}
    seen = free if method.way == "data-free" else {"calibration": x[:_CALIBRATION]}
    program = tercel.quantize(model, scheme=method.scheme, bits=patterns, **seen)
    return Row(identity=identity, correct=count_integers(program, *test), total=len(test[1]), bits=float(method.bits))
