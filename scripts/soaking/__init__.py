"""A long run of the daemon under changes: what is done to it, what is measured, and the verdict."""
