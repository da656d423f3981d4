"""The benchmarks: see ../../benchmarks."""
