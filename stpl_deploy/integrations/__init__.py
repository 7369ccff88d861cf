"""What other programs of the field take our nowcasts as."""
