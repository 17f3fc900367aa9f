"""Terms of art and what they mean, for the foot of a report. A report lists those that it uses."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["GLOSSARY", "terms_in"]

GLOSSARY: dict[str, str] = {
    "accuracy": "The share of test prompts whose label is read correctly; 1 is all of them.",
    "belief": "What the model itself says, true or not.",
    "bag of words": "A probe that reads the words of the prompt and never the model.",
    "benign edit": "A change of the prompt after which the same answer is right: another template, a typo.",
    "bits per byte": "-log2 of a text's probability, over its bytes in UTF-8; lower is shorter.",
    "chance": "What luck gives: of labels, guessing all equally often; of effects, signs that agree by luck.",
    "circuit": "A few parts of a model that are claimed to carry a behaviour together.",
    "claimed": "Of prompts: the best similarity is above what 95% of states with exchanged coordinates reach "
    "(in them there is nothing to read), and the state is no farther from those of training than 95% of "
    "validation states; for prompts like these.",
    "clear": "Of an effect: above three noise floors, so it is no rounding. Of an interval: without zero.",
    "completeness": "Whether the model without the circuit fails as the circuit without its members.",
    "concept": "A name with a vector of its own; the probe says whose vector a state resembles most.",
    "control": "The same measurement without what is claimed; a number is worth what it has over it.",
    "cosine": "How alike two vectors are, from -1 to 1; to be read against its floor.",
    "delta": "The smallest change of the excess that would matter: three noise floors, or 10% of the "
    "reference's excess if larger. The 10% are taken item by item, so that their uncertainty counts.",
    "dense": "A quantized model with the scheme's numbers in its own modules, in full precision arithmetic.",
    "denoising": "The corrupt prompt, with the mediator's value from the clean one: is it enough?",
    "dose": (
        "How far the state is pushed. Towards another label 1 is the mean distance between two prompts of "
        "different labels, along the direction from one to the other; along a steering vector it is the "
        "length that the vector's card gives."
    ),
    "divergence": "How far the distribution of the next token is from another (Kullback-Leibler), in nats.",
    "counterfactual example": "A text that a model edits so that its own answer becomes another one.",
    "effective rank": "How many dimensions states fill: exp of the entropy of their singular values' shares. "
    "ERV and ERA are its velocity and acceleration over the tokens of a text.",
    "excess": "The value less its own model's control. A verdict is on its change, item by item.",
    "fact": "What a prompt asks, such as the capital of France. Prompts of one fact are not independent.",
    "faithfulness": "The share of the behaviour kept when only the circuit is as in the clean run.",
    "false positive rate": "The share of what should raise no alarm that raises one.",
    "finding": "One number of an analysis, measured item by item, with a control that it has to beat.",
    "floor": "What the best constant prediction scores.",
    "group": (
        "Prompts or pairs that share what is asked about (a word, a fact). They are not independent: "
        "intervals draw whole groups, and a probe or a circuit is tested on groups that it has not seen."
    ),
    "hypervector": "A vector of thousands of coordinates; two random ones hardly resemble each other.",
    "inconclusive": "The data cannot tell. That a difference is not significant proves nothing.",
    "interaction": "Noising less denoising: how much the effect depends on the state of everything else.",
    "interval": (
        "Where the number would lie if other groups of the same kind had been drawn, in 95% of draws. It is "
        "computed over groups, because prompts of one group are not independent."
    ),
    "layer": "One of the model's blocks, counted from 0.",
    "left without it": "What remains when only the circuit is as in the corrupt run: 0 if nothing else does.",
    "logit lens": "The model's own last step applied to an earlier layer.",
    "lost": "Shown by the reference, and in the other model no better than its control: nothing is left.",
    "mean reciprocal rank": "One over the right concept's place in the ranking, averaged; 1 is always first.",
    "mediator": "A part of the model whose value is replaced: a layer's stream, a head, a neuron.",
    "minimality": "Whether every member of the circuit is needed, one by one.",
    "nats": "The unit of differences of log-probability; a factor of e, about 2.7, in probability.",
    "noise floor": "What the same numbers change when they are computed in another batch, or in bfloat16.",
    "noising": "The clean prompt, with the mediator's value from the corrupt one: is it needed?",
    "not shown by the reference": "The interval of its excess includes zero, or the excess is not above six "
    "noise floors. There is nothing to survive.",
    "packed": "A quantized model with the library's own modules: their memory and speed.",
    "permuted codebook": "The same vectors under exchanged names: what can be read is then not the concept.",
    "perplexity": "How surprised a model is by a text: as if it chose among so many tokens at every step.",
    "pivotal edit": "A small change of the prompt after which another answer is right.",
    "probe": (
        "A small classifier that is trained to read a label off vectors. The model itself is not trained."
    ),
    "q": "False discovery rate: the share of those with so small a q that would be there by luck.",
    "random directions": "What changing the state by as much does anyway, whatever the direction.",
    "residual stream": (
        "The vector a model carries along at each token; every layer reads it and adds to it. It is read "
        "after the layer."
    ),
    "scheme": "At what precision a model is run, such as int8 or int4, and with which library.",
    "shuffled labels": "The same probe fitted on labels in a random order: what it reads then is luck.",
    "strengthened": "Its excess is larger by more than delta: further from its control, not always better.",
    "survives": "The change of its excess is shown to be within delta.",
    "told from chance": (
        "So large a mean is rare if signs of groups are luck: q, over all that were tested, is at most 0.05."
    ),
    "top-1": "The share of test prompts whose most similar concept is the right one; 1 is all of them.",
    "total effect": "What exchanging the whole clean prompt for the corrupt one changes.",
    "weakened": "Its excess is shown to be smaller by more than delta, and not shown to be gone.",
}
"""Term, in the singular and lower case -> one or two sentences."""


def terms_in(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The terms that some texts use, in alphabetical order, each with its meaning.

    Longer terms are looked for first: a "noise floor" is no "floor". What a sentence says is "not shown to
    be" something is not the verdict "not shown".
    """
    text, found = " ".join(texts).lower().replace("not shown to", ""), []
    for term in sorted(GLOSSARY, key=len, reverse=True):
        text, count = re.subn(rf"(?<![\w-]){re.escape(term)}(s|es)?(?![\w-])", "|", text)
        if count:
            found.append(term)
    return tuple((term, GLOSSARY[term]) for term in sorted(found))
