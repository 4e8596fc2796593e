"""What the engine files still see: metrics, the gate, and which layers cost accuracy."""
