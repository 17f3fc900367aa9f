"""What a chat model says of its own answer: edits that change it, and reasons for it, scored."""

from interp.analyses.own_explanations.counterfactuals import counterfactuals
from interp.analyses.own_explanations.explanations import explanations
from interp.analyses.own_explanations.sentences import Sentence

__all__ = ["Sentence", "counterfactuals", "explanations"]
