"""The program file: a round trip, and an error for everything that can be wrong with it."""

import contextlib
import io
import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from tercel.hw.config import BASE, SMALL
from tercel.sw.layer import LayerSpec, build_layer
from tercel.sw.layer_tensors import random_tensors
from tercel.sw.program import Program, ProgramError


@pytest.fixture(scope="module")
def program() -> Program:
    spec, tensors = random_tensors(LayerSpec(kind="conv", input=(5, 4, 9), out=11, residual=True), SMALL, seed=1)
    return build_layer(spec, tensors, SMALL)


def test_round_trip(program, tmp_path):
    path = tmp_path / "layer.tnpu"
    program.save(path)
    again = Program.load(path, config=SMALL)
    assert again == program
    assert again.to_bytes() == path.read_bytes()
    assert np.array_equal(again.memory(), program.memory())


def test_memory_holds_segments_inputs_and_instructions(program):
    codes = np.arange(5 * 4 * 9).reshape(5, 4, 9) % 256
    memory = program.memory({"input": codes})
    assert np.array_equal(program.inputs[0].read(memory), codes)
    first = memory[program.program_base : program.program_base + 80]
    assert int.from_bytes(first.tobytes(), "little") == program.words[0]
    for segment in program.segments:
        if segment.name != "input":
            assert memory[segment.address : segment.address + len(segment.data)].tobytes() == segment.data


def test_inputs_are_checked(program):
    with pytest.raises(ProgramError, match=r"^input must be one of input, residual, not 'image' \(the program's inputs\)$"):
        program.memory({"image": np.zeros((5, 4, 9), dtype=np.int64)})
    with pytest.raises(ProgramError, match=r"^input must have shape \[5, 4, 9\], not \[5, 4\] \(height, width, channels\)$"):
        program.memory({"input": np.zeros((5, 4), dtype=np.int64)})
    with pytest.raises(ProgramError, match=r"^input must hold codes in 0..255, not -1..-1 \(quantize it first\)$"):
        program.memory({"input": np.full((5, 4, 9), -1)})


def test_every_truncation_is_an_error(program):
    data = program.to_bytes()
    for length in [*range(0, len(data), 97), len(data) - 1]:
        with pytest.raises(ProgramError, match=r"^archive must be a whole zip file, but: .* \(the file is truncated or damaged\)$"):
            Program.from_bytes(data[:length])


def test_every_damaged_byte_is_an_error_or_harmless(program):
    data = program.to_bytes()
    random = np.random.default_rng(5)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        with contextlib.suppress(ProgramError):
            assert Program.from_bytes(bytes(damaged)) == program


def rewritten(program: Program, *, instructions: bytes | None = None, memory: bytes | None = None, **changes: object) -> bytes:
    """The file with other contents in a whole archive; a change to None removes the manifest's field."""
    with zipfile.ZipFile(io.BytesIO(program.to_bytes())) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents["manifest.json"]) | changes
    contents["manifest.json"] = json.dumps({name: value for name, value in manifest.items() if value is not None}).encode()
    contents["instructions.bin"] = contents["instructions.bin"] if instructions is None else instructions
    contents["memory.bin"] = contents["memory.bin"] if memory is None else memory
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


CASES = [
    ({"format": "other"}, r"^format must be tercel program, not other \(use the release that wrote it\)$"),
    ({"format_version": 1}, r"^format_version must be 2 or 3, not 1 \(use the release that wrote it\)$"),
    ({"isa_version": None}, r"^isa_version must be 2, not 1 \(use the release that wrote it\)$"),
    ({"instructions": b"\0" * 80}, r"^instructions_sha256 must be [0-9a-f]{64}, not [0-9a-f]{64} \(the file is damaged\)$"),
    ({"memory": b""}, r"^memory_sha256 must be [0-9a-f]{64}, not [0-9a-f]{64} \(the file is damaged\)$"),
    ({"config_hash": "00000000"}, rf"^config_hash must be {SMALL.hash:08x}, not 00000000 \(the file is damaged\)$"),
    ({"config": {"pixels": 7}}, r"^config fields must be \['array_depth', .*\], not \['pixels'\] \(the file is damaged\)$"),
    ({"segments": []}, r"^segments must be 0 bytes, not \d+ bytes \(the file is damaged\)$"),
    ({"memory_bytes": 100}, r"^segment input must lie in 0\.\.100, not at 256$"),
    ({"outputs": None}, r"^manifest\.json must describe a program, but 'outputs' is missing or of another type \(compile it again\)$"),
    ({"marks": [{"first": 0}]}, r"^manifest\.json must describe a program, but 'instructions' is missing or of another type \(.*\)$"),
]


@pytest.mark.parametrize(("changes", "message"), CASES, ids=[next(iter(case[0])) for case in CASES])
def test_wrong_contents(program, changes, message):
    with pytest.raises(ProgramError, match=message):
        Program.from_bytes(rewritten(program, **changes))


def test_other_archives_and_missing_files(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    message = r"^members must be manifest\.json, instructions\.bin, memory\.bin, not readme\.txt \(this is no program file\)$"
    with pytest.raises(ProgramError, match=message):
        Program.from_bytes(buffer.getvalue())
    with pytest.raises(ProgramError, match=rf"^{re.escape(str(tmp_path))}/none\.tnpu cannot be read: No such file or directory$"):
        Program.load(tmp_path / "none.tnpu")


def test_program_for_another_config(program):
    message = r"^config of the program must be that of the machine, but pixels is 3 there and 7 here, .* \(compile it for 'base'\)$"
    with pytest.raises(ProgramError, match=message):
        Program.from_bytes(program.to_bytes(), config=BASE)
    assert Program.from_bytes(program.to_bytes(), config=replace(SMALL, name="renamed")) == program
