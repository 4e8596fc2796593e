"""The way out and the way in: results over ZeroMQ, control requests."""
