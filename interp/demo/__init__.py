"""The bundled model: its corpus, its training, its measurement and the copy that was taught false facts."""
