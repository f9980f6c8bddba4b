"""For authors of source plug-ins and for flopsd's own tests: a manually stepped clock, a scripted source, and the
contract of every source."""

from flopsd.testing.contract import ContractViolation, SourceContract, violations
from flopsd.testing.fakes import FakeClock, ScriptedSource

__all__ = ["ContractViolation", "FakeClock", "ScriptedSource", "SourceContract", "violations"]
