"""A process of its own that reads the bus as any subscriber and passes it on; the daemon never imports it."""
