"""The slow path, twice a second: budgets in, prices and a clock out. Pure."""
