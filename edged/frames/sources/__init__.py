"""The kinds of sources behind source.py, one a file; each is the only one to know its library."""
