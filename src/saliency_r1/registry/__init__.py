"""What git remembers of the scheduled runs: nights with their metrics, models, and which one is the champion."""
