"""The same model at another precision: schemes, quantized copies, and what survives in them."""
