"""Command lines: keys of the config as flags, help, progress, and how a mistake is reported."""
