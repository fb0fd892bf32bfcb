"""One row of the accuracy table: quantize, import, run the integers on every image."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from benchmarks.checkpoints import Samples
from benchmarks.results import Identity, Row
from tercel.hw.config import Config
from tercel.sim.tensors import input_codes
from tercel.sw.graph.integer_graph import IntegerGraph
from tercel.sw.graph.reference import run_reference
from tercel.sw.images import normalize
from tercel.sw.importer import import_exported
from tercel.sw.quantize import Rounding, quantize
from tercel.sw.zoo.network import ImageNetwork

Progress = Callable[[str, int, int], None]
_Batch = npt.NDArray[np.uint8]


def float_row(identity: Identity, model: ImageNetwork, samples: Samples, *, batch: int, threads: int, progress: Progress) -> Row:
    """The network as it was trained, in float32."""
    started = time.perf_counter()
    outputs = float_outputs(model, samples, batch=batch, threads=threads, progress=progress)
    return _row(identity, outputs, samples, quantize_seconds=0.0, run_seconds=time.perf_counter() - started)


def float_outputs(model: ImageNetwork, samples: Samples, *, batch: int, threads: int, progress: Progress) -> npt.NDArray[np.float32]:
    """Outputs ``[images, classes]`` of the network as it was trained."""
    torch.set_num_threads(threads)
    outputs = []
    with torch.no_grad():
        for start in range(0, len(samples.labels), batch):
            images = normalize(samples.images[start : start + batch], image_format=model.image_format)
            outputs.append(model(torch.from_numpy(images)).numpy())
            progress("images", min(start + batch, len(samples.labels)), len(samples.labels))
    return np.concatenate(outputs)


def integer_row(
    identity: Identity,
    model: ImageNetwork,
    samples: Samples,
    *,
    calibration: Samples | None,
    config: Config,
    batch: int,
    threads: int,
    checkpoint: Path | None,
    progress: Progress,
    plain: npt.NDArray[np.float32] | None = None,
) -> Row:
    """The network in the integers that the machine of ``config`` computes, quantized without images where ``calibration`` is None.

    ``checkpoint`` keeps what learned rounding has done. ``plain`` are the float network's outputs for the signal to noise.
    """
    torch.set_num_threads(threads)
    started = time.perf_counter()
    program = quantize(
        model,
        calibration=None if calibration is None else calibration.batches(model.image_format),
        example=model.example() if calibration is None else None,
        input_range=model.image_format.range,
        scheme=identity.scheme,
        bits={"*": identity.bits, **dict.fromkeys(identity.wide.split(), 8)},
        equalization=identity.equalization,
        bias_correction=identity.bias_correction,
        rounding=cast(Rounding, identity.rounding),
        checkpoint=checkpoint,
        progress=lambda done, total, what: progress(what, done, total),
    )
    imported = import_exported(program, config=config)
    graph = imported.graph
    quantized = time.perf_counter()
    torch.set_num_threads(1)
    parts = [samples.images[start : start + batch] for start in range(0, len(samples.labels), batch)]
    outputs, done = [], 0
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        for codes in pool.map(lambda part: output_codes(graph, model, part), parts):
            outputs.append(codes)
            done += len(codes)
            progress("images", done, len(samples.labels))
    codes = np.concatenate(outputs)
    last = graph.tensors[graph.outputs[0]]
    return _row(
        identity,
        codes,
        samples,
        quantize_seconds=quantized - started,
        run_seconds=time.perf_counter() - quantized,
        warnings=imported.warnings,
        signal_to_noise=None if plain is None else decibels(plain, (codes - last.zero_point) * last.scale),
    )


def decibels(plain: npt.NDArray[np.floating[Any]], found: npt.NDArray[np.floating[Any]]) -> float:
    """Energy of the outputs ``[images, classes]`` over that of their errors, each without its mean over an image's classes, in dB."""
    signal, noise = (values - values.mean(axis=1, keepdims=True) for values in (plain, found - plain))
    return float(10 * np.log10(np.square(signal).sum() / max(np.square(noise).sum(), 1e-30)))


def output_codes(graph: IntegerGraph, model: ImageNetwork, images: _Batch) -> npt.NDArray[np.int64]:
    """The output codes ``[images, classes]`` of 8-bit images, from the reference."""
    codes = run_reference(graph, input_codes(graph, normalize(images, image_format=model.image_format)))
    return codes[graph.outputs[0]].reshape(len(images), -1).astype(np.int64)


def _row(
    identity: Identity,
    outputs: npt.NDArray[np.generic],
    samples: Samples,
    *,
    quantize_seconds: float,
    run_seconds: float,
    warnings: tuple[str, ...] = (),
    signal_to_noise: float | None = None,
) -> Row:
    return Row(
        identity=identity,
        predictions=tuple(outputs.argmax(axis=1).tolist()),
        labels=tuple(samples.labels.tolist()),
        sources=samples.sources,
        ties=int(((outputs == outputs.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum()),
        quantize_seconds=quantize_seconds,
        run_seconds=run_seconds,
        warnings=warnings,
        signal_to_noise=signal_to_noise,
    )
