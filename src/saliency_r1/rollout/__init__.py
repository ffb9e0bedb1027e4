"""From prompts to scored responses: generate, parse, segment, predict, reward; for training and evaluation alike."""
