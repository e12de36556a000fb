"""Networks: where their weights come from, how they are loaded, and how patches go through them."""
