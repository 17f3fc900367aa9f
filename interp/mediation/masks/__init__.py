"""Learned masks: one gate per mediator, trained to keep the behaviour with few of them.

A row of ``GATES`` says how gates are drawn and what they cost; one trainer serves them all, over sites and
over edges. What a mask keeps is measured on the hard mask alone.
"""

from interp.mediation.masks.gates import GATES, Gate

__all__ = ["GATES", "Gate"]
