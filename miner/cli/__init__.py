"""What a person types, and how it is shown: a module a command, each imported when its command runs."""
