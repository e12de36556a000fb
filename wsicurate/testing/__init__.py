"""Public helpers for tests of your own readers, stores, masks, clusterings and encoders."""
