"""The commands of edged-calibrate, one file each: `run(arguments) -> exit code`. Nothing else imports from here."""
