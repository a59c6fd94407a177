"""What a person reads of a run: report, plots, comparison, gate."""
