"""This command is now `python -m trainers.export`."""

from evolution.commands import end_renamed

if __name__ == "__main__":
    end_renamed("trainers.export")
