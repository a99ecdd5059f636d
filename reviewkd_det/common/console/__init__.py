"""The command line: arguments, commands to paste, errors in one sentence, hidden warnings."""
