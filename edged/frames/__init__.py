"""The life of a frame until it is chosen: source, ring, camera, schedule."""
