"""A reset of its own for a part of the machine."""

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Module


def reset_domain(m: Module, reset, *, name: str) -> DomainRenamer:
    """Puts components, to become submodules of ``m``, into a domain ``name`` with the clock of ``m``'s own and ``reset`` for its reset.

    ``reset`` is a register that the own domain's reset leads to as well. Both together at each flip-flop would be logic on a wire that
    leads over half a chip.
    """
    domain = ClockDomain(name, local=True)
    m.domains += domain
    m.d.comb += [domain.clk.eq(ClockSignal()), domain.rst.eq(reset)]
    return DomainRenamer(name)
