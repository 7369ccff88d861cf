"""From frames to nowcasts: the window, the state, missing frames."""
