"""Writing a bundle: its files, their provenance, and the comparison of two bundles."""
