"""What the command prints: progress, closing tables, summaries. No decisions."""
