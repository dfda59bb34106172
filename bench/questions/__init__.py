"""Questions about images: who answers them (judges), and the metrics that are made of the answers."""
