"""The exceptions of the toolkit: one family, each with the exit code the command line ends with.

Every message says what was asked, what was found, and what to do instead.
"""

from __future__ import annotations

__all__ = [
    "AlignmentError",
    "ArtifactError",
    "ConfigError",
    "DataError",
    "GateError",
    "InterpError",
    "ModelError",
    "OutOfMemoryError",
    "SiteError",
    "counted",
    "out_of_memory",
]


class InterpError(Exception):
    """Be the parent of every error this package raises on purpose."""

    exit_code: int = 1


class ConfigError(InterpError):
    """Report a wrong flag, argument or configuration value (exit code 2)."""

    exit_code = 2


class SiteError(ConfigError):
    """Report a site, layer or position that the model does not have (exit code 2)."""


class DataError(InterpError):
    """Report input data that cannot be used (exit code 3)."""

    exit_code = 3


class AlignmentError(DataError):
    """Report clean and corrupt prompts whose tokens do not line up (exit code 3)."""


class ModelError(InterpError):
    """Report a model that cannot be loaded or fails a check (exit code 4)."""

    exit_code = 4


class OutOfMemoryError(InterpError):
    """Report memory exhausted even at batch size one (exit code 5)."""

    exit_code = 5


class ArtifactError(InterpError):
    """Report a saved file that is corrupt or belongs to something else (exit code 6)."""

    exit_code = 6


class GateError(InterpError):
    """Report a finished run that failed a requested gate such as ``--fail-under`` (exit code 7)."""

    exit_code = 7


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, torch's of a GPU, or torch's of the CPU.

    The last is a RuntimeError like any other, which only its text tells apart.

    Args:
        error: that was raised.
    """
    kinds = {one.__name__ for one in type(error).__mro__}
    return bool(kinds & {"OutOfMemoryError", "MemoryError"}) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def counted(n: int, one: str, many: str = "") -> str:
    """A number of things: ``1 group``, ``12 groups``; ``many`` where the plural takes more than an s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
