"""What `lrl <command>` does, one module per command. Importing this package imports neither torch nor lightning."""


class CommandError(Exception):
    """Something the user can put right; printed as `lrl: error: ...` without a traceback."""
