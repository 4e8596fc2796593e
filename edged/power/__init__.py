"""What the device says of itself."""
