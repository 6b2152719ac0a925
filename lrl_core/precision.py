"""Which precision a run computes in, and why: one line at its start."""

from pathlib import Path

import torch

DEFAULT = "32-true"
_CPUINFO = Path("/proc/cpuinfo")
_UNITS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of processors that multiply bfloat16 themselves: of Intel and AMD, then of ARM."""


def cpu_has_bf16(cpuinfo: Path = _CPUINFO) -> bool | None:
    """Whether this processor has units for bfloat16; None where the system does not say.

    Whether torch can compute in bfloat16 is another question: it can everywhere, without units many times slower.

    Args:
        cpuinfo: Where Linux describes the processor.
    """
    if not cpuinfo.is_file():
        return None
    words = {word for line in _flag_lines(cpuinfo.read_text(encoding="utf-8", errors="replace")) for word in line}
    return bool(words & _UNITS) if words else None


def has_bf16(device: torch.device) -> bool | None:
    """Whether a device has units for bfloat16; None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_has_bf16() if device.type == "cpu" else None


def reason(precision: str, device: str, units: bool | None) -> str:
    """The line about a run's precision.

    Args:
        precision: The trainer's, such as 32-true or bf16-mixed.
        device: cpu, cuda or another type.
        units: Whether that device has units for bfloat16; None where that cannot be told.
    """
    name = {"cpu": "CPU", "cuda": "GPU"}.get(device, device)
    why = "the default" if precision == DEFAULT else "as the recipe or the command asks"
    has = "" if units is None else f"; this {name} has {'' if units else 'no '}bf16 units"
    return f"precision: {precision} ({why}{has})"


def is_emulated(precision: str, units: bool | None) -> bool:
    """Whether a precision asks for bfloat16 where there are no units for it."""
    return units is False and precision.startswith(("bf16", "transformer-engine"))


def warning(precision: str, device: str) -> str:
    """What to say where bfloat16 is emulated.

    Args:
        precision: The trainer's.
        device: cpu or cuda.
    """
    return (
        f"trainer.precision is {precision}, but this {'CPU' if device == 'cpu' else 'GPU'} has no bf16 units: it only "
        f"imitates them, many times slower than {DEFAULT}. Leave trainer.precision out, or set it to {DEFAULT}."
    )


def _flag_lines(text: str) -> list[list[str]]:
    """The words of the lines that list what the processor can do."""
    lines = (line.partition(":") for line in text.splitlines())
    return [words.split() for key, _, words in lines if key.strip().lower() in ("flags", "features")]
