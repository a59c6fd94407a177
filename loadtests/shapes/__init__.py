"""The capacity search, for locust: it takes the first shape that it finds among its files."""
