"""Load profiles, one a file: locust takes the first shape it finds, so one is named at a time."""
