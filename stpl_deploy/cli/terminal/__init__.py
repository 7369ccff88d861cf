"""Pictures in the terminal: what it can show, and how each protocol writes them."""
