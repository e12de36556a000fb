"""The parts of `doctor`: the machine, readers and codecs, the hub, the place of the store."""
