"""Compressed video up to a picture: access units, damage, decoding, and how a picture is shown."""
