"""What is left out before selection: leakage of evaluation data, redundancy, what was not retrieved."""
