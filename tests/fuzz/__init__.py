"""A fuzzer: sends random hostile bytes to server and client, and checks the results."""
