"""What is learnt from measurements: latency, queueing, power, heat. Pure."""
