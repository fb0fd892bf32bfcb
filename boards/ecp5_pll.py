"""Clocks from the PLL of an ECP5 (Lattice FPGA-TN-02200, "ECP5 sysCLOCK PLL/DLL")."""

from dataclasses import dataclass

from amaranth.hdl import ClockSignal, Instance, Signal

from tercel.boards.clocks import ClockError, PllClocks

VCO_HZ = (400_000_000, 800_000_000)
DETECTOR_HZ = (3_125_000, 400_000_000)
"""Limits of the oscillator and of the phase detector's input."""

_PHASE_STEPS = 8
"""Of an oscillator's period."""


@dataclass(frozen=True, kw_only=True)
class Dividers:
    """``input`` and ``feedback`` give the rate of the output, ``output`` what the oscillator runs faster than that."""

    input: int
    feedback: int
    output: int


def pll_dividers(*, input_hz: int, clock_hz: int) -> Dividers:
    """The dividers that make just ``clock_hz``, with the fastest phase detector and then the fastest oscillator.

    Raises
    ------
    ClockError
        There are none.
    """
    for divider in range(1, 129):
        feedback = clock_hz * divider / input_hz
        if input_hz / divider < DETECTOR_HZ[0]:
            break
        if input_hz / divider <= DETECTOR_HZ[1] and feedback.is_integer() and 1 <= feedback <= 128:
            output = min(128, VCO_HZ[1] // clock_hz)
            if output and clock_hz * output >= VCO_HZ[0]:
                return Dividers(input=divider, feedback=int(feedback), output=output)
    raise ClockError(f"clock_hz must be a rate that the PLL makes from {input_hz} Hz, not {clock_hz} (a multiple of {input_hz // 5} Hz)")


class Ecp5Clocks(PllClocks):
    """See :class:`~tercel.boards.clocks.PllClocks`.

    Parameters
    ----------
    pin
        Resource of the platform with the input clock.
    input_hz
        Its rate.
    clock_hz
        Of the two domains.
    sdram_degrees
        By how much ``sdram`` is later, in 0..360 and to an eighth of the oscillator's period.
    """

    def __init__(self, *, pin: str, input_hz: int, clock_hz: int, sdram_degrees: float) -> None:
        super().__init__(pin=pin)
        self._input_hz = input_hz
        self._clock_hz = clock_hz
        self._dividers = pll_dividers(input_hz=input_hz, clock_hz=clock_hz)
        self._shift = round(sdram_degrees / 360 * self._dividers.output * _PHASE_STEPS)

    def pll(self, pin: Signal, locked: Signal) -> Instance:
        """The first output closes the loop, the second is the shifted one."""
        dividers = self._dividers
        first_phase = dividers.output - 1
        return Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=f"{self._input_hz / 1e6:g}",
            a_FREQUENCY_PIN_CLKOP=f"{self._clock_hz / 1e6:g}",
            a_FREQUENCY_PIN_CLKOS=f"{self._clock_hz / 1e6:g}",
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            p_PLLRST_ENA="DISABLED",
            p_INTFB_WAKE="DISABLED",
            p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED",
            p_FEEDBK_PATH="CLKOP",
            p_CLKI_DIV=dividers.input,
            p_CLKFB_DIV=dividers.feedback,
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_DIV=dividers.output,
            p_CLKOP_CPHASE=first_phase,
            p_CLKOP_FPHASE=0,
            p_CLKOS_ENABLE="ENABLED",
            p_CLKOS_DIV=dividers.output,
            p_CLKOS_CPHASE=first_phase + self._shift // _PHASE_STEPS,
            p_CLKOS_FPHASE=self._shift % _PHASE_STEPS,
            i_CLKI=pin,
            i_CLKFB=ClockSignal("sync"),
            i_RST=0,
            i_STDBY=0,
            i_PHASESEL0=0,
            i_PHASESEL1=0,
            i_PHASEDIR=0,
            i_PHASESTEP=0,
            i_PHASELOADREG=0,
            i_PLLWAKESYNC=0,
            i_ENCLKOP=0,
            i_ENCLKOS=0,
            o_CLKOP=ClockSignal("sync"),
            o_CLKOS=ClockSignal("sdram"),
            o_LOCK=locked,
        )
