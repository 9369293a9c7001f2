"""What a population lives in: our own world, Gymnasium's or PettingZoo's, by the same few methods."""
