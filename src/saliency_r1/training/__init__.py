"""Training: SFT, CGPO and what they share. Each trainer is one file that reads as its algorithm."""
