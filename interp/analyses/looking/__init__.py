"""Looking at one prompt: how surprising its tokens are, what heads attend to, what an edit of a place does.

from interp.analyses import looking
looking.surprise(model, "the capital of France is")
looking.token_effects(model, "the capital of France is")
looking.attention(model, "the capital of France is", layers=14)
other = "the capital of Italy is"
looking.edit(model, "the capital of France is", "resid_post.2", 4, how="patch", source=other)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.looking.cell_edits import EDITS as EDITS
    from interp.analyses.looking.cell_edits import edit as edit
    from interp.analyses.looking.edited import CellEdit as CellEdit
    from interp.analyses.looking.patterns import Attention as Attention
    from interp.analyses.looking.patterns import attention as attention
    from interp.analyses.looking.scored import TokenScores as TokenScores
    from interp.analyses.looking.scored import token_effects as token_effects
    from interp.analyses.looking.scored import token_scores as token_scores
    from interp.analyses.looking.surprising import Surprise as Surprise
    from interp.analyses.looking.surprising import surprise as surprise

__getattr__, __dir__, __all__ = exports(__name__)
