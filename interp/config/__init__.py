"""Settings: one model per command, which is the flags, the YAML file and the Python call at once.

Precedence: flag > ``--set key=value`` > ``--config`` file > environment (``INTERP_*``) > ``interp.yaml`` >
    default. Every value
remembers where it came from; an unknown key is an error that names the nearest known one.
"""

from interp.config.choices import choose, suggestion
from interp.config.commands import (
    COMMANDS,
    CaptureConfig,
    CompareConfig,
    Config,
    DecodeConfig,
    DoctorConfig,
    ListConfig,
    PatchConfig,
    ProbeConfig,
    ReportConfig,
    ShowConfig,
)
from interp.config.resolve import Resolved, resolve

__all__ = [
    "COMMANDS",
    "CaptureConfig",
    "CompareConfig",
    "Config",
    "DecodeConfig",
    "DoctorConfig",
    "ListConfig",
    "PatchConfig",
    "ProbeConfig",
    "ReportConfig",
    "Resolved",
    "ShowConfig",
    "choose",
    "resolve",
    "suggestion",
]
