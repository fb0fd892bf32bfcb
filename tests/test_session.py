"""The host's side of the link, on models of the machine: good lines and bad ones, and everything that can go wrong."""

import os
import random
import re
import threading
import tty

import numpy as np
import pytest
from compiled_networks import NetworkBuilder
from link_machine import PlainMachine

from tercel.hw.config import SMALL, TINY
from tercel.hw.isa import Fault, Opcode
from tercel.hw.link.protocol import REQUEST_HEADER, Command
from tercel.sim.backend import GoldenBackend
from tercel.sim.board_backend import RUNNING, BoardBackend, join_spans, open_board
from tercel.sim.cli import main
from tercel.sim.soc.link_model import LinkModel, ModelTransport, Noise, NoisyTransport
from tercel.sim.soc.machine_model import machine_link
from tercel.sw.compiler import compile_graph
from tercel.sw.link.frame import encode_frame
from tercel.sw.link.session import Session
from tercel.sw.link.transport import LinkError, SerialTransport

NOISE = Noise(corrupt=0.1, truncate=0.05, duplicate=0.1, delay=0.1, insert=0.05)


def plain_link(*, memory_bytes: int = 1024, memory_width: int = 4, payload_bytes: int = 64) -> LinkModel:
    machine = PlainMachine(memory=bytearray(random.Random(1).randbytes(memory_bytes)))
    return LinkModel(machine=machine, memory_width=memory_width, payload_bytes=payload_bytes)


def random_accesses(session: Session, machine: PlainMachine, *, count: int, seed: int) -> None:
    """Random reads and writes against a mirror of the memory."""
    rng = random.Random(seed)
    mirror, registers = bytearray(machine.memory), dict(machine.registers)
    for step in range(count):
        address = rng.randrange(len(mirror))
        length = min(rng.choice([0, 1, 3, rng.randrange(200)]), len(mirror) - address)
        kind = rng.randrange(4)
        if kind == 0:
            data = rng.randbytes(length)
            session.write_memory(address, data)
            mirror[address : address + length] = data
        elif kind == 1:
            assert session.read_memory(address, length) == mirror[address : address + length], step
        elif kind == 2:
            register = 4 * rng.randrange(40)
            registers[register] = rng.getrandbits(32)
            session.write_csr(register, registers[register])
        else:
            first, number = 4 * rng.randrange(20), rng.randint(1, 30)
            assert session.read_csr(first, count=number) == [registers.get(first + 4 * index, 0) for index in range(number)], step
    assert machine.memory == mirror
    assert machine.registers == registers


def test_good_line() -> None:
    """Any address and length; no repeats."""
    model = plain_link()
    with Session(ModelTransport(model)) as session:
        assert session.identity.memory_bytes == 1024
        assert session.identity.clock_hz == 48_000_000
        random_accesses(session, model.machine, count=400, seed=2)
        assert session.counts.repeats == session.counts.strays == 0


@pytest.mark.parametrize("seed", range(4))
def test_bad_line(seed: int) -> None:
    """Every access does what it does once, whatever happens to the frames on the way."""
    model = plain_link()
    line = NoisyTransport(ModelTransport(model), noise=NOISE, seed=seed)
    with Session(line, attempts=60) as session:
        random_accesses(session, model.machine, count=300, seed=seed)
        assert session.counts.repeats > 100
        assert line.counts.spoiled > 300


def test_sequence_wraps() -> None:
    """Numbers go round, and a new session goes on where the last one ended."""
    model = plain_link()
    model._last = 65530
    for _ in range(3):
        with Session(ModelTransport(model)) as session:
            random_accesses(session, model.machine, count=10, seed=4)


def test_old_requests_do_nothing() -> None:
    """A write that comes again after another one leaves no trace."""
    model = plain_link()
    old = encode_frame(REQUEST_HEADER.pack(Command.WRITE_MEMORY, 1, 0, 4) + b"old.")
    new = encode_frame(REQUEST_HEADER.pack(Command.WRITE_MEMORY, 2, 0, 4) + b"new!")
    assert model.feed(old + new) != b""
    assert model.feed(old) == b""
    assert model.feed(new) != b""
    assert model.machine.memory[:4] == b"new!"


class Switch(ModelTransport):
    """A line that can be cut."""

    cut = False

    def write(self, data: bytes) -> None:
        if not self.cut:
            super().write(data)


def test_errors() -> None:
    """Nobody there; gone; reset; another machine; an address past the memory; a request that the machine refuses; another version."""
    line = Switch(plain_link())
    line.cut = True
    with pytest.raises(LinkError, match=r"^model does not answer \(is a Tercel bitstream loaded, is it the right port, and the right baud"):
        Session(line)
    assert line.now() < 5
    line.cut = False
    session = Session(line)
    line.cut = True
    with pytest.raises(LinkError, match=r"^model stopped answering \(is the board still powered and plugged in\?\)$"):
        session.read_csr(0)
    line.cut = False
    session = Session(line)
    session.write_csr(0, 1)
    session.write_csr(0, 2)
    line.model = plain_link()
    with pytest.raises(LinkError, match=r"^model was reset, or another program uses it too \(start again, alone\)$"):
        session.read_csr(0)
    session.write_csr(0, 3)  # a session finds its place again
    line.model = plain_link(memory_bytes=512)
    with pytest.raises(LinkError, match=r"^model is another machine than before \(was another bitstream loaded\?\)$"):
        session.read_csr(0)
    with pytest.raises(LinkError, match=r"^address must lie in 0\.\.1024, not 1020\.\.1028 \(model has no more memory\)$"):
        session.read_memory(1020, 8)
    session = Session(line)
    with pytest.raises(LinkError, match=r"^model refused WRITE_CSR of 4 bytes at 0x2 with BAD_REQUEST: an address or size is not one of"):
        session.write_csr(2, 0)

    class Newer(ModelTransport):
        def read(self, timeout_s: float) -> bytes:
            answer = super().read(timeout_s)
            return encode_frame(answer[1:5] + b"\x07" + bytes(15)) if answer else b""

    with pytest.raises(LinkError, match=r"^model must speak version 1 of the link, not 7 \(build its bitstream with this release\)$"):
        Session(Newer(plain_link()), attempts=1)


def test_serial_errors() -> None:
    """No such port, on the command line too."""
    message = r"/dev/tercel-none cannot be opened at 3000000 baud: .* \(is the board plugged in, and have you the right to use it\?\)$"
    with pytest.raises(LinkError, match="^" + message):
        SerialTransport("/dev/tercel-none", baud=3_000_000)
    with pytest.raises(LinkError, match=r"^board must be a port, or PORT@BAUD, not '@9600' \(for example board:/dev/ttyUSB0\)$"):
        open_board("@9600")


def test_serial_port() -> None:
    """A session over a pseudo-terminal, until the other end goes away."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    model = plain_link()

    def serve() -> None:
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:
                return
            os.write(ours, model.feed(data))

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    transport = SerialTransport(os.ttyname(theirs), baud=3_000_000)
    session = Session(transport)
    random_accesses(session, model.machine, count=60, seed=5)
    assert transport.byte_seconds == 10 / 3e6
    os.close(theirs)
    session.close()
    server.join(timeout=5)
    os.close(ours)
    with pytest.raises(LinkError, match=r"^/dev/pts/\d+ is gone: .* \(was the cable unplugged\?\)$"):
        transport.write(b"x")


def program_for(config, *, seed: int = 0):
    builder = NetworkBuilder(config, input=(6, 6, 8), seed=seed, bits=2 if config is TINY else 8)
    out = builder.layer("conv", builder.input, out=8, kernel=(3, 3), padding=(1, 1, 1, 1))
    out = builder.layer("conv", out, out=8, kernel=(1, 1))
    return compile_graph(builder.graph(out), config)


@pytest.mark.parametrize("noise", [Noise(), NOISE], ids=["good", "bad"])
def test_backend(noise: Noise) -> None:
    """A network behind the link gives what the golden model gives, batch after batch; weights go over the line once."""
    program = program_for(SMALL)
    model = machine_link(SMALL, memory_bytes=1 << 16)
    line = NoisyTransport(ModelTransport(model), noise=noise, seed=3)
    sent: list[str] = []
    with BoardBackend(line, progress=lambda what, done, whole: sent.append(f"{what} {whole}"), attempts=60) as backend:
        for seed in range(3):
            codes = np.random.default_rng(seed).integers(0, 256, (6, 6, 8))
            result = backend.run(program, inputs={"image": codes})
            expected = GoldenBackend().run(program, inputs={"image": codes})
            assert result.fault is Fault.NONE
            for name, tensor in expected.outputs.items():
                np.testing.assert_array_equal(result.outputs[name], tensor)
        assert model.machine.starts == 3
    assert len({line for line in sent if not line.startswith(RUNNING)}) == 3, "the first run sends more than the others"
    with pytest.raises(
        LinkError, match=r"^model is a machine of config small \(hash [0-9a-f]{8}\), but the program is for tiny \(hash [0-9a-f]{8}\); "
    ):
        backend.run(program_for(TINY))
    with pytest.raises(LinkError, match=r"^model must have \d+ bytes of memory, not 1024 \(take a smaller network\)$"):
        BoardBackend(ModelTransport(machine_link(SMALL, memory_bytes=1024))).run(program)


def test_machine_with_other_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bitstream of an earlier release may be of the same config."""
    monkeypatch.setattr("tercel.sim.soc.machine_model.ISA_VERSION", 1)
    message = r"^model must have version 2 of the instruction set, not 1 \(build its bitstream with this release\)$"
    with pytest.raises(LinkError, match=message):
        BoardBackend(ModelTransport(machine_link(SMALL, memory_bytes=1 << 16))).run(program_for(SMALL))


def test_fault() -> None:
    """A fault is in the result."""
    from dataclasses import replace

    program = program_for(SMALL)
    words = [word for word, (opcode, _) in zip(program.words, program.instructions(), strict=True) if opcode is not Opcode.HALT]
    broken = replace(program, words=tuple(words))
    result = BoardBackend(ModelTransport(machine_link(SMALL, memory_bytes=1 << 16))).run(broken)
    assert (result.fault, result.fault_index) == (Fault.PROGRAM_END, len(words))


def test_run_on_board(tmp_path, monkeypatch, capsys) -> None:
    """``tercel run --on board:...``: outputs, and exit code 6 without a board."""
    from tercel.sim import execution

    program = program_for(SMALL)
    program.save(tmp_path / "net.tnpu")
    np.save(tmp_path / "codes.npy", np.zeros((1, 8, 6, 6), dtype=np.float32))
    arguments = ["run", str(tmp_path / "net.tnpu"), "--input", str(tmp_path / "codes.npy"), "--on"]
    assert main([*arguments, "board:/dev/tercel-none"]) == 6
    assert re.match(r"tercel: /dev/tercel-none cannot be opened", capsys.readouterr().err)
    assert main([*arguments, "soc:ulx4s"]) == 2
    assert capsys.readouterr().err.startswith("tercel: board must be one of ulx3s-85f, ulx3s-25f, tang-nano-20k, not 'ulx4s' ")
    monkeypatch.setitem(
        execution.LINKED, "board", lambda where, progress: BoardBackend(ModelTransport(machine_link(SMALL, memory_bytes=1 << 16)))
    )
    assert main([*arguments, "board:model"]) == 0
    assert "board:model: 0 cycles an image" in capsys.readouterr().out


def test_join_spans() -> None:
    assert join_spans([(8, 10), (0, 4), (4, 6), (5, 7), (9, 9), (3, 3)]) == [(0, 7), (8, 10)]
