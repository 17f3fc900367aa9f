"""What a graph's report says in words, whatever the graph."""

from __future__ import annotations

__all__ = ["CAUTIONS", "READ", "READ_CAUTION", "TESTED", "percent"]

READ = (
    "Read from another program's file, which names the model {model!r}: {nodes} and {edges}, as they "
    "stand there. Nothing was run or tested here; only the prompt's tokens and the layers were compared "
    "with the model that was given. The influence of a node is the step of the file's running sum: at "
    "most that share of all nodes', since nodes that the file leaves out count with the next."
)
"""What was done where nothing was."""
READ_CAUTION = (
    "This is one prompt, and what another program made of it. Of its edges none was tested: make the "
    "graph here (`interp graph PROMPT`) to have it tested."
)
TESTED = (
    "Each drawn edge was tested: its source is {how}, everything after it responds, and the change of its"
    " target is compared with the edge's weight. It is confirmed where the sign is right and the size "
    "between half and twice. Where a source is all that its target reads, the test could not fail and "
    "does not count. The control puts another node in the source's place. Then all tokens are {all} along "
    "drawn edges alone, every node on the way works out anew what it writes, and the rest of the model stays "
    "as it was: that change of the answer beside the one where everything reads the tokens so is what drawn "
    "paths carry. Its control are random graphs of whole paths, of as many edges."
)
CAUTIONS = (
    "This is one prompt: effects of nodes have no interval, and those of shares treat edges as "
    "independent, which edges of one node are not.",
    "Where heads look (their queries and keys) is held in the edges, so what decides it is not in "
    "the graph; in the tests it responds.",
    "A head is read along the output's own gradient: an edge into it is about that part of what it writes.",
    "A confirmed edge says that its target depends on its source by about so much in this prompt, "
    "not what either stands for, nor that it was learned: graphs of untrained models are confirmed "
    "as often. Promoted words are a reading of what is written, not a meaning.",
)
"""What a graph of one prompt does not show."""


def percent(share: float) -> str:
    """A share in whole percent; 0% and 100% only where it is that.

    Args:
        share: between 0 and 1.
    """
    if 1e-9 < share < 1 - 1e-9:
        return "under 1%" if share < 0.005 else "over 99%" if share >= 0.995 else f"{share:.0%}"
    return f"{share:.0%}"
