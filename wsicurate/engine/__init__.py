"""How work is done, whatever the work is: workers, leases held, resuming, cached stages, progress, run records."""
