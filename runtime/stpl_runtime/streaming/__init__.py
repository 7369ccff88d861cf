"""A running stream: source -> nowcaster -> sinks, its counts and its state file."""
