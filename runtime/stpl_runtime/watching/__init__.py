"""What watches a running stream: live skill and its alarm."""
