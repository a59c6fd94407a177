"""What traffic a load stands for: scenarios, mixes, arrival profiles, populations."""
