"""The two errors a person can cause. Every message names the value, the rule and the fix, in one to three lines."""


class StructmaeError(Exception):
    """Something a person gave cannot be used: a file, a graph, a folder. The command line prints it and exits 1."""

    exit_code = 1


class UsageError(StructmaeError):
    """A name, key or value that does not exist or is out of range. The command line points to --help and exits 2."""

    exit_code = 2
