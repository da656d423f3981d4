"""The pages of the examples and of the inspector, in a browser."""
