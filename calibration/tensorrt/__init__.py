"""Building TensorRT plans on the device."""
