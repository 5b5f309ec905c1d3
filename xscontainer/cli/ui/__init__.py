"""Terminal input and output that commands share: tables, columns, live views, prompts, progress."""
