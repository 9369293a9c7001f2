"""The frozen base: where its weights come from, how they are held, and how they are multiplied."""
