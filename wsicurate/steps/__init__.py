"""One file per verb of the command: config in, store in, store out; resume, workers, progress."""
