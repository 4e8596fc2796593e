"""RTSP and RTP for H.264 and H.265: whole access units as they arrive, and how much of them was lost."""
