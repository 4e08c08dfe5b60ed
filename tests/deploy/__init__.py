"""What ops teams are handed: the image, the compose files, and what they mount."""
