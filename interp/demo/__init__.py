"""The bundled model: its corpus, its training, its measurement and its edited twin."""
