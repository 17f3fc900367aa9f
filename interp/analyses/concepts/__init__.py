"""Concept probing: which concepts a Hyperdimensional Probe reads, under a protocol, against its controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.concepts.controls import BASELINES as BASELINES
    from interp.analyses.concepts.controls import CONTROLS as CONTROLS
    from interp.analyses.concepts.decoding import DecodeResult as DecodeResult
    from interp.analyses.concepts.decoding import decode as decode
    from interp.analyses.concepts.generation import GenerationResult as GenerationResult
    from interp.analyses.concepts.generation import probe_generation as probe_generation
    from interp.analyses.concepts.result import ConceptResult as ConceptResult
    from interp.analyses.concepts.run import probe_concepts as probe_concepts
    from interp.analyses.concepts.translated import TranslatedResult as TranslatedResult
    from interp.analyses.concepts.translated import decode_translated as decode_translated
    from interp.analyses.concepts.trial import codebook_of as codebook_of
    from interp.analyses.concepts.trial import trained_probe as trained_probe

__getattr__, __dir__, __all__ = exports(__name__)
