"""Which patches a budget buys: balanced over clusters, within caps."""
