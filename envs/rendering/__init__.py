"""What the world looks like: text in a terminal, pixels, a window. Only `window` and `panel` need pygame."""
