"""What a configuration takes before it is run: memory of a device, disk, prompts, tokens, hours and money."""
