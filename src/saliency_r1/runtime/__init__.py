"""How a stage runs: its start, its files, its processes."""
