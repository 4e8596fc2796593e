"""The commands, one file each: `run(arguments) -> exit code`. Nothing else in the house imports from here."""
