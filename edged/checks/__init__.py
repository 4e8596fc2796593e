"""What `edged check` and `edged doctor` look at."""
