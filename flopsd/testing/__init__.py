"""For authors of source plug-ins, and for our own tests: a clock that is stepped by hand, a scripted source,
and the contract that every source keeps."""

from flopsd.testing.contract import ContractViolation, SourceContract, violations
from flopsd.testing.fakes import FakeClock, ScriptedSource

__all__ = ["ContractViolation", "FakeClock", "ScriptedSource", "SourceContract", "violations"]
