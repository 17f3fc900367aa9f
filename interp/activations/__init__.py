"""What was there: site to tensor, with the exact token ids, the positions and the model it came from.

On disk a value is a folder with ``activations.safetensors`` (the tensors, by site name) and
``activations.json`` (everything else, the tensor file's sha256 and a checksum of itself).
"""

from interp.activations.choosing import Examples, Sites
from interp.activations.value import Activations

__all__ = ["Activations", "Examples", "Sites"]
