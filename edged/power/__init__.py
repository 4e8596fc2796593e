"""Power, temperature and clocks of the device: reading them, its power modes, its clock ceiling."""
