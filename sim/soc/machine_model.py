"""A machine behind the link without any gateware: its registers, and the golden model when it is started."""

from dataclasses import dataclass, field

import numpy as np

from tercel.hw.config import Config
from tercel.hw.control.csr import ADDRESSES, CONTROL_START, CONTROL_STOP, IDENTITY, SETTINGS
from tercel.hw.control.supervisor import State
from tercel.hw.isa import ISA_VERSION, Fault
from tercel.sim.golden.machine import run_golden
from tercel.sim.soc.link_model import LinkModel


@dataclass(kw_only=True)
class MachineModel:
    """Ends a run in the moment it is started. Its counters are 0.

    Attributes
    ----------
    config
        The accelerator.
    memory
        Its memory.
    starts
        How often it was started.
    """

    config: Config
    memory: bytearray
    starts: int = 0
    _settings: dict[int, int] = field(default_factory=lambda: {ADDRESSES[name]: 0 for name in SETTINGS})
    _status: int = State.IDLE
    _fault_index: int = 0

    def read_csr(self, address: int) -> int:
        """As the gateware's registers."""
        constants = {"id": IDENTITY, "isa_version": ISA_VERSION, "config_hash": self.config.hash}
        values = {ADDRESSES[name]: value for name, value in constants.items()} | self._settings
        values |= {ADDRESSES["status"]: self._status, ADDRESSES["fault_index"]: self._fault_index}
        return values.get(address, 0)

    def write_csr(self, address: int, value: int) -> None:
        """As the gateware's registers; a start runs the program."""
        if address == ADDRESSES["control"]:
            if value & CONTROL_STOP:
                self._status, self._fault_index = State.IDLE, 0
            elif value & CONTROL_START:
                self._run()
        for name, bits in SETTINGS.items():
            if address == ADDRESSES[name]:
                self._settings[address] = value & ((1 << bits) - 1)

    def _run(self) -> None:
        self.starts += 1
        memory = np.frombuffer(self.memory, dtype=np.uint8)
        settings = {name: self._settings[ADDRESSES[name]] for name in SETTINGS}
        ended = run_golden(self.config, memory, **settings)
        self._fault_index = ended.fault_index
        self._status = State.DONE if ended.fault is Fault.NONE else State.FAULT | ended.fault << 4


def machine_link(config: Config, *, memory_bytes: int, payload_bytes: int = 2048) -> LinkModel:
    """The model of a whole system for ``config``, its memory full of noise."""
    memory = bytearray(np.random.default_rng(1).integers(0, 256, memory_bytes, dtype=np.uint8).tobytes())
    machine = MachineModel(config=config, memory=memory)
    return LinkModel(machine=machine, memory_width=config.memory_width, payload_bytes=payload_bytes, config_hash=config.hash)
