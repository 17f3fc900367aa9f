"""The schemes: at what precision a model's weights are held, one row each."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import Literal

from interp.errors import ConfigError

__all__ = ["SCHEMES", "Scheme"]


@dataclass(frozen=True)
class Scheme:
    """A precision of the weights, or of keys and values, and the library that gives it.

    Attributes:
        name: what users type; with ``-g32`` behind it another group size, such as ``int4-g32``.
        bits: of a weight, or of a key's or value's number.
        library: a key of ``LIBRARIES``; "" for schemes that are a type of number and no quantization.
        description: one line.
        group: weights along the input that share a scale; 0 for a whole row.
        regroups: whether the group size can be chosen.
        needs_calibration: whether texts are needed to choose the rounding.
        gradient_safe: whether gradients through the library's own modules are right on a CPU (mode "packed";
            in mode "dense" they always are).
        weight_only: whether activations keep their precision.
        devices: where it runs.
        packs: whether there is a mode "packed".
        holds: what is held at that precision: ``weights``, or the ``cache`` of keys and values.
    """

    name: str
    bits: int
    library: str
    description: str
    group: int = 0
    regroups: bool = False
    needs_calibration: bool = False
    gradient_safe: bool = True
    weight_only: bool = True
    devices: tuple[str, ...] = ("cpu", "cuda")
    packs: bool = True
    holds: Literal["weights", "cache"] = "weights"

    @classmethod
    def parse(cls, text: str | Scheme) -> Scheme:
        """Read ``int8``, ``int4-g32``, ``nf4``; ``str`` of the scheme gives the text back.

        Raises:
            ConfigError: no such scheme, or a group size where none can be chosen.
        """
        if isinstance(text, Scheme):
            return text
        name, _, size = text.strip().lower().partition("-g")
        if name not in SCHEMES:
            near = difflib.get_close_matches(name, SCHEMES, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"scheme {text!r} asked; there are: {', '.join(SCHEMES)}.{hint}")
        row = SCHEMES[name]
        if "-g" not in text.lower():
            return row
        if not row.regroups:
            grouped = ", ".join(one.name for one in SCHEMES.values() if one.regroups)
            raise ConfigError(
                f"scheme {text!r} asked, but {name} has no group size; those that do: {grouped}."
            )
        if not re.fullmatch(r"[1-9]\d{0,4}", size):
            raise ConfigError(
                f"scheme {text!r} asked; the group size is a whole number up to 99999, as in {name}-g32."
            )
        return replace(row, group=int(size))

    def __str__(self) -> str:
        """What :meth:`parse` reads."""
        return self.name if self.group == SCHEMES[self.name].group else f"{self.name}-g{self.group}"


_ROWS = (
    Scheme("fp32", 32, "", "nothing is changed: the control of every comparison"),
    Scheme("bf16", 16, "", "weights and arithmetic in bfloat16: a noise floor", weight_only=False),
    Scheme("rtn8", 8, "builtin", "round to nearest, one scale per row"),
    Scheme("rtn4", 4, "builtin", "round to nearest, with offset", group=64, regroups=True),
    Scheme("rtn2", 2, "builtin", "round to nearest, with offset: four levels, little survives", 64, True),
    Scheme("int8", 8, "torchao", "torchao Int8WeightOnly, symmetric, one scale per row"),
    Scheme("int4", 4, "torchao", "torchao IntxWeightOnly, kept one value a byte", group=64, regroups=True),
    Scheme("fp8", 8, "torchao", "torchao Float8WeightOnly: e4m3 numbers, one scale per row"),
    Scheme("hqq8", 8, "hqq", "built in: half-quadratic offsets, at 8 bits", group=64, regroups=True),
    Scheme("hqq4", 4, "hqq", "built in: half-quadratic offsets (HQQ)", group=64, regroups=True),
    Scheme(
        "bnb8",
        8,
        "bitsandbytes",
        "LLM.int8(): packed, it rounds activations too",
        gradient_safe=False,
        weight_only=False,
    ),
    Scheme("nf4", 4, "bitsandbytes", "4-bit normal float, blocks of 64", group=64),
    Scheme("fp4", 4, "bitsandbytes", "4-bit float, blocks of 64", group=64),
    Scheme("gguf:q8_0", 8, "gguf", "GGUF Q8_0: blocks of 32 with a scale", 32, packs=False),
    Scheme("gguf:q5_1", 5, "gguf", "GGUF Q5_1: blocks of 32 with scale and offset", 32, packs=False),
    Scheme("gguf:q5_0", 5, "gguf", "GGUF Q5_0: blocks of 32 with a scale", 32, packs=False),
    Scheme("gguf:q4_1", 4, "gguf", "GGUF Q4_1: blocks of 32 with scale and offset", 32, packs=False),
    Scheme("gguf:q4_0", 4, "gguf", "GGUF Q4_0: blocks of 32 with a scale", 32, packs=False),
    Scheme("gptq4", 4, "gptqmodel", "GPTQ: rounding that makes up for itself", 64, True, True, packs=False),
    Scheme("gptq8", 8, "gptqmodel", "GPTQ at 8 bits", 64, True, True, packs=False),
    Scheme("awq4", 4, "gptqmodel", "AWQ: large channels scaled before rounding", 64, True, True, packs=False),
    *(
        Scheme(
            f"kv{bits}",
            bits,
            "",
            "keys and values of each token and head rounded to nearest; weights are untouched",
            gradient_safe=False,
            weight_only=False,
            packs=False,
            holds="cache",
        )
        for bits in (8, 4)
    ),
)

SCHEMES: dict[str, Scheme] = {row.name: row for row in _ROWS}
