"""What protects from a stranger's file: budgets, checks, signatures, trusted classes."""
