"""The page of `edged gateway`: live pictures, plots and the reasons of decisions in a browser."""
