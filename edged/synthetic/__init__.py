"""The rendered scene: parts on a belt, the same for the same seed."""
