"""Identity over time: detections in, tracks, zones and their events out. Pure."""
