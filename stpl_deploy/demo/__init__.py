"""What `stpl-deploy demo` adds to the other verbs: a feeding process, a skill table, a film."""
