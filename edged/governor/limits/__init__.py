"""What each limit allows now: one module a limit. Pure."""
