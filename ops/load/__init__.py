"""``make load``: what becomes of many photos at once, through a whole installation and a simulated provider."""
