"""Is the entity between two facts recalled, is it used, and are both questions answered?

The latent multi-hop analysis of Yang et al. 2024 (arXiv 2402.16837), layer by layer: EntRec is how strongly
the stream at the end of 'the country whose capital is Paris' says 'France'; CnstScore is how alike the
answers to the two-hop and the one-hop question are.
"""

from interp.analyses.multi_hop.run import two_hop
from interp.tasks.chains import Chain

__all__ = ["Chain", "two_hop"]
