"""The patch store on disk: `docs/format.md`, written and read to the letter. No other folder imports Zarr."""
