"""Does a model answer otherwise where an edit changes the right answer, and alike where it does not?"""

from interp.analyses.small_edits.edits import Edited, deletions, edited_prompts, typo
from interp.analyses.small_edits.run import sensitivity

__all__ = ["Edited", "deletions", "edited_prompts", "sensitivity", "typo"]
