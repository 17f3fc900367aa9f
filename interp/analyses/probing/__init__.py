"""Can a label be read out of a layer, and is it the model's doing? A probe with its controls on one split.

For every layer asked, one probe is fitted on the training groups, its penalty is chosen on the validation
groups, and it is scored on the test groups. Of several layers one is chosen on validation. There the same
test examples are scored by the controls: each says what can be reached without the thing claimed.
"""

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.probing.result import ProbeResult as ProbeResult
    from interp.analyses.probing.run import check_kind as check_kind
    from interp.analyses.probing.run import probe as probe
    from interp.analyses.probing.scores import CONTROLS as CONTROLS
    from interp.analyses.probing.scores import METRICS as METRICS
    from interp.analyses.probing.scores import Score as Score

__getattr__, __dir__, __all__ = exports(__name__)
