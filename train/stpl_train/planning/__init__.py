"""What training and export will need of memory, counted before they start."""
