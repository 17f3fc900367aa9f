"""Can a label be read out of a layer, and is it the model's doing? A probe with its controls on one split.

For every layer asked, one probe is fitted on the training groups, its penalty is chosen on the validation
groups, and it is scored on the test groups. Of several layers one is chosen on validation. There the same
test examples are scored by the controls: each says what can be reached without the thing claimed.
"""

from interp.analyses.probing.controls import CONTROLS, METRICS
from interp.analyses.probing.result import ProbeResult
from interp.analyses.probing.run import check_kind, probe
from interp.analyses.probing.scores import Score

__all__ = ["CONTROLS", "METRICS", "ProbeResult", "Score", "check_kind", "probe"]
