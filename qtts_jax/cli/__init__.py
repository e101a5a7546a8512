"""The `qtts` command."""
