"""The command line: a module for each command, whose work is imported when the command runs."""
