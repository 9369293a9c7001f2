"""What a run keeps on disk: its folder, checkpoints, logs and recorded episodes."""
