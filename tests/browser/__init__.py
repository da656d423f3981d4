"""The pages in a browser: of the examples, and of the inspector."""
