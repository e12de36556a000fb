"""The stages of `curate`, in the order in which they decide: inputs, quality, copies, draw, comparison."""
