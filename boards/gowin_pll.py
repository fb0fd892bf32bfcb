"""Clocks from the rPLL of a GW2A (Gowin UG286, "Gowin Clock")."""

from amaranth.hdl import ClockSignal, Instance, Signal

from tercel.boards.clocks import ClockError, PllClocks

VCO_HZ = (500_000_000, 1_250_000_000)
DETECTOR_HZ_MIN = 3_000_000
_OUTPUT_DIVIDERS = (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)
_PHASES = 16


def rpll_dividers(*, input_hz: int, clock_hz: int) -> tuple[int, int, int]:
    """Dividers of input, feedback and output that make just ``clock_hz``; :class:`ClockError` if there are none."""
    for divider in range(1, min(64, input_hz // DETECTOR_HZ_MIN) + 1):
        feedback = clock_hz * divider / input_hz
        output = next((output for output in reversed(_OUTPUT_DIVIDERS) if VCO_HZ[0] <= clock_hz * output <= VCO_HZ[1]), None)
        if feedback.is_integer() and 1 <= feedback <= 64 and output:
            return divider, int(feedback), output
    raise ClockError(f"clock_hz must be a rate that the PLL makes from {input_hz} Hz, not {clock_hz} (a multiple of {input_hz // 9} Hz)")


class GowinClocks(PllClocks):
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
        By how much ``sdram`` is later, in 0..360 and to 22.5.
    """

    def __init__(self, *, pin: str, input_hz: int, clock_hz: int, sdram_degrees: float) -> None:
        super().__init__(pin=pin)
        self._input_hz = input_hz
        self._dividers = rpll_dividers(input_hz=input_hz, clock_hz=clock_hz)
        self._phase = round(sdram_degrees / 360 * _PHASES) % _PHASES

    def pll(self, pin: Signal, locked: Signal) -> Instance:
        """CLKOUT and, with phase and duty of its own, CLKOUTP."""
        divider, feedback, output = self._dividers
        unused = {f"i_{name}": 0 for name in ("CLKFB", "FBDSEL", "IDSEL", "ODSEL", "PSDA", "DUTYDA", "FDLY", "RESET", "RESET_P")}
        return Instance(
            "rPLL",
            p_FCLKIN=f"{self._input_hz / 1e6:g}",
            p_DEVICE="GW2A-18C",
            p_IDIV_SEL=divider - 1,
            p_FBDIV_SEL=feedback - 1,
            p_ODIV_SEL=output,
            p_PSDA_SEL=f"{self._phase:04b}",
            p_DUTYDA_SEL=f"{(self._phase + _PHASES // 2) % _PHASES:04b}",
            p_DYN_IDIV_SEL="false",
            p_DYN_FBDIV_SEL="false",
            p_DYN_ODIV_SEL="false",
            p_DYN_DA_EN="false",
            p_CLKFB_SEL="internal",
            p_CLKOUT_BYPASS="false",
            p_CLKOUTP_BYPASS="false",
            i_CLKIN=pin,
            o_CLKOUT=ClockSignal("sync"),
            o_CLKOUTP=ClockSignal("sdram"),
            o_LOCK=locked,
            **unused,
        )
