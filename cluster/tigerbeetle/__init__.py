"""What TigerBeetle says of itself: program, data file, log, answers, releases. No runtime."""
