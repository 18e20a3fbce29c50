"""What goes in: protocols, images, and everything random."""
