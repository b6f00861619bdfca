"""Teaching a small model by a larger one's answers."""
