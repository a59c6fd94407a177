"""What traffic a load stands for: arrival profiles, mixes of actions, populations, scenarios."""
