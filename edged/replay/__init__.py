"""What was recorded, read again: the log, the same decisions byte for byte, and what another budget had done."""
