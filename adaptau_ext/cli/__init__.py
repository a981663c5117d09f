"""The `adaptau` command: a file for each of its commands."""

from adaptau_ext.cli.app import app, main

__all__ = ["app", "main"]
