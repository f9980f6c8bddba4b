"""Whether NVIDIA's confidential computing is on. It turns performance counters off, so that they are not a side
channel; in its mode for developer tools they are on, and nothing is protected.

Source: nvml.h 13.5.37; NVIDIA, "Confidential Computing on H100 GPUs for Secure and Trustworthy AI", 2023. No source
says whether GPM counts as a performance counter there. Never tried on a GPU in that mode.
"""

from __future__ import annotations

from flopsd.sources.nvml.driver import Driver
from flopsd.sources.nvml.profiling_access import ProfilingAccess, profiling_access

OFF = "off"
ON = "on: performance counters are then off, according to NVIDIA's documentation"
DEVELOPER_TOOLS = (
    "on for developer tools: performance counters are then on and nothing is protected, according to NVIDIA's "
    "documentation"
)


def confidential_computing(driver: Driver) -> str | None:
    """Return the mode of this machine's GPUs, in words for ledger and doctor; None if the driver does not say."""
    call = getattr(driver.lib, "nvmlSystemGetConfComputeState", None)
    state = None if call is None else driver.optional(call)
    if state is None:
        return None
    if not state.ccFeature:
        return OFF
    return DEVELOPER_TOOLS if state.devToolsMode else ON


def profiling_access_of(driver: Driver) -> ProfilingAccess:
    """Return whether the profiling counters of this machine's GPUs are open to this process, and why."""
    return profiling_access(confidential_computing(driver) == ON)


def reasons(driver: Driver, why: str, fix: str) -> tuple[str, str]:
    """Return why a GPU gives no counters and what would help, with what is known to close its profiling counters."""
    access = profiling_access_of(driver)
    if access is not ProfilingAccess.CONFIDENTIAL_COMPUTING:
        return f"{why}; its profiling counters are closed to this process" if access.is_open is False else why, fix
    return f"{why}; confidential computing is {ON}", "none in this mode: an SPDM report and counters exclude each other"
