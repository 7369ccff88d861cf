"""Nowcasts drawn: the pictures that PNG, GIF and MP4 are made of."""
