"""From files, messages and pictures to frames."""
