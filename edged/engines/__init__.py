"""The prebuilt engines of one model, resident and warm."""
