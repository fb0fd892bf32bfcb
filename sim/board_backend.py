"""Runs programs on a machine at the other end of a link: a board, or the simulation of one."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tercel.hw.config import CONFIGS, Config
from tercel.hw.control.csr import ADDRESSES, CONTROL_START, CONTROL_STOP
from tercel.hw.control.supervisor import State
from tercel.hw.isa import INSTRUCTION_BYTES, ISA_VERSION, Fault
from tercel.sim.backend import CYCLE_COUNTER, Integers, Result
from tercel.sw.link.session import Identity, Session
from tercel.sw.link.transport import LinkError, SerialTransport, Transport
from tercel.sw.program import Program

BAUD = 3_000_000
"""Of the boards here: what their USB bridges reach and every core clock here is a multiple of."""

_SETTINGS = ("program_base", "read_base", "read_end", "write_base", "write_end")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many bytes of it are done, and the whole; while a program runs with its cycles so far, and 0."""

RUNNING = "running, cycles"
"""What is being done then."""

Span = tuple[int, int]


class BoardBackend:
    """A machine behind a link; a context manager. What a program's memory holds beside its contents is left as it is.

    The program and its weights are sent with the first run of it; later runs send its inputs, and what the run before may have overwritten.

    Parameters
    ----------
    transport
        The line.
    max_seconds
        A run that takes longer is stopped and raises :class:`~tercel.sw.link.transport.LinkError`.
    progress
        Told about bytes sent and received, and cycles of a run.
    preload
        Takes an address and the bytes for the memory there, in place of the line: the back door that only a simulation has. Outputs,
        counters, and what starts a program and asks for its end go over the line in any case.
    session_options
        Of :class:`~tercel.sw.link.session.Session`.

    Raises
    ------
    LinkError
        The machine does not answer.
    """

    name = "board"

    def __init__(
        self,
        transport: Transport,
        *,
        max_seconds: float = 60.0,
        progress: Progress | None = None,
        preload: Callable[[int, bytes], None] | None = None,
        **session_options: Any,
    ) -> None:
        self._transport = transport
        self._max_seconds = max_seconds
        self._progress = progress or (lambda *_: None)
        self._preload = preload
        self._loaded: Program | None = None
        self.session = Session(transport, **session_options)

    def __enter__(self) -> "BoardBackend":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the line."""
        self.session.close()

    @property
    def identity(self) -> Identity:
        """What the machine says of itself."""
        return self.session.identity

    def run(self, program: Program, *, inputs: Mapping[str, Integers] | None = None) -> Result:
        """As :meth:`~tercel.sim.backend.Backend.run`; of ``memory`` only the outputs are read back, the rest is as it was sent.

        Raises
        ------
        LinkError
            The machine has another config or instruction set or too little memory, does not end, or stops answering.
        """
        self._check(program)
        started = time.perf_counter()
        memory = program.memory(inputs)
        self.session.write_csr(ADDRESSES["control"], CONTROL_STOP)
        self._send(program, memory)
        fault, index = self._execute(program)
        counters = self._counters(program.config)
        for done, port in enumerate(program.outputs):
            self._progress("receiving", done, len(program.outputs))
            data = self.session.read_memory(port.address, port.size)
            memory[port.address : port.address + port.size] = np.frombuffer(data, dtype=np.uint8)
        return Result(
            memory=memory,
            outputs=program.read_outputs(memory),
            cycles=counters[CYCLE_COUNTER],
            counters=counters,
            fault=fault,
            fault_index=index,
            stray_writes=(),
            seconds=time.perf_counter() - started,
        )

    def _check(self, program: Program) -> None:
        name, identity = self._transport.name, self.identity
        if identity.config_hash != program.config.hash:
            here = next((config.name for config in CONFIGS.values() if config.hash == identity.config_hash), "of its own")
            raise LinkError(
                f"{name} is a machine of config {here} (hash {identity.config_hash:08x}), "
                f"but the program is for {program.config.name} (hash {program.config.hash:08x}); compile it for the one, or load the other"
            )
        if identity.memory_bytes < program.memory_bytes:
            raise LinkError(
                f"{name} must have {program.memory_bytes} bytes of memory, not {identity.memory_bytes} (take a smaller network)"
            )
        if self._loaded is None:
            (version,) = self.session.read_csr(ADDRESSES["isa_version"])
            if version != ISA_VERSION:
                raise LinkError(
                    f"{name} must have version {ISA_VERSION} of the instruction set, not {version} (build its bitstream with this release)"
                )

    def _send(self, program: Program, memory: npt.NDArray[np.uint8]) -> None:
        again = self._loaded is program
        contents = [span for span in content_spans(program) if not again or (span[0] < program.write_end and span[1] > program.write_base)]
        self._loaded = None
        joined = join_spans([*input_spans(program), *contents])
        whole, done = sum(end - start for start, end in joined), 0
        for start, end in joined:
            data = memory[start:end].tobytes()
            if self._preload is not None:
                self._preload(start, data)
            else:
                self.session.write_memory(start, data, progress=partial(self._sent, done, whole))
            done += end - start
        self._loaded = program

    def _sent(self, before: int, whole: int, sent: int, _: int) -> None:
        self._progress("sending", before + sent, whole)

    def _execute(self, program: Program) -> tuple[Fault, int]:
        session, now = self.session, self._transport.now
        for name in _SETTINGS:
            session.write_csr(ADDRESSES[name], getattr(program, name))
        session.write_csr(ADDRESSES["program_count"], len(program.words))
        session.write_csr(ADDRESSES["control"], CONTROL_START)
        started = now()
        while True:
            status, index = session.read_csr(ADDRESSES["status"], count=2)
            state = status & 3
            if state == State.DONE:
                return Fault.NONE, 0
            if state == State.FAULT:
                return Fault(status >> 4 & 15), index
            seconds = now() - started
            self._progress(RUNNING, int(seconds * session.identity.clock_hz), 0)
            if seconds > self._max_seconds:
                session.write_csr(ADDRESSES["control"], CONTROL_STOP)
                raise LinkError(
                    f"{self._transport.name} was still running after {self._max_seconds:g} s (it hangs, or max_seconds is too low)"
                )

    def _counters(self, config: Config) -> dict[str, int]:
        from tercel.hw.npu import counter_names

        names = counter_names(config)
        return dict(zip(names, self.session.read_csr(ADDRESSES["counters"], count=len(names)), strict=True))


def input_spans(program: Program) -> list[Span]:
    """Where its inputs lie."""
    return [(port.address, port.address + port.size) for port in program.inputs]


def content_spans(program: Program) -> list[Span]:
    """Where its instructions, weights and inputs as stored with it lie."""
    contents = [(segment.address, segment.address + len(segment.data)) for segment in program.segments]
    return [*contents, (program.program_base, program.program_base + INSTRUCTION_BYTES * len(program.words))]


def join_spans(spans: list[Span]) -> list[Span]:
    """The same bytes as ``spans`` (start, end), in ascending order and with those that touch or overlap as one."""
    joined: list[Span] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def open_board(where: str, *, progress: Progress | None = None) -> BoardBackend:
    """The machine at ``where``: a serial port, and after ``@`` its baud rate if it is not :data:`BAUD`.

    Raises
    ------
    LinkError
        The port cannot be opened, or nothing answers.
    """
    port, _, rate = where.partition("@")
    if not port or (rate and not rate.isdigit()):
        raise LinkError(f"board must be a port, or PORT@BAUD, not {where!r} (for example board:/dev/ttyUSB0)")
    transport = SerialTransport(port, baud=int(rate) if rate else BAUD)
    try:
        return BoardBackend(transport, progress=progress)
    except BaseException:
        transport.close()
        raise
