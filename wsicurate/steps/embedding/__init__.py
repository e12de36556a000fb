"""What `embed` runs on: engines for networks and descriptors, and the tasks of workers."""
