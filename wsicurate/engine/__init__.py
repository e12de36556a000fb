"""How work is done, whatever the work is: runs over slides, workers, leases, cached stages, progress, run records."""
