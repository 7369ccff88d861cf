"""What this machine allows: CPUs by control group, memory."""
