"""What the variants still see beside the reference. Pure."""
